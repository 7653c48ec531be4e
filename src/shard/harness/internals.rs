//! The shard's part of [`crate::internals`], for benchmarks: an outbox, a wheel, a mailbox, and a
//! shard with members but without a loop.
//!
//! Knows mailboxes, outboxes, timers and a shard's state. Must not know the phases or dispatch.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Events, Poll};

use crate::clock;
use crate::config::Limits;
use crate::error::SendError;
use crate::hub::mailbox::{Inbox, Mailbox, mailbox};
use crate::hub::{Address, Audience, Envelope, Hub, Node, Slot};
use crate::message::Message;
use crate::protocol::Protocol;
use crate::protocol::parcel::Parcel;
use crate::shard::limits::LimitTable;
use crate::shard::outbox::{Flushed, Outbox, Spares};
use crate::shard::state::Shard;
use crate::shard::timers::Wheel;
use crate::shard::{Budgets, WAKER};
use crate::sync::Waker;
use crate::transport::Transport;

/// A transport over one end of a pair of sockets.
fn transport(end: UnixStream) -> io::Result<Transport> {
    end.set_nonblocking(true)?;
    Ok(Transport::from_fd(OwnedFd::from(end)))
}

/// An outbox and the socket that it is written to.
#[derive(Debug)]
pub struct Queue {
    outbox: Outbox,
    spares: Spares,
    transport: Transport,
}

impl Queue {
    /// An empty one, and the other end of the socket.
    ///
    /// # Errors
    /// Without descriptors.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (near, far) = UnixStream::pair()?;
        let (outbox, spares) = Default::default();
        Ok((Self { outbox, spares, transport: transport(near)? }, far))
    }

    /// Queues a message so many times, encoding and copying it each time.
    pub fn push_messages(&mut self, message: Message<'_>, count: usize) {
        self.outbox.borrow_queue(&mut self.spares);
        for _ in 0..count {
            self.outbox.push_message(message);
        }
    }

    /// Queues frames that others share so many times.
    pub fn push_shared(&mut self, frames: &Bytes, count: usize) {
        self.outbox.borrow_queue(&mut self.spares);
        for _ in 0..count {
            self.outbox.push(frames.clone(), None);
        }
    }

    /// Writes what the kernel takes; whether that was all.
    pub fn write(&mut self) -> bool {
        self.outbox.write(&mut self.transport, &mut self.spares) == Flushed::Empty
    }
}

/// A wheel on which a crowd of connections is armed, each again whenever it fires.
#[derive(Debug)]
pub struct Timers {
    wheel: Wheel,
    now: Instant,
    again: Duration,
    fired: Vec<Slot>,
}

impl Timers {
    /// Arms so many connections, all within `again`, at even distances.
    #[must_use]
    pub fn new(count: usize, again: Duration) -> Self {
        let now = clock::now();
        let mut wheel = Wheel::new(now);
        for slot in 0..count {
            let due = now + again.mul_f64((slot + 1) as f64 / count as f64);
            wheel.arm(slot, due);
        }
        Self { wheel, now, again, fired: Vec::new() }
    }

    /// Lets time pass; how many have fired. They are armed again.
    pub fn pass(&mut self, time: Duration) -> usize {
        self.now += time;
        self.wheel.expire(self.now, &mut self.fired);
        let count = self.fired.len();
        for slot in self.fired.drain(..) {
            self.wheel.arm(slot, self.now + self.again);
        }
        count
    }
}

/// The sending side of a [`Post`].
#[derive(Clone, Debug)]
pub struct Sender(Arc<Mailbox<Envelope>>);

impl Sender {
    /// Sends a frame so many times, until it is refused; how often it was taken.
    #[must_use]
    pub fn send(&self, frame: &Bytes, count: usize) -> usize {
        let send = || {
            let room = self.0.reserve(frame.len())?;
            let to = Address::new(0, 0);
            let parcel = Parcel::from_frame(frame.clone());
            room.send(Envelope::Send { to, parcel, ticket: None })
        };
        (0..count).take_while(|_| send() == Ok(())).count()
    }
}

