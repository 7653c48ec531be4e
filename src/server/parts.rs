//! [`Parts`]: what a server is made of when its shards are prepared.
//!
//! Knows what a shard is given. Must not know who prepares it, nor who drives it.

use std::fmt;
use std::sync::Arc;

use super::OnShardThread;
use super::descriptors::Descriptors;
use crate::hub::Hub;
use crate::shard::{LimitTable, PoolEnd, Service, ShardParts};

/// What a server is made of. Threads drive its shards, or the test kit does.
pub(crate) struct Parts {
    pub(crate) shard_parts: Vec<ShardParts>,
    pub(crate) service: Arc<Service>,
    pub(super) pool_end: PoolEnd,
    pub(crate) limits: LimitTable,
    pub(crate) hub: Hub,
    pub(super) derived: Derived,
    pub(crate) on_shard_thread: OnShardThread,
}

/// The limits that depend on the machine, for the log. They count whether they were set or derived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Derived {
    pub(super) descriptors: Descriptors,
    pub(super) max_connections: usize,
    pub(super) max_offload_threads: usize,
}

impl fmt::Display for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, max_connections, max_offload_threads } = self;
        write!(
            f,
            "connections: at most {max_connections}; descriptors: at most {descriptors}; \
             threads for offloaded work: at most {max_offload_threads}"
        )
    }
}
