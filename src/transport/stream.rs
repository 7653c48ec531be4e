//! [`Stream`]: what is read from and written to, and what that brings.
//!
//! Knows outcomes of reads and writes. Must not know what kind of socket it is.

use std::io::{self, IoSlice};
use std::time::Duration;

use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::Shutdown;

/// What is read from, written to.
pub(crate) trait Stream {
    fn register(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()>;
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Errno>;
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Errno>;
    fn shut_down(&self, how: Shutdown);
    fn acknowledged(&self) -> Option<Acknowledged>;
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
