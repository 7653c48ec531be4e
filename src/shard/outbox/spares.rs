//! Queues that nobody needs at the moment. What is queued and sent within a turn, as a message from
//! one connection to another is, allocates nothing: its outbox borrows a queue from here.
//!
//! Knows empty queues and their memory. Must not know connections, frames or `Shard`.

use super::queue::{Begun, Queue, Segment};

/// How much is kept in all, in bytes: a queue for each of a thousand messages of one turn.
const SPARE_BYTES: usize = 256 << 10;
/// How much a spare queue keeps of its tail, in bytes, so that a few large ones do not take all.
const TAIL_KEPT_BYTES: usize = 4 << 10;

/// The spare queues of a shard. The one used last is lent first.
#[derive(Debug, Default)]
pub(in crate::shard) struct Spares {
    #[expect(clippy::vec_box, reason = "an outbox holds the box")]
    queues: Vec<Box<Queue>>,
    /// Invariant: the sum of what they take.
    bytes: usize,
}

impl Spares {
    /// A spare queue, if there is one.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Box<Queue>> {
        let queue = self.queues.pop()?;
        self.bytes -= queue.kept_bytes();
        Some(queue)
    }

    /// Takes back a queue of which everything was sent, unless enough are kept.
    #[inline]
    pub(super) fn take_back(&mut self, mut queue: Box<Queue>) {
        debug_assert!(queue.segments.is_empty(), "everything was sent");
        queue.tail.clear();
        (queue.bytes, queue.exempt_bytes, queue.begun) = (0, 0, Begun::default());
        queue.held_bytes = 0;
        if queue.tail.capacity() > TAIL_KEPT_BYTES {
            queue.tail = Vec::new();
        }
        let bytes = queue.kept_bytes();
        if self.bytes + bytes <= SPARE_BYTES {
            self.bytes += bytes;
            self.queues.push(queue);
        }
    }
}

impl Queue {
    /// What it takes while nothing is queued, in bytes.
    #[inline]
    fn kept_bytes(&self) -> usize {
        size_of::<Self>() + self.tail.capacity() + self.segments.capacity() * size_of::<Segment>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::outbox::Outbox;

    #[test]
    fn a_queue_is_lent_again_empty_and_no_more_are_kept_than_may_be() {
        let mut spares = Spares::default();
        let lent = |spares: &mut Spares| {
            let mut outbox = Outbox::default();
            outbox.borrow_queue(spares);
            outbox
        };
        let mut outbox = lent(&mut spares);
        assert!(outbox.0.is_none(), "there is none yet");
        for bytes in [100, TAIL_KEPT_BYTES + 1] {
            outbox.push_slice(&vec![7; bytes]);
            spares.take_back(outbox.0.take().expect("a queue"));
            outbox = lent(&mut spares);
            let queue = outbox.0.as_ref().expect("a queue");
            assert_eq!((queue.bytes, queue.tail.len(), spares.bytes), (0, 0, 0));
            assert_eq!(queue.tail.capacity() >= bytes, bytes <= TAIL_KEPT_BYTES);
        }
        for _ in 0..2 * SPARE_BYTES / TAIL_KEPT_BYTES {
            let tail = Vec::with_capacity(TAIL_KEPT_BYTES);
            spares.take_back(Box::new(Queue { tail, ..Queue::default() }));
        }
        let sum: usize = spares.queues.iter().map(|queue| queue.kept_bytes()).sum();
        assert!(sum == spares.bytes && sum <= SPARE_BYTES && sum > SPARE_BYTES / 2);
    }
}
