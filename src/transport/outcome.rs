//! What reads and writes of a [`Transport`](super::Transport) bring.
//!
//! Knows outcomes. Must not know what kind of transport has them.

use std::time::Duration;

use rustix::io::Errno;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// So many bytes, at least one.
    Bytes(usize, More),
    /// None now.
    Nothing(More),
    /// The peer has ended its side; each later read says so, too.
    End,
    /// The connection is broken.
    Broken,
}

/// Whether another read may bring more at once. Callers must not infer it from the number of bytes:
/// a transport may hold input that the kernel has handed over already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// This read has found nothing left: an edge-triggered event tells when there is more.
    No,
    /// It is to be read again: no event may come.
    Maybe,
}

impl Input {
    /// As a socket says it that was asked for at most so many bytes, at least one.
    #[inline]
    pub(super) fn of_socket(result: Result<usize, Errno>, limit_bytes: usize) -> Self {
        match result {
            Ok(0) => Self::End,
            // A socket that hands out less than it may has no more.
            Ok(bytes) => {
                Self::Bytes(bytes, if bytes == limit_bytes { More::Maybe } else { More::No })
            }
            Err(Errno::AGAIN) => Self::Nothing(More::No),
            Err(_) => Self::Broken,
        }
    }

    /// Whether no input will come any more.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::End | Self::Broken)
    }

    /// Whether another read may bring more at once.
    pub(crate) fn more(self) -> More {
        match self {
            Self::Bytes(_, more) | Self::Nothing(more) => more,
            Self::End | Self::Broken => More::No,
        }
    }
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The kernel has taken so many bytes of what was offered. Fewer than all: it takes no more
    /// now, an edge-triggered event tells when it does. See
    /// [`held_bytes`](super::Transport::held_bytes) for the bytes that follow.
    Bytes(usize),
    /// The connection is broken, and nothing was taken by this call.
    Broken,
}

impl Output {
    /// As a socket says it.
    #[inline]
    pub(super) fn of_socket(result: Result<usize, Errno>) -> Self {
        match result {
            Ok(bytes) => Self::Bytes(bytes),
            Err(Errno::AGAIN) => Self::Bytes(0),
            Err(_) => Self::Broken,
        }
    }
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
