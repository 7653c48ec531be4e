//! A server under test without sockets, threads or waiting (feature `testing`): [`TestServer`]
//! runs the real shards on the test's own thread, over connections in memory, at a time that the
//! test moves.
//!
//! Everything between the two ends of a connection is what serves in production: handshake,
//! protocol, limits, timers, outboxes, mailboxes, handlers. Only the kernel is replaced, and the
//! clock.
//!
//! ```
//! use std::time::Duration;
//!
//! use peregrine::testing::{Received, TestServer};
//! use peregrine::{Callbacks, Server};
//!
//! let chat = Callbacks::<()>::new()
//!     .on_connect(|ws| format!("Welcome, {}", ws.query("name").unwrap_or_default()).into())
//!     .on_message(|ws, message| ws.broadcast(message).err().map(|e| e.to_string()).into());
//! let mut server = TestServer::new(Server::builder().shards(2).websocket("/chat", chat))?;
//!
//! let alice = server.connect("/chat?name=Alice")?;
//! let bob = server.connect("/chat?name=Bob")?;
//! assert_eq!(server.receive(alice), Some(Received::Text("Welcome, Alice".into())));
//! assert_eq!(server.receive(bob), Some(Received::Text("Welcome, Bob".into())));
//!
//! server.send(alice, "hello");
//! assert_eq!(server.receive(bob), Some(Received::Text("hello".into())));
//!
//! server.advance(Duration::from_secs(30));
//! assert_eq!(server.ping_count(bob), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Knows shards as things that take turns, and clients. Must not know what happens in a turn.

mod client;
mod request;
#[doc(hidden)]
pub mod simulation;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

pub use self::client::Received;
use self::client::{Client, Place};
pub use self::request::{Refused, TestRequest};
use crate::clock;
use crate::config::AGES;
use crate::error::Error;
use crate::hub::{ConnectionId, Hub, ShutdownPlan, ShutdownReport};
use crate::message::{AsMessage, CloseCode};
use crate::panics::discard;
use crate::server::{OnShardThread, Parts, ServerBuilder, Shards};
use crate::shard::{EventLoop, pipe};

/// How much a connection holds each way by default, in bytes: about what a kernel does.
const PIPE_BYTES: usize = 128 << 10;
/// How long a call waits for other threads, in real time, if it cannot go on without them.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first of the ports that peers are said to have.
const FIRST_PORT: usize = 49_152;
const PORT_COUNT: usize = 16_384;

/// A client of a [`TestServer`]: a handle, to be used with the server that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TestClient(usize);

/// A server whose shards take their turns on the test's own thread, when the test calls.
///
/// * The clients: [`connect`](Self::connect) and [`open`](Self::open) make one; `send` and its kin
///   speak for it; [`receive`](Self::receive) tells what it got.
/// * The time stands still except in [`advance`](Self::advance).
/// * Every call goes on until nothing is left to do: what follows from it has happened when it
///   returns. So a test needs no waiting, and always sees the same: shards take turns in order,
///   one after another.
///
/// A client reads as soon as there is something, answers pings and Close frames, and ends its side
/// when the server has; unless it has [stopped reading](Self::stop_reading).
///
/// What other threads do, through a [`Hub`] or with what a future waits for, is taken up by the
/// next call; [`receive_within`](Self::receive_within) waits for it. Work that a handler has
/// offloaded is waited for by [`receive`](Self::receive), an upgrade by `connect`: at most ten
/// seconds of real time.
///
/// A closure given to [`ServerBuilder::on_shard_thread`] is called on the test's thread, around
/// each turn of each shard.
///
/// Without [`ServerBuilder::shards`] there is one shard. Connections are placed on the shards in
/// turn. A panic in a handler is caught, as ever: the client sees Close 1011. Dropping the server
/// shuts it down without grace.
pub struct TestServer {
    /// By shard; `None` once it has ended.
    shards: Vec<Option<EventLoop>>,
    clients: Vec<Client>,
    headers: Vec<Vec<(String, String)>>,
    hub: Hub,
    on_shard_thread: OnShardThread,
    now: Instant,
    pipe_bytes: usize,
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer")
            .field("shard_count", &self.shards.len())
            .field("client_count", &self.clients.len())
            .finish_non_exhaustive()
    }
}

