//! RFC 6455 without input or output: bytes and the time go in, events and bytes come out.
//!
//! ```text
//!            whole data frame at a boundary
//! bytes ─► lane ───────────────────────────────► Event::Message (borrowed, unmasked in place)
//!            │ the peer's Close, all of it
//!            ├──────────────────► Event::Close
//!            │ the beginning of a whole data frame
//!            ├──► assembler ────► Event::Message (put together) ─► dropped: dormant again
//!            │ anything else
//!            ├──► engine (tungstenite) ─► Event ─► at rest? dropped: the connection is dormant
//!            └──► pieces, if asked for ─► Event::Piece (the same); control frames: an engine
//! ```
//!
//! Knows frames, messages, the closing handshake, the opening handshake's text, and what a proxy
//! says before it. Must not know sockets, mio, handlers, or where the time comes from.

mod assembler;
mod engine;
mod event;
pub(crate) mod frame;
mod framing;
pub(crate) mod handshake;
#[cfg(feature = "__internals")]
pub(crate) mod internals;
mod lane;
pub(crate) mod parcel;
mod pieces;
mod utf8;

use std::time::{Duration, Instant};

use self::assembler::Assembler;
use self::engine::{Engine, Output};
pub(crate) use self::event::Event;
#[cfg(any(test, fuzzing))]
pub(crate) use self::event::Received;
use self::event::Step;
use self::frame::Header;
pub(crate) use self::lane::{Doubt, Lane};
use self::parcel::Encoding;
use self::pieces::Pieces;
use crate::config::Limits;
use crate::error::Violation;
use crate::message::{CloseCode, Message};

/// One connection's half of the protocol after the opening handshake.
///
/// * Happened: [`receive_whole`](Self::receive_whole), or, as long as it
///   [is dormant](Self::is_dormant), what the [`Lane`] takes; in doubt
///   [`receive_doubtful`](Self::receive_doubtful); until the input is used up.
/// * Commands: [`close`](Self::close) to send a Close frame, or to answer the peer's. After it, no
///   more data frames may be sent.
///
/// It never fails for good by itself: after a violation the caller closes and receives no more.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    /// `None`: dormant. Invariant between calls: what is kept is not at rest.
    flight: Option<Box<InFlight>>,
    /// When the second began for which frames without data are counted, and how many there were.
    /// Not a type of its own: its padding is where `mode` and what follows it fit.
    idle_since: Option<Instant>,
    idle_count: u32,
    mode: MessageMode,
    encoding: Encoding,
    /// Our Close was sent.
    has_said_close: bool,
    /// The peer's Close has come.
    has_heard_close: bool,
}

/// How messages are handed out that do not come as one whole frame, all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MessageMode {
    /// Put together: [`Event::Message`].
    #[default]
    Messages,
    /// As they arrive: [`Event::Piece`].
    Pieces,
}

/// What is in flight, and who takes care of it.
#[derive(Debug)]
enum InFlight {
    Engine(Engine),
    Assembler(Assembler),
    Pieces(Pieces),
}

impl InFlight {
    /// What takes care of the frame that the input begins with, if it has any.
    fn before(input: &[u8], mode: MessageMode, limits: &Limits) -> Self {
        match mode {
            MessageMode::Messages if Assembler::suits(input, limits) => {
                Self::Assembler(Assembler::default())
            }
            MessageMode::Messages => {
                // Nobody knows how much a fragment is followed by.
                let header = Header::parse(input).filter(Header::is_final);
                let expected = header.map_or(u64::MAX, |header| header.payload_bytes);
                Self::Engine(Engine::new(limits, expected))
            }
            MessageMode::Pieces => Self::Pieces(Pieces::default()),
        }
    }

    /// How much of the peer's data is kept, in bytes.
    fn kept_bytes(&self) -> usize {
        match self {
            Self::Engine(engine) => engine.kept_bytes(),
            Self::Assembler(assembler) => assembler.kept_bytes(),
            Self::Pieces(_) => 0,
        }
    }

