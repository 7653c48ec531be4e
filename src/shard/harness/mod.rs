//! What drives, checks and measures shards from within the crate: the test kit's turns, the
//! invariants, and what benchmarks reach.
//!
//! Knows everything of a shard. Must not know tests; nothing that serves may know it.

#[cfg(feature = "testing")]
mod drive;
#[cfg(feature = "__internals")]
pub(crate) mod internals;
#[cfg(feature = "testing")]
mod invariants;
