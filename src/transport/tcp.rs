//! [`Stream`] as a TCP socket of the kernel.
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

use super::stream::{Acknowledged, Stream};
use super::tcp_info;

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

/// Accepts a socket; without blocking, as it is itself.
pub(super) fn accept(listener: &TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
    let (socket, peer) = listener.accept()?;
    Ok((TcpStream::from(socket).into(), peer))
}