impl TestServer {
    /// Prepares the server that was gathered, without binding an address.
    ///
    /// # Errors
    /// As of [`ServerBuilder::bind`].
    pub fn new(builder: ServerBuilder) -> Result<Self, Error> {
        let Parts { shard_parts, service, limits, hub, on_shard_thread, .. } =
            builder.prepare(Shards::One)?;
        let now = clock::now();
        let mut shards = Vec::with_capacity(shard_parts.len());
        for parts in shard_parts {
            let (service, limits, hub) = (service.clone(), limits.clone(), hub.clone());
            let shard = EventLoop::new(parts, service, limits, hub, now)?;
            shards.push(Some(shard));
        }
        let (clients, headers) = (Vec::new(), Vec::new());
        let pipe_bytes = PIPE_BYTES;
        Ok(Self { shards, clients, headers, hub, on_shard_thread, now, pipe_bytes })
    }

    /// The handle with which any thread reaches the connections.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// How much connections hold each way from now on, in bytes, at least 1; 128 KiB until then. A
    /// client that does not read fills it, and then the server's outbox.
    pub fn set_pipe_bytes(&mut self, bytes: usize) {
        self.pipe_bytes = bytes;
    }

    // Clients come.

    /// Asks for an upgrade, and reports what became of it.
    ///
    /// The time stands still: an upgrade that is decided later, by what another thread does, has
    /// ten seconds of real time. To see it time out, [`open`](Self::open) a client, send the
    /// request by hand and [`advance`](Self::advance).
    ///
    /// # Errors
    /// [`Refused`], with the server's answer, also if that is a page; with status 0 if there was
    /// none in time, or the request cannot be sent.
    pub fn connect(&mut self, request: impl Into<TestRequest>) -> Result<TestClient, Refused> {
        let request = request.into();
        let text = request.encode()?;
        let client = self.open_from(request.peer);
        self.clients[client.0].ask(&text);
        let give_up_at = clock::now() + PATIENCE;
        let answer = loop {
            self.settle();
            if let Some(answer) = self.clients[client.0].answer() {
                break answer;
            }
            if self.has_ended(client) || clock::now() >= give_up_at {
                self.drop_connection(client);
                return Err(Refused::unanswered());
            }
            self.await_others();
        };
        if answer.status != 101 {
            // After a page it would go on, with nobody to speak for it.
            self.drop_connection(client);
            return Err(answer);
        }
        self.headers[client.0] = answer.headers;
        self.settle();
        Ok(client)
    }

    /// Connects and says nothing: for requests of your own, or none. Such a client sends by
    /// [`send_bytes`](Self::send_bytes) and gets bytes, by [`take_bytes`](Self::take_bytes).
    pub fn open(&mut self) -> TestClient {
        self.open_from(None)
    }

