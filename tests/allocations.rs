//! What a message costs in allocations once a server has settled: an echo and a delivery nothing,
//! a broadcast at most what all its deliveries share.
//!
//! The server is a process of its own, so that nothing but it is counted; it tells its count at an
//! endpoint. Each workload runs for a while, then in several windows, of which the one with the
//! fewest allocations counts: what each message costs is in all of them, what a timer costs, or a
//! message that the network cut in two, is not.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(clippy::print_stdout, reason = "what was measured is told to those who look")]

#[path = "allocations/broadcast.rs"]
mod broadcast;
#[path = "../benches/throughput/client.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benchmark's, of which this uses a part")]
mod client;
mod common;
#[path = "allocations/direct.rs"]
mod direct;
#[path = "allocations/echo.rs"]
mod echo;
#[path = "allocations/idle.rs"]
mod idle;
#[path = "common/process.rs"]
mod process;
#[path = "allocations/server.rs"]
mod server;

use std::alloc::System;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::server::Server;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How many windows there are, and how many rounds in each, and before the first.
const WINDOW_COUNT: usize = 3;
const ROUND_COUNT: usize = 20;

/// What the messages, or the deliveries to many, of a workload may allocate.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Nothing,
    /// So often for each.
    Each(u64),
}

/// What was allocated in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Allocated {
    count: u64,
    bytes: u64,
}

/// Runs rounds of a workload until the server has settled; what it allocates in a window then.
fn settle(server: &Server, mut round: impl FnMut()) -> Allocated {
    let mut counter = server.counter();
    (0..ROUND_COUNT).for_each(|_| round());
    counter.count();
    let mut window = || {
        let before = counter.count();
        (0..ROUND_COUNT).for_each(|_| round());
        let after = counter.count();
        Allocated { count: after.count - before.count, bytes: after.bytes - before.bytes }
    };
    let windows: Vec<_> = (0..WINDOW_COUNT).map(|_| window()).collect();
    println!("allocated in {ROUND_COUNT} rounds, {WINDOW_COUNT} times: {windows:?}");
    windows.into_iter().min().expect("windows")
}

/// Checks what a workload allocates, of which a round has so many messages.
fn check(server: &Server, allowed: Allowed, messages: usize, round: impl FnMut()) {
    let allocated = settle(server, round);
    let messages = (ROUND_COUNT * messages) as u64;
    let most = match allowed {
        Allowed::Nothing => 0,
        Allowed::Each(count) => count * messages,
    };
    assert!(allocated.count <= most, "{messages} messages: {allowed:?}, not {allocated:?}");
}
