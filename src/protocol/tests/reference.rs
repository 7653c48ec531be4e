//! The differential harness: what [`Protocol`] makes of a stream, and what tungstenite's context
//! makes of it alone. Shared by the tests and the fuzz target `frames`.
//!
//! Three things are known to differ, and only these are taken into account: our side refuses a
//! frame on its header, the context mostly once the payload has come; of several faults in one
//! header the two may name different ones; and our side refuses a text within a frame.

use std::io::{self, Cursor, Read, Write};
use std::time::Instant;

use tungstenite::error::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message as TheirMessage, protocol::CloseFrame};

use super::streams::{self, Choices, Manners};
use crate::config::Limits;
use crate::message::{Chunk, Message};
use crate::protocol::{Event, MessageMode, Protocol};

/// What a connection's handler and its peer would see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    /// Bytes sent without being asked for: pongs, the answer to a Close.
    Control(Vec<u8>),
    /// The peer's Close, its code and reason.
    Close(u16, String),
    /// The peer is at fault and gets this close code.
    Failure(u16),
}

/// The fuzz target's promise: the input's own bytes choose the limits, the frames and the cuts, and
/// the stream means the same so cut and at once, in messages, in pieces, and to tungstenite alone.
pub(crate) fn check(data: &[u8], now: Instant) {
    let mut choices = Choices(data);
    let limits = streams::limits(&mut choices);
    let mut cut_choices = Choices(&choices.bytes::<16>());
    let stream = match choices.below(4) {
        // A fuzzer finds its own way to frames.
        0 => choices.0.to_vec(),
        1 => streams::stream(&mut choices, &limits, Manners::Polite, 64),
        _ => streams::stream(&mut choices, &limits, Manners::Hostile, 32),
    };
    let cuts = streams::cuts(&mut cut_choices, stream.len());
    let walk = walk(&stream, &limits);
    let expected = expect(&stream, &walk, &limits);
    for cuts in [&cuts[..], &[]] {
        expected.assert_met(&stream, cuts, &walk, &limits, now);
    }
}

/// Feeds the stream, cut in pieces, and tells what came of it. Asserts on the way that the
/// connection is dormant wherever `walk` says that nothing is in flight, and nowhere else.
pub(crate) fn drive(
    mode: MessageMode,
    stream: &[u8],
    cuts: &[usize],
    walk: &Walk,
    limits: &Limits,
    now: Instant,
) -> Vec<Seen> {
    let mut protocol = Protocol::default();
    protocol.hand_out(mode);
    let mut seen = Vec::new();
    let mut partial = None;
    let mut start = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        let mut piece = stream[start..end].to_vec();
        start = end;
        let state = feed_partly(&mut protocol, &mut piece, limits, now, (&mut seen, &mut partial));
        if state == State::Over {
            break;
        }
        let is_at_rest = walk.rests.binary_search(&end).is_ok();
        assert_eq!(protocol.is_dormant(), is_at_rest, "dormant at {end} of {stream:02x?}");
    }
    seen
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    Over,
}

/// Feeds one piece, and does what the shard does about the events.
#[cfg(test)]
pub(crate) fn feed(
    protocol: &mut Protocol,
    piece: &mut [u8],
    limits: &Limits,
    now: Instant,
    seen: &mut Vec<Seen>,
) -> State {
    feed_partly(protocol, piece, limits, now, (seen, &mut None))
}

