//! How much input the connections of a shard keep from one service to the next: messages that have
//! begun and not ended, requests that have not come as a whole, what waits to be handled.
//!
//! Each connection has bounds of its own. This is the bound of them all: what a crowd of clients
//! can make a shard hold by beginning and never ending.

use crate::hub::Slot;
use crate::message::{Close, CloseCode, ClosedBy};
use crate::shard::connection::{CloseHandshake, Closing, Phase};
use crate::shard::state::Shard;

/// How much each connection may keep whatever the others do, in bytes.
const FREE_BYTES: usize = 16 << 10;

impl Shard {
    /// Takes account of what a connection keeps after it was given input.
    #[inline]
    pub(in crate::shard) fn keep_input(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        let kept_bytes = connection.kept_input_bytes();
        if kept_bytes > 0 || connection.keeps_input() {
            self.account_input(slot, kept_bytes);
        }
    }

    #[cold]
    fn account_input(&mut self, slot: Slot, kept_bytes: usize) {
        self.connections[slot].note_kept_input(kept_bytes > 0);
        let before = self.input_quota.set(slot, kept_bytes);
        let has_grown = kept_bytes > before.max(FREE_BYTES);
        if has_grown && self.input_quota.sum() > self.limits.server().max_shard_input_bytes {
            self.refuse_input(slot);
        }
    }

    /// A connection has grown while all of them keep too much.
    fn refuse_input(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        match connection.phase() {
            // A head is shorter: this is what was said behind it.
            Phase::Upgrading { .. } => self.lose(slot),
            Phase::Open(_) => {
                let code = CloseCode::TRY_AGAIN_LATER;
                let close = Close::new(code, "too much input waits", ClosedBy::Server);
                self.begin_close(slot, close, CloseHandshake::Fail);
            }
            Phase::PendingClose(_) => {
                // Its end is decided; nothing is waited for any more in what it says.
                if let Some(pending) = connection.pending_close_mut() {
                    pending.stop_listening();
                }
                connection.clear_backlog();
                self.keep_input(slot);
            }
            Phase::Closing(Closing::PeerClose) => {
                connection.continue_closing(Closing::OutboxThenEnd);
                self.clear_input(slot);
            }
            // What is read is discarded.
            Phase::Closing(_) | Phase::Dead => {}
        }
    }

    /// The connection's input does not count any more.
    pub(in crate::shard) fn clear_input(&mut self, slot: Slot) {
        self.connections[slot].clear_input();
        self.keep_input(slot);
    }
}
