//! Frames on the wire (RFC 6455 section 5.2): reading a client's header, removing its mask, and
//! encoding the frames that the server sends.
//!
//! Knows headers, masks and opcodes. Must not know which frame may follow which, nor connections.

use bytes::{BufMut, Bytes, BytesMut};
#[cfg(target_arch = "x86_64")]
use fearless_simd::{Level, Simd};

use crate::error::Violation;
use crate::message::{Close, CloseCode, Message};

/// The longest header: two bytes, a length of eight, a mask of four.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

/// The longest header of a frame of the server, which has no mask.
pub(crate) const LONG_HEADER_BYTES: usize = 10;

/// The longest payload whose length the second byte tells.
const SHORT_BYTES_MAX: usize = 125;

/// The longest payload of a control frame (section 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;

pub(super) const FIN: u8 = 0x80;
/// The bits that extensions give a meaning to (section 5.2).
const RESERVED: u8 = 0x70;
/// The first of them.
#[cfg(test)]
pub(super) const RSV1: u8 = 0x40;
/// The reserved bits that a connection without extensions allows.
pub(super) const NO_BITS: u8 = 0;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7F;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;

/// The first byte of a whole, final text frame without reserved bits.
pub(crate) const WHOLE_TEXT: u8 = FIN | TEXT;
/// The first byte of a whole, final binary frame without reserved bits.
pub(crate) const WHOLE_BINARY: u8 = FIN | BINARY;

/// The first byte of a Close frame without reserved bits.
pub(crate) const WHOLE_CLOSE: u8 = FIN | CLOSE;

/// A ping without payload, as the server sends it.
pub(crate) const PING: Bytes = Bytes::from_static(&[FIN | 0x9, 0]);

/// What a client's frame header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    first: u8,
    masked: bool,
    pub(crate) payload_bytes: u64,
}

/// Whether these bytes are a pong of the server.
pub(crate) fn is_pong(frame: &[u8]) -> bool {
    frame.first() == Some(&(FIN | PONG))
}

/// The opcode of a frame that begins with this byte.
pub(super) fn opcode(first: u8) -> u8 {
    first & OPCODE
}

/// Whether a frame that begins with this byte is a control frame.
pub(super) fn is_control(first: u8) -> bool {
    first & 0x8 != 0
}

impl Header {
    /// How many bytes the header has in all, told by the first two of them.
    pub(crate) fn length(second: u8) -> usize {
        let length_bytes = match second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length_bytes + if second & MASKED != 0 { 4 } else { 0 }
    }

    /// Parses a header; `None` while bytes are missing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, ..] = *bytes else { return None };
        if bytes.len() < Self::length(second) {
            return None;
        }
        let payload_bytes = match second & LENGTH {
            126 => u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
            127 => u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?),
            length => u64::from(length),
        };
        Some(Self { first, masked: second & MASKED != 0, payload_bytes })
    }

    pub(crate) fn is_final(&self) -> bool {
        self.first & FIN != 0
    }

    pub(crate) fn opcode(&self) -> u8 {
        opcode(self.first)
    }

    pub(crate) fn is_close(&self) -> bool {
        self.opcode() == CLOSE
    }

    pub(crate) fn is_control(&self) -> bool {
        is_control(self.first)
    }

    /// Whether it is a fragment that carries nothing, and that more has to follow.
    pub(crate) fn is_empty_fragment(&self) -> bool {
        !self.is_control() && !self.is_final() && self.payload_bytes == 0
    }

    /// What is wrong with the frame as far as its header tells, so that nobody has to wait for, or
    /// store, the payload of a frame that is refused in any case. The reserved bits that extensions
    /// allow are given.
    #[inline]
    pub(crate) fn violation(&self, allowed_bits: u8) -> Option<Violation> {
        if self.first & RESERVED & !allowed_bits != 0 {
            return Some(Violation::ReservedBits);
        }
        if !matches!(self.opcode(), CONTINUATION..=BINARY | CLOSE..=PONG) {
            return Some(Violation::ReservedOpcode);
        }
        if !self.masked {
            return Some(Violation::Unmasked);
        }
        if self.is_control() && (!self.is_final() || self.payload_bytes > CONTROL_BYTES_MAX as u64)
        {
            return Some(Violation::ControlFrame);
        }
        None
    }
}

