//! The whole server in a process of its own under callgrind, and clients that leave nothing to
//! chance.
//!
//! What a message costs depends on how many others the server finds beside it. So before each round
//! the server is led to a **gate**: a handler that waits until it is told to go on. Meanwhile the
//! clients send all that belongs to the round; the server's next turn finds it there. Then they
//! receive and compare all that comes of it.
//!
//! ```text
//! warm-up │ rounds, at the gate and with messages │ as many, at the gate only │
//!         └─ mark ────────────────────────────────┴─ mark ────────────────────┴─ mark
//! ```
//!
//! callgrind tells what passed from mark to mark. The difference of the two is what the messages
//! cost: the gate cancels, and so does how the server began.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use peregrine::{Handler, Limits, Message, Reply, Server, WebSocket};

use super::callgrind;
use super::client::{Batch, Client};
use super::inputs::{Kind, Seed};

/// What makes the process the server.
pub(crate) const ORDER: &str = "--serve";

/// Any message.
const CALL: [u8; 6] = [0x82, 0x80, 0, 0, 0, 0];

const WARM_UP_COUNT: usize = 20;
/// Rounds while callgrind counts.
const ROUND_COUNT: usize = 10;

/// Where callgrind tells what it has counted.
#[inline(never)]
fn mark() {
    black_box(());
}

/// Waits to be told how to go on.
fn stand_at_gate() {
    println!("at the gate");
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).expect("an order");
    match order.trim() {
        "go" => {}
        "mark" => mark(),
        _ => std::process::exit(0),
    }
}

/// As in `examples/echo.rs`.
struct Echoing;

impl Handler for Echoing {
    type Session = ();

    fn on_message<'m>(&self, _: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        message.into()
    }
}

struct ToAll;

impl Handler for ToAll {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        ws.broadcast(message).expect("room in the log");
        Reply::none()
    }
}

struct Gate;

impl Handler for Gate {
    type Session = ();

    fn on_message<'m>(&self, _: &mut WebSocket<'_, ()>, _: Message<'m>) -> Reply<'m> {
        stand_at_gate();
        Reply::none()
    }
}

/// The server.
pub(crate) fn serve() {
    let mut limits = Limits::default();
    // Nothing becomes due meanwhile.
    limits.handshake_timeout = Duration::from_secs(3600);
    limits.ping_after = Duration::from_secs(3600);
    limits.idle_timeout = Duration::from_secs(7200);
    limits.slow_handler_after = Duration::from_secs(3600);
    let server = Server::builder()
        .shards(1)
        .limits(limits)
        .websocket("/echo", Echoing)
        .websocket("/all", ToAll)
        .websocket("/gate", Gate)
        .bind("127.0.0.1:0")
        .expect("a free port");
    println!("{}", server.local_addr());
    server.run().expect("it serves");
}

/// The server, from the other side.
struct Served {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
    /// Who leads the server to the gate.
    keeper: Client,
}

impl Served {
    fn start(name: &str) -> (Self, std::path::PathBuf) {
        // Options first, and never anything that the server does not need.
        let (mut command, profile) =
            callgrind::command(name, &["--dump-before=*served*mark*"], &[ORDER]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("valgrind starts");
        let orders = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("an address");
        let address = line.trim().parse().expect("an address");
        let keeper = Client::connect(address, "/gate");
        (Self { child, orders, answers, address, keeper }, profile)
    }

    /// What happens while the server stands at the gate, and how it shall go on.
    fn at_gate(&mut self, order: &str, meanwhile: impl FnOnce()) {
        self.keeper.send(&CALL);
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the server stands at the gate");
        assert_eq!(line, "at the gate\n");
        meanwhile();
        writeln!(self.orders, "{order}").expect("the server listens");
    }
}

impl Drop for Served {
    /// After a measurement that failed, it would wait for ever.
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Clients that do the same in each round.
trait Load {
    /// How many gates a round has.
    const GATE_COUNT: usize = 1;

    /// What is sent while the server stands at that gate.
    fn send(&mut self, gate: usize);

    /// What comes of it.
    fn receive(&mut self, gate: usize);
}

/// What one item of a load costs.
fn count<L: Load>(name: &str, item_count: usize, load: impl FnOnce(SocketAddr) -> L) -> f64 {
    let (mut served, profile) = Served::start(name);
    let mut load = load(served.address);
    let mut rounds = |served: &mut Served, count| {
        for _ in 0..count {
            for gate in 0..L::GATE_COUNT {
                served.at_gate("go", || load.send(gate));
                load.receive(gate);
            }
        }
    };
    rounds(&mut served, WARM_UP_COUNT);
    served.at_gate("mark", || {});
    rounds(&mut served, ROUND_COUNT);
    served.at_gate("mark", || {});
    for _ in 0..ROUND_COUNT * L::GATE_COUNT {
        served.at_gate("go", || {});
    }
    served.at_gate("mark", || {});
    served.at_gate("end", || {});
    let status = served.child.wait().expect("the server ends");
    assert!(status.success(), "{name}: {status}");
    let totals = callgrind::totals(&profile);
    let [_, with, without, ..] = totals[..] else { panic!("{name}: marks are missing") };
    (with as f64 - without as f64) / (ROUND_COUNT * item_count) as f64
}

/// Each connection sends its messages and receives them back.
struct Echo(Vec<(Client, Batch)>);

/// What echoes carry: kind, payload in bytes, connections, messages in flight on each.
type EchoLoad = (Kind, usize, usize, usize);

impl Echo {
    fn new(address: SocketAddr, (kind, payload_bytes, client_count, count): EchoLoad) -> Self {
        let mut seed = Seed(3);
        let client = |_| {
            let mut batch = Batch::default();
            (0..count).for_each(|_| batch.put(&mut seed, kind, payload_bytes));
            (Client::connect(address, "/echo"), batch)
        };
        Self((0..client_count).map(client).collect())
    }
}

impl Load for Echo {
    fn send(&mut self, _: usize) {
        for (client, batch) in &mut self.0 {
            client.send(&batch.sent);
        }
    }

