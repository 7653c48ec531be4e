//! [`Credit`]: how many bytes of a message in pieces may be on their way, and the tickets that give
//! it back.
//!
//! Knows bytes and whether either side has given up. Must not know the pieces themselves.

use std::sync::Arc;

use super::answer::Answer;
use super::waker::ConnectionWaker;
use crate::error::SendError;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Reports what became of a piece.
pub(super) type PieceAnswer = Answer<Result<(), SendError>>;

/// What the handle and the connection share: how much is on its way, and whether either has given
/// up.
#[derive(Debug)]
pub(crate) struct Credit {
    waker: Arc<ConnectionWaker>,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// The handle was dropped before the message was finished.
    is_abandoned: AtomicBool,
    /// The connection carries no more pieces.
    is_over: AtomicBool,
}

impl Credit {
    pub(crate) fn new(waker: Arc<ConnectionWaker>, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            waker,
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            is_abandoned: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    /// Takes credit for a piece; its ticket gives it back. One piece of any size is always allowed.
    pub(super) fn spend(
        self: &Arc<Self>,
        bytes: usize,
        answer: Option<PieceAnswer>,
    ) -> Result<PieceTicket, SendError> {
        // Relaxed: who was told that a piece is lost was told after it; who was not learns it then.
        if self.is_over.load(Ordering::Relaxed) {
            return Err(SendError::Gone);
        }
        // Only the handle adds, so nobody else can have added meanwhile. Relaxed: what is read may
        // be too much, until the handle is told of what was given back.
        let used = self.used_bytes.load(Ordering::Relaxed);
        if used > 0 && bytes > 0 && used + bytes > self.limit_bytes {
            return Err(SendError::Overloaded);
        }
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(PieceTicket { credit: Arc::clone(self), bytes, answer })
    }

    /// How much is on its way.
    pub(super) fn used_bytes(&self) -> usize {
        // Relaxed: a number to look at.
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The handle gives up.
    pub(super) fn abandon(&self) {
        // Relaxed: the doorbell orders it.
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.waker.notify();
    }

    /// Whether the handle has given up; the shard's answer to its ringing.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.waker.rearm();
        // Relaxed: hearing has shown what came before the ringing.
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// Whether the handle has given up and the shard will not be told.
    #[cfg(feature = "testing")]
    pub(crate) fn is_unheard(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire) && !self.waker.is_woken()
    }

    /// The connection carries no more pieces.
    pub(crate) fn end(&self) {
        // Relaxed: as in `spend`.
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Travels with a piece; gives its credit back when the piece has left, or will not.
#[derive(Debug)]
pub(crate) struct PieceTicket {
    credit: Arc<Credit>,
    bytes: usize,
    answer: Option<PieceAnswer>,
}

impl PieceTicket {
    /// Which stream it belongs to.
    pub(crate) fn credit(&self) -> &Arc<Credit> {
        &self.credit
    }

    pub(super) fn settle(mut self, outcome: Result<(), SendError>) {
        let answer = self.answer.take();
        // First the credit: the sender may send the next piece as soon as it is woken.
        drop(self);
        if let Some(mut answer) = answer {
            answer.tell(outcome);
        }
    }
}

impl Drop for PieceTicket {
    fn drop(&mut self) {
        // Relaxed: the news carries it, see `settle`.
        self.credit.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
