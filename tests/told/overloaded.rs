//! What is told when there is no room.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peregrine::{Callbacks, Limits, OverflowPolicy, SendError};
use pollster::block_on;

use super::common::{Client, PATIENCE, SHARD_COUNTS, start, within};
use super::courier::{BIG, Office, limits};
use super::raw::{BINARY, CLOSE, Raw, TEXT};
use super::{LIMIT, is_pending};

/// Reads, in the background, all that comes up to a Close frame: the first bytes of the frames.
fn read_all(mut slow: Raw) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut firsts = Vec::new();
        while firsts.last() != Some(&CLOSE) {
            firsts.push(slow.frame().expect("a Close frame comes at last").first);
        }
        firsts
    })
}

#[test]
fn an_outbox_that_closes_tells_overloaded_and_then_gone_of_what_was_queued() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let mut limits = limits(OverflowPolicy::Close);
            limits.close_timeout = Duration::from_millis(200);
            let office = Office::open(shards, limits);
            let hub = office.running.hub();
            let (mut sender, _) = office.client();
            let (_slow, id) = office.slow();
            let mut queued = hub.send_to_async(id, vec![0; BIG]);
            assert!(is_pending(&mut queued));
            assert_eq!(block_on(hub.send_to_async(id, vec![0; BIG])), Err(SendError::Overloaded));
            assert_eq!(block_on(hub.send_to_async(id, "too late")), Err(SendError::Gone));
            sender.send(format!("to {id} {BIG}"));
            assert_eq!(block_on(office.delivery()), Err(SendError::Gone));
            // It does not read within the time for closing.
            assert_eq!(block_on(queued), Err(SendError::Gone));
        }
    });
}

#[test]
fn an_outbox_that_closes_still_delivers_what_was_queued() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let mut limits = limits(OverflowPolicy::Close);
            limits.close_timeout = LIMIT;
            let office = Office::open(shards, limits);
            let hub = office.running.hub();
            let (slow, id) = office.slow();
            let queued = hub.send_to_async(id, vec![0; BIG]);
            assert_eq!(block_on(hub.send_to_async(id, vec![0; BIG])), Err(SendError::Overloaded));
            let reading = read_all(slow);
            assert_eq!(block_on(queued), Ok(()));
            assert_eq!(reading.join().expect("no panic"), [BINARY, CLOSE]);
        }
    });
}

#[test]
fn an_outbox_that_drops_the_newest_tells_overloaded_of_it() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, limits(OverflowPolicy::DropNewest));
            let hub = office.running.hub();
            let (mut sender, _) = office.client();
            let (slow, id) = office.slow();
            let queued = hub.send_to_async(id, vec![0; BIG]);
            for _ in 0..3 {
                assert_eq!(
                    block_on(hub.send_to_async(id, vec![0; BIG])),
                    Err(SendError::Overloaded)
                );
                sender.send(format!("to {id} {BIG}"));
                assert_eq!(block_on(office.delivery()), Err(SendError::Overloaded));
            }
            let reading = read_all(slow);
            assert_eq!(block_on(queued), Ok(()));
            while block_on(hub.send_to_async(id, "room again")).is_err() {}
            hub.close(id).expect("room");
            assert_eq!(reading.join().expect("no panic"), [BINARY, TEXT, CLOSE]);
        }
    });
}

#[test]
fn an_outbox_that_drops_the_oldest_tells_overloaded_of_that() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let mut limits = limits(OverflowPolicy::DropOldest);
            limits.max_outbox_bytes = 4 * BIG;
            limits.close_timeout = LIMIT;
            let office = Office::open(shards, limits);
            let hub = office.running.hub();
            let (mut sender, _) = office.client();
            let (slow, id) = office.slow();
            // Some of the first leaves, so that it stays; the two others do not fit both.
            let mut first = hub.send_to_async(id, vec![0; BIG]);
            let mut oldest = hub.send_to_async(id, vec![0; 5 * BIG / 4]);
            assert!(is_pending(&mut first) && is_pending(&mut oldest));
            let mut newest = hub.send_to_async(id, vec![0; 11 * BIG / 4]);
            assert_eq!(block_on(oldest), Err(SendError::Overloaded));
            assert!(is_pending(&mut first) && is_pending(&mut newest));
            let reading = read_all(slow);
            assert_eq!((block_on(first), block_on(newest)), (Ok(()), Ok(())));
            sender.send(format!("to {id} 5"));
            assert_eq!(block_on(office.delivery()), Ok(()));
            hub.close(id).expect("room");
            assert_eq!(reading.join().expect("no panic"), [BINARY, BINARY, BINARY, CLOSE]);
            assert_eq!(hub.dropped_count(), 1);
        }
    });
}

