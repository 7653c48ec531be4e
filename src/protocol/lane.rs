//! The lane: the fast way for what most traffic is.
//!
//! A whole, final, masked text or binary frame without reserved bits that arrives at a message
//! boundary is unmasked where it lies and handed out as a borrowed slice. The lane never says no:
//! whatever it is not sure of is left to the [engine](super::engine) from that frame's first byte.
//!
//! Knows one frame; knows no state, so that it cannot disagree with the engine about any.

use std::str;

use super::frame::{self, HEADER_BYTES_MAX, WHOLE_BINARY, WHOLE_TEXT};
use crate::message::Message;

/// What the lane makes of the bytes before it.
#[derive(Debug)]
pub(super) enum Lane<'b> {
    /// A whole message, and the bytes after it.
    Message(Message<'b>, &'b mut [u8]),
    /// Not for the lane: the bytes, untouched.
    Engine(&'b mut [u8]),
    /// Not for the lane, found out too late: a text that is not UTF-8. The frame as the engine
    /// should see it, namely with a mask of zeros, for its payload is unmasked already.
    Unmasked { header: UnmaskedHeader, payload: &'b [u8], rest: &'b mut [u8] },
}

/// The header of a frame whose payload has been unmasked in place: the same, with a mask of zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnmaskedHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

impl UnmaskedHeader {
    fn new(header: &[u8]) -> Self {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let unmasked = header.len() - 4;
        bytes[..unmasked].copy_from_slice(&header[..unmasked]);
        Self { bytes, length: header.len() }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
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
    (input.len() - 2 >= (header - 2).checked_add(payload)?).then_some((header, payload))
}

/// Takes one frame off the front of `input`, if it suits the lane.
#[inline]
pub(super) fn take(input: &mut [u8], message_bytes_max: usize) -> Lane<'_> {
    let Some((header, payload)) = measure(input) else { return Lane::Engine(input) };
    if payload > message_bytes_max {
        return Lane::Engine(input);
    }
    let (frame, rest) = input.split_at_mut(header + payload);
    let (header, payload) = frame.split_at_mut(header);
    let Some(&key) = header.last_chunk() else { unreachable!("the header ends with the mask") };
    frame::unmask(payload, key);
    let payload: &[u8] = payload;
    if header[0] == WHOLE_BINARY {
        return Lane::Message(Message::Binary(payload), rest);
    }
    match str::from_utf8(payload) {
        Ok(text) => Lane::Message(Message::Text(text), rest),
        Err(_) => Lane::Unmasked { header: UnmaskedHeader::new(header), payload, rest },
    }
}
