//! The server as a process of its own, which counts what it allocates.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, ConnectionId, Endpoint, Hub, Limits, Reply, ServerBuilder};

use super::client::{Batch, Client};
use super::common::start;
use super::process::{self, Process};
use super::{ALLOCATOR, Allocated};

/// Tells the program that it is a server, and how many shards it has.
const SHARDS: &str = "PEREGRINE_TEST_SHARDS";
/// How many messages `/sends` returns for one.
pub(crate) const SENDS: usize = 5;
/// When the silent are asked, and the others.
const PING_AFTER: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_secs(6000);
/// What the thread beside the server sends, in bytes.
pub(crate) const NEWS: [u8; 64] = [7; 64];

/// Answers each message with what was allocated so far: how often, and how many bytes.
fn counter() -> Callbacks<()> {
    Callbacks::new().on_message(|ws, _| {
        let stats = ALLOCATOR.stats();
        let count = stats.allocations + stats.reallocations;
        let mut told = [b' '; 41];
        write!(&mut told[..], "{count} {}", stats.bytes_allocated).expect("room");
        ws.send(str::from_utf8(&told).expect("digits")).expect("room");
        Reply::none()
    })
}

/// Its first message asks for one's own id (`id`) or names the target (an id), to which all others
/// go.
fn relay() -> Callbacks<Option<ConnectionId>> {
    Callbacks::<Option<ConnectionId>>::new().on_message(|ws, message| {
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
    })
}

/// What the thread beside the server is asked to do.
#[derive(Clone, Copy)]
enum Order {
    SendTo(ConnectionId),
    Broadcast,
}

fn thread_beside(hub: Hub) -> SyncSender<Order> {
    let (orders, asked) = sync_channel(64);
    thread::spawn(move || {
        for order in asked {
            match order {
                Order::SendTo(id) => hub.send_to(id, NEWS).expect("room"),
                Order::Broadcast => hub.broadcast("/told", NEWS).expect("room"),
            }
        }
    });
    orders
}

/// Does what a thread beside the server is needed for.
fn told(orders: Arc<OnceLock<SyncSender<Order>>>) -> Callbacks<()> {
    Callbacks::new().on_message(move |ws, message| {
        let order = match message.as_text() {
            Some("me") => Order::SendTo(ws.id()),
            _ => Order::Broadcast,
        };
        orders.get().expect("a thread").send(order).expect("it lives");
        Reply::none()
    })
}

fn endpoints(builder: ServerBuilder) -> ServerBuilder {
    let echo = || Callbacks::<()>::new().on_message(|_, message| message.into());
    let send = Callbacks::<()>::new().on_message(|ws, message| {
        ws.send(message).expect("room");
        Reply::none()
    });
    let sends = Callbacks::<()>::new().on_message(|ws, message| {
        (1..SENDS).for_each(|_| ws.send(message).expect("room"));
        message.into()
    });
    let all = Callbacks::<()>::new().on_message(|ws, message| {
        ws.broadcast(message).expect("room");
        Reply::none()
    });
    let topic = Callbacks::<()>::new()
        .on_connect(|ws| {
            ws.subscribe("all").expect("room");
            Reply::none()
        })
        .on_message(|ws, message| {
            ws.publish("all", message).expect("room");
            Reply::none()
        });
    let silent = Endpoint::new(echo()).adjust_limits(|limits| limits.ping_after = PING_AFTER);
    // Beyond the tests' patience: no timer but those of the silent fires.
    let mut limits = Limits::default();
    (limits.handshake_timeout, limits.ping_after, limits.idle_timeout) = (NEVER, NEVER, 2 * NEVER);
    builder
        .limits(limits)
        .websocket("/echo", echo())
        .websocket("/send", send)
        .websocket("/sends", sends)
        .websocket("/all", all)
        .websocket("/topic", topic)
        .websocket("/relay", relay())
        .websocket("/silent", silent)
        .websocket("/count", counter())
}

/// Not a test: the other process. It serves until it is killed, or the one that started it ends.
#[test]
fn a_server_process() {
    let Ok(shards) = std::env::var(SHARDS) else { return };
    let orders = Arc::new(OnceLock::new());
    let told = told(Arc::clone(&orders));
    let build = |builder| endpoints(builder).websocket("/told", told);
    let running = start(shards.parse().expect("a number"), build);
    assert!(orders.set(thread_beside(running.hub())).is_ok(), "once");
    process::serve(&running);
}

/// The other end: the server's process, for whoever asks.
pub(crate) struct Server {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(shards: usize) -> Self {
        let mut command = process::server("server::a_server_process");
        let process = Process::start(command.env(SHARDS, shards.to_string()));
        let address = process.address();
        Self { _process: process, address }
    }

    pub(crate) fn connect(&self, path: &str) -> Client {
        Client::connect(self.address, path)
    }

    pub(crate) fn counter(&self) -> Counter {
        Counter { client: self.connect("/count"), question: Batch::request("?", b"") }
    }

    /// A connection, and its id.
    pub(crate) fn relay(&self) -> (Client, ConnectionId) {
        let mut client = self.connect("/relay");
        client.send_all(&Batch::request("id", b""));
        let id = client.read_short_text().parse().expect("an id");
        (client, id)
    }
}

/// Asks the server how much it has allocated; that costs no allocation.
pub(crate) struct Counter {
    client: Client,
    question: Batch,
}

impl Counter {
    /// What was allocated so far.
    pub(crate) fn count(&mut self) -> Allocated {
        self.client.send_all(&self.question);
        let told = self.client.read_short_text();
        let mut numbers = told.split_whitespace().map(|word| word.parse().expect("a number"));
        let mut number = || numbers.next().expect("two numbers");
        Allocated { count: number(), bytes: number() }
    }
}
