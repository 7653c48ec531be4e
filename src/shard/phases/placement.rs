//! Which shard a fresh socket lives on.
//!
//! Knows how many connections each shard has. Must not know sockets.

use crate::hub::Shared;

/// Which shard a socket that `own` accepted should live on: its own, unless another has markedly
/// fewer connections.
pub(super) fn place(shared: &Shared, own: usize) -> usize {
    let count = |shard: usize| shared.shards[shard].counters.connection_count();
    let is_alive = |&shard: &usize| !shared.shards[shard].mailbox.is_closed();
    let shards = (0..shared.shards.len()).filter(is_alive);
    let fewest = shards.min_by_key(|&shard| count(shard)).unwrap_or(own);
    let markedly = 2 + count(fewest) / 32;
    if count(own) >= count(fewest) + markedly { fewest } else { own }
}
