//! The mailbox: waking, bounds, closing, the end of a shard; and connection wakers.

use std::collections::HashMap;
use std::sync::Arc;

use super::{explore, shard};
use crate::error::SendError;
use crate::hub::waker::ConnectionWaker;
use crate::hub::{Address, Envelope, Hub, Node};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::thread;

#[test]
fn a_wake_up_is_never_lost() {
    explore("a wake-up is never lost", || {
        let (mailbox, mut shard) = shard(4, 100);
        let senders = [1, 2].map(|number| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.reserve(number)?.send(number))
        });
        // It may be awake for another reason.
        let mut taken = shard.take_mail(|&bytes| bytes);
        while taken.len() < 2 {
            taken.extend(shard.turn(|&bytes| bytes));
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        for sender in senders {
            assert_eq!(sender.join().expect("a sender"), Ok(()));
        }
        assert!(shard.waker.count() <= 2);
        shard.inbox.check_invariants();
        assert!(shard.inbox.is_settled());
    });
}

#[test]
fn a_burst_costs_one_wake_up_and_the_next_one_another() {
    explore("a burst costs one wake-up", || {
        let (mailbox, mut shard) = shard(4, 100);
        let senders = [1, 2].map(|number| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                for _ in 0..2 {
                    assert_eq!(mailbox.reserve(0).expect("room").send(number), Ok(()));
                }
            })
        });
        for sender in senders {
            sender.join().expect("a sender");
        }
        assert_eq!(shard.waker.count(), 1);
        assert_eq!(shard.turn(|_| 0).len(), 4);
        assert_eq!(mailbox.reserve(0).expect("room").send(3), Ok(()));
        assert_eq!((shard.waker.count(), shard.turn(|_| 0)), (2, vec![3]));
    });
}

#[test]
fn bounds_hold_and_room_that_was_given_back_is_room() {
    for (limit_count, limit_bytes) in [(1, 100), (2, 10)] {
        explore("bounds hold", move || two_for_one(limit_count, limit_bytes));
    }
}

/// Two senders, and room for one of them at a time.
fn two_for_one(limit_count: usize, limit_bytes: usize) {
    let (mailbox, mut shard) = shard(limit_count, limit_bytes);
    let senders = [6, 7].map(|bytes| {
        let mailbox = Arc::clone(&mailbox);
        // A channel that is found full would say that the shard has ended.
        thread::spawn(move || mailbox.reserve(bytes)?.send(bytes).map(|()| bytes))
    });
    let mut taken = Vec::new();
    for _ in 0..2 {
        shard.inbox.check_invariants();
        taken.extend(shard.inbox.take(|&bytes| bytes));
    }
    let sent = senders.map(|sender| sender.join().expect("a sender"));
    taken.extend(std::iter::from_fn(|| shard.inbox.take(|&bytes| bytes)));
    taken.sort_unstable();
    let accepted: Vec<usize> = sent.iter().flatten().copied().collect();
    assert_eq!(taken, accepted);
    assert!(!accepted.is_empty(), "one of them has room");
    assert_eq!(accepted.len() + sent.iter().filter(is_refused).count(), 2, "{sent:?}");
    assert!(shard.inbox.is_settled());
}

fn is_refused(sent: &&Result<usize, SendError>) -> bool {
    **sent == Err(SendError::Overloaded)
}

#[test]
fn what_was_promised_before_closing_is_delivered_and_nothing_after() {
    explore("closing", || {
        let (mailbox, mut shard) = shard(4, 100);
        let senders = [1, 2].map(|number| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.reserve(0).and_then(|room| room.send(number)))
        });
        shard.inbox.mailbox().close();
        let taken: Vec<i32> = std::iter::from_fn(|| shard.inbox.take_promised(|_| 0)).collect();
        assert!(shard.inbox.is_settled());
        for (sender, number) in senders.into_iter().zip([1, 2]) {
            let sent = sender.join().expect("a sender");
            let expected =
                if taken.contains(&number) { Ok(()) } else { Err(SendError::ShuttingDown) };
            assert_eq!(sent, expected);
        }
        assert!(mailbox.is_closed() && shard.inbox.take(|_| 0).is_none());
    });
}

