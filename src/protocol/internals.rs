//! The protocol's part of [`crate::internals`], for benchmarks.
//!
//! Knows the engine, the handshake and the protocol. Must not know sockets, shards or handlers.

use std::mem::MaybeUninit;
use std::time::Instant;

use super::engine::{Engine, Output};
use super::frame::Header;
use super::handshake::{self, HeaderSlots};
use super::{Event, Protocol};
use crate::config::Limits;
use crate::message::Message;

/// Parses a request's head, checks that it is a right upgrade, and appends the answer. The length
/// of the head; `None` if there is none, or it is refused.
pub fn answer_upgrade(bytes: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Option<usize> {
    let mut room: HeaderSlots<'_> = [const { MaybeUninit::uninit() }; _];
    let (head, length) = handshake::parse(bytes, &mut room, limits).ok()??;
    let key = handshake::check_upgrade(&head).ok()?;
    handshake::accept(out, key, None, std::iter::empty());
    Some(length)
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver {
    protocol: Protocol,
    /// As in the protocol, nothing is kept at rest.
    engine: Option<Box<Engine>>,
    limits: Limits,
    answers: Vec<u8>,
    now: Instant,
}

impl Receiver {
    /// One for which the time stands still: therefore without a limit of the frames in a second
    /// that carry no data.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let limits = Limits { max_empty_frames_per_second: u32::MAX, ..Limits::default() };
        let (protocol, answers) = Default::default();
        Self { protocol, engine: None, limits, answers, now }
    }

    /// Takes messages off a stream by the lane alone, until it doubts; what is left.
    pub fn lane(&self, mut stream: &mut [u8], mut see: impl FnMut(Message<'_>)) -> usize {
        while let Ok(message) = self.protocol.receive_whole(&mut stream, &self.limits) {
            see(message);
        }
        stream.len()
    }

    /// Takes messages off a stream by the engine alone, until something else is the matter; what is
    /// left.
    pub fn engine(&mut self, mut stream: &[u8], mut see: impl FnMut(Message<'_>)) -> usize {
        let Self { limits, answers, .. } = self;
        while !stream.is_empty() {
            let engine = self.engine.get_or_insert_with(|| {
                let header = Header::parse(stream).filter(Header::is_final);
                let expected = header.map_or(u64::MAX, |header| header.payload_bytes);
                Box::new(Engine::new(limits, expected))
            });
            match engine.feed(&mut stream, answers, limits) {
                Ok(Output::Text(text)) => see(Message::Text(&text)),
                Ok(Output::Binary(bytes)) => see(Message::Binary(&bytes)),
                Ok(Output::Idle | Output::Fragment | Output::Starved) => {}
                Ok(Output::Close(_)) | Err(_) => break,
            }
            self.engine.take_if(|engine| engine.is_at_rest());
        }
        stream.len()
    }

    /// Takes messages off a stream as shards do, until something else is the matter; what is left.
    pub fn all(&mut self, mut stream: &mut [u8], mut see: impl FnMut(Message<'_>)) -> usize {
        let Self { protocol, limits, answers, now, .. } = self;
        while !stream.is_empty() {
            match protocol.receive_whole(&mut stream, limits) {
                Ok(message) => see(message),
                Err(doubt) => {
                    match protocol.receive_doubtful(doubt, &mut stream, answers, limits, *now) {
                        Some(Event::Message(message)) => see(message.as_message()),
                        Some(_) => break,
                        None => {}
                    }
                }
            }
        }
        stream.len()
    }

    /// Forgets the answers to pings; how many bytes they were.
    pub fn take_answers(&mut self) -> usize {
        let length = self.answers.len();
        self.answers.clear();
        length
    }
}
