//! Counts the files and functions of the library that run for an echo, a broadcast, an upgrade and
//! a shutdown.
//!
//! ```text
//! peregrine-structure ROOT [--long]
//! ```
//!
//! `ROOT` is the folder whose `src/` the library was built from. Nothing is guessed: this program
//! runs itself as a server under callgrind, which counts how often each instruction runs, and
//! `addr2line` names for each instruction the function and the file that it was written in, and
//! those that it was inlined into.
//!
//! * **echo**, **broadcast**, **upgrade**: the scene runs twice, the second time with more items.
//!   An instruction is on the way if it runs at least 9 times more for 10 items more. So what runs
//!   once at the start, or for some items only, does not count; what runs in each turn does, for
//!   each item has turns of its own: the client waits for the answer before it sends the next one.
//! * **echo in flight**: the same with all messages sent at once, so that few turns find them: what
//!   runs for each message, without the turn, the read and the write.
//! * **shutdown**: all that runs from the call of `Hub::shutdown` with idle connections on two
//!   shards until the process ends.
//!
//! All is done three times, and only what is found each time counts. The figures of a build are
//! then the same each time, but for a function more or less of those that depend on the clock.
//!
//! The lines are those of the instructions and, where a function is inlined, those of the calls
//! around it. A function is on the way if one of its lines is, as the source has it: closures and
//! the instances of a generic function are the same function, and what `derive` writes is none. A
//! file is on the way if one of its functions is. Only the library's own files count.

mod client;
mod functions;
mod profile;
mod server;
#[path = "../../../tests/tidy/tokens.rs"]
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::functions::{Function, around, functions};
use self::server::Served;

/// Clients that may be on any shard: both shards have one of them but once in a million times.
const CLIENT_COUNT: usize = 20;

/// The items of a short and of a long run.
const ITEM_COUNTS: [usize; 2] = [40, 140];

type Scene = fn(&mut Served, usize);

/// Name, shards, and what clients do. One shard, where another one would only add chance.
const SCENES: [(&str, usize, Scene); 4] = [
    ("echo", 1, echo),
    ("echo in flight", 1, echo_in_flight),
    ("broadcast across shards", 2, broadcast),
    ("upgrade", 1, upgrade),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [server::ORDER, shard_count] => server::serve(shard_count.parse().expect("a number")),
        [root] => report(Path::new(root), false),
        [root, "--long"] => report(Path::new(root), true),
        _ => panic!("usage: peregrine-structure ROOT [--long]"),
    }
}

fn report(root: &Path, is_long: bool) {
    let root = root.canonicalize().expect("a folder");
    for (name, shard_count, scene) in SCENES {
        print(name, &way(&root, &per_item(shard_count, scene)), is_long);
    }
    print("shutdown", &way(&root, &in_shutdown()), is_long);
}

/// The functions that these instructions belong to, by file.
type Way = BTreeMap<String, BTreeSet<Function>>;

fn way(root: &Path, addresses: &[u64]) -> Way {
    let mut way = Way::new();
    for (file, lines) in profile::lines(root, addresses) {
        if file.starts_with("src/") {
            let text = std::fs::read_to_string(root.join(&file)).expect("a source");
            let all = functions(&text);
            let on_way: BTreeSet<Function> =
                lines.iter().filter_map(|line| around(&all, *line)).cloned().collect();
            if !on_way.is_empty() {
                way.insert(file, on_way);
            }
        }
    }
    way
}

/// Prints how many files and functions are on a way, and which.
fn print(name: &str, way: &Way, is_long: bool) {
    let function_count: usize = way.values().map(BTreeSet::len).sum();
    println!("{name:24} {:3} files {function_count:4} functions", way.len());
    for (file, functions) in way {
        let names: Vec<&str> = functions.iter().map(|function| &function.name[..]).collect();
        let names = if is_long { format!(": {}", names.join(", ")) } else { String::new() };
        println!("  {file}{names}");
    }
}

/// Chance (which turn finds an event, how the clock's steps fall) leaves an instruction out of some
/// runs: only what is found each time counts.
const RUN_COUNT: usize = 3;

fn in_each_run(run: impl Fn() -> BTreeSet<u64>) -> Vec<u64> {
    let runs: Vec<_> = (0..RUN_COUNT).map(|_| run()).collect();
    let is_in_all = |address: &&u64| runs.iter().all(|run| run.contains(address));
    runs[0].iter().filter(is_in_all).copied().collect()
}

/// The instructions that run for each item.
fn per_item(shard_count: usize, scene: Scene) -> Vec<u64> {
    let more = (ITEM_COUNTS[1] - ITEM_COUNTS[0]) as u64;
    in_each_run(|| {
        let [short, long] = ITEM_COUNTS.map(|count| {
            let mut served = Served::start(shard_count);
            scene(&mut served, count);
            served.exit()
        });
        let before = |address: &u64| short.get(address).copied().unwrap_or(0);
        let grows = |(address, count): &(&u64, &u64)| {
            10 * count.saturating_sub(before(address)) >= 9 * more
        };
        long.iter().filter(grows).map(|(address, _)| *address).collect()
    })
}

/// The instructions that run from the call of `Hub::shutdown` on.
fn in_shutdown() -> Vec<u64> {
    in_each_run(|| {
        let mut served = Served::start(2);
        let clients = served.clients("/all", CLIENT_COUNT);
        served.shut_down();
        clients.into_iter().for_each(|(client, _)| client.close());
        served.wait().into_keys().collect()
    })
}

fn echo(served: &mut Served, count: usize) {
    let mut client = served.client("/echo");
    for _ in 0..count {
        client.send(1);
        client.receive(1);
    }
}

fn echo_in_flight(served: &mut Served, count: usize) {
    let mut client = served.client("/echo");
    client.send(count);
    client.receive(count);
}

/// One sends; one on the same shard and one on the other receive as it does itself.
fn broadcast(served: &mut Served, count: usize) {
    let mut clients = served.clients("/all", CLIENT_COUNT);
    let mut of_shard = |shard: usize| {
        let at = clients.iter().position(|(_, found)| *found == shard).expect("a shard has one");
        clients.swap_remove(at).0
    };
    let mut members = [of_shard(0), of_shard(1)];
    clients.into_iter().for_each(|(client, _)| client.leave());
    for _ in 0..count {
        members[0].send(1);
        members.iter_mut().for_each(|member| member.receive(1));
    }
}

fn upgrade(served: &mut Served, count: usize) {
    // They stay open: how they leave is not an upgrade's.
    let clients: Vec<_> = (0..count).map(|_| served.client("/echo")).collect();
    served.keep(clients);
}
