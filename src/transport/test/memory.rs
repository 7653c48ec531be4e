//! Connections in memory, for the test kit: a bounded pipe each way between a client and its
//! [`Transport`](crate::transport::Transport), which behaves as a socket does: short writes when it
//! is full, the end when the peer has ended its side, broken when the peer is gone. As an
//! edge-triggered epoll, it has news only of what changes.
//!
//! Knows bytes. Must not know who drives the shard, nor what the bytes mean.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use mio::{Registry, Token};
use rustix::io::Errno;

use crate::transport::outcome::{Acknowledged, Input, Output};
use crate::transport::readiness::Readiness;

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
    /// A write fell short: the server is told when there is room again.
    is_awaited: bool,
    reset: Reset,
    /// The server has read that the client has ended its side.
    is_end_read: bool,
    /// What the client did, as far as the server has not been told.
    news: Option<Readiness>,
    /// With which `Poll` the server's end is registered, and as what.
    registered: Option<(RawFd, Token)>,
    /// How much the client has read.
    taken_bytes: u64,
    /// All that the server has written, if somebody wants to know.
    tap: Option<Vec<u8>>,
}

/// Whether the client has reset the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    No,
    /// The server's next read or write will tell.
    Unreported,
    Told,
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
    let pipe = Pipe {
        to_server: lane(),
        to_client: lane(),
        is_awaited: false,
        reset: Reset::No,
        is_end_read: false,
        news: None,
        registered: None,
        taken_bytes: 0,
        tap: None,
    };
    let pipe = Rc::new(RefCell::new(pipe));
    (ServerEnd(Rc::clone(&pipe)), ClientEnd { pipe, reading_bytes: None })
}

