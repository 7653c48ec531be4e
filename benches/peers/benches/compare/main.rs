//! Peregrine beside its peers, over loopback, every byte of the answers compared.
//!
//! ```text
//! cargo bench -p peregrine-peers                     # all, in about eight minutes
//! cargo bench -p peregrine-peers -- 'echo/64 B'      # some
//! cargo bench -p peregrine-peers -- --test           # each once
//!
//! PEREGRINE_PEER=uws=ws://127.0.0.1:9001 cargo bench -p peregrine-peers
//! ```
//!
//! The speed of a machine drifts, by a factor of two within minutes on one that is shared. Whoever
//! measures one server after the other measures that. So here nobody is measured alone: criterion
//! asks for one server at a time, and gets its part of a **lap**, in which every server does the
//! same work for a few hundredths of a second, one after another, each lap in the opposite order of
//! the one before. Criterion's report holds one server's part of the laps that it asked for; the
//! table printed below it holds all laps. Two figures are to be trusted:
//!
//! - `rate`, `cpu` **of peregrine's**: the median, over all laps, of a server's figure divided by
//!   peregrine's in the same lap, and where the middle half of the laps lies. What the machine did
//!   to both cancels out; what the absolute figures say holds for the hour.
//! - `cpu`: what a message costs the server's process on processors, kernel included, from the
//!   scheduler's own figures (`/proc/PID/task/*/schedstat`, the exact form of utime + stime). The
//!   client's share of the machine is not in it.
//!
//! All servers are processes of their own, started for each load and ended after it, one worker
//! thread each. All have the same client, see `loads`: it makes one system call for a batch each
//! way, from as many threads as there are processors to spare.
//!
//! `PEREGRINE_PEER` names other servers that are already running, with spaces between them:
//! `NAME=ws://ADDRESS[#PID]`. They join each load whose path (`/echo`, `/all`) they upgrade; with
//! a process id their processor time is told, too.
//!
//! The results also go to `benches/results/peers.json`, or where `PEREGRINE_PEERS_JSON` says.

#![allow(clippy::expect_used, reason = "a measurement that fails stops")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod loads;
mod race;
mod report;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::common::client::Kind;
use self::loads::Load;
use self::race::{Race, competitors};
use self::report::Report;

/// Measures all servers under one load.
fn measure(criterion: &mut Criterion, report: &mut Report, load: Load) {
    let mut group = criterion.benchmark_group(load.name());
    group
        .throughput(Throughput::Elements(load.message_count() as u64))
        .sampling_mode(SamplingMode::Flat);
    // Made by the first call, for it may be that none is made.
    let mut race: Option<Race> = None;
    for name in competitors(load.path()) {
        group.bench_function(&name, |bencher| {
            let race = race.get_or_insert_with(|| Race::prepare(load));
            bencher.iter_custom(|count| race.lap(count, &name));
        });
    }
    group.finish();
    if let Some(race) = race {
        report.add(load, &race.end());
    }
}

fn all(criterion: &mut Criterion) {
    let mut report = Report::default();
    for payload_bytes in [64, 1 << 10, 16 << 10, 1 << 20] {
        for in_flight_count in [1, 32] {
            for kind in [Kind::Text, Kind::Binary] {
                let load = Load::Echo { kind, payload_bytes, in_flight_count };
                measure(criterion, &mut report, load);
            }
        }
    }
    for member_count in [100, 1000] {
        measure(criterion, &mut report, Load::Broadcast { member_count });
    }
}

/// Room for the descriptors of both sides is made first: the servers inherit the limit.
fn configuration() -> Criterion {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = peers;
    config = configuration();
    targets = all
}
criterion_main!(peers);
