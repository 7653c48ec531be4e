//! Real servers on the loopback, with parts that exist only here.

mod counters;
mod outlet;

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use tungstenite::{Message, WebSocket};

use super::{RunningServer, Server, ServerBuilder};
use crate::clock;
use crate::hub::ConnectionId;

/// How long anything is waited for before its test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(shard_count: usize, build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> RunningServer {
    let builder = build(Server::builder().shards(shard_count));
    builder.bind("127.0.0.1:0").expect("a free port").start().expect("threads")
}

/// Waits for what no event announces.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "it takes too long until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A blocking client. Its handler's first message is the connection's id.
struct Client {
    socket: WebSocket<TcpStream>,
    id: ConnectionId,
}

impl Client {
    fn connect(address: SocketAddr, path: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        let (mut socket, _) =
            tungstenite::client(format!("ws://{address}{path}"), socket).expect("an upgrade");
        let id = text(&mut socket).parse().expect("an id");
        Self { socket, id }
    }

    fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).expect("the server reads");
    }

    /// Sends texts of which the server may read many at once.
    fn send_all(&mut self, texts: impl Iterator<Item = String>) {
        for text in texts {
            self.socket.write(Message::text(text)).expect("the server reads");
        }
        self.socket.flush().expect("the server reads");
    }

    fn text(&mut self) -> String {
        text(&mut self.socket)
    }
}

/// The next message, which must be a text.
fn text(socket: &mut WebSocket<TcpStream>) -> String {
    match socket.read().expect("a message") {
        Message::Text(text) => text.as_str().to_owned(),
        other => panic!("a text was expected, not {other:?}"),
    }
}
