//! How output reaches the kernel: bounds, the scratch of the connection whose turn it is, outboxes,
//! writes.
//!
//! Knows frames only as bytes that belong together.

use std::io::IoSlice;

use bytes::Bytes;

use crate::config::Overflow;
use crate::error::SendError;
use crate::hub::ticket::Ticket;
use crate::hub::{EndpointIndex, Slot};
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::protocol::frame::{self, LONG_HEADER_BYTES};
use crate::shard::connection::{Farewell, Phase};
use crate::shard::limits::Quick;
use crate::shard::outbox::cork::SCRATCH_BYTES;
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::outbox::{Begun, Flushed, Outbox, REFER_BYTES, count_messages, pongs_first};
use crate::shard::state::Shard;
use crate::transport::Output;

/// What the scratch may keep allocated from one turn to the next, in bytes.
const SCRATCH_KEPT_BYTES: usize = 4 << 20;

impl Shard {
    /// Appends a message to what the connection gets whose turn it is.
    ///
    /// # Errors
    /// As of [`push`](Self::push).
    #[inline]
    pub(in crate::shard) fn push_own(
        &mut self,
        slot: Slot,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        debug_assert_eq!(self.current, Some(slot));
        let has_stream = self.connections[slot].flags.has_stream;
        if has_stream || !self.fits(slot, frame::encoded_bytes(message)) {
            return self.push(slot, Outgoing::Message(message), &mut None);
        }
        frame::append(&mut self.scratch, message);
        Ok(())
    }

