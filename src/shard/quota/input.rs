//! [`InputQuota`]: how much input the connections of a shard keep, each and in all.
//!
//! Knows slots and numbers of bytes. Must not know connections.

use std::collections::HashMap;

use crate::hub::Slot;

/// Who keeps input, and how much; an idle connection is not in here.
#[derive(Debug, Default)]
pub(in crate::shard) struct InputQuota {
    by_slot: HashMap<Slot, usize>,
    sum: usize,
}

impl InputQuota {
    /// Notes how much a connection keeps now; how much it was before.
    pub(in crate::shard) fn set(&mut self, slot: Slot, bytes: usize) -> usize {
        let before = match bytes {
            0 => self.by_slot.remove(&slot),
            _ => self.by_slot.insert(slot, bytes),
        };
        let before = before.unwrap_or(0);
        self.sum = self.sum - before + bytes;
        before
    }

    /// The sum of all connections, in bytes.
    pub(in crate::shard) fn sum(&self) -> usize {
        self.sum
    }
}
