//! How much a server carries, over loopback, every byte of it compared.
//!
//! ```text
//! cargo bench --bench throughput                    # all, in about three minutes
//! cargo bench --bench throughput -- echo/64         # some
//! cargo bench --bench throughput -- --test          # each once
//! ```
//!
//! The client must not be what is measured. The server is a process of its own. The client's frames
//! are encoded beforehand, it makes one system call for a batch each way, and it talks to many
//! connections in turn, for the echoes from as many threads as there are processors to spare, so
//! that there is work for the server. Whether that was enough is printed after each measurement,
//! from the scheduler's own figures: the share of the time that the busiest shard was on a
//! processor (well below 100 %, the client or the machine was the limit, and the throughput is a
//! lower bound), and how long all shards were on one for each message, kernel included, which is a
//! figure of the server's alone.
//!
//! What is counted: messages of echoes and of `send_to`, deliveries of broadcasts, and connections
//! that come and go. The last number of a name is how many are in flight at once: of each
//! connection that talks. Ten thousand members need as many descriptors on each side.
//!
//! Each measurement is a function of an address, so that other servers can be measured by the same
//! hand; [`Served`](served::Served) is ours.

#![allow(clippy::expect_used, reason = "a measurement that fails stops")]
#![allow(clippy::print_stdout, reason = "the process that serves says where")]

mod client;
mod deliver;
mod echo;
mod measure;
mod served;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};

use self::client::Kind;
use self::deliver::{PAIR_COUNT, Placement, broadcast, send_to};
use self::echo::{Load, VISITOR_COUNT, connect_and_close, echo};
use self::measure::measure;

fn echoes(criterion: &mut Criterion) {
    for payload_bytes in [64, 1 << 10, 16 << 10, 1 << 20] {
        for in_flight_count in [1, 32] {
            for kind in [Kind::Text, Kind::Binary] {
                let load = Load { kind, payload_bytes, in_flight_count };
                let group = format!("echo/{payload_bytes} B");
                let id = BenchmarkId::new(format!("{kind:?}").to_lowercase(), in_flight_count);
                let measurement = move |address| echo(address, load);
                measure(criterion, (&group, id), 1, load.message_count(), measurement);
            }
        }
    }
}

fn broadcasts(criterion: &mut Criterion) {
    for shard_count in [1, 2] {
        for member_count in [1, 100, 1000, 10_000] {
            for in_flight in [1, 16] {
                let group = format!("broadcast to {member_count}");
                let shards = if shard_count == 1 { "1 shard" } else { "2 shards" };
                let id = BenchmarkId::new(shards, in_flight);
                let delivery_count = member_count * in_flight;
                let measurement = move |address| broadcast(address, member_count, in_flight);
                measure(criterion, (&group, id), shard_count, delivery_count, measurement);
            }
        }
    }
}

fn direct(criterion: &mut Criterion) {
    for placement in Placement::ALL {
        for in_flight in [1, 32] {
            let id = BenchmarkId::new(placement.name(), in_flight);
            let message_count = 2 * PAIR_COUNT * in_flight;
            let measurement = move |address| send_to(address, placement, in_flight);
            let shard_count = placement.shard_count();
            measure(criterion, ("send_to", id), shard_count, message_count, measurement);
        }
    }
}

fn visits(criterion: &mut Criterion) {
    let id = BenchmarkId::new("at once", VISITOR_COUNT);
    measure(criterion, ("connect, upgrade, close", id), 1, VISITOR_COUNT, connect_and_close);
}

fn configuration() -> Criterion {
    served::raise_descriptor_limit();
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = all;
    config = configuration();
    targets = echoes, broadcasts, visits, direct
}

fn main() {
    if served::serve_if_ordered() {
        return;
    }
    all();
    Criterion::default().configure_from_args().final_summary();
}
