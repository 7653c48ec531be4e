//! More is sent in one call than there is room for: what was accepted arrives, the rest was
//! refused, and nothing is stuck afterwards.

use std::thread;

use peregrine::Limits;

use super::common::within;
use super::crowd::{gather, order, settle};
use super::ledger::Target;
use super::{LIMIT, enough_for, eventually};

fn tiny(max_mailbox_envelopes: usize) -> Limits {
    let mut limits = Limits::default();
    limits.max_mailbox_envelopes = max_mailbox_envelopes;
    limits
}

/// A member of each shard.
fn one_of_each(shards: usize, ids: &[peregrine::ConnectionId]) -> Vec<usize> {
    let of = |shard| ids.iter().position(|id| id.shard() == shard).expect("one on each shard");
    (0..shards).map(of).collect()
}

#[test]
fn a_call_that_sends_more_than_a_tiny_mailbox_holds_loses_nothing_that_was_accepted() {
    within(LIMIT, || {
        for shards in [2, 4] {
            let member_count = enough_for(shards);
            let (running, book, swarm) = gather(shards, tiny(4), shards + 1, member_count);
            let senders = one_of_each(shards, &swarm.ids);
            let mut total = 0;
            for _ in 0..20 {
                // All shards do it to one another at once.
                for (sender, &member) in senders.iter().enumerate() {
                    let next = senders[(sender + 1) % shards];
                    let targets: Vec<_> =
                        [Target::One(next), Target::All].into_iter().cycle().take(1000).collect();
                    total += targets.len();
                    swarm.say(member, order(sender, &targets));
                }
                eventually(|| book.ledger.total() == total);
                swarm.wait_for(book.ledger.delivery_count(member_count));
            }
            let refused_count = book.ledger.refused_count();
            eprintln!("{shards} shards: {refused_count} of {total} messages were refused");
            assert!(refused_count > 0 && refused_count < total);
            // The ways are free again: the next message of each is accepted.
            for (sender, &member) in senders.iter().enumerate() {
                eventually(|| {
                    let before = book.ledger.refused_count();
                    let target = Target::One(senders[(sender + 1) % shards]);
                    swarm.say(member, order(sender, &[target]));
                    total += 1;
                    eventually(|| book.ledger.total() == total);
                    book.ledger.refused_count() == before
                });
            }
            settle(&running, &book, swarm, shards);
        }
    });
}

#[test]
fn a_call_that_sends_to_its_own_shard_needs_no_mailbox() {
    within(LIMIT, || {
        let (running, book, swarm) = gather(1, tiny(1), 3, 5);
        for sender in 0..2 {
            let targets: Vec<_> =
                [Target::One(3), Target::All].into_iter().cycle().take(1000).collect();
            swarm.say(sender, order(sender, &targets));
        }
        eventually(|| book.ledger.total() == 2000);
        assert_eq!(book.ledger.refused_count(), 0);
        settle(&running, &book, swarm, 2);
    });
}

#[test]
fn a_broadcast_is_accepted_when_all_mailboxes_are_empty_however_small_they_are() {
    within(LIMIT, || {
        for max_mailbox_envelopes in [1, 2, 3] {
            let (running, book, swarm) = gather(4, tiny(max_mailbox_envelopes), 2, enough_for(4));
            swarm.say(0, order(0, &[Target::All]));
            eventually(|| book.ledger.total() == 1);
            assert_eq!(
                book.ledger.refused_count(),
                0,
                "max_mailbox_envelopes = {max_mailbox_envelopes}"
            );
            settle(&running, &book, swarm, 1);
        }
    });
}

#[test]
fn threads_that_flood_tiny_mailboxes_are_told_and_what_was_accepted_arrives() {
    const THREADS: usize = 4;
    const ACCEPTED_COUNT: usize = 400;
    within(LIMIT, || {
        for shards in [1, 2, 4] {
            let member_count = enough_for(shards);
            let (running, book, swarm) = gather(shards, tiny(4), THREADS + 1, member_count);
            thread::scope(|scope| {
                for sender in 0..THREADS {
                    let (hub, book) = (running.hub(), &book);
                    scope.spawn(move || {
                        for round in 0..ACCEPTED_COUNT {
                            let target = match round % 3 {
                                0 => Target::All,
                                _ => Target::One((round + sender) % member_count),
                            };
                            while book.send_by_hub(&hub, "/", sender, target).is_err() {
                                thread::yield_now();
                            }
                        }
                    });
                }
            });
            let refused_count = book.ledger.refused_count();
            eprintln!("{shards} shards: {refused_count} messages were refused");
            assert_eq!(book.ledger.total(), refused_count + THREADS * ACCEPTED_COUNT);
            settle(&running, &book, swarm, THREADS);
        }
    });
}
