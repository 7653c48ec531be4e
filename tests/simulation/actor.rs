//! Handlers that do what they may, at random, and write down what they do.

use std::cell::Cell;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use peregrine::{
    Chunk, Close, Endpoint, Handler, Message, MessageWriter, Reply, Request, Response, Upgrade,
    WebSocket,
};

use crate::common::executor::yield_now;
use crate::dice::Dice;
use crate::ledger::{ClientIndex, Fate, Ledger, Moment, Reason, Sender, To};

/// What a handler panics with on purpose.
pub struct OnPurpose;

pub const TOPICS: [&str; 3] = ["red", "green", "blue"];

/// What handlers share with the run.
pub struct World {
    pub dice: Dice,
    pub ledger: Ledger,
    /// What answers wait for that come later.
    pub promises: Vec<oneshot::Sender<()>>,
    /// How often handlers left work to be done, and how much of it was done.
    pub asked_count: u64,
    pub done_count: u64,
    pub streams: Vec<(Moment, ClientIndex, MessageWriter<[u8]>)>,
    /// Who publishes asks what became of it.
    pub tells_all: bool,
}

#[derive(Clone)]
pub struct Actor {
    pub world: Arc<Mutex<World>>,
    /// From now on handlers do nothing but echo.
    pub is_calm: Arc<AtomicBool>,
    pub path: &'static str,
    pub receives_chunks: bool,
}

thread_local! {
    static LIVE_COUNT: Cell<usize> = const { Cell::new(0) };
}

/// How many sessions and futures of handlers there are.
pub fn live_count() -> usize {
    LIVE_COUNT.get()
}

struct Live(());

impl Default for Live {
    fn default() -> Self {
        LIVE_COUNT.set(LIVE_COUNT.get() + 1);
        Self(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        LIVE_COUNT.set(LIVE_COUNT.get() - 1);
    }
}

#[derive(Default)]
pub struct Session {
    client: ClientIndex,
    _live: Live,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reply that carries a message of the ledger.
fn reply_with(ledger: &mut Ledger, client: ClientIndex, bytes: usize) -> Reply<'static> {
    let name = ledger.compose(Sender::HandlerOf(client), To::One(client), bytes);
    ledger.settle(name, Fate::Accepted);
    // What a reply borrows, as an echo does, goes another way than what it owns. Nobody lives long
    // enough to lend it here, and nobody misses it.
    match (ledger.get(name).message(), name.is_multiple_of(2)) {
        (Message::Text(text), true) => text.to_owned().into(),
        (Message::Binary(bytes), true) => bytes.to_vec().into(),
        (Message::Text(text), false) => Reply::text(&*text.to_owned().leak()),
        (Message::Binary(bytes), false) => Reply::binary(&*bytes.to_vec().leak()),
    }
}

impl Actor {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    fn panic(&self, client: ClientIndex) -> ! {
        self.world().ledger.people[client].give_reason(Reason::Panicked);
        panic_any(OnPurpose)
    }

    /// Answers when the run keeps its promise, or soon, or never.
    fn later(&self, client: ClientIndex) -> Reply<'static> {
        let mut world = self.world();
        let kind = world.dice.roll(8);
        let (promise, kept) = oneshot::channel();
        if kind <= 3 {
            world.promises.push(promise);
        }
        world.asked_count += 1;
        drop(world);
        let (actor, live) = (self.clone(), Live::default());
        Reply::later(async move {
            let _live = live;
            match kind {
                0..=4 => kept.await.unwrap_or_default(),
                _ => yield_now().await,
            }
            actor.world().done_count += 1;
            if kind == 7 && !actor.is_calm() {
                actor.panic(client);
            }
            if kind == 6 && !actor.is_calm() {
                return actor.later(client);
            }
            let world = &mut *actor.world();
            let bytes = world.dice.size();
            reply_with(&mut world.ledger, client, bytes)
        })
    }

