//! [`SocketEvent`]: that something happened, and to whom.
//!
//! Knows how the kernel tells it. Must not know what follows from it.

use mio::Token;
use mio::event::Event;

/// What happened to a connection's transport since the last time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readiness {
    /// Input came.
    pub(crate) is_readable: bool,
    /// Output is taken again.
    pub(crate) is_writable: bool,
    /// The peer has ended its side, or the connection is broken.
    pub(crate) has_ended: bool,
}

/// That something happened: as the kernel tells it, or the test kit.
pub(crate) trait SocketEvent {
    fn token(&self) -> Token;
    /// Whether input came, and not the end.
    fn is_input(&self) -> bool;
    fn readiness(&self) -> Readiness;
}

impl SocketEvent for &Event {
    #[inline]
    fn token(&self) -> Token {
        Event::token(self)
    }

    #[inline]
    fn is_input(&self) -> bool {
        self.is_readable() && !self.is_read_closed() && !self.is_error()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            is_readable: self.is_readable(),
            is_writable: self.is_writable(),
            has_ended: self.is_read_closed() || self.is_error(),
        }
    }
}

#[cfg(feature = "testing")]
impl SocketEvent for (Token, Readiness) {
    fn token(&self) -> Token {
        self.0
    }

    fn is_input(&self) -> bool {
        self.1.is_readable && !self.1.has_ended
    }

    fn readiness(&self) -> Readiness {
        self.1
    }
}
