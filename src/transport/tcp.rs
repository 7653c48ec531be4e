//! [`Tcp`]: a TCP socket of the kernel, non-blocking.
//!
//! Reads and writes are system calls without the C library between: as points of cancellation, in a
//! process of several threads, its own cost as much again as all that is done here.
//!
//! Knows system calls. Must not know what the bytes mean, nor what follows from an error.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use super::outcome::{Acknowledged, Input, Output};
use super::tcp_info;

/// Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Tcp(OwnedFd);

impl Tcp {
    /// It was made non-blocking when it was accepted.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.0.as_raw_fd()), token, interest)
    }

    #[inline]
    pub(super) fn read(&self, buffer: &mut [u8]) -> Input {
        let read = retry(|| {
            rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()).map(|(bytes, _)| bytes)
        });
        Input::of_socket(read, buffer.len())
    }

    #[inline]
    pub(super) fn write(&self, bytes: &[u8]) -> Output {
        Output::of_socket(retry(|| rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)))
    }

    pub(super) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> Output {
        Output::of_socket(retry(|| {
            let mut nothing_else = SendAncillaryBuffer::default();
            rustix::net::sendmsg(&self.0, slices, &mut nothing_else, SendFlags::NOSIGNAL)
        }))
    }

    /// The kernel has whatever it has taken.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        0
    }

    #[inline]
    pub(super) fn has_output(&self) -> bool {
        false
    }

    #[inline]
    pub(super) fn flush(&self) -> Output {
        Output::Bytes(0)
    }

    pub(super) fn acknowledged(&self) -> Option<Acknowledged> {
        tcp_info::acknowledged(&self.0)
    }

    pub(super) fn finish(&self) {
        self.shut_down_write();
    }

    pub(super) fn shut_down_write(&self) {
        self.shut_down_side(Shutdown::Write);
    }

    pub(super) fn shut_down(&self) {
        self.shut_down_side(Shutdown::Both);
    }

    fn shut_down_side(&self, how: Shutdown) {
        // It fails only if the connection is gone already, which the next read will tell.
        let _ = rustix::net::shutdown(&self.0, how);
    }

    /// Nobody knows what the kernel has told.
    #[cfg(feature = "testing")]
    pub(super) fn is_at_rest(&self, _is_blocked: bool) -> bool {
        true
    }
}

/// Until no signal has interrupted it.
#[inline]
fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Accepts a socket; without blocking, as it is itself.
pub(super) fn accept(listener: &TcpListener) -> io::Result<(Tcp, SocketAddr)> {
    let (socket, peer) = listener.accept()?;
    Ok((Tcp::new(TcpStream::from(socket).into()), peer))
}
