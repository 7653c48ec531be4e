//! The server, as a process of its own: so its processor time is its own, and each side of ten
//! thousand connections has as many descriptors as a process may have.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use peregrine::{Callbacks, ConnectionId, Limits, Reply, Server, ServerBuilder};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tells the program that it is the server, and how many shards it has.
const ORDER: &str = "PEREGRINE_THROUGHPUT_SHARDS";

/// As many descriptors as this process may have.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}

/// All endpoints that the measurements need: `/echo`; `/all`, which broadcasts what comes;
/// `/relay`, whose first message asks for one's own id (`id`) or names the target (an id), to which
/// all others go.
fn endpoints(builder: ServerBuilder) -> ServerBuilder {
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let all = Callbacks::<()>::new().on_message(|ws, message| {
        ws.broadcast(message).expect("room in the mailboxes");
        Reply::none()
    });
    let relay = Callbacks::<Option<ConnectionId>>::new().on_message(|ws, message| {
        match (*ws.session(), message.as_text()) {
            (None, Some("id")) => return ws.id().to_string().into(),
            (None, Some(id)) => {
                *ws.session_mut() = Some(id.parse().expect("an id"));
                return "ok".into();
            }
            (None, None) => panic!("a target must be named first"),
            (Some(target), _) => ws.send_to(target, message).expect("room in the mailbox"),
        }
        Reply::none()
    });
    builder.websocket("/echo", echo).websocket("/all", all).websocket("/relay", relay)
}

/// Serves, if this process was started for that, until its standard input ends.
pub(crate) fn serve_if_ordered() -> bool {
    let Ok(shards) = std::env::var(ORDER) else { return false };
    raise_descriptor_limit();
    // Nothing may be refused here, or the figures would count what did not happen.
    let mut limits = Limits::default();
    limits.outbox_high_water_bytes = 4 << 20;
    limits.max_outbox_bytes = 16 << 20;
    let builder = Server::builder().shards(shards.parse().expect("a number")).limits(limits);
    let server = endpoints(builder).bind("127.0.0.1:0").expect("a free port");
    let running = server.start().expect("threads");
    println!("{}", running.local_addr());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("the end");
    true
}

/// The other end: the server's process, for whoever measures it. It is killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start(shard_count: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(ORDER, shard_count.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let mut address = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut address).expect("the address");
        Self { child, address: address.trim().parse().expect("an address") }
    }

    /// How long each of its shards has been on a processor, in nanoseconds, by thread (Linux).
    pub(crate) fn shard_times(&self) -> HashMap<String, u64> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let Ok(threads) = threads else { return HashMap::new() };
        threads
            .flatten()
            .filter_map(|thread| {
                let name = fs::read_to_string(thread.path().join("comm")).ok()?;
                let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
                let nanos = times.split_whitespace().next()?.parse().ok()?;
                name.starts_with("peregrine-").then_some((name, nanos))
            })
            .collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // There is nothing that it has to end in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
