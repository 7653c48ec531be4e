//! [`Places`]: how many connections a server may have, and has.
//!
//! Knows one count that all shards share. Must not know connections.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// How many places the surplus of all shards has.
pub(in crate::shard) const SURPLUS_COUNT: usize = 64;

/// How many connections there may be, and how many there are: the one count that all shards share,
/// touched when a connection comes and when it goes.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    taken_count: AtomicUsize,
    /// Those in surplus: they take no place from the others.
    surplus_count: AtomicUsize,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken_count: AtomicUsize::new(0), surplus_count: AtomicUsize::new(0) }
    }

    /// Takes a place, if one is free.
    #[must_use]
    pub(in crate::shard) fn take(&self) -> bool {
        add_one(&self.taken_count, self.limit)
    }

    pub(in crate::shard) fn give_back(&self) {
        self.taken_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes one of the surplus's places, if one is free.
    #[must_use]
    pub(in crate::shard) fn take_surplus(&self) -> bool {
        add_one(&self.surplus_count, SURPLUS_COUNT)
    }

    pub(in crate::shard) fn give_back_surplus(&self) {
        self.surplus_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, if that is no more than the limit. The count guards nothing but itself.
fn add_one(count: &AtomicUsize, limit: usize) -> bool {
    let one_more = |count| (count < limit).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

#[cfg(feature = "testing")]
impl Places {
    /// How many places are taken, and how many of the surplus.
    pub(in crate::shard) fn counts(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (count(&self.taken_count), count(&self.surplus_count))
    }
}
