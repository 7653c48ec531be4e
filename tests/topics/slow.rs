//! Subscribers that read slowly: what becomes of them is their own affair.

use std::thread;
use std::time::Duration;

use peregrine::{ConnectionId, Limits, OverflowPolicy, RunningServer};

use super::LIMIT;
use super::clerk::{Party, enough_for, open};
use super::common::{SHARD_COUNTS, within};
use super::raw::{self, CLOSE, PING, Raw, TEXT};

/// More than the kernel and the outbox take together.
const MESSAGE_COUNT: usize = 160;
const MESSAGE_BYTES: usize = 60 << 10;

/// A client that subscribes and reads nothing, and its id.
fn slow_subscriber(running: &RunningServer) -> (Raw, ConnectionId) {
    let mut slow = Raw::connect_narrow(running.local_addr());
    slow.upgrade("/");
    let id = slow.text().parse().expect("an id");
    slow.send(raw::frame(TEXT, b"sub t;say subscribed"));
    assert_eq!(slow.text(), "subscribed");
    (slow, id)
}

/// Publishes to a slow subscriber on each shard, and to fast ones that get everything in time.
fn run(
    shards: usize,
    overflow: OverflowPolicy,
    check: impl Fn(&RunningServer, Raw, ConnectionId) -> usize,
) {
    let mut limits = Limits::default();
    limits.overflow = overflow;
    limits.close_timeout = LIMIT;
    let running = open(shards, |app| app.limits(limits));
    let mut slow: Vec<_> = (0..shards).map(|_| slow_subscriber(&running)).collect();
    let mut fast = Party::meet(&running, "/", enough_for(shards));
    fast.iter_mut().for_each(|party| party.order("sub t"));
    let hub = running.hub();
    for at in 0..MESSAGE_COUNT {
        let text = format!("{at}:{}", "_".repeat(MESSAGE_BYTES));
        // From a handler and from outside.
        match at % 2 {
            0 => hub.publish("t", &text).expect("room"),
            _ => fast[0].client.send(format!("pub t {text}")),
        }
        for party in &mut fast {
            assert!(party.client.text() == text, "the fast ones get everything at once");
        }
    }
    let mut missed_count = 0;
    for (slow, id) in slow.drain(..) {
        missed_count += check(&running, slow, id);
    }
    let missed_count = u64::try_from(missed_count).expect("64 bits");
    assert!(missed_count > 0, "it was too slow for some");
    if overflow != OverflowPolicy::Close {
        assert_eq!(hub.dropped_count(), missed_count);
    }
}

/// The number of a message that came whole.
fn number(payload: &[u8]) -> usize {
    let text = std::str::from_utf8(payload).expect("text");
    let (number, padding) = text.split_once(':').expect("a number");
    assert_eq!(padding.len(), MESSAGE_BYTES, "it came whole");
    number.parse().expect("a number")
}

/// Which messages come when it reads at last, up to a fence.
fn numbers(running: &RunningServer, slow: &mut Raw, id: ConnectionId) -> Vec<usize> {
    let hub = running.hub();
    thread::scope(|scope| {
        // The fence may be refused, too, while there is no room.
        scope.spawn(|| {
            while pollster::block_on(hub.send_to_async(id, "fence")).is_err() {
                thread::yield_now();
            }
        });
        let texts = std::iter::from_fn(|| Some(slow.text()).filter(|text| text != "fence"));
        texts.map(|text| number(text.as_bytes())).collect()
    })
}

#[test]
fn who_reads_too_slowly_is_closed_and_has_missed_nothing_before() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            run(shards, OverflowPolicy::Close, |_running, mut slow, _id| {
                let mut count = 0;
                let last = loop {
                    let frame = slow.frame().expect("a Close frame comes at last");
                    match frame.first {
                        PING => {}
                        CLOSE => break frame,
                        _ => {
                            assert_eq!(number(&frame.payload), count, "in order, nothing missing");
                            count += 1;
                        }
                    }
                };
                assert_eq!(last.close().0, 1013);
                MESSAGE_COUNT - count
            });
        }
    });
}

#[test]
fn who_reads_too_slowly_misses_the_newest() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            run(shards, OverflowPolicy::DropNewest, |running, mut slow, id| {
                let numbers = numbers(running, &mut slow, id);
                assert!(numbers.iter().copied().eq(0..numbers.len()), "the first: {numbers:?}");
                MESSAGE_COUNT - numbers.len()
            });
        }
    });
}

#[test]
fn who_reads_too_slowly_misses_the_oldest() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            run(shards, OverflowPolicy::DropOldest, |running, mut slow, id| {
                let numbers = numbers(running, &mut slow, id);
                let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
                assert!(gaps <= 1 && numbers.is_sorted(), "one gap: {numbers:?}");
                assert_eq!(numbers.last(), Some(&(MESSAGE_COUNT - 1)), "the latest came");
                MESSAGE_COUNT - numbers.len()
            });
        }
    });
}

#[test]
fn a_fast_subscriber_waits_for_no_slow_one() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_outbox_bytes = 64 << 20;
        limits.close_timeout = Duration::from_millis(100);
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app.limits(limits.clone()));
            let _slow: Vec<_> = (0..4 * shards).map(|_| slow_subscriber(&running)).collect();
            let mut fast = Party::meet(&running, "/", enough_for(shards));
            fast.iter_mut().for_each(|party| party.order("sub t"));
            // What the slow ones cannot take waits for them, not for the others.
            for at in 0..100 {
                let text = format!("{at}:{}", "_".repeat(MESSAGE_BYTES));
                running.hub().publish("t", &text).expect("room");
                assert!(fast.iter_mut().all(|party| party.client.text() == text));
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}
