//! Pieces: messages handed out as their bytes arrive, whatever their size, borrowed from the input.
//!
//! Payloads of data frames are unmasked where they lie and handed out up to where the input, or the
//! frame, ends. Of a text, only whole characters: the at most three bytes of one that is cut are
//! carried over, and it becomes a piece of its own. Nothing else of a message is kept.
//!
//! Control frames are the [engine](super::engine)'s, one fresh engine for each, and so is closing.
//!
//! Knows frames, messages and UTF-8. Must not know handlers, sockets or clocks.

use super::engine::{Engine, Output};
use super::event::{Event, Piece, Received, Step};
use super::frame::{self, BINARY, CONTINUATION, Header};
use super::framing::Framing;
use super::utf8::{self, Character};
use crate::config::Limits;
use crate::error::Violation;
use crate::message::Message;

/// A message, or a frame, that has begun and not ended; and the closing handshake.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    framing: Framing,
    frame: Frame,
    kind: Kind,
    /// Whether a piece of the current message was handed out.
    has_begun: bool,
    /// The beginning of a character, at the end of what has come of a text.
    carried: Character,
    /// Invariant between calls: one that is kept is not at rest.
    engine: Option<Engine>,
}

/// Whose payload it is that comes.
#[derive(Debug, Default)]
enum Frame {
    #[default]
    Control,
    /// `key`: the mask for the payload's next byte and those after it. `is_final`: the message
    /// ends with this frame.
    Data { key: [u8; 4], is_final: bool },
}

#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    Text,
    #[default]
    Binary,
}

impl Pieces {
    /// Whether it holds nothing: no part of a frame, no part of a message, no Close.
    pub(super) fn is_at_rest(&self) -> bool {
        self.framing.is_at_rest() && self.engine.is_none()
    }

    /// How much of the current data frame is still to come; `None` within a header or a control
    /// frame, and once the connection closes.
    pub(super) fn data_left_bytes(&self) -> Option<usize> {
        let is_among_data = !self.framing.is_within_header() && self.engine.is_none();
        is_among_data.then(|| self.framing.payload_left_bytes())
    }

    /// How much of the current frame is still to come, whichever it is.
    pub(super) fn payload_left_bytes(&self) -> usize {
        self.framing.payload_left_bytes()
    }

    /// Our Close was sent.
    pub(super) fn close(&mut self, limits: &Limits) {
        self.engine(limits).close();
    }

    /// The engine, for control frames and for closing.
    fn engine(&mut self, limits: &Limits) -> &mut Engine {
        self.engine.get_or_insert_with(|| Engine::new(limits, 0))
    }

    /// Takes bytes off `input` until something comes out; answers to pings are appended to `out`.
    pub(super) fn feed<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        out: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Step<'b>, Violation> {
        loop {
            let output = if !self.framing.is_within_payload() {
                let mut unread: &[u8] = input;
                let header = self.framing.begin_frame(&mut unread, limits)?;
                let used = input.len() - unread.len();
                take_front(input, used);
                match header {
                    Some(header) => self.begin(&header, out, limits)?,
                    None => return Ok(Step::Starved),
                }
            } else if input.is_empty() {
                return Ok(Step::Starved);
            } else {
                match self.frame {
                    Frame::Control => {
                        let payload = take_front(input, self.framing.advance(input.len()));
                        self.control(payload, out, limits)?
                    }
                    Frame::Data { .. } => {
                        self.data(input)?.map(|piece| Step::Event(Event::Piece(piece)))
                    }
                }
            };
            if let Some(output) = output {
                return Ok(output);
            }
        }
    }

    /// A frame begins, and ends if it has no payload.
    fn begin<'b>(
        &mut self,
        header: &Header,
        out: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Option<Step<'b>>, Violation> {
        let (bytes, length) = self.framing.last_header();
        let bytes = &bytes[..length];
        if header.is_control() {
            self.frame = Frame::Control;
            return self.control(bytes, out, limits);
        }
        let Some(&key) = bytes.last_chunk() else { unreachable!("a header ends with its mask") };
        self.frame = Frame::Data { key, is_final: header.is_final() };
        match header.opcode() {
            CONTINUATION => {}
            BINARY => self.kind = Kind::Binary,
            _ => self.kind = Kind::Text,
        }
        if header.is_empty_fragment() {
            return Ok(Some(Step::Idle));
        }
        if header.payload_bytes > 0 {
            return Ok(None);
        }
        let piece = match self.kind {
            Kind::Text => self.text(&[])?,
            Kind::Binary => Some(self.piece(Received::Whole(Message::Binary(&[])))),
        };
        Ok(piece.map(|piece| Step::Event(Event::Piece(piece))))
    }

    /// Bytes of a control frame, and of no other.
    fn control<'b>(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Option<Step<'b>>, Violation> {
        let engine = self.engine(limits);
        let output = match engine.feed(&mut bytes, out, limits)? {
            Output::Starved => None,
            output => Some(output.into()),
        };
        self.engine.take_if(|engine| engine.is_at_rest());
        Ok(output)
    }

    /// Takes bytes of a data frame off the input, which has some.
    fn data<'b>(&mut self, input: &mut &'b mut [u8]) -> Result<Option<Piece<'b>>, Violation> {
        if self.carried.is_begun() {
            return self.complete(input);
        }
        let payload = take_front(input, self.framing.advance(input.len()));
        self.unmask(payload);
        match self.kind {
            Kind::Text => self.text(payload),
            Kind::Binary => Ok(Some(self.piece(Received::Whole(Message::Binary(payload))))),
        }
    }

    /// The next part of a text, nothing being carried unless the message ends with it.
    fn text<'b>(&mut self, payload: &'b [u8]) -> Result<Option<Piece<'b>>, Violation> {
        let (text, cut) = utf8::text_and_cut(payload)?;
        if !cut.is_empty() {
            self.carried = Character::begin(cut);
        }
        self.check_end()?;
        if text.is_empty() && !cut.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.piece(Received::Whole(Message::Text(text)))))
    }

    /// Completes the character that is carried, byte by byte.
    fn complete<'b>(&mut self, input: &mut &'b mut [u8]) -> Result<Option<Piece<'b>>, Violation> {
        while self.framing.is_within_payload() && !input.is_empty() {
            let bytes = take_front(input, self.framing.advance(1));
            self.unmask(bytes);
            if let Some(character) = self.carried.push(bytes[0])? {
                return Ok(Some(self.piece(Received::Character(character))));
            }
        }
        self.check_end()?;
        Ok(None)
    }

    /// A message may not end within a character.
    fn check_end(&self) -> Result<(), Violation> {
        let is_cut = self.carried.is_begun() && self.is_at_end();
        if is_cut { Err(Violation::Utf8) } else { Ok(()) }
    }

    /// Whether all payload of the current message has come.
    fn is_at_end(&self) -> bool {
        !self.framing.is_within_payload()
            && matches!(self.frame, Frame::Data { is_final: true, .. })
    }

    fn unmask(&mut self, payload: &mut [u8]) {
        if let Frame::Data { key, .. } = &mut self.frame {
            frame::unmask(payload, *key);
            key.rotate_left(payload.len() % 4);
        }
    }

    /// The next piece of the current message.
    fn piece<'b>(&mut self, received: Received<'b>) -> Piece<'b> {
        let is_first = !self.has_begun;
        let is_last = self.is_at_end();
        self.has_begun = !is_last;
        Piece { received, is_first, is_last }
    }
}

/// Takes so many bytes off the front of the input.
fn take_front<'b>(input: &mut &'b mut [u8], count: usize) -> &'b mut [u8] {
    let (front, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    front
}
