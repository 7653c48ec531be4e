//! The outbox against a list of messages.

use std::collections::VecDeque;
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;

use crate::cases;
use crate::error::SendError;
use crate::hub::Delivery;
use crate::hub::ticket::Ticket;
use crate::message::Message;
use crate::protocol::frame;
use crate::shard::outbox::{Dropped, Flushed, Outbox, Spares};
use crate::shard::{ClientEnd, pipe};
use crate::transport::Transport;

/// The pipe to the client holds at most so much.
const PIPE_BYTES: usize = 64;

#[derive(Clone, Debug)]
enum Step {
    /// A message is encoded into the outbox.
    Message {
        length: usize,
    },
    /// Frames that others share, or that a cork held; pongs may be among them.
    Frames {
        way: Way,
        frames: Vec<Sketch>,
    },
    /// One message, of which somebody wants to be told.
    Told {
        length: usize,
    },
    Control {
        length: usize,
    },
    DropOldest,
    /// What was held back meanwhile; nothing of its first messages counts, up to one of them.
    Append {
        lengths: Vec<usize>,
        exempt_count: usize,
    },
    /// What is queued ends with a message that is larger than the limit.
    Exempt,
    /// The client reads so much, then the outbox is flushed.
    Flush {
        bytes: usize,
    },
    GiveUp,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Shared,
    Slice,
}

