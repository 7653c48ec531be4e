//! A connection's life in any order of what can happen to it: bytes arrive, are received or wait
//! and are skimmed, the server closes, time passes. Shared by the tests and the fuzz target
//! `protocol_ops`: the input's own bytes choose the stream and what happens.
//!
//! Whatever happens, the peer's messages are those that tungstenite alone reads in the stream; what
//! the peer is told are pongs to its pings, in order, and at most one Close, which is the last.

use std::io::Cursor;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::reference::{self, Seen, State, feed_partly};
use super::streams::{self, Choices, Manners};
use crate::config::Limits;
use crate::message::CloseCode;
use crate::protocol::{Event, MessageMode, Protocol};

/// What is told of one life, from its beginning to its end.
pub(crate) fn check(data: &[u8], now: Instant) {
    let mut choices = Choices(data);
    let limits = streams::limits(&mut choices);
    let mode = [MessageMode::Messages, MessageMode::Pieces][choices.below(2)];
    let manners = [Manners::Polite, Manners::Hostile][choices.below(2)];
    let fates = choices.bytes::<24>();
    let stream = streams::stream(&mut choices, &limits, manners, 24);

    let mut life = Life::new(mode, limits, now);
    let mut rest = stream.as_slice();
    let mut fates = Choices(&fates);
    while !fates.0.is_empty() && life.stage != Stage::Over {
        match fates.below(8) {
            0..=3 => {
                let (bytes, later) = rest.split_at(fates.below(rest.len() + 1));
                rest = later;
                life.arrive(bytes);
            }
            4 | 5 => life.wait(),
            6 => life.now += Duration::from_millis(10 * u64::from(fates.byte())),
            _ if fates.below(4) == 0 => life.close(),
            _ => life.stop_waiting(),
        }
    }
    life.stop_waiting();
    life.arrive(rest);
    life.assert_is_right(&stream);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The server has sent its Close and awaits the peer's.
    Closing,
    Over,
}

/// One connection, and what the shard would do about it.
struct Life {
    protocol: Protocol,
    limits: Limits,
    now: Instant,
    stage: Stage,
    /// Whether a handler's answer comes later: what arrives waits in `input`.
    is_waiting: bool,
    input: Vec<u8>,
    skimmed: Option<usize>,
    /// What the handler saw until the server closed, and what the peer was told until then.
    seen: Vec<Seen>,
    partial: Option<Seen>,
    /// What the peer was told, all of it.
    told: Vec<u8>,
    has_closed: bool,
}

impl Life {
    fn new(mode: MessageMode, limits: Limits, now: Instant) -> Self {
        let mut protocol = Protocol::default();
        protocol.hand_out(mode);
        Self {
            protocol,
            limits,
            now,
            stage: Stage::Open,
            is_waiting: false,
            input: Vec::new(),
            skimmed: None,
            seen: Vec::new(),
            partial: None,
            told: Vec::new(),
            has_closed: false,
        }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        match self.stage {
            Stage::Open if self.is_waiting => self.skim(),
            Stage::Open => self.receive(),
            Stage::Closing => self.await_close(),
            Stage::Over => {}
        }
    }

    fn wait(&mut self) {
        if self.stage == Stage::Open && !self.is_waiting {
            (self.is_waiting, self.skimmed) = (true, None);
            self.skim();
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.arrive(&[]);
        }
    }

    fn skim(&mut self) {
        let (input, skimmed) = (&mut self.input, &mut self.skimmed);
        let found = self.protocol.skim(input, skimmed, &mut self.told, &self.limits, self.now);
        assert!(found.is_ok(), "nothing limits its idle frames");
    }

    fn receive(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        let heard = (&mut self.seen, &mut self.partial);
        if feed_partly(&mut self.protocol, &mut input, &self.limits, self.now, heard) == State::Over
        {
            self.stage = Stage::Over;
        }
        self.seen.retain(|seen| match seen {
            Seen::Control(bytes) => {
                self.told.extend(bytes);
                false
            }
            _ => true,
        });
    }

    fn close(&mut self) {
        if self.stage == Stage::Over {
            return;
        }
        let told_bytes = self.told.len();
        self.protocol.close(CloseCode::GOING_AWAY, "bye", &mut self.told, &self.limits);
        let frame = match self.has_closed {
            true => Vec::new(),
            false => reference::close_frame(1001, "bye"),
        };
        assert_eq!(self.told[told_bytes..], frame, "a Close leaves once");
        (self.stage, self.has_closed, self.is_waiting) = (Stage::Closing, true, false);
        self.await_close();
    }

    /// Nothing counts any more but the peer's Close.
    fn await_close(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        let mut input = input.as_mut_slice();
        let told_bytes = self.told.len();
        loop {
            let event = self.protocol.receive(&mut input, &mut self.told, &self.limits, self.now);
            match event {
                Some(Event::Message(_) | Event::Piece(_)) => {}
                Some(Event::Close(..) | Event::Violation(_)) => {
                    self.stage = Stage::Over;
                    break;
                }
                None => break,
            }
        }
        assert_eq!(self.told.len(), told_bytes, "nothing is said after a Close");
    }

    fn assert_is_right(&self, stream: &[u8]) {
        let walk = reference::walk(stream, &self.limits);
        let expected = reference::expect(stream, &walk, &self.limits).without_control();
        if self.has_closed {
            expected.assert_begins_with(&self.seen);
        } else {
            expected.assert_met_by(&self.seen, &walk);
        }
        let (pings, is_whole) = pings(stream);
        let answered = self.assert_pongs(&pings);
        let is_heard_out = is_whole
            && !self.has_closed
            && !self.seen.iter().any(|seen| matches!(seen, Seen::Failure(_) | Seen::Close(..)));
        assert!(!is_heard_out || answered == pings.len(), "{answered} of {} pongs", pings.len());
    }

    /// What was told are pongs to the first pings, then perhaps a Close: how many pongs.
    fn assert_pongs(&self, pings: &[Vec<u8>]) -> usize {
        let mut told = self.told.as_slice();
        let mut count = 0;
        while let [first, length, rest @ ..] = told {
            assert!(*length <= 125, "a control frame without mask: {told:02x?}");
            let (payload, rest) = rest.split_at(usize::from(*length));
            told = rest;
            match first {
                0x8A => assert_eq!(pings.get(count).map(Vec::as_slice), Some(payload)),
                0x88 => assert!(rest.is_empty(), "a Close is the last: {rest:02x?}"),
                _ => panic!("neither pong nor Close: {first:02x}"),
            }
            count += usize::from(*first == 0x8A);
        }
        assert!(told.is_empty(), "half a frame: {told:02x?}");
        count
    }
}

/// The payloads of the pings in a stream, as far as it has frames; and whether it has nothing else.
fn pings(mut stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut pings = Vec::new();
    while !stream.is_empty() {
        let mut cursor = Cursor::new(stream);
        let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else {
            return (pings, false);
        };
        let header_bytes = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = stream[header_bytes..].get(..length) else { return (pings, false) };
        if header.opcode == OpCode::Control(Control::Ping) {
            let key = header.mask.unwrap_or_default();
            pings.push(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect());
        }
        stream = &stream[header_bytes + length..];
    }
    (pings, true)
}
