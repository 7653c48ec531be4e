//! [`Counters`]: what a shard counts, for any thread to read without a look at its mailbox.
//!
//! **Rare counts** stand here as atomics and are published at once. A sender may be notified of a
//! message's fate right after the message was counted, and may read the counter at once: so a shard
//! **counts first, then settles the ticket**. The ticket's channel orders the two for the thread
//! that is notified; the counts themselves order nothing, and are relaxed.
//!
//! **Hot counts**, such as messages and bytes, do not belong among them: a shard keeps those as
//! plain `u64`s of its own, and publishes them in this block once a turn, with one store each.
//!
//! Knows numbers. Must not know mailboxes, nor what is counted when.

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The counters of one shard. They have cache lines of their own, two because processors fetch
/// lines in pairs: what one shard counts must not slow down what stands beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    /// How many connections the shard has, including those on their way to it. The number is not
    /// exact while connections come and go; it only guides where a new one is placed.
    connection_count: AtomicUsize,
    /// How many messages were dropped after they had been accepted.
    dropped_count: AtomicU64,
    /// How many pieces of work that handlers had left to be done were cancelled.
    cancelled_count: AtomicU64,
}

impl Counters {
    /// Counts a connection that the shard gets. The shard that hands over a socket counts it before
    /// it does so: the connection may end before that shard's next instruction.
    pub(crate) fn add_connection(&self) {
        self.connection_count.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that was counted has ended.
    pub(crate) fn remove_connection(&self) {
        let before = self.connection_count.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a connection ended that was not counted");
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connection_count.load(Ordering::Relaxed)
    }

    /// Counts messages that were dropped after they had been accepted.
    pub(crate) fn count_dropped(&self, count: u64) {
        self.dropped_count.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn dropped_count(&self) -> u64 {
        self.dropped_count.load(Ordering::Relaxed)
    }

    /// Counts work of a handler that was cancelled.
    pub(crate) fn count_cancelled(&self) {
        self.cancelled_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cancelled_count(&self) -> u64 {
        self.cancelled_count.load(Ordering::Relaxed)
    }
}
