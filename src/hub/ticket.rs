//! [`Ticket`]s, which travel with a message and are settled where its fate is decided, and the
//! [`Tally`] of a message for many.
//!
//! A ticket cannot be forgotten: one that is dropped unsettled, because its shard has ended,
//! settles itself.
//!
//! Knows outcomes. Must not know where a message is on its way, nor the futures.

use super::answer::Answer;
use super::credit::PieceTicket;
use crate::error::SendError;
use crate::sync::TrackedArc;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// How a message for many fared. The counts are of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BroadcastReport {
    /// The kernel has taken the whole message for so many.
    pub reached_count: usize,
    /// So many ended before it could be handed over.
    pub gone_count: usize,
    /// So many read too slowly: their outbox did not take it, or dropped it again
    /// ([`OverflowPolicy`](crate::OverflowPolicy)).
    pub overloaded_count: usize,
}

/// Travels with one delivery and is settled where its fate is decided.
#[derive(Debug)]
pub(crate) enum Ticket {
    One(Answer<Result<(), SendError>>),
    Share(Share),
    /// A piece of a message: it must not be dropped for others.
    Piece(PieceTicket),
}

/// One connection's share in a message for many.
#[derive(Debug)]
pub(crate) struct Share(Option<Tally>);

impl Ticket {
    /// One connection's share.
    pub(crate) fn share(tally: &Tally) -> Self {
        Self::Share(Share(Some(tally.clone())))
    }

    pub(crate) fn settle(self, outcome: Result<(), SendError>) {
        match self {
            Self::One(mut answer) => answer.tell(outcome),
            Self::Piece(piece) => piece.settle(outcome),
            Self::Share(mut share) => {
                if let Some(tally) = share.0.take() {
                    tally.count(outcome);
                }
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(tally) = self.0.take() {
            tally.count(Err(SendError::Gone));
        }
    }
}

/// Counts the deliveries of a message for many, on all shards. Whatever may still deliver it holds
/// a clone; the last one to go tells the sender.
#[derive(Clone, Debug)]
pub(crate) struct Tally(TrackedArc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    reached_count: AtomicUsize,
    gone_count: AtomicUsize,
    overloaded_count: AtomicUsize,
    answer: Answer<BroadcastReport>,
}

impl Tally {
    /// Its last clone to go gives this answer.
    pub(super) fn new(answer: Answer<BroadcastReport>) -> Self {
        let mut counts = Counts::default();
        counts.answer = answer;
        Self(TrackedArc::new(counts))
    }

    /// Counts one connection.
    pub(crate) fn count(&self, outcome: Result<(), SendError>) {
        let Self(counts) = self;
        let count = match outcome {
            Ok(()) => &counts.reached_count,
            Err(SendError::Overloaded) => &counts.overloaded_count,
            Err(_) => &counts.gone_count,
        };
        // Relaxed: the counts are read when the last clone goes. The `Arc` orders that: it comes
        // after all of this.
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        let report = BroadcastReport {
            reached_count: self.reached_count.load(Ordering::Relaxed),
            gone_count: self.gone_count.load(Ordering::Relaxed),
            overloaded_count: self.overloaded_count.load(Ordering::Relaxed),
        };
        self.answer.tell(report);
    }
}
