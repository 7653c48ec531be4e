//! How a connection ends: `on_close` is called, the last words are sent, the closing handshake
//! begins.

use crate::hub::Slot;
use crate::message::CloseCode;
use crate::shard::EventLoop;
use crate::shard::connection::{CloseHandshake, Closing, Phase};

impl EventLoop {
    /// Calls `on_close` for all whose end is decided.
    pub(in crate::shard) fn run_pending_closes(&mut self) {
        while let Some(slot) = self.shard.pending_closes.pop() {
            if !matches!(self.shard.connections[slot].phase, Phase::PendingClose(_)) {
                // It was closed within its own turn.
                continue;
            }
            self.shard.enter(slot);
            self.close_if_pending(slot);
            self.shard.exit(slot);
            self.shard.settle(slot);
        }
    }

    /// Calls `on_close` if the end is decided, and says the last words; once a handler's answer
    /// that comes later has come, if there is one. It is the turn of `slot`.
    pub(in crate::shard) fn close_if_pending(&mut self, slot: Slot) {
        if self.waits_for_answer(slot) {
            return;
        }
        let Phase::PendingClose(pending) = &mut self.shard.connections[slot].phase else { return };
        if !std::mem::replace(&mut pending.is_reported, true) {
            // What `on_close` leaves to be done has its own time.
            pending.answer_due = None;
            let close = pending.close.clone();
            self.application.close(&mut self.shard, slot, &close);
        }
        if self.waits_for_answer(slot) {
            return;
        }
        // What `on_close` sent may have broken the connection.
        let connection = &mut self.shard.connections[slot];
        let Phase::PendingClose(pending) = &connection.phase else { return };
        let (close, close_handshake) = (pending.close.clone(), pending.close_handshake);
        let closing = match close_handshake {
            CloseHandshake::Close => Closing::PeerClose,
            CloseHandshake::Fail | CloseHandshake::Answer => Closing::OutboxThenEnd,
            // The peer's side has ended.
            CloseHandshake::Message | CloseHandshake::Nothing => Closing::Outbox,
        };
        let (code, reason) = match close.code() {
            _ if pending.has_panicked => (CloseCode::INTERNAL_ERROR, "handler panicked"),
            code if code.is_sendable() => (code, close.reason()),
            _ => (CloseCode::NORMAL, close.reason()),
        };
        let limits = &self.shard.limits[connection.endpoint];
        let output = self.shard.cork.buffer();
        match close_handshake {
            CloseHandshake::Close | CloseHandshake::Fail => {
                connection.protocol.close(code, reason, output, limits);
            }
            CloseHandshake::Answer => {
                connection.protocol.close(close.code(), close.reason(), output, limits);
            }
            CloseHandshake::Message => {}
            CloseHandshake::Nothing => self.shard.discard_cork(slot),
        }
        self.shard.begin_closing(slot, closing);
        if close_handshake == CloseHandshake::Fail {
            self.shard.forget_input(slot);
        }
        if close_handshake == CloseHandshake::Nothing {
            self.shard.kill(slot);
        }
    }

    /// The closing timeout is over. A client that still takes what waits for it gets as long again.
    pub(in crate::shard) fn time_out_closing(&mut self, slot: Slot) {
        let within = self.shard.limits_of(slot).closing;
        if self.shard.makes_progress(slot, within) && self.shard.prolong_closing(slot) {
            return;
        }
        self.shard.kill(slot);
    }

    /// Whether a leaving connection waits for its handler to answer, or for the end of a message.
    /// There is the time of the closing handshake for that, or the server's grace; also if nothing
    /// can be sent any more, because the answer may be the end of work that has to be done.
    fn waits_for_answer(&mut self, slot: Slot) -> bool {
        let connection = &mut self.shard.connections[slot];
        let Phase::PendingClose(pending) = &mut connection.phase else { return false };
        connection.flags.is_waiting =
            connection.flags.has_stream || self.application.tasks.has(slot);
        if !connection.flags.is_waiting {
            return false;
        }
        let known = pending.answer_due;
        let due = known.unwrap_or_else(|| self.shard.closing_due(slot));
        let connection = &mut self.shard.connections[slot];
        if let Phase::PendingClose(pending) = &mut connection.phase {
            pending.answer_due = Some(due);
        }
        connection.deadline = due;
        self.shard.arm(slot, due);
        true
    }
}
