//! [`Shard`]: the connections of one thread, and everything that may be done to them while a
//! handler runs: queueing, never calling another handler, never freeing.
//!
//! Knows outboxes, audiences, the ways to other shards and the mailbox. Must not know how events
//! arrive, nor what a handler is.

mod close;
mod cork;
pub(in crate::shard) mod kept_input;
mod mail;
mod output;
mod progress;
mod publish;
mod report;
mod send;
pub(in crate::shard) mod slow_handlers;
mod streaming;
mod write;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use slab::Slab;

use crate::config::Limits;
use crate::hub::mailbox::Inbox;
use crate::hub::{Address, ConnectionId, Envelope, Hub, Schedule, Slot};
use crate::shard::connection::Connection;
use crate::shard::fanout::Fanout;
use crate::shard::fanout::audience::Position;
use crate::shard::limits::LimitTable;
use crate::shard::outbound::Outbound;
use crate::shard::outbox::Spares;
use crate::shard::outbox::cork::Cork;
use crate::shard::outbox::encoder::Encoder;
use crate::shard::quota::input::InputQuota;
use crate::shard::reports::Reports;
use crate::shard::stopwatch::Stopwatch;
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
    pub(in crate::shard) outbound: Outbound,
    pub(in crate::shard) inbox: Inbox<Envelope>,
    /// Sockets that other shards have accepted for this one. They came by the mailbox; the loop
    /// adopts them. A shard gets none while it has more connections than the others.
    pub(in crate::shard) newcomers: VecDeque<(OwnedFd, SocketAddr)>,
    pub(in crate::shard) wheel: Wheel,
    pub(in crate::shard) fanout: Fanout,
    /// What a connection is about to get of the log.
    pub(in crate::shard) due: Vec<Position>,
    pub(in crate::shard) watch: Stopwatch,
    /// What is to be in the log; see [`Shard::report`].
    pub(in crate::shard) reports: Reports,
    /// Which connection is served, and what it gets after what is in its outbox.
    pub(in crate::shard) cork: Cork,
    pub(in crate::shard) encoder: Encoder,
    pub(in crate::shard) spares: Spares,
    /// The sum of all outboxes.
    pub(in crate::shard) queued_bytes: usize,
    pub(in crate::shard) input_quota: InputQuota,
    /// Input is waiting, or may be.
    pub(in crate::shard) ready: Vec<Address>,
    /// Output is waiting that the kernel might take.
    pub(in crate::shard) dirty: Vec<Address>,
    /// `on_close` is to be called.
    pub(in crate::shard) pending_closes: Vec<Slot>,
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
            outbound: Outbound::new(hub.clone(), index, limits.server()),
            fanout: Fanout::new(limits.endpoint_count()),
            watch: Stopwatch::new(limits.no_endpoint()),
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
            cork: Cork::new(),
            encoder: Encoder::new(),
            spares: Spares::default(),
            queued_bytes: 0,
            input_quota: InputQuota::default(),
            ready: Vec::new(),
            dirty: Vec::new(),
            pending_closes: Vec::new(),
            drained: Vec::new(),
            dead: Vec::new(),
        }
    }

    // Getters.

    /// The slot of a connection that is still there.
    #[inline]
    pub(in crate::shard) fn find(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address).then_some(slot)
    }

    /// The slot of a connection that is still there, if it is idle.
    #[inline]
    pub(in crate::shard) fn find_idle(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address && connection.is_idle()).then_some(slot)
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
    pub(in crate::shard) fn is_congested(&self) -> bool {
        self.outbound.is_blocked() || self.fanout.is_behind()
    }

    /// Whether nothing is under way between connections that a reply must not overtake.
    #[inline]
    pub(in crate::shard) fn is_quiescent(&self) -> bool {
        self.fanout.is_empty() && !self.outbound.is_blocked()
    }

    /// What waits for this connection, the cork included, its HTTP not.
    #[inline]
    pub(in crate::shard) fn buffered_bytes(&self, slot: Slot) -> usize {
        let own = if self.cork.is_of(slot) { self.cork.message_bytes() } else { 0 };
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
        self.hub.shared().mailboxes[self.index].count_dropped(count);
    }

    /// Counts work of a handler that is cut.
    pub(in crate::shard) fn count_cancelled(&self) {
        self.hub.shared().mailboxes[self.index].count_cancelled();
    }

    /// The connection's input goes on, or its end does.
    pub(in crate::shard) fn end_waiting(&mut self, slot: Slot) {
        self.connections[slot].flags.is_waiting = false;
        self.continue_close(slot);
        self.make_ready(slot);
    }
}