#[derive(Clone, Copy, Debug)]
enum Sketch {
    Message(usize),
    Pong(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length =
        || prop_oneof![6 => 0..40usize, 1 => Just(125), 1 => Just(126), 1 => 15_000..20_000usize];
    let sketch = prop_oneof![
        4 => length().prop_map(Sketch::Message),
        1 => (0..4usize).prop_map(Sketch::Pong),
    ];
    let way = prop_oneof![Just(Way::Shared), Just(Way::Slice)];
    let step = prop_oneof![
        3 => length().prop_map(|length| Step::Message { length }),
        3 => (way, prop::collection::vec(sketch, 1..4))
            .prop_map(|(way, frames)| Step::Frames { way, frames }),
        3 => length().prop_map(|length| Step::Told { length }),
        2 => (0..8usize).prop_map(|length| Step::Control { length }),
        2 => Just(Step::DropOldest),
        1 => (prop::collection::vec(length(), 1..4), 0..4usize)
            .prop_map(|(lengths, exempt_count)| Step::Append { lengths, exempt_count }),
        1 => Just(Step::Exempt),
        6 => prop_oneof![8 => 0..200usize, 1 => Just(40_000)]
            .prop_map(|bytes| Step::Flush { bytes }),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec(step, 1..60)
}

/// A frame that is queued, as the model sees it.
struct Queued {
    bytes: Vec<u8>,
    /// How much of it has left.
    left: usize,
    told: Option<usize>,
    /// It does not count against what is queued behind it.
    is_exempt: bool,
}

impl Queued {
    fn rest(&self) -> usize {
        self.bytes.len() - self.left
    }

    fn is_control(&self) -> bool {
        self.bytes[0] & 0x08 != 0
    }
}

/// The outbox and what should be in it.
struct Pair {
    outbox: Outbox,
    spares: Spares,
    transport: Transport,
    client: ClientEnd,
    model: VecDeque<Queued>,
    deliveries: Vec<Delivery>,
    fates: Vec<Option<Result<(), SendError>>>,
    /// What the client should have got, and what it has.
    expected: Vec<u8>,
    got: Vec<u8>,
    next: u8,
}

fn now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Pair {
    fn new() -> Self {
        let (server, client) = pipe(PIPE_BYTES);
        Self {
            outbox: Outbox::default(),
            spares: Spares::default(),
            transport: server.into(),
            client,
            model: VecDeque::new(),
            deliveries: Vec::new(),
            fates: Vec::new(),
            expected: Vec::new(),
            got: Vec::new(),
            next: 0,
        }
    }

    /// A frame with a payload unlike others'.
    fn frame(&mut self, length: usize) -> Bytes {
        self.next = self.next.wrapping_add(1);
        frame::encode_whole(Message::Binary(&vec![self.next; length]))
    }

    fn control(&mut self, length: usize) -> Bytes {
        self.next = self.next.wrapping_add(1);
        let mut frame = vec![0x8A, u8::try_from(length).expect("a short one")];
        frame.resize(2 + length, self.next);
        frame.into()
    }

    fn note(&mut self, frame: &Bytes, told: Option<usize>) {
        self.model.push_back(Queued { bytes: frame.to_vec(), left: 0, told, is_exempt: false });
    }

    /// A ticket, and its place among the fates.
    fn ticket(&mut self) -> (Ticket, usize) {
        let (delivery, ticket) = Delivery::new();
        self.deliveries.push(delivery);
        self.fates.push(None);
        (ticket, self.fates.len() - 1)
    }

    fn take(&mut self, step: Step) {
        self.outbox.borrow_queue(&mut self.spares);
        match step {
            Step::Message { length } => {
                let frame = self.frame(length);
                self.note(&frame, None);
                let payload = &frame[frame.len() - length..];
                self.outbox.push_message(Message::Binary(payload));
            }
            Step::Frames { way, frames } => {
                let mut all = Vec::new();
                for sketch in frames {
                    let frame = match sketch {
                        Sketch::Message(length) => self.frame(length),
                        Sketch::Pong(length) => self.control(length),
                    };
                    self.note(&frame, None);
                    all.extend(&frame);
                }
                match way {
                    Way::Shared => self.outbox.push(all.into(), None),
                    Way::Slice => self.outbox.push_slice(&all),
                }
            }
            Step::Told { length } => {
                let frame = self.frame(length);
                let (ticket, told) = self.ticket();
                self.note(&frame, Some(told));
                self.outbox.push(frame, Some(ticket));
            }
            Step::Control { length } => {
                let frame = self.control(length);
                // Before all data that has not begun to leave, after controls that wait already.
                let is_before = |queued: &Queued| queued.left == 0 && !queued.is_control();
                let at = self.model.iter().position(is_before).unwrap_or(self.model.len());
                let mut begun = self.model.iter().skip_while(|queued| queued.left > 0);
                let is_exempt = begun.next().is_some_and(|queued| queued.is_exempt);
                let bytes = frame.to_vec();
                self.model.insert(at, Queued { bytes, left: 0, told: None, is_exempt });
                self.outbox.push_control(frame);
            }
            Step::DropOldest => {
                let is_free =
                    |queued: &Queued| queued.left == 0 && !queued.is_control() && !queued.is_exempt;
                let oldest = self.model.iter().position(is_free);
                let settled = self.outbox.drop_oldest().map(Dropped::settle);
                assert_eq!(settled.is_some(), oldest.is_some());
                let dropped = oldest.and_then(|at| self.model.remove(at));
                if let Some(told) = dropped.and_then(|queued| queued.told) {
                    self.fates[told] = Some(Err(SendError::Overloaded));
                }
            }
            Step::Append { lengths, exempt_count } => self.append(lengths, exempt_count),
            Step::Exempt => {
                self.outbox.exempt_all();
                self.exempt_all();
            }
            Step::Flush { bytes } => self.flush(bytes),
            Step::GiveUp => {
                self.outbox.give_up(SendError::Gone);
                for queued in self.model.drain(..) {
                    if let Some(told) = queued.told {
                        self.fates[told] = Some(Err(SendError::Gone));
                    }
                }
            }
        }
        self.check();
    }

    fn append(&mut self, lengths: Vec<usize>, exempt_count: usize) {
        let mut held = Outbox::default();
        for (index, length) in lengths.into_iter().enumerate() {
            let frame = self.frame(length);
            let (ticket, told) = self.ticket();
            let is_told = length % 2 == 0;
            self.note(&frame, is_told.then_some(told));
            held.push(frame, is_told.then_some(ticket));
            if !is_told {
                // That ticket went nowhere.
                self.fates[told] = Some(Err(SendError::ShuttingDown));
            }
            if index + 1 == exempt_count {
                held.exempt_all();
                self.exempt_all();
            }
        }
        self.outbox.append(held);
    }

    fn exempt_all(&mut self) {
        self.model.iter_mut().for_each(|queued| queued.is_exempt = true);
    }

    fn flush(&mut self, bytes: usize) {
        let mut left = bytes;
        loop {
            self.read(left.min(PIPE_BYTES));
            left = left.saturating_sub(PIPE_BYTES);
            let room = PIPE_BYTES - (self.expected.len() - self.got.len());
            let flushed = self.outbox.write(&mut self.transport, &mut self.spares);
            let all: usize = self.model.iter().map(Queued::rest).sum();
            self.leave(room.min(all));
            assert_eq!(flushed == Flushed::Empty, all <= room, "{all} bytes, room for {room}");
            if left == 0 {
                break;
            }
        }
    }

    fn read(&mut self, bytes: usize) {
        self.client.reading_bytes = Some(bytes);
        // It ends with an error: nothing more is there, or wanted.
        let _ = self.client.read_to_end(&mut self.got);
        assert!(self.expected.starts_with(&self.got), "other bytes left than were queued");
    }

    /// So many bytes leave the model.
    fn leave(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let front = self.model.front_mut().expect("as much was queued");
            let part = bytes.min(front.bytes.len() - front.left);
            self.expected.extend(&front.bytes[front.left..front.left + part]);
            front.left += part;
            bytes -= part;
            if front.left == front.bytes.len() {
                if let Some(told) = front.told {
                    self.fates[told] = Some(Ok(()));
                }
                self.model.pop_front();
            }
        }
    }

    fn check(&mut self) {
        self.outbox.check_invariants();
        let bytes: usize = self.model.iter().map(Queued::rest).sum();
        assert_eq!(self.outbox.output_bytes(), bytes);
        assert_eq!(self.outbox.is_empty(), bytes == 0);
        let exempt = self.model.iter().take_while(|queued| queued.is_exempt);
        let exempt_bytes: usize = exempt.map(Queued::rest).sum();
        assert_eq!(self.outbox.exempt_bytes(), exempt_bytes);
        let begun = self.model.front().filter(|queued| queued.left > 0);
        assert_eq!(self.outbox.kept_bytes(), exempt_bytes.max(begun.map_or(0, Queued::rest)));
        let message_count = self.model.iter().filter(|queued| !queued.is_control()).count();
        assert_eq!(self.outbox.message_count(), message_count as u64);
        let overhead = self.outbox.bytes() - bytes;
        assert!(overhead <= 192 * self.model.len().saturating_sub(32), "{overhead} bytes extra");
        for (delivery, fate) in self.deliveries.iter_mut().zip(&mut self.fates) {
            if let Some(expected) = fate.take() {
                assert_eq!(now(delivery), Poll::Ready(expected));
                *delivery = Delivery::new().0;
            }
        }
    }
}

#[test]
fn what_is_queued_leaves_whole_in_order_and_its_tickets_tell_the_truth() {
    cases::check(128, steps(), |steps| {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
        }
        pair.flush(1 << 20);
        pair.read(PIPE_BYTES);
        assert_eq!(pair.got.len(), pair.expected.len());
        pair.check();
    });
}
