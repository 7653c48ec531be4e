//! [`Shard`]: the connections of one thread, and everything that may be done to them while a
//! handler runs: queueing, never calling another handler, never freeing.
//!
//! Knows outboxes, audiences and the ways to other shards. Must not know how events arrive, nor
//! what a handler is.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::connection::Connection;
use super::fanout::{Log, Pass};
use super::limits::LimitTable;
use super::links::Links;
use super::output::SCRATCH_BYTES;
use super::timers::{Tick, Wheel};
use super::transport::Output;
use crate::config::Limits;
use crate::error::SendError;
use crate::hub::{Address, ConnectionId, EndpointIndex, Envelope, Hub};
use crate::message::Message;
use crate::protocol::frame;

/// The index of a connection in the slab.
pub(super) type Slot = usize;

/// How much is allocated at once for encoding, in bytes. A frame in a mailbox keeps as much alive.
const ENCODER_BYTES: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: usize,
    /// By the connection's endpoint.
    pub(super) limits: LimitTable,
    pub(super) hub: Hub,
    pub(super) now: Instant,
    pub(super) connections: Slab<Connection>,
    pub(super) generation: u64,
    pub(super) links: Links,
    pub(super) wheel: Wheel,
    log: Log,
    pass: Pass,
    /// The open connections of each endpoint.
    members: Box<[Vec<Slot>]>,
    /// Whose turn it is; its own output goes to `scratch`.
    pub(super) current: Option<Slot>,
    /// Output of the current connection, after what is in its outbox.
    pub(super) scratch: Vec<u8>,
    /// How much of the scratch is HTTP: what comes before the first frame.
    pub(super) scratch_http_bytes: usize,
    /// Where frames for others are encoded.
    encoder: BytesMut,
    /// The sum of all outboxes.
    pub(super) queued_bytes: usize,
    /// Input is waiting, or may be.
    pub(super) ready: Vec<Address>,
    /// Output is waiting that the kernel might take.
    pub(super) dirty: Vec<Address>,
    /// `on_close` is to be called.
    pub(super) leaving: Vec<Slot>,
    /// `on_drain` is to be called.
    pub(super) drained: Vec<Address>,
    /// To be freed at the end of the turn.
    pub(super) dead: Vec<Slot>,
}

/// What is to be sent: still to be encoded, or encoded and shared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outgoing<'o> {
    Message(Message<'o>),
    Frames(&'o Bytes),
}

impl Outgoing<'_> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => frame::encoded_bytes(*message),
            Self::Frames(frames) => frames.len(),
        }
    }
}

impl Shard {
    pub(super) fn new(index: usize, limits: LimitTable, hub: Hub, now: Instant) -> Self {
        Self {
            index,
            links: Links::new(hub.clone(), index, limits.server()),
            members: (0..limits.endpoint_count()).map(|_| Vec::new()).collect(),
            limits,
            hub,
            now,
            connections: Slab::new(),
            generation: 0,
            wheel: Wheel::new(now),
            log: Log::default(),
            pass: Pass::default(),
            current: None,
            scratch: Vec::with_capacity(SCRATCH_BYTES),
            scratch_http_bytes: 0,
            encoder: BytesMut::new(),
            queued_bytes: 0,
            ready: Vec::new(),
            dirty: Vec::new(),
            leaving: Vec::new(),
            drained: Vec::new(),
            dead: Vec::new(),
        }
    }

    // Getters.

