//! What is queued for a connection, and how much may be.
//!
//! Knows outboxes, their bounds and what an overflow policy does. Must not know when they are
//! written.

use bytes::Bytes;

use crate::config::OverflowPolicy;
use crate::error::SendError;
use crate::hub::Slot;
use crate::hub::ticket::Ticket;
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::protocol::frame;
use crate::shard::connection::CloseHandshake;
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::outbox::{Outbox, REFER_BYTES};
use crate::shard::state::Shard;

impl Shard {
    /// Appends a message to what the connection gets that is being served.
    ///
    /// # Errors
    /// As of [`push`](Self::push).
    #[inline]
    pub(in crate::shard) fn push_own(
        &mut self,
        slot: Slot,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        debug_assert!(self.cork.is_of(slot));
        let connection = &self.connections[slot];
        let (has_stream, encoding) = (connection.has_stream(), connection.encoding());
        if has_stream || !encoding.is_plain() || !self.fits(slot, frame::encoded_bytes(message)) {
            return self.push(slot, Outgoing::Message(message), &mut None);
        }
        self.cork.append(message);
        Ok(())
    }

    /// Appends to what a connection gets, in the form that it takes and within its bounds. With a
    /// ticket it is one message that is encoded already.
    ///
    /// # Errors
    /// `Overloaded` when it does not fit; the overflow policy has acted then. The ticket is left to
    /// the caller: the drop is counted before the sender hears of it.
    pub(in crate::shard) fn push(
        &mut self,
        slot: Slot,
        outgoing: Outgoing<'_>,
        ticket: &mut Option<Ticket>,
    ) -> Result<(), SendError> {
        let twin = outgoing.encode(self.connections[slot].encoding());
        let outgoing = twin.as_ref().map_or(outgoing, Outgoing::Frames);
        let bytes = outgoing.bytes();
        if !self.fits(slot, bytes)
            && let Err(error) = self.overflow(slot, bytes)
        {
            return Err(error);
        }
        if self.connections[slot].has_stream() {
            self.hold(slot, outgoing, ticket.take());
        } else if self.cork.is_of(slot) {
            match outgoing.encoded() {
                Err(message) => self.cork.append(message),
                Ok(frames) if frames.len() < REFER_BYTES && ticket.is_none() => {
                    self.cork.append_slice(frames);
                }
                Ok(frames) => {
                    self.spill(slot);
                    self.enqueue(slot, frames.clone(), ticket.take());
                }
            }
        } else {
            self.queue(slot, |outbox| match outgoing.encoded() {
                Err(message) => outbox.push_message(message),
                Ok(frames) if frames.len() < REFER_BYTES && ticket.is_none() => {
                    outbox.push_slice(frames);
                }
                Ok(frames) => outbox.push(frames.clone(), ticket.take()),
            });
        }
        Ok(())
    }

    /// Whether the connection can take so many bytes more.
    ///
    /// Up to the high-water mark it takes a message of any size. If that is larger than the limit,
    /// it does not count against those behind it: what was accepted by right may not make the next
    /// message one too many.
    #[inline]
    fn fits(&self, slot: Slot, bytes: usize) -> bool {
        let limits = self.limits_of(slot);
        let queued = self.buffered_bytes(slot);
        queued <= limits.outbox_high_water_bytes
            || (queued - self.exempt_bytes(slot) + bytes <= limits.max_outbox_bytes
                && self.queued_bytes + bytes <= limits.max_shard_outbox_bytes)
    }

    /// How much of what waits for a connection does not count against what is queued behind it.
    fn exempt_bytes(&self, slot: Slot) -> usize {
        let connection = &self.connections[slot];
        let held = if connection.has_stream() { self.held_exempt_bytes(slot) } else { 0 };
        connection.outbox().exempt_bytes() + held
    }

    /// How much of what waits for a connection stays, whatever is dropped for others: of what a
    /// message in pieces holds back, nothing before it is dropped.
    fn kept_bytes(&self, slot: Slot) -> usize {
        let connection = &self.connections[slot];
        if connection.has_stream() {
            return connection.outbox().bytes() + self.held_kept_bytes(slot);
        }
        connection.outbox().kept_bytes()
    }

