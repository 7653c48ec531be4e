//! [`ConnectionQuota`]: how many connections a server may have, and has.
//!
//! Knows one count that all shards share. Must not know connections.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// How many places over the limit there are, for all shards.
pub(in crate::shard) const OVER_LIMIT_COUNT: usize = 64;

/// How many connections there may be, and how many there are: the one count that all shards share,
/// touched when a connection comes and when it goes.
#[derive(Debug)]
pub(crate) struct ConnectionQuota {
    limit: usize,
    taken_count: AtomicUsize,
    /// Those over the limit: they take no place from the others.
    over_limit_count: AtomicUsize,
}

impl ConnectionQuota {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken_count: AtomicUsize::new(0), over_limit_count: AtomicUsize::new(0) }
    }

    /// Takes a place, if one is free.
    #[must_use]
    pub(in crate::shard) fn take(&self) -> bool {
        add_one(&self.taken_count, self.limit)
    }

    pub(in crate::shard) fn give_back(&self) {
        self.taken_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes one of the places over the limit, if one is free.
    #[must_use]
    pub(in crate::shard) fn take_over_limit(&self) -> bool {
        add_one(&self.over_limit_count, OVER_LIMIT_COUNT)
    }

    pub(in crate::shard) fn release_over_limit(&self) {
        self.over_limit_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, if that is no more than the limit. The count guards nothing but itself.
fn add_one(count: &AtomicUsize, limit: usize) -> bool {
    let one_more = |count| (count < limit).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

#[cfg(feature = "testing")]
impl ConnectionQuota {
    /// How many places are taken, and how many over the limit.
    pub(in crate::shard) fn counts(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (count(&self.taken_count), count(&self.over_limit_count))
    }
}
