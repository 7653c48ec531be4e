use std::path::{Path, PathBuf};
use std::{env, io};

use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use actix_ws::{CloseCode, Item, Message, MessageStream, Session};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const FILE_BYTES: usize = 1 << 30;
const PIECE_BYTES: usize = 1 << 20;

/// A file's path; `None` if the name could lead elsewhere.
fn file_of(files: &Path, name: &str) -> Option<PathBuf> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !name.starts_with('.') && name.len() <= 100 && name.bytes().all(is_safe);
    (is_name && !name.is_empty()).then(|| files.join(name))
}

/// A file that is not whole yet; it vanishes when it is dropped.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn upload(
    request: HttpRequest,
    body: Payload,
    name: web::Path<String>,
    files: Data<PathBuf>,
) -> actix_web::Result<HttpResponse> {
    let Some(path) = file_of(&files, &name) else {
        return Ok(HttpResponse::BadRequest().finish());
    };
    let (response, mut session, messages) = actix_ws::handle(&request, body)?;
    let messages = messages.max_frame_size(PIECE_BYTES);
    rt::spawn(async move {
        let code = match store(&mut session, messages, &path).await {
            Ok(Some(bytes)) => {
                let _ = session.text(format!("stored {name}, {bytes} bytes")).await;
                CloseCode::Normal
            }
            Ok(None) => CloseCode::Size,
            Err(error) => {
                let _ = session.text(format!("not stored: {error}")).await;
                CloseCode::Error
            }
        };
        let _ = session.close(Some(code.into())).await;
    });
    Ok(response)
}

/// Stores one message, frame by frame; `None` if it is too much.
async fn store(
    session: &mut Session,
    mut messages: MessageStream,
    path: &Path,
) -> io::Result<Option<usize>> {
    let part = Part(path.with_file_name(format!(".{:032x}.part", rand())));
    let mut file = File::create_new(&part.0).await?;
    let mut bytes = 0;
    let mut told = 0;
    loop {
        let (piece, is_last) = match messages.recv().await {
            Some(Ok(Message::Binary(piece))) => (piece, true),
            Some(Ok(Message::Continuation(item))) => match item {
                Item::FirstBinary(piece) | Item::Continue(piece) => (piece, false),
                Item::Last(piece) => (piece, true),
                Item::FirstText(_) => return Err(io::ErrorKind::InvalidInput.into()),
            },
            Some(Ok(Message::Ping(bytes))) => {
                session.pong(&bytes).await.map_err(io::Error::other)?;
                continue;
            }
            Some(Ok(Message::Close(_))) | None => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(io::Error::other(error)),
        };
        bytes += piece.len();
        if bytes > FILE_BYTES {
            return Ok(None);
        }
        file.write_all(&piece).await?;
        if is_last {
            break;
        }
        if bytes - told >= PIECE_BYTES {
            told = bytes;
            session.text(format!("{bytes} bytes")).await.map_err(io::Error::other)?;
        }
    }
    file.sync_all().await?;
    fs::rename(&part.0, path).await?;
    Ok(Some(bytes))
}

fn rand() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    u128::from(RandomState::new().hash_one(0)) << 64 | u128::from(RandomState::new().hash_one(1))
}

async fn download(
    request: HttpRequest,
    body: Payload,
    name: web::Path<String>,
    files: Data<PathBuf>,
) -> actix_web::Result<HttpResponse> {
    let Some(path) = file_of(&files, &name) else {
        return Ok(HttpResponse::BadRequest().finish());
    };
    let (response, mut session, mut messages) = actix_ws::handle(&request, body)?;
    rt::spawn(async move {
        let code = tokio::select! {
            sent = send(&mut session, &path) => match sent {
                Ok(()) => CloseCode::Normal,
                Err(_) => CloseCode::Error,
            },
            // Nobody else notices that the client goes.
            () = async { while let Some(Ok(_)) = messages.recv().await {} } => return,
        };
        let _ = session.close(Some(code.into())).await;
    });
    Ok(response)
}

/// Sends a file as one binary message, piece by piece.
async fn send(session: &mut Session, path: &Path) -> io::Result<()> {
    let mut file = File::open(path).await?;
    let mut piece = vec![0; 64 << 10];
    let mut is_first = true;
    loop {
        let count = file.read(&mut piece).await?;
        let bytes = piece[..count].to_vec().into();
        let item = match (is_first, count) {
            (true, 0) => return session.binary(bytes).await.map_err(io::Error::other),
            (true, _) => Item::FirstBinary(bytes),
            (false, 0) => Item::Last(bytes),
            (false, _) => Item::Continue(bytes),
        };
        is_first = false;
        session.continuation(item).await.map_err(io::Error::other)?;
        if count == 0 {
            return Ok(());
        }
    }
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let directory = arguments.next().unwrap_or_else(|| "files".to_owned());
    fs::create_dir_all(&directory).await?;
    let files = Data::new(PathBuf::from(directory));
    let app = move || {
        App::new()
            .app_data(files.clone())
            .route("/upload/{name}", web::get().to(upload))
            .route("/download/{name}", web::get().to(download))
    };
    let server = HttpServer::new(app).bind(address)?;
    println!("ws://{}/upload/NAME, /download/NAME", server.addrs()[0]);
    server.run().await
}
