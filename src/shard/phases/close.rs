//! How a connection ends: `on_close` is called, the last words are sent, the closing handshake
//! begins.

use crate::hub::Slot;
use crate::shard::EventLoop;
use crate::shard::connection::CloseHandshake;

impl EventLoop {
    /// Calls `on_close` for all connections whose end is decided.
    #[cold]
    pub(in crate::shard) fn close_all_pending(&mut self) {
        while let Some(slot) = self.shard.take_pending_close() {
            if !self.shard.connection(slot).is_close_pending() {
                // It was closed within its own service.
                continue;
            }
            self.shard.enter(slot);
            self.close_if_pending(slot);
            self.shard.exit(slot);
            self.shard.settle(slot);
        }
    }

    /// Calls `on_close` if the end is decided, and says the last words; once a handler's answer
    /// that comes later has come, if there is one. `slot` is being served.
    pub(in crate::shard) fn close_if_pending(&mut self, slot: Slot) {
        if self.waits_for_answer(slot) {
            return;
        }
        let Some(pending) = self.shard.connection_mut(slot).pending_close_mut() else { return };
        if pending.begin_report() {
            let close = pending.close().clone();
            self.application.close(&mut self.shard, slot, &close);
        }
        if self.waits_for_answer(slot) {
            return;
        }
        // What `on_close` sent may have broken the connection.
        let Some(pending) = self.shard.connection(slot).pending_close() else { return };
        let close_handshake = pending.close_handshake();
        if close_handshake == CloseHandshake::Nothing {
            self.shard.discard_cork(slot);
        } else {
            self.shard.say_close(slot);
        }
        self.shard.begin_closing(slot, close_handshake.closing());
        if close_handshake == CloseHandshake::Fail {
            self.shard.clear_input(slot);
        }
        if close_handshake == CloseHandshake::Nothing {
            self.shard.release_slot(slot);
        }
    }

    /// The closing timeout is over. A client that still takes what waits for it gets as long again.
    pub(in crate::shard) fn time_out_closing(&mut self, slot: Slot) {
        let within = self.shard.limits_of(slot).close_timeout;
        let makes_progress = self.shard.connection_mut(slot).makes_progress(within);
        if makes_progress && self.shard.prolong_closing(slot) {
            return;
        }
        self.shard.release_slot(slot);
    }

    /// Whether a leaving connection waits for its handler to answer, or for the end of a message.
    /// There is the time of the closing handshake for that, or the server's grace; also if nothing
    /// can be sent any more, because the answer may be the end of work that has to be done.
    fn waits_for_answer(&mut self, slot: Slot) -> bool {
        let connection = self.shard.connection_mut(slot);
        if !connection.is_close_pending() {
            return false;
        }
        let is_waiting = connection.has_stream() || self.application.tasks.has(slot);
        connection.set_waiting(is_waiting);
        if is_waiting {
            self.shard.await_last_answer(slot);
        }
        is_waiting
    }
}
