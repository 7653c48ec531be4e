//! What a hundred clients that never read cost the others: a broadcast every 10 ms, to 10 000.
//!
//! ```text
//! cargo bench --bench slow_consumers    # 10 000 members, of whom 100 are slow; a minute each
//! cargo bench --bench slow_consumers -- 1000 10 20 2 1024 10
//! ```
//!
//! The numbers: members, slow ones, seconds with them and as many without, shards, bytes of a
//! message, milliseconds from one to the next.
//!
//! The server is a process of its own, the clients are one thread here. With and without the slow
//! ones take turns, eight times in all, so that a machine that drifts drifts for both. Each pair of
//! lines tells how long deliveries took, from when the broadcast was due to when the client's
//! thread saw it; that this thread was not the limit shows in its share of a processor.

#![allow(clippy::expect_used, reason = "a measurement that fails stops")]
#![allow(clippy::print_stdout, reason = "figures are its output")]
#![allow(dead_code, unreachable_pub, reason = "the modules are shared with the tests")]

mod crowd;
mod served;

use std::time::Duration;

use peregrine::OverflowPolicy;
use rustix::time::{ClockId, clock_gettime};

use self::crowd::{Crowd, Times};
use self::served::{Account, Served, Way, now_micros, raise_descriptor_limit, serve_if_ordered};

const OUTBOX_KIB: usize = 1 << 10;
const SEGMENT_COUNT: usize = 8;

struct Plan {
    member_count: usize,
    slow_count: usize,
    time: Duration,
    shards: usize,
    bytes: usize,
    interval: Duration,
}

fn main() {
    if serve_if_ordered() {
        return;
    }
    raise_descriptor_limit();
    let mut numbers = std::env::args().filter_map(|word| word.parse::<usize>().ok());
    let mut number = |default| numbers.next().unwrap_or(default);
    let plan = Plan {
        member_count: number(10_000),
        slow_count: number(100),
        time: Duration::from_secs(number(60) as u64),
        shards: number(1),
        bytes: number(64),
        interval: Duration::from_millis(number(10) as u64),
    };
    for overflow in [OverflowPolicy::DropNewest, OverflowPolicy::DropOldest, OverflowPolicy::Close]
    {
        run(&plan, overflow);
    }
}

fn thread_micros() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1000).expect("time goes on")
}

/// Reads until the server has sent what it was told to, and nothing more comes.
fn read_until_quiet(crowd: &mut Crowd, until: u64) {
    while crowd.read(Duration::from_millis(300)) || now_micros() < until {}
}

/// One stretch of broadcasts: how long deliveries took.
fn stretch(plan: &Plan, served: &mut Served, crowd: &mut Crowd, name: &str) -> Times {
    crowd.times = Times::default();
    let stretch = plan.time / u32::try_from(SEGMENT_COUNT / 2).expect("small");
    let count = (stretch.as_micros() / plan.interval.as_micros()) as usize;
    let (before, own, start) = (served.account(), thread_micros(), now_micros());
    served.begin(Way::Broadcast, count, plan.interval, plan.bytes);
    read_until_quiet(crowd, start + u64::try_from(stretch.as_micros()).expect("short"));
    served.sent();
    let (wall, own) = (now_micros() - start, thread_micros() - own);
    let after = served.account();
    let times = crowd.times.clone();
    let delivered = times.count().max(1);
    let spent = after.processor_micros - before.processor_micros;
    println!(
        "{name:>16}: {}; {:>4.0} k/s; processor: server {:>3} %, {:.2} us each, clients {:>3} %; \
         server {:>4} MiB; refused {}, dropped {}",
        told(&times),
        delivered as f64 * 1000. / wall as f64,
        spent * 100 / wall,
        spent as f64 / delivered as f64,
        own * 100 / wall,
        after.resident_kib >> 10,
        after.refused_count - before.refused_count,
        after.dropped_count - before.dropped_count,
    );
    times
}

fn told(times: &Times) -> String {
    let [p50, p99, most] = [500, 990, 1000].map(|share| times.per_mille(share).as_secs_f64() * 1e3);
    format!("p50 {p50:>7.2} ms, p99 {p99:>7.2} ms, max {most:>7.2} ms")
}

fn run(plan: &Plan, overflow: OverflowPolicy) {
    let mut served = Served::start(&[], plan.shards, overflow, OUTBOX_KIB);
    let mut crowd = Crowd::new();
    let quick_count = plan.member_count - plan.slow_count;
    crowd.join(served.port, quick_count, false);
    println!("{overflow:?}: {quick_count} read, {} do not", plan.slow_count);
    let (mut without, mut with) = (Times::default(), Times::default());
    for segment in 0..SEGMENT_COUNT {
        // ABBA ABBA: what drifts in one direction drifts for both.
        if matches!(segment % 4, 1 | 2) {
            let (before, port) = (served.account(), served.port);
            crowd.join(port, plan.slow_count, true);
            // Their outboxes are full from the beginning.
            served.begin(Way::SendTo, 600, Duration::from_millis(2), 16 << 10);
            served.sent();
            with.merge(&stretch(plan, &mut served, &mut crowd, "with them"));
            let Account { resident_kib, dropped_count, connection_count, .. } = served.account();
            let gone = (quick_count + plan.slow_count) as u64 - connection_count;
            println!(
                "{:>16}  grown by {} MiB, dropped {}, closed {gone}",
                "",
                resident_kib.saturating_sub(before.resident_kib) >> 10,
                dropped_count - before.dropped_count,
            );
            crowd.truncate(quick_count);
            while served.account().connection_count > quick_count as u64 {}
        } else {
            without.merge(&stretch(plan, &mut served, &mut crowd, "without them"));
        }
    }
    println!("{overflow:?}, without: {}", told(&without));
    println!("{overflow:?}, with:    {}", told(&with));
    served.begin_shutdown();
    while crowd.ended_count < quick_count {
        crowd.read(Duration::from_secs(1));
    }
    assert_eq!(served.ended().aborted_count, 0);
}
