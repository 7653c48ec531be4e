//! A connection's socket: reads and writes that never block and never fail halfway.
//!
//! Knows bytes, and what kinds of sockets there are. Must not know what the bytes mean.

mod claim;
pub(crate) mod listener;
#[cfg(feature = "testing")]
pub(crate) mod memory;
#[cfg(feature = "testing")]
pub(crate) mod memory_listener;
pub(crate) mod readiness;
mod stream;
mod tcp;
mod tcp_info;
#[cfg(feature = "testing")]
mod travel;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::Shutdown;

#[cfg(feature = "testing")]
use self::memory::Socket;
use self::stream::Stream;
pub(crate) use self::stream::{Acknowledged, Input, Output};
#[cfg(not(feature = "testing"))]
use std::os::fd::OwnedFd as Socket;

/// A non-blocking TCP socket; for the test kit it may be a pipe in memory. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Socket,
}

impl Transport {
    pub(crate) fn new(socket: impl Into<Socket>) -> Self {
        Self { socket: socket.into() }
    }

    /// Takes over a socket that another shard accepted. It was made non-blocking then.
    pub(crate) fn from_fd(socket: OwnedFd) -> Self {
        #[cfg(feature = "testing")]
        let socket = match travel::collect(socket) {
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
        Socket::Memory(end) => return travel::deposit(end),
    };
    socket
}
