//! [`Outgoing`]: what is to be sent to one connection.
//!
//! Knows messages and encoded frames. Must not know connections.

use bytes::Bytes;

use crate::message::Message;
use crate::protocol::frame;

/// What is to be sent: still to be encoded, or encoded and shared.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum Outgoing<'o> {
    Message(Message<'o>),
    Frames(&'o Bytes),
}

impl Outgoing<'_> {
    pub(in crate::shard) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => frame::encoded_bytes(*message),
            Self::Frames(frames) => frames.len(),
        }
    }
}
