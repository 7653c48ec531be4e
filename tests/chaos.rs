//! Everything at once, in a random order that a seed decides: clients and handlers that do what
//! they may, at any time. The debug assertions watch, the test kit's clients check every byte. More
//! seeds: `CHAOS_COUNT=1000`; one again: `CHAOS_SEED=7`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use common::executor::yield_now;
use futures_channel::oneshot;
use peregrine::testing::{Received, TestClient, TestServer};
use peregrine::{
    BroadcastDelivery, Chunk, Close, ConnectionId, Delivery, Endpoint, Handler, Limits, Message,
    MessageWriter, OverflowPolicy, Reply, Response, Server, ServerBuilder, Upgrade, WebSocket,
};

/// What a handler says when it panics on purpose.
const ON_PURPOSE: &str = "on purpose";
const PATHS: [&str; 4] = ["/whole", "/pieces", "/oldest", "/newest"];
const TOPICS: [&str; 3] = ["red", "green", "blue"];

/// Knuth's linear congruential generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).expect("a small number")]
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.roll(6) {
            0 => 0,
            1 => self.roll(200_000),
            2 => self.roll(20_000),
            _ => self.roll(300),
        };
        vec![b'x'; usize::try_from(length).expect("a small number")]
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("letters")
    }
}

/// What handlers have begun and the test goes on with.
#[derive(Default)]
struct Loose {
    streams: Vec<MessageWriter<[u8]>>,
    promises: Vec<oneshot::Sender<()>>,
    deliveries: Vec<Delivery>,
    reports: Vec<BroadcastDelivery>,
    ids: Vec<ConnectionId>,
}

struct World {
    dice: Mutex<Dice>,
    loose: Mutex<Loose>,
    receives_chunks: bool,
    /// From now on handlers do nothing but echo.
    is_calm: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Chaos(Arc<World>);

impl Chaos {
    fn roll(&self, sides: u64) -> u64 {
        lock(&self.0.dice).roll(sides)
    }

    fn is_calm(&self) -> bool {
        self.0.is_calm.load(Ordering::Relaxed)
    }

    fn later(&self, ws_stream: Option<MessageWriter<[u8]>>) -> Reply<'static> {
        let kind = self.roll(7);
        let (promise, kept) = oneshot::channel();
        if kind <= 1 {
            lock(&self.0.loose).promises.push(promise);
        }
        let world = self.clone();
        Reply::later(async move {
            match kind {
                0 | 1 => drop(kept.await),
                2 => panic!("{ON_PURPOSE}"),
                _ => yield_now().await,
            }
            if let Some(mut stream) = ws_stream {
                let piece = lock(&world.0.dice).bytes();
                let _ = stream.write_async(&piece).await;
                let _ = stream.finish_async().await;
            }
            match kind {
                3 => Reply::none(),
                4 if !world.is_calm() => world.later(None),
                _ => "later".into(),
            }
        })
    }

    /// Does a few things, and answers.
    fn act(&self, ws: &WebSocket<'_, ()>) -> Reply<'static> {
        if self.is_calm() {
            return Reply::none();
        }
        for _ in 0..self.roll(4) {
            self.do_one_thing(ws);
        }
        match self.roll(12) {
            0 => Reply::offload(|| "offloaded"),
            1 | 2 => self.later(None),
            3 => match ws.stream() {
                Ok(stream) => self.later(Some(stream)),
                Err(_) => Reply::none(),
            },
            4 => {
                let world = self.clone();
                ws.later_then(yield_now(), move |ws, ()| world.act(ws))
            }
            5 if self.roll(4) == 0 => panic!("{ON_PURPOSE}"),
            _ => Reply::text("an answer"),
        }
    }

    fn do_one_thing(&self, ws: &WebSocket<'_, ()>) {
        if self.is_calm() {
            return;
        }
        let text = lock(&self.0.dice).text();
        let topic = lock(&self.0.dice).pick(&TOPICS);
        let ids = lock(&self.0.loose).ids.clone();
        let other = if ids.is_empty() { ws.id() } else { lock(&self.0.dice).pick(&ids) };
        match self.roll(22) {
            0 => drop(ws.broadcast(&text)),
            1 => drop(ws.publish(topic, &text)),
            2 => drop(ws.publish_except(topic, ws.id(), &text)),
            3 => drop(ws.send_to(other, &text)),
            4 => {
                let delivery = ws.send_to_async(other, &text);
                lock(&self.0.loose).deliveries.push(delivery);
            }
            5 => {
                let id = ws.id();
                let delivery = ws.send_to_async(id, &text);
                lock(&self.0.loose).deliveries.push(delivery);
            }
            6 => {
                let report = ws.publish_async(topic, &text);
                lock(&self.0.loose).reports.push(report);
            }
            7 => {
                let report = ws.broadcast_async(&text);
                lock(&self.0.loose).reports.push(report);
            }
            8..=10 => drop(ws.subscribe(topic)),
            11 => ws.unsubscribe(topic),
            12 => {
                if let Ok(stream) = ws.stream() {
                    lock(&self.0.loose).streams.push(stream);
                }
            }
            13 if self.roll(4) == 0 => ws.close_with(4001, "enough"),
            14 if self.roll(6) == 0 => ws.abort(),
            15 => drop(ws.stream::<str>().map(|mut stream| stream.finish())),
            16 if self.roll(4) == 0 => drop(ws.stream::<str>()),
            _ => drop(ws.send(&text)),
        }
    }
}

async fn panicking() -> Upgrade<()> {
    panic!("{ON_PURPOSE}")
}

impl Chaos {
    fn endpoint(&self) -> Endpoint {
        let decider = self.clone();
        Endpoint::with_upgrade(self.clone(), move |_request| decider.decide())
    }

