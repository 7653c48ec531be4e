//! Broadcasts while members come and go all the time. The membership is larger than what a shard
//! visits in one turn, so leaves fall between the slices of a broadcast on its way.

use std::thread;
use std::time::Duration;

use peregrine::{Handler, Reply, RunningServer, WebSocket};
use socket2::SockRef;
use tungstenite::{Error, Message};

use super::LIMIT;
use super::chance::Chance;
use super::common::{start, within};
use super::crowd::Book;
use super::ledger::{Stamp, Target};
use super::swarm::{Member, Swarm};

/// Who is there from beginning to end: with the others more than 512 members a shard.
const STAYER_COUNT: usize = 1080;
/// Who comes and goes, for each of the threads that make them do so.
const LEAVER_COUNT: usize = 90;
const CHURNER_COUNT: usize = 3;
/// How many leave and come again, for each thread.
const CHURN_COUNT: usize = 800;

/// Tells each client its id, and closes when it is told to.
struct Door;

impl Handler for Door {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(
        &self,
        ws: &mut WebSocket<'_, ()>,
        _message: peregrine::Message<'m>,
    ) -> Reply<'m> {
        ws.close();
        Reply::none()
    }
}

/// One who will leave, and the first message of its own thread that it has to get.
struct Leaver {
    member: Member,
    since: usize,
}

/// One thread that makes members leave and come, and broadcasts meanwhile.
struct Churner<'c> {
    running: &'c RunningServer,
    book: &'c Book,
    sender: usize,
    chance: Chance,
    leavers: Vec<Leaver>,
}

impl Churner<'_> {
    fn run(mut self) {
        for _ in 0..CHURN_COUNT {
            // Neighbours in the log that are not one run, now and then.
            for _ in 0..[3, 1, 0][self.chance.below(40).min(2)] {
                let target = match self.chance.below(3) {
                    0 => Target::AllBut(self.chance.below(STAYER_COUNT)),
                    _ => Target::All,
                };
                self.broadcast(target);
            }
            let at = self.chance.below(self.leavers.len());
            let leaver = self.leavers.swap_remove(at);
            self.leave(leaver);
            self.enter();
        }
    }

    fn broadcast(&self, target: Target) {
        self.book.send_by_hub(&self.running.hub(), "/", self.sender, target).expect("room");
    }

    fn enter(&mut self) {
        let member = Member::connect(self.running.local_addr(), "/");
        self.leavers.push(Leaver { member, since: self.book.ledger.len(self.sender) });
    }

    fn leave(&mut self, mut leaver: Leaver) {
        let hub = self.running.hub();
        let id = leaver.member.id;
        match self.chance.below(6) {
            0 => leaver.member.socket.close(None).expect("the server reads"),
            1 => leaver.member.say("let me out"),
            2 => {
                self.broadcast(Target::All);
                hub.close(id).expect("room");
                let until = self.book.ledger.len(self.sender);
                let got = self.check(&mut leaver);
                assert_eq!(got, until, "{id} got all that was broadcast before it was closed");
                return;
            }
            3 => hub.abort(id).expect("room"),
            // It vanishes: with an end, or with a reset.
            4 => return,
            _ => {
                let linger = SockRef::from(leaver.member.socket.get_ref());
                return linger.set_linger(Some(Duration::ZERO)).expect("an option");
            }
        }
        self.check(&mut leaver);
    }

    /// Reads to the end: what comes of one sender comes without a gap, and what its own thread has
    /// broadcast since it came is not missing. Tells how far in that it came.
    fn check(&self, leaver: &mut Leaver) -> usize {
        let id = leaver.member.id;
        let mut next = [None; CHURNER_COUNT];
        loop {
            match leaver.member.socket.read() {
                Ok(Message::Text(text)) => {
                    let stamp = Stamp::parse(text.as_str()).expect("a stamp");
                    let next = &mut next[stamp.sender];
                    let expected = next.unwrap_or(stamp.sequence);
                    assert_eq!(stamp.sequence, expected, "{id} got {stamp}");
                    // A broadcast that was on its way when it came may reach it, too.
                    let is_late = next.is_none() && stamp.sequence > leaver.since;
                    assert!(stamp.sender != self.sender || !is_late, "{id} missed some: {stamp}");
                    *next = Some(stamp.sequence + 1);
                }
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::Io(_) | Error::Protocol(_)) => break,
                Err(error) => panic!("{id}: {error}"),
            }
        }
        next[self.sender].unwrap_or(leaver.since)
    }
}

fn churn(shards: usize) {
    let running = start(shards, |app| app.websocket("/", Door));
    let book = Book::new(CHURNER_COUNT + 1);
    let mut chance = Chance::new();
    let mut swarm = Swarm::new();
    let mut pools: Vec<Vec<Leaver>> = (0..CHURNER_COUNT).map(|_| Vec::new()).collect();
    // Leavers and stayers stand mixed among the members.
    for at in 0..LEAVER_COUNT * CHURNER_COUNT {
        let member = Member::connect(running.local_addr(), "/");
        pools[at % CHURNER_COUNT].push(Leaver { member, since: 0 });
        for _ in 0..STAYER_COUNT / (LEAVER_COUNT * CHURNER_COUNT) {
            swarm.join(Member::connect(running.local_addr(), "/"));
        }
    }
    assert_eq!(swarm.ids.len(), STAYER_COUNT);
    book.ids.set(swarm.ids.clone()).expect("once");
    thread::scope(|scope| {
        for (sender, leavers) in pools.into_iter().enumerate() {
            let (running, book) = (&running, &book);
            let chance = chance.fork();
            let churner = Churner { running, book, sender, chance, leavers };
            scope.spawn(|| churner.run());
        }
    });
    eprintln!("{shards} shards: {} broadcasts", book.ledger.total());
    swarm.wait_for(book.ledger.delivery_count(STAYER_COUNT));
    book.send_by_hub(&running.hub(), "/", CHURNER_COUNT, Target::All).expect("room");
    swarm.wait_for(book.ledger.delivery_count(STAYER_COUNT));
    book.ledger.check(&swarm.stop());
}

#[test]
fn who_stays_misses_nothing_while_thousands_come_and_go_on_one_shard() {
    within(LIMIT, || churn(1));
}

#[test]
fn who_stays_misses_nothing_while_thousands_come_and_go_on_two_shards() {
    within(LIMIT, || churn(2));
}
