//! Many senders and many targets at once: each message arrives exactly once at each target, in its
//! sender's order, or its sender was told that it will not.

use std::sync::{Arc, OnceLock};
use std::thread;

use peregrine::{
    ConnectionId, Handler, Hub, Limits, Message, Reply, RunningServer, SendError, WebSocket,
};

use super::chance::Chance;
use super::common::{start, within};
use super::ledger::{Ledger, Target};
use super::swarm::Swarm;
use super::{LIMIT, eventually};

/// What handlers and tests share about one swarm.
pub(crate) struct Book {
    pub(crate) ledger: Ledger,
    pub(crate) ids: OnceLock<Vec<ConnectionId>>,
}

impl Book {
    pub(crate) fn new(sender_count: usize) -> Arc<Self> {
        Arc::new(Self { ledger: Ledger::new(sender_count), ids: OnceLock::new() })
    }

    pub(crate) fn id(&self, member: usize) -> ConnectionId {
        self.ids.get().expect("the swarm is complete")[member]
    }

    /// Sends one message from outside.
    pub(crate) fn send_by_hub(
        &self,
        hub: &Hub,
        path: &str,
        sender: usize,
        target: Target,
    ) -> Result<(), SendError> {
        self.ledger.send(sender, target, |text| match target {
            Target::All => hub.broadcast(path, text),
            Target::AllBut(member) => hub.broadcast_except(path, self.id(member), text),
            Target::One(member) => hub.send_to(self.id(member), text),
            Target::Topic(topic) => hub.publish(&topic.to_string(), text),
        })
    }
}

/// Tells its client its id; then sends what its client asks it to, as [`order`] writes it.
pub(crate) struct Sending(pub(crate) Arc<Book>);

/// A client's wish: from the first number as sender, to all, to all but one, to one.
pub(crate) fn order(sender: usize, targets: &[Target]) -> String {
    let words = targets.iter().map(|target| match target {
        Target::All => " *".to_owned(),
        Target::AllBut(member) => format!(" -{member}"),
        Target::One(member) => format!(" {member}"),
        Target::Topic(topic) => format!(" #{topic}"),
    });
    format!("{sender}{}", words.collect::<String>())
}

pub(crate) fn target(word: &str) -> Target {
    let number = |text: &str| text.parse().expect("a member or a topic");
    match (word.strip_prefix('-'), word.strip_prefix('#')) {
        _ if word == "*" => Target::All,
        (Some(member), _) => Target::AllBut(number(member)),
        (_, Some(topic)) => Target::Topic(number(topic)),
        _ => Target::One(number(word)),
    }
}

impl Handler for Sending {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let mut words = message.as_text().unwrap_or_default().split(' ');
        let sender = words.next().and_then(|word| word.parse().ok()).expect("a sender");
        for target in words.map(target) {
            let _told = self.0.ledger.send(sender, target, |text| match target {
                Target::All => ws.broadcast(text),
                Target::AllBut(member) => ws.broadcast_except(self.0.id(member), text),
                Target::One(member) => ws.send_to(self.0.id(member), text),
                Target::Topic(topic) => ws.publish(&topic.to_string(), text),
            });
        }
        Reply::none()
    }
}

/// A server with one swarm at `/`.
pub(crate) fn gather(
    shards: usize,
    limits: Limits,
    sender_count: usize,
    member_count: usize,
) -> (RunningServer, Arc<Book>, Swarm) {
    let book = Book::new(sender_count);
    let handler = Sending(Arc::clone(&book));
    let running = start(shards, |app| app.limits(limits).websocket("/", handler));
    let swarm = Swarm::connect(running.local_addr(), "/", member_count);
    book.ids.set(swarm.ids.clone()).expect("once");
    (running, book, swarm)
}

/// Waits until all has arrived, lets everyone have one message more, and checks what came.
pub(crate) fn settle(running: &RunningServer, book: &Book, swarm: Swarm, fence: usize) {
    let count = book.ledger.delivery_count(swarm.ids.len());
    swarm.wait_for(count);
    // What is still on its way would be one too many; the fence comes after it.
    let hub = running.hub();
    while book.send_by_hub(&hub, "/", fence, Target::All).is_err() {
        thread::yield_now();
    }
    swarm.wait_for(count + swarm.ids.len());
    book.ledger.check(&swarm.stop());
    assert_eq!(hub.dropped_count(), 0, "nobody left, so nothing was dropped");
}

/// So many `send_to` to anybody and so many broadcasts, shuffled.
fn shuffled(
    chance: &mut Chance,
    send_count: usize,
    broadcast_count: usize,
    member_count: usize,
) -> Vec<Target> {
    let mut targets: Vec<_> =
        (0..send_count).map(|_| Target::One(chance.below(member_count))).collect();
    targets.extend((0..broadcast_count).map(|_| Target::All));
    for at in (1..targets.len()).rev() {
        targets.swap(at, chance.below(at + 1));
    }
    targets
}

const MEMBER_COUNT: usize = 1000;
/// Senders: the handlers of so many members, then so many threads.
const HANDLER_COUNT: usize = 40;
const THREAD_COUNT: usize = 4;
const SEND_COUNT: usize = 10_000;
const BROADCAST_COUNT: usize = 200;