/// The same, going on with a message of which pieces have come.
pub(crate) fn feed_partly(
    protocol: &mut Protocol,
    mut piece: &mut [u8],
    limits: &Limits,
    now: Instant,
    (seen, partial): (&mut Vec<Seen>, &mut Option<Seen>),
) -> State {
    loop {
        let mut control = Vec::new();
        let event = protocol.receive(&mut piece, &mut control, limits, now);
        put_control(seen, &control);
        match event {
            Some(Event::Message(message)) => {
                assert_eq!(*partial, None, "a message came within another");
                seen.push(match message.as_message() {
                    Message::Text(text) => Seen::Text(text.to_owned()),
                    Message::Binary(bytes) => Seen::Binary(bytes.to_owned()),
                });
            }
            Some(Event::Piece(piece)) => seen.extend(put_together(partial, piece.as_chunk())),
            Some(Event::Close(code, reason)) => {
                control.clear();
                protocol.close(code, &reason, &mut control, limits);
                seen.push(Seen::Close(code.into(), reason));
                put_control(seen, &control);
                return State::Over;
            }
            Some(Event::Violation(violation)) => {
                let (code, reason) = violation.close_code();
                control.clear();
                protocol.close(code, reason, &mut control, limits);
                assert_eq!(control, close_frame(code.into(), reason), "after {violation:?}");
                seen.push(Seen::Failure(code.into()));
                return State::Over;
            }
            None => {
                assert!(piece.is_empty(), "input was left without an event");
                return State::Open;
            }
        }
    }
}

/// Adds a piece to the message that it belongs to: the whole of it, if this was the last.
fn put_together(partial: &mut Option<Seen>, piece: Chunk<'_>) -> Option<Seen> {
    assert_eq!(piece.is_first(), partial.is_none(), "{piece:?} after {partial:?}");
    assert!(piece.is_last() || !piece.as_bytes().is_empty(), "an empty piece is for the end");
    let mut whole = partial.take().unwrap_or_else(|| match piece.message() {
        Message::Text(_) => Seen::Text(String::new()),
        Message::Binary(_) => Seen::Binary(Vec::new()),
    });
    match (&mut whole, piece.message()) {
        (Seen::Text(whole), Message::Text(text)) => whole.push_str(text),
        (Seen::Binary(whole), Message::Binary(bytes)) => whole.extend(bytes),
        (whole, other) => unreachable!("{other:?} is no piece of {whole:?}"),
    }
    if piece.is_last() {
        return Some(whole);
    }
    *partial = Some(whole);
    None
}

/// A server's Close frame, written down by hand.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let length = 2 + reason.len();
    assert!(length <= 125, "the reason does not fit a control frame");
    let mut frame = vec![0x88, length.to_le_bytes()[0]];
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

fn put_control(seen: &mut Vec<Seen>, control: &[u8]) {
    match seen.last_mut() {
        _ if control.is_empty() => {}
        Some(Seen::Control(bytes)) => bytes.extend(control),
        _ => seen.push(Seen::Control(control.to_owned())),
    }
}

/// Where the frames of a stream lie, up to the first that its header condemns.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Where nothing is in flight, ascending: no part of a frame, no part of a message.
    pub(crate) rests: Vec<usize>,
    /// The frame that is refused for its header.
    refused: Option<Refused>,
    /// What has come of a text that is not finished.
    unfinished_text: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Refused {
    start: usize,
    /// How many bytes of its payload are missing.
    missing_bytes: u64,
    /// The close codes of all that is wrong with it.
    codes: Vec<u16>,
}

