//! How connections end: `on_close` is called, the last words are sent, the closing handshake runs;
//! one by one, or all of them when the server shuts down.

use std::sync::atomic::Ordering;

use super::connection::{Closing, Farewell, Phase};
use super::state::Slot;
use super::{EventLoop, Life};
use crate::error::Refusal;
use crate::hub::Envelope;
use crate::message::{Close, CloseCode, ClosedBy};

impl EventLoop {
    /// Calls `on_close` for all whose end is decided.
    pub(super) fn close_leaving(&mut self) {
        while let Some(slot) = self.shard.leaving.pop() {
            if !matches!(self.shard.connections[slot].phase, Phase::Leaving(_)) {
                // It was closed within its own turn.
                continue;
            }
            self.shard.enter(slot);
            self.close_if_leaving(slot);
            self.shard.exit(slot);
            self.shard.settle(slot);
        }
    }

    /// Calls `on_close` if the end is decided, and says the last words; once a handler's answer
    /// that comes later has come, if there is one. It is the turn of `slot`.
    pub(super) fn close_if_leaving(&mut self, slot: Slot) {
        if self.waits_for_answer(slot) {
            return;
        }
        let Phase::Leaving(leaving) = &mut self.shard.connections[slot].phase else { return };
        if !std::mem::replace(&mut leaving.was_told, true) {
            let close = leaving.close.clone();
            self.application.close(&mut self.shard, slot, &close);
        }
        if self.waits_for_answer(slot) {
            return;
        }
        // What `on_close` sent may have broken the connection.
        let connection = &mut self.shard.connections[slot];
        let Phase::Leaving(leaving) = &connection.phase else { return };
        let (close, farewell) = (leaving.close.clone(), leaving.farewell);
        let closing = match farewell {
            Farewell::Close => Closing::PeerClose,
            Farewell::Fail => Closing::OutboxThenEnd,
            Farewell::Answer | Farewell::Message | Farewell::Nothing => Closing::Outbox,
        };
        let (code, reason) = match close.code() {
            _ if leaving.has_panicked => (CloseCode::INTERNAL_ERROR, "handler panicked"),
            code if code.is_sendable() => (code, close.reason()),
            _ => (CloseCode::NORMAL, close.reason()),
        };
        match farewell {
            Farewell::Close | Farewell::Fail => {
                let limits = &self.shard.limits[connection.endpoint];
                let scratch = &mut self.shard.scratch;
                connection.protocol.close(code, reason, scratch, limits);
            }
            Farewell::Answer => connection.protocol.answer_close(&mut self.shard.scratch),
            Farewell::Message => {}
            Farewell::Nothing => self.shard.discard_scratch(slot),
        }
        self.shard.begin_closing(slot, closing);
        if farewell == Farewell::Nothing {
            self.shard.kill(slot);
        }
    }

    /// Whether a leaving connection waits for its handler to answer, or for the end of a message.
    /// There is the time of the closing handshake for that, or the server's grace; who can be told
    /// nothing more does not wait.
    fn waits_for_answer(&mut self, slot: Slot) -> bool {
        let grace_end = self.shard.hub.shared().shutdown.deadline();
        let due = grace_end.unwrap_or(self.shard.now + self.shard.limits_of(slot).closing);
        let connection = &mut self.shard.connections[slot];
        let Phase::Leaving(leaving) = &mut connection.phase else { return false };
        connection.flags.is_waiting =
            connection.flags.has_stream || self.application.tasks.has(slot);
        if !connection.flags.is_waiting {
            return false;
        }
        if leaving.farewell == Farewell::Nothing {
            self.stop_waiting(slot);
            return false;
        }
        let due = *leaving.answer_due.get_or_insert(due);
        connection.deadline = due;
        self.shard.arm(slot, due);
        true
    }

