//! What may be decided about a connection's end at any time, also while a handler runs. Nothing is
//! called or freed here.
//!
//! Knows phases of a connection, close codes and the lists. Must not know handlers (`dispatch`) or
//! the loop: `on_close` is called by `phases`.

use std::time::Instant;

use crate::error::SendError;
use crate::hub::Slot;
use crate::message::{Close, CloseCode, ClosedBy};
use crate::shard::connection::{CloseHandshake, Closing, Heard, Phase};
use crate::shard::reports::Kind;
use crate::shard::state::Shard;

impl Shard {
    /// Decides that an open connection ends. It leaves its endpoint at once; `on_close` is called
    /// later. The first decision stands.
    pub(in crate::shard) fn begin_close(
        &mut self,
        slot: Slot,
        close: Close,
        close_handshake: CloseHandshake,
    ) {
        if !self.connections[slot].is_open() {
            return;
        }
        // What was published before is still delivered.
        self.catch_up(slot);
        if !self.connections[slot].is_open() {
            // Catching up has overflowed its outbox: that decided.
            return;
        }
        self.report_close(slot, &close);
        if let Some(membership) = self.connections[slot].begin_close(close, close_handshake) {
            self.leave(slot, membership);
        }
        self.pending_closes.push(slot);
    }

    /// What a leaving connection may have waited for is over: it goes on, and so does its input.
    pub(in crate::shard) fn continue_close(&mut self, slot: Slot) {
        if self.connections[slot].is_close_pending() {
            self.pending_closes.push(slot);
            self.make_ready(slot);
        }
    }

    /// A handler panicked: that ends its connection. If its end was decided before, that stands,
    /// unless it is `on_close` that panicked.
    pub(in crate::shard) fn fail(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        let (kind, client) = (Kind::Panicked(connection.endpoint()), connection.client_ip());
        let (id, path) = (self.id(slot), self.path_for(slot));
        self.report(
            kind,
            format_args!(
                "the handler of {path} panicked; its connection {id} with {client} is closed"
            ),
        );
        if let Some(pending) = self.connections[slot].pending_close_mut() {
            pending.note_panic();
            return;
        }
        let code = CloseCode::INTERNAL_ERROR;
        let close = Close::new(code, "handler panicked", ClosedBy::Application);
        self.begin_close(slot, close, CloseHandshake::Close);
    }

    /// Says the Close frame of an end that is decided, if it has one.
    pub(in crate::shard) fn say_close(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.write_close(self.cork.buffer(), &self.limits[connection.endpoint()]);
    }

    /// Drops on the application's wish.
    pub(in crate::shard) fn abort(&mut self, slot: Slot) {
        let close = Close::new(CloseCode::ABNORMAL, "aborted", ClosedBy::Application);
        self.cut_off(slot, close);
    }

    /// The connection is broken: nothing can be read or written any more.
    pub(in crate::shard) fn lose(&mut self, slot: Slot) {
        let close = Close::new(CloseCode::ABNORMAL, "connection lost", ClosedBy::Peer);
        self.cut_off(slot, close);
    }

    /// Nothing can be written any more. What an open connection has said before is still handled,
    /// up to the end, which is read behind it.
    pub(in crate::shard) fn lose_output(&mut self, slot: Slot) {
        if !self.connections[slot].is_open() {
            return self.lose(slot);
        }
        // For a kernel that still knows a peer: now both ends know.
        self.connections[slot].shut_down_write();
        self.release_output(slot);
        self.make_ready(slot);
    }

    /// Ends a connection that gets nothing any more, however far its end has come.
    fn cut_off(&mut self, slot: Slot, close: Close) {
        self.begin_close(slot, close, CloseHandshake::Nothing);
        let connection = &mut self.connections[slot];
        if let Some(pending) = connection.pending_close_mut() {
            // Its end may have been decided before. What its handlers have left to be done goes on;
            // only nothing is sent any more.
            pending.cut_off();
            connection.shut_down();
            self.release_output(slot);
            self.pending_closes.push(slot);
        } else if !connection.is_open() {
            self.release_slot(slot);
        }
    }

    /// Ends a connection for good: it is freed at the end of the turn. What was queued for it is
    /// counted as dropped.
    pub(in crate::shard) fn release_slot(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.is_dead() {
            return;
        }
        connection.die();
        self.clear_input(slot);
        self.release_output(slot);
        self.dead.push(slot);
    }

    /// Drops and counts what is queued for a connection: it cannot be delivered.
    fn release_output(&mut self, slot: Slot) {
        self.break_stream(slot);
        let why = self.why_lost();
        let connection = &mut self.connections[slot];
        self.queued_bytes -= connection.outbox().bytes();
        let lost_count = connection.undelivered_count();
        self.count_dropped(lost_count);
        self.connections[slot].release_output(why);
    }

    /// What those are told whose messages are lost with a connection.
    pub(in crate::shard) fn why_lost(&self) -> SendError {
        match self.grace_end() {
            Some(grace_end) if grace_end <= self.now => SendError::ShuttingDown,
            _ => SendError::Gone,
        }
    }

    /// Everything was said: waits for `closing`, at most for the time of the closing handshake, or
    /// of the server's grace if it shuts down.
    pub(in crate::shard) fn begin_closing(&mut self, slot: Slot, closing: Closing) {
        let deadline = self.closing_due(slot);
        self.connections[slot].begin_closing(closing);
        self.set_deadline(slot, deadline);
        self.connections[slot].note_progress();
    }

    /// The peer takes what waits for it: it gets the closing timeout anew, within the grace of a
    /// shutdown. Returns whether that is more time than it had.
    pub(in crate::shard) fn prolong_closing(&mut self, slot: Slot) -> bool {
        let deadline = self.next_step_due(slot);
        let is_longer = deadline > self.connections[slot].deadline();
        if is_longer {
            self.set_deadline(slot, deadline);
        }
        is_longer
    }

    /// When a next step of the peer is due that has just made one, within the grace of a shutdown.
    fn next_step_due(&self, slot: Slot) -> Instant {
        let due = self.now + self.limits_of(slot).close_timeout;
        self.grace_end().map_or(due, |grace_end| grace_end.min(due))
    }

    /// When a closing handshake that begins now is over.
    pub(in crate::shard) fn closing_due(&self, slot: Slot) -> Instant {
        self.grace_end().unwrap_or_else(|| self.now + self.limits_of(slot).close_timeout)
    }

    /// After a connection's service: goes on with closing when everything queued has been handed
    /// over.
    pub(in crate::shard) fn settle(&mut self, slot: Slot) {
        self.keep_input(slot);
        let connection = &mut self.connections[slot];
        if connection.has_output() {
            return;
        }
        match connection.phase() {
            Phase::Closing(Closing::Outbox) => self.release_slot(slot),
            Phase::Closing(Closing::OutboxThenEnd) => {
                connection.finish();
                connection.continue_closing(Closing::PeerEnd);
                let before = connection.deadline();
                let deadline = self.next_step_due(slot);
                if deadline != before {
                    self.set_deadline(slot, deadline);
                }
            }
            Phase::Upgrading { heard: Heard::Answered } => self.begin_keep_alive(slot),
            _ => {}
        }
    }
}