    fn open_from(&mut self, peer: Option<SocketAddr>) -> TestClient {
        let index = self.clients.len();
        let port = u16::try_from(FIRST_PORT + index % PORT_COUNT).unwrap_or_default();
        let peer = peer.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, port).into());
        let (server_end, client_end) = pipe(self.pipe_bytes);
        let shard = index % self.shards.len();
        let shard = self.shards[shard].as_mut();
        let id = shard.and_then(|shard| shard.adopt_pipe(server_end, peer, self.now));
        self.clients.push(Client::new(client_end, id));
        self.headers.push(Vec::new());
        self.settle();
        TestClient(index)
    }

    /// A header of the answer that granted the upgrade, its name in any case.
    #[must_use]
    pub fn header(&self, client: TestClient, name: &str) -> Option<&str> {
        request::find(&self.headers[client.0], name)
    }

    /// The id of a client's connection, whether it is still there or not.
    ///
    /// # Panics
    /// If the server took no notice of the client: it has too many, or has shut down.
    #[must_use]
    pub fn id(&self, client: TestClient) -> ConnectionId {
        match self.clients[client.0].id {
            Some(id) => id,
            None => panic!("the server refused this client before it had an id"),
        }
    }

    // Clients speak. What is sent on a connection that has ended is lost, as on a socket.

    /// Sends a message.
    ///
    /// # Panics
    /// If the client has not upgraded; so do all that send frames.
    pub fn send(&mut self, client: TestClient, message: impl AsMessage) {
        self.clients[client.0].send(message.as_message());
        self.settle();
    }

    /// Sends one message in fragments (RFC 6455 section 5.4); the first one decides its kind.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub fn send_in_fragments<M: AsMessage>(&mut self, client: TestClient, fragments: &[M]) {
        for (at, fragment) in fragments.iter().enumerate() {
            let place = Place { is_first: at == 0, is_last: at + 1 == fragments.len() };
            self.clients[client.0].send_fragment(fragment.as_message(), place);
        }
        self.settle();
    }

    /// Sends bytes as they are: a request, frames made by hand, half of one, nonsense.
    pub fn send_bytes(&mut self, client: TestClient, bytes: impl AsRef<[u8]>) {
        self.clients[client.0].send_bytes(bytes.as_ref());
        self.settle();
    }

    /// Sends a ping of at most 125 bytes; [`Received::Pong`] answers it.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub fn ping(&mut self, client: TestClient, payload: impl AsRef<[u8]>) {
        self.clients[client.0].ping(payload.as_ref());
        self.settle();
    }

    /// Begins the closing handshake; [`Received::Close`] answers it.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub fn close(&mut self, client: TestClient, code: impl Into<CloseCode>, reason: &str) {
        self.clients[client.0].close(code.into(), reason);
        self.settle();
    }

    /// The client's process dies: the connection ends without a Close frame. What was sent to it
    /// and not read is lost.
    pub fn drop_connection(&mut self, client: TestClient) {
        self.clients[client.0].drop_connection();
        self.settle();
    }

    /// The client does not read any more: pings and Close frames are not answered, the connection
    /// fills up.
    pub fn stop_reading(&mut self, client: TestClient) {
        self.settle();
        self.clients[client.0].end.reading_bytes = Some(0);
    }

    /// The client reads so many bytes of what the server writes, then stops again. Frames count
    /// with their headers; a message is received when the last byte of it was read.
    pub fn read_some(&mut self, client: TestClient, bytes: usize) {
        self.clients[client.0].end.reading_bytes = Some(bytes);
        self.settle();
        self.clients[client.0].end.reading_bytes = Some(0);
    }

    /// The client reads again, beginning with what has come meanwhile.
    pub fn start_reading(&mut self, client: TestClient) {
        self.clients[client.0].end.reading_bytes = None;
        self.settle();
    }

    // What clients got.

    /// The next message that the client got, or its end; `None` if there is none. If there is
    /// none yet, it waits for work that handlers have offloaded.
    pub fn receive(&mut self, client: TestClient) -> Option<Received> {
        self.settle();
        if self.clients[client.0].received.is_empty() {
            self.await_offloaded();
        }
        self.clients[client.0].received.pop_front()
    }

    /// Like [`receive`](Self::receive), but waits for what other threads do; at most for `limit`,
    /// in real time, while the server's time stands still.
    pub fn receive_within(&mut self, client: TestClient, limit: Duration) -> Option<Received> {
        let give_up_at = clock::now() + limit.min(AGES);
        loop {
            self.settle();
            let received = self.clients[client.0].received.pop_front();
            if received.is_some() || clock::now() >= give_up_at {
                return received;
            }
            self.await_others();
        }
    }

    /// Everything that the client got and was not received yet; waits for work that handlers have
    /// offloaded.
    pub fn receive_all(&mut self, client: TestClient) -> Vec<Received> {
        self.settle();
        self.await_offloaded();
        self.clients[client.0].received.drain(..).collect()
    }

    /// The bytes that a client without an upgrade got since the last call.
    pub fn take_bytes(&mut self, client: TestClient) -> Vec<u8> {
        self.settle();
        std::mem::take(&mut self.clients[client.0].bytes)
    }

    /// How many pings of the server the client has read, and answered.
    #[must_use]
    pub fn ping_count(&self, client: TestClient) -> usize {
        self.clients[client.0].ping_count
    }

    /// Whether the client knows that its connection has ended. One that does not read does not.
    #[must_use]
    pub fn has_ended(&self, client: TestClient) -> bool {
        self.clients[client.0].has_ended()
    }

    // Time, and the end.

    /// Moves the clock; everything that is due until then happens at its own time. A timer of the
    /// server fires up to 16 ms after its time, never before.
    pub fn advance(&mut self, time: Duration) {
        let target = self.now + time.min(AGES);
        self.settle();
        while let Some(due) = self.next_due().filter(|&due| due <= target) {
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = target;
        self.settle();
    }

    /// Shuts down as [`RunningServer::shutdown`](crate::RunningServer::shutdown) does. If there is
    /// somebody to wait for, the clock moves to the end of the grace. To see what happens on the
    /// way, begin it by [`Hub::shutdown`] and [`advance`](Self::advance).
    pub fn shutdown(&mut self, plan: impl Into<ShutdownPlan>) -> ShutdownReport {
        let plan = plan.into();
        self.hub.shutdown(plan);
        self.settle();
        if self.shards.iter().any(Option::is_some) {
            self.advance(plan.longest());
        }
        ShutdownReport::of(&self.hub.shared().shutdown)
    }

    /// Does all that can be done at this time. Every other call does it, too; call it when nothing
    /// but a [`Hub`] was used.
    pub fn settle(&mut self) {
        while self.go_round() {}
        if cfg!(debug_assertions) {
            self.shards.iter().flatten().for_each(EventLoop::check_invariants);
        }
    }

    /// Lets every client do what it wants to, then gives every shard a turn; `false` if nobody had
    /// anything to do.
    fn go_round(&mut self) -> bool {
        let now = self.now;
        let shard_count = self.shards.len();
        let mut has_moved = false;
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.exchange();
            if let Some(shard) = &mut self.shards[index % shard_count] {
                has_moved |= shard.tell(&client.end, now);
            }
        }
        for (index, place) in self.shards.iter_mut().enumerate() {
            if !place.as_ref().is_some_and(|shard| shard.has_work(now) || shard.is_over()) {
                continue;
            }
            has_moved |= self.on_shard_thread.run(index, || {
                let Some(shard) = place else { return false };
                let has_moved = shard.take_turn(now);
                if shard.is_over() {
                    *place = None;
                }
                has_moved
            });
        }
        has_moved
    }

    /// Waits until all work that handlers have offloaded is done.
    fn await_offloaded(&mut self) {
        let give_up_at = clock::now() + PATIENCE;
        while self.shards.iter().flatten().any(EventLoop::has_offloaded)
            && clock::now() < give_up_at
        {
            self.await_others();
            self.settle();
        }
    }

    /// Waits for a moment, in real time, for what other threads do.
    fn await_others(&mut self) {
        for shard in self.shards.iter_mut().flatten() {
            if let Err(error) = shard.await_others() {
                panic!("the operating system refuses to wait: {error}");
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.shards.iter().flatten().filter_map(EventLoop::next_due).min()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.shutdown(Duration::ZERO);
        }
        for (index, place) in self.shards.iter_mut().enumerate() {
            if let Some(shard) = place.take() {
                discard(self.on_shard_thread.contain(index, || drop(shard)));
            }
        }
    }
}
