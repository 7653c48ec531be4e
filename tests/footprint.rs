//! What a connection weighs, measured from outside: the server is a process of its own, and so its
//! resident memory is that of ten thousand connections and little else. The clients are this
//! process, for one may not hold the descriptors of both sides.
//!
//! What the sizes in `src/shard/footprint.rs` add up to, with what their tables and the allocator
//! take beside it.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

#[path = "../benches/throughput/client.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benchmark's, of which this uses a part")]
mod client;
mod common;
#[path = "common/process.rs"]
mod process;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peregrine::{Callbacks, Limits, ServerBuilder};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::client::{Batch, Buffer, Client, Kind};
use self::common::{eventually, start, within};
use self::process::Process;

/// What an idle connection may cost; it is about 265.
const IDLE_BYTES: usize = 288;
/// What a short query costs: its text, and the rest of what not every connection has.
const QUERY_BYTES: usize = 168;
const QUERY: &str = "name=peregrine&room=7";

/// Between how many connections the memory is compared: what a server has without any, and what it
/// takes for its first traffic, is not a connection's.
const FEW: usize = 1000;
const MANY: usize = 10_000;
/// How many connect, or talk, at once.
const CROWD: usize = 100;
/// The machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Tells the program that it is the server.
const SERVER: &str = "PEREGRINE_TEST_FOOTPRINT";

fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the max");
}

/// Not a test: the other process.
#[test]
fn a_server_process() {
    if std::env::var_os(SERVER).is_none() {
        return;
    }
    raise_descriptor_limit();
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let count = Callbacks::<()>::new()
        .on_message(|ws, _| ws.hub().connection_counts()[0].to_string().into());
    let build = |builder: ServerBuilder| {
        // Nobody here answers a ping.
        let mut limits = Limits::default();
        (limits.ping_after, limits.idle_timeout) = (10 * LIMIT, 20 * LIMIT);
        builder.limits(limits).websocket("/echo", echo).websocket("/count", count)
    };
    process::serve(&start(1, build));
}

/// The clients of one test take half of the descriptors.
static TURN: Mutex<()> = Mutex::new(());

/// The server, and those who are connected to it.
struct Place {
    _turn: MutexGuard<'static, ()>,
    process: Process,
    address: SocketAddr,
    path: String,
    clients: Vec<Client>,
    /// Tells how many connections there are, itself included.
    counter: Client,
}

impl Place {
    fn new(path: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        raise_descriptor_limit();
        let mut command = process::server("a_server_process");
        let process = Process::start(command.env(SERVER, "1"));
        let address = process.address();
        let counter = Client::connect(address, "/count");
        Self { _turn: turn, process, address, path: path.to_owned(), clients: Vec::new(), counter }
    }

    fn grow_to(&mut self, count: usize) {
        while self.clients.len() < count {
            let missing = (count - self.clients.len()).min(CROWD);
            let open = |_| Client::open(self.address, &self.path);
            let at = self.clients.len();
            self.clients.extend((0..missing).map(open));
            self.clients[at..].iter_mut().for_each(Client::await_upgrade);
        }
    }

    /// Everybody says a lot, and gets it back.
    fn talk(&mut self, batches: &[Batch]) {
        let mut buffer = Buffer::default();
        for crowd in self.clients.chunks_mut(CROWD) {
            for batch in batches {
                crowd.iter_mut().for_each(|client| client.send(batch));
                crowd.iter_mut().for_each(|client| client.exchange(batch, &mut buffer));
            }
        }
    }

    /// Everybody leaves.
    fn clear(&mut self) {
        self.clients.clear();
        let question = Batch::request("?", b"");
        eventually(|| {
            self.counter.send_all(&question);
            self.counter.read_short_text() == "1"
        });
    }

    fn resident_bytes(&self) -> usize {
        self.process.resident_bytes()
    }
}

/// Tells it to everybody, also where the output of tests is kept back.
fn tell(what: &str, bytes: usize, most: usize) {
    writeln!(io::stderr(), "RSS per idle connection: {bytes} B ({what}; at most {most} B)")
        .expect("a place to say so");
    assert!(bytes <= most, "{what}: {bytes} bytes, not {most}");
}

fn batches() -> [Batch; 2] {
    [Batch::new(Kind::Binary, 64, 32, 0), Batch::new(Kind::Text, 16 << 10, 1, 1)]
}

#[test]
fn an_idle_connection_holds_less_than_320_bytes_whatever_has_come_and_gone() {
    within(LIMIT, || {
        let mut place = Place::new("/echo");
        place.grow_to(FEW);
        place.talk(&batches());
        let few = place.resident_bytes();
        let each = |bytes: usize| bytes.saturating_sub(few) / (MANY - FEW);
        place.grow_to(MANY);
        tell("10 000 connections", each(place.resident_bytes()), IDLE_BYTES);
        place.talk(&batches());
        tell("after each has said a lot", each(place.resident_bytes()), IDLE_BYTES);
        place.clear();
        place.grow_to(MANY);
        tell("10 000 others instead of them", each(place.resident_bytes()), IDLE_BYTES);
    });
}

#[test]
fn a_connection_with_a_query_holds_its_text_and_little_more() {
    within(LIMIT, || {
        let mut place = Place::new(&format!("/echo?{QUERY}"));
        place.grow_to(FEW);
        let few = place.resident_bytes();
        place.grow_to(MANY);
        let each = (place.resident_bytes() - few) / (MANY - FEW);
        tell("with a query of 21 bytes", each, IDLE_BYTES + QUERY_BYTES);
    });
}