#[test]
fn a_full_mailbox_tells_overloaded_at_once() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let (arrived, arrivals) = channel();
            let (open, opened) = channel::<()>();
            let opened = Mutex::new(opened);
            let handler = Callbacks::<()>::new()
                .on_connect(|ws| ws.id().to_string().into())
                .on_message(move |_ws, _message| {
                    arrived.send(()).expect("the test listens");
                    opened.lock().expect("a lock").recv_timeout(PATIENCE).expect("it opens");
                    "went on".into()
                });
            let mut limits = Limits::default();
            limits.max_mailbox_envelopes = 8;
            let running = start(shards, |app| app.limits(limits).websocket("/", handler));
            let hub = running.hub();
            let mut client = Client::connect(running.local_addr(), "/");
            let id = client.text().parse().expect("an id");
            client.send("wait");
            arrivals.recv_timeout(PATIENCE).expect("the handler runs");
            let mut kept: Vec<_> =
                (0..8).map(|at| hub.send_to_async(id, format!("{at}"))).collect();
            assert!(kept.iter_mut().all(is_pending));
            for _ in 0..3 {
                let mut refused = hub.send_to_async(id, "no room");
                assert!(!is_pending(&mut refused));
                let refused = hub.send_to_async(id, "no room");
                assert_eq!(block_on(refused), Err(SendError::Overloaded));
                let refused = hub.broadcast_async("/", "no room");
                assert_eq!(block_on(refused), Err(SendError::Overloaded));
                let refused = hub.publish_async("t", "no room");
                assert_eq!(block_on(refused), Err(SendError::Overloaded));
            }
            open.send(()).expect("the handler waits");
            assert!(kept.into_iter().all(|delivery| block_on(delivery) == Ok(())));
            assert_eq!(client.text(), "went on");
            assert!((0..8).all(|at| client.text() == format!("{at}")));
            assert_eq!(
                block_on(hub.broadcast_async("/nowhere", "?")),
                Err(SendError::NoEndpoint),
                "a path that is not served"
            );
        }
    });
}

#[test]
fn gone_is_told_at_once_when_who_is_being_closed_is_aborted() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let mut limits = limits(OverflowPolicy::Close);
            limits.close_timeout = 2 * LIMIT;
            let office = Office::open(shards, limits);
            let hub = office.running.hub();
            let (_slow, id) = office.slow();
            let mut queued = hub.send_to_async(id, vec![0; BIG]);
            hub.close(id).expect("room");
            assert_eq!(block_on(hub.send_to_async(id, "too late")), Err(SendError::Gone));
            assert!(is_pending(&mut queued), "what was queued before is still delivered");
            hub.abort(id).expect("room");
            assert_eq!(block_on(queued), Err(SendError::Gone));
        }
    });
}

#[test]
fn whoever_is_closed_for_what_was_published_gets_nothing_after_it() {
    within(LIMIT, || {
        let mut limits = limits(OverflowPolicy::Close);
        limits.max_outbox_bytes = 9 << 20;
        limits.close_timeout = LIMIT;
        let office = Office::open(1, limits);
        let hub = office.running.hub();
        let (mut sender, sender_id) = office.client();
        let (slow, id) = office.slow();
        let queued = hub.send_to_async(id, vec![0; BIG]);
        assert_eq!(block_on(hub.send_to_async(sender_id, "it is queued")), Ok(()));
        // The first does not fit, the others would.
        sender.send(format!("all {};all 7;to {id} 5", 6 << 20));
        assert_eq!(block_on(office.delivery()), Err(SendError::Overloaded));
        let reading = read_all(slow);
        assert_eq!(block_on(queued), Ok(()));
        assert_eq!(reading.join().expect("no panic"), [BINARY, CLOSE]);
        assert_eq!((sender.text().len(), sender.bytes().len()), (12, 6 << 20));
        for _ in 0..2 {
            let report = block_on(office.broadcast()).expect("room");
            assert_eq!((report.reached_count, report.overloaded_count), (1, 1));
        }
    });
}
