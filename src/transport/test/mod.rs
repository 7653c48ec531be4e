//! The transports of the tests: pipes in memory, and one that is [`Uneven`].
//!
//! Knows which of them a test asks for. Must not know shards.

pub(crate) mod arrivals;
pub(crate) mod memory;
pub(super) mod travel;
mod uneven;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use mio::{Registry, Token};

use self::memory::ServerEnd;
use self::uneven::{Inner, Uneven};
use super::outcome::{Acknowledged, Input, Output};
use super::tcp::Tcp;

/// With this variable in the environment every transport is [`Uneven`].
const VARIABLE: &str = "PEREGRINE_TEST_TRANSPORT";

#[derive(Debug)]
pub(crate) enum Test {
    Memory(ServerEnd),
    Uneven(Box<Uneven>),
}

/// Whether the tests ask for uneven transports.
fn is_uneven() -> bool {
    static IS_UNEVEN: OnceLock<bool> = OnceLock::new();
    *IS_UNEVEN.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(kind) => {
            assert_eq!(kind, "uneven", "{VARIABLE} names no transport of the tests");
            true
        }
        Err(_) => false,
    })
}

impl From<ServerEnd> for Test {
    fn from(end: ServerEnd) -> Self {
        if is_uneven() { Self::around(Inner::Memory(end)) } else { Self::Memory(end) }
    }
}

/// Does the same with each kind of them.
macro_rules! each {
    ($transport:expr, $inner:ident => $call:expr) => {
        match $transport {
            Test::Memory($inner) => $call,
            Test::Uneven($inner) => $call,
        }
    };
}

impl Test {
    /// An uneven transport around a socket, if the tests ask for it; else the socket.
    pub(super) fn of_tcp(tcp: Tcp) -> Result<Self, Tcp> {
        if is_uneven() { Ok(Self::around(Inner::Tcp(tcp))) } else { Err(tcp) }
    }

    fn around(inner: Inner) -> Self {
        Self::Uneven(Box::new(Uneven::new(inner)))
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        match self {
            Self::Memory(end) => travel::deposit(end),
            Self::Uneven(uneven) => match uneven.into_inner() {
                Inner::Tcp(tcp) => tcp.into_fd(),
                Inner::Memory(end) => travel::deposit(end),
            },
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Memory(end) => end.register(registry, token),
            Self::Uneven(uneven) => uneven.register(registry, token)?,
        }
        Ok(())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Input {
        each!(self, transport => transport.read(buffer))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Output {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Output {
        each!(self, transport => transport.write(slices))
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::Uneven(uneven) => uneven.held_bytes(),
        }
    }

    pub(super) fn has_output(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Uneven(uneven) => uneven.has_output(),
        }
    }

    pub(super) fn flush(&mut self) -> Output {
        match self {
            Self::Memory(_) => Output::Bytes(0),
            Self::Uneven(uneven) => uneven.flush(),
        }
    }

    pub(super) fn acknowledged(&self) -> Option<Acknowledged> {
        each!(self, transport => transport.acknowledged())
    }

    pub(super) fn finish(&mut self) {
        match self {
            Self::Memory(end) => end.shut_down_write(),
            Self::Uneven(uneven) => uneven.finish(),
        }
    }

    pub(super) fn shut_down_write(&mut self) {
        each!(self, transport => transport.shut_down_write());
    }

    pub(super) fn shut_down(&mut self) {
        each!(self, transport => transport.shut_down());
    }

    pub(super) fn is_at_rest(&self, is_blocked: bool) -> bool {
        each!(self, transport => transport.is_at_rest(is_blocked))
    }
}
