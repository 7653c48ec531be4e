//! A connection's socket: reads and writes that never block and never fail halfway.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use mio::net::TcpStream;
#[cfg(not(feature = "testing"))]
pub(super) use mio::net::TcpStream as Socket;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

#[cfg(feature = "testing")]
pub(super) use super::pipe::Socket;

/// A non-blocking TCP socket; for the test kit it may be a pipe in memory. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
}

/// A socket that is asked directly: to the C library each of these calls is a point at which the
/// thread might be cancelled, and to see to that costs a quarter of what a small message costs us.
pub(super) trait Direct {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Direct for TcpStream {
    #[inline]
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (bytes, _) = rustix::net::recv(self, buffer, RecvFlags::empty())?;
        Ok(bytes)
    }

    #[inline]
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SendFlags::NOSIGNAL)?)
    }

    fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing_else = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(self, slices, &mut nothing_else, SendFlags::NOSIGNAL)?)
    }
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
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

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The kernel took so many bytes. Fewer than offered means that its buffer is full: an
    /// edge-triggered event will tell when it is not.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

impl Transport {
    pub(super) fn new(socket: impl Into<Socket>) -> Self {
        Self { socket: socket.into() }
    }

    /// Takes over a socket that another shard accepted. It was made non-blocking then.
    pub(super) fn from_fd(socket: OwnedFd) -> Self {
        #[cfg(feature = "testing")]
        let socket = match super::arrivals::collect(socket) {
            Ok(end) => return Self::new(end),
            Err(socket) => socket,
        };
        Self::new(TcpStream::from_std(socket.into()))
    }

    /// Registers for events that tell of input; they are edge-triggered. That output is taken the
    /// first event would tell at once, and most connections never need to know.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// From now on, events also tell that output is taken again; at once, if it is by now.
    pub(super) fn await_room(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.reregister(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Input {
        debug_assert!(!buffer.is_empty(), "a read without room looks like the end");
        loop {
            return match self.socket.receive(buffer) {
                Ok(0) => Input::End,
                Ok(bytes) => Input::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Input::Broken,
            };
        }
    }

    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> Output {
        let socket = &mut self.socket;
        Self::retry(|| socket.send(bytes))
    }

    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Output {
        let socket = &mut self.socket;
        Self::retry(|| socket.send_vectored(slices))
    }

    #[inline]
    fn retry(mut write: impl FnMut() -> io::Result<usize>) -> Output {
        loop {
            return match write() {
                Ok(bytes) => Output::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Output::Bytes(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Output::Broken,
            };
        }
    }

    /// Whether nothing has happened to it that its shard was told and has not dealt with.
    #[cfg(feature = "testing")]
    pub(super) fn is_at_rest(&self, is_blocked: bool) -> bool {
        self.socket.is_at_rest(is_blocked)
    }

    /// Ends our side; the peer reads what was written, then the end.
    pub(super) fn shut_down_write(&self) {
        // It fails only if the connection is gone already, which the next read will tell.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// A socket on its way to another shard.
pub(super) fn into_fd(socket: Socket) -> OwnedFd {
    #[cfg(feature = "testing")]
    let socket = match socket {
        Socket::Tcp(socket) => socket,
        Socket::Memory(end) => return super::arrivals::deposit(end),
    };
    std::net::TcpStream::from(socket).into()
}
