//! Text that comes in parts: UTF-8 is refused at the first byte after which it cannot become valid
//! any more (RFC 6455 section 8.1, RFC 3629), not only where a frame or a message ends.
//!
//! Knows bytes and masks; knows no limits, and not where a message has to end.

use std::str;

use super::frame::{self, BINARY, Header, TEXT};
use crate::error::Violation;

/// How much is unmasked at once to be looked at, in bytes.
const BLOCK_BYTES: usize = 512;

/// A character, or the beginning of one, that did not come at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Character {
    bytes: [u8; 4],
    length: usize,
}

impl Character {
    /// The first bytes of a character; at most three, and valid so far.
    pub(super) fn begin(bytes: &[u8]) -> Self {
        let mut character = Self::default();
        character.bytes[..bytes.len()].copy_from_slice(bytes);
        character.length = bytes.len();
        character
    }

    pub(super) fn is_begun(&self) -> bool {
        self.length > 0
    }

    /// Adds a byte: the character if that makes it whole, and nothing is left.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<Self>, Violation> {
        self.bytes[self.length] = byte;
        self.length += 1;
        match self.decode() {
            Ok(_) => Ok(Some(std::mem::take(self))),
            Err(error) if error.error_len().is_none() => Ok(None),
            Err(_) => Err(Violation::Utf8),
        }
    }

    /// The bytes as text; the error tells whether they can still become one.
    fn decode(&self) -> Result<&str, str::Utf8Error> {
        str::from_utf8(&self.bytes[..self.length])
    }

    pub(super) fn as_str(&self) -> &str {
        match self.decode() {
            Ok(character) => character,
            Err(_) => unreachable!("a character is handed out when it is whole"),
        }
    }
}

/// Looks at texts on their way to the engine, which itself looks at whole frames.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Whether the current message is a text.
    is_text: bool,
    /// The mask for the next byte of text and those after it; `None` in any other frame.
    key: Option<[u8; 4]>,
    carried: Character,
}

impl Watch {
    /// A frame begins; `bytes` are those of its header.
    pub(super) fn begin_frame(&mut self, header: &Header, bytes: &[u8]) {
        match header.opcode() {
            TEXT => (self.is_text, self.carried) = (true, Character::default()),
            BINARY => self.is_text = false,
            _ => {}
        }
        let is_watched = self.is_text && !header.is_control();
        self.key = bytes.last_chunk().copied().filter(|_| is_watched);
    }

    /// Checks the next bytes of the frame's payload, as they were sent.
    pub(super) fn check(&mut self, mut masked: &[u8]) -> Result<(), Violation> {
        let Some(mut key) = self.key else { return Ok(()) };
        let mut room = [0; BLOCK_BYTES];
        while !masked.is_empty() {
            let (bytes, rest) = masked.split_at(masked.len().min(BLOCK_BYTES));
            let block = &mut room[..bytes.len()];
            block.copy_from_slice(bytes);
            frame::unmask(block, key);
            key.rotate_left(bytes.len() % 4);
            self.read(block)?;
            masked = rest;
        }
        self.key = Some(key);
        Ok(())
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.carried.is_begun()
            && let Some((&byte, rest)) = bytes.split_first()
        {
            self.carried.push(byte)?;
            bytes = rest;
        }
        match str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.carried = Character::begin(&bytes[error.valid_up_to()..]);
                Ok(())
            }
            Err(_) => Err(Violation::Utf8),
        }
    }
}