    fn decide(&self) -> Upgrade<()> {
        match self.roll(16) {
            0 => Upgrade::reject(Response::new(403)),
            1 => Upgrade::later(async {
                yield_now().await;
                Upgrade::accept(())
            }),
            2 => Upgrade::offload_then(|| (), |()| Upgrade::accept(())),
            3 => panic!("{ON_PURPOSE}"),
            4 => Upgrade::later(async { Upgrade::later(panicking()) }),
            _ => Upgrade::accept(()),
        }
    }
}

impl Handler for Chaos {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        lock(&self.0.loose).ids.push(ws.id());
        self.act(ws)
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        match self.roll(3) {
            _ if self.is_calm() => message.into(),
            0 => message.into(),
            _ => self.act(ws),
        }
    }

    fn receives_chunks(&self) -> bool {
        self.0.receives_chunks
    }

    fn on_chunk<'m>(&self, ws: &mut WebSocket<'_, ()>, fragment: Chunk<'m>) -> Reply<'m> {
        match self.roll(3) {
            _ if self.is_calm() => fragment.message().into(),
            0 => fragment.message().into(),
            1 => self.act(ws),
            _ => Reply::none(),
        }
    }

    fn on_drain(&self, ws: &mut WebSocket<'_, ()>) {
        self.do_one_thing(ws);
    }

    fn on_close(&self, ws: &mut WebSocket<'_, ()>, _: &Close) -> Reply<'static> {
        let id = ws.id();
        lock(&self.0.loose).ids.retain(|&known| known != id);
        self.act(ws)
    }
}

fn small(overflow: OverflowPolicy) -> impl FnOnce(&mut Limits) + Send + 'static {
    move |limits| {
        limits.outbox_low_water_bytes = 500;
        limits.outbox_high_water_bytes = 2000;
        limits.max_outbox_bytes = 10_000;
        limits.overflow = overflow;
        limits.close_timeout = Duration::from_secs(2);
        limits.max_topics_per_connection = 2;
    }
}

fn build(chaos: &Chaos, pieces: &Chaos, shard_count: usize) -> ServerBuilder {
    let mut limits = Limits::default();
    limits.max_offload_threads = Some(1);
    limits.max_mailbox_envelopes = 50;
    Server::builder()
        .shards(shard_count)
        .limits(limits)
        .websocket(PATHS[0], chaos.endpoint())
        .websocket(PATHS[1], pieces.clone())
        .websocket(PATHS[2], chaos.endpoint().adjust_limits(small(OverflowPolicy::DropOldest)))
        .websocket(PATHS[3], chaos.endpoint().adjust_limits(small(OverflowPolicy::DropNewest)))
        .get("/page", Response::new(200).body(vec![b'p'; 10_000]))
}

/// One run: a server, its clients, and what they have not lost yet.
struct Run {
    server: TestServer,
    dice: Dice,
    worlds: [Chaos; 2],
    clients: Vec<TestClient>,
    raw: Vec<TestClient>,
    /// Numbered messages of the hub, and the last one that each client got.
    number: u64,
    last: Vec<u64>,
    /// Whose bytes need not be frames any more.
    spoilt: Vec<TestClient>,
}

