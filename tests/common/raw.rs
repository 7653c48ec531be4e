//! A client that may break every rule: bytes out, and what the server answers, read by hand.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(clippy::cast_possible_truncation, reason = "lengths of frames are cut on purpose")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use peregrine::{Callbacks, Close};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::{Client, PATIENCE, connect};

pub const CONTINUATION: u8 = 0x80;
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8A;
/// Taken off the first byte of a frame that is not the last of its message.
pub const FIN: u8 = 0x80;

/// The mask of every frame that the raw client sends.
pub const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A masked frame's header that claims `length`, in the shortest form.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A whole masked frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A masked Close frame.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A valid upgrade request.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A page request.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header that stands at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice in {:?}", self.headers);
        value
    }
}

/// A frame as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn is_control(&self) -> bool {
        self.first & 8 != 0
    }

    /// The code and the reason of a Close frame.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.first, CLOSE, "a Close frame was expected: {self:?}");
        let (code, reason) = self.payload.split_first_chunk().expect("a code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("a reason in UTF-8"))
    }
}

/// A connection that is spoken to in bytes.
pub struct Raw {
    pub socket: TcpStream,
    received: Vec<u8>,
    /// How many of the received bytes have been taken.
    taken: usize,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(connect(address))
    }

    /// A connection whose kernel holds few received bytes, so that a server soon notices a client
    /// that does not read.
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("an option");
        socket.connect(&address.into()).expect("the server listens");
        socket.set_tcp_nodelay(true).expect("an option");
        let raw = Self::over(socket.into());
        raw.limit_time();
        raw
    }

    /// A connection from another address of this machine.
    pub fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        let source = SocketAddr::new(source.parse().expect("an address"), 0);
        socket.bind(&source.into()).expect("an address of the loopback network");
        socket.connect(&address.into()).expect("the server listens");
        socket.set_tcp_nodelay(true).expect("an option");
        let raw = Self::over(socket.into());
        raw.limit_time();
        raw
    }

    /// Speaks over a socket that was connected elsewhere.
    pub fn over(socket: TcpStream) -> Self {
        Self { socket, received: Vec::new(), taken: 0 }
    }

    /// Neither waits for ever for the server to speak, nor to listen.
    pub fn limit_time(&self) {
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        self.socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    }

    fn unread(&self) -> &[u8] {
        &self.received[self.taken..]
    }

    /// A connection after its upgrade.
    pub fn upgraded(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.upgrade(path);
        raw
    }

    /// Asks for the upgrade, and gets it.
    pub fn upgrade(&mut self, path: &str) {
        self.send(upgrade(path));
        assert_eq!(self.head().status, 101);
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Sends what the server takes; it may have closed, rightly.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    /// Sends `bytes` as often as the server takes them, at most `limit` bytes: how many it took
    /// until it took none for `silence`.
    pub fn flood(&mut self, bytes: &[u8], limit: usize, silence: Duration) -> usize {
        self.socket.set_write_timeout(Some(silence)).expect("a time limit");
        let mut sent = 0;
        while sent < limit {
            match self.socket.write(&bytes[sent % bytes.len()..]) {
                Ok(count) => sent += count,
                Err(error) => {
                    let is_silence =
                        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    assert!(is_silence, "the flood is not stopped by {error}");
                    break;
                }
            }
        }
        self.socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        sent
    }

    /// Reads more; how many bytes came, 0 at the end. `Err` is a reset.
    fn fill(&mut self) -> Result<usize, ErrorKind> {
        self.received.drain(..std::mem::take(&mut self.taken));
        let mut buffer = [0; 64 << 10];
        match self.socket.read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(count)
            }
            Err(error) => {
                let is_reset =
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
                assert!(is_reset, "the server said nothing: {error}");
                Err(error.kind())
            }
        }
    }

    /// Takes some of what has come, unread; if nothing has, waits for the socket's time limit.
    pub fn skim(&mut self) {
        let mut buffer = [0; 16 << 10];
        let _ = self.socket.read(&mut buffer);
    }

    /// Everything up to the end, whatever it is.
    pub fn all(&mut self) -> Vec<u8> {
        while self.fill().unwrap_or(0) > 0 {}
        self.unread().to_vec()
    }

    /// The next `count` bytes; `None` if the connection ends before.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread().len() < count {
            if self.fill().unwrap_or(0) == 0 {
                return None;
            }
        }
        let bytes = self.unread()[..count].to_vec();
        self.taken += count;
        Some(bytes)
    }

    /// The next response without its body.
    pub fn head(&mut self) -> Answer {
        let end = loop {
            let end = self.unread().windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            let count = self.fill().unwrap_or(0);
            assert_ne!(count, 0, "no whole head: {:?}", String::from_utf8_lossy(self.unread()));
        };
        let head = String::from_utf8(self.take(end).expect("it is there")).expect("a head in text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|line| line.split(' ').next()?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_owned(), value.to_owned())
        };
        Answer { status, headers: lines.map(header).collect(), body: Vec::new() }
    }

    /// The next response with its body.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("Content-Length").map_or(0, |text| text.parse().expect("bytes"));
        answer.body = self.take(length).expect("the whole body");
        answer
    }

    /// The next frame; `None` if the connection ends before.
    pub fn frame(&mut self) -> Option<Frame> {
        let [first, second] = *self.take(2)?.first_chunk()?;
        assert_eq!(second & 0x80, 0, "a server's frame is not masked");
        let length = match second {
            126 => usize::from(u16::from_be_bytes(*self.take(2)?.first_chunk()?)),
            127 => u64::from_be_bytes(*self.take(8)?.first_chunk()?) as usize,
            length => usize::from(length),
        };
        Some(Frame { first, payload: self.take(length)? })
    }

    /// The next data frame as a text, without pings.
    pub fn text(&mut self) -> String {
        loop {
            let frame = self.frame().expect("a text, not the end");
            if frame.first != PING {
                assert_eq!(frame.first, TEXT, "a text was expected: {frame:?}");
                return String::from_utf8(frame.payload).expect("UTF-8");
            }
        }
    }

    /// Everything up to the end of the connection, which must come.
    pub fn frames(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frame()).collect()
    }

    /// The server's Close frame, which must come next; it is answered, and then comes the end.
    pub fn closed(&mut self) -> (u16, String) {
        let last = self.frame().expect("a Close frame").close();
        // If this is the answer to ours, nobody listens any more.
        self.try_send(close(last.0, b""));
        self.ended();
        last
    }

    /// The end of the connection, which must come next, in order or by reset.
    pub fn ended(&mut self) {
        let count = self.fill().unwrap_or(0);
        assert!(count == 0 && self.unread().is_empty(), "not the end: {:?}", self.unread());
    }

    /// The end of the connection, which must come next: in order, or by what else.
    pub fn end(&mut self) -> Result<(), ErrorKind> {
        self.fill().map(|count| assert!(count == 0, "not the end: {:?}", self.unread()))
    }

    /// Ends our side; the server may go on.
    pub fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Vanishes with a reset instead of an end.
    pub fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("an option");
    }
}

