//! What a simulation needs that is finer than [`TestServer`](super::TestServer): one turn of one
//! shard at a time, connections that come through the listener, a kernel that takes what it likes,
//! and that fails. For this crate's own tests, which know what they do: no promises.
//!
//! Knows shards as things that take turns. Must not know what clients say.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::hub::{Hub, ShutdownPlan, ShutdownReport};
use crate::server::{Parts, ServerBuilder, Shards};
use crate::shard::{Arrivals, Budgets, ClientEnd, EventLoop, Unread, pipe};

/// The shards of a server, and its connections.
pub struct Simulation {
    /// By shard; `None` once it has ended.
    shards: Vec<Option<EventLoop>>,
    arrivals: Vec<Arrivals>,
    wires: Vec<Wire>,
    hub: Hub,
    now: Instant,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("wires", &self.wires).finish_non_exhaustive()
    }
}

/// The client's end of a connection, and what lies between.
#[derive(Debug)]
pub struct Wire(ClientEnd);

/// What a read of a client brought.
#[derive(Debug)]
pub enum Heard {
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// The server has ended its side, or the connection is broken.
    End,
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// It sends no more, and still reads.
    Half,
    /// It neither sends nor reads any more.
    Whole,
    /// With a reset; the server may read first what was sent.
    Reset,
    /// With a reset, and what was sent is lost.
    ResetAtOnce,
}

impl Simulation {
    /// Prepares the server that was gathered; each shard listens in memory. What a turn does at
    /// most: so many sockets accepted, envelopes taken, members visited, messages of a connection.
    ///
    /// # Errors
    /// As of [`ServerBuilder::bind`].
    pub fn new(builder: ServerBuilder, budgets: [usize; 4]) -> Result<Self, Error> {
        let [accept_count, mailbox_count, fanout_count, frame_count] = budgets;
        let budgets = Budgets { accept_count, mailbox_count, fanout_count, frame_count };
        let Parts { shard_parts, service, limits, hub, .. } = builder.prepare(Shards::One)?;
        let now = clock::now();
        let (mut shards, mut arrivals) = (Vec::new(), Vec::new());
        for parts in shard_parts {
            let (service, limits, hub) = (service.clone(), limits.clone(), hub.clone());
            let mut shard = EventLoop::new(parts, service, limits, hub, now)?;
            let waiting = Arrivals::default();
            shard.set_budgets(budgets);
            shard.listen(waiting.clone());
            shards.push(Some(shard));
            arrivals.push(waiting);
        }
        Ok(Self { shards, arrivals, wires: Vec::new(), hub, now })
    }

    /// The handle with which any thread reaches the connections.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Somebody connects to the listener of a shard; the index of the wire.
    pub fn connect(&mut self, shard: usize, room_bytes: usize) -> usize {
        let (server_end, client_end) = pipe(1 << 20);
        client_end.tap();
        client_end.set_room(room_bytes);
        if self.shards[shard].as_ref().is_some_and(EventLoop::is_listening) {
            let port = 1024 + u16::try_from(self.wires.len()).unwrap_or_default();
            self.arrivals[shard].push(server_end, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        self.wires.push(Wire(client_end));
        self.wires.len() - 1
    }

    /// The next attempts of a shard to accept fail for want of descriptors.
    pub fn exhaust(&self, shard: usize) {
        self.arrivals[shard].exhaust();
    }

    /// The next attempt of a shard to accept fails because that one has gone again.
    pub fn abort_arrival(&self, shard: usize) {
        self.arrivals[shard].abort_one();
    }

    /// The connections, in the order in which they were made.
    pub fn wires(&mut self) -> &mut [Wire] {
        &mut self.wires
    }

    /// Tells a shard what has happened to those wires that `tells` chooses, then gives it a turn,
    /// as its loop would: if it has anything to do. All invariants are checked after it.
    ///
    /// # Panics
    /// If one of them does not hold.
    pub fn turn(&mut self, shard: usize, mut tells: impl FnMut() -> bool) -> bool {
        let Some(event_loop) = &mut self.shards[shard] else { return false };
        let mut has_readiness = tells() && event_loop.announce(&self.arrivals[shard]);
        for Wire(end) in &self.wires {
            has_readiness |= end.has_readiness() && tells() && event_loop.tell(end, self.now);
        }
        let has_turned = event_loop.take_turn(self.now);
        if has_turned {
            event_loop.check_alone();
        }
        if !event_loop.is_listening() {
            self.arrivals[shard].clear();
        }
        if event_loop.is_over() {
            self.shards[shard] = None;
        }
        has_readiness || has_turned
    }

    /// Moves the clock of all shards.
    pub fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// How long until something is due of which no event will tell.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let due = self.shards.iter().flatten().filter_map(EventLoop::next_due).min()?;
        Some(due.saturating_duration_since(self.now))
    }

    /// Begins the shutdown.
    pub fn begin_shutdown(&self, plan: impl Into<ShutdownPlan>) {
        self.hub.shutdown(plan);
    }

    /// How the shutdown went; `None` while it goes on.
    #[must_use]
    pub fn report(&self) -> Option<ShutdownReport> {
        self.shards
            .iter()
            .all(Option::is_none)
            .then(|| ShutdownReport::of(&self.hub.shared().shutdown))
    }
}

impl Wire {
    /// Sends bytes; how many the kernel took.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.write(bytes).unwrap_or_default()
    }

    /// Reads at most so many bytes.
    pub fn read(&mut self, bytes: usize) -> Heard {
        let mut buffer = vec![0; bytes];
        match self.0.read(&mut buffer) {
            Ok(0) => Heard::End,
            Ok(read) => {
                buffer.truncate(read);
                Heard::Bytes(buffer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// From now on the kernel takes so many bytes more of the server's.
    pub fn set_room(&self, bytes: usize) {
        self.0.set_room(bytes);
    }

    /// Ends the connection on the client's side.
    pub fn end(&self, ending: Ending) {
        match ending {
            Ending::Half => self.0.end(),
            Ending::Whole => self.0.close(),
            Ending::Reset => self.0.reset(Unread::Kept),
            Ending::ResetAtOnce => self.0.reset(Unread::Lost),
        }
    }

    /// All that the kernel has taken of the server's since the last call, read or not.
    pub fn tapped(&self) -> Vec<u8> {
        self.0.tapped()
    }

    /// Whether the server has closed its side for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_abandoned()
    }
}