/// Removes a client's mask (section 5.3), or puts it back: it is its own inverse.
#[inline]
pub(crate) fn unmask(payload: &mut [u8], key: [u8; 4]) {
    if payload.len() < LONG_BYTES {
        unmask_short(payload, key);
    } else {
        unmask_long(payload, key);
    }
}

/// From this length on, asking for the processor's wider registers pays, in bytes.
const LONG_BYTES: usize = 256;

/// Not AVX-512: it was no faster, and what the compiler makes of loops for it not always sane.
#[cfg(target_arch = "x86_64")]
fn unmask_long(payload: &mut [u8], key: [u8; 4]) {
    match Level::new().as_avx2() {
        Some(avx2) => avx2.vectorize(
            #[inline(always)]
            || unmask_blocks(payload, key),
        ),
        None => unmask_blocks(payload, key),
    }
}

#[cfg(not(target_arch = "x86_64"))]
use unmask_blocks as unmask_long;

/// A block of a fixed size becomes a row of wide instructions without a loop.
#[inline(always)]
fn unmask_blocks(payload: &mut [u8], key: [u8; 4]) {
    let (blocks, rest) = payload.as_chunks_mut::<512>();
    blocks.iter_mut().for_each(|block| unmask_words(block, key));
    unmask_words(rest, key);
}

/// Blocks of a fixed size without a loop inside.
#[inline(always)]
fn unmask_short(payload: &mut [u8], key: [u8; 4]) {
    let (blocks, rest) = payload.as_chunks_mut::<32>();
    blocks.iter_mut().for_each(|block| unmask_words(block, key));
    unmask_words(rest, key);
}

#[inline(always)]
fn unmask_words(payload: &mut [u8], key: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// How many bytes the message takes as one unmasked frame.
pub(crate) fn encoded_bytes(message: Message<'_>) -> usize {
    frame_bytes(message.len())
}

/// How many bytes so long a payload takes as one unmasked frame.
pub(super) fn frame_bytes(payload_bytes: usize) -> usize {
    payload_bytes
        + match payload_bytes {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        }
}

/// Where in its message a fragment stands (section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

/// The piece of a message as one unmasked frame of its own.
pub(crate) fn encode_fragment(piece: Message<'_>, fragment: Fragment) -> Bytes {
    let opcode = match piece {
        _ if !fragment.is_first => CONTINUATION,
        Message::Text(_) => TEXT,
        Message::Binary(_) => BINARY,
    };
    let fin = if fragment.is_last { FIN } else { 0 };
    let mut out = BytesMut::with_capacity(encoded_bytes(piece));
    encode_payload(&mut out, fin | opcode, piece.as_bytes());
    out.freeze()
}

/// Whether an encoded frame ends a message.
pub(crate) fn ends_message(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & FIN != 0 && first & 0x8 == 0)
}

/// Appends the message as one unmasked, final frame.
pub(crate) fn append(out: &mut Vec<u8>, message: Message<'_>) {
    out.reserve(encoded_bytes(message));
    encode(out, message);
}

/// Writes the message as one unmasked, final frame, if that fits; how many bytes it took.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the call alone costs a twentieth of a short echo")]
pub(crate) fn put(message: Message<'_>, out: &mut [u8]) -> Option<usize> {
    let (opening, payload) = (first_byte(message), message.as_bytes());
    if payload.len() > SHORT_BYTES_MAX {
        return put_longer(opening, payload, out);
    }
    let short = u8::try_from(payload.len()).ok()?;
    let [first, second, rest @ ..] = out else { return None };
    let room = rest.get_mut(..payload.len())?;
    (*first, *second) = (opening, short);
    room.copy_from_slice(payload);
    Some(2 + payload.len())
}

#[inline(never)]
fn put_longer(first: u8, payload: &[u8], mut out: &mut [u8]) -> Option<usize> {
    let bytes = encoded_bytes(Message::Binary(payload));
    (bytes <= out.len()).then(|| {
        encode_payload(&mut out, first, payload);
        bytes
    })
}

/// The opcode of the message as one frame.
#[inline]
pub(crate) fn opcode_of(message: Message<'_>) -> u8 {
    if message.is_text() { TEXT } else { BINARY }
}

