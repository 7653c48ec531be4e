//! The server in a process of its own under callgrind, from inside and from outside.
//!
//! Uses only what examples use, so that it builds beside any revision.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine::{Handler, Message, Reply, Server, WebSocket};

use super::client::Client;
use super::profile::{Counts, counts};

/// What makes the process the server.
pub(crate) const ORDER: &str = "--serve";

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn on_message<'m>(&self, _: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        message.into()
    }
}

struct ToAll;

impl Handler for ToAll {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().shard().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        ws.broadcast(message).expect("the queues are not full");
        Reply::none()
    }
}

/// Before it callgrind writes down what it has counted, and begins anew.
#[inline(never)]
fn mark() {
    black_box(());
}

/// Serves until the parent process orders a shutdown or any other end on the standard input.
pub(crate) fn serve(shard_count: usize) {
    let server = Server::builder()
        .shards(shard_count)
        .websocket("/echo", Echo)
        .websocket("/all", ToAll)
        .bind("127.0.0.1:0")
        .expect("a free port");
    println!("{}", server.local_addr());
    let hub = server.hub();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            match &line.expect("an order")[..] {
                "shutdown" => {
                    mark();
                    hub.shutdown(Duration::from_secs(60));
                }
                _ => std::process::exit(0),
            }
        }
    });
    server.run().expect("it serves");
}

/// The server, from outside.
pub(crate) struct Served {
    child: Child,
    orders: ChildStdin,
    address: SocketAddr,
    profile: PathBuf,
    kept: Vec<Client>,
}

impl Served {
    pub(crate) fn start(shard_count: usize) -> Self {
        static RUN: AtomicUsize = AtomicUsize::new(0);
        let program = std::env::current_exe().expect("this program");
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let profile = program.with_file_name(format!("structure-{}-{run}", std::process::id()));
        let mut child = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--dump-instr=yes", "--dump-line=no"])
            .args(["--compress-pos=no", "--compress-strings=no"])
            .args(["--dump-before=*structure*server*mark*"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(program)
            .args([ORDER, &shard_count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("valgrind starts (apt-get install valgrind)");
        let orders = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("an address");
        let address = line.trim().parse().expect("an address");
        Self { child, orders, address, profile, kept: Vec::new() }
    }

    pub(crate) fn client(&self, path: &str) -> Client {
        Client::connect(self.address, path)
    }

    /// Connects clients, each with the index of the shard that serves it.
    pub(crate) fn clients(&self, path: &str, count: usize) -> Vec<(Client, usize)> {
        let client = |_| {
            let mut client = self.client(path);
            let shard = client.receive_digit();
            (client, shard)
        };
        (0..count).map(client).collect()
    }

    /// Holds clients open until the server has ended.
    pub(crate) fn keep(&mut self, clients: Vec<Client>) {
        self.kept.extend(clients);
    }

    /// Ends the process at once, without a shutdown; how often each instruction ran.
    pub(crate) fn exit(mut self) -> Counts {
        writeln!(self.orders, "exit").expect("the server listens");
        self.wait()
    }

    /// Begins the shutdown. What ran before is not counted.
    pub(crate) fn shut_down(&mut self) {
        writeln!(self.orders, "shutdown").expect("the server listens");
    }

    /// Waits for the end; how often each instruction ran.
    pub(crate) fn wait(mut self) -> Counts {
        let status = self.child.wait().expect("the server ends");
        assert!(status.success(), "{status}");
        // The last part is in the file without a number.
        let counts = counts(&self.profile);
        for old in [self.profile.clone(), PathBuf::from(format!("{}.1", self.profile.display()))] {
            let _ = std::fs::remove_file(old);
        }
        counts
    }
}
