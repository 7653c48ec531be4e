//! [`Shard`]: the connections of one thread, and everything that may be done to them while a
//! handler runs: queueing, never calling another handler, never freeing.
//!
//! Knows outboxes, audiences, the ways to other shards and the mailbox. Must not know how events
//! arrive, nor what a handler is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;

use super::connection::Connection;
use super::encoder::Encoder;
use super::fanout::{Fanout, Position};
use super::keeping::KeptInput;
use super::limits::LimitTable;
use super::links::Links;
use super::news::Readiness;
use super::outbox::Spares;
use super::output::SCRATCH_BYTES;
use super::reports::Reports;
use super::room::Room;
use super::timers::Wheel;
use super::watch::Watch;
use crate::config::Limits;
use crate::error::SendError;
use crate::hub::delivery::Ticket;
use crate::hub::mailbox::Inbox;
use crate::hub::{Address, ConnectionId, Envelope, Hub, Schedule};
use crate::message::Message;
use crate::protocol::frame;

/// The index of a connection in the slab.
pub(super) type Slot = usize;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: usize,
    /// By the connection's endpoint.
    pub(super) limits: LimitTable,
    pub(super) hub: Hub,
    pub(super) now: Instant,
    /// The server's shutdown, as far as this shard has heard of it.
    pub(super) schedule: Option<Schedule>,
    pub(super) connections: Slab<Connection>,
    pub(super) generation: u64,
    pub(super) links: Links,
    pub(super) inbox: Inbox<Envelope>,
    /// Sockets that other shards have accepted for this one. They came by the mailbox; the loop
    /// adopts them. A shard gets none while it has more connections than the others.
    pub(super) newcomers: VecDeque<(OwnedFd, SocketAddr)>,
    pub(super) wheel: Wheel,
    pub(super) fanout: Fanout,
    /// What a connection is about to get of the log.
    pub(super) due: Vec<Position>,
    pub(super) watch: Watch,
    /// What is to be in the log; see [`Shard::report`].
    pub(super) reports: Reports,
    /// Whose turn it is; its own output goes to `scratch`.
    pub(super) current: Option<Slot>,
    /// Output of the current connection, after what is in its outbox.
    pub(super) scratch: Vec<u8>,
    /// Output of the current connection after what is in the scratch; see [`Shard::room_bytes`].
    pub(super) room: Room,
    /// What the message lies in that is handed to the handler, if that is long and can be shared.
    pub(super) lent: Option<Bytes>,
    /// How much of the scratch is HTTP: what comes before the first frame.
    pub(super) scratch_http_bytes: usize,
    pub(super) encoder: Encoder,
    pub(super) spares: Spares,
    /// The sum of all outboxes.
    pub(super) queued_bytes: usize,
    pub(super) kept_input: KeptInput,
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
    pub(super) fn new(
        index: usize,
        limits: LimitTable,
        hub: Hub,
        inbox: Inbox<Envelope>,
        now: Instant,
    ) -> Self {
        Self {
            index,
            links: Links::new(hub.clone(), index, limits.server()),
            fanout: Fanout::new(limits.endpoint_count()),
            watch: Watch::new(limits.no_endpoint()),
            reports: Reports::default(),
            limits,
            hub,
            inbox,
            newcomers: VecDeque::new(),
            now,
            schedule: None,
            connections: Slab::new(),
            generation: 0,
            wheel: Wheel::new(now),
            due: Vec::new(),
            current: None,
            scratch: Vec::with_capacity(SCRATCH_BYTES),
            room: Room::new(),
            lent: None,
            scratch_http_bytes: 0,
            encoder: Encoder::new(),
            spares: Spares::default(),
            queued_bytes: 0,
            kept_input: KeptInput::default(),
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

    /// The slot of a connection that is still there, if it is at ease.
    #[inline]
    pub(super) fn find_at_ease(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address && connection.is_at_ease()).then_some(slot)
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

    /// The end of the server's grace, if it shuts down and that is not only announced.
    #[inline]
    pub(super) fn grace_end(&self) -> Option<Instant> {
        let schedule = self.schedule.filter(|schedule| schedule.accepts_until <= self.now)?;
        Some(schedule.ends_at)
    }

    /// Whether what handlers send has no way to go for the moment: then none is called.
    #[inline]
    pub(super) fn is_held_up(&self) -> bool {
        self.links.is_blocked() || self.fanout.is_behind()
    }

    /// Whether nothing is under way between connections that a reply must not overtake.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.fanout.is_empty() && !self.links.is_blocked()
    }

    /// What waits for this connection, scratch included, its HTTP not.
    #[inline]
    pub(super) fn buffered_bytes(&self, slot: Slot) -> usize {
        let is_current = self.current == Some(slot);
        let own = if is_current {
            self.scratch.len() - self.scratch_http_bytes + self.room.content().len()
        } else {
            0
        };
        let connection = &self.connections[slot];
        let held = if connection.flags.has_stream { self.held_bytes(slot) } else { 0 };
        connection.outbox.bytes() + own + held
    }

    // Lists.

    /// Notes what happened to a connection's transport; the connection, if it is to be read.
    #[inline]
    pub(super) fn notice(&mut self, address: Address, readiness: Readiness) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get_mut(slot)?;
        if connection.address != address {
            return None;
        }
        let Readiness { is_readable, is_writable, has_ended } = readiness;
        if has_ended {
            connection.flags.has_peer_ended = true;
        }
        if connection.flags.is_blocked && is_writable {
            self.unblock(slot);
        }
        (is_readable || has_ended).then_some(slot)
    }

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

    /// Sees to it that the timer fires at this instant, or before.
    pub(super) fn arm(&mut self, slot: Slot, due: Instant) {
        self.wheel.arm(slot, due);
    }

    pub(super) fn count_dropped(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.hub.shared().mailboxes[self.index].count_dropped(count);
    }

    /// Counts work of a handler that is cut.
    pub(super) fn count_cancelled(&self) {
        self.hub.shared().mailboxes[self.index].count_cancelled();
    }

    // Sending.

    /// Sends to the connection whose handler runs.
    #[inline]
    pub(super) fn send_own(&mut self, slot: Slot, message: Message<'_>) -> Result<(), SendError> {
        if self.room.append(message) {
            return Ok(());
        }
        self.close_room();
        if !self.connections[slot].is_open() {
            return Err(SendError::Closed);
        }
        self.catch_up(slot);
        if !self.connections[slot].is_open() {
            return Err(SendError::Overloaded);
        }
        self.push_own(slot, message)
    }

    /// Sends what the handler returned; allowed also once it has asked to close.
    #[inline]
    pub(super) fn reply(&mut self, slot: Slot, message: Message<'_>) {
        if !self.connections[slot].is_open() {
            // The last words: one message, whatever the bounds.
            let connection = &self.connections[slot];
            let flags = &connection.flags;
            if flags.is_cut_short || !connection.phase.may_send() {
                self.count_dropped(1);
            } else if flags.has_stream {
                self.hold(slot, Outgoing::Message(message), None);
            } else {
                frame::encode(&mut self.scratch, message);
            }
            return;
        }
        self.catch_up(slot);
        let is_long = message.len() >= SCRATCH_BYTES;
        let sent =
            if is_long { self.reply_long(slot, message) } else { self.push_own(slot, message) };
        if sent.is_err() {
            // There is nobody to tell but the counter.
            self.count_dropped(1);
        }
    }

    /// Sends to any connection of the server, for the handler of another.
    pub(super) fn send_to(
        &mut self,
        id: ConnectionId,
        message: Message<'_>,
        ticket: Option<Ticket>,
    ) -> Result<(), SendError> {
        if id.node() != self.hub.shared().node {
            return Err(SendError::Gone);
        }
        let to = id.address();
        if id.shard() == self.index && ticket.is_none() {
            return self.send_here(to, Outgoing::Message(message), None);
        }
        let frame = self.encoder.encode(message);
        if id.shard() == self.index {
            return self.send_here(to, Outgoing::Frames(&frame), ticket);
        }
        self.links.send(id.shard(), Envelope::Send { to, frame, ticket })
    }

    /// Sends to a connection of this shard; the ticket knows what came of it.
    pub(super) fn send_here(
        &mut self,
        to: Address,
        outgoing: Outgoing<'_>,
        ticket: Option<Ticket>,
    ) -> Result<(), SendError> {
        let error = match self.find(to) {
            Some(slot) if self.connections[slot].is_open() => {
                self.catch_up(slot);
                if self.connections[slot].is_open() {
                    return self.push(slot, outgoing, ticket);
                }
                // What was published before has overflowed its outbox: it gets nothing after that.
                SendError::Overloaded
            }
            Some(slot) if self.current == Some(slot) => SendError::Closed,
            _ => SendError::Gone,
        };
        if let Some(ticket) = ticket {
            ticket.settle(Err(error));
        }
        Err(error)
    }
}