    /// The outbox cannot take so many bytes more: acts as the policy says.
    #[cold]
    fn overflow(&mut self, slot: Slot, bytes: usize) -> Result<(), SendError> {
        if self.cork.is_of(slot) {
            // What was sent in this service may end with a message that is larger than the limit.
            self.spill(slot);
            if self.fits(slot, bytes) {
                return Ok(());
            }
        }
        match self.limits_of(slot).overflow {
            OverflowPolicy::Close => {
                let close =
                    Close::new(CloseCode::TRY_AGAIN_LATER, "reads too slowly", ClosedBy::Server);
                self.begin_close(slot, close, CloseHandshake::Close);
            }
            OverflowPolicy::DropNewest => {}
            OverflowPolicy::DropOldest => {
                let kept = self.kept_bytes(slot);
                let counted = kept - self.exempt_bytes(slot);
                let limits = self.limits_of(slot);
                if kept > limits.outbox_high_water_bytes
                    && counted + bytes > limits.max_outbox_bytes
                {
                    // Whatever is dropped, it would be in vain.
                    return Err(SendError::Overloaded);
                }
                while !self.fits(slot, bytes) {
                    let connection = &mut self.connections[slot];
                    let outbox = connection.back();
                    let before = outbox.bytes();
                    let Some(dropped) = outbox.drop_oldest() else {
                        return Err(SendError::Overloaded);
                    };
                    self.queued_bytes = self.queued_bytes + outbox.bytes() - before;
                    self.count_dropped(1);
                    dropped.settle();
                }
                return Ok(());
            }
        }
        Err(SendError::Overloaded)
    }

    pub(in crate::shard) fn enqueue(&mut self, slot: Slot, frames: Bytes, ticket: Option<Ticket>) {
        self.queue(slot, |outbox| outbox.push(frames, ticket));
    }

    /// Adds something to an outbox, and to the account of all.
    pub(in crate::shard) fn queue(&mut self, slot: Slot, add: impl FnOnce(&mut Outbox)) {
        let added = self.add_to_outbox(slot, add);
        self.account_queued(slot, added);
    }

    /// Adds what an outbox has got to the account of all.
    pub(super) fn account_queued(&mut self, slot: Slot, added: usize) {
        self.queued_bytes += added;
        self.make_dirty(slot);
        if self.press(slot, added) {
            self.connections[slot].outbox_mut().exempt_all();
        }
    }

    /// The same for what was held back: each message of it was accepted before.
    pub(in crate::shard) fn queue_held(&mut self, slot: Slot, held: Outbox) {
        if held.is_empty() {
            return self.make_dirty(slot);
        }
        let added = self.add_to_outbox(slot, |outbox| outbox.append(held));
        self.queued_bytes += added;
        self.make_dirty(slot);
        self.press(slot, added);
    }

    /// Adds something to an outbox. Returns how many bytes that were.
    fn add_to_outbox(&mut self, slot: Slot, add: impl FnOnce(&mut Outbox)) -> usize {
        let connection = &mut self.connections[slot];
        debug_assert!(!connection.is_dead(), "nothing is queued for the dead");
        let outbox = connection.outbox_mut();
        let before = outbox.bytes();
        outbox.borrow_queue(&mut self.spares);
        add(outbox);
        outbox.bytes() - before
    }

    /// Notes that the outbox is above its high-water mark, if it is. Returns whether the bytes that
    /// were added last have made it exceed its limit from below the mark: then they end with a
    /// message that is larger than the limit.
    pub(super) fn press(&mut self, slot: Slot, added: usize) -> bool {
        let connection = &mut self.connections[slot];
        let held = if connection.has_stream() { connection.back().bytes() } else { 0 };
        let limits = &self.limits[connection.endpoint()];
        let queued = connection.outbox().bytes() + held;
        if queued <= limits.outbox_high_water_bytes {
            return false;
        }
        connection.set_pressed(true);
        queued > limits.max_outbox_bytes && queued - added <= limits.outbox_high_water_bytes
    }
}
