//! Connections in memory, for the test kit: a bounded pipe each way between a client and its
//! [`Transport`](super::transport::Transport), which behaves as a socket does: short writes when it
//! is full, the end when the peer has ended its side, broken when the peer is gone.
//!
//! Knows bytes. Must not know who drives the shard, nor what the bytes mean.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Readiness;

/// What a transport reads and writes while the test kit is compiled in.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Memory(ServerEnd),
}

/// Bytes on their way to one side.
#[derive(Debug)]
struct Lane {
    bytes: VecDeque<u8>,
    limit_bytes: usize,
    /// The writing side has ended.
    has_ended: bool,
    /// The reading side is gone: whatever is written fails.
    is_broken: bool,
}

#[derive(Debug)]
struct Pipe {
    to_server: Lane,
    to_client: Lane,
    /// What the client did, as far as the server has not been told.
    news: Option<Readiness>,
}

/// The server's end. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct ServerEnd(Rc<RefCell<Pipe>>);

/// The client's end. Dropping it does nothing; see [`close`](Self::close).
#[derive(Debug)]
pub(crate) struct ClientEnd {
    pipe: Rc<RefCell<Pipe>>,
    /// How many bytes more the client reads; `None` as many as come.
    pub(crate) reading_bytes: Option<usize>,
}

/// A connection in memory that holds at most so many bytes each way, at least one.
pub(crate) fn pipe(limit_bytes: usize) -> (ServerEnd, ClientEnd) {
    let lane = || Lane {
        bytes: VecDeque::new(),
        limit_bytes: limit_bytes.max(1),
        has_ended: false,
        is_broken: false,
    };
    let pipe = Pipe { to_server: lane(), to_client: lane(), news: None };
    let pipe = Rc::new(RefCell::new(pipe));
    (ServerEnd(Rc::clone(&pipe)), ClientEnd { pipe, reading_bytes: None })
}

impl Lane {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() && !self.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.bytes.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken || self.has_ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = self.limit_bytes - self.bytes.len();
        if room == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.bytes.write(&bytes[..bytes.len().min(room)])
    }

    /// Nobody will read what is in it.
    fn break_off(&mut self) {
        self.bytes.clear();
        self.is_broken = true;
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        if !pipe.to_server.bytes.is_empty() {
            // As the kernel does: closing with unread input resets the connection, and what the
            // client has not read yet is lost.
            pipe.to_client.bytes.clear();
        }
        pipe.to_client.has_ended = true;
        pipe.to_server.break_off();
    }
}

impl ClientEnd {
    /// Ends both sides, as a process that ends: the server reads what was sent, then the end; what
    /// it writes fails.
    pub(crate) fn close(&self) {
        let mut pipe = self.pipe.borrow_mut();
        if !pipe.to_server.has_ended {
            pipe.to_server.has_ended = true;
            pipe.to_client.break_off();
            pipe.news.get_or_insert_default().has_ended = true;
        }
    }

    /// What has happened since the last call that the server has to be told.
    pub(super) fn take_news(&self) -> Option<Readiness> {
        self.pipe.borrow_mut().news.take()
    }
}

impl Read for ClientEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.pipe.borrow_mut();
        let room = buffer.len().min(self.reading_bytes.unwrap_or(usize::MAX));
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = pipe.to_client.read(&mut buffer[..room])?;
        if let Some(reading_bytes) = &mut self.reading_bytes {
            *reading_bytes -= read;
        }
        if read > 0 {
            pipe.news.get_or_insert_default().is_writable = true;
        }
        Ok(read)
    }
}

impl Write for ClientEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.to_server.is_broken {
            // The server has closed, which this side cannot know before it has read that far.
            return Ok(bytes.len());
        }
        let written = pipe.to_server.write(bytes)?;
        if written > 0 {
            pipe.news.get_or_insert_default().is_readable = true;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<ServerEnd> for Socket {
    fn from(end: ServerEnd) -> Self {
        Self::Memory(end)
    }
}

impl Socket {
    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Memory(end) => {
                end.0.borrow_mut().to_client.has_ended = true;
                Ok(())
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Memory(end) => end.0.borrow_mut().to_server.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Memory(end) => end.0.borrow_mut().to_client.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(slices),
            Self::Memory(end) => {
                let lane = &mut end.0.borrow_mut().to_client;
                let mut written = 0;
                for slice in slices {
                    match lane.write(slice) {
                        Ok(bytes) => written += bytes,
                        Err(error) if written == 0 => return Err(error),
                        Err(_) => break,
                    }
                }
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe has no events: the test kit tells its shard what happened.
impl Source for Socket {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.register(registry, token, interests),
            Self::Memory(_) => Ok(()),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.reregister(registry, token, interests),
            Self::Memory(_) => Ok(()),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.deregister(registry),
            Self::Memory(_) => Ok(()),
        }
    }
}
