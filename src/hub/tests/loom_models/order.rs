//! What returned before something else began is taken before it: by the loop's turns, and by a
//! handler that takes over what has arrived.

use std::sync::Arc;

use super::{Shard, explore, shard};
use crate::hub::mailbox::Mailbox;
use crate::sync::{Mutex, thread};

/// What a handler does before it publishes: as `Shard::take_over`.
fn take_over(shard: &mut Shard<usize>) -> Vec<usize> {
    if shard.inbox.is_settled() {
        return Vec::new();
    }
    let count = shard.inbox.count();
    (0..count).map_while(|_| shard.inbox.take(|_| 0)).collect()
}

/// Sends as a shard does: with room or without.
fn send(mailbox: &Mailbox<usize>, number: usize) {
    let sent = match mailbox.reserve(0) {
        Ok(room) => room.send(number),
        Err(_) => mailbox.send_beyond(number),
    };
    assert_eq!(sent, Ok(()));
}

#[test]
fn a_handler_that_publishes_has_taken_over_what_was_published_before() {
    for limit_count in [1, 4] {
        explore("a handler takes over", move || {
            let (mailbox, mut shard) = shard::<usize>(limit_count, 100);
            // The application's lock, and how many numbers were published in it.
            let next = Arc::new(Mutex::new(0));
            let publisher = {
                let (mailbox, next) = (Arc::clone(&mailbox), Arc::clone(&next));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let mut next = next.lock().expect("nobody panics");
                        send(&mailbox, *next);
                        *next += 1;
                    }
                })
            };
            // The loop may be anywhere: it has disarmed, and taken a budget of one.
            shard.inbox.disarm();
            let mut log: Vec<usize> = shard.inbox.take(|_| 0).into_iter().collect();
            {
                let mut next = next.lock().expect("nobody panics");
                log.extend(take_over(&mut shard));
                log.push(*next);
                *next += 1;
            }
            publisher.join().expect("a publisher");
            log.extend(take_over(&mut shard));
            assert_eq!(log, [0, 1, 2]);
            // The wake-up was left to the loop.
            assert!(shard.waker.count() > 0);
            assert_eq!(shard.inbox.take(|_| 0), None);
            assert!(shard.inbox.is_settled());
        });
    }
}

#[test]
fn what_has_no_room_overtakes_nothing_and_is_not_overtaken() {
    explore("a line", || {
        let (mailbox, mut shard) = shard::<usize>(1, 100);
        let next = Arc::new(Mutex::new(0));
        let publishers = [2, 1].map(|count| {
            let (mailbox, next) = (Arc::clone(&mailbox), Arc::clone(&next));
            thread::spawn(move || {
                for _ in 0..count {
                    let mut next = next.lock().expect("nobody panics");
                    send(&mailbox, *next);
                    *next += 1;
                }
            })
        });
        let mut log = Vec::new();
        while log.len() < 3 {
            log.extend(shard.turn(|_| 0));
        }
        assert_eq!(log, [0, 1, 2]);
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        assert_eq!(shard.inbox.take(|_| 0), None);
        assert!(shard.inbox.is_settled() && !mailbox.has_line());
    });
}

#[test]
fn what_stands_in_line_when_a_mailbox_closes_is_delivered() {
    explore("a line at the end", || {
        let (mailbox, mut shard) = shard::<usize>(1, 100);
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let sent = mailbox.reserve(0).map(|room| room.send(1)).is_ok();
                usize::from(sent) + usize::from(mailbox.send_beyond(2).is_ok())
            })
        };
        shard.inbox.mailbox().close();
        let taken = std::iter::from_fn(|| shard.inbox.take_promised(|_| 0)).count();
        assert_eq!(sender.join().expect("a sender"), taken);
        assert!(shard.inbox.is_settled());
    });
}
