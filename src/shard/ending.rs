//! What may be decided about a connection's end at any time, also while a handler runs. Nothing is
//! called or freed here.

use std::time::{Duration, Instant};

use super::connection::{Closing, Farewell, Heard, Leaving, Phase};
use super::reports::Kind;
use super::state::{Shard, Slot};
use crate::error::SendError;
use crate::message::{Close, CloseCode, ClosedBy};

/// How long a peer that was told everything may take to end its side.
const LINGER: Duration = Duration::from_secs(1);

impl Shard {
    /// Decides that an open connection ends. It leaves its endpoint at once; `on_close` is called
    /// later. The first decision stands.
    pub(super) fn begin_close(&mut self, slot: Slot, close: Close, farewell: Farewell) {
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
        self.leave(slot);
        self.connections[slot].phase = Phase::Leaving(Box::new(Leaving {
            close,
            farewell,
            was_told: false,
            has_panicked: false,
            answer_due: None,
        }));
        self.leaving.push(slot);
    }

    /// What a leaving connection may have waited for is over: it goes on, and so does its input.
    pub(super) fn go_on_leaving(&mut self, slot: Slot) {
        if matches!(self.connections[slot].phase, Phase::Leaving(_)) {
            self.leaving.push(slot);
            self.make_ready(slot);
        }
    }

    /// A handler panicked: that ends its connection. If its end was decided before, that stands,
    /// unless it is `on_close` that panicked.
    pub(super) fn fail(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        let (kind, client) = (Kind::Panicked(connection.endpoint), connection.client_ip());
        let (id, path) = (self.id(slot), self.path_for(slot));
        self.report(
            kind,
            format_args!(
                "the handler of {path} panicked; its connection {id} with {client} is closed"
            ),
        );
        if let Phase::Leaving(leaving) = &mut self.connections[slot].phase {
            leaving.has_panicked |= leaving.was_told;
            return;
        }
        let code = CloseCode::INTERNAL_ERROR;
        let close = Close::new(code, "handler panicked", ClosedBy::Application);
        self.begin_close(slot, close, Farewell::Close);
    }

    /// Drops on the application's wish.
    pub(super) fn abort(&mut self, slot: Slot) {
        let close = Close::new(CloseCode::ABNORMAL, "aborted", ClosedBy::Application);
        self.cut_off(slot, close);
    }

    /// The connection is broken: nothing can be read or written any more.
    pub(super) fn lose(&mut self, slot: Slot) {
        let close = Close::new(CloseCode::ABNORMAL, "connection lost", ClosedBy::Peer);
        self.cut_off(slot, close);
    }

    /// Ends a connection that gets nothing any more, however far its end has come.
    fn cut_off(&mut self, slot: Slot, close: Close) {
        self.begin_close(slot, close, Farewell::Nothing);
        match &mut self.connections[slot].phase {
            Phase::Leaving(leaving) => {
                // Its end was decided before; it may be waiting for what is of no use any more.
                leaving.farewell = Farewell::Nothing;
                self.leaving.push(slot);
            }
            Phase::Upgrading { .. } | Phase::Closing(_) => self.kill(slot),
            Phase::Open | Phase::Dead => {}
        }
    }

    /// Ends a connection for good: it is freed at the end of the turn. What was queued for it is
    /// counted as dropped.
    pub(super) fn kill(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        debug_assert!(!matches!(connection.phase, Phase::Open | Phase::Leaving(_)));
        if connection.is_dead() {
            return;
        }
        connection.phase = Phase::Dead;
        self.forget_input(slot);
        self.break_stream(slot);
        let connection = &mut self.connections[slot];
        self.queued_bytes -= connection.outbox.bytes();
        let lost = if connection.flags.has_opened { connection.outbox.message_count() } else { 0 };
        let why = self.why_lost();
        self.connections[slot].outbox.give_up(why);
        self.dead.push(slot);
        self.count_dropped(lost);
    }

    /// What those are told whose messages are lost with a connection.
    pub(super) fn why_lost(&self) -> SendError {
        match self.grace_end() {
            Some(grace_end) if grace_end <= self.now => SendError::ShuttingDown,
            _ => SendError::Gone,
        }
    }

    /// Everything was said: waits for `closing`, at most for the time of the closing handshake, or
    /// of the server's grace if it shuts down.
    pub(super) fn begin_closing(&mut self, slot: Slot, closing: Closing) {
        let deadline = self.closing_due(slot);
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing(closing);
        connection.deadline = deadline;
        self.arm(slot, deadline);
    }

    /// When a closing handshake that begins now is over.
    pub(super) fn closing_due(&self, slot: Slot) -> Instant {
        self.grace_end().unwrap_or_else(|| self.now + self.limits_of(slot).closing)
    }

    /// After a connection's turn: goes on with closing when everything queued has been handed over.
    pub(super) fn settle(&mut self, slot: Slot) {
        self.keep_input(slot);
        let connection = &mut self.connections[slot];
        if !connection.outbox.is_empty() {
            return;
        }
        match connection.phase {
            Phase::Closing(Closing::Outbox) => self.kill(slot),
            Phase::Closing(Closing::OutboxThenEnd) => {
                connection.transport.shut_down_write();
                connection.phase = Phase::Closing(Closing::PeerEnd);
                let deadline = connection.deadline.min(self.now + LINGER);
                connection.deadline = deadline;
                self.arm(slot, deadline);
            }
            Phase::Upgrading { heard: Heard::Answered } => self.begin_keep_alive(slot),
            _ => {}
        }
    }
}
