//! [`Shortened`]: a second form for tests. As in a compressed message, RSV1 is set, the payload is
//! not legible, and its length is another one.
//!
//! Knows the form. Must not know who takes it.

use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::frame::{self, FIN, Header, RSV1};

/// What each byte is changed by.
const KEY: u8 = 0x5A;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Cuts off the equal bytes at a payload's end, says in four bytes how many there were, and changes
/// all others.
#[derive(Debug)]
pub(crate) struct Shortened;

impl Shortened {
    /// How often this thread has encoded something.
    pub(crate) fn count() -> usize {
        COUNT.get()
    }

    pub(super) fn encode(opcode: u8, payload: &[u8]) -> Bytes {
        COUNT.set(COUNT.get() + 1);
        let cut = match payload.last() {
            Some(last) => payload.iter().rev().take_while(|byte| *byte == last).count() - 1,
            None => 0,
        };
        let mut short: Vec<u8> =
            payload[..payload.len() - cut].iter().map(|byte| byte ^ KEY).collect();
        short.put_u32(u32::try_from(cut).expect("a short message"));
        let mut out = BytesMut::new();
        frame::encode_payload(&mut out, FIN | RSV1 | opcode, &short);
        out.freeze()
    }

    /// The opcode and payload that a frame was made of; `None` if it is no frame of this form.
    pub(crate) fn decode(frame: &[u8]) -> Option<(u8, Vec<u8>)> {
        let header = Header::parse(frame)?;
        if frame[0] != FIN | RSV1 | header.opcode() {
            return None;
        }
        let (short, cut) = frame.get(Header::length(frame[1])..)?.split_last_chunk()?;
        let mut payload: Vec<u8> = short.iter().map(|byte| byte ^ KEY).collect();
        let cut = usize::try_from(u32::from_be_bytes(*cut)).ok()?;
        if let Some(&last) = payload.last() {
            payload.resize(payload.len() + cut, last);
        }
        Some((header.opcode(), payload))
    }
}
