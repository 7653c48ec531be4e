//! Clients that do exactly what they are told: they send the bytes that they are given, when they
//! are, and compare every byte that comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::inputs::{ACCEPT, Kind, SHORT_REQUEST, Seed, put_frame, put_unmasked};

/// How long the server may be silent before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages as clients send them, masked, and as they come back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) sent: Vec<u8>,
    pub(crate) returned: Vec<u8>,
}

impl Batch {
    /// Appends a message.
    pub(crate) fn put(&mut self, seed: &mut Seed, kind: Kind, payload_bytes: usize) {
        let payload = kind.payload(seed, payload_bytes);
        put_frame(&mut self.sent, seed, 0x80 | kind.opcode(), &payload);
        put_unmasked(&mut self.returned, 0x80 | kind.opcode(), &payload);
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and asks for the upgrade.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_nodelay(true).expect("an option");
        let mut client = Self { socket, buffer: Vec::new() };
        client.send(SHORT_REQUEST.replace("/echo", path).as_bytes());
        client
    }

    /// Receives the answer to the upgrade.
    pub(crate) fn await_upgrade(&mut self) {
        let mut head = Vec::new();
        // Nobody speaks before he is spoken to in these measurements: no frame follows the head.
        while !head.ends_with(b"\r\n\r\n") {
            let mut part = [0; 256];
            let count = self.socket.read(&mut part).expect("the server answers");
            assert!(count > 0, "the server ended the connection");
            head.extend(&part[..count]);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "refused: {head}");
    }

    /// Connects and upgrades.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        let mut client = Self::open(address, path);
        client.await_upgrade();
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Receives exactly these bytes.
    pub(crate) fn receive(&mut self, expected: &[u8]) {
        self.buffer.resize(expected.len(), 0);
        self.socket.read_exact(&mut self.buffer).expect("the server answers");
        assert!(self.buffer == expected, "what came back is not what was sent");
    }

    /// Begins the closing handshake.
    pub(crate) fn begin_close(&mut self) {
        self.send(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]);
    }

    /// Receives the answer to the Close, and the end of the connection.
    pub(crate) fn await_end(mut self) {
        self.buffer.clear();
        self.socket.read_to_end(&mut self.buffer).expect("the server answers and ends");
        assert_eq!(self.buffer, [0x88, 2, 0x03, 0xE8], "the same code comes back");
    }
}
