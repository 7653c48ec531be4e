//! The lists of connections with which something is to be done, each in a phase of its own: ready,
//! dirty, drained, pending closes, dead. And what puts a connection on them.
//!
//! Knows who stands where; a connection's marks say the same. Must not know what a phase does with
//! its list.

use crate::hub::{Address, Slot};
use crate::shard::state::Shard;
use crate::transport::readiness::Readiness;

/// What puts a connection on a list.
impl Shard {
    /// Notes what happened to a connection's transport; the connection, if it is to be read.
    #[inline]
    pub(in crate::shard) fn notice(
        &mut self,
        address: Address,
        readiness: Readiness,
    ) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get_mut(slot)?;
        if connection.address() != address {
            return None;
        }
        let Readiness { is_readable, is_writable, has_ended } = readiness;
        if has_ended {
            connection.note_peer_end();
        }
        if connection.is_blocked() && is_writable {
            self.unblock(slot);
        }
        (is_readable || has_ended).then_some(slot)
    }

    pub(in crate::shard) fn make_ready(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.mark_ready() {
            self.ready.push(connection.address());
        }
    }

    pub(in crate::shard) fn make_dirty(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.mark_dirty() {
            self.dirty.push(connection.address());
        }
    }
}

/// What takes connections off the lists.
impl Shard {
    /// Whether input waits, or may.
    #[inline]
    pub(in crate::shard) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the ready list, which is to be [put back](Self::put_back_ready). The connections keep
    /// their marks until they are read.
    pub(in crate::shard) fn take_ready(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.ready)
    }

    /// Puts the ready list back without its first connections, which were read; before those that
    /// have become ready meanwhile.
    pub(in crate::shard) fn put_back_ready(&mut self, mut ready: Vec<Address>, done_count: usize) {
        ready.drain(..done_count);
        ready.append(&mut self.ready);
        self.ready = ready;
    }

    /// Whether a budget, or the end of a turn, left output to be delivered, or reported as drained.
    pub(in crate::shard) fn has_undelivered(&self) -> bool {
        !self.fanout.is_empty() || !self.dirty.is_empty() || !self.drained.is_empty()
    }

    /// Hands all outboxes of the dirty list to the kernel, once each.
    #[inline]
    pub(in crate::shard) fn flush_dirty(&mut self) {
        if !self.dirty.is_empty() {
            self.flush_all_dirty();
        }
    }

    fn flush_all_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for address in dirty.drain(..) {
            if let Some(slot) = self.find(address) {
                self.flush(slot);
            }
        }
        // Keeps the allocation; what has become dirty meanwhile is the next turn's.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Takes the drained list: each is to be [begun](Self::begin_drain).
    pub(in crate::shard) fn take_drained(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.drained)
    }

    /// `on_drain` is called now; the connection, if it is still there and open.
    pub(in crate::shard) fn begin_drain(&mut self, address: Address) -> Option<Slot> {
        let slot = self.find(address)?;
        let connection = &mut self.connections[slot];
        connection.unmark_drained();
        connection.is_open().then_some(slot)
    }

    /// Takes a connection whose end is decided; it may have ended since.
    pub(in crate::shard) fn take_pending_close(&mut self) -> Option<Slot> {
        self.pending_closes.pop()
    }

    /// Takes a connection that is to be [removed](Self::remove).
    pub(in crate::shard) fn take_dead(&mut self) -> Option<Slot> {
        debug_assert!(self.pending_closes.is_empty(), "whoever leaves is told before the reaping");
        self.dead.pop()
    }
}
