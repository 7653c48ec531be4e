//! Text that comes in parts: UTF-8 is refused at the first byte after which it cannot become valid
//! any more (RFC 6455 section 8.1, RFC 3629), not only where a frame or a message ends.
//!
//! Knows bytes, masks and the opcode of a header. Must not know limits, or where a message has to
//! end.

use std::str;

use super::frame::{self, BINARY, Header, TEXT};
use crate::error::Violation;

/// How much is unmasked at once to be looked at, in bytes.
const BLOCK_BYTES: usize = 512;

/// The bytes as text, which they have to be as a whole.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Violation::Utf8)
}

/// The bytes as text, and the beginning of a character at their end of which more has to come.
pub(super) fn text_and_cut(bytes: &[u8]) -> Result<(&str, &[u8]), Violation> {
    let is_beginning = |count: &usize| {
        let end = &bytes[bytes.len() - count..];
        str::from_utf8(end).is_err_and(|error| error.error_len().is_none())
    };
    // From the shortest on: nothing before the beginning of a character belongs to it.
    let cut_bytes = (1..=bytes.len().min(3)).find(is_beginning).unwrap_or(0);
    let (whole, cut) = bytes.split_at(bytes.len() - cut_bytes);
    Ok((text(whole)?, cut))
}

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
        let (_, cut) = text_and_cut(bytes)?;
        if !cut.is_empty() {
            self.carried = Character::begin(cut);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_judged_as_the_standard_library_judges_it() {
        let source = "plain, é, €, 🦅; ".repeat(20).into_bytes();
        for length in (0..source.len()).step_by(3) {
            for spoilt in [None, Some(length / 2), Some(length.saturating_sub(1))] {
                let mut bytes = source[..length].to_vec();
                if let Some(byte) = spoilt.and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 0x80;
                }
                let expected = str::from_utf8(&bytes);
                assert_eq!(text(&bytes), expected.map_err(|_| Violation::Utf8));
                let (valid, error) = match expected {
                    Ok(valid) => (valid.len(), None),
                    Err(error) => (error.valid_up_to(), error.error_len()),
                };
                let parts = text_and_cut(&bytes).ok();
                let lengths = parts.map(|(text, cut)| (text.len(), cut.len()));
                assert_eq!(lengths, error.is_none().then_some((valid, length - valid)));
            }
        }
    }
}
