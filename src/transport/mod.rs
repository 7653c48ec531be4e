//! A connection's [`Transport`]: reads and writes that never block and never fail halfway.
//!
//! Knows bytes, and what kinds of transports there are. Must not know what the bytes mean.

mod claim;
pub(crate) mod listener;
mod outcome;
pub(crate) mod readiness;
mod tcp;
mod tcp_info;
#[cfg(feature = "testing")]
pub(crate) mod test;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use mio::{Registry, Token};

pub(crate) use self::outcome::{Acknowledged, Input, More, Output};
use self::tcp::Tcp;

/// What a connection's bytes travel by. Dropping it closes it.
///
/// * Getters: [`held_bytes`](Self::held_bytes), [`has_output`](Self::has_output),
///   [`acknowledged`](Self::acknowledged).
/// * Commands: [`register`](Self::register) once, first; then [`read`](Self::read),
///   [`write`](Self::write), [`write_vectored`](Self::write_vectored);
///   [`finish`](Self::finish) once, after all that was written was handed over;
///   [`shut_down_write`](Self::shut_down_write) and [`shut_down`](Self::shut_down) at any time.
/// * To do: [`flush`](Self::flush) when the kernel takes bytes again, if nothing is to be written.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(Tcp),
    /// Those of the tests.
    #[cfg(feature = "testing")]
    Test(test::Test),
}

/// Does the same with each kind of transport.
macro_rules! each {
    ($transport:expr, $inner:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($inner) => $call,
            #[cfg(feature = "testing")]
            Transport::Test($inner) => $call,
        }
    };
}

impl From<Tcp> for Transport {
    #[inline]
    fn from(tcp: Tcp) -> Self {
        #[cfg(feature = "testing")]
        let tcp = match test::Test::of_tcp(tcp) {
            Ok(uneven) => return Self::Test(uneven),
            Err(tcp) => tcp,
        };
        Self::Tcp(tcp)
    }
}

#[cfg(feature = "testing")]
impl From<test::memory::ServerEnd> for Transport {
    fn from(end: test::memory::ServerEnd) -> Self {
        Self::Test(end.into())
    }
}

impl Transport {
    /// Takes over what another shard has accepted.
    pub(crate) fn from_fd(descriptor: OwnedFd) -> Self {
        #[cfg(feature = "testing")]
        let descriptor = match test::travel::collect(descriptor) {
            Ok(end) => return Self::from(end),
            Err(descriptor) => descriptor,
        };
        Self::from(Tcp::new(descriptor))
    }

    /// On its way to another shard: nothing was read or written.
    pub(crate) fn into_fd(self) -> OwnedFd {
        each!(self, transport => transport.into_fd())
    }

    /// Registers for both kinds of events, once and for all: they are edge-triggered.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        each!(self, transport => transport.register(registry, token))
    }

    /// Reads into a buffer that is not empty.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Input {
        debug_assert!(!buffer.is_empty(), "a read without room looks like the end");
        each!(self, transport => transport.read(buffer))
    }

    /// Hands bytes to the kernel. If the write before was not whole, they begin with what it left,
    /// at least with the [`held_bytes`](Self::held_bytes) of it.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Output {
        each!(self, transport => transport.write(bytes))
    }

    /// As [`write`](Self::write).
    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Output {
        each!(self, transport => transport.write_vectored(slices))
    }

    /// How many of the bytes that the last write has left have begun to leave: the transport holds
    /// them in a form of its own, and the kernel has not taken all of that. Nothing may come before
    /// or between them.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        each!(self, transport => transport.held_bytes())
    }

    /// Whether it has anything for the kernel, bytes that it holds or something of its own: then an
    /// edge-triggered event tells when the kernel takes more.
    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        each!(self, transport => transport.has_output())
    }

    /// Hands over what it has of its own. `Bytes(0)` unless the connection is broken.
    #[inline]
    pub(crate) fn flush(&mut self) -> Output {
        each!(self, transport => transport.flush())
    }

    /// What the peer has acknowledged; `None` if nobody knows.
    pub(crate) fn acknowledged(&self) -> Option<Acknowledged> {
        each!(self, transport => transport.acknowledged())
    }

    /// Ends our side: the peer reads what was written, then the end. What that needs of the
    /// transport's own may be left as its [output](Self::has_output).
    pub(crate) fn finish(&mut self) {
        each!(self, transport => transport.finish());
    }

    /// Ends our side at once: what it [has](Self::has_output) is lost.
    pub(crate) fn shut_down_write(&mut self) {
        each!(self, transport => transport.shut_down_write());
    }

    /// Ends both sides: nothing is read or written any more.
    pub(crate) fn shut_down(&mut self) {
        each!(self, transport => transport.shut_down());
    }

    /// Whether nothing has happened to it that its shard was told and has not dealt with.
    #[cfg(feature = "testing")]
    pub(crate) fn is_at_rest(&self, is_blocked: bool) -> bool {
        each!(self, transport => transport.is_at_rest(is_blocked))
    }
}
