//! The lane: the fast way for what most traffic is.
//!
//! A whole, final, masked text or binary frame without reserved bits that arrives at a message
//! boundary is unmasked where it lies and handed out as a borrowed slice. The lane never says no:
//! whatever it is not sure of is left to the [engine](super::engine) from that frame's first byte.
//!
//! Knows one frame; knows no state, so that it cannot disagree with the engine about any.

use super::frame::{self, WHOLE_BINARY, WHOLE_TEXT};
use super::utf8;
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

/// Where a frame that suits the lane lies: the length of its header and of its payload.
#[inline]
fn measure(input: &[u8]) -> Option<(usize, usize)> {
    let [first, second, ..] = *input else { return None };
    if first != WHOLE_TEXT && first != WHOLE_BINARY {
        return None;
    }
    let (header, payload): (usize, usize) = match second {
        0x80..=0xFD => (6, usize::from(second & 0x7F)),
        0xFE => (8, usize::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        0xFF => (14, usize::try_from(u64::from_be_bytes(*input.get(2..)?.first_chunk()?)).ok()?),
        _ => return None,
    };
    (input.len() >= header.checked_add(payload)?).then_some((header, payload))
}

/// Takes one message off the front of `input`, if it suits the lane.
#[inline]
pub(super) fn take<'b>(
    input: &mut &'b mut [u8],
    message_bytes_max: usize,
) -> Result<Message<'b>, Doubt<'b>> {
    let Some((header, payload)) = measure(input) else { return Err(Doubt::Frame) };
    if payload > message_bytes_max {
        return Err(Doubt::Frame);
    }
    let (frame, rest) = std::mem::take(input).split_at_mut(header + payload);
    *input = rest;
    let (header, payload) = frame.split_at_mut(header);
    let Some(mask) = header.last_chunk_mut() else { unreachable!("a header ends with its mask") };
    frame::unmask(payload, std::mem::take(mask));
    let payload: &[u8] = payload;
    if header[0] == WHOLE_BINARY {
        return Ok(Message::Binary(payload));
    }
    utf8::text(payload).map(Message::Text).map_err(|_| Doubt::Unmasked { header, payload })
}
