//! The structure of `src/` in numbers, for `ci/structure.sh`: circles, imports that run upward,
//! imports within `shard/`. It also reads trees from before the files moved to their layers.
//!
//! Knows where files of the old tree stand now. Must not know how imports are found.

use std::collections::BTreeSet;
use std::path::Path;

use super::graph::{Edge, Tree, circles};
use super::layers::{LAYERS, fault, layer_of};

/// Where files stand since the layers became folders. A file that was cut into several stands
/// where most of it went.
const MOVED: [(&str, &str); 35] = [
    ("src/network.rs", "src/http/network.rs"),
    ("src/protocol/proxy.rs", "src/http/proxy.rs"),
    ("src/shard/application.rs", "src/shard/dispatch/mod.rs"),
    ("src/shard/arrivals.rs", "src/transport/memory_listener.rs"),
    ("src/shard/audience.rs", "src/shard/fanout/audience.rs"),
    ("src/shard/clock.rs", "src/clock.rs"),
    ("src/shard/closing.rs", "src/shard/phases/close.rs"),
    ("src/shard/connection.rs", "src/shard/connection/mod.rs"),
    ("src/shard/drive.rs", "src/shard/harness/drive.rs"),
    ("src/shard/encoder.rs", "src/shard/outbox/encoder.rs"),
    ("src/shard/ending.rs", "src/shard/state/ending.rs"),
    ("src/shard/entrance.rs", "src/shard/phases/accept.rs"),
    ("src/shard/erased.rs", "src/shard/dispatch/erased.rs"),
    ("src/shard/fanout.rs", "src/shard/fanout/mod.rs"),
    ("src/shard/internals.rs", "src/shard/harness/internals.rs"),
    ("src/shard/invariants.rs", "src/shard/harness/invariants.rs"),
    ("src/shard/keeping.rs", "src/shard/state/kept_input.rs"),
    ("src/shard/listener.rs", "src/transport/listener.rs"),
    ("src/shard/news.rs", "src/transport/readiness.rs"),
    ("src/shard/outbox.rs", "src/shard/outbox/mod.rs"),
    ("src/shard/output.rs", "src/shard/state/output.rs"),
    ("src/shard/pipe.rs", "src/transport/memory.rs"),
    ("src/shard/pool.rs", "src/shard/dispatch/pool.rs"),
    ("src/shard/publish.rs", "src/shard/state/publish.rs"),
    ("src/shard/receive.rs", "src/shard/phases/receive.rs"),
    ("src/shard/room.rs", "src/shard/outbox/cork.rs"),
    ("src/shard/shutdown.rs", "src/shard/phases/shutdown.rs"),
    ("src/shard/state.rs", "src/shard/state/mod.rs"),
    ("src/shard/streaming.rs", "src/shard/state/streaming.rs"),
    ("src/shard/tasks.rs", "src/shard/phases/waiting.rs"),
    ("src/shard/transport.rs", "src/transport/mod.rs"),
    ("src/shard/upgrade.rs", "src/shard/phases/upgrade.rs"),
    ("src/shard/visit.rs", "src/shard/dispatch/scope.rs"),
    ("src/shard/visitors.rs", "src/shard/quota/clients.rs"),
    ("src/shard/watch.rs", "src/shard/state/service.rs"),
];

fn place(file: &str) -> &str {
    MOVED.iter().find(|(old, _)| *old == file).map_or(file, |(_, new)| new)
}

/// Pairs of files of which one imports the other, however many items it takes.
fn pairs<'e>(edges: impl Iterator<Item = &'e Edge>) -> BTreeSet<(&'e str, &'e str)> {
    edges.map(|edge| (&edge.from[..], &edge.to[..])).collect()
}

/// Prints the numbers of the crate at `root`.
pub(crate) fn print(root: &Path, is_long: bool) {
    let tree = Tree::read(root);
    let edges = tree.edges();
    println!("files                          {:5}", tree.files.len());
    println!("imports between files          {:5}", pairs(edges.iter()).len());
    let is_shards = |file: &str| file.starts_with("src/shard/");
    let in_shard = || edges.iter().filter(|edge| is_shards(&edge.from) && is_shards(&edge.to));
    println!("imports within shard/          {:5}", pairs(in_shard()).len());

    let circles = circles(&edges);
    println!("files in circles               {:5}", circles.iter().flatten().count());
    for circle in &circles {
        println!("  {} files: {}", circle.len(), circle.join(" "));
    }
    let upward = |edge: &&Edge| fault(edge, place(&edge.from), place(&edge.to)).is_some();
    println!("imports that run upward        {:5}", pairs(edges.iter().filter(upward)).len());
    println!("  of these within shard/       {:5}", pairs(in_shard().filter(upward)).len());
    for edge in edges.iter().filter(upward) {
        let name = |file: &str| layer_of(place(file)).map_or("", |index| LAYERS[index].name);
        let (from, to) = (name(&edge.from), name(&edge.to));
        println!("  {}:{} {} -> {}  [{from} -> {to}]", edge.from, edge.line, edge.path, edge.to);
    }
    let lost: Vec<_> = tree.files.iter().filter(|file| layer_of(place(file)).is_none()).collect();
    println!("files without a layer          {:5}", lost.len());
    lost.iter().for_each(|file| println!("  {file}"));
    if is_long {
        println!("all imports:");
        for Edge { from, to, line, path } in &edges {
            println!("  {from}:{line} {path} -> {to}");
        }
    }
}
