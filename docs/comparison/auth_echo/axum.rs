use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::task::spawn_blocking;

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

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

async fn upgrade(
    State(members): State<Arc<Members>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let Some(token) = bearer.or_else(|| cookie(&headers, "token")).map(str::to_owned) else {
        return unauthorized();
    };
    match spawn_blocking(move || members.find(&token)).await {
        Ok(Ok(Some(name))) => upgrade.on_upgrade(|socket| echo(socket, name)),
        Ok(Ok(None)) => unauthorized(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response()
}

async fn echo(mut socket: WebSocket, name: String) {
    while let Some(Ok(message)) = socket.recv().await {
        let answer = match message {
            Message::Text(text) => Message::text(format!("{name}: {text}")),
            Message::Binary(_) => message,
            _ => continue,
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().map_or_else(|| PathBuf::from("members.txt"), PathBuf::from);
    let app = Router::new().route("/echo", any(upgrade)).with_state(Arc::new(Members { file }));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ws://{}/echo, for who sends `Authorization: Bearer TOKEN`", listener.local_addr()?);
    axum::serve(listener, app).await
}
