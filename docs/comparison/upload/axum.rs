use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, io};

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path as Param, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
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
    upgrade: WebSocketUpgrade,
    Param(name): Param<String>,
    State(files): State<Arc<PathBuf>>,
) -> Response {
    let Some(path) = file_of(&files, &name) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let upgrade = upgrade.max_message_size(PIECE_BYTES).max_frame_size(PIECE_BYTES);
    upgrade.on_upgrade(move |mut socket| async move {
        match store(&mut socket, &path).await {
            Ok(Some(bytes)) => {
                let text = format!("stored {name}, {bytes} bytes");
                let _ = socket.send(Message::text(text)).await;
                close(socket, close_code::NORMAL).await;
            }
            Ok(None) => close(socket, close_code::SIZE).await,
            Err(error) => {
                let _ = socket.send(Message::text(format!("not stored: {error}"))).await;
                close(socket, close_code::ERROR).await;
            }
        }
    })
}

/// Stores what comes in binary messages, until a text ends it; `None` if it is too much.
async fn store(socket: &mut WebSocket, path: &Path) -> io::Result<Option<usize>> {
    let part = Part(path.with_file_name(format!(".{:032x}.part", rand())));
    let mut file = File::create_new(&part.0).await?;
    let mut bytes = 0;
    let mut told = 0;
    loop {
        match socket.recv().await {
            Some(Ok(Message::Binary(piece))) => {
                bytes += piece.len();
                if bytes > FILE_BYTES {
                    return Ok(None);
                }
                file.write_all(&piece).await?;
                if bytes - told >= PIECE_BYTES {
                    told = bytes;
                    let progress = Message::text(format!("{bytes} bytes"));
                    socket.send(progress).await.map_err(io::Error::other)?;
                }
            }
            Some(Ok(Message::Text(_))) => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(io::Error::other(error)),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
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
    upgrade: WebSocketUpgrade,
    Param(name): Param<String>,
    State(files): State<Arc<PathBuf>>,
) -> Response {
    let Some(path) = file_of(&files, &name) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    upgrade.on_upgrade(move |mut socket| async move {
        let code = match send(&mut socket, &path).await {
            Ok(()) => close_code::NORMAL,
            Err(_) => close_code::ERROR,
        };
        close(socket, code).await;
    })
}

/// Sends a file in binary messages: one would have to be in memory as a whole.
async fn send(socket: &mut WebSocket, path: &Path) -> io::Result<()> {
    let mut file = File::open(path).await?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        let message = Message::binary(piece[..count].to_vec());
        socket.send(message).await.map_err(io::Error::other)?;
    }
}

async fn close(mut socket: WebSocket, code: u16) {
    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
    // The peer's answer, so that what was sent before arrives.
    while let Some(Ok(_)) = socket.recv().await {}
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let directory = arguments.next().unwrap_or_else(|| "files".to_owned());
    fs::create_dir_all(&directory).await?;
    let app = Router::new()
        .route("/upload/{name}", any(upload))
        .route("/download/{name}", any(download))
        .with_state(Arc::new(PathBuf::from(directory)));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ws://{}/upload/NAME, /download/NAME", listener.local_addr()?);
    axum::serve(listener, app).await
}
