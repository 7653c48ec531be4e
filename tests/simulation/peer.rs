//! A client: what it has still to send, and what it does about what it reads.

use peregrine::testing::simulation::{Heard, Wire};

use crate::ledger::{ClientIndex, Ledger, Person};
use crate::stream::{Parser, Said, frame};

#[derive(Debug, Default)]
pub struct Peer {
    pub index: ClientIndex,
    pub unsent: Vec<u8>,
    /// What the kernel has taken of the server's.
    parser: Parser,
    /// What was said and not read yet, and where that ends.
    said: Vec<(Said, usize)>,
    tapped_bytes: usize,
    read_bytes: usize,
    /// The upgrade was granted, as far as the client knows.
    pub is_open: bool,
    /// It has said what does not belong there; nothing is expected of the server any more.
    pub is_spoilt: bool,
    /// It has said Close, or has ended.
    pub has_closed: bool,
    /// Nothing can be read any more.
    pub has_ended: bool,
    pub message_count: usize,
    ping_count: usize,
    pong_count: usize,
}

impl Peer {
    pub fn new(index: ClientIndex, path: &str) -> Self {
        let request = format!(
            "GET {path}?n={index} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        Self { index, unsent: request.into_bytes(), ..Self::default() }
    }

    // What it says.

    fn message(&mut self, bytes: usize) -> Vec<u8> {
        let (index, count) = (self.index, self.message_count);
        self.message_count += 1;
        let mut message = format!("c{index}:{count}:").into_bytes();
        message.extend(std::iter::repeat_n(b"zyxwv"[count % 5], bytes));
        message
    }

    pub fn say(&mut self, bytes: usize) {
        let message = self.message(bytes);
        let opcode = 0x81 + u8::from(self.message_count.is_multiple_of(2));
        self.unsent.extend(frame(opcode, &message));
    }

    pub fn say_in_fragments(&mut self, bytes: usize, cut: usize) {
        let message = self.message(bytes);
        let (first, rest) = message.split_at(1 + cut % (message.len() - 1));
        self.unsent.extend(frame(0x02, first));
        self.ping();
        self.unsent.extend(frame(0x80, rest));
    }

    pub fn ping(&mut self) {
        self.ping_count += 1;
        self.unsent.extend(frame(0x89, format!("p{}", self.ping_count).as_bytes()));
    }

    pub fn close(&mut self) {
        self.has_closed = true;
        self.unsent.extend(frame(0x88, &4002u16.to_be_bytes()));
    }

    pub fn write(&mut self, wire: &mut Wire, bytes: usize) -> bool {
        let written = wire.write(&self.unsent[..bytes.min(self.unsent.len())]);
        self.unsent.drain(..written);
        written > 0
    }

    // What it hears.

    /// Looks at what the kernel has taken, whether or not the client reads it.
    pub fn look(&mut self, wire: &Wire, ledger: &mut Ledger) {
        let bytes = wire.tapped();
        if bytes.is_empty() {
            return;
        }
        self.tapped_bytes += bytes.len();
        self.parser.feed(&bytes);
        while let Some((said, end)) = self.parser.next() {
            ledger.reach(self.index, &said);
            if let Said::Close(code) = said {
                ledger.people[self.index].check_close(code);
            }
            self.said.push((said, end));
        }
    }

    /// Reads; whether there was anything.
    pub fn read(&mut self, wire: &mut Wire, bytes: usize) -> bool {
        if self.has_ended {
            return false;
        }
        match wire.read(bytes.max(1)) {
            Heard::Bytes(heard) => self.read_bytes += heard.len(),
            Heard::Nothing => return false,
            Heard::End => {
                self.has_ended = true;
                self.unsent.clear();
            }
        }
        true
    }

    /// Does what is to be done about what was read.
    pub fn react(&mut self) {
        while self.said.first().is_some_and(|&(_, end)| end <= self.read_bytes) {
            match self.said.remove(0).0 {
                Said::Status(status) => self.is_open = status == 101,
                Said::Ping(payload) if !self.has_closed => {
                    self.unsent.extend(frame(0x8A, &payload));
                }
                Said::Pong(payload) => {
                    let number = String::from_utf8(payload).expect("text");
                    let number = number.strip_prefix('p').expect("its ping").parse().expect("one");
                    assert!(self.pong_count < number, "pongs come in order");
                    self.pong_count = number;
                }
                Said::Close(_) if !self.has_closed => self.close(),
                _ => {}
            }
        }
    }

    /// Everything has been said and read: nothing is left over.
    pub fn check_quiet(&self, wire: &Wire, person: &Person) {
        if self.is_spoilt || self.has_ended {
            return;
        }
        assert!(!wire.is_closed(), "client {} reads, and hears no end", self.index);
        assert!(self.unsent.is_empty(), "client {} cannot send: {person:?}", self.index);
        assert_eq!(self.read_bytes, self.tapped_bytes, "client {} has read all", self.index);
        if person.is_open() && !self.has_closed {
            assert!(self.is_open, "client {} is told that it is connected", self.index);
            let counts = (person.heard_count, self.pong_count);
            assert_eq!(counts, (self.message_count, self.ping_count), "client {}", self.index);
        }
    }
}