/// Finds the frames of a stream with tungstenite's own header parser.
pub(crate) fn walk(stream: &[u8], limits: &Limits) -> Walk {
    let mut walk = Walk { rests: vec![0], ..Walk::default() };
    let mut message_bytes = None;
    let mut start = 0;
    loop {
        let mut cursor = Cursor::new(&stream[start..]);
        let refuse = |missing_bytes, codes| Some(Refused { start, missing_bytes, codes });
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return walk,
            // The opcode.
            Err(_) => {
                walk.refused = refuse(0, vec![1002]);
                return walk;
            }
        };
        let payload = &cursor.get_ref()[usize::try_from(cursor.position()).unwrap_or(0)..];
        let codes = faults(&header, length, message_bytes, limits);
        let missing_bytes = length.saturating_sub(payload.len() as u64);
        if !codes.is_empty() {
            walk.refused = refuse(missing_bytes, codes);
            return walk;
        }
        if let OpCode::Data(kind) = header.opcode {
            let mask = header.mask.unwrap_or_default();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let bytes = payload.iter().take(length).zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
            match kind {
                Data::Text => walk.unfinished_text = Some(bytes.collect()),
                Data::Continue => {
                    walk.unfinished_text.iter_mut().for_each(|text| text.extend(bytes.clone()))
                }
                _ => walk.unfinished_text = None,
            }
        }
        if missing_bytes > 0 {
            return walk;
        }
        start = stream.len() - payload.len() + usize::try_from(length).unwrap_or(0);
        if matches!(header.opcode, OpCode::Data(_)) {
            let total = message_bytes.unwrap_or(0) + length;
            message_bytes = (!header.is_final).then_some(total);
        }
        if message_bytes.is_none() {
            walk.rests.push(start);
            walk.unfinished_text = None;
        }
    }
}

/// The close codes of what is wrong with a header (RFC 6455 sections 5.1 to 5.5), after so many
/// bytes of an unfinished message, if there is one.
fn faults(
    header: &FrameHeader,
    length: u64,
    message_bytes: Option<u64>,
    limits: &Limits,
) -> Vec<u16> {
    let has_order_fault = match header.opcode {
        OpCode::Data(Data::Continue) => message_bytes.is_none(),
        OpCode::Data(_) => message_bytes.is_some(),
        OpCode::Control(_) => !header.is_final || length > 125,
    };
    let has_reserved_bit = header.rsv1 || header.rsv2 || header.rsv3;
    let mut codes = Vec::new();
    if has_order_fault || has_reserved_bit || header.mask.is_none() {
        codes.push(1002);
    }
    let total = message_bytes.unwrap_or(0).saturating_add(length);
    let is_too_long = match header.opcode {
        OpCode::Data(_) => {
            length > limits.max_frame_bytes as u64 || total > limits.max_message_bytes as u64
        }
        // It is malformed, too; tungstenite looks at its size first.
        OpCode::Control(_) => length > limits.max_frame_bytes.max(125) as u64,
    };
    if is_too_long {
        codes.push(1009);
    }
    codes
}

/// What the stream means according to tungstenite alone, and which close codes are right if it
/// ends in a failure.
#[derive(Debug)]
pub(crate) struct Expected {
    seen: Vec<Seen>,
    codes: Vec<u16>,
}

impl Expected {
    /// The stream so cut has this meaning, in messages and in pieces.
    pub(crate) fn assert_met(
        &self,
        stream: &[u8],
        cuts: &[usize],
        walk: &Walk,
        limits: &Limits,
        now: Instant,
    ) {
        for mode in [MessageMode::Messages, MessageMode::Pieces] {
            let seen = drive(mode, stream, cuts, walk, limits, now);
            self.assert_met_by(&seen, walk);
        }
    }

    /// This was seen of the whole stream.
    pub(crate) fn assert_met_by(&self, seen: &[Seen], walk: &Walk) {
        let (events, failure) = match seen {
            [events @ .., Seen::Failure(code)] => (events, Some(code)),
            events => (events, None),
        };
        assert_eq!(events, self.seen, "tungstenite alone sees the right side");
        let codes = self.codes(walk);
        match failure {
            Some(code) => assert!(codes.contains(code), "{code}, not {codes:?}"),
            None => assert!(codes.is_empty(), "no failure, not {codes:?}"),
        }
    }

    /// This was seen of its beginning.
    pub(crate) fn assert_begins_with(&self, seen: &[Seen]) {
        assert!(self.seen.starts_with(seen), "{seen:?} is not how {:?} begins", self.seen);
    }

    /// The same meaning, whatever the peer was answered without being asked.
    pub(crate) fn without_control(mut self) -> Self {
        self.seen.retain(|seen| !matches!(seen, Seen::Control(_)));
        self
    }