    /// Goes on with the server's shutdown, if one has begun.
    pub(super) fn advance_shutdown(&mut self) {
        let Some(deadline) = self.shard.hub.shared().shutdown.deadline() else { return };
        let hub = self.shard.hub.clone();
        let shutdown = &hub.shared().shutdown;
        let has_expired = deadline <= self.shard.now;
        if self.life == Life::Running {
            // The socket closes: who connects from now on is refused, or reaches another process.
            self.listener = None;
            self.life = Life::Quieting { is_quiet: false };
        }
        if let Life::Quieting { is_quiet } = &mut self.life {
            if !*is_quiet && !self.shard.links.is_blocked() {
                *is_quiet = true;
                self.shard.links.quiet();
                shutdown.quiet_count.fetch_add(1, Ordering::AcqRel);
            }
            let shard_count = hub.shared().mailboxes.len();
            let are_all_quiet = shutdown.quiet_count.load(Ordering::Acquire) >= shard_count;
            if are_all_quiet || has_expired {
                self.begin_closing_all();
            }
        }
        if self.life == Life::Closing && has_expired {
            self.abort_all();
        }
    }

    /// Nothing more will come from other shards than what is in the mailbox: delivers that, then
    /// closes every connection.
    fn begin_closing_all(&mut self) {
        self.inbox.mailbox().close();
        loop {
            while let Some(envelope) = self.inbox.take(Envelope::size) {
                self.open_envelope(envelope);
            }
            if self.inbox.is_settled() {
                break;
            }
            // Some thread is between its reservation and its send.
            std::thread::yield_now();
        }
        self.life = Life::Closing;
        let members: Vec<Slot> = self.shard.fanout.audiences.everybody().collect();
        let open_count = members.len();
        for slot in members {
            let close =
                Close::new(CloseCode::GOING_AWAY, "server is shutting down", ClosedBy::Server);
            self.shard.begin_close(slot, close, Farewell::Close);
        }
        self.close_leaving();
        let shutdown = &self.shard.hub.shared().shutdown;
        shutdown.open_count.fetch_add(open_count, Ordering::Relaxed);
        self.turn_away_upgrading();
    }

    /// Whoever has begun a request is told; whoever has not is closed.
    fn turn_away_upgrading(&mut self) {
        let is_upgrading = |phase: &Phase| matches!(phase, Phase::Upgrading { .. });
        let slots: Vec<Slot> = self.shard.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if !is_upgrading(&self.shard.connections[slot].phase) {
                continue;
            }
            if self.shard.connections[slot].flags.is_waiting {
                self.application.cancel(&mut self.shard, slot);
                self.turn_away(slot, Refusal::Unavailable);
                continue;
            }
            // A request may lie in the kernel, unread: closing would answer it with a reset.
            self.shard.connections[slot].flags.is_surplus = true;
            self.receive_from_one(slot);
            if !is_upgrading(&self.shard.connections[slot].phase) {
                continue;
            }
            if self.shard.connections[slot].backlog.is_empty() {
                self.shard.begin_closing(slot, Closing::Outbox);
                self.shard.settle(slot);
            } else {
                self.turn_away(slot, Refusal::Unavailable);
            }
        }
    }

    /// The grace is over: drops what is left.
    fn abort_all(&mut self) {
        self.close_leaving();
        let slots: Vec<Slot> = self.shard.connections.iter().map(|(slot, _)| slot).collect();
        let mut aborted_count = 0;
        for slot in slots {
            if self.shard.connections[slot].is_dead() {
                continue;
            }
            // Who lingers has been told everything.
            let lingers =
                matches!(self.shard.connections[slot].phase, Phase::Closing(Closing::PeerEnd));
            aborted_count += usize::from(!lingers);
            self.shard.lose(slot);
        }
        self.close_leaving();
        // Nobody is left who could hand it over.
        let lost_count = self.shard.links.flush() + self.shard.links.give_up();
        self.shard.count_dropped(lost_count);
        let shutdown = &self.shard.hub.shared().shutdown;
        shutdown.aborted_count.fetch_add(aborted_count, Ordering::Relaxed);
    }
}
