//! What is counted and limited for a whole shard or server: connections and client addresses.
//!
//! Knows numbers and limits. Must not know connections.

pub(in crate::shard) mod clients;
pub(in crate::shard) mod connections;
pub(in crate::shard) mod input;
