//! Clients that never read, among many that do, over real sockets; the server is a process of its
//! own. What is held for them is bounded in memory, the others get everything, and the accounts add
//! up exactly: received + dropped + refused = asked. Times are measured by the benchmark of the
//! same name, whose two modules these tests share.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(dead_code, unreachable_pub, reason = "the benchmark uses the rest")]

mod common;
#[path = "../benches/slow_consumers/crowd.rs"]
mod crowd;
#[path = "../benches/slow_consumers/served.rs"]
mod served;

use std::time::Duration;

use peregrine::OverflowPolicy;

use self::common::within;
use self::crowd::Crowd;
use self::served::{Account, Served, Way, raise_descriptor_limit, serve_if_ordered};

const LIMIT: Duration = Duration::from_secs(120);
const OUTBOX_KIB: usize = 1 << 10;
const INTERVAL: Duration = Duration::from_millis(10);
/// The server's process is this test and nothing else.
const SERVER: [&str; 4] = ["--exact", "a_server_for_the_other_tests", "--nocapture", "--quiet"];

#[test]
fn a_server_for_the_other_tests() {
    serve_if_ordered();
}

/// Some that read and some that do not.
struct Scene {
    served: Served,
    crowd: Crowd,
    quick_count: usize,
    slow_count: usize,
}

impl Scene {
    fn new(shards: usize, overflow: OverflowPolicy, quick_count: usize, slow_count: usize) -> Self {
        raise_descriptor_limit();
        let served = Served::start(&SERVER, shards, overflow, OUTBOX_KIB);
        let mut crowd = Crowd::new();
        crowd.join(served.port, quick_count, false);
        crowd.join(served.port, slow_count, true);
        Self { served, crowd, quick_count, slow_count }
    }

    /// Sends so many messages, while those who read do.
    fn send(&mut self, way: Way, count: usize, interval: Duration, bytes: usize) {
        self.served.begin(way, count, interval, bytes);
        while !self.served.has_answered() {
            self.crowd.read(Duration::from_millis(1));
        }
        self.served.sent();
    }

    /// Now the slow ones read, too, and the server shuts down: everything accepted arrives.
    fn settle(mut self) -> (Account, Crowd) {
        (self.quick_count..self.crowd.len()).for_each(|at| self.crowd.wake(at));
        self.served.begin_shutdown();
        while self.crowd.ended_count < self.crowd.len() {
            self.crowd.read(Duration::from_secs(1));
        }
        (self.served.ended(), self.crowd)
    }
}

/// Whatever is sent, in whatever way, is received, or counted as dropped, or was refused.
fn accounts_add_up(shards: usize, overflow: OverflowPolicy) {
    for way in Way::ALL {
        let mut scene = Scene::new(shards, overflow, 50, 5);
        // More than the kernel and the outbox take together; some of it faster than is accepted.
        scene.send(way, 400, Duration::ZERO, 20 << 10);
        scene.send(way, 100, Duration::from_millis(1), 1000);
        scene.send(way, 200, Duration::ZERO, 20 << 10);
        let (account, crowd) = scene.settle();
        let case = format!("{shards} shards, {overflow:?}, {way:?}: {account:?}");
        let received = crowd.total();
        let fates = received + account.dropped_count + account.refused_count;
        match way {
            Way::BroadcastAsync | Way::PublishAsync => {
                assert_eq!(account.reached_count, received, "{case}");
                assert_eq!(account.missed_count, account.dropped_count, "{case}");
            }
            Way::SendToAsync => {
                assert_eq!(account.reached_count, received, "{case}");
                assert_eq!(account.reached_count + account.missed_count, account.asked_count);
            }
            _ => {}
        }
        assert_eq!(fates + account.told_refused_count(way), account.asked_count, "{case}");
        assert!(account.dropped_count > 0, "{case}");
        assert_eq!(account.aborted_count, 0, "{case}");
    }
}

#[test]
fn accounts_add_up_when_the_newest_are_dropped() {
    within(LIMIT, || {
        [1, 2].into_iter().for_each(|n| accounts_add_up(n, OverflowPolicy::DropNewest))
    });
}

