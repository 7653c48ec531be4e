//! [`Outgoing`]: what is to be sent to one connection.
//!
//! Knows messages, parcels and encoded frames. Must not know connections.

use bytes::Bytes;

use crate::message::Message;
use crate::protocol::frame;
use crate::protocol::parcel::{Encoding, Parcel};

/// What is to be sent: still to be encoded, or encoded and shared.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum Outgoing<'o> {
    Message(Message<'o>),
    /// A message in its plain form.
    Parcel(&'o Parcel),
    /// Whole frames in the form that the connection takes.
    Frames(&'o Bytes),
}

impl<'o> Outgoing<'o> {
    pub(in crate::shard) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => frame::encoded_bytes(*message),
            Self::Parcel(parcel) => parcel.len(),
            Self::Frames(frames) => frames.len(),
        }
    }

    /// What is encoded already; `Err`: the message that is still to be.
    #[inline]
    pub(in crate::shard) fn encoded(self) -> Result<&'o Bytes, Message<'o>> {
        match self {
            Self::Message(message) => Err(message),
            Self::Parcel(parcel) => Ok(parcel.frame()),
            Self::Frames(frames) => Ok(frames),
        }
    }

    /// The message in another encoding; `None` if it is to be sent as it is.
    #[inline]
    pub(in crate::shard) fn encode(&self, encoding: Encoding) -> Option<Bytes> {
        match self {
            Self::Message(message) => {
                encoding.encode(frame::opcode_of(*message), message.as_bytes())
            }
            Self::Parcel(parcel) => parcel.encode(encoding),
            Self::Frames(_) => None,
        }
    }
}