impl Lane {
    fn room(&self) -> usize {
        self.limit_bytes.saturating_sub(self.bytes.len())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() && !self.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        // A queue is read in two parts if it has wrapped around; a socket is read dry.
        let first = self.bytes.read(buffer)?;
        Ok(first + self.bytes.read(&mut buffer[first..])?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken || self.has_ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = self.room();
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

impl Pipe {
    /// There may be room again for what the server writes.
    fn free(&mut self) {
        if self.is_awaited && self.to_client.room() > 0 {
            self.is_awaited = false;
            self.news.get_or_insert_default().is_writable = true;
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let has_ended = self.to_server.has_ended && self.to_server.bytes.is_empty();
        self.is_end_read |= has_ended;
        if has_ended && self.reset == Reset::Unreported {
            self.reset = Reset::Told;
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.to_server.read(buffer)
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.reset == Reset::Unreported {
            self.reset = Reset::Told;
            return Err(ErrorKind::ConnectionReset.into());
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        for slice in slices {
            match self.to_client.write(slice) {
                Ok(bytes) => {
                    self.tap.iter_mut().for_each(|tap| tap.extend(&slice[..bytes]));
                    written += bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.is_awaited = written < offered;
        if written == 0 && offered > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }
}

impl Pipe {
    /// As if the client acknowledged what it reads, and nothing else.
    fn acknowledged(&self) -> Acknowledged {
        Acknowledged {
            bytes: self.taken_bytes,
            is_outstanding: !self.to_client.bytes.is_empty(),
            last_ago: Duration::MAX,
        }
    }
}

impl ServerEnd {
    /// A pipe has no events: the driver of the shard tells it what happened.
    pub(super) fn register(&self, registry: &Registry, token: Token) {
        self.0.borrow_mut().registered = Some((registry.as_raw_fd(), token));
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> Input {
        let read = self.0.borrow_mut().read(buffer).map_err(errno);
        Input::of_socket(read, buffer.len())
    }

    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> Output {
        Output::of_socket(self.0.borrow_mut().write(slices).map_err(errno))
    }

    pub(super) fn acknowledged(&self) -> Option<Acknowledged> {
        Some(self.0.borrow().acknowledged())
    }

    pub(super) fn shut_down_write(&self) {
        self.0.borrow_mut().to_client.has_ended = true;
    }

    pub(super) fn shut_down(&self) {
        let mut pipe = self.0.borrow_mut();
        pipe.to_client.has_ended = true;
        pipe.to_server.break_off();
    }

    /// Whether it takes nothing now; then it has news when it does.
    pub(super) fn is_full(&self) -> bool {
        let mut pipe = self.0.borrow_mut();
        let is_full = pipe.to_client.room() == 0;
        pipe.is_awaited |= is_full;
        is_full
    }

    /// Whether the server has been told all that happened: nothing is there to be read, and it may
    /// not wait for room.
    pub(crate) fn is_at_rest(&self, is_blocked: bool) -> bool {
        let pipe = self.0.borrow();
        let lane = &pipe.to_server;
        let is_drained = lane.bytes.is_empty() && (!lane.has_ended || pipe.is_end_read);
        pipe.news.is_some() || (is_drained && (!is_blocked || pipe.is_awaited))
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
        pipe.registered = None;
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

    /// What has happened since the last call that the server has to be told, and as what its end is
    /// registered with this `Poll`.
    pub(crate) fn take_readiness(&self, poll: RawFd) -> Option<(Token, Readiness)> {
        let mut pipe = self.pipe.borrow_mut();
        let (_, token) = pipe.registered.filter(|&(registered, _)| registered == poll)?;
        Some((token, pipe.news.take()?))
    }
}

/// What a simulation does beyond.
impl ClientEnd {
    /// Ends this side only: the server reads what was sent, then the end, and may still write.
    pub(crate) fn end(&self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.to_server.has_ended = true;
        let news = pipe.news.get_or_insert_default();
        (news.is_readable, news.has_ended) = (true, true);
    }

    /// Breaks the connection: the server's next read or write fails. What it has not read yet is
    /// lost, or is read first: kernels differ.
    pub(crate) fn reset(&self, unread: Unread) {
        let mut pipe = self.pipe.borrow_mut();
        if unread == Unread::Lost {
            pipe.to_server.bytes.clear();
        }
        pipe.to_server.has_ended = true;
        pipe.to_client.break_off();
        pipe.reset = Reset::Unreported;
        pipe.news = Some(Readiness { is_readable: true, is_writable: true, has_ended: true });
    }

    /// From now on this end holds so many bytes more than it holds now.
    pub(crate) fn set_room(&self, bytes: usize) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.to_client.limit_bytes = pipe.to_client.bytes.len() + bytes;
        pipe.free();
    }

    /// Keeps all that the server writes from now on; see [`tapped`](Self::tapped).
    pub(crate) fn tap(&self) {
        self.pipe.borrow_mut().tap.get_or_insert_default();
    }

    /// Hands over what the server has written since the last call, read or not.
    pub(crate) fn tapped(&self) -> Vec<u8> {
        self.pipe.borrow_mut().tap.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether there is something that the server has to be told.
    pub(crate) fn has_readiness(&self) -> bool {
        self.pipe.borrow().news.is_some()
    }

    /// Whether the server has closed its end.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.pipe.borrow().to_server.is_broken
    }
}

/// What becomes of bytes that were sent before a reset, and not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    Kept,
    Lost,
}

impl Read for ClientEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.pipe.borrow_mut();
        let room = buffer.len().min(self.reading_bytes.unwrap_or(usize::MAX));
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = pipe.to_client.read(&mut buffer[..room])?;
        pipe.taken_bytes += read as u64;
        if let Some(reading_bytes) = &mut self.reading_bytes {
            *reading_bytes -= read;
        }
        pipe.free();
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
            // An event tells all that holds, not only what is new.
            let is_writable = pipe.to_client.room() > 0;
            let news = pipe.news.get_or_insert_default();
            news.is_readable = true;
            news.is_writable |= is_writable;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a kernel would say.
fn errno(error: io::Error) -> Errno {
    match error.kind() {
        ErrorKind::WouldBlock => Errno::AGAIN,
        ErrorKind::BrokenPipe => Errno::PIPE,
        _ => Errno::CONNRESET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::outcome::More;

    #[test]
    fn what_is_read_short_has_no_more() {
        let (server_end, mut client_end) = pipe(8);
        let mut buffer = [0; 16];
        for bytes in [&b"abcdef"[..], b"ghijklmn"] {
            // The second one wraps around.
            assert_eq!(client_end.write(bytes).expect("room"), bytes.len());
            assert_eq!(server_end.read(&mut buffer), Input::Bytes(bytes.len(), More::No));
            assert_eq!(&buffer[..bytes.len()], bytes);
        }
        assert_eq!(server_end.read(&mut buffer), Input::Nothing(More::No));
    }

    #[test]
    fn a_writer_is_told_of_room_only_after_it_has_lacked_it() {
        let (server_end, mut client_end) = pipe(4);
        let write = |bytes| server_end.write(&[IoSlice::new(bytes)]);
        assert_eq!(write(b"abcd"), Output::Bytes(4));
        let mut buffer = [0; 4];
        assert_eq!(client_end.read(&mut buffer).expect("bytes"), 4);
        assert!(!client_end.has_readiness());
        assert_eq!(write(b"abcdef"), Output::Bytes(4));
        assert_eq!(client_end.read(&mut buffer).expect("bytes"), 4);
        assert!(client_end.has_readiness());
    }
}