    /// Does a few things, and answers.
    fn act(&self, ws: &WebSocket<'_, Session>) -> Reply<'static> {
        if self.is_calm() {
            return Reply::none();
        }
        let client = ws.session().client;
        let count = self.world().dice.pick(&[0, 0, 1, 1, 2, 6]);
        for _ in 0..count {
            self.do_one_thing(ws);
        }
        let answer = self.world().dice.roll(20);
        match answer {
            0 | 1 => self.later(client),
            2 => {
                let actor = self.clone();
                self.world().asked_count += 1;
                ws.later_then(yield_now(), move |ws, ()| {
                    actor.world().done_count += 1;
                    actor.act(ws)
                })
            }
            3 => self.panic(client),
            4..=7 => Reply::none(),
            _ => {
                let world = &mut *self.world();
                let bytes = world.dice.size();
                reply_with(&mut world.ledger, client, bytes)
            }
        }
    }

    fn do_one_thing(&self, ws: &WebSocket<'_, Session>) {
        if self.is_calm() {
            return;
        }
        let client = ws.session().client;
        let mut world = self.world();
        let topic = world.dice.pick(&TOPICS);
        let deed = world.dice.roll(20);
        drop(world);
        match deed {
            0..=2 => self.send(ws, client),
            3..=6 => self.send_to_another(ws, client),
            7..=9 => self.publish(ws, client, None),
            10..=12 => self.publish(ws, client, Some(topic)),
            13..=15 => {
                let is_subscribed = ws.subscribe(topic).is_ok();
                let ledger = &mut self.world().ledger;
                let moment = ledger.moment();
                let person = &mut ledger.people[client];
                if is_subscribed {
                    person.topics.insert(topic);
                    person.left_topics.remove(topic);
                    if !person.loose_topics.contains(topic) {
                        person.firm_topics.entry(topic).or_insert(moment);
                    }
                }
            }
            16 => {
                ws.unsubscribe(topic);
                let ledger = &mut self.world().ledger;
                let moment = ledger.moment();
                let person = &mut ledger.people[client];
                person.firm_topics.remove(topic);
                person.left_topics.insert(topic, moment);
            }
            17 => {
                if let Ok(stream) = ws.stream() {
                    let world = &mut *self.world();
                    let name = world.ledger.begin_stream(client);
                    world.streams.push((name, client, stream));
                }
            }
            18 if self.world().dice.is(3) => {
                self.world().ledger.people[client].give_reason(Reason::ClosedByApplication);
                match self.world().dice.is(3) {
                    true => ws.abort(),
                    false => ws.close_with(4001, "enough"),
                }
            }
            _ => {}
        }
    }

    fn send(&self, ws: &WebSocket<'_, Session>, client: ClientIndex) {
        let mut world = self.world();
        let bytes = world.dice.size();
        let name = world.ledger.compose(Sender::HandlerOf(client), To::One(client), bytes);
        let outcome = ws.send(world.ledger.get(name).message());
        world.ledger.settle_sync(name, outcome);
    }

    fn send_to_another(&self, ws: &WebSocket<'_, Session>, client: ClientIndex) {
        let mut world = self.world();
        let world = &mut *world;
        let other = world.dice.roll(world.ledger.people.len());
        // Of somebody who may have gone long ago.
        let Some(id) = world.ledger.people[other].id else { return };
        let bytes = world.dice.size();
        let name = world.ledger.compose(Sender::HandlerOf(client), To::One(other), bytes);
        if world.dice.is(2) {
            let outcome = ws.send_to(id, world.ledger.get(name).message());
            world.ledger.settle_sync(name, outcome);
        } else {
            let delivery = ws.send_to_async(id, world.ledger.get(name).message());
            world.ledger.settle_told(name, delivery);
        }
    }

    fn publish(
        &self,
        ws: &WebSocket<'_, Session>,
        client: ClientIndex,
        topic: Option<&'static str>,
    ) {
        let mut world = self.world();
        let is_told = world.tells_all || world.dice.is(2);
        let except = (!is_told && world.dice.is(2)).then_some(client);
        let to = match topic {
            Some(topic) => To::Topic { topic, except },
            None => To::Everyone { path: self.path, except },
        };
        let bytes = world.dice.size();
        let name = world.ledger.compose(Sender::HandlerOf(client), to, bytes);
        let message = world.ledger.get(name).message();
        let outcome = match (topic, except) {
            (Some(topic), None) if is_told => Err(ws.publish_async(topic, message)),
            (None, None) if is_told => Err(ws.broadcast_async(message)),
            (Some(topic), None) => Ok(ws.publish(topic, message)),
            (Some(topic), Some(_)) => Ok(ws.publish_except(topic, ws.id(), message)),
            (None, None) => Ok(ws.broadcast(message)),
            (None, Some(_)) => Ok(ws.broadcast_except(ws.id(), message)),
        };
        match outcome {
            Ok(outcome) => world.ledger.settle_sync(name, outcome),
            Err(told) => world.ledger.settle_told_many(name, told),
        }
    }

    /// A whole message has come: it is the next one of its client.
    fn hear(&self, client: ClientIndex, bytes: &[u8]) {
        let person = &mut self.world().ledger.people[client];
        assert_eq!((person.connect_count, person.close_count), (1, 0), "it is open");
        let expected = format!("c{client}:{}:", person.heard_count);
        assert!(bytes.starts_with(expected.as_bytes()), "{expected} was to come");
        let fill = &bytes[expected.len()..];
        let letter = b"zyxwv"[person.heard_count % 5];
        assert!(fill.iter().all(|&byte| byte == letter), "its bytes are right");
        person.heard_count += 1;
    }

    fn answer<'m>(&self, ws: &WebSocket<'_, Session>, message: Message<'m>) -> Reply<'m> {
        let client = ws.session().client;
        if self.is_calm() || self.world().dice.is(3) {
            self.world().ledger.echo(client, message);
            return message.into();
        }
        self.act(ws)
    }
}

impl Actor {
    /// Its endpoint, which it serves, and to which it decides about upgrades.
    pub fn endpoint(self) -> Endpoint {
        let decider = self.clone();
        Endpoint::with_upgrade(self, move |request| decider.decide(request))
    }

