//! A client made for load and for nothing else: frames are encoded before the clock runs, one
//! write sends a batch, and what comes back is compared as it lies, byte by byte. It speaks to any
//! server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// How long the server may be silent before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// `send` must not block: while the server presses back, its answers have to be read (Linux).
const MSG_DONTWAIT: i32 = 0x40;

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// The sample key of RFC 6455 section 1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Which kind of message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// Messages as the client sends them, masked, and as they come back, unmasked.
#[derive(Debug)]
pub(crate) struct Batch {
    sent: Vec<u8>,
    returned: Vec<u8>,
}

impl Batch {
    /// `count` messages of `payload_bytes` each; no two are alike, and `salt` sets batches apart.
    pub(crate) fn new(kind: Kind, payload_bytes: usize, count: usize, salt: usize) -> Self {
        let first = if kind == Kind::Text { 0x81 } else { 0x82 };
        let mut batch = Self { sent: Vec::new(), returned: Vec::new() };
        for index in 0..count {
            let stamp = format!("{salt}/{index};");
            let payload = match kind {
                Kind::Text => text(&stamp, payload_bytes),
                Kind::Binary => {
                    stamp.bytes().chain((0..=255).cycle()).take(payload_bytes).collect()
                }
            };
            let [a, b, ..] = (salt * 31 + index).to_le_bytes();
            batch.put(first, &payload, [0x37, 0xFA ^ a, 0x21 ^ b, 0x3D]);
        }
        batch
    }

    /// One message, of which the server returns a part.
    pub(crate) fn request(sent: &str, returned: &[u8]) -> Self {
        let mut batch = Self { sent: Vec::new(), returned: Vec::new() };
        batch.put(0x81, sent.as_bytes(), [1, 2, 3, 4]);
        batch.returned = returned.to_vec();
        batch
    }

    fn put(&mut self, first: u8, payload: &[u8], key: [u8; 4]) {
        put_header(&mut self.sent, first, payload.len(), 0x80);
        self.sent.extend(key);
        self.sent.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        put_header(&mut self.returned, first, payload.len(), 0);
        self.returned.extend(payload);
    }
}

/// Text of exactly so many bytes, with as much of it beyond ASCII as in a European language.
fn text(stamp: &str, payload_bytes: usize) -> Vec<u8> {
    let mut text = stamp.to_owned();
    while text.len() < payload_bytes {
        text.push_str("grüße, peregrine ");
    }
    text.truncate(text.floor_char_boundary(payload_bytes));
    let mut bytes = text.into_bytes();
    bytes.resize(payload_bytes, b'.');
    bytes
}

fn put_header(out: &mut Vec<u8>, first: u8, length: usize, mask_bit: u8) {
    let bytes = (length as u64).to_be_bytes();
    out.push(first);
    match length {
        0..=125 => out.push(mask_bit | bytes[7]),
        126..=0xFFFF => out.extend([mask_bit | 126, bytes[6], bytes[7]]),
        _ => {
            out.push(mask_bit | 127);
            out.extend(bytes);
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    /// How much of the batch that is being exchanged has been sent.
    sent_bytes: usize,
}

impl Client {
    /// Connects and upgrades.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        let mut client = Self::open(address, path);
        client.await_upgrade();
        client
    }

    /// Connects and asks for the upgrade.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let mut socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_nodelay(true).expect("an option");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the server reads");
        Self { socket, sent_bytes: 0 }
    }

    /// Receives the answer to the upgrade.
    pub(crate) fn await_upgrade(&mut self) {
        let mut head = [0; 1 << 10];
        let mut length = 0;
        // Nobody speaks before he is spoken to in these measurements: no frame follows the head.
        while !head[..length].ends_with(b"\r\n\r\n") {
            length += self.read_some(&mut head[length..]);
        }
        let head = str::from_utf8(&head[..length]).expect("a head in ASCII");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "refused: {head}");
    }

    /// Reads what has come, at least one byte.
    fn read_some(&mut self, buffer: &mut [u8]) -> usize {
        match self.socket.read(buffer) {
            Ok(0) => panic!("the server ended the connection"),
            Ok(count) => count,
            Err(error) => panic!("the server said nothing: {error}"),
        }
    }

    /// Sends a batch that is small enough for the kernel to take it at once.
    pub(crate) fn send_all(&mut self, batch: &Batch) {
        self.socket.write_all(&batch.sent).expect("the server reads");
    }

    /// Sends as much of a batch as the kernel takes; [`exchange`](Self::exchange) sends the rest.
    pub(crate) fn send(&mut self, batch: &Batch) {
        let socket = SockRef::from(&self.socket);
        while self.sent_bytes < batch.sent.len() {
            match socket.send_with_flags(&batch.sent[self.sent_bytes..], MSG_DONTWAIT) {
                Ok(count) => self.sent_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server does not read: {error}"),
            }
        }
    }

    /// Receives all that the batch returns, sending meanwhile what is left of it.
    ///
    /// # Panics
    /// If anything else comes.
    pub(crate) fn exchange(&mut self, batch: &Batch, buffer: &mut Buffer) {
        self.receive_while(batch, buffer, |client| client.send(batch));
        assert_eq!(self.sent_bytes, batch.sent.len(), "answers came before their questions");
        self.sent_bytes = 0;
    }

    /// Receives all that the batch returns, whoever sent it.
    ///
    /// # Panics
    /// If anything else comes.
    pub(crate) fn receive(&mut self, batch: &Batch, buffer: &mut Buffer) {
        self.receive_while(batch, buffer, |_| {});
    }

    fn receive_while(
        &mut self,
        batch: &Batch,
        buffer: &mut Buffer,
        mut meanwhile: impl FnMut(&mut Self),
    ) {
        let mut expected = batch.returned.as_slice();
        while !expected.is_empty() {
            let room = expected.len().min(buffer.0.len());
            let count = self.read_some(&mut buffer.0[..room]);
            let (part, rest) = expected.split_at(count);
            assert!(part == &buffer.0[..count], "what came back is not what was sent");
            expected = rest;
            meanwhile(self);
        }
    }

    /// The server's next message, which must be a short text.
    pub(crate) fn read_short_text(&mut self) -> String {
        let mut header = [0; 2];
        self.socket.read_exact(&mut header).expect("a header");
        assert!(header[0] == 0x81 && header[1] <= 125, "a short text, not {header:02x?}");
        let mut payload = vec![0; usize::from(header[1])];
        self.socket.read_exact(&mut payload).expect("a payload");
        String::from_utf8(payload).expect("UTF-8")
    }

    /// Begins the closing handshake.
    pub(crate) fn begin_close(&mut self) {
        const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
        self.socket.write_all(&CLOSE).expect("the server reads");
    }

    /// Receives the answer to the Close, and the end of the connection.
    pub(crate) fn await_end(mut self) {
        let mut answer = Vec::with_capacity(8);
        self.socket.read_to_end(&mut answer).expect("the server answers and ends");
        assert_eq!(answer, [0x88, 2, 0x03, 0xE8], "the same code comes back");
    }
}

/// Where clients read to; one serves them all.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; READ_BYTES].into())
    }
}
