//! The lane: the fast way for what most traffic is.
//!
//! A whole, final, masked text or binary frame without reserved bits that arrives at a message
//! boundary is unmasked where it lies and handed out as a borrowed slice. The lane never says no:
//! whatever it is not sure of is left to the [engine](super::engine) from that frame's first byte.
//! The other frame that most connections see, once, is the peer's Close: a whole one with which
//! nothing is wrong only has to be answered.
//!
//! Knows one frame; knows no state, so that it cannot disagree with the engine about any.

use std::str;

use super::frame::{self, CONTROL_BYTES_MAX, WHOLE_BINARY, WHOLE_CLOSE, WHOLE_TEXT};
use crate::message::{CloseCode, Message};

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
    str::from_utf8(payload).map(Message::Text).map_err(|_| Doubt::Unmasked { header, payload })
}

/// Takes the peer's Close off the front of `input`, if that is whole and nothing is wrong with it:
/// its code and its reason (section 5.5.1).
pub(super) fn take_close(input: &mut &mut [u8]) -> Option<(CloseCode, String)> {
    let [WHOLE_CLOSE, second @ 0x80..=0xFF, a, b, c, d, ref rest @ ..] = **input else {
        return None;
    };
    let length = usize::from(second & 0x7F);
    let mut room = [0; CONTROL_BYTES_MAX];
    // Elsewhere: what is left to the engine is left untouched.
    let payload = room.get_mut(..length)?;
    payload.copy_from_slice(rest.get(..length)?);
    frame::unmask(payload, [a, b, c, d]);
    let (code, reason) = match *payload {
        [] => (CloseCode::NO_STATUS, ""),
        [high, low, ref reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([high, low]));
            (Some(code).filter(|code| code.is_sendable())?, str::from_utf8(reason).ok()?)
        }
        [_] => return None,
    };
    let reason = reason.to_owned();
    *input = &mut std::mem::take(input)[6 + length..];
    Some((code, reason))
}
