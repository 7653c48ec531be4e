//! What a connection is sent: its outbox, what is known of its pressure, and what waits for the end
//! of a message in pieces.
//!
//! Knows where bytes wait. Must not know how they are encoded, nor how many may wait.

use std::time::Instant;

use bytes::Bytes;

use super::{Connection, Streaming};
use crate::error::SendError;
use crate::hub::ticket::Ticket;
use crate::shard::outbox::{Begun, Outbox};

/// Facts.
impl Connection {
    /// What the kernel has not taken yet.
    #[inline]
    pub(in crate::shard) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether output waits that the kernel has not taken.
    #[inline]
    pub(in crate::shard) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether the kernel's buffer is full; an event will tell when it is not.
    #[inline]
    pub(in crate::shard) fn is_blocked(&self) -> bool {
        self.flags.is_blocked
    }

    /// Whether the outbox rose above its high-water mark and has not fallen to the low one: no
    /// input is handled.
    #[inline]
    pub(in crate::shard) fn is_pressed(&self) -> bool {
        self.flags.is_pressed
    }

    /// Whether nothing at all stands in the way of what is sent next, nor of what follows it.
    #[inline]
    pub(in crate::shard) fn is_unobstructed(&self) -> bool {
        self.flags.are_clear() && self.outbox.is_empty() && self.encoding().is_plain()
    }

    /// Whether a message may still be sent to it.
    pub(in crate::shard) fn may_send(&self) -> bool {
        !self.flags.is_cut_short && self.phase.may_send()
    }

    /// Whether nothing waits that must leave before what is sent next.
    #[inline]
    pub(in crate::shard) fn may_write_at_once(&self) -> bool {
        self.outbox.is_empty() && !self.flags.is_blocked && !self.flags.has_stream
    }
}

/// Commands.
impl Connection {
    /// To queue something. The shard accounts for it.
    #[inline]
    pub(in crate::shard) fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The outbox is above its high-water mark, or has fallen to the low one.
    #[inline]
    pub(in crate::shard) fn set_pressed(&mut self, is_pressed: bool) {
        self.flags.is_pressed = is_pressed;
    }

    /// Queues what the kernel has not taken of a write past the outbox.
    pub(in crate::shard) fn keep_rest(
        &mut self,
        rest: Bytes,
        begun: Begun,
        ticket: Option<Ticket>,
    ) {
        self.outbox.push_rest(rest, begun, self.held_bytes(), ticket);
        self.flags.is_blocked = true;
    }

    /// The kernel takes bytes again: so the peer has taken some, which is a sign of life.
    pub(in crate::shard) fn unblock(&mut self, now: Instant) {
        self.flags.is_blocked = false;
        self.touch(now);
    }

    /// It is to stand on the drained list. Returns whether it did not yet.
    #[must_use]
    pub(in crate::shard) fn mark_drained(&mut self) -> bool {
        !std::mem::replace(&mut self.flags.is_drained, true)
    }

    /// It stands on the dirty list no longer.
    #[inline]
    pub(in crate::shard) fn unmark_dirty(&mut self) {
        self.flags.is_dirty = false;
    }

    /// It is to stand on the dirty list. Returns whether it did not yet; a connection whose kernel
    /// is full is flushed when that has room.
    #[inline]
    #[must_use]
    pub(in crate::shard) fn mark_dirty(&mut self) -> bool {
        let flags = &mut self.flags;
        !flags.is_blocked && !std::mem::replace(&mut flags.is_dirty, true)
    }

    /// It stands on the drained list no longer.
    pub(in crate::shard) fn unmark_drained(&mut self) {
        self.flags.is_drained = false;
    }

    /// How many messages are lost if what waits cannot be delivered. HTTP is no message.
    pub(in crate::shard) fn undelivered_count(&mut self) -> u64 {
        if self.flags.has_opened { self.outbox.message_count() } else { 0 }
    }

    /// Drops what waits; its senders are told why. Nothing presses any more.
    pub(in crate::shard) fn release_output(&mut self, why: SendError) {
        (self.flags.is_pressed, self.flags.is_blocked) = (false, false);
        self.outbox.give_up(why);
    }
}

/// A message in pieces, and what it holds back.
impl Connection {
    /// Whether a message is being sent to it in pieces: others wait.
    #[inline]
    pub(in crate::shard) fn has_stream(&self) -> bool {
        self.flags.has_stream
    }

    /// Where the next message is queued: what waits for the end of one in pieces, or the outbox.
    pub(in crate::shard) fn back(&mut self) -> &mut Outbox {
        let Self { details, outbox, .. } = self;
        match details.as_mut().and_then(|details| details.streaming.as_mut()) {
            Some(streaming) => &mut streaming.held,
            None => outbox,
        }
    }

    pub(in crate::shard) fn begin_stream(&mut self, streaming: Streaming) {
        self.details().streaming = Some(streaming);
        self.flags.has_stream = true;
    }

    /// Such a message will not be finished: nothing but control frames can follow half of it.
    pub(in crate::shard) fn cut_short(&mut self) {
        self.flags.is_cut_short = true;
    }

    pub(in crate::shard) fn streaming(&self) -> Option<&Streaming> {
        self.details.as_ref()?.streaming.as_ref()
    }

    pub(in crate::shard) fn streaming_mut(&mut self) -> Option<&mut Streaming> {
        self.details.as_mut()?.streaming.as_mut()
    }

    pub(in crate::shard) fn take_streaming(&mut self) -> Option<Streaming> {
        self.flags.has_stream = false;
        self.details.as_mut()?.streaming.take()
    }
}
