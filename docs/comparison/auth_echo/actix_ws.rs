use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::{env, fs};

use actix_web::http::header;
use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use actix_ws::{Message, MessageStream, Session};
use futures_util::StreamExt;

struct Members {
    file: PathBuf,
}

impl Members {
    fn find(&self, token: &str) -> io::Result<Option<String>> {
        for line in BufReader::new(fs::File::open(&self.file)?).lines() {
            match line?.split_once(' ') {
                Some((known, name)) if known == token => return Ok(Some(name.to_owned())),
                _ => {}
            }
        }
        Ok(None)
    }
}

fn cookie<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    let cookies = request.headers().get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

async fn upgrade(
    request: HttpRequest,
    body: Payload,
    members: Data<Members>,
) -> actix_web::Result<HttpResponse> {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let Some(token) = bearer.or_else(|| cookie(&request, "token")).map(str::to_owned) else {
        return Ok(unauthorized());
    };
    match web::block(move || members.find(&token)).await? {
        Ok(Some(name)) => {
            let (response, session, messages) = actix_ws::handle(&request, body)?;
            rt::spawn(echo(session, messages, name));
            Ok(response)
        }
        Ok(None) => Ok(unauthorized()),
        Err(_) => Ok(HttpResponse::ServiceUnavailable().finish()),
    }
}

fn unauthorized() -> HttpResponse {
    HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Bearer")).finish()
}

async fn echo(mut session: Session, mut messages: MessageStream, name: String) {
    while let Some(Ok(message)) = messages.next().await {
        let sent = match message {
            Message::Text(text) => session.text(format!("{name}: {text}")).await,
            Message::Binary(bytes) => session.binary(bytes).await,
            Message::Ping(bytes) => session.pong(&bytes).await,
            Message::Close(reason) => {
                let _ = session.close(reason).await;
                return;
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().map_or_else(|| PathBuf::from("members.txt"), PathBuf::from);
    let members = Data::new(Members { file });
    let app = move || App::new().app_data(members.clone()).route("/echo", web::get().to(upgrade));
    let server = HttpServer::new(app).bind(address)?;
    println!("ws://{}/echo, for who sends `Authorization: Bearer TOKEN`", server.addrs()[0]);
    server.run().await
}
