//! RFC 6455 without input or output: bytes and the time go in, events and bytes come out.
//!
//! ```text
//!            whole data frame at a boundary
//! bytes ─► lane ───────────────────────────────► Event::Message (borrowed, unmasked in place)
//!            │ anything else
//!            └──► engine (tungstenite) ─► Event ─► at rest? dropped: the connection is dormant
//! ```
//!
//! Knows frames, messages, the closing handshake, the opening handshake's text, and what a proxy
//! says before it. Must not know sockets, mio, handlers, or where the time comes from.

mod engine;
pub(crate) mod frame;
pub(crate) mod handshake;
mod lane;
pub(crate) mod proxy;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tungstenite::Utf8Bytes;

use self::engine::{Engine, Output};
use self::frame::Header;
pub(crate) use self::lane::Doubt;
use crate::config::Limits;
use crate::error::Violation;
use crate::message::{CloseCode, Message};

/// One connection's half of the protocol after the opening handshake.
///
/// * Happened: [`receive`](Self::receive), again and again until it returns `None`.
/// * Commands: [`close`](Self::close) to send a Close frame; [`answer_close`](Self::answer_close)
///   to answer the peer's. After either, no more data frames may be sent.
///
/// It never fails for good by itself: after a violation the caller closes and stops calling
/// `receive`.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    /// `None`: dormant. Invariant between calls of `receive`: an engine that is kept is not at
    /// rest.
    engine: Option<Box<Engine>>,
    idle_frames: Budget,
}

/// What the peer's bytes meant.
#[derive(Debug)]
pub(crate) enum Event<'b> {
    Message(Received<'b>),
    /// The peer's Close frame (section 5.5.1).
    Close(CloseCode, String),
    Violation(Violation),
}

/// A received message: borrowed from the input (lane) or put together by the engine.
#[derive(Debug)]
pub(crate) enum Received<'b> {
    Whole(Message<'b>),
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Received<'_> {
    #[inline]
    pub(crate) fn as_message(&self) -> Message<'_> {
        match self {
            Self::Whole(message) => *message,
            Self::Text(text) => Message::Text(text),
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

impl Protocol {
    /// Takes bytes off `input` up to the next event; `None` when they are used up. Answers to
    /// pings are appended to `control`.
    ///
    /// It is [`receive_whole`](Self::receive_whole) and then, in doubt,
    /// [`receive_doubtful`](Self::receive_doubtful), which whoever is in a hurry calls apart.
    pub(crate) fn receive<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Option<Event<'b>> {
        while !input.is_empty() {
            let event = match self.receive_whole(input, limits) {
                Ok(message) => Some(Event::Message(Received::Whole(message))),
                Err(doubt) => self.receive_doubtful(doubt, input, control, limits, now),
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// The fast way: takes a message off `input` if it stands there as one whole frame, and nothing
    /// is in flight.
    #[inline]
    pub(crate) fn receive_whole<'b>(
        &self,
        input: &mut &'b mut [u8],
        limits: &Limits,
    ) -> Result<Message<'b>, Doubt<'b>> {
        match self.engine {
            None => lane::take(input, limits.message_bytes.min(limits.frame_bytes)),
            Some(_) => Err(Doubt::Frame),
        }
    }

    /// The slow way: what the lane was not sure of is the engine's. `None` when the input is used
    /// up, and when the engine is at rest again: then the lane goes on with what is left.
    #[cold]
    pub(crate) fn receive_doubtful<'b>(
        &mut self,
        doubt: Doubt<'b>,
        input: &mut &'b mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Option<Event<'b>> {
        match doubt {
            Doubt::Frame => self.receive_by_engine(input, control, limits, now),
            Doubt::Unmasked { header, payload } => {
                self.receive_unmasked(header, payload, control, limits)
            }
        }
    }

    /// Feeds the engine until something comes out, the input is used up, or it is at rest.
    fn receive_by_engine<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Option<Event<'b>> {
        let bytes: &'b mut [u8] = std::mem::take(input);
        let mut unread: &[u8] = bytes;
        // Nobody knows how much a fragment is followed by.
        let expected = || {
            let header = Header::parse(unread).filter(Header::is_final);
            header.map_or(u64::MAX, |header| header.payload_bytes)
        };
        let engine = self.engine.get_or_insert_with(|| Box::new(Engine::new(limits, expected())));
        let event = loop {
            match engine.feed(&mut unread, control, limits) {
                Ok(Output::Text(text)) => break Some(Event::Message(Received::Text(text))),
                Ok(Output::Binary(bytes)) => break Some(Event::Message(Received::Binary(bytes))),
                Ok(Output::Close(None)) => {
                    break Some(Event::Close(CloseCode::NO_STATUS, String::new()));
                }
                Ok(Output::Close(Some((code, reason)))) => {
                    break Some(Event::Close(code, reason.as_str().to_owned()));
                }
                Ok(Output::Idle) => {
                    if !self.idle_frames.spend(limits.idle_frames_per_second, now) {
                        break Some(Event::Violation(Violation::TooManyIdleFrames));
                    }
                    if engine.is_at_rest() {
                        break None;
                    }
                }
                Ok(Output::Starved) => break None,
                Err(violation) => break Some(Event::Violation(violation)),
            }
        };
        let used = bytes.len() - unread.len();
        *input = &mut bytes[used..];
        let has_failed = matches!(event, Some(Event::Violation(_)));
        if !has_failed && engine.is_at_rest() {
            self.engine = None;
        }
        event
    }

    /// A frame that the lane unmasked and then was not sure of: the engine decides.
    fn receive_unmasked<'b>(
        &mut self,
        header: &[u8],
        payload: &[u8],
        control: &mut Vec<u8>,
        limits: &Limits,
    ) -> Option<Event<'b>> {
        let expected = payload.len() as u64;
        let engine = self.engine.insert(Box::new(Engine::new(limits, expected)));
        for mut bytes in [header, payload] {
            match engine.feed(&mut bytes, control, limits) {
                Ok(Output::Starved) => {}
                Ok(output) => unreachable!("the lane and the engine disagree: {output:?}"),
                Err(violation) => return Some(Event::Violation(violation)),
            }
        }
        unreachable!("the lane and the engine disagree: the engine waits for more")
    }

    /// Sends a Close frame (section 5.5.1), unless one was sent or answered.
    pub(crate) fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut Vec<u8>,
        limits: &Limits,
    ) {
        let engine = self.engine.get_or_insert_with(|| Box::new(Engine::new(limits, 0)));
        engine.close(code, reason, out);
    }

    /// Answers the Close frame that [`receive`](Self::receive) returned.
    pub(crate) fn answer_close(&mut self, out: &mut Vec<u8>) {
        debug_assert!(self.engine.is_some(), "no Close was received");
        if let Some(mut engine) = self.engine.take() {
            engine.flush(out);
        }
    }

    /// Whether no engine is held.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_dormant(&self) -> bool {
        self.engine.is_none()
    }
}

/// A budget that is full again every second.
#[derive(Debug, Default)]
struct Budget {
    window: Option<Instant>,
    spent: u32,
}

impl Budget {
    /// Spends one; `false` when there was none left.
    fn spend(&mut self, per_second: u32, now: Instant) -> bool {
        let is_fresh =
            self.window.is_none_or(|start| now.saturating_duration_since(start) >= SECOND);
        if is_fresh {
            *self = Self { window: Some(now), spent: 0 };
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= per_second
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
