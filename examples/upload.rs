//! Files: uploaded while they arrive, downloaded while they are read, never in memory as a whole.
//!
//! ```text
//! cargo run --release --example upload -- [ADDRESS] [DIRECTORY]
//! ```
//!
//! `/upload/NAME` takes one binary message, answers each MiB of it that is on disk by its progress,
//! and `stored NAME, N bytes` at its end; then it closes. `/download/NAME` sends the file as one
//! binary message, and closes.

#![allow(clippy::print_stdout, reason = "it tells where it serves")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use peregrine::{
    Chunk, CloseCode, Endpoint, Handler, Limits, MessageWriter, Reply, Server, ServerBuilder,
    WebSocket,
};

/// The largest upload.
pub(crate) const FILE_BYTES: usize = 1 << 30;
/// How much of an upload is gathered before a thread of the pool writes it.
const BATCH_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// Where the files are.
pub(crate) struct Files(pub(crate) PathBuf);

/// The name of a file, which leads nowhere else: no slashes, no dot in front.
struct Name(String);

impl FromStr for Name {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = !name.starts_with('.') && name.len() <= 100 && name.bytes().all(is_safe);
        if is_name && !name.is_empty() { Ok(Self(name.to_owned())) } else { Err(()) }
    }
}

/// The file that a connection is about.
fn file_of<S>(ws: &WebSocket<'_, S>) -> Option<(String, PathBuf)> {
    let Name(name) = ws.param_as("name").ok()?;
    let path = ws.dependency::<Files>().0.join(&name);
    Some((name, path))
}

struct Upload;

/// An upload on its way.
#[derive(Default)]
struct Progress {
    /// What was received and is not written yet.
    batch: Vec<u8>,
    part: Option<Part>,
    bytes: usize,
}

/// A file that is not whole yet. Dropped before it is, it vanishes.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // What has become whole has another name by now.
        let _ = fs::remove_file(&self.0);
    }
}

impl Part {
    fn append(&self, batch: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).open(&self.0)?.write_all(batch)
    }

    fn finish(&self, batch: &[u8], path: &Path) -> io::Result<()> {
        self.append(batch)?;
        File::open(&self.0)?.sync_all()?;
        fs::rename(&self.0, path)
    }
}

impl Handler for Upload {
    type Session = Progress;

    fn receives_chunks(&self) -> bool {
        true
    }

    fn on_chunk<'m>(&self, ws: &mut WebSocket<'_, Progress>, fragment: Chunk<'m>) -> Reply<'m> {
        let progress = ws.session_mut();
        progress.batch.extend_from_slice(fragment.as_bytes());
        progress.bytes += fragment.as_bytes().len();
        if progress.batch.len() < BATCH_BYTES && !fragment.is_last() {
            return Reply::none();
        }
        let Progress { batch, part, bytes } = std::mem::take(progress);
        let Some((name, path)) = file_of(ws) else { return Reply::none() };
        let part = part.unwrap_or_else(|| Part(path.with_file_name(format!(".{}.part", ws.id()))));
        // While the pool writes, no more of the upload is read: the disk sets the client's pace.
        if !fragment.is_last() {
            return ws.offload_then(
                move || part.append(&batch).map(|()| part),
                move |ws, appended| match appended {
                    Ok(part) => {
                        *ws.session_mut() = Progress { batch: Vec::new(), part: Some(part), bytes };
                        format!("{bytes} bytes")
                    }
                    Err(error) => give_up(ws, &error),
                },
            );
        }
        ws.offload_then(
            move || part.finish(&batch, &path),
            move |ws, finished| match finished {
                Ok(()) => {
                    ws.close();
                    format!("stored {name}, {bytes} bytes")
                }
                Err(error) => give_up(ws, &error),
            },
        )
    }
}

/// The last words to an uploader whose file cannot be stored.
fn give_up(ws: &WebSocket<'_, Progress>, error: &io::Error) -> String {
    ws.close_with(CloseCode::INTERNAL_ERROR, "not stored");
    format!("not stored: {error}")
}

struct Download;

impl Handler for Download {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        let Some((_, path)) = file_of(ws) else { return Reply::none() };
        match ws.stream::<[u8]>() {
            // A download keeps its thread of the pool until the client has taken all of it.
            Ok(stream) => ws.offload_then(
                move || send(&path, stream),
                |ws, sent| match sent {
                    Ok(()) => ws.close(),
                    Err(_) => ws.close_with(CloseCode::INTERNAL_ERROR, ""),
                },
            ),
            Err(error) => error.to_string().into(),
        }
    }
}

/// Sends a file as fast as the client takes it. On an error the stream is dropped unfinished, which
/// closes the connection.
fn send(path: &Path, mut stream: MessageWriter<[u8]>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return stream.finish().map_err(io::Error::other);
        }
        stream.write_async(&piece[..count]).wait().map_err(io::Error::other)?;
    }
}

pub(crate) fn app(files: Files) -> ServerBuilder {
    let upload = Endpoint::new(Upload).required_param::<Name>("name").adjust_limits(|limits| {
        limits.max_message_bytes = FILE_BYTES;
        limits.max_frame_bytes = FILE_BYTES;
        limits.max_fragments = 1 << 20;
    });
    let download = Endpoint::new(Download).required_param::<Name>("name");
    let mut limits = Limits::default();
    // They wait for disks and for slow clients, not for processors.
    limits.max_offload_threads = Some(64);
    Server::builder()
        .limits(limits)
        .dependency(files)
        .requires::<Files>()
        .websocket("/upload/{name}", upload)
        .websocket("/download/{name}", download)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let directory = arguments.next().unwrap_or_else(|| "files".to_owned());
    fs::create_dir_all(&directory)?;
    let server = app(Files(directory.into())).bind(address)?;
    println!("ws://{}/upload/NAME, /download/NAME", server.local_addr());
    server.run()?;
    Ok(())
}
