//! How much a server carries, over loopback, every byte of it compared.
//!
//! ```text
//! cargo bench --bench throughput                    # all, in about a minute and a half
//! cargo bench --bench throughput -- echo/64         # some
//! cargo bench --bench throughput -- --test          # each once
//! ```
//!
//! The client must not be what is measured. Its frames are encoded beforehand, it makes one system
//! call for a batch each way, and it talks to many connections in turn, for the echoes from as many
//! threads as there are processors to spare, so that there is work for the server. Whether that was
//! enough is printed after each measurement, from the scheduler's own figures: the share of the
//! time that the busiest shard was on a processor (well below 100 %, the client or the machine was
//! the limit, and the throughput is a lower bound), and how long all shards were on one for each
//! message, kernel included, which is a figure of the server's alone.
//!
//! Each measurement is a function of an address, so that other servers can be measured by the same
//! hand; [`serve`] starts ours.

#![allow(clippy::expect_used, reason = "a measurement that fails stops")]

mod client;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use peregrine::{Callbacks, ConnectionId, Limits, Reply, Running, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::client::{Batch, Buffer, Client, Kind};

/// Connections that echo at once: enough that the server always has work while the client reads.
const ECHO_CONNECTION_COUNT: usize = 16;
/// Broadcasts in flight at once.
const BROADCAST_COUNT: usize = 16;
/// Pairs of connections that send to one another, and messages in flight each way.
const PAIR_COUNT: usize = 8;
const PAIR_MESSAGE_COUNT: usize = 32;
/// Connections that come and go at once.
const VISITOR_COUNT: usize = 16;
/// How many batches of different content take turns.
const BATCH_COUNT: usize = 4;

/// A server with all endpoints that the measurements need: `/echo`; `/all`, which broadcasts what
/// comes; `/relay`, whose first message asks for one's own id (`id`) or names the target (an id),
/// to which all others go.
fn serve(shard_count: usize) -> Running {
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let all = Callbacks::<()>::new().on_message(|ws, message| {
        ws.broadcast(message).expect("room in the mailboxes");
        Reply::none()
    });
    let relay = Callbacks::<Option<ConnectionId>>::new().on_message(|ws, message| {
        match (*ws.session(), message.as_text()) {
            (None, Some("id")) => return ws.id().to_string().into(),
            (None, Some(id)) => {
                *ws.session() = Some(id.parse().expect("an id"));
                return "ok".into();
            }
            (None, None) => panic!("a target must be named first"),
            (Some(target), _) => ws.send_to(target, message).expect("room in the mailbox"),
        }
        Reply::none()
    });
    // Nothing may be refused here, or the figures would count what did not happen.
    let mut limits = Limits::default();
    limits.outbox_high_water_bytes = 4 << 20;
    limits.outbox_bytes = 16 << 20;
    Server::builder()
        .shards(shard_count)
        .limits(limits)
        .websocket("/echo", echo)
        .websocket("/all", all)
        .websocket("/relay", relay)
        .bind("127.0.0.1:0")
        .expect("a free port")
        .start()
        .expect("threads")
}

/// A measurement: runs so many rounds and tells how long they took.
type Rounds = Box<dyn FnMut(u64) -> Duration>;

fn timed(mut rounds: impl FnMut(usize) + 'static) -> Rounds {
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

/// What an echo measurement sends.
#[derive(Clone, Copy, Debug)]
struct EchoLoad {
    kind: Kind,
    payload_bytes: usize,
    in_flight_count: usize,
}

/// A connection and what it sends in turn.
type Talker = (Client, Vec<Batch>);

/// Each connection sends its batch and receives it back, again and again.
fn echo(address: SocketAddr, load: EchoLoad) -> Rounds {
    let EchoLoad { kind, payload_bytes, in_flight_count } = load;
    let batch = |salt| Batch::new(kind, payload_bytes, in_flight_count, salt);
    let talker = |index: usize| -> Talker {
        let salts = index * BATCH_COUNT..(index + 1) * BATCH_COUNT;
        (Client::connect(address, "/echo"), salts.map(batch).collect())
    };
    let mut talkers: Vec<Talker> = (0..ECHO_CONNECTION_COUNT).map(talker).collect();
    // One processor is the server's.
    let processor_count = thread::available_parallelism().map_or(1, usize::from);
    let thread_count = processor_count.saturating_sub(1).clamp(1, 4);
    timed(move |count| {
        thread::scope(|scope| {
            for part in talkers.chunks_mut(ECHO_CONNECTION_COUNT.div_ceil(thread_count)) {
                scope.spawn(move || talk(part, count));
            }
        });
    })
}

/// While the client is busy with one connection, the server has the others.
fn talk(talkers: &mut [Talker], count: usize) {
    let mut buffer = Buffer::default();
    for (client, batches) in talkers.iter_mut() {
        client.send(&batches[0]);
    }
    for round in 0..count {
        for (client, batches) in talkers.iter_mut() {
            client.exchange(&batches[round % BATCH_COUNT], &mut buffer);
            if round + 1 < count {
                client.send(&batches[(round + 1) % BATCH_COUNT]);
            }
        }
    }
}

/// One member broadcasts; all receive it, that one included. While they do, the next is sent.
fn broadcast(address: SocketAddr, member_count: usize) -> Rounds {
    let batch = |salt| Batch::new(Kind::Text, 64, BROADCAST_COUNT, salt);
    let batches: Vec<_> = (0..BATCH_COUNT).map(batch).collect();
    let mut members: Vec<_> = (0..member_count).map(|_| Client::connect(address, "/all")).collect();
    let mut buffer = Buffer::default();
    timed(move |count| {
        members[0].send_all(&batches[0]);
        for round in 0..count {
            if round + 1 < count {
                members[0].send_all(&batches[(round + 1) % BATCH_COUNT]);
            }
            for member in &mut members {
                member.receive(&batches[round % BATCH_COUNT], &mut buffer);
            }
        }
    })
}

/// Connections that come and go: each connects, upgrades, closes.
fn connect_and_close(address: SocketAddr) -> Rounds {
    timed(move |count| {
        for _ in 0..count {
            let open = |_| Client::open(address, "/echo");
            let mut clients: Vec<_> = (0..VISITOR_COUNT).map(open).collect();
            clients.iter_mut().for_each(Client::await_upgrade);
            clients.iter_mut().for_each(Client::begin_close);
            clients.into_iter().for_each(Client::await_end);
        }
    })
}

/// Pairs of connections on different shards send to one another.
fn send_to(address: SocketAddr) -> Rounds {
    let mut pairs = pairs_across_shards(address);
    let mut buffer = Buffer::default();
    let batch = |salt| Batch::new(Kind::Binary, 64, PAIR_MESSAGE_COUNT, salt);
    let batches: Vec<_> = (0..2 * PAIR_COUNT).map(batch).collect();
    timed(move |count| {
        for ([left, right], batch) in pairs.iter_mut().zip(batches.chunks_exact(2)) {
            left.send_all(&batch[0]);
            right.send_all(&batch[1]);
        }
        for round in 0..count {
            for ([left, right], batch) in pairs.iter_mut().zip(batches.chunks_exact(2)) {
                left.receive(&batch[1], &mut buffer);
                right.receive(&batch[0], &mut buffer);
                if round + 1 < count {
                    left.send_all(&batch[0]);
                    right.send_all(&batch[1]);
                }
            }
        }
    })
}

/// Connects until there are enough connections on each of two shards, and pairs them.
fn pairs_across_shards(address: SocketAddr) -> Vec<[Client; 2]> {
    let mut sides: [Vec<(Client, ConnectionId)>; 2] = Default::default();
    for _ in 0..100 * PAIR_COUNT {
        if sides.iter().all(|side| side.len() >= PAIR_COUNT) {
            break;
        }
        let mut client = Client::connect(address, "/relay");
        client.send_all(&Batch::request("id", b""));
        let id: ConnectionId = client.read_short_text().parse().expect("an id");
        sides[id.shard()].push((client, id));
    }
    assert!(sides.iter().all(|side| side.len() >= PAIR_COUNT), "a shard gets no connections");
    let mut buffer = Buffer::default();
    let mut name = |client: &mut Client, target: ConnectionId| {
        let naming = Batch::request(&target.to_string(), b"\x81\x02ok");
        client.send_all(&naming);
        client.receive(&naming, &mut buffer);
    };
    let [left, right] = sides;
    left.into_iter()
        .zip(right)
        .take(PAIR_COUNT)
        .map(|((mut left, left_id), (mut right, right_id))| {
            name(&mut left, right_id);
            name(&mut right, left_id);
            [left, right]
        })
        .collect()
}

/// How long each of our shards has been on a processor, in nanoseconds, by thread (Linux).
fn shard_times() -> HashMap<String, u64> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return HashMap::new() };
    threads
        .flatten()
        .filter_map(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanos = times.split_whitespace().next()?.parse().ok()?;
            name.starts_with("peregrine-").then_some((name, nanos))
        })
        .collect()
}

