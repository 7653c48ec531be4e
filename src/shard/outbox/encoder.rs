//! Where a shard encodes frames for others: one after another in shared blocks, which are used
//! again when the frames in them are gone. So a message to another shard allocates nothing as long
//! as not too many are on their way.
//!
//! Knows messages, frames and parcels. Must not know connections, or where a frame goes.

use bytes::BytesMut;

use crate::message::Message;
use crate::protocol::frame;
use crate::protocol::parcel::Parcel;

/// The size of a block. A frame in a mailbox keeps as much alive.
const BLOCK_BYTES: usize = 8 << 10;
/// From this size on a frame has an allocation of its own.
const OWN_BYTES: usize = BLOCK_BYTES / 4;
/// How many full blocks are kept.
const FULL_COUNT: usize = 16;

#[derive(Debug)]
pub(in crate::shard) struct Encoder {
    block: BytesMut,
    /// Those that are full, the oldest first.
    full: Vec<BytesMut>,
}

impl Encoder {
    pub(in crate::shard) fn new() -> Self {
        Self { block: BytesMut::with_capacity(BLOCK_BYTES), full: Vec::new() }
    }

    /// The message in its plain form.
    pub(in crate::shard) fn encode(&mut self, message: Message<'_>) -> Parcel {
        let bytes = frame::encoded_bytes(message);
        if bytes >= OWN_BYTES {
            return Parcel::new(message);
        }
        if self.block.capacity() < bytes {
            self.next_block();
        }
        frame::encode(&mut self.block, message);
        Parcel::from_frame(self.block.split().freeze())
    }

    #[cold]
    fn next_block(&mut self) {
        let free = self.full.iter_mut().position(|block| block.try_reclaim(BLOCK_BYTES));
        let next = match free {
            Some(at) => self.full.remove(at),
            None => BytesMut::with_capacity(BLOCK_BYTES),
        };
        if self.full.len() == FULL_COUNT {
            self.full.remove(0);
        }
        self.full.push(std::mem::replace(&mut self.block, next));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    #[test]
    fn a_block_is_used_again_when_its_frames_are_gone_and_never_before() {
        let mut encoder = Encoder::new();
        let mut alive = VecDeque::new();
        let mut blocks = HashSet::new();
        for number in 0..100_000u32 {
            let payload = number.to_be_bytes().repeat(8);
            alive.push_back((encoder.encode(Message::Binary(&payload)), payload));
            if alive.len() > 500 {
                let (frame, payload): (Parcel, _) = alive.pop_front().expect("some");
                assert_eq!(*frame.frame(), frame::encode_whole(Message::Binary(&payload)));
                blocks.insert(frame.frame().as_ptr().addr() / BLOCK_BYTES);
            }
        }
        // 500 frames of 34 bytes fill two and a half of them, which need not be aligned.
        assert!(blocks.len() <= 10, "{} blocks", blocks.len());
        let many: Vec<_> = (0..100_000).map(|_| encoder.encode(Message::Text("many"))).collect();
        assert!(encoder.full.len() <= FULL_COUNT);
        drop(many);
    }

    #[test]
    fn a_large_frame_keeps_nothing_else_alive() {
        let mut encoder = Encoder::new();
        let small = encoder.encode(Message::Text("small"));
        let large = encoder.encode(Message::Binary(&[7; OWN_BYTES]));
        drop(small);
        assert!(large.into_frame().try_into_mut().is_ok(), "it has its allocation alone");
    }
}