    /// Appends to what a connection gets, within its bounds. With a ticket it is one message that
    /// is encoded already.
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
        let bytes = outgoing.bytes();
        if !self.fits(slot, bytes)
            && let Err(error) = self.overflow(slot, bytes)
        {
            return Err(error);
        }
        if self.connections[slot].flags.has_stream {
            self.hold(slot, outgoing, ticket.take());
        } else if self.current == Some(slot) {
            match outgoing {
                Outgoing::Message(message) => frame::append(&mut self.scratch, message),
                Outgoing::Frames(frames) if frames.len() < REFER_BYTES && ticket.is_none() => {
                    self.scratch.extend_from_slice(frames);
                }
                Outgoing::Frames(frames) => {
                    self.spill(slot);
                    self.enqueue(slot, frames.clone(), ticket.take());
                }
            }
        } else {
            self.queue(slot, |outbox| match outgoing {
                Outgoing::Message(message) => outbox.push_message(message),
                Outgoing::Frames(frames) if frames.len() < REFER_BYTES && ticket.is_none() => {
                    outbox.push_slice(frames);
                }
                Outgoing::Frames(frames) => outbox.push(frames.clone(), ticket.take()),
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
            || (queued - self.exempt_bytes(slot) + bytes <= limits.outbox_bytes
                && self.queued_bytes + bytes <= limits.shard_outbox_bytes)
    }

    /// How much of what waits for a connection does not count against what is queued behind it.
    fn exempt_bytes(&self, slot: Slot) -> usize {
        let connection = &self.connections[slot];
        let held = if connection.flags.has_stream { self.held_exempt_bytes(slot) } else { 0 };
        connection.outbox.exempt_bytes() + held
    }

    /// How much of what waits for a connection stays, whatever is dropped for others: of what a
    /// message in pieces holds back, nothing before it is dropped.
    fn kept_bytes(&self, slot: Slot) -> usize {
        let connection = &self.connections[slot];
        if connection.flags.has_stream {
            return connection.outbox.bytes() + self.held_kept_bytes(slot);
        }
        connection.outbox.kept_bytes()
    }

    /// The outbox cannot take so many bytes more: acts as the policy says.
    #[cold]
    fn overflow(&mut self, slot: Slot, bytes: usize) -> Result<(), SendError> {
        if self.current == Some(slot) {
            // What was said in this turn may end with a message that is larger than the limit.
            self.spill(slot);
            if self.fits(slot, bytes) {
                return Ok(());
            }
        }
        match self.limits_of(slot).overflow {
            Overflow::Close => {
                let close =
                    Close::new(CloseCode::TRY_AGAIN_LATER, "reads too slowly", ClosedBy::Server);
                self.begin_close(slot, close, Farewell::Close);
            }
            Overflow::DropNewest => {}
            Overflow::DropOldest => {
                let kept = self.kept_bytes(slot);
                let counted = kept - self.exempt_bytes(slot);
                let limits = self.limits_of(slot);
                if kept > limits.outbox_high_water_bytes && counted + bytes > limits.outbox_bytes {
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
        if self.press(slot, added) {
            self.connections[slot].outbox.exempt_all();
        }
    }

    /// The same for what was held back: each message of it was accepted before.
    pub(in crate::shard) fn queue_held(&mut self, slot: Slot, held: Outbox) {
        let added = self.add_to_outbox(slot, |outbox| outbox.append(held));
        self.press(slot, added);
    }

    /// Adds something to an outbox, and to the account of all. Returns how many bytes that were.
    fn add_to_outbox(&mut self, slot: Slot, add: impl FnOnce(&mut Outbox)) -> usize {
        let connection = &mut self.connections[slot];
        debug_assert!(!connection.is_dead(), "nothing is queued for the dead");
        let before = connection.outbox.bytes();
        connection.outbox.borrow_queue(&mut self.spares);
        add(&mut connection.outbox);
        let added = connection.outbox.bytes() - before;
        self.queued_bytes += added;
        self.make_dirty(slot);
        added
    }

    /// Queues a control frame; before all data that waits and has not begun to leave.
    pub(in crate::shard) fn push_control(&mut self, slot: Slot, frame: &[u8]) {
        let connection = &mut self.connections[slot];
        if self.current == Some(slot) && connection.outbox.is_empty() {
            // Before it, what was said in this turn leaves at once.
            self.scratch.extend_from_slice(frame);
            return;
        }
        self.queue(slot, |outbox| outbox.push_control(Bytes::copy_from_slice(frame)));
    }

    /// Notes that the outbox is above its high-water mark, if it is. Returns whether the bytes that
    /// were added last have made it exceed its limit from below the mark: then they end with a
    /// message that is larger than the limit.
    pub(in crate::shard) fn press(&mut self, slot: Slot, added: usize) -> bool {
        let connection = &mut self.connections[slot];
        let held = if connection.flags.has_stream { connection.back().bytes() } else { 0 };
        let limits = &self.limits[connection.endpoint];
        let queued = connection.outbox.bytes() + held;
        if queued <= limits.outbox_high_water_bytes {
            return false;
        }
        connection.flags.is_pressed = true;
        queued > limits.outbox_bytes && queued - added <= limits.outbox_high_water_bytes
    }

    // The current connection.

    /// How large the room may be for what the current connection's handler says to it: none while
    /// anything stands in the way, and no more than is left of the scratch.
    pub(in crate::shard) fn room_bytes(&self, slot: Slot) -> usize {
        debug_assert_eq!(self.current, Some(slot));
        let connection = &self.connections[slot];
        let is_plain =
            connection.flags.are_clear() && connection.outbox.is_empty() && self.is_calm();
        let own_bytes = self.scratch.len() - self.scratch_http_bytes;
        if is_plain { self.scratch_limit(slot).saturating_sub(own_bytes) } else { 0 }
    }

    /// From here on, every question is asked.
    #[inline]
    pub(in crate::shard) fn close_room(&mut self) {
        if self.room.is_open() {
            self.scratch.extend_from_slice(self.room.content());
            self.room.clear();
            self.room.close();
        }
    }

    /// Ends a run: what gathered leaves, or goes to the scratch.
    pub(in crate::shard) fn end_room(&mut self, slot: Slot) {
        if self.room.is_rather_full() && self.scratch.is_empty() {
            self.write_room(slot);
        }
        self.close_room();
    }

    /// Begins a connection's turn: from here on its own output goes to the room or the scratch.
    #[inline]
    pub(in crate::shard) fn enter(&mut self, slot: Slot) {
        debug_assert!(self.current.is_none() && self.scratch.is_empty() && !self.room.is_open());
        self.current = Some(slot);
        self.end_watch();
    }

    /// Begins what is likely to be a plain turn: nothing stands in the way.
    #[inline]
    pub(in crate::shard) fn enter_plain(&mut self, slot: Slot, endpoint: EndpointIndex) {
        debug_assert!(self.current.is_none() && self.scratch.is_empty() && !self.room.is_open());
        debug_assert!(self.is_calm() && self.connections[slot].is_at_ease());
        self.current = Some(slot);
        self.begin_plain_turn(endpoint);
    }

    /// When the scratch is written before the turn ends, in bytes.
    pub(in crate::shard) fn scratch_limit(&self, slot: Slot) -> usize {
        Quick::new(self.limits_of(slot)).scratch_bytes
    }

    /// Ends a connection's turn: what its handler sent leaves in one write.
    pub(in crate::shard) fn exit(&mut self, slot: Slot) {
        debug_assert_eq!(self.current, Some(slot));
        self.current = None;
        if self.scratch.is_empty() {
            if !self.room.content().is_empty() {
                self.write_room(slot);
            }
            self.room.close();
        } else {
            self.close_room();
            self.write_scratch(slot);
        }
        self.end_careful_turn(slot);
    }

    /// Ends a plain turn.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a thirtieth of a short echo")]
    pub(in crate::shard) fn exit_plain(&mut self, slot: Slot) {
        debug_assert!(self.current == Some(slot) && self.scratch.is_empty());
        self.current = None;
        if !self.room.content().is_empty() {
            self.write_room(slot);
        }
        self.room.close();
        self.end_plain_turn();
    }

    /// Hands what gathered in the room to the kernel: nothing waits before it.
    #[inline]
    fn write_room(&mut self, slot: Slot) {
        let content = self.room.content();
        let output = self.connections[slot].transport.write(content);
        if output != Output::Bytes(content.len()) {
            self.close_room();
            self.end_write(slot, output);
        }
        self.room.clear();
    }

    /// Hands the scratch to the kernel; what it does not take goes to the outbox.
    pub(in crate::shard) fn write_scratch(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if !connection.outbox.is_empty() || connection.flags.is_blocked {
            self.spill(slot);
            return;
        }
        let length = self.scratch.len();
        let output = connection.transport.write(&self.scratch);
        let high_water_bytes = self.limits[connection.endpoint].outbox_high_water_bytes;
        if output == Output::Bytes(length) && length <= high_water_bytes {
            self.scratch.clear();
            self.scratch_http_bytes = 0;
        } else {
            self.end_write(slot, output);
        }
    }

    /// Sends a reply that is long enough for a write of its own, from where it lies.
    ///
    /// # Errors
    /// As of [`push`](Self::push); `Gone` if the connection is broken.
    #[cold]
    pub(in crate::shard) fn reply_long(
        &mut self,
        slot: Slot,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        if !self.scratch.is_empty() {
            self.write_scratch(slot);
        }
        let connection = &mut self.connections[slot];
        let flags = &connection.flags;
        let waits = flags.has_stream || flags.is_blocked || !connection.outbox.is_empty();
        if waits || !connection.is_open() {
            return self.push_own(slot, message);
        }
        let (header, payload) = (frame::long_header(message), message.as_bytes());
        let slices = [IoSlice::new(&header), IoSlice::new(payload)];
        match connection.transport.write_vectored(&slices) {
            Output::Bytes(written) => {
                let header = header.get(written..).unwrap_or_default();
                let payload = &payload[written.saturating_sub(LONG_HEADER_BYTES)..];
                let rest = match &self.lent {
                    Some(lent) if header.is_empty() && holds(lent, payload) => {
                        lent.slice_ref(payload)
                    }
                    _ => [header, payload].concat().into(),
                };
                let begun = if written > 0 { Begun::message(rest.len()) } else { Begun::default() };
                self.keep_rest(slot, rest, begun, None);
                Ok(())
            }
            Output::Broken => {
                self.lose_output(slot);
                Err(SendError::Gone)
            }
        }
    }

    /// What is left to do when a write of the scratch was not small, or not whole.
    #[cold]
    fn end_write(&mut self, slot: Slot, output: Output) {
        let was_high = self.scratch.len() > self.limits_of(slot).outbox_high_water_bytes;
        match output {
            Output::Bytes(written) => {
                let begun = Begun::http(self.scratch_http_bytes).after(&self.scratch, written);
                let (begun_part, frames) = self.scratch[written..].split_at(begun.bytes());
                let rest = [begun_part, &pongs_first(frames)].concat();
                self.keep_rest(slot, rest.into(), begun, None);
                self.clear_scratch();
            }
            Output::Broken => {
                self.discard_scratch(slot);
                return self.lose_output(slot);
            }
        }
        let connection = &self.connections[slot];
        if was_high && !connection.flags.is_pressed && connection.is_open() {
            // The handler may have seen backpressure, which the kernel has taken away at once.
            self.note_drained(slot);
        }
    }

    /// `on_drain` is to be called.
    fn note_drained(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if !std::mem::replace(&mut connection.flags.is_drained, true) {
            self.drained.push(connection.address);
        }
    }

    fn clear_scratch(&mut self) {
        self.scratch.clear();
        self.scratch_http_bytes = 0;
        if self.scratch.capacity() > SCRATCH_KEPT_BYTES {
            self.scratch.shrink_to(SCRATCH_BYTES);
        }
    }

    /// What is left to do when a write of shared frames was not whole.
    #[cold]
    pub(in crate::shard) fn end_shared_write(
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
        self.queued_bytes += added;
        connection.outbox.push_rest(rest, begun, ticket);
        connection.flags.is_blocked = true;
        if self.press(slot, added) {
            self.connections[slot].outbox.exempt_all();
        }
    }

    /// Moves the scratch to the outbox, so that something can be queued after it.
    pub(in crate::shard) fn spill(&mut self, slot: Slot) {
        if self.scratch.is_empty() {
            return;
        }
        let connection = &mut self.connections[slot];
        if connection.is_dead() {
            self.discard_scratch(slot);
            return;
        }
        let http_bytes = self.scratch_http_bytes;
        if http_bytes > 0 {
            connection.outbox.seal(connection.outbox.output_bytes() + http_bytes);
        }
        let scratch = std::mem::take(&mut self.scratch);
        let (http, frames) = scratch.split_at(http_bytes);
        self.queue(slot, |outbox| {
            outbox.push_slice(http);
            outbox.push_slice(&pongs_first(frames));
        });
        self.scratch = scratch;
        self.clear_scratch();
    }

    /// What was said so far is HTTP, what follows are frames: no control frame may go before it.
    pub(in crate::shard) fn end_http(&mut self, slot: Slot) {
        debug_assert_eq!(self.current, Some(slot));
        if self.connections[slot].outbox.is_empty() {
            self.scratch_http_bytes = self.scratch.len();
        } else {
            self.spill(slot);
            let outbox = &mut self.connections[slot].outbox;
            outbox.seal(outbox.output_bytes());
        }
    }

    /// Forgets what was said to a connection in its turn: it cannot be delivered. What is HTTP is
    /// not a message, and not counted.
    pub(in crate::shard) fn discard_scratch(&mut self, slot: Slot) {
        if self.connections[slot].flags.has_opened {
            self.count_dropped(count_messages(&self.scratch[self.scratch_http_bytes..]));
        }
        self.clear_scratch();
    }

    /// Queues shared bytes of the current connection after what it has so far.
    pub(in crate::shard) fn append(&mut self, slot: Slot, bytes: Bytes) {
        debug_assert_eq!(self.current, Some(slot));
        if bytes.len() < REFER_BYTES {
            self.scratch.extend_from_slice(&bytes);
        } else {
            self.spill(slot);
            self.enqueue(slot, bytes, None);
        }
    }

    /// The kernel takes bytes again: so the peer has taken some, which is a sign of life.
    pub(in crate::shard) fn unblock(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.flags.is_blocked = false;
        connection.touch(self.now);
        if !connection.flags.has_opened {
            // A download takes as long as it goes on.
            let deadline = self.now + self.limits.server().handshake;
            connection.deadline = connection.deadline.max(deadline);
        } else if matches!(connection.phase, Phase::Closing(_)) {
            self.prolong_closing(slot);
        }
        self.make_dirty(slot);
    }

    /// Hands an outbox to the kernel.
    pub(in crate::shard) fn flush(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.flags.is_dirty = false;
        if connection.is_dead() {
            return;
        }
        let before = connection.outbox.bytes();
        let flushed = connection.outbox.write(&mut connection.transport, &mut self.spares);
        let after = connection.outbox.bytes();
        // The segments may have become more, though their bytes did not.
        self.queued_bytes = self.queued_bytes + after - before;
        connection.flags.is_blocked = flushed == Flushed::Blocked;
        let is_pressed = connection.flags.is_pressed;
        if is_pressed && self.buffered_bytes(slot) <= self.limits_of(slot).outbox_low_water_bytes {
            let connection = &mut self.connections[slot];
            connection.flags.is_pressed = false;
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

/// Whether the bytes are part of that memory, and so much of it that to keep them may keep it all.
fn holds(memory: &[u8], bytes: &[u8]) -> bool {
    let (all, part) = (memory.as_ptr_range(), bytes.as_ptr_range());
    all.start <= part.start && part.end <= all.end && bytes.len() >= memory.len() / 2
}