/// An echo, and what it is told about the ends of its connections.
pub fn witnessed_echo() -> (Callbacks<()>, mpsc::Receiver<Close>) {
    let (told, closes) = mpsc::channel();
    let echo =
        Callbacks::new().on_message(|_, message| message.into()).on_close(move |_, close| {
            // The test may be over.
            let _ = told.send(close.clone());
            "goodbye".into()
        });
    (echo, closes)
}

/// Waits for something to become true.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("it never came true that {what}");
}

/// A client beside the one that misbehaves, on an echo of the same server.
pub struct Bystander(Client);

impl Bystander {
    pub fn connect(address: SocketAddr, path: &str) -> Self {
        Self::over(Client::connect(address, path))
    }

    /// One who has connected already.
    pub fn over(client: Client) -> Self {
        Self(client)
    }

    /// Is served. With one shard this is also a barrier: two rounds later the shard has ended the
    /// turn in which it read what was sent to it before.
    pub fn is_served(&mut self) {
        for round in ["once", "again"] {
            self.0.send(round);
            assert_eq!(self.0.text(), round);
        }
    }
}

/// A connection that comes now is served as if nothing had been.
pub fn next_is_served(address: SocketAddr, path: &str) {
    let mut client = Client::connect(address, path);
    client.send("anybody home?");
    assert_eq!(client.text(), "anybody home?");
    client.0.close(None).expect("an open connection");
    loop {
        match client.0.read() {
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return,
            Err(error) => panic!("no orderly end: {error}"),
        }
    }
}

/// Runs something and tells how long it took.
#[allow(clippy::disallowed_methods, reason = "what is measured is the server's promise in time")]
pub fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = run();
    (result, start.elapsed())
}
