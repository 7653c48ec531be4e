//! Where the peer's bytes stand: within a header, a payload, a message; and what a header may say
//! there. The same for all ways through the protocol that remember anything.
//!
//! Knows headers, their order and limits. Must not know what a payload means.

use super::frame::{self, CONTINUATION, HEADER_BYTES_MAX, Header};
use crate::config::Limits;
use crate::error::Violation;

/// The place within a frame and within a message.
#[derive(Debug, Default)]
pub(super) struct Framing {
    header: [u8; HEADER_BYTES_MAX],
    /// How many bytes of the next header have come; 0 from the moment it is whole.
    header_bytes: usize,
    payload_left_bytes: u64,
    /// How many fragments of the current message have come; 0 between messages.
    fragment_count: u32,
    /// How many bytes they carried, or will.
    message_bytes: u64,
}

impl Framing {
    /// Whether it stands between two messages, and between two frames.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_within_header() && !self.is_within_payload() && self.fragment_count == 0
    }

    pub(super) fn is_within_header(&self) -> bool {
        self.header_bytes > 0
    }

    pub(super) fn is_within_payload(&self) -> bool {
        self.payload_left_bytes > 0
    }

    /// Whether the last frame is a control frame.
    pub(super) fn is_of_control(&self) -> bool {
        frame::is_control(self.header[0])
    }

    /// How much of the current payload is still to come.
    pub(super) fn payload_left_bytes(&self) -> usize {
        usize::try_from(self.payload_left_bytes).unwrap_or(usize::MAX)
    }

    /// Takes header bytes off `input`; once the header is whole, checks and counts it, and
    /// expects its payload.
    pub(super) fn begin_frame(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Header>, Violation> {
        debug_assert!(!self.is_within_payload(), "a frame begins where another ends");
        let Some(header) = self.take_header(input) else { return Ok(None) };
        self.account(&header, limits)?;
        self.header_bytes = 0;
        self.payload_left_bytes = header.payload_bytes;
        Ok(Some(header))
    }

    /// The bytes of the header that was whole last.
    pub(super) fn last_header(&self) -> ([u8; HEADER_BYTES_MAX], usize) {
        (self.header, Header::length(self.header[1]))
    }

    /// Counts as many of the available bytes as belong to the current payload: how many they are.
    pub(super) fn advance(&mut self, available_bytes: usize) -> usize {
        let taken = available_bytes.min(self.payload_left_bytes());
        self.payload_left_bytes -= taken as u64;
        taken
    }

    /// Takes header bytes off `input`; the header once it is whole.
    fn take_header(&mut self, input: &mut &[u8]) -> Option<Header> {
        loop {
            let wanted = match self.header_bytes {
                0 | 1 => 2,
                _ => Header::length(self.header[1]),
            };
            if self.header_bytes == wanted {
                return Header::parse(&self.header[..wanted]);
            }
            let taken = input.len().min(wanted - self.header_bytes);
            if taken == 0 {
                return None;
            }
            let (bytes, rest) = input.split_at(taken);
            self.header[self.header_bytes..][..taken].copy_from_slice(bytes);
            self.header_bytes += taken;
            *input = rest;
        }
    }

    /// Checks a header and counts fragments.
    fn account(&mut self, header: &Header, limits: &Limits) -> Result<(), Violation> {
        if let Some(violation) = header.violation(frame::NO_BITS) {
            return Err(violation);
        }
        if header.is_control() {
            return Ok(());
        }
        let continues = header.opcode() == CONTINUATION;
        if continues != (self.fragment_count > 0) {
            return Err(Violation::Fragmentation);
        }
        self.fragment_count += 1;
        self.message_bytes = self.message_bytes.saturating_add(header.payload_bytes);
        if header.payload_bytes > limits.max_frame_bytes as u64
            || self.message_bytes > limits.max_message_bytes as u64
        {
            return Err(Violation::TooBig);
        }
        // A message in one frame is no fragment.
        let is_whole = header.is_final() && !continues;
        if self.fragment_count > limits.max_fragments && !is_whole {
            return Err(Violation::TooManyFragments);
        }
        if header.is_final() {
            (self.fragment_count, self.message_bytes) = (0, 0);
        }
        Ok(())
    }
}
