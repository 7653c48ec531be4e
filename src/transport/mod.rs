//! A connection's socket: reads and writes that never block and never fail halfway.
//!
//! They are system calls without the C library between: as points of cancellation, in a process of
//! several threads, its own cost as much again as all that is done here.

mod claim;
pub(crate) mod listener;
#[cfg(feature = "testing")]
pub(crate) mod memory;
#[cfg(feature = "testing")]
pub(crate) mod memory_listener;
pub(crate) mod readiness;
mod tcp_info;

use std::io::{self, IoSlice};
#[cfg(not(feature = "testing"))]
pub(crate) use std::os::fd::OwnedFd as Socket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

#[cfg(feature = "testing")]
pub(crate) use crate::transport::memory::Socket;

/// What is read from, written to.
pub(crate) trait Stream {
    fn register(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()>;
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Errno>;
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Errno>;
    fn shut_down(&self, how: Shutdown);
    fn acknowledged(&self) -> Option<Acknowledged>;
}

impl Stream for OwnedFd {
    fn register(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.as_raw_fd()), token, interest)
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::net::recv(self, buffer, RecvFlags::empty()).map(|(bytes, _)| bytes)
    }

    #[inline]
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::net::send(self, bytes, SendFlags::NOSIGNAL)
    }

    fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let mut nothing_else = SendAncillaryBuffer::default();
        rustix::net::sendmsg(self, slices, &mut nothing_else, SendFlags::NOSIGNAL)
    }

    fn shut_down(&self, how: Shutdown) {
        // It fails only if the connection is gone already, which the next read will tell.
        let _ = rustix::net::shutdown(self, how);
    }

    fn acknowledged(&self) -> Option<Acknowledged> {
        tcp_info::acknowledged(self)
    }
}

/// A non-blocking TCP socket; for the test kit it may be a pipe in memory. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Socket,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// So many bytes. Fewer than there was room for means that no more are there: an
    /// edge-triggered event will tell of the next ones.
    Bytes(usize),
    /// None now.
    Nothing,
    /// The peer has ended its side.
    End,
    /// The connection is broken.
    Broken,
}

/// What the peer's kernel has acknowledged of what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// How many bytes so far.
    pub(crate) bytes: u64,
    /// Whether something was written and is not acknowledged.
    pub(crate) is_outstanding: bool,
    /// How long ago the last acknowledgement came, also of what brought nothing new.
    pub(crate) last_ago: Duration,
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The kernel took so many bytes. Fewer than offered means that its buffer is full: an
    /// edge-triggered event will tell when it is not.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

impl Transport {
    pub(crate) fn new(socket: impl Into<Socket>) -> Self {
        Self { socket: socket.into() }
    }

    /// Takes over a socket that another shard accepted. It was made non-blocking then.
    pub(crate) fn from_fd(socket: OwnedFd) -> Self {
        #[cfg(feature = "testing")]
        let socket = match memory_listener::collect(socket) {
            Ok(end) => return Self::new(end),
            Err(socket) => socket,
        };
        Self::new(socket)
    }

    /// Registers for both kinds of events, once and for all: they are edge-triggered.
    pub(crate) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Input {
        debug_assert!(!buffer.is_empty(), "a read without room looks like the end");
        loop {
            return match self.socket.recv(buffer) {
                Ok(0) => Input::End,
                Ok(bytes) => Input::Bytes(bytes),
                Err(Errno::AGAIN) => Input::Nothing,
                Err(Errno::INTR) => continue,
                Err(_) => Input::Broken,
            };
        }
    }

    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Output {
        let socket = &mut self.socket;
        Self::retry(|| socket.send(bytes))
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Output {
        let socket = &mut self.socket;
        Self::retry(|| socket.send_vectored(slices))
    }

    #[inline]
    fn retry(mut write: impl FnMut() -> Result<usize, Errno>) -> Output {
        loop {
            return match write() {
                Ok(bytes) => Output::Bytes(bytes),
                Err(Errno::AGAIN) => Output::Bytes(0),
                Err(Errno::INTR) => continue,
                Err(_) => Output::Broken,
            };
        }
    }

    /// Whether nothing has happened to it that its shard was told and has not dealt with.
    #[cfg(feature = "testing")]
    pub(crate) fn is_at_rest(&self, is_blocked: bool) -> bool {
        self.socket.is_at_rest(is_blocked)
    }

    /// What the peer has acknowledged; `None` if nobody knows.
    pub(crate) fn acknowledged(&self) -> Option<Acknowledged> {
        self.socket.acknowledged()
    }

    /// Ends our side; the peer reads what was written, then the end.
    pub(crate) fn shut_down_write(&self) {
        self.socket.shut_down(Shutdown::Write);
    }

    /// Ends both sides: nothing is read or written any more.
    pub(crate) fn shut_down(&self) {
        self.socket.shut_down(Shutdown::Both);
    }
}

/// A socket on its way to another shard.
pub(crate) fn into_fd(socket: Socket) -> OwnedFd {
    #[cfg(feature = "testing")]
    let socket = match socket {
        Socket::Tcp(socket) => socket,
        Socket::Memory(end) => return memory_listener::deposit(end),
    };
    socket
}
