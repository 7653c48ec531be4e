//! [`Cork`]: where the replies of a connection's turn gather as long as nothing stands in their
//! way, so that they leave in one write.
//!
//! Knows frames and how many bytes there is room for. Must not know whose they are.

use crate::message::Message;
use crate::protocol::frame;

/// When the own replies of one turn are handed to the kernel before the turn ends, in bytes.
pub(in crate::shard) const SCRATCH_BYTES: usize = 64 << 10;

/// While it is open, what is appended needs no other question asked. What happens otherwise closes
/// it, and takes out what is in it: that was said before.
#[derive(Debug)]
pub(in crate::shard) struct Cork {
    bytes: Box<[u8]>,
    length: usize,
    /// How long it may become; 0 while it is closed.
    limit: usize,
}

impl Cork {
    pub(in crate::shard) fn new() -> Self {
        Self { bytes: vec![0; SCRATCH_BYTES].into(), length: 0, limit: 0 }
    }

    #[inline]
    pub(in crate::shard) fn open(&mut self, limit: usize) {
        debug_assert!(self.length == 0 && limit <= self.bytes.len());
        self.limit = limit;
    }

    #[inline]
    pub(in crate::shard) fn close(&mut self) {
        debug_assert!(self.length == 0, "what is in it was taken out");
        self.limit = 0;
    }

    #[inline]
    pub(in crate::shard) fn is_open(&self) -> bool {
        self.limit > 0
    }

    /// Whether so little is left of it that it is better written than moved.
    pub(in crate::shard) fn is_rather_full(&self) -> bool {
        self.length > 0 && self.length >= self.limit / 2
    }

    /// Appends a message, if it fits.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a twentieth of a short echo")]
    pub(in crate::shard) fn append(&mut self, message: Message<'_>) -> bool {
        match frame::put(message, &mut self.bytes[self.length..self.limit]) {
            Some(bytes) => {
                self.length += bytes;
                true
            }
            None => false,
        }
    }

    /// What is in it.
    #[inline]
    pub(in crate::shard) fn content(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    #[inline]
    pub(in crate::shard) fn clear(&mut self) {
        self.length = 0;
    }
}