    /// The close codes that are right, if it ends in a failure.
    fn codes(&self, walk: &Walk) -> &[u16] {
        let is_broken_text = |text: &Vec<u8>| {
            std::str::from_utf8(text).is_err_and(|error| error.error_len().is_some())
        };
        let is_open =
            self.codes.is_empty() && !self.seen.iter().any(|seen| matches!(seen, Seen::Close(..)));
        match &walk.unfinished_text {
            Some(text) if is_open && is_broken_text(text) => &[1007],
            _ => &self.codes,
        }
    }
}

/// Asks tungstenite's context about the whole stream at once.
pub(crate) fn expect(stream: &[u8], walk: &Walk, limits: &Limits) -> Expected {
    let config = WebSocketConfig::default()
        .max_frame_size(Some(limits.max_frame_bytes.max(125)))
        .max_message_size(Some(limits.max_message_bytes));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let end = walk.refused.as_ref().map_or(stream.len(), |refused| refused.start);
    let mut memory = Memory::new(stream[..end].to_vec());
    let mut seen = Vec::new();
    if let Some(end) = read_all(&mut context, &mut memory, &mut seen) {
        return Expected { seen, codes: end };
    }
    let Some(refused) = &walk.refused else { return Expected { seen, codes: Vec::new() } };

    // The context shall refuse that frame too, once all of it has come.
    memory.input.extend(&stream[end..]);
    let padding = usize::try_from(refused.missing_bytes).unwrap_or(usize::MAX).min(1 << 20);
    memory.input.resize(memory.input.len() + padding, 0);
    let codes = read_all(&mut context, &mut memory, &mut Vec::new()).unwrap_or_default();
    assert_eq!(codes.len(), 1, "tungstenite fails at the frame that {refused:?} describes");
    assert!(refused.codes.contains(&codes[0]), "{codes:?} is none of {refused:?}");
    Expected { seen, codes: refused.codes.clone() }
}

/// Reads until the input is used up (`None`), or the connection is over: the close codes of its
/// failure, none if it was closed.
fn read_all(
    context: &mut WebSocketContext,
    memory: &mut Memory,
    seen: &mut Vec<Seen>,
) -> Option<Vec<u16>> {
    loop {
        let event = match context.read(memory) {
            Ok(TheirMessage::Text(text)) => Seen::Text(text.as_str().to_owned()),
            Ok(TheirMessage::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(TheirMessage::Ping(_) | TheirMessage::Pong(_)) => {
                let flushed = context.flush(memory);
                assert!(flushed.is_ok(), "memory takes every write");
                put_control(seen, &std::mem::take(&mut memory.output));
                continue;
            }
            Ok(TheirMessage::Close(frame)) => {
                let (code, reason) = frame
                    .map_or((1005, String::new()), |CloseFrame { code, reason }| {
                        (code.into(), reason.as_str().to_owned())
                    });
                seen.push(Seen::Close(code, reason));
                let _ = context.flush(memory);
                put_control(seen, &std::mem::take(&mut memory.output));
                return Some(Vec::new());
            }
            Ok(TheirMessage::Frame(_)) => unreachable!("the context reads no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(Error::Utf8(_)) => return Some(vec![1007]),
            Err(Error::Capacity(_)) => return Some(vec![1009]),
            Err(Error::Protocol(_)) => return Some(vec![1002]),
            Err(error) => unreachable!("memory has no such error: {error}"),
        };
        seen.push(event);
    }
}

/// A stream in memory that would block at its end.
pub(crate) struct Memory {
    input: Vec<u8>,
    read_bytes: usize,
    output: Vec<u8>,
}

impl Memory {
    pub(crate) fn new(input: Vec<u8>) -> Self {
        Self { input, read_bytes: 0, output: Vec::new() }
    }
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.input[self.read_bytes..]).read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => {
                self.read_bytes += count;
                Ok(count)
            }
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
