//! The transports of the tests: pipes in memory, and one that is [`Uneven`].
//!
//! Knows which of them a test asks for. Must not know shards.

pub(crate) mod arrivals;
pub(crate) mod memory;
mod travel;
mod uneven;

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use mio::{Registry, Token};

use self::memory::ServerEnd;
use self::uneven::Uneven;
use super::Transport;
use super::outcome::{Acknowledged, Input, Output};

/// With this variable in the environment every transport is [`Uneven`].
const VARIABLE: &str = "PEREGRINE_TEST_TRANSPORT";

#[derive(Debug)]
pub(crate) enum Test {
    Memory(ServerEnd),
    Uneven(Box<Uneven>),
}

/// The transport as the tests ask for it: itself, or an uneven one around it.
pub(super) fn wrap(transport: Transport) -> Transport {
    static IS_UNEVEN: OnceLock<bool> = OnceLock::new();
    let is_uneven = IS_UNEVEN.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(kind) if kind == "uneven" => true,
        Ok(kind) => panic!("{VARIABLE}={kind}: there is only \"uneven\""),
        Err(_) => false,
    });
    if *is_uneven {
        Transport::Test(Test::Uneven(Box::new(Uneven::new(transport))))
    } else {
        transport
    }
}

/// The pipe that travelled under this descriptor; `Err` if it is a socket of its own.
pub(super) fn collect(descriptor: OwnedFd) -> Result<Transport, OwnedFd> {
    travel::collect(descriptor).map(Transport::from)
}

impl From<ServerEnd> for Transport {
    fn from(end: ServerEnd) -> Self {
        wrap(Self::Test(Test::Memory(end)))
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
    pub(super) fn into_fd(self) -> OwnedFd {
        match self {
            Self::Memory(end) => travel::deposit(end),
            Self::Uneven(uneven) => uneven.into_inner().into_fd(),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        each!(self, transport => transport.register(registry, token))
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

    /// Whether it takes nothing now; then an event tells when it does. A socket does not say.
    fn is_full(&mut self) -> bool {
        match self {
            Self::Memory(end) => end.is_full(),
            Self::Uneven(_) => false,
        }
    }
}
