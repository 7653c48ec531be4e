//! How a measurement is run, and how busy the server was meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

use super::served::Served;

/// A measurement: runs so many rounds and tells how long they took.
pub(crate) type Rounds = Box<dyn FnMut(u64) -> Duration>;

pub(crate) fn timed(mut rounds: impl FnMut(usize) + 'static) -> Rounds {
    Box::new(move |count| {
        let start = now();
        rounds(usize::try_from(count).unwrap_or(usize::MAX));
        start.elapsed()
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// What the server's shards did while the clock ran.
#[derive(Default)]
struct Work {
    wall: Duration,
    round_count: u64,
    message_count: u64,
    /// Time on a processor, of the busiest shard and of all.
    busiest_nanos: u64,
    total_nanos: u64,
}

impl Work {
    fn add(
        &mut self,
        served: &Served,
        rounds: &mut Rounds,
        (round_count, message_count): (u64, u64),
    ) -> Duration {
        let before = served.shard_times();
        let duration = rounds(round_count);
        let after = served.shard_times();
        let spent: Vec<u64> =
            after.iter().map(|(name, now)| now - before.get(name).unwrap_or(&0)).collect();
        self.wall += duration;
        self.round_count += round_count;
        self.message_count += round_count * message_count;
        self.busiest_nanos += spent.iter().max().unwrap_or(&0);
        self.total_nanos += spent.iter().sum::<u64>();
        duration
    }

    fn print(&self) {
        if self.round_count <= 1 {
            // As a test, or not at all.
            return;
        }
        let share = u128::from(self.busiest_nanos) * 100 / self.wall.as_nanos();
        let each = self.total_nanos / self.message_count;
        eprintln!("{:24}busiest shard: {share} % busy; all shards: {each} ns a message", "");
    }
}

/// Measures a server of ours and prints how busy it was.
pub(crate) fn measure(
    criterion: &mut Criterion,
    (group, id): (&str, BenchmarkId),
    shard_count: usize,
    message_count: usize,
    measurement: impl Fn(SocketAddr) -> Rounds,
) {
    let message_count = message_count as u64;
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(message_count)).sampling_mode(SamplingMode::Flat);
    let mut work = Work::default();
    // Made by the first call, for it is called for each sample, or not at all.
    let mut measured: Option<(Rounds, Served)> = None;
    group.bench_function(id, |bencher| {
        let (rounds, served) = measured.get_or_insert_with(|| {
            let served = Served::start(shard_count);
            (measurement(served.address), served)
        });
        bencher.iter_custom(|count| work.add(served, rounds, (count, message_count)));
    });
    // The clients end first, then the server that they talk to.
    if let Some((rounds, served)) = measured {
        drop(rounds);
        drop(served);
    }
    group.finish();
    work.print();
}
