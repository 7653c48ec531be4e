//! Messages that are sent to a connection in pieces. While one is on its way, whatever else is for
//! the connection is held back behind it; control frames pass.
//!
//! Knows streams' credit, the connection's held output, and framing. Must not know handlers
//! (`dispatch`) or the loop.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::SendError;
use crate::hub::credit::Credit;
use crate::hub::ticket::Ticket;
use crate::hub::{Address, Slot};
use crate::message::{Close, CloseCode, ClosedBy};
use crate::protocol::frame;
use crate::shard::connection::{CloseHandshake, Streaming};
use crate::shard::outbox::Outbox;
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::state::Shard;

impl Shard {
    /// How much waits for the end of a message.
    #[cold]
    pub(in crate::shard) fn held_bytes(&self, slot: Slot) -> usize {
        self.connections[slot].streaming().map_or(0, |streaming| streaming.held.bytes())
    }

    /// How much of that does not count against what is queued behind it.
    #[cold]
    pub(in crate::shard) fn held_exempt_bytes(&self, slot: Slot) -> usize {
        self.connections[slot].streaming().map_or(0, |streaming| streaming.held.exempt_bytes())
    }

    /// How much of that stays, whatever is dropped for others.
    #[cold]
    pub(in crate::shard) fn held_kept_bytes(&self, slot: Slot) -> usize {
        self.connections[slot].streaming().map_or(0, |streaming| streaming.held.kept_bytes())
    }

    /// Begins a message in pieces. What was published before comes before it.
    pub(in crate::shard) fn begin_stream(&mut self, slot: Slot) -> Result<Arc<Credit>, SendError> {
        self.catch_up(slot);
        let connection = &self.connections[slot];
        if !connection.is_open() {
            return Err(SendError::Closed);
        }
        if connection.has_stream() {
            return Err(SendError::Overloaded);
        }
        let limit_bytes = self.limits_of(slot).outbox_high_water_bytes;
        let credit = Credit::new(self.waker_of(slot), limit_bytes);
        let held = Outbox::default();
        let streaming = Streaming { credit: Arc::clone(&credit), has_begun: false, held };
        self.connections[slot].begin_stream(streaming);
        Ok(credit)
    }

    /// Queues a piece. Its credit bounds it, so that it is never refused; unless its message was.
    pub(in crate::shard) fn push_piece(&mut self, to: Address, piece: Bytes, ticket: Ticket) {
        let is_piece_of = |streaming: &Streaming| match &ticket {
            Ticket::Piece(piece) => Arc::ptr_eq(piece.credit(), &streaming.credit),
            Ticket::One(_) | Ticket::Share(_) => false,
        };
        let slot = self
            .find(to)
            .filter(|&slot| self.connections[slot].streaming().is_some_and(is_piece_of));
        let is_last = frame::ends_message(&piece);
        let Some(slot) = slot else {
            self.count_dropped(u64::from(is_last));
            ticket.settle(Err(self.why_lost()));
            return;
        };
        if let Some(streaming) = self.connections[slot].streaming_mut() {
            streaming.has_begun = true;
        }
        if self.cork.is_of(slot) {
            // What its handler has sent in this service comes first.
            self.spill(slot);
        }
        self.enqueue(slot, piece, Some(ticket));
        if is_last {
            self.end_stream(slot);
        }
    }

    /// The message is finished: what was held back follows it.
    fn end_stream(&mut self, slot: Slot) {
        if let Some(streaming) = self.connections[slot].take_streaming() {
            self.release(slot, streaming);
        }
        self.continue_close(slot);
    }

    /// What was held back waits no longer.
    fn release(&mut self, slot: Slot, mut streaming: Streaming) {
        self.queued_bytes -= streaming.held.bytes();
        self.queue_held(slot, std::mem::take(&mut streaming.held));
    }

    /// The message will not be finished, because its connection ends: what was held back is lost,
    /// unless nothing of the message has left.
    pub(in crate::shard) fn break_stream(&mut self, slot: Slot) {
        let why = self.why_lost();
        let connection = &mut self.connections[slot];
        let Some(mut streaming) = connection.take_streaming() else { return };
        if !streaming.has_begun && !connection.is_dead() {
            return self.release(slot, streaming);
        }
        connection.cut_short();
        self.queued_bytes -= streaming.held.bytes();
        self.count_dropped(streaming.held.message_count());
        streaming.held.give_up(why);
        // Without it the outbox may count as drained.
        self.make_dirty(slot);
    }

    /// Closes the connection if the message in pieces was abandoned.
    pub(in crate::shard) fn check_stream(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        if connection.streaming().is_some_and(|streaming| streaming.credit.is_abandoned()) {
            let reason = "a message was not finished";
            let close = Close::new(CloseCode::INTERNAL_ERROR, reason, ClosedBy::Application);
            self.begin_close(slot, close, CloseHandshake::Close);
            self.break_stream(slot);
            self.continue_close(slot);
        }
    }

    /// Keeps something back until the message in pieces is finished. It is in the form that the
    /// connection takes.
    pub(in crate::shard) fn hold(
        &mut self,
        slot: Slot,
        outgoing: Outgoing<'_>,
        ticket: Option<Ticket>,
    ) {
        debug_assert!(self.connections[slot].has_stream(), "nothing is to be waited for");
        let held = self.connections[slot].back();
        let before = held.bytes();
        match outgoing.encoded() {
            Err(message) => held.push_message(message),
            Ok(frames) => held.push(frames.clone(), ticket),
        }
        let added = held.bytes() - before;
        self.queued_bytes += added;
        if self.press(slot, added) {
            self.connections[slot].back().exempt_all();
        }
    }
}
