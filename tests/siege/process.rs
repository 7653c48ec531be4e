//! The server as a process of its own, so that all of it is measured and nothing else.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, ConnectionId, Limits, OverflowPolicy, Reply, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::Client;
use crate::raw::Bystander;

/// Tells the program that it is a server, and which.
const SERVER: &str = "PEREGRINE_TEST_SERVER";
/// All that a server process may have open that is to run out of it.
pub const DESCRIPTOR_COUNT: u64 = 64;
/// How much may wait in all outboxes of a shard, in its mailbox, and for those of others.
pub const SUM_BYTES: usize = 8 << 20;
/// How many shards it has.
pub const SHARD_COUNT: usize = 2;
/// How long a handler keeps its shard.
const BLOCK: Duration = Duration::from_secs(5);
/// What is broadcast for each message to a room.
const BROADCAST_BYTES: usize = 8 << 10;

/// Is told its id; `block` keeps the shard; `wait` is never answered; `shout` broadcasts a lot; all
/// else comes back.
fn handler() -> Callbacks<()> {
    Callbacks::new().on_connect(|ws| ws.id().to_string().into()).on_message(|ws, message| {
        match message.as_text() {
            Some("block") => thread::sleep(BLOCK),
            Some("shout") => {
                for _ in 0..1000 {
                    if ws.broadcast("hear, hear").is_err() {
                        break;
                    }
                }
                return Reply::none();
            }
            Some("wait") => return Reply::later(std::future::pending::<()>()),
            Some("dropped?") => return ws.hub().dropped_count().to_string().into(),
            _ => {}
        }
        message.into()
    })
}

/// Subscribes to as many topics as it may, with long names that begin with the message.
fn reader() -> Callbacks<()> {
    Callbacks::new().on_message(|ws, message| {
        let name = message.as_text().unwrap_or_default();
        let subscribe = |at: usize| ws.subscribe(&format!("{name}{at:01000}"));
        (0..1000).map(subscribe).take_while(Result::is_ok).count().to_string().into()
    })
}

fn lower_descriptor_limit(count: u64) {
    let rest = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(count), ..rest };
    setrlimit(Resource::Nofile, few).expect("a limit may be lowered");
}

/// Not a test: the other process. It serves until its input ends.
#[test]
fn a_server_process() {
    let Ok(kind) = std::env::var(SERVER) else { return };
    let mut limits = Limits::default();
    limits.max_connections = Some(10_000).filter(|_| kind != "as many as may be");
    if limits.max_connections.is_none() {
        lower_descriptor_limit(4 * DESCRIPTOR_COUNT);
    }
    match kind.as_str() {
        "small mailbox" => limits.max_mailbox_envelopes = 1,
        "patient" => limits.close_timeout = Duration::from_secs(300),
        "drop newest" => limits.overflow = OverflowPolicy::DropNewest,
        "drop oldest" => limits.overflow = OverflowPolicy::DropOldest,
        _ => {}
    }
    limits.max_shard_outbox_bytes = SUM_BYTES;
    limits.max_mailbox_bytes = SUM_BYTES;
    let room = Callbacks::<()>::new().on_message(|ws, _| {
        // Who is refused is not the only one who asks.
        let _ = ws.broadcast(vec![7; BROADCAST_BYTES]);
        ().into()
    });
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let builder = Server::builder().shards(SHARD_COUNT).limits(limits).websocket("/", handler());
    let builder = builder.websocket("/room", room).websocket("/echo", echo);
    let builder = builder.websocket("/topics", reader());
    let builder = builder.raise_descriptor_limit(kind != "as many as may be");
    let running = builder.bind("127.0.0.1:0").expect("a port").start().expect("threads");
    if kind == "few descriptors" {
        lower_descriptor_limit(DESCRIPTOR_COUNT);
    }
    println!("\nserves at {}", running.local_addr());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("the end");
}

pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    pub fn start(kind: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "process::a_server_process", "--nocapture"]).env(SERVER, kind);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let told = |line: Result<String, _>| {
            line.expect("text").strip_prefix("serves at ").map(str::to_owned)
        };
        let address = output.lines().find_map(told).expect("the address");
        Self { child, address: address.parse().expect("an address") }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The time that it has had a processor for, itself and its kernel; to 10 ms.
    pub fn spent(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let (_, fields) = text.rsplit_once(')').expect("a name");
        let ticks = |at: usize| -> u64 {
            fields.split_whitespace().nth(at).and_then(|text| text.parse().ok()).expect("a number")
        };
        // utime and stime (proc_pid_stat(5)), in hundredths of a second.
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// What it has in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        super::resident_bytes(&self.id().to_string())
    }

    /// A client, and the shard that it is on.
    pub fn client(&self) -> (Client, usize) {
        let mut client = Client::connect(self.address, "/");
        let id: ConnectionId = client.text().parse().expect("an id");
        (client, id.shard())
    }

    /// Somebody beside those who lay siege.
    pub fn bystander(&self) -> Bystander {
        Bystander::over(self.client().0)
    }

    /// How many messages it has dropped.
    pub fn dropped_count(&self) -> u64 {
        let (mut client, _) = self.client();
        client.send("dropped?");
        client.text().parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // There is nothing that it has to end in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