    fn receive(&mut self, _: usize) {
        for (client, batch) in &mut self.0 {
            client.receive(&batch.returned);
        }
    }
}

fn echo(name: &str, load: EchoLoad) -> f64 {
    let (.., client_count, in_flight_count) = load;
    count(name, client_count * in_flight_count, |address| Echo::new(address, load))
}

/// The same with messages that the kernel does not hold at once: of each a part comes at each gate.
struct LargeEcho(Echo);

const PART_COUNT: usize = 16;

impl Load for LargeEcho {
    const GATE_COUNT: usize = PART_COUNT;

    fn send(&mut self, gate: usize) {
        for (client, batch) in &mut self.0.0 {
            let size = batch.sent.len().div_ceil(PART_COUNT);
            let part = batch.sent.chunks(size).nth(gate);
            client.send(part.expect("as many parts as gates"));
        }
    }

    fn receive(&mut self, gate: usize) {
        if gate == PART_COUNT - 1 {
            self.0.receive(gate);
        }
    }
}

fn large_echo(name: &str, payload_bytes: usize) -> f64 {
    const COUNT: usize = 4;
    let load = (Kind::Binary, payload_bytes, COUNT, 1);
    count(name, COUNT, |address| LargeEcho(Echo::new(address, load)))
}

/// A few members each send one message; all members receive all of them.
struct Broadcast {
    members: Vec<Client>,
    /// They all say the same, for nobody knows in which order the server hears them.
    said: Batch,
    speaker_count: usize,
}

impl Load for Broadcast {
    fn send(&mut self, _: usize) {
        for member in &mut self.members[..self.speaker_count] {
            member.send(&self.said.sent);
        }
    }

    fn receive(&mut self, _: usize) {
        let expected = self.said.returned.repeat(self.speaker_count);
        for member in &mut self.members {
            member.receive(&expected);
        }
    }
}

fn broadcast(name: &str, member_count: usize, speaker_count: usize) -> f64 {
    let mut said = Batch::default();
    said.put(&mut Seed(4), Kind::Text, 64);
    count(name, member_count * speaker_count, |address| {
        let members = (0..member_count).map(|_| Client::connect(address, "/all")).collect();
        Broadcast { members, said, speaker_count }
    })
}

/// Some connect and upgrade, then they close.
struct Visits {
    address: SocketAddr,
    visitor_count: usize,
    visitors: Vec<Client>,
}

impl Load for Visits {
    const GATE_COUNT: usize = 2;

    fn send(&mut self, gate: usize) {
        if gate == 0 {
            let visitor = |_| Client::open(self.address, "/echo");
            self.visitors = (0..self.visitor_count).map(visitor).collect();
        } else {
            self.visitors.iter_mut().for_each(Client::begin_close);
        }
    }

    fn receive(&mut self, gate: usize) {
        if gate == 0 {
            self.visitors.iter_mut().for_each(Client::await_upgrade);
        } else {
            self.visitors.drain(..).for_each(Client::await_end);
        }
    }
}

fn visits(name: &str, visitor_count: usize) -> f64 {
    count(name, visitor_count, |address| Visits { address, visitor_count, visitors: Vec::new() })
}

/// What is measured of the whole server: its name, how much more a new row allows in percent, and
/// how it is measured.
pub(crate) type Measurement = (&'static str, f64, fn(&str) -> f64);

/// How much of a large message the kernel takes at a time is not always the same; all else is.
pub(crate) const ALL: [Measurement; 10] = [
    ("server/echo/binary/64/1", 2., |name| echo(name, (Kind::Binary, 64, 100, 1))),
    ("server/echo/binary/64/32", 2., |name| echo(name, (Kind::Binary, 64, 100, 32))),
    ("server/echo/ascii/64/32", 2., |name| echo(name, (Kind::Ascii, 64, 100, 32))),
    ("server/echo/text/64/32", 2., |name| echo(name, (Kind::Text, 64, 100, 32))),
    ("server/echo/binary/16384/1", 2., |name| echo(name, (Kind::Binary, 16 << 10, 100, 1))),
    ("server/echo/binary/1048576/1", 8., |name| large_echo(name, 1 << 20)),
    ("server/broadcast/1000/1", 2., |name| broadcast(name, 1000, 1)),
    ("server/broadcast/1000/16", 2., |name| broadcast(name, 1000, 16)),
    ("server/visit/1", 2., |name| visits(name, 1)),
    ("server/visit/50", 2., |name| visits(name, 50)),
];
