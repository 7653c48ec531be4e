//! The one way of a connection's bytes in and out.
//!
//! Knows the transport and the outbox. Must not know what the bytes mean, nor what follows.

use std::io::IoSlice;

use super::Connection;
use crate::shard::outbox::{Flushed, Spares};
use crate::transport::{Acknowledged, Input, Output};

impl Connection {
    #[inline]
    pub(in crate::shard) fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.transport.read(buffer)
    }

    /// Writes past the outbox, which is empty.
    #[inline]
    pub(in crate::shard) fn write(&mut self, bytes: &[u8]) -> Output {
        self.transport.write(bytes)
    }

    /// As [`write`](Self::write).
    pub(in crate::shard) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Output {
        self.transport.write_vectored(slices)
    }

    /// Writes what is in the outbox, and then what the transport has of its own.
    #[inline]
    pub(in crate::shard) fn flush(&mut self, spares: &mut Spares) -> Flushed {
        let flushed = self.outbox.write(&mut self.transport, spares);
        self.flags.is_blocked = flushed == Flushed::Blocked;
        flushed
    }

    /// How much of what the last write has left begun to leave: see
    /// [`Transport::held_bytes`](crate::transport::Transport::held_bytes).
    #[inline]
    pub(in crate::shard) fn held_bytes(&self) -> usize {
        self.transport.held_bytes()
    }

    pub(in crate::shard) fn acknowledged(&self) -> Option<Acknowledged> {
        self.transport.acknowledged()
    }

    /// Ends our side, behind all that was written. What the transport has of its own for that may
    /// have to wait.
    pub(in crate::shard) fn finish(&mut self) {
        self.transport.finish();
        self.flags.is_blocked = self.transport.has_output();
    }

    /// Ends our side at once.
    pub(in crate::shard) fn shut_down_write(&mut self) {
        self.transport.shut_down_write();
    }

    /// Ends both sides at once.
    pub(in crate::shard) fn shut_down(&mut self) {
        self.transport.shut_down();
    }
}
