//! [`Shard`]: the connections of one thread, and everything that may be done to them while a
//! handler runs: queueing, never calling another handler, never freeing.
//!
//! Knows outboxes, audiences, the ways to other shards and the mailbox. Must not know how events
//! arrive, nor what a handler is.

mod close;
pub(in crate::shard) mod kept_input;
mod mail;
pub(in crate::shard) mod output;
mod progress;
mod publish;
mod report;
mod send;
pub(in crate::shard) mod slow_handlers;
pub(in crate::shard) mod streaming;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;

use crate::config::Limits;
use crate::hub::mailbox::Inbox;
use crate::hub::{Address, ConnectionId, Envelope, Hub, Schedule, ShardLink, Slot};
use crate::shard::connection::Connection;
use crate::shard::fanout::Fanout;
use crate::shard::fanout::audience::Position;
use crate::shard::limits::LimitTable;
use crate::shard::links::Links;
use crate::shard::outbox::Spares;
use crate::shard::outbox::cork::Room;
use crate::shard::outbox::cork::SCRATCH_BYTES;
use crate::shard::outbox::encoder::Encoder;
use crate::shard::quota::input::KeptInput;
use crate::shard::reports::Reports;
use crate::shard::stopwatch::Watch;
use crate::shard::timers::Wheel;
use crate::transport::readiness::Readiness;

#[derive(Debug)]
pub(in crate::shard) struct Shard {
    pub(in crate::shard) index: usize,
    /// By the connection's endpoint.
    pub(in crate::shard) limits: LimitTable,
    pub(in crate::shard) hub: Hub,
    pub(in crate::shard) now: Instant,
    /// The server's shutdown, as far as this shard has heard of it.
    pub(in crate::shard) schedule: Option<Schedule>,
    pub(in crate::shard) connections: Slab<Connection>,
    pub(in crate::shard) generation: u64,
    pub(in crate::shard) links: Links,
    pub(in crate::shard) inbox: Inbox<Envelope>,
    /// Sockets that other shards have accepted for this one. They came by the mailbox; the loop
    /// adopts them. A shard gets none while it has more connections than the others.
    pub(in crate::shard) newcomers: VecDeque<(OwnedFd, SocketAddr)>,
    pub(in crate::shard) wheel: Wheel,
    pub(in crate::shard) fanout: Fanout,
    /// What a connection is about to get of the log.
    pub(in crate::shard) due: Vec<Position>,
    pub(in crate::shard) watch: Watch,
    /// What is to be in the log; see [`Shard::report`].
    pub(in crate::shard) reports: Reports,
    /// Whose turn it is; its own output goes to `scratch`.
    pub(in crate::shard) current: Option<Slot>,
    /// Output of the current connection, after what is in its outbox.
    pub(in crate::shard) scratch: Vec<u8>,
    /// Output of the current connection after what is in the scratch; see [`Shard::room_bytes`].
    pub(in crate::shard) room: Room,
    /// What the message lies in that is handed to the handler, if that is long and can be shared.
    pub(in crate::shard) lent: Option<Bytes>,
    /// How much of the scratch is HTTP: what comes before the first frame.
    pub(in crate::shard) scratch_http_bytes: usize,
    pub(in crate::shard) encoder: Encoder,
    pub(in crate::shard) spares: Spares,
    /// The sum of all outboxes.
    pub(in crate::shard) queued_bytes: usize,
    pub(in crate::shard) kept_input: KeptInput,
    /// Input is waiting, or may be.
    pub(in crate::shard) ready: Vec<Address>,
    /// Output is waiting that the kernel might take.
    pub(in crate::shard) dirty: Vec<Address>,
    /// `on_close` is to be called.
    pub(in crate::shard) leaving: Vec<Slot>,
    /// `on_drain` is to be called.
    pub(in crate::shard) drained: Vec<Address>,
    /// To be freed at the end of the turn.
    pub(in crate::shard) dead: Vec<Slot>,
}

impl Shard {
    pub(in crate::shard) fn new(
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

    /// What all threads know of this shard.
    pub(in crate::shard) fn link(&self) -> &ShardLink {
        &self.hub.shared().shards[self.index]
    }

    /// The slot of a connection that is still there.
    #[inline]
    pub(in crate::shard) fn find(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address).then_some(slot)
    }

    /// The slot of a connection that is still there, if it is at ease.
    #[inline]
    pub(in crate::shard) fn find_at_ease(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address && connection.is_at_ease()).then_some(slot)
    }

    pub(in crate::shard) fn id(&self, slot: Slot) -> ConnectionId {
        let address = self.connections[slot].address;
        ConnectionId::new(self.hub.shared().node, self.index, address)
    }

    /// The limits that count for this connection.
    #[inline]
    pub(in crate::shard) fn limits_of(&self, slot: Slot) -> &Limits {
        &self.limits[self.connections[slot].endpoint]
    }

    /// The end of the server's grace, if it shuts down and that is not only announced.
    #[inline]
    pub(in crate::shard) fn grace_end(&self) -> Option<Instant> {
        let schedule = self.schedule.filter(|schedule| schedule.accepts_until <= self.now)?;
        Some(schedule.ends_at)
    }

    /// Whether what handlers send has no way to go for the moment: then none is called.
    #[inline]
    pub(in crate::shard) fn is_held_up(&self) -> bool {
        self.links.is_blocked() || self.fanout.is_behind()
    }

    /// Whether nothing is under way between connections that a reply must not overtake.
    #[inline]
    pub(in crate::shard) fn is_calm(&self) -> bool {
        self.fanout.is_empty() && !self.links.is_blocked()
    }

    /// What waits for this connection, scratch included, its HTTP not.
    #[inline]
    pub(in crate::shard) fn buffered_bytes(&self, slot: Slot) -> usize {
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
    pub(in crate::shard) fn notice(
        &mut self,
        address: Address,
        readiness: Readiness,
    ) -> Option<Slot> {
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

    pub(in crate::shard) fn make_ready(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if !std::mem::replace(&mut connection.flags.is_ready, true) {
            self.ready.push(connection.address);
        }
    }

    pub(in crate::shard) fn make_dirty(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        let flags = &mut connection.flags;
        if !flags.is_blocked && !std::mem::replace(&mut flags.is_dirty, true) {
            self.dirty.push(connection.address);
        }
    }

    /// Sees to it that the timer fires at this instant, or before.
    pub(in crate::shard) fn arm(&mut self, slot: Slot, due: Instant) {
        self.wheel.arm(slot, due);
    }

    pub(in crate::shard) fn count_dropped(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.link().counters.count_dropped(count);
    }

    /// Counts work of a handler that is cut.
    pub(in crate::shard) fn count_cancelled(&self) {
        self.link().counters.count_cancelled();
    }

    /// The connection's input goes on, or its end does.
    pub(in crate::shard) fn end_waiting(&mut self, slot: Slot) {
        self.connections[slot].flags.is_waiting = false;
        self.go_on_leaving(slot);
        self.make_ready(slot);
    }
}
