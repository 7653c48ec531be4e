//! The door through which the benchmarks of the parts (`benches/parts`, `benches/budget`), and
//! nothing else, reach the rooms behind the API. Compiled only with the feature `internals`; no
//! part of the API, and no promise.
//!
//! Few operations, each on many items, so that the door itself weighs nothing; and each lets its
//! caller see what it did, so that what is measured is also checked.

use std::time::Instant;

use crate::config::Limits;
use crate::message::Message;
use crate::protocol::handshake::{self, HeaderRoom};
use crate::protocol::{Doubt, Event, Protocol};
use crate::shard::clock;
pub use crate::shard::internals::{Members, Post, Queue, Sender, Timers};

/// Parses a request's head, checks that it is a right upgrade, and appends the answer. The length
/// of the head; `None` if there is none, or it is refused.
pub fn answer_upgrade(bytes: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Option<usize> {
    let mut room: HeaderRoom<'_> = [const { std::mem::MaybeUninit::uninit() }; _];
    let (head, length) = handshake::parse(bytes, &mut room, limits).ok()??;
    let key = handshake::check_upgrade(&head).ok()?;
    handshake::accept(out, key, None, std::iter::empty());
    Some(length)
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver {
    protocol: Protocol,
    limits: Limits,
    control: Vec<u8>,
    now: Instant,
}

impl Default for Receiver {
    /// Without a limit of the frames that carry no data: there, the time stands still.
    fn default() -> Self {
        let limits = Limits { idle_frames_per_second: u32::MAX, ..Limits::default() };
        Self { protocol: Protocol::default(), limits, control: Vec::new(), now: clock::now() }
    }
}

impl Receiver {
    /// Takes messages off a stream by the lane alone, until it doubts; what is left.
    pub fn lane(&self, mut stream: &mut [u8], mut see: impl FnMut(Message<'_>)) -> usize {
        while let Ok(message) = self.protocol.receive_whole(&mut stream, &self.limits) {
            see(message);
        }
        stream.len()
    }

    /// Takes messages off a stream by the engine alone, until something else is the matter; what is
    /// left.
    pub fn engine(&mut self, mut stream: &mut [u8], mut see: impl FnMut(Message<'_>)) -> usize {
        while !stream.is_empty() {
            match self.doubt(Doubt::Frame, &mut stream) {
                Some(Event::Message(message)) => see(message.as_message()),
                Some(_) => break,
                None => {}
            }
        }
        stream.len()
    }

    /// Takes messages off a stream as shards do, by lane and engine; what is left.
    pub fn both(&mut self, mut stream: &mut [u8], mut see: impl FnMut(Message<'_>)) -> usize {
        while !stream.is_empty() {
            match self.protocol.receive_whole(&mut stream, &self.limits) {
                Ok(message) => see(message),
                Err(doubt) => match self.doubt(doubt, &mut stream) {
                    Some(Event::Message(message)) => see(message.as_message()),
                    Some(_) => break,
                    None => {}
                },
            }
        }
        stream.len()
    }

    fn doubt<'b>(&mut self, doubt: Doubt<'b>, stream: &mut &'b mut [u8]) -> Option<Event<'b>> {
        let Self { protocol, limits, control, now } = self;
        protocol.receive_doubtful(doubt, stream, control, limits, *now)
    }

    /// Forgets the answers to pings; how many bytes they were.
    pub fn take_answers(&mut self) -> usize {
        let length = self.control.len();
        self.control.clear();
        length
    }
}