/// The first byte of the message as one frame.
#[inline]
fn first_byte(message: Message<'_>) -> u8 {
    if message.is_text() { WHOLE_TEXT } else { WHOLE_BINARY }
}

/// Appends the message as one unmasked, final frame.
pub(crate) fn encode(out: &mut impl BufMut, message: Message<'_>) {
    encode_payload(out, first_byte(message), message.as_bytes());
}

/// Appends a Close frame, without a code if that is `NO_STATUS` (section 5.5.1).
pub(crate) fn encode_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    if code == CloseCode::NO_STATUS {
        out.extend_from_slice(&[WHOLE_CLOSE, 0]);
        return;
    }
    debug_assert!(reason.len() <= Close::REASON_LIMIT_BYTES, "a reason fits a control frame");
    let [high, low] = u16::from(code).to_be_bytes();
    let length = u8::try_from(2 + reason.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[WHOLE_CLOSE, length, high, low]);
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a frame that begins with this byte.
#[inline]
pub(super) fn encode_payload(out: &mut impl BufMut, first: u8, payload: &[u8]) {
    if let Ok(short @ 0..=125) = u8::try_from(payload.len()) {
        out.put_slice(&[first, short]);
    } else if let Ok(length) = u16::try_from(payload.len()) {
        let [high, low] = length.to_be_bytes();
        out.put_slice(&[first, 126, high, low]);
    } else {
        out.put_slice(&[first, 127]);
        out.put_u64(payload.len() as u64);
    }
    out.put_slice(payload);
}

/// The header of the message as one unmasked, final frame; its payload has 64 KiB at least.
pub(crate) fn long_header(message: Message<'_>) -> [u8; LONG_HEADER_BYTES] {
    debug_assert!(message.len() > 0xFFFF, "shorter ones have a shorter header");
    let first = first_byte(message);
    let [a, b, c, d, e, f, g, h] = (message.len() as u64).to_be_bytes();
    [first, 127, a, b, c, d, e, f, g, h]
}

/// The message as one unmasked, final frame of its own.
pub(crate) fn encode_whole(message: Message<'_>) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_bytes(message));
    encode(&mut out, message);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasking_equals_the_definition_for_every_length_and_alignment() {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        let source: Vec<u8> = (0..=255).cycle().take(2000).collect();
        let ends =
            |start| (start..200).chain(200..source.len()).filter(|end| *end < 600 || end % 7 == 0);
        for start in 0..8 {
            for end in ends(start) {
                let mut bytes = source.clone();
                unmask(&mut bytes[start..end], key);
                for (at, &byte) in source[start..end].iter().enumerate() {
                    assert_eq!(bytes[start + at], byte ^ key[at % 4]);
                }
            }
        }
    }

    #[test]
    fn every_length_is_encoded_in_its_shortest_form() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let payload = vec![7; length];
            let frame = encode_whole(Message::Binary(&payload));
            assert_eq!(frame.len(), header + length);
            assert_eq!(frame.len(), encoded_bytes(Message::Binary(&payload)));
            if header == LONG_HEADER_BYTES {
                assert_eq!(frame[..header], long_header(Message::Binary(&payload)));
            }
            let parsed = Header::parse(&frame).expect("a whole header");
            assert_eq!(parsed.payload_bytes, length as u64);
            assert!(parsed.is_final());
        }
    }

    #[test]
    fn reserved_bits_are_a_violation_unless_an_extension_allows_them() {
        for (bits, allowed_bits, is_allowed) in
            [(0, NO_BITS, true), (RSV1, NO_BITS, false), (RSV1, RSV1, true), (0x60, RSV1, false)]
        {
            let header = Header::parse(&[FIN | bits | TEXT, MASKED, 1, 2, 3, 4]);
            let expected = (!is_allowed).then_some(Violation::ReservedBits);
            assert_eq!(header.expect("a whole header").violation(allowed_bits), expected);
        }
    }

    #[test]
    fn a_header_is_parsed_only_once_it_is_whole() {
        let header = [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        for cut in 0..header.len() {
            assert_eq!(Header::parse(&header[..cut]), None);
        }
        assert_eq!(Header::parse(&header).map(|header| header.payload_bytes), Some(65_536));
    }
}