#[test]
fn accounts_add_up_when_the_oldest_are_dropped() {
    within(LIMIT, || {
        [1, 2].into_iter().for_each(|n| accounts_add_up(n, OverflowPolicy::DropOldest))
    });
}

/// Who is closed is told 1013 behind all that was accepted; from then on only sends to it alone
/// are still asked for, and are counted.
#[test]
fn accounts_add_up_when_slow_ones_are_closed() {
    within(LIMIT, || {
        for shards in [1, 2] {
            for way in Way::ALL {
                let mut scene = Scene::new(shards, OverflowPolicy::Close, 20, 5);
                let is_for_all = !matches!(way, Way::SendTo | Way::SendToAsync);
                for round in 1..=20 {
                    scene.send(way, 20, Duration::ZERO, 20 << 10);
                    // Who reads is not slow, however busy the machine.
                    while is_for_all && (0..20).any(|at| scene.crowd.count(at) < round * 20) {
                        scene.crowd.read(Duration::from_millis(10));
                    }
                }
                let (account, crowd) = scene.settle();
                let case = format!("{shards} shards, {way:?}: {account:?}");
                let slow = 20..crowd.len();
                assert!(slow.clone().all(|at| crowd.close_code(at) == Some(1013)), "{case}");
                let received = crowd.total();
                if !is_for_all {
                    let fates = received + account.dropped_count + account.refused_count;
                    let told_refused_count = account.told_refused_count(way);
                    assert_eq!(fates + told_refused_count, account.asked_count, "{case}");
                } else {
                    assert_eq!(account.refused_count, 0, "{case}");
                    assert!((0..20).all(|at| crowd.count(at) == 400), "{case}");
                    assert!(account.dropped_count >= 5, "each missed one at least: {case}");
                }
                assert_eq!(account.aborted_count, 0, "{case}");
            }
        }
    });
}

/// What `slow_count` clients that never read cost in memory, while the others miss nothing.
fn memory_is_bounded(
    overflow: OverflowPolicy,
    quick_count: usize,
    slow_count: usize,
    rounds: usize,
) {
    let mut scene = Scene::new(2, overflow, quick_count, slow_count);
    scene.send(Way::Broadcast, 20, INTERVAL, 64);
    let before = scene.served.account();
    scene.send(Way::SendTo, 500, Duration::from_millis(1), 15 << 10);
    scene.send(Way::Broadcast, rounds, INTERVAL, 64);
    let after = scene.served.account();
    let grown_kib = after.resident_kib.saturating_sub(before.resident_kib);
    // Their outboxes, the mailboxes of two shards, and what the allocator keeps.
    let bound_kib = (slow_count * OUTBOX_KIB * 5 / 4 + (24 << 10)) as u64;
    assert!(grown_kib < bound_kib, "{overflow:?}: {grown_kib} KiB for {slow_count}");
    if overflow == OverflowPolicy::Close {
        // Their closing handshake ends by its deadline.
        while scene.served.account().connection_count > quick_count as u64 {}
        scene.crowd.truncate(quick_count);
    }
    let (account, crowd) = scene.settle();
    let all = (rounds + 20) as u64;
    assert!((0..quick_count).all(|at| crowd.count(at) == all), "who reads misses nothing");
    if overflow != OverflowPolicy::Close {
        let fates = crowd.total() + account.dropped_count + account.refused_count;
        assert_eq!(fates, account.asked_count, "{overflow:?}: {account:?}");
    }
}

#[test]
fn twenty_that_never_read_among_a_thousand_cost_their_outboxes_and_nobody_else_a_message() {
    within(LIMIT, || {
        for overflow in
            [OverflowPolicy::DropNewest, OverflowPolicy::DropOldest, OverflowPolicy::Close]
        {
            memory_is_bounded(overflow, 980, 20, 200);
        }
    });
}

#[test]
fn a_hundred_that_never_read_among_ten_thousand_cost_their_outboxes_and_nobody_else_a_message() {
    within(LIMIT, || memory_is_bounded(OverflowPolicy::DropOldest, 9900, 100, 100));
}