#[test]
fn what_a_shard_finds_when_it_is_over_is_all_that_was_accepted() {
    explore("a shard that is over", || {
        let (mailbox, mut shard) = shard(4, 100);
        let senders = [1, 2].map(|number| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                mailbox.reserve_for_rest(number).and_then(|room| room.send(number))
            })
        });
        shard.inbox.mailbox().close();
        let mut lost_count = 0;
        shard.inbox.end(|&bytes| bytes, |_| lost_count += 1);
        let accepted = senders.map(|sender| sender.join().expect("a sender"));
        let accepted_count = accepted.iter().filter(|sent| sent.is_ok()).count();
        assert_eq!(accepted_count, lost_count);
        assert!(shard.inbox.is_settled());
    });
}

#[test]
fn a_shard_that_ends_drops_all_that_was_sent_to_it() {
    explore("a shard that ends", || {
        let (mailbox, shard) = shard::<Arc<()>>(4, 100);
        let envelope = Arc::new(());
        let for_rest = {
            let (mailbox, envelope) = (Arc::clone(&mailbox), Arc::clone(&envelope));
            thread::spawn(move || mailbox.reserve_for_rest(3).and_then(|room| room.send(envelope)))
        };
        let hesitant = {
            let (mailbox, envelope) = (Arc::clone(&mailbox), Arc::clone(&envelope));
            thread::spawn(move || {
                drop(mailbox.reserve(5));
                mailbox.reserve(5).and_then(|room| room.send(envelope))
            })
        };
        shard.inbox.mailbox().close();
        drop(shard);
        for sender in [for_rest, hesitant] {
            let sent = sender.join().expect("a sender");
            assert!(matches!(sent, Ok(()) | Err(SendError::ShuttingDown)), "{sent:?}");
        }
        assert_eq!(Arc::strong_count(&envelope), 1, "somebody still holds an envelope");
        assert_eq!(mailbox.reserve_for_rest(0).err(), Some(SendError::ShuttingDown));
    });
}

#[test]
fn what_a_bell_was_rung_for_is_seen_by_who_hears_it_and_it_rings_once_until_then() {
    explore("woken", || {
        let (mailbox, shard) = shard::<Envelope>(4, 100);
        let waker = ConnectionWaker::new(Address::new(1, 2), Arc::clone(mailbox.doorbell()));
        let reasons = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let ringers = [0, 1].map(|number| {
            let (waker, reasons) = (Arc::clone(&waker), Arc::clone(&reasons));
            thread::spawn(move || {
                reasons[number].store(true, Ordering::Relaxed);
                waker.notify();
            })
        });
        while !reasons.iter().all(|reason| reason.load(Ordering::Relaxed)) {
            shard.waker.sleep();
            if !shard.inbox.disarm() {
                continue;
            }
            assert!(shard.inbox.woken_count() <= 1);
            while let Some(address) = shard.inbox.take_woken() {
                assert_eq!(address, Address::new(1, 2));
                waker.rearm();
            }
        }
        for ringer in ringers {
            ringer.join().expect("a ringer");
        }
    });
}

#[test]
fn a_connection_is_counted_before_it_can_end() {
    explore("counting connections", || {
        let (mailbox, mut shard) = shard::<Envelope>(4, 100);
        let hub = Hub::new(Node::random(), Box::new([mailbox]), Box::default(), HashMap::new());
        let acceptor = {
            let hub = hub.clone();
            thread::spawn(move || {
                let link = &hub.shared().shards[0];
                // It stands for a socket.
                let envelope = Envelope::Abort { to: Address::new(1, 2) };
                link.mailbox.reserve(0).and_then(|room| link.send_connection(room, envelope))
            })
        };
        let observed = Arc::new(AtomicUsize::new(0));
        let observer = {
            let (hub, observed) = (hub.clone(), Arc::clone(&observed));
            thread::spawn(move || {
                observed.fetch_max(hub.shared().connection_count(), Ordering::Relaxed);
            })
        };
        shard.inbox.mailbox().close();
        while shard.inbox.take_promised(Envelope::size).is_some() {
            hub.shared().shards[0].counters.remove_connection();
        }
        drop(shard);
        assert!(acceptor.join().is_ok() && observer.join().is_ok());
        assert_eq!(hub.shared().connection_count(), 0);
        assert!(observed.load(Ordering::Relaxed) <= 1, "the count went below zero");
    });
}
