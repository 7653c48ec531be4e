//! The lane: the fast way for what most traffic is.
//!
//! A whole, final, masked text or binary frame without reserved bits that arrives at a message
//! boundary is unmasked where it lies and handed out as a borrowed slice. The lane never says no:
//! whatever it is not sure of is left to the [engine](super::engine) from that frame's first byte.
//!
//! Knows one frame; knows no state, so that it cannot disagree with the engine about any.

use std::str;

use super::frame::{self, WHOLE_BINARY, WHOLE_TEXT};
use crate::config::Limits;
use crate::message::Message;

/// Why a frame is left to the engine.
#[derive(Debug)]
pub(crate) enum Doubt<'b> {
    /// It is not for the lane. It is still in the input, untouched.
    Frame,
    /// A text that is not UTF-8, which shows only when it is unmasked. It has been taken off the
    /// input; its mask is now zero, so that it is the same frame to the engine.
    Unmasked { header: &'b [u8], payload: &'b [u8] },
}

/// Takes whole messages off the front of the input. Only for a [dormant](super::Protocol) protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    message_bytes_max: usize,
}

impl Lane {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { message_bytes_max: limits.message_bytes.min(limits.frame_bytes) }
    }

    /// Takes one message off the front of the input, if it suits the lane; what is left.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "out of line, its result alone costs a tenth more")]
    pub(crate) fn take<'b>(
        self,
        input: &'b mut [u8],
    ) -> (Result<Message<'b>, Doubt<'b>>, &'b mut [u8]) {
        let (header, payload) = match measure(input) {
            Some((header, payload))
                if payload <= self.message_bytes_max && payload <= input.len() - header =>
            {
                (header, payload)
            }
            _ => return (Err(Doubt::Frame), input),
        };
        let (frame, rest) = input.split_at_mut(header + payload);
        let (header, payload) = frame.split_at_mut(header);
        let Some(mask) = header.last_chunk_mut() else {
            unreachable!("a header ends with its mask")
        };
        frame::unmask(payload, std::mem::take(mask));
        let payload: &[u8] = payload;
        if header[0] == WHOLE_BINARY {
            return (Ok(Message::Binary(payload)), rest);
        }
        let text = str::from_utf8(payload).map(Message::Text);
        (text.map_err(|_| Doubt::Unmasked { header, payload }), rest)
    }
}

/// How long the header is of a frame that suits the lane, and its payload; the header is whole.
#[inline]
fn measure(input: &[u8]) -> Option<(usize, usize)> {
    let [first, second, _, _, _, _, ..] = *input else { return None };
    if first != WHOLE_TEXT && first != WHOLE_BINARY {
        return None;
    }
    if let 0x80..=0xFD = second {
        return Some((6, usize::from(second & 0x7F)));
    }
    let (header, payload) = match (second, input) {
        (0xFE, [_, _, length @ .., _, _, _, _]) => {
            (8, u64::from(u16::from_be_bytes(*length.first_chunk()?)))
        }
        (0xFF, [_, _, length @ .., _, _, _, _]) => (14, u64::from_be_bytes(*length.first_chunk()?)),
        _ => return None,
    };
    Some((header, usize::try_from(payload).ok()?))
}
