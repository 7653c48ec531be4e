//! What the tests share: servers on ports of their own, clients with time limits.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

pub mod executor;
pub mod gate;
pub mod reports;

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use peregrine::{RunningServer, Server, ServerBuilder};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

/// How long a client waits for anything before its test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The numbers of shards that every promise is tested with.
pub const SHARD_COUNTS: [usize; 3] = [1, 2, 4];

/// Starts what `build` makes of a builder, on a port of its own.
pub fn start(
    shard_count: usize,
    build: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> RunningServer {
    let builder = build(Server::builder().shards(shard_count));
    builder.bind("127.0.0.1:0").expect("a free port").start().expect("threads")
}

/// Runs a test with a time limit of its own: a test that hangs fails.
pub fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match finished.recv_timeout(limit) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test took longer than {limit:?}"),
    }
}

/// Waits for what no event announces; the test's own time limit bounds it. What takes longer is
/// asked for less often, so that the server has the processor.
pub fn eventually(mut condition: impl FnMut() -> bool) {
    for _ in 0..100 {
        if condition() {
            return;
        }
        thread::yield_now();
    }
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// An independent WebSocket client: tungstenite's, over a blocking socket with time limits.
pub struct Client(pub WebSocket<TcpStream>);

impl Client {
    /// Connects to a path, which may have a query.
    pub fn connect(address: SocketAddr, path: &str) -> Self {
        Self::try_connect(address, path).expect("the upgrade is accepted")
    }

    /// Connects; the error is the server's refusal.
    pub fn try_connect(address: SocketAddr, path: &str) -> tungstenite::Result<Self> {
        let socket = connect(address);
        match tungstenite::client(format!("ws://{address}{path}"), socket) {
            Ok((client, _response)) => Ok(Self(client)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer to the upgrade"),
        }
    }

    pub fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).expect("the server reads");
    }

    pub fn send_bytes(&mut self, bytes: impl Into<Vec<u8>>) {
        self.0.send(Message::binary(bytes.into())).expect("the server reads");
    }

    /// The next message, pings and pongs left out.
    pub fn read(&mut self) -> Message {
        loop {
            match self.0.read().expect("a message") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next message, which must be text.
    pub fn text(&mut self) -> String {
        match self.read() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("a text was expected, not {other:?}"),
        }
    }

    /// The next message, which must be binary.
    pub fn bytes(&mut self) -> Vec<u8> {
        match self.read() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("bytes were expected, not {other:?}"),
        }
    }

    /// The server's Close frame, which must come next; then the end of the connection.
    pub fn closed(&mut self) -> Option<CloseFrame> {
        let frame = match self.read() {
            Message::Close(frame) => frame,
            other => panic!("a Close frame was expected, not {other:?}"),
        };
        loop {
            match self.0.read() {
                Err(tungstenite::Error::ConnectionClosed) => return frame,
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("the end was expected, not {other:?}"),
            }
        }
    }

    /// The code of the server's Close frame, which must come next.
    pub fn close_code(&mut self) -> u16 {
        self.closed().map_or(1005, |frame| frame.code.into())
    }
}

/// A raw socket with time limits.
pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    socket.set_nodelay(true).expect("an option");
    socket
}