/// A shard's mailbox, and the poll by which it is woken.
#[derive(Debug)]
pub struct Post {
    poll: Poll,
    events: Events,
    inbox: Inbox<Envelope>,
}

impl Post {
    /// An empty one, with the default limits.
    ///
    /// # Errors
    /// Without descriptors.
    pub fn new() -> io::Result<(Sender, Self)> {
        let (poll, mailbox, inbox) = post()?;
        Ok((Sender(mailbox), Self { poll, events: Events::with_capacity(8), inbox }))
    }

    /// Takes all that is there: how many envelopes, and how many bytes they carry.
    pub fn take(&mut self) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        self.inbox.disarm();
        while let Some(envelope) = self.inbox.take(Envelope::size) {
            count += 1;
            bytes += envelope.size();
        }
        (count, bytes)
    }

    /// Sleeps until a sender wakes it.
    ///
    /// # Errors
    /// Only if the operating system refuses to wait.
    pub fn wait(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, None)
    }
}

fn post() -> io::Result<(Poll, Arc<Mailbox<Envelope>>, Inbox<Envelope>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    let limits = Limits::default();
    let (mailbox, inbox) = mailbox(waker, limits.max_mailbox_envelopes, limits.max_mailbox_bytes);
    Ok((poll, mailbox, inbox))
}

/// A shard with members of one endpoint, and no loop.
#[derive(Debug)]
pub struct Members {
    shard: Shard,
}

impl Members {
    /// A shard with so many members. So many of them at a time, which must not be 0, share a
    /// socket, of which this gives the other ends: what is published to them comes there one after
    /// another.
    ///
    /// # Errors
    /// Without descriptors, of which each member takes one.
    pub fn new(count: usize, sharing_count: usize) -> io::Result<(Self, Vec<UnixStream>)> {
        let (_, mailbox, inbox) = post()?;
        let hub = Hub::new(Node::random(), Box::new([mailbox]), Box::default(), Default::default());
        let limits = LimitTable::new(vec![Limits::default()], Limits::default());
        let shard = Shard::new(0, limits, hub, inbox, clock::now());
        let mut members = Self { shard };
        let mut far_ends = Vec::new();
        for at in (0..count).step_by(sharing_count) {
            let (near, far) = UnixStream::pair()?;
            for _ in at..count.min(at + sharing_count) {
                members.shard.insert_open(transport(near.try_clone()?)?, 0, Protocol::default());
            }
            far_ends.push(far);
        }
        Ok((members, far_ends))
    }

    /// Subscribes the first `count` members to a topic; how many were not refused.
    #[must_use]
    pub fn subscribe(&mut self, topic: &str, count: usize) -> usize {
        (0..count).filter(|&slot| self.shard.subscribe(slot, topic).is_ok()).count()
    }

    /// Ends the subscriptions of the first `count` members; how many subscribers are left.
    #[must_use]
    pub fn unsubscribe(&mut self, topic: &str, count: usize) -> usize {
        (0..count).for_each(|slot| self.shard.unsubscribe(slot, topic));
        self.shard.hub().subscriber_count(topic)
    }

    /// Publishes to a topic, or else to all, as the handler of a member does.
    ///
    /// # Errors
    /// As of [`WebSocket::publish`](crate::WebSocket::publish).
    pub fn publish(&mut self, topic: Option<&str>, message: Message<'_>) -> Result<(), SendError> {
        let audience = match topic {
            Some(topic) => Audience::Topic(self.shard.topic(topic)?),
            None => Audience::Everyone(0),
        };
        self.shard.take_over();
        self.shard.publish(audience, None, message, None)
    }

    /// The phases fan-out and flush of as many turns as it takes until all have got what was
    /// published. Their sockets must have room.
    pub fn deliver(&mut self) {
        while !self.shard.is_quiescent() {
            self.shard.fan_out(Budgets::default().fanout_count);
            self.shard.flush_dirty();
        }
    }
}
