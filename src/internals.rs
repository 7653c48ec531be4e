//! What the benchmarks of the parts (`benches/parts`, `benches/budget`), and nothing else, use of
//! the modules behind the API. Compiled only with the feature `__internals`; no
//! part of the API, and no promise.
//!
//! Few operations, each on many items, so that the call itself weighs nothing; and each lets its
//! caller see what it did, so that what is measured is also checked.

pub use crate::protocol::internals::{Receiver, answer_upgrade};
pub use crate::shard::harness::internals::{Members, Post, Queue, Sender, Timers};