const REQUEST: &str = " HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut world = |receives_chunks| {
            let dice = Mutex::new(Dice(dice.roll(1 << 30)));
            let (loose, is_calm) = (Mutex::default(), AtomicBool::new(false));
            Chaos(Arc::new(World { dice, loose, receives_chunks, is_calm }))
        };
        let worlds = [world(false), world(true)];
        let shard_count = 1 + usize::try_from(dice.roll(3)).expect("a small number");
        let builder = build(&worlds[0], &worlds[1], shard_count);
        let server = TestServer::new(builder).expect("a right server");
        let (clients, raw, last) = (Vec::new(), Vec::new(), Vec::new());
        let spoilt = Vec::new();
        Self { server, dice, worlds, clients, raw, number: 0, last, spoilt }
    }

    fn numbered(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut bytes = b"number".to_vec();
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.dice.bytes());
        bytes
    }

    fn step(&mut self) {
        match self.dice.roll(20) {
            0 | 1 => self.arrive(),
            2..=9 if !self.clients.is_empty() => self.speak(),
            10..=12 => self.use_hub(),
            13..=15 => self.go_on(),
            16 if !self.raw.is_empty() => {
                let client = self.dice.pick(&self.raw);
                self.speak_raw(client);
            }
            17 => {
                let time = Duration::from_millis(self.dice.roll(8000));
                self.server.advance(time);
            }
            _ => self.listen(),
        }
    }

    fn arrive(&mut self) {
        let pipe_bytes = self.dice.pick(&[1, 100, 5000, 128 << 10, 1 << 20]);
        self.server.set_pipe_bytes(pipe_bytes);
        if self.dice.roll(3) == 0 {
            let client = self.server.open();
            self.raw.push(client);
            return self.speak_raw(client);
        }
        let path = self.dice.pick(&PATHS);
        if let Ok(client) = self.server.connect(path) {
            self.clients.push(client);
            self.last.push(0);
        }
    }

    fn speak_raw(&mut self, client: TestClient) {
        let path = self.dice.pick(&PATHS);
        let bytes = match self.dice.roll(5) {
            0 => format!("GET {path}{REQUEST}").into_bytes(),
            1 => "GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(9).into_bytes(),
            2 => {
                let pages = "GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(12);
                let mut bytes = format!("{pages}GET {path}{REQUEST}").into_bytes();
                bytes.extend([0x81, 0x81, 0, 0, 0, 0, b'a'].repeat(3));
                bytes
            }
            3 => [0x81, 0x81, 0, 0, 0, 0, b'a'].repeat(5000),
            _ => format!("GET {path}").into_bytes(),
        };
        match self.dice.roll(6) {
            0 => self.server.drop_connection(client),
            1 => self.server.stop_reading(client),
            2 => self.server.start_reading(client),
            _ => {}
        }
        self.server.send_bytes(client, bytes);
    }

    fn speak(&mut self) {
        let client = self.dice.pick(&self.clients);
        let (text, server) = (self.dice.text(), &mut self.server);
        let deed = self.dice.roll(20);
        if (10..=15).contains(&deed) {
            self.spoilt.push(client);
        }
        match deed {
            0 => server.send_in_fragments(client, &[&*text, "", "more", &*text]),
            1 => server.ping(client, "ping"),
            2 => server.close(client, 4002, "bye"),
            3 => server.drop_connection(client),
            4 | 5 => server.stop_reading(client),
            6 => server.read_some(client, 1000),
            7..=9 => server.start_reading(client),
            10 => server.send_bytes(client, [0x01, 0x85, 0, 0, 0, 0, b'a', b'b']),
            11 => server.send_bytes(client, [0x81, 0x83, 0, 0, 0, 0, 0xFF, b'b', b'c']),
            12 => server.send_bytes(client, [0x89, 0x80, 0, 0]),
            13 => server.send_bytes(client, [0x81, 0x81, 0, 0, 0, 0, b'a'].repeat(2000)),
            14 => server.send_bytes(client, [0x89, 0x80, 0, 0, 0, 0].repeat(20)),
            15 => {
                let close = [0x88, 0x80, 0, 0, 0, 0];
                server.send_bytes(client, [&[0x81, 0x80, 0, 0, 0, 0], &close[..]].concat());
            }
            _ => server.send(client, &*text),
        }
    }

    fn use_hub(&mut self) {
        let hub = self.server.hub();
        let (path, topic) = (self.dice.pick(&PATHS), self.dice.pick(&TOPICS));
        let message = self.numbered();
        let mut loose = lock(&self.worlds[0].0.loose);
        let client = (!self.clients.is_empty()).then(|| self.dice.pick(&self.clients));
        let id = client.map(|client| self.server.id(client));
        match (self.dice.roll(10), id) {
            (0, _) => drop(hub.broadcast(path, message)),
            (1, _) => drop(hub.publish(topic, message)),
            (2, _) => loose.reports.push(hub.broadcast_async(path, message)),
            (3, _) => loose.reports.push(hub.publish_async(topic, message)),
            (4, Some(id)) => drop(hub.subscribe(id, topic)),
            (5, Some(id)) => drop(hub.unsubscribe(id, topic)),
            (6, Some(id)) => drop(hub.close(id)),
            (7, Some(id)) => drop(hub.abort(id)),
            (8, Some(id)) => loose.deliveries.push(hub.send_to_async(id, message)),
            (_, Some(id)) => drop(hub.send_to(id, message)),
            (_, None) => {}
        }
        drop(loose);
        if self.dice.roll(2) == 0 {
            self.server.settle();
        }
    }

    /// Goes on with what handlers have begun.
    fn go_on(&mut self) {
        let world = self.one_world();
        let mut loose = lock(&world.0.loose);
        let at = |dice: &mut Dice, count: usize| {
            usize::try_from(dice.roll(count as u64)).expect("a small number")
        };
        if !loose.promises.is_empty() && self.dice.roll(2) == 0 {
            let at = at(&mut self.dice, loose.promises.len());
            let promise = loose.promises.swap_remove(at);
            drop(loose);
            let _ = promise.send(());
        } else if !loose.streams.is_empty() {
            let at = at(&mut self.dice, loose.streams.len());
            let mut stream = loose.streams.swap_remove(at);
            match self.dice.roll(8) {
                0 => return,
                1 | 2 => {
                    if stream.finish().is_ok() {
                        return;
                    }
                }
                3 => loose.deliveries.push(stream.finish_async()),
                4 => loose.deliveries.push(stream.write_async(&self.dice.bytes())),
                _ => drop(stream.write(&self.dice.bytes())),
            }
            loose.streams.push(stream);
        }
    }

    fn one_world(&mut self) -> Chaos {
        self.worlds[usize::from(self.dice.roll(3) == 0)].clone()
    }

    /// What clients got: numbered messages come in order, each at most once.
    fn listen(&mut self) {
        for (at, &client) in self.clients.iter().enumerate() {
            for received in self.server.receive_all(client) {
                let Received::Binary(bytes) = received else { continue };
                let Some(rest) = bytes.strip_prefix(b"number") else { continue };
                let number = u64::from_be_bytes(*rest.first_chunk().expect("a number"));
                assert!(number > self.last[at], "{number} after {}", self.last[at]);
                self.last[at] = number;
            }
        }
    }

    /// Handlers come to an end, clients read: then everyone is answered, and leaves at once.
    fn calm_down(&mut self) {
        for world in &self.worlds {
            world.0.is_calm.store(true, Ordering::Relaxed);
        }
        for world in &self.worlds {
            let streams = std::mem::take(&mut lock(&world.0.loose).streams);
            let promises = std::mem::take(&mut lock(&world.0.loose).promises);
            drop((streams, promises));
        }
        for &client in &self.clients {
            self.server.start_reading(client);
        }
        self.listen();
        for &client in &self.clients {
            if self.spoilt.contains(&client) || self.server.has_ended(client) {
                continue;
            }
            self.server.send(client, "!");
            let is_telling = |received: &Received| match received {
                Received::Text(text) => text == "!",
                Received::Close { .. } => true,
                _ => false,
            };
            let received = self.server.receive_all(client);
            assert!(received.iter().any(is_telling), "{client:?} gets no answer: {received:?}");
            self.server.close(client, 1000, "");
            self.server.receive_all(client);
            assert!(self.server.has_ended(client), "{client:?} is not let go");
        }
    }

    fn end(mut self) {
        if self.dice.roll(2) == 0 {
            self.calm_down();
        }
        let grace = Duration::from_secs(self.dice.roll(10));
        self.server.shutdown(grace);
        self.listen();
        let hub = self.server.hub();
        assert!(hub.connection_counts().iter().all(|&count| count == 0));
        assert!(TOPICS.iter().all(|topic| hub.subscriber_count(topic) == 0));
        drop(self.server);
        let mut context = Context::from_waker(Waker::noop());
        for world in self.worlds {
            let loose = std::mem::take(&mut *lock(&world.0.loose));
            drop((loose.streams, loose.promises));
            for mut delivery in loose.deliveries {
                assert!(Pin::new(&mut delivery).poll(&mut context).is_ready());
            }
            for mut report in loose.reports {
                assert!(Pin::new(&mut report).poll(&mut context).is_ready());
            }
        }
    }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    for _ in 0..200 {
        run.step();
    }
    run.end();
}

/// Panics on purpose are silent.
fn hush() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(ON_PURPOSE) {
            usual(info);
        }
    }));
}

#[test]
fn nothing_breaks_whatever_happens_in_whatever_order() {
    hush();
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("CHAOS_COUNT").ok().and_then(|count| count.parse().ok());
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => 0..count.unwrap_or(12),
    };
    for seed in seeds {
        let limit = Duration::from_secs(60);
        let ended = panic::catch_unwind(|| common::within(limit, move || run(seed)));
        if ended.is_err() {
            panic!("see above: CHAOS_SEED={seed}");
        }
    }
}