    /// The slot of a connection that is still there.
    #[inline]
    pub(super) fn find(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address).then_some(slot)
    }

    pub(super) fn id(&self, slot: Slot) -> ConnectionId {
        let address = self.connections[slot].address;
        ConnectionId::new(self.hub.shared().node, self.index, address)
    }

    /// The limits that count for this connection.
    #[inline]
    pub(super) fn limits_of(&self, slot: Slot) -> &Limits {
        &self.limits[self.connections[slot].endpoint]
    }

    /// Whether a broadcast waits for members.
    pub(super) fn has_fanout(&self) -> bool {
        !self.log.is_empty()
    }

    /// Whether the log takes more broadcasts.
    pub(super) fn has_log_room(&self) -> bool {
        self.log.has_room()
    }

    /// Whether what handlers send has no way to go for the moment: then none is called.
    #[inline]
    pub(super) fn is_held_up(&self) -> bool {
        self.links.is_blocked() || !self.log.has_room()
    }

    /// What waits for this connection, scratch included, its HTTP not.
    pub(super) fn buffered_bytes(&self, slot: Slot) -> usize {
        let is_current = self.current == Some(slot);
        let own = if is_current { self.scratch.len() - self.scratch_http_bytes } else { 0 };
        self.connections[slot].outbox.bytes() + own
    }

    // Lists.

    pub(super) fn make_ready(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if !std::mem::replace(&mut connection.flags.is_ready, true) {
            self.ready.push(connection.address);
        }
    }

    pub(super) fn make_dirty(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        let flags = &mut connection.flags;
        if !flags.is_blocked && !std::mem::replace(&mut flags.is_dirty, true) {
            self.dirty.push(connection.address);
        }
    }

    /// Arms the timer for this instant, instead of the one before.
    pub(super) fn arm(&mut self, slot: Slot, due: Instant) {
        let connection = &mut self.connections[slot];
        connection.armed = self.wheel.arm(connection.address, due);
    }

    pub(super) fn is_armed(&self, slot: Slot, tick: Tick) -> bool {
        self.connections[slot].armed == tick
    }

    pub(super) fn count_dropped(&self, count: u64) {
        if count == 0 {
            return;
        }
        let mailbox = &self.hub.shared().mailboxes[self.index];
        mailbox.dropped_count.fetch_add(count, Ordering::Relaxed);
    }

    // Membership.

    pub(super) fn join(&mut self, slot: Slot, endpoint: EndpointIndex) {
        let members = &mut self.members[usize::from(endpoint)];
        let connection = &mut self.connections[slot];
        connection.endpoint = endpoint;
        connection.member = members.len();
        connection.position = self.log.end();
        members.push(slot);
    }

    pub(super) fn leave(&mut self, slot: Slot) {
        // What was broadcast before is still delivered.
        self.catch_up(slot);
        let connection = &self.connections[slot];
        if !connection.is_open() {
            // Catching up overflowed its outbox: it has left meanwhile.
            return;
        }
        let (endpoint, member) = (usize::from(connection.endpoint), connection.member);
        // The last member moves to the freed place, which a pass may have visited already: so it
        // catches up now. That may make it leave, too; then another one is last.
        while let Some(&last) = self.members[endpoint].last()
            && last != slot
        {
            self.catch_up(last);
            if self.members[endpoint].last() == Some(&last) {
                self.connections[last].member = member;
                break;
            }
        }
        let left = self.members[endpoint].swap_remove(member);
        debug_assert_eq!(left, slot, "a member stands where it says");
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Slot> {
        self.members.iter().flatten().copied()
    }

    // Sending.

    /// Sends to the connection whose handler runs.
    #[inline]
    pub(super) fn send_own(&mut self, slot: Slot, message: Message<'_>) -> Result<(), SendError> {
        if !self.connections[slot].is_open() {
            return Err(SendError::Closed);
        }
        self.catch_up(slot);
        self.push_own(slot, message)
    }

    /// Sends what the handler returned; allowed also once it has asked to close.
    #[inline]
    pub(super) fn reply(&mut self, slot: Slot, message: Message<'_>) {
        if !self.connections[slot].is_open() {
            // The last words: one message, whatever the bounds.
            frame::encode(&mut self.scratch, message);
            return;
        }
        self.catch_up(slot);
        if self.push_own(slot, message).is_err() {
            // There is nobody to tell but the counter.
            self.count_dropped(1);
        }
    }

    /// Sends to any connection of the server, for the handler of another.
    pub(super) fn send_to(
        &mut self,
        id: ConnectionId,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        if id.node() != self.hub.shared().node {
            return Err(SendError::Gone);
        }
        if id.shard() != self.index {
            let frame = self.encode(message);
            return self.links.send(id.shard(), Envelope::Send { to: id.address(), frame });
        }
        self.send_here(id.address(), Outgoing::Message(message))
    }

    /// Sends to a connection of this shard.
    pub(super) fn send_here(
        &mut self,
        to: Address,
        outgoing: Outgoing<'_>,
    ) -> Result<(), SendError> {
        let slot = self.find(to).ok_or(SendError::Gone)?;
        if !self.connections[slot].is_open() {
            let is_own = self.current == Some(slot);
            return Err(if is_own { SendError::Closed } else { SendError::Gone });
        }
        self.catch_up(slot);
        self.push(slot, outgoing)
    }

    /// Broadcasts to an endpoint on all shards, for a handler.
    pub(super) fn broadcast(
        &mut self,
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        if !self.log.has_room() {
            return Err(SendError::Overloaded);
        }
        let frame = self.encode(message);
        self.links.broadcast(endpoint, except, &frame)?;
        self.broadcast_here(endpoint, except, frame);
        Ok(())
    }

    /// Broadcasts to an endpoint on this shard.
    pub(super) fn broadcast_here(
        &mut self,
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        frame: Bytes,
    ) {
        // Whoever is excepted lives here, or does not matter here.
        let except = except.filter(|id| id.shard() == self.index);
        if !self.members[usize::from(endpoint)].is_empty() {
            self.log.append(endpoint, except, frame);
        }
    }

    /// Encodes a message for others.
    pub(super) fn encode(&mut self, message: Message<'_>) -> Bytes {
        let bytes = frame::encoded_bytes(message);
        if self.encoder.capacity() < bytes {
            self.encoder.reserve(bytes.max(ENCODER_BYTES));
        }
        frame::encode(&mut self.encoder, message);
        self.encoder.split().freeze()
    }

    /// Gives a member what was broadcast and it has not seen yet.
    #[inline]
    pub(super) fn catch_up(&mut self, slot: Slot) {
        if !self.log.is_empty() && self.connections[slot].is_open() {
            self.catch_up_slowly(slot);
        }
    }

    fn catch_up_slowly(&mut self, slot: Slot) {
        let end = self.log.end();
        let endpoint = self.connections[slot].endpoint;
        let id = self.id(slot);
        // What a member of a quiet endpoint has missed of the busy ones is long gone.
        let start =
            std::mem::replace(&mut self.connections[slot].position, end).max(self.log.start());
        for position in start..end {
            let Some(run) = self.log.run(position) else { continue };
            if run.endpoint != endpoint || run.except == Some(id) {
                continue;
            }
            let (frames, message_count) = (run.frames.clone(), run.message_count);
            if self.push(slot, Outgoing::Frames(&frames)).is_err() {
                self.count_dropped(u64::from(message_count));
            }
        }
    }

    /// Visits members who have broadcasts to catch up with, at most `budget` of them.
    pub(super) fn fan_out(&mut self, mut budget: usize) {
        while !self.log.is_empty() {
            let members = &self.members;
            let member_count = |endpoint: EndpointIndex| members[usize::from(endpoint)].len();
            let Some(endpoint) = self.pass.audience(&mut self.log, member_count) else { return };
            while let Some(&slot) = self.members[usize::from(endpoint)].get(self.pass.next) {
                if budget == 0 {
                    return;
                }
                budget -= 1;
                self.pass.next += 1;
                self.deliver(slot);
            }
        }
    }

    /// Lets one member catch up. If all that it gets is one run, that goes to the kernel at once.
    fn deliver(&mut self, slot: Slot) {
        let end = self.log.end();
        let connection = &mut self.connections[slot];
        let is_idle = connection.outbox.is_empty() && !connection.flags.is_blocked;
        if is_idle
            && connection.position + 1 == end
            && let Some(run) = self.log.run(connection.position)
            && run.endpoint == connection.endpoint
            && run.except.is_none()
        {
            connection.position = end;
            let output = connection.transport.write(&run.frames);
            if output != Output::Bytes(run.frames.len()) {
                let frames = run.frames.clone();
                self.end_shared_write(slot, &frames, output);
            }
        } else {
            self.catch_up(slot);
        }
    }
}
