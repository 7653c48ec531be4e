//! What drives, checks and measures shards from within the crate: the test kit's turns, the
//! invariants, and what benchmarks reach.
//!
//! Knows everything of a shard. Must not know applications' types, and must not be known by
//! anything that serves.

#[cfg(feature = "testing")]
mod drive;
#[cfg(feature = "__internals")]
pub(crate) mod internals;
#[cfg(feature = "testing")]
mod invariants;
