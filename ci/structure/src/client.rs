//! Clients that send one message again and again.
//!
//! Knows the bytes of a client's side. Must not know what is counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// After so long the server has handled what came before.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// 64 bytes of binary, masked with 0.
const PAYLOAD: [u8; 64] = [b'x'; 64];
const MASKED_HEADER: [u8; 6] = [0x82, 0x80 | 64, 0, 0, 0, 0];
const HEADER: [u8; 2] = [0x82, 64];
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];

#[derive(Debug)]
pub(crate) struct Client(TcpStream);

impl Client {
    /// Connects and upgrades, in turns of their own.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        let mut socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_nodelay(true).expect("an option");
        thread::sleep(PAUSE);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the server reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the server answers");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(socket)
    }

    /// Sends messages, all in one write.
    pub(crate) fn send(&mut self, count: usize) {
        let message = [&MASKED_HEADER[..], &PAYLOAD].concat();
        self.0.write_all(&message.repeat(count)).expect("the server reads");
    }

    pub(crate) fn receive(&mut self, count: usize) {
        let expected = [&HEADER[..], &PAYLOAD].concat().repeat(count);
        let mut bytes = vec![0; expected.len()];
        self.0.read_exact(&mut bytes).expect("the server answers");
        assert!(bytes == expected, "it is the message");
    }

    /// The first message, which is a number of one digit.
    pub(crate) fn receive_digit(&mut self) -> usize {
        let mut bytes = [0; 3];
        self.0.read_exact(&mut bytes).expect("the server greets");
        usize::from(bytes[2] - b'0')
    }

    /// Answers the server's Close and waits for the end of the connection.
    pub(crate) fn close(mut self) {
        let mut bytes = [0; 2];
        self.0.read_exact(&mut bytes).expect("the server closes");
        assert_eq!(bytes[0], 0x88, "a Close frame");
        let _ = self.0.write_all(&CLOSE);
        let _ = self.0.read_to_end(&mut Vec::new());
    }

    /// Closes the connection of its own accord.
    pub(crate) fn leave(mut self) {
        self.0.write_all(&CLOSE).expect("the server reads");
        let _ = self.0.read_to_end(&mut Vec::new());
    }
}
