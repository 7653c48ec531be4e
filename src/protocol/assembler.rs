//! Messages put together from their [pieces](super::pieces) as these arrive.
//!
//! Made for what the [lane](super::lane) would take if all of it were there: one frame, whose
//! header has come and is right. It is at rest when that frame ends, so that it sees another one
//! only if the server closes meanwhile.
//!
//! Knows messages, and the one header that it begins with. Must not know sockets, clocks or
//! handlers.

use super::event::{Event, Received, Step};
use super::frame::{self, Header};
use super::pieces::Pieces;
use crate::config::Limits;
use crate::error::Violation;
use crate::message::Message;

/// Room is made for so many times what has come, or for the whole frame: so that a header alone
/// costs nobody memory, and a payload that comes is seldom moved.
const GROWTH: usize = 16;

/// A message that has begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    pieces: Pieces,
    payload: Payload,
}

/// The payload of a message, or as much of it as has come.
#[derive(Debug)]
enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Binary(Vec::new())
    }
}

impl Assembler {
    /// Whether the frame that the input begins with is for it.
    pub(super) fn suits(input: &[u8], limits: &Limits) -> bool {
        let is_whole = matches!(input.first(), Some(&(frame::WHOLE_TEXT | frame::WHOLE_BINARY)));
        let is_right = |header: Header| {
            header.violation(frame::NO_BITS).is_none()
                && header.payload_bytes
                    <= limits.max_message_bytes.min(limits.max_frame_bytes) as u64
        };
        is_whole && Header::parse(input).is_some_and(is_right)
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.pieces.is_at_rest()
    }

    /// How much of the message is kept, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        self.payload.len()
    }

    /// How much of the frame is still to come.
    pub(super) fn left_bytes(&self) -> Option<usize> {
        self.pieces.data_left_bytes()
    }

    /// Our Close was sent.
    pub(super) fn close(&mut self, limits: &Limits) {
        self.pieces.close(limits);
    }

    /// Takes bytes off `input`: the message once it is whole.
    pub(super) fn feed<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        out: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Step<'b>, Violation> {
        let piece = match self.pieces.feed(input, out, limits)? {
            Step::Event(Event::Piece(piece)) => piece,
            step => return Ok(step),
        };
        let fragment = piece.as_chunk();
        if fragment.is_first() {
            self.payload = Payload::of_kind(fragment.message());
        }
        let left_bytes = self.pieces.payload_left_bytes();
        self.payload.push(fragment.message(), left_bytes);
        if !fragment.is_last() {
            return Ok(Step::Fragment);
        }
        Ok(Step::Event(Event::Message(match std::mem::take(&mut self.payload) {
            Payload::Text(text) => Received::Text(text.into()),
            Payload::Binary(bytes) => Received::Binary(bytes.into()),
        })))
    }
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// An empty one of the same kind.
    fn of_kind(message: Message<'_>) -> Self {
        match message {
            Message::Text(_) => Self::Text(String::new()),
            Message::Binary(_) => Self::Binary(Vec::new()),
        }
    }

    /// Adds a piece, after which so many bytes are to come.
    fn push(&mut self, piece: Message<'_>, left_bytes: usize) {
        let growth = |length: usize, capacity: usize| match capacity - length < piece.len() {
            true => piece.len() + left_bytes.min((GROWTH - 1).saturating_mul(length + piece.len())),
            false => 0,
        };
        match (self, piece) {
            (Self::Text(text), Message::Text(piece)) => {
                text.reserve_exact(growth(text.len(), text.capacity()));
                text.push_str(piece);
            }
            (Self::Binary(bytes), Message::Binary(piece)) => {
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity()));
                bytes.extend_from_slice(piece);
            }
            (payload, piece) => unreachable!("{piece:?} is no piece of {payload:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_for_what_comes_not_for_what_is_announced() {
        let header = [[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 0].as_slice(), &[0; 4]].concat();
        let limits = Limits::default();
        assert!(Assembler::suits(&header, &limits));
        let mut assembler = Assembler::default();
        let mut bytes = [header, vec![7; 1 << 20]].concat();
        let mut moved_count = 0;
        let mut input = bytes.as_mut_slice();
        while let Some((mut drop, rest)) = std::mem::take(&mut input).split_at_mut_checked(1000) {
            let room = |assembler: &Assembler| match &assembler.payload {
                Payload::Binary(bytes) => bytes.capacity(),
                Payload::Text(_) => unreachable!("it is binary"),
            };
            let before = room(&assembler);
            let step = assembler.feed(&mut drop, &mut Vec::new(), &limits);
            assert!(matches!(step, Ok(Step::Fragment)), "{step:?}");
            assert!(room(&assembler) <= GROWTH * assembler.kept_bytes());
            assert!(room(&assembler) <= 1 << 20, "no more than the message needs");
            moved_count += u32::from(room(&assembler) > before);
            input = rest;
        }
        assert!(moved_count < 6, "moved {moved_count} times");
    }

    #[test]
    fn room_never_exceeds_the_message_however_it_comes() {
        for step in [1000, 2500, 16 << 10, 64 << 10] {
            let header = [[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 0].as_slice(), &[0; 4]].concat();
            let mut assembler = Assembler::default();
            let mut bytes = [header, vec![7; (1 << 20) - 1]].concat();
            for mut piece in bytes.chunks_mut(step) {
                let step = assembler.feed(&mut piece, &mut Vec::new(), &Limits::default());
                assert!(matches!(step, Ok(Step::Fragment)), "{step:?}");
                let Payload::Binary(bytes) = &assembler.payload else { unreachable!() };
                assert!(bytes.capacity() <= 1 << 20, "{} bytes", bytes.capacity());
            }
        }
    }
}
