//! The engine: tungstenite's `WebSocketContext`, the authority on RFC 6455, driven over bytes in
//! memory and fed one frame at a time.
//!
//! It is given the bytes of one frame and no more, so that nothing is left in it when a message
//! ends: then it is at rest and can be put away, and the lane takes over. Feeding by frames needs
//! the frames' headers; they are checked on the way, and so is text, so that what will be refused
//! is refused at once, before more of it has to be stored.
//!
//! Knows frames, tungstenite and the closing handshake. Must not know sockets, clocks or deadlines.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message as EngineMessage, Utf8Bytes};

use super::frame::CONTROL_BYTES_MAX;
use super::framing::Framing;
use super::utf8::Watch;
use crate::config::Limits;
use crate::error::Violation;
use crate::message::CloseCode;

/// What the engine reads at once, and so what it allocates when it wakes, in bytes: between the
/// two, as the frame that wakes it needs. Each read zeroes that much first.
const READ_BYTES_MIN: usize = 128;
const READ_BYTES_MAX: usize = 16 << 10;

/// What came out of the bytes fed.
#[derive(Debug)]
pub(super) enum Output {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A frame that carries no data: a ping (already answered), a pong, an empty fragment.
    Idle,
    /// A fragment is whole, its message is not.
    Fragment,
    /// The peer's Close frame.
    Close(Option<(CloseCode, Utf8Bytes)>),
    /// All input is used up.
    Starved,
}

/// tungstenite's context and where in its input it stands.
pub(super) struct Engine {
    context: WebSocketContext,
    framing: Framing,
    /// How much of an unfinished message it holds, in bytes.
    kept_bytes: usize,
    watch: Watch,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine for a frame of the expected payload, to begin with.
    pub(super) fn new(limits: &Limits, expected_bytes: u64) -> Self {
        let read_bytes = usize::try_from(expected_bytes).unwrap_or(usize::MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(read_bytes.clamp(READ_BYTES_MIN, READ_BYTES_MAX))
            .write_buffer_size(0)
            .max_message_size(Some(limits.max_message_bytes))
            // It counts control frames, too; data frames are checked in `framing`.
            .max_frame_size(Some(limits.max_frame_bytes.max(CONTROL_BYTES_MAX)));
        Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            framing: Framing::default(),
            kept_bytes: 0,
            watch: Watch::default(),
        }
    }

    /// Whether it holds nothing: no part of a frame, no part of a message, no Close.
    pub(super) fn is_at_rest(&self) -> bool {
        self.framing.is_at_rest() && self.context.can_write()
    }

    /// How much of an unfinished message it holds, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Takes bytes off `input`, up to the end of a frame; what the engine answers by itself is
    /// appended to `out`.
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Output, Violation> {
        if !self.framing.is_within_payload() {
            let Some(header) = self.framing.begin_frame(input, limits)? else {
                return Ok(Output::Starved);
            };
            // The header alone never ends in a message unless the payload is empty.
            let (bytes, length) = self.framing.last_header();
            self.watch.begin_frame(&header, &bytes[..length]);
            if let Some(output) = self.push(&bytes[..length], out)? {
                return Ok(output);
            }
            if header.is_empty_fragment() {
                return Ok(Output::Idle);
            }
        }
        if input.is_empty() {
            return Ok(Output::Starved);
        }
        let (chunk, rest) = input.split_at(self.framing.advance(input.len()));
        *input = rest;
        if !self.framing.is_of_control() {
            self.kept_bytes += chunk.len();
        }
        self.watch.check(chunk)?;
        match self.push(chunk, out)? {
            Some(output) => Ok(output),
            None if self.framing.is_within_payload() => Ok(Output::Starved),
            None => Ok(Output::Fragment),
        }
    }

    /// Feeds bytes of one frame.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Output>, Violation> {
        let mut duplex = Duplex { input: bytes, out };
        let output = match self.context.read(&mut duplex) {
            Ok(EngineMessage::Text(text)) => {
                self.kept_bytes = 0;
                Output::Text(text)
            }
            Ok(EngineMessage::Binary(bytes)) => {
                self.kept_bytes = 0;
                Output::Binary(bytes)
            }
            Ok(EngineMessage::Ping(_)) => {
                // The pong is queued in the context; this writes it.
                match self.context.flush(&mut duplex) {
                    Ok(()) => Output::Idle,
                    Err(error) => return Err(violation(&error)),
                }
            }
            Ok(EngineMessage::Pong(_)) => Output::Idle,
            Ok(EngineMessage::Close(frame)) => {
                Output::Close(frame.map(|frame| (u16::from(frame.code).into(), frame.reason)))
            }
            Ok(EngineMessage::Frame(_)) => unreachable!("the context reads no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                debug_assert!(duplex.input.is_empty(), "the context left bytes unread");
                return Ok(None);
            }
            Err(error) => return Err(violation(&error)),
        };
        Ok(Some(output))
    }

    /// Lets the context know that our Close frame was sent.
    pub(super) fn close(&mut self) {
        // What it writes is that frame once more; memory takes every write.
        let _ = self.context.close(&mut Duplex { input: &[], out: &mut Vec::new() }, None);
    }
}

/// Blame for what the context found.
fn violation(error: &Error) -> Violation {
    match error {
        Error::Capacity(_) => Violation::TooBig,
        Error::Utf8(_) => Violation::Utf8,
        Error::Protocol(error) => match error {
            ProtocolError::NonZeroReservedBits => Violation::ReservedBits,
            ProtocolError::InvalidOpcode(_)
            | ProtocolError::UnknownControlFrameType(_)
            | ProtocolError::UnknownDataFrameType(_) => Violation::ReservedOpcode,
            ProtocolError::UnmaskedFrameFromClient => Violation::Unmasked,
            ProtocolError::FragmentedControlFrame | ProtocolError::ControlFrameTooBig => {
                Violation::ControlFrame
            }
            ProtocolError::UnexpectedContinueFrame | ProtocolError::ExpectedFragment(_) => {
                Violation::Fragmentation
            }
            ProtocolError::InvalidCloseSequence => Violation::CloseFrame,
            _ => Violation::Protocol,
        },
        _ => Violation::Protocol,
    }
}

/// A stream in memory: reads what it was given and then would block, writes to the end of `out`.
struct Duplex<'d> {
    input: &'d [u8],
    out: &'d mut Vec<u8>,
}

impl Read for Duplex<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            // `Ok(0)` would be the peer's FIN.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Duplex<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
