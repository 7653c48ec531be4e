//! A connection's output queue: what the kernel did not take at once.
//!
//! An empty outbox holds no memory.
//!
//! Knows bytes, and as much of frames as it needs to drop whole ones. Must not know `Shard`,
//! connections or handlers.

pub(in crate::shard) mod cork;
pub(in crate::shard) mod encoder;
pub(in crate::shard) mod outgoing;
mod queue;
mod spares;

use bytes::Bytes;

use self::queue::Queue;
pub(in crate::shard) use self::queue::{
    Begun, Dropped, Flushed, REFER_BYTES, begun_bytes, count_messages, pongs_first,
};
pub(in crate::shard) use self::spares::Spares;
use crate::error::SendError;
use crate::hub::ticket::Ticket;
use crate::message::Message;
use crate::protocol::frame::{self};
use crate::transport::{Output, Transport};

/// The queue, which exists only while something is queued.
///
/// * Getters: [`bytes`](Self::bytes), [`output_bytes`](Self::output_bytes),
///   [`is_empty`](Self::is_empty).
/// * Commands: [`push`](Self::push) and its kin, [`seal`](Self::seal),
///   [`drop_oldest`](Self::drop_oldest), [`give_up`](Self::give_up).
/// * To do: [`write`](Self::write) whenever the transport takes bytes.
#[derive(Debug, Default)]
pub(in crate::shard) struct Outbox(Option<Box<Queue>>);

impl Outbox {
    /// What counts for the bounds: the bytes that are queued, and what it costs to queue them in
    /// many small segments.
    #[inline]
    pub(in crate::shard) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes + queue.overhead_bytes())
    }

    /// How many bytes are still to be written.
    pub(in crate::shard) fn output_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// How much of the bytes does not count against what is queued behind it.
    pub(in crate::shard) fn exempt_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.exempt_bytes)
    }

    /// From here on, nothing of what is queued counts against what is queued behind it: it ends
    /// with a message that is larger than the limit, and was accepted all the same.
    pub(in crate::shard) fn exempt_all(&mut self) {
        let queue = self.queue();
        queue.exempt_bytes = queue.bytes;
    }

    #[inline]
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.output_bytes() == 0
    }

    /// Takes a spare queue for what is about to be queued, if it has none.
    #[inline]
    pub(in crate::shard) fn borrow_queue(&mut self, spares: &mut Spares) {
        if self.0.is_none() {
            self.0 = spares.take();
        }
    }

    #[inline]
    fn queue(&mut self) -> &mut Queue {
        self.0.get_or_insert_default()
    }

    /// Queues frames that a write has left. The first may have begun to leave, and as many as the
    /// transport holds.
    pub(in crate::shard) fn push_rest(
        &mut self,
        frames: Bytes,
        begun: Begun,
        held_bytes: usize,
        ticket: Option<Ticket>,
    ) {
        debug_assert!(self.is_empty(), "a frame can only have begun to leave an empty outbox");
        let queue = self.queue();
        (queue.begun, queue.held_bytes) = (begun, held_bytes);
        self.push(frames, ticket);
        if held_bytes > 0 {
            self.queue().end_tail();
        }
    }

    /// Queues whole frames; with a ticket, the one frame of a message.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "the call alone costs a tenth of queueing shared frames"
    )]
    pub(in crate::shard) fn push(&mut self, frames: Bytes, ticket: Option<Ticket>) {
        match ticket {
            None => self.queue().push(frames),
            Some(ticket) => self.queue().push_with_ticket(frames, ticket),
        }
    }

    /// Queues whole frames, which are copied.
    #[inline]
    pub(in crate::shard) fn push_slice(&mut self, frames: &[u8]) {
        self.queue().push_slice(frames);
    }

    /// Queues a message.
    #[inline]
    pub(in crate::shard) fn push_message(&mut self, message: Message<'_>) {
        let queue = self.queue();
        queue.make_tail_room(frame::encoded_bytes(message));
        let before = queue.tail.len();
        frame::encode(&mut queue.tail, message);
        queue.bytes += queue.tail.len() - before;
    }

    /// Lets nothing come before or between the first `bytes`, which are HTTP.
    pub(in crate::shard) fn seal(&mut self, bytes: usize) {
        self.queue().begun = Begun::http(bytes);
    }

    /// Queues a control frame before all data that has not begun to leave.
    pub(in crate::shard) fn push_control(&mut self, frame: Bytes) {
        self.queue().push_control(frame);
    }

    /// How many messages are queued, one that has begun to leave included.
    pub(in crate::shard) fn message_count(&mut self) -> u64 {
        self.0.as_mut().map_or(0, |queue| queue.message_count())
    }

    /// How much must stay, whatever is dropped for others: what has begun to leave, and what does
    /// not count.
    pub(in crate::shard) fn kept_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.begun_bytes().max(queue.exempt_bytes))
    }

    /// Drops the oldest data frame that counts and has not begun to leave; `None` if there is none.
    pub(in crate::shard) fn drop_oldest(&mut self) -> Option<Dropped> {
        self.0.as_mut()?.drop_oldest()
    }

    /// Queues all that was queued in another one.
    pub(in crate::shard) fn append(&mut self, other: Self) {
        if let Some(mut other) = other.0 {
            debug_assert_eq!(other.begun.bytes, 0, "nothing of it can have left");
            let queue = self.queue();
            queue.end_tail();
            queue.segments.append(&mut other.segments);
            queue.tail = other.tail;
            if other.exempt_bytes > 0 {
                queue.exempt_bytes = queue.bytes + other.exempt_bytes;
            }
            queue.bytes += other.bytes;
        }
    }

    /// Gives up everything. Its tickets get the reason.
    pub(in crate::shard) fn give_up(&mut self, why: SendError) {
        if let Some(queue) = self.0.take() {
            for ticket in queue.segments.into_iter().filter_map(|segment| segment.ticket) {
                ticket.settle(Err(why));
            }
        }
    }

    /// Hands to the kernel what it takes.
    #[inline]
    pub(in crate::shard) fn write(
        &mut self,
        transport: &mut Transport,
        spares: &mut Spares,
    ) -> Flushed {
        let Some(queue) = &mut self.0 else { return flush(transport) };
        let flushed = queue.write(transport);
        if flushed == Flushed::Empty
            && let Some(queue) = self.0.take()
        {
            spares.take_back(queue);
            return flush(transport);
        }
        flushed
    }

    /// Asserts that what is kept beside the bytes agrees with them.
    #[cfg(feature = "testing")]
    pub(in crate::shard) fn check_invariants(&self) {
        if let Some(queue) = &self.0 {
            queue.check_invariants();
        }
    }
}

/// Hands over what the transport has of its own: nothing is queued.
#[inline]
fn flush(transport: &mut Transport) -> Flushed {
    match transport.flush() {
        Output::Broken => Flushed::Broken,
        Output::Bytes(_) if transport.has_output() => Flushed::Blocked,
        Output::Bytes(_) => Flushed::Empty,
    }
}

#[cfg(test)]
mod tests;