    fn is_at_rest(&self) -> bool {
        match self {
            Self::Engine(engine) => engine.is_at_rest(),
            Self::Assembler(assembler) => assembler.is_at_rest(),
            Self::Pieces(pieces) => pieces.is_at_rest(),
        }
    }

    fn feed<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Step<'b>, Violation> {
        match self {
            Self::Engine(engine) => {
                let bytes = std::mem::take(input);
                let mut unread: &[u8] = bytes;
                let output = engine.feed(&mut unread, control, limits);
                let used = bytes.len() - unread.len();
                *input = &mut bytes[used..];
                output.map(Step::from)
            }
            Self::Assembler(assembler) => assembler.feed(input, control, limits),
            Self::Pieces(pieces) => pieces.feed(input, control, limits),
        }
    }

    /// Our Close was sent: no ping is answered any more.
    fn close(&mut self, limits: &Limits) {
        match self {
            Self::Engine(engine) => engine.close(),
            Self::Assembler(assembler) => assembler.close(limits),
            Self::Pieces(pieces) => pieces.close(limits),
        }
    }
}

impl Protocol {
    /// Chooses how messages are handed out; before anything is received.
    pub(crate) fn hand_out(&mut self, mode: MessageMode) {
        debug_assert!(self.flight.is_none(), "something was received");
        self.mode = mode;
    }

