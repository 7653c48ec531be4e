//! [`Excess`]: what a shard has sent beyond the room of the other shards' mailboxes, and how much
//! that may be.
//!
//! Knows numbers, by shard. Must not know mailboxes and what is sent.

use crate::error::SendError;

/// The account of one shard.
#[derive(Debug)]
pub(crate) struct Excess {
    /// What was sent beyond the room of each mailbox whose line was not empty since.
    by_shard: Box<[Load]>,
    /// The sum of all.
    sum: Load,
    limit: Load,
}

/// Envelopes for which there was no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Excess {
    pub(crate) fn new(shard_count: usize, limit_count: usize, limit_bytes: usize) -> Self {
        // A publication needs room for all others at once.
        let limit = Load { count: limit_count.max(shard_count), bytes: limit_bytes };
        let by_shard = vec![Load::default(); shard_count].into();
        Self { by_shard, sum: Load::default(), limit }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.sum.count == 0
    }

    /// Whether so many envelopes with so many bytes may be sent, if there is room for none of them.
    ///
    /// # Errors
    /// `Overloaded` if they may not.
    pub(crate) fn check(&self, count: usize, bytes: usize) -> Result<(), SendError> {
        let Self { sum, limit, .. } = self;
        let fits = sum.count + count <= limit.count
            && (sum.count == 0 || sum.bytes + bytes <= limit.bytes);
        if fits { Ok(()) } else { Err(SendError::Overloaded) }
    }

    /// Adds an envelope that was sent beyond the room of this shard's mailbox.
    pub(super) fn add(&mut self, shard: usize, bytes: usize) {
        for load in [&mut self.by_shard[shard], &mut self.sum] {
            load.count += 1;
            load.bytes += bytes;
        }
    }

    /// Removes what was taken: by all shards that have nothing left to take.
    pub(crate) fn remove_taken(&mut self, has_line: impl Fn(usize) -> bool) {
        for (shard, load) in self.by_shard.iter_mut().enumerate() {
            if load.count > 0 && !has_line(shard) {
                let Load { count, bytes } = std::mem::take(load);
                self.sum.count -= count;
                self.sum.bytes -= bytes;
            }
        }
    }

    /// Panics unless the account is right, and within its bounds.
    #[cfg(feature = "testing")]
    pub(crate) fn check_invariants(&self, own: usize) {
        let Self { by_shard, sum, limit } = self;
        let count: usize = by_shard.iter().map(|load| load.count).sum();
        let bytes: usize = by_shard.iter().map(|load| load.bytes).sum();
        assert_eq!(*sum, Load { count, bytes }, "what was sent beyond the room");
        assert!(count <= limit.count, "too much was sent beyond the room");
        assert_eq!(by_shard[own], Load::default(), "a shard sends nothing to itself");
    }
}