/// What our shards did while the clock ran.
#[derive(Default)]
struct Work {
    wall: Duration,
    message_count: u64,
    /// Time on a processor, of the busiest shard and of all.
    busiest_nanos: u64,
    total_nanos: u64,
}

impl Work {
    fn add(&mut self, rounds: &mut Rounds, round_count: u64, message_count: u64) -> Duration {
        let before = shard_times();
        let duration = rounds(round_count);
        let spent: Vec<u64> =
            shard_times().iter().map(|(name, now)| now - before.get(name).unwrap_or(&0)).collect();
        self.wall += duration;
        self.message_count += round_count * message_count;
        self.busiest_nanos += spent.iter().max().unwrap_or(&0);
        self.total_nanos += spent.iter().sum::<u64>();
        duration
    }

    fn print(&self) {
        let wall_nanos = self.wall.as_nanos();
        if wall_nanos < 100_000_000 {
            // Run once, as a test.
            return;
        }
        let share = u128::from(self.busiest_nanos) * 100 / wall_nanos;
        let each = self.total_nanos / self.message_count;
        eprintln!("{:24}busiest shard: {share} % busy; all shards: {each} ns a message", "");
    }
}

/// Measures a server of ours and prints how busy it was.
fn measure(
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
    let mut measured: Option<(Rounds, Running)> = None;
    group.bench_function(id, |bencher| {
        let (rounds, _) = measured.get_or_insert_with(|| {
            let running = serve(shard_count);
            (measurement(running.local_addr()), running)
        });
        bencher.iter_custom(|count| work.add(rounds, count, message_count));
    });
    // The clients end first, then the server that they talk to.
    if let Some((rounds, running)) = measured {
        drop(rounds);
        drop(running);
    }
    group.finish();
    work.print();
}