    /// The form in which the connection takes messages.
    #[inline]
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// One of a connection that takes messages in this form.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn with_encoding(encoding: Encoding) -> Self {
        Self { encoding, ..Self::default() }
    }

    /// Takes bytes off `input` up to the next event; `None` when they are used up. Answers to
    /// pings are appended to `control`.
    ///
    /// It is [`receive_whole`](Self::receive_whole) and then, in doubt,
    /// [`receive_doubtful`](Self::receive_doubtful), without a budget.
    #[cfg(any(test, fuzzing))]
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

    /// Takes a message off `input` if it stands there as one whole frame, and nothing is in flight.
    #[inline]
    pub(crate) fn receive_whole<'b>(
        &self,
        input: &mut &'b mut [u8],
        limits: &Limits,
    ) -> Result<Message<'b>, Doubt<'b>> {
        if !self.is_dormant() {
            return Err(Doubt::Frame);
        }
        let (taken, rest) = Lane::new(limits).take(std::mem::take(input));
        *input = rest;
        taken
    }

    /// The slow way: what the lane was not sure of is the engine's. `None` when the input is used
    /// up, and when a frame has ended: so that a caller with a budget counts them all.
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
            Doubt::Frame => self.receive_in_flight(input, control, limits, now),
            Doubt::Unmasked { header, payload } => {
                Self::receive_unmasked(header, payload, control, limits)
            }
        }
    }

    /// Feeds what is in flight until something comes out, the input is used up, or a frame ends.
    /// If nothing is, that may be a Close that needs no engine.
    fn receive_in_flight<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Option<Event<'b>> {
        if self.flight.is_none()
            && let Some((code, reason)) = lane::take_close(input)
        {
            self.has_heard_close = true;
            return Some(Event::Close(code, reason));
        }
        let flight = self.flight.get_or_insert_with(|| {
            let mut flight = InFlight::before(input, self.mode, limits);
            if self.has_said_close {
                flight.close(limits);
            }
            Box::new(flight)
        });
        let event = match flight.feed(input, control, limits) {
            Ok(Step::Event(event @ Event::Close(..))) => {
                self.has_heard_close = true;
                self.flight = None;
                return Some(event);
            }
            Ok(Step::Event(event)) => Some(event),
            Ok(Step::Idle) if !self.spend_idle(limits.max_empty_frames_per_second, now) => {
                Some(Event::Violation(Violation::TooManyIdleFrames))
            }
            Ok(Step::Idle | Step::Fragment | Step::Starved) => None,
            Err(violation) => Some(Event::Violation(violation)),
        };
        if !matches!(event, Some(Event::Violation(_))) {
            self.flight.take_if(|flight| flight.is_at_rest());
        }
        event
    }

    /// Spends one of the frames without data of this second; `false` when there was none left.
    fn spend_idle(&mut self, per_second: u32, now: Instant) -> bool {
        let is_fresh =
            self.idle_since.is_none_or(|start| now.saturating_duration_since(start) >= SECOND);
        if is_fresh {
            (self.idle_since, self.idle_count) = (Some(now), 0);
        }
        self.idle_count = self.idle_count.saturating_add(1);
        self.idle_count <= per_second
    }

    /// A frame that the lane unmasked and then was not sure of: the engine decides.
    fn receive_unmasked<'b>(
        header: &[u8],
        payload: &[u8],
        control: &mut Vec<u8>,
        limits: &Limits,
    ) -> Option<Event<'b>> {
        let mut engine = Engine::new(limits, payload.len() as u64);
        for mut bytes in [header, payload] {
            match engine.feed(&mut bytes, control, limits) {
                Ok(Output::Starved) => {}
                Ok(output) => unreachable!("the lane and the engine disagree: {output:?}"),
                Err(violation) => return Some(Event::Violation(violation)),
            }
        }
        unreachable!("the lane and the engine disagree: the engine waits for more")
    }

    /// Looks through input that waits to be received, and answers the pings in it, which are taken
    /// out (section 5.5.2 wants a pong as soon as is practical). Pongs are taken out, too. Tells
    /// whether the peer's Close stands there. Anything else is left for its turn, faults included.
    ///
    /// `skimmed` is how far it came the last time; `None` at the first.
    pub(crate) fn skim(
        &mut self,
        input: &mut Vec<u8>,
        skimmed: &mut Option<usize>,
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Result<bool, Violation> {
        let unread = match self.flight.as_deref() {
            None if self.has_heard_close => None,
            None => Some(0),
            // It waits in the middle of a message, and perhaps of a frame.
            Some(InFlight::Pieces(pieces)) => pieces.data_left_bytes(),
            Some(InFlight::Assembler(assembler)) => assembler.left_bytes(),
            Some(InFlight::Engine(_)) => None,
        };
        // It began to wait anywhere, for it leaves or its outbox has drained; or it has heard the
        // peer's Close.
        let Some(unread) = unread else { return Ok(false) };
        let skimmed = skimmed.get_or_insert(unread);
        while let Some(rest) = input.get(*skimmed..)
            && let Some(header) = Header::parse(rest)
            && header.violation(frame::NO_BITS).is_none()
        {
            let payload_bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
            let length = Header::length(rest[1]).saturating_add(payload_bytes);
            if !header.is_control() {
                *skimmed = skimmed.saturating_add(length);
                continue;
            }
            if header.is_close() {
                return Ok(true);
            }
            let Some(mut frame) = rest.get(..length) else { break };
            let mut engine = Engine::new(limits, header.payload_bytes);
            let fed = engine.feed(&mut frame, control, limits);
            debug_assert!(matches!(fed, Ok(Output::Idle)), "a whole ping or pong: {fed:?}");
            input.drain(*skimmed..*skimmed + length);
            if !self.spend_idle(limits.max_empty_frames_per_second, now) {
                return Err(Violation::TooManyIdleFrames);
            }
        }
        Ok(false)
    }

    /// Sends a Close frame (section 5.5.1), unless one was sent; one without a code if that is
    /// `NO_STATUS`. The answer to the peer's is its own code and reason.
    pub(crate) fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut Vec<u8>,
        limits: &Limits,
    ) {
        if std::mem::replace(&mut self.has_said_close, true) {
            return;
        }
        frame::encode_close(out, code, reason);
        if let Some(flight) = &mut self.flight {
            flight.close(limits);
        }
    }

    /// How much of an unfinished message is held, in bytes.
    #[inline]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.kept_bytes())
    }

    /// Whether nothing is in flight, and nothing held.
    #[inline]
    pub(crate) fn is_dormant(&self) -> bool {
        self.flight.is_none()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