    fn decide(&self, request: &Request<'_>) -> Upgrade<Session> {
        let client = request.query_as("n").expect("a number");
        let session = Session { client, ..Session::default() };
        let mut world = self.world();
        match world.dice.roll(16) {
            0 => Upgrade::reject(Response::new(403).body("no")),
            1 => panic_any(OnPurpose),
            2 => Upgrade::later(async {
                yield_now().await;
                Upgrade::accept(session)
            }),
            3 => {
                let (promise, kept) = oneshot::channel();
                world.promises.push(promise);
                let live = Live::default();
                Upgrade::later(async move {
                    let _live = live;
                    kept.await.unwrap_or_default();
                    Upgrade::accept(session)
                })
            }
            _ => Upgrade::accept(session),
        }
    }
}

impl Handler for Actor {
    type Session = Session;

    fn on_connect(&self, ws: &mut WebSocket<'_, Session>) -> Reply<'static> {
        let mut world = self.world();
        let moment = world.ledger.moment();
        let person = &mut world.ledger.people[ws.session().client];
        (person.id, person.connected_at) = (Some(ws.id()), Some(moment));
        person.connect_count += 1;
        drop(world);
        self.act(ws)
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, Session>, message: Message<'m>) -> Reply<'m> {
        self.hear(ws.session().client, message.as_bytes());
        self.answer(ws, message)
    }

    fn receives_chunks(&self) -> bool {
        self.receives_chunks
    }

    fn on_chunk<'m>(&self, ws: &mut WebSocket<'_, Session>, fragment: Chunk<'m>) -> Reply<'m> {
        let client = ws.session().client;
        let mut world = self.world();
        let pieces = &mut world.ledger.people[client].pieces;
        assert_eq!(fragment.is_first(), pieces.is_none(), "where a message begins");
        pieces.get_or_insert_default().extend_from_slice(fragment.as_bytes());
        if !fragment.is_last() {
            let is_idle = self.is_calm() || !world.dice.is(8);
            drop(world);
            return if is_idle { Reply::none() } else { self.act(ws) };
        }
        let whole = pieces.take().unwrap_or_default();
        drop(world);
        self.hear(client, &whole);
        if fragment.is_first() {
            return self.answer(ws, fragment.message());
        }
        if self.is_calm() {
            let world = &mut *self.world();
            return reply_with(&mut world.ledger, client, 1);
        }
        self.act(ws)
    }

    fn on_drain(&self, ws: &mut WebSocket<'_, Session>) {
        self.do_one_thing(ws);
    }

    fn on_close(&self, ws: &mut WebSocket<'_, Session>, _: &Close) -> Reply<'static> {
        let client = ws.session().client;
        let mut world = self.world();
        let person = &mut world.ledger.people[client];
        person.close_count += 1;
        assert_eq!((person.connect_count, person.close_count), (1, 1), "called once each");
        assert_eq!(person.id, Some(ws.id()), "its own id");
        person.firm_topics.clear();
        drop(world);
        self.act(ws)
    }
}
