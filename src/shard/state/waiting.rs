//! Connections whose next step waits: for the answer of a handler, or for the next request.
//!
//! Knows deadlines and marks. Must not know what is waited for: futures are `dispatch`'s.

use std::sync::Arc;
use std::time::Instant;

use crate::hub::Slot;
use crate::hub::waker::ConnectionWaker;
use crate::shard::state::Shard;

/// A handler's answer comes later.
impl Shard {
    /// What wakes a connection: the shard looks at it again.
    pub(in crate::shard) fn waker_of(&self, slot: Slot) -> Arc<ConnectionWaker> {
        let doorbell = Arc::clone(self.link().mailbox.doorbell());
        ConnectionWaker::new(self.connections[slot].address(), doorbell)
    }

    /// The connection's input waits for an answer.
    pub(in crate::shard) fn begin_waiting(&mut self, slot: Slot) {
        self.connections[slot].set_waiting(true);
    }

    /// The connection's input goes on, or its end does.
    pub(in crate::shard) fn end_waiting(&mut self, slot: Slot) {
        self.connections[slot].set_waiting(false);
        self.continue_close(slot);
        self.make_ready(slot);
    }

    /// The connection's end waits for an answer: as long as is known, else for the time of the
    /// closing handshake.
    pub(in crate::shard) fn await_last_answer(&mut self, slot: Slot) {
        let new_due = self.closing_due(slot);
        let Some(pending) = self.connections[slot].pending_close_mut() else { return };
        let due = pending.answer_due().unwrap_or(new_due);
        pending.await_answer(due);
        self.set_deadline(slot, due);
    }

    /// The peer has sent its Close or ended its side while its handler's answer is awaited. From
    /// then on the closing timeout counts for this answer and for those to the messages behind it.
    /// Returns whether it is over.
    pub(in crate::shard) fn is_answer_overdue(&mut self, slot: Slot) -> bool {
        let due = self.now + self.limits_of(slot).close_timeout;
        let connection = &mut self.connections[slot];
        if connection.demand_answer() {
            return connection.deadline() <= self.now;
        }
        self.set_deadline(slot, due);
        false
    }
}

/// The next request.
impl Shard {
    /// A request has begun. The time of the first one began with the connection; that of any other
    /// begins here.
    pub(in crate::shard) fn begin_request(&mut self, slot: Slot) {
        if self.connections[slot].begin_request() {
            self.set_deadline(slot, self.handshake_due());
        }
    }

    /// The response is a page; the connection stays. The client has the time of a handshake to take
    /// it.
    pub(in crate::shard) fn end_request(&mut self, slot: Slot) {
        self.connections[slot].end_request();
        self.set_deadline(slot, self.handshake_due());
    }

    /// The kernel has taken the whole response: the connection may be silent now.
    pub(super) fn begin_keep_alive(&mut self, slot: Slot) {
        self.connections[slot].begin_keep_alive();
        let deadline = self.now + self.limits.server().keep_alive_timeout;
        self.set_deadline(slot, deadline);
    }

    fn handshake_due(&self) -> Instant {
        self.now + self.limits.server().handshake_timeout
    }
}
