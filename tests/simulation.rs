//! Everything at once, one turn of one shard at a time, over a kernel that takes and fails as it
//! likes, at a time of its own; a seed decides everything. After each turn the shard's invariants
//! are checked, and what clients get is held against what was said to their senders.
//!
//! One seed again, with all that happened in it: `SIMULATION_SEED=7`. More of them:
//! `SIMULATION_COUNT=100000`, from `SIMULATION_FIRST` on.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "a test program has no users")]

#[path = "simulation/actor.rs"]
mod actor;
mod common;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "simulation/peer.rs"]
mod peer;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/stream.rs"]
mod stream;

use std::panic;

use actor::{OnPurpose, lock};
use run::{Run, Trace};

/// Panics on purpose are silent.
fn hush() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<OnPurpose>() {
            usual(info);
        }
    }));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn simulate(seed: u64, shard_count: usize) {
    let trace = Trace::default();
    let noted = Trace::clone(&trace);
    if panic::catch_unwind(move || Run::new(seed, shard_count, noted).run()).is_err() {
        let trace = lock(&trace);
        let shown = if number("SIMULATION_SEED").is_some() { trace.len() } else { 20 };
        for deed in &trace[trace.len().saturating_sub(shown)..] {
            eprintln!("  {deed}");
        }
        let test = ["one_shard", "two_shards", "three_shards"][shard_count - 1];
        panic!("SIMULATION_SEED={seed} cargo test --all-features --test simulation {test}");
    }
}

fn simulate_many(shard_count: usize) {
    hush();
    if let Some(seed) = number("SIMULATION_SEED") {
        return simulate(seed, shard_count);
    }
    let first = number("SIMULATION_FIRST").unwrap_or(0);
    let count = number("SIMULATION_COUNT").unwrap_or(1000);
    (first..first + count).for_each(|seed| simulate(seed, shard_count));
}

#[test]
fn one_shard_loses_nothing_and_leaves_nothing_over_whatever_happens() {
    simulate_many(1);
}

#[test]
fn two_shards_lose_nothing_and_leave_nothing_over_whatever_happens() {
    simulate_many(2);
}

#[test]
fn three_shards_lose_nothing_and_leave_nothing_over_whatever_happens() {
    simulate_many(3);
}