/// Tells how many messages were refused.
fn crowd(shards: usize, limits: Limits) -> usize {
    let fence = HANDLER_COUNT + THREAD_COUNT;
    let (running, book, swarm) = gather(shards, limits, fence + 1, MEMBER_COUNT);
    let mut chance = Chance::new();
    let mut plan = |sender_count: usize| {
        let (sends, broadcasts) =
            (SEND_COUNT / 2 / sender_count, BROADCAST_COUNT.div_ceil(2 * sender_count));
        shuffled(&mut chance, sends, broadcasts, MEMBER_COUNT)
    };
    let by_threads: Vec<_> = (0..THREAD_COUNT).map(|_| plan(THREAD_COUNT)).collect();
    let by_handlers: Vec<_> = (0..HANDLER_COUNT).map(|_| plan(HANDLER_COUNT)).collect();
    let total: usize = by_threads.iter().chain(&by_handlers).map(Vec::len).sum();
    assert!(total >= SEND_COUNT + BROADCAST_COUNT);
    thread::scope(|scope| {
        for (at, targets) in by_threads.iter().enumerate() {
            let (hub, book) = (running.hub(), &book);
            scope.spawn(move || {
                for target in targets {
                    let _told = book.send_by_hub(&hub, "/", HANDLER_COUNT + at, *target);
                }
            });
        }
        let mut plans: Vec<_> = by_handlers.iter().map(|plan| plan.chunks(8)).collect();
        while plans.iter().any(|plan| plan.len() > 0) {
            for (sender, plan) in plans.iter_mut().enumerate() {
                if let Some(targets) = plan.next() {
                    swarm.say(sender * MEMBER_COUNT / HANDLER_COUNT, order(sender, targets));
                }
            }
        }
    });
    eventually(|| book.ledger.total() == total);
    let refused_count = book.ledger.refused_count();
    eprintln!("{shards} shards: {refused_count} of {total} messages were refused");
    assert!(refused_count < total, "something is accepted");
    settle(&running, &book, swarm, fence);
    refused_count
}

#[test]
fn every_message_of_a_crowd_arrives_once_and_in_order_with_2_shards() {
    within(LIMIT, || assert_eq!(crowd(2, Limits::default()), 0, "there is room for all"));
}

#[test]
fn every_message_of_a_crowd_arrives_once_and_in_order_with_4_shards() {
    within(LIMIT, || assert_eq!(crowd(4, Limits::default()), 0, "there is room for all"));
}

#[test]
fn every_message_of_a_crowd_arrives_or_its_sender_was_told_when_mailboxes_are_small() {
    within(LIMIT, || {
        for shards in [2, 4] {
            let mut limits = Limits::default();
            limits.max_mailbox_envelopes = 48;
            assert!(crowd(shards, limits) > 0, "the mailboxes are too small for all");
        }
    });
}

#[test]
fn eight_threads_send_at_once_and_each_keeps_its_order() {
    const THREADS: usize = 8;
    within(LIMIT, || {
        for shards in [1, 2, 4] {
            let (running, book, swarm) = gather(shards, Limits::default(), THREADS + 1, 12);
            let mut chance = Chance::new();
            thread::scope(|scope| {
                for sender in 0..THREADS {
                    let (hub, book) = (running.hub(), &book);
                    let targets = shuffled(&mut chance, 1000, 300, 12);
                    scope.spawn(move || {
                        for target in targets {
                            let told = book.send_by_hub(&hub, "/", sender, target);
                            told.expect("the mailbox has room for all of it");
                        }
                    });
                }
            });
            settle(&running, &book, swarm, THREADS);
        }
    });
}

#[test]
fn a_handlers_sends_and_broadcasts_to_one_target_keep_their_order() {
    const MEMBERS: usize = 9;
    within(LIMIT, || {
        for shards in [1, 2, 4] {
            let (running, book, swarm) = gather(shards, Limits::default(), MEMBERS + 1, MEMBERS);
            let mut chance = Chance::new();
            let mut total = 0;
            for _ in 0..60 {
                for member in 0..MEMBERS {
                    let mut targets = shuffled(&mut chance, 20, 8, MEMBERS);
                    targets.push(Target::AllBut(chance.below(MEMBERS)));
                    targets.push(Target::One(member));
                    total += targets.len();
                    swarm.say(member, order(member, &targets));
                }
            }
            eventually(|| book.ledger.total() == total);
            assert_eq!(book.ledger.refused_count(), 0);
            settle(&running, &book, swarm, MEMBERS);
        }
    });
}

#[test]
fn broadcasts_of_two_busy_endpoints_never_mix() {
    const MEMBERS: usize = 20;
    within(LIMIT, || {
        for shards in [1, 2, 4] {
            let books = [Book::new(3), Book::new(3)];
            let paths = ["/left", "/right"];
            let running = start(shards, |app| {
                let handlers = books.iter().map(|book| Sending(Arc::clone(book)));
                paths.into_iter().zip(handlers).fold(app, |app, (path, h)| app.websocket(path, h))
            });
            let swarms = paths.map(|path| Swarm::connect(running.local_addr(), path, MEMBERS));
            thread::scope(|scope| {
                for ((book, path), swarm) in books.iter().zip(paths).zip(&swarms) {
                    book.ids.set(swarm.ids.clone()).expect("once");
                    let hub = running.hub();
                    scope.spawn(move || {
                        for _ in 0..300 {
                            swarm.say(7, order(0, &[Target::All, Target::AllBut(8)]));
                            for target in [Target::All, Target::AllBut(9)] {
                                book.send_by_hub(&hub, path, 1, target).expect("room");
                            }
                        }
                    });
                }
            });
            for ((book, path), swarm) in books.iter().zip(paths).zip(swarms) {
                eventually(|| book.ledger.total() == 1200);
                assert_eq!(book.ledger.refused_count(), 0);
                swarm.wait_for(book.ledger.delivery_count(MEMBERS));
                book.send_by_hub(&running.hub(), path, 2, Target::All).expect("room");
                swarm.wait_for(book.ledger.delivery_count(MEMBERS));
                book.ledger.check(&swarm.stop());
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}