fn echoes(criterion: &mut Criterion) {
    for payload_bytes in [64, 1 << 10, 16 << 10] {
        for in_flight_count in [1, 32] {
            for kind in [Kind::Text, Kind::Binary] {
                let load = EchoLoad { kind, payload_bytes, in_flight_count };
                let group = format!("echo/{payload_bytes} B");
                let id = BenchmarkId::new(format!("{kind:?}").to_lowercase(), in_flight_count);
                let message_count = ECHO_CONNECTION_COUNT * in_flight_count;
                let measurement = move |address| echo(address, load);
                measure(criterion, (&group, id), 1, message_count, measurement);
            }
        }
    }
}

fn broadcasts(criterion: &mut Criterion) {
    for member_count in [100, 1000] {
        let id = BenchmarkId::new("members", member_count);
        let delivery_count = member_count * BROADCAST_COUNT;
        let measurement = move |address| broadcast(address, member_count);
        measure(criterion, ("broadcast", id), 1, delivery_count, measurement);
    }
}

fn upgrades(criterion: &mut Criterion) {
    let id = BenchmarkId::new("at once", VISITOR_COUNT);
    measure(criterion, ("connect, upgrade, close", id), 1, VISITOR_COUNT, connect_and_close);
}

fn between_shards(criterion: &mut Criterion) {
    let id = BenchmarkId::new("other shard", PAIR_COUNT);
    let message_count = 2 * PAIR_COUNT * PAIR_MESSAGE_COUNT;
    measure(criterion, ("send_to", id), 2, message_count, send_to);
}

/// All in about a minute and a half. Room for the descriptors of both sides is made first.
fn configuration() -> Criterion {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = all;
    config = configuration();
    targets = echoes, broadcasts, upgrades, between_shards
}
criterion_main!(all);
