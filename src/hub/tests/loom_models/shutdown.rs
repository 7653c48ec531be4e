//! The shutdown: everybody sees that it has begun, nothing that was sent before is lost, and what
//! the report counts adds up.

use std::collections::HashMap;
use std::time::Duration;

use super::{Shard, explore, shard};
use crate::clock;
use crate::hub::{Address, Envelope, Hub, Node, ShutdownPlan, ShutdownReport};
use crate::sync::thread;

/// A server's hub and its shards.
fn server<const N: usize>() -> (Hub, [Shard<Envelope>; N]) {
    let (mailboxes, shards): (Vec<_>, Vec<_>) = (0..N).map(|_| shard(4, 100)).unzip();
    let hub = Hub::new(Node::random(), mailboxes.into(), Box::default(), HashMap::new());
    let Ok(shards) = shards.try_into() else { unreachable!("as many shards as mailboxes") };
    (hub, shards)
}

fn plan() -> ShutdownPlan {
    ShutdownPlan::within(Duration::ZERO)
}

fn envelope() -> Envelope {
    Envelope::Abort { to: Address::new(1, 2) }
}

#[test]
fn a_shutdown_that_meets_other_mail_is_seen() {
    explore("a shutdown is seen", || {
        let (hub, [mut shard]) = server();
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                let room = hub.shared().shards[0].mailbox.reserve(0).expect("room");
                assert_eq!(room.send(envelope()), Ok(()));
            })
        };
        let stopper = {
            let hub = hub.clone();
            thread::spawn(move || hub.shared().begin_shutdown(plan()))
        };
        // As the loop: mail first, then a look at the shutdown.
        let now = clock::now();
        let (mut mail_count, mut has_begun) = (0, false);
        while mail_count < 1 || !has_begun {
            mail_count += shard.turn(Envelope::size).len();
            has_begun = hub.shared().shutdown.schedule(now).is_some();
        }
        assert!(sender.join().is_ok() && stopper.join().is_ok());
    });
}

#[test]
fn what_shards_send_to_each_other_before_they_are_quiet_is_found_by_who_closes_then() {
    explore("shards become quiet", || {
        let (hub, shards) = server::<2>();
        let shards = [0, 1].into_iter().zip(shards).map(|(own, mut shard)| {
            let hub = hub.clone();
            thread::spawn(move || {
                let shared = hub.shared();
                // Its handlers send for the last time; then it is quiet.
                let room = shared.shards[1 - own].mailbox.reserve(0).expect("room");
                assert_eq!(room.send(envelope()), Ok(()));
                shared.shutdown.add_quiet();
                while !shared.shutdown.are_all_quiet(2) {
                    thread::yield_now();
                }
                shard.inbox.mailbox().close();
                let taken = std::iter::from_fn(|| shard.inbox.take_promised(Envelope::size));
                assert_eq!(taken.count(), 1, "what the other one has sent");
                shared.shutdown.add_open(2);
                shared.shutdown.add_aborted(1);
            })
        });
        for shard in shards.collect::<Vec<_>>() {
            shard.join().expect("a shard");
        }
        let report = ShutdownReport::of(&hub.shared().shutdown);
        assert_eq!((report.open_count, report.aborted_count), (4, 2));
        let dropped: u64 = hub.dropped_count();
        assert_eq!(dropped, 0);
    });
}
