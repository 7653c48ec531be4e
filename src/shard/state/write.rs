//! Handing output to the kernel, and keeping what it does not take.
//!
//! Knows the cork, outboxes and what becomes of a write. Must not know when a service begins or
//! ends.

use std::io::IoSlice;

use bytes::Bytes;

use crate::error::SendError;
use crate::hub::Slot;
use crate::hub::ticket::Ticket;
use crate::message::Message;
use crate::protocol::frame::{self, LONG_HEADER_BYTES};
use crate::shard::outbox::{Begun, Flushed, begun_bytes, count_messages, pongs_first};
use crate::shard::state::Shard;
use crate::transport::Output;

impl Shard {
    /// Hands the cork to the kernel; what it does not take goes to the outbox.
    pub(super) fn write_cork(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.has_output() || connection.is_blocked() {
            self.spill(slot);
            return;
        }
        let length = self.cork.bytes().len();
        let output = connection.write(self.cork.bytes());
        let high_water_bytes = self.limits[connection.endpoint()].outbox_high_water_bytes;
        if output == Output::Bytes(length) && length <= high_water_bytes {
            self.cork.clear();
        } else {
            self.end_cork_write(slot, output);
        }
    }

    /// What is left to do when a write of the cork was not small, or not whole.
    #[cold]
    pub(super) fn end_cork_write(&mut self, slot: Slot, output: Output) {
        let bytes = self.cork.bytes();
        let was_high = bytes.len() > self.limits_of(slot).outbox_high_water_bytes;
        let Output::Bytes(written) = output else {
            self.discard_cork(slot);
            return self.lose_output(slot);
        };
        let begun = Begun::http(self.cork_http_bytes(slot)).after(bytes, written);
        let held_bytes = self.connections[slot].held_bytes();
        let rest = &bytes[written..];
        let (begun_part, frames) = rest.split_at(begun_bytes(rest, begun.bytes(), held_bytes));
        let rest = [begun_part, &pongs_first(frames)].concat();
        self.keep_rest(slot, rest.into(), begun, None);
        self.cork.clear();
        let connection = &self.connections[slot];
        if was_high && !connection.is_pressed() && connection.is_open() {
            // The handler may have seen backpressure, which the kernel has taken away at once.
            self.note_drained(slot);
        }
    }

    /// Sends a reply that is long enough for a write of its own, from where it lies.
    ///
    /// # Errors
    /// As of [`push`](Self::push); `Gone` if the connection is broken.
    #[cold]
    pub(super) fn reply_long(&mut self, slot: Slot, message: Message<'_>) -> Result<(), SendError> {
        if !self.cork.bytes().is_empty() {
            self.write_cork(slot);
        }
        let connection = &mut self.connections[slot];
        if !connection.may_write_at_once() || !connection.is_open() {
            return self.push_own(slot, message);
        }
        let (header, payload) = (frame::long_header(message), message.as_bytes());
        let output = connection.write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)]);
        let Output::Bytes(written) = output else {
            self.lose_output(slot);
            return Err(SendError::Gone);
        };
        let header = header.get(written..).unwrap_or_default();
        let payload = &payload[written.saturating_sub(LONG_HEADER_BYTES)..];
        let shared = if header.is_empty() { self.cork.share(payload) } else { None };
        let rest = shared.unwrap_or_else(|| [header, payload].concat().into());
        let begun = if written > 0 { Begun::message(rest.len()) } else { Begun::default() };
        self.keep_rest(slot, rest, begun, None);
        Ok(())
    }

    /// What is left to do when a write of shared frames was not whole.
    #[cold]
    pub(super) fn end_shared_write(
        &mut self,
        slot: Slot,
        frames: &Bytes,
        ticket: Option<Ticket>,
        output: Output,
    ) {
        match output {
            Output::Bytes(written) => {
                let begun = Begun::default().after(frames, written);
                self.keep_rest(slot, frames.slice(written..), begun, ticket);
            }
            Output::Broken => {
                self.count_dropped(count_messages(frames));
                if let Some(ticket) = ticket {
                    ticket.settle(Err(SendError::Gone));
                }
                self.lose_output(slot);
            }
        }
    }

    /// Queues what the kernel did not take of a write to a connection with an empty outbox.
    fn keep_rest(&mut self, slot: Slot, rest: Bytes, begun: Begun, ticket: Option<Ticket>) {
        let connection = &mut self.connections[slot];
        if rest.is_empty() || connection.is_dead() {
            debug_assert!(ticket.is_none(), "a shared write is to an open connection, not whole");
            return;
        }
        let added = rest.len();
        connection.keep_rest(rest, begun, ticket);
        self.account_queued(slot, added);
    }

    /// `on_drain` is to be called.
    fn note_drained(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.mark_drained() {
            self.drained.push(connection.address());
        }
    }

    /// The kernel takes bytes again: so the peer has taken some, which is a sign of life.
    pub(in crate::shard) fn unblock(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.unblock(self.now);
        if !connection.has_opened() {
            // A download takes as long as it goes on.
            let deadline = self.now + self.limits.server().handshake_timeout;
            connection.set_deadline(deadline.max(connection.deadline()));
        } else if connection.is_closing() {
            self.prolong_closing(slot);
        }
        self.make_dirty(slot);
    }

    /// Hands an outbox to the kernel.
    pub(in crate::shard) fn flush(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.unmark_dirty();
        if connection.is_dead() {
            return;
        }
        let before = connection.outbox().bytes();
        let flushed = connection.flush(&mut self.spares);
        let after = connection.outbox().bytes();
        // The segments may have become more, though their bytes did not.
        self.queued_bytes = self.queued_bytes + after - before;
        let is_pressed = connection.is_pressed();
        if is_pressed && self.buffered_bytes(slot) <= self.limits_of(slot).outbox_low_water_bytes {
            let connection = &mut self.connections[slot];
            connection.set_pressed(false);
            if connection.is_open() {
                self.note_drained(slot);
            }
            self.make_ready(slot);
        }
        match flushed {
            Flushed::Empty => self.settle(slot),
            Flushed::Blocked => {}
            Flushed::Broken => self.lose_output(slot),
        }
    }
}
