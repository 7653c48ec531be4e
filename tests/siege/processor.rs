//! The loop never spins: what a server that waits costs in processor time. The server is a process
//! of its own, so that all of it is measured and nothing else.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, ConnectionId, Limits, Reply, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::LIMIT;
use crate::common::{Client, within};
use crate::raw::{BINARY, Bystander, Raw, frame, until};

/// Tells the program that it is a server, and which.
const SERVER: &str = "PEREGRINE_TEST_SERVER";
/// How long is measured, and how much of it the server may have a processor for.
const WATCH: Duration = Duration::from_secs(3);
const MOST: Duration = Duration::from_millis(500);
/// All that a server process may have open that is to run out of it.
const DESCRIPTOR_COUNT: u64 = 64;
/// How long a handler keeps its shard.
const BLOCK: Duration = Duration::from_secs(5);

/// Is told its id; `block` keeps the shard; `shout` broadcasts a lot; all else comes back.
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
            _ => {}
        }
        message.into()
    })
}

/// Not a test: the other process. It serves until its input ends.
#[test]
fn a_server_process() {
    let Some(kind) = std::env::var_os(SERVER) else { return };
    let mut limits = Limits::default();
    limits.connection_count = Some(10_000);
    if kind == "small mailbox" {
        limits.mailbox_count = 1;
    }
    let builder = Server::builder().shards(2).limits(limits).websocket("/", handler());
    let running = builder.bind("127.0.0.1:0").expect("a port").start().expect("threads");
    if kind == "few descriptors" {
        let rest = getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(DESCRIPTOR_COUNT), ..rest };
        setrlimit(Resource::Nofile, few).expect("a limit may be lowered");
    }
    println!("\nserves at {}", running.local_addr());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("the end");
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(kind: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "processor::a_server_process", "--nocapture"]).env(SERVER, kind);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let told = |line: Result<String, _>| {
            line.expect("text").strip_prefix("serves at ").map(str::to_owned)
        };
        let address = output.lines().find_map(told).expect("the address");
        Self { child, address: address.parse().expect("an address") }
    }

    /// The time that it has had a processor for, itself and its kernel.
    fn spent(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let (_, fields) = text.rsplit_once(')').expect("a name");
        let ticks = |at: usize| -> u64 {
            fields.split_whitespace().nth(at).and_then(|text| text.parse().ok()).expect("a number")
        };
        // utime and stime (proc_pid_stat(5)), in hundredths of a second.
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Watches it for a while.
    fn is_at_rest(&self, what: &str) {
        let before = self.spent();
        // Not a wait for anything: this is what is measured.
        thread::park_timeout(WATCH);
        let spent = self.spent() - before;
        println!("{what}: {spent:?} of {WATCH:?}");
        assert!(spent <= MOST, "{what} costs {spent:?} of {WATCH:?}");
    }

    /// A client, and the shard that it is on.
    fn client(&self) -> (Client, usize) {
        let mut client = Client::connect(self.address, "/");
        let id: ConnectionId = client.text().parse().expect("an id");
        (client, id.shard())
    }

    /// Somebody beside those who lay siege.
    fn bystander(&self) -> Bystander {
        Bystander::over(self.client().0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends with its input, or else so.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_thousand_idle_connections_cost_no_processor_time() {
    within(LIMIT, || {
        let process = Process::start("plain");
        let mut bystander = process.bystander();
        let crowd: Vec<Raw> = (0..1000).map(|_| Raw::upgraded(process.address, "/")).collect();
        bystander.is_served();
        process.is_at_rest("a thousand idle connections");
        drop(crowd);
        bystander.is_served();
    });
}

#[test]
fn who_does_not_read_costs_no_processor_time() {
    within(LIMIT, || {
        let process = Process::start("plain");
        let mut bystander = process.bystander();
        let floods: Vec<Raw> = (0..8)
            .map(|_| {
                let mut raw = Raw::connect_narrow(process.address);
                raw.upgrade("/");
                raw.flood(&frame(BINARY, &[7; 4096]), 64 << 20, Duration::from_millis(200));
                raw
            })
            .collect();
        bystander.is_served();
        process.is_at_rest("eight that do not read");
        bystander.is_served();
        drop(floods);
    });
}

/// The server process is out of descriptors; the clients' is not.
#[test]
fn a_listener_that_rests_costs_no_processor_time_and_accepts_again() {
    within(LIMIT, || {
        let process = Process::start("few descriptors");
        let mut bystander = process.bystander();
        let mut crowd: Vec<TcpStream> = (0..200)
            .map(|_| TcpStream::connect(process.address).expect("room in the kernel"))
            .collect();
        bystander.is_served();
        let open =
            || std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).expect("it runs");
        until("all descriptors are in use", || open().count() as u64 >= DESCRIPTOR_COUNT);
        process.is_at_rest("a listener that rests");
        bystander.is_served();
        // Those who wait are let in as others leave, and at last whoever comes.
        let mut last = Raw::over(crowd.pop().expect("a crowd"));
        last.limit_time();
        drop(crowd);
        last.upgrade("/");
        last.text();
        process.client();
        bystander.is_served();
    });
}

/// One shard is kept by its handler, another one has more for it than its mailbox takes.
#[test]
fn a_shard_that_waits_for_another_costs_little_processor_time() {
    within(LIMIT, || {
        let process = Process::start("small mailbox");
        let (mut blocking, blocked) = process.client();
        let mut shouting = loop {
            let (client, shard) = process.client();
            if shard != blocked {
                break client;
            }
        };
        blocking.send("block");
        shouting.send("shout");
        // All that fits has been sent by now, and the rest waits.
        thread::park_timeout(Duration::from_millis(500));
        process.is_at_rest("a shard that waits for another");
        for _ in 0..2 {
            assert_eq!(shouting.text(), "hear, hear");
        }
    });
}
