//! The lane: the fast way for what most traffic is.
//!
//! A whole, final, masked text or binary frame without reserved bits that arrives at a message
//! boundary is unmasked where it lies and handed out as a borrowed slice. The lane never says no:
//! whatever it is not sure of is left to the [engine](super::engine) from that frame's first byte.
//! The other frame that most connections see, once, is the peer's Close: a whole one with which
//! nothing is wrong only has to be answered.
//!
//! Knows one frame. Must not know any state, so that it cannot disagree with the engine about it.

use std::str;

use super::frame::{self, CONTROL_BYTES_MAX, WHOLE_BINARY, WHOLE_CLOSE, WHOLE_TEXT};
use super::utf8;
use crate::config::Limits;
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

/// Takes whole messages off the front of the input. Only for a [dormant](super::Protocol) protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    message_bytes_max: usize,
}

impl Lane {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { message_bytes_max: limits.max_message_bytes.min(limits.max_frame_bytes) }
    }

    /// Takes one message off the front of the input, if it suits the lane; what is left.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "out of line, its result alone costs a tenth more")]
    pub(crate) fn take<'b>(
        self,
        input: &'b mut [u8],
    ) -> (Result<Message<'b>, Doubt<'b>>, &'b mut [u8]) {
        if let [WHOLE_TEXT | WHOLE_BINARY, second @ 0x80..=0xFD, ..] = *input {
            // Most are short, and what is known of their length is worth a path of its own.
            let payload = usize::from(second & 0x7F);
            if payload <= self.message_bytes_max && 6 + payload <= input.len() {
                return open(input, 6, 6 + payload);
            }
        } else if let Some((header, payload)) = measure(input)
            && payload <= self.message_bytes_max
            && payload <= input.len() - header
        {
            return open(input, header, header + payload);
        }
        (Err(Doubt::Frame), input)
    }
}

/// Opens the frame that suits the lane: so long its header, at `end` its end.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as Lane::take")]
fn open(
    input: &mut [u8],
    header: usize,
    end: usize,
) -> (Result<Message<'_>, Doubt<'_>>, &mut [u8]) {
    let (frame, rest) = input.split_at_mut(end);
    let (header, payload) = frame.split_at_mut(header);
    let Some(mask) = header.last_chunk_mut() else { unreachable!("a header ends with its mask") };
    frame::unmask(payload, std::mem::take(mask));
    let payload: &[u8] = payload;
    if header[0] == WHOLE_BINARY {
        return (Ok(Message::Binary(payload)), rest);
    }
    let text = utf8::text(payload).map(Message::Text);
    (text.map_err(|_| Doubt::Unmasked { header, payload }), rest)
}

/// How long the header is of a longer frame that suits the lane, and its payload; the header is
/// whole.
#[inline(never)]
fn measure(input: &[u8]) -> Option<(usize, usize)> {
    let (header, payload) = match *input {
        [WHOLE_TEXT | WHOLE_BINARY, 0xFE, ref length @ .., _, _, _, _] => {
            (8, u64::from(u16::from_be_bytes(*length.first_chunk()?)))
        }
        [WHOLE_TEXT | WHOLE_BINARY, 0xFF, ref length @ .., _, _, _, _] => {
            (14, u64::from_be_bytes(*length.first_chunk()?))
        }
        _ => return None,
    };
    Some((header, usize::try_from(payload).ok()?))
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
