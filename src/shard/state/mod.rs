//! [`Shard`]: the connections of one thread, and everything that may be done to them while a
//! handler runs: queueing, never calling another handler, never freeing.
//!
//! Knows outboxes, audiences, the ways to other shards and the mailbox. Must not know how events
//! arrive, nor what a handler is. The fields are private to this module and those below it.

mod close;
#[cfg(feature = "testing")]
mod invariants;
mod kept_input;
mod mail;
mod output;
mod publish;
mod report;
mod send;
mod service;
mod slots;
mod streaming;
mod waiting;
mod write;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use slab::Slab;

use crate::config::Limits;
use crate::hub::mailbox::Inbox;
use crate::hub::{Address, ConnectionId, Envelope, Hub, Schedule, ShardLink, Shared, Slot};
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
use crate::transport::Input;
use crate::transport::readiness::Readiness;

/// The connections of one thread, and everything that may be done to them while a handler runs.
///
/// Nothing here calls a handler, frees a connection or sleeps. So a handler may reach all of it.
/// The methods are of these kinds:
///
/// * **Facts**: [`connection`](Self::connection), [`find`](Self::find),
///   [`limits_of`](Self::limits_of), [`is_congested`](Self::is_congested), [`now`](Self::now), ..
/// * **The way of a connection** (`slots`, `waiting`, `close`), in this order:
///   [`insert`](Self::insert), [`begin_request`](Self::begin_request),
///   [`open_connection`](Self::open_connection), [`begin_close`](Self::begin_close) or
///   [`lose`](Self::lose), [`begin_closing`](Self::begin_closing),
///   [`release_slot`](Self::release_slot), [`remove`](Self::remove).
/// * **The current service** (`service`, `send`, `write`): [`enter`](Self::enter) begins it. Then
///   the connection's own output gathers: [`send_own`](Self::send_own), [`reply`](Self::reply), ..
///   [`exit`](Self::exit) writes it, and [`settle`](Self::settle) does what follows. On the fast
///   path nothing can follow: [`enter_fast`](Self::enter_fast), [`exit_fast`](Self::exit_fast).
/// * **Commands to any connection**, at any time (`send`, `output`, `publish`, `streaming`):
///   [`send_to`](Self::send_to), [`publish`](Self::publish), [`subscribe`](Self::subscribe), ..
///   A handler's command comes after [`take_over`](Self::take_over).
/// * **Lists**: [`make_ready`](Self::make_ready), .. put a connection on one;
///   `take_..` takes those off it with which a phase has to do something.
/// * **The mailbox** (`mail`) and what is told to all (`report`).
///
/// A turn of the loop is: [`begin_turn`](Self::begin_turn); a service for each connection of
/// [`take_ready`](Self::take_ready); [`take_envelopes`](Self::take_envelopes);
/// [`expire_timers`](Self::expire_timers); [`fan_out`](Self::fan_out);
/// [`flush_dirty`](Self::flush_dirty); a service for each of [`take_drained`](Self::take_drained);
/// [`remove`](Self::remove) for each of [`take_dead`](Self::take_dead). Before each of the last two
/// steps, and after the services, [`take_pending_close`](Self::take_pending_close) is emptied.
#[derive(Debug)]
pub(in crate::shard) struct Shard {
    index: usize,
    /// By the connection's endpoint.
    limits: LimitTable,
    hub: Hub,
    now: Instant,
    /// The server's shutdown, as far as this shard has heard of it.
    schedule: Option<Schedule>,
    connections: Slab<Connection>,
    generation: u64,
    outbound: Outbound,
    inbox: Inbox<Envelope>,
    /// Sockets that other shards have accepted for this one. They came by the mailbox; the loop
    /// adopts them. A shard gets none while it has more connections than the others.
    handed_over: VecDeque<(OwnedFd, SocketAddr)>,
    wheel: Wheel,
    fanout: Fanout,
    /// What a connection is about to get of the log.
    due: Vec<Position>,
    watch: Stopwatch,
    /// What is to be in the log; see [`Shard::report`].
    reports: Reports,
    /// Which connection is served, and what it gets after what is in its outbox.
    cork: Cork,
    encoder: Encoder,
    spares: Spares,
    /// The sum of all outboxes.
    queued_bytes: usize,
    input_quota: InputQuota,
    /// Input is waiting, or may be.
    ready: Vec<Address>,
    /// Output is waiting that the kernel might take.
    dirty: Vec<Address>,
    /// `on_close` is to be called.
    pending_closes: Vec<Slot>,
    /// `on_drain` is to be called.
    drained: Vec<Address>,
    /// To be freed at the end of the turn.
    dead: Vec<Slot>,
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
            handed_over: VecDeque::new(),
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
}

/// Facts.
impl Shard {
    pub(in crate::shard) fn index(&self) -> usize {
        self.index
    }

    pub(in crate::shard) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// What all shards share.
    #[inline]
    pub(in crate::shard) fn shared(&self) -> &Shared {
        self.hub.shared()
    }

    /// The limits that count for connections without an endpoint, and for the shard.
    pub(in crate::shard) fn server_limits(&self) -> &Limits {
        self.limits.server()
    }

    #[inline]
    pub(in crate::shard) fn connection(&self, slot: Slot) -> &Connection {
        &self.connections[slot]
    }

    #[inline]
    pub(in crate::shard) fn connection_mut(&mut self, slot: Slot) -> &mut Connection {
        &mut self.connections[slot]
    }

    /// Reads from a connection's transport, which may be a sign of life. Returns the connection,
    /// too.
    #[inline]
    pub(in crate::shard) fn read(
        &mut self,
        slot: Slot,
        buffer: &mut [u8],
    ) -> (Input, &mut Connection) {
        let connection = &mut self.connections[slot];
        let input = connection.read(buffer);
        if let Input::Bytes(..) = input {
            connection.touch(self.now);
        }
        (input, connection)
    }

    /// A connection, and the limits that count for it.
    pub(in crate::shard) fn connection_with_limits(
        &mut self,
        slot: Slot,
    ) -> (&mut Connection, &Limits) {
        let connection = &mut self.connections[slot];
        let limits = &self.limits[connection.endpoint()];
        (connection, limits)
    }

    /// All connections, the dead included.
    pub(in crate::shard) fn connections(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        self.connections.iter()
    }

    pub(in crate::shard) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is a connection in this slot: a timer may fire when it is gone.
    pub(in crate::shard) fn has(&self, slot: Slot) -> bool {
        self.connections.contains(slot)
    }

    /// All connections that have upgraded and whose end is not decided.
    pub(in crate::shard) fn members(&self) -> impl Iterator<Item = Slot> {
        self.fanout.audiences.everybody()
    }

    /// What all threads know of this shard.
    pub(in crate::shard) fn link(&self) -> &ShardLink {
        &self.hub.shared().shards[self.index]
    }

    /// The slot of a connection that is still there.
    #[inline]
    pub(in crate::shard) fn find(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address() == address).then_some(slot)
    }

    /// The slot of a connection that is still there, if it is idle.
    #[inline]
    pub(in crate::shard) fn find_idle(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address() == address && connection.is_idle()).then_some(slot)
    }

    pub(in crate::shard) fn id(&self, slot: Slot) -> ConnectionId {
        let address = self.connections[slot].address();
        ConnectionId::new(self.hub.shared().node, self.index, address)
    }

    /// The limits that count for this connection.
    #[inline]
    pub(in crate::shard) fn limits_of(&self, slot: Slot) -> &Limits {
        &self.limits[self.connections[slot].endpoint()]
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
        let held = if connection.has_stream() { self.held_bytes(slot) } else { 0 };
        connection.outbox().bytes() + own + held
    }
}

/// Ways to other shards, and what is counted.
impl Shard {
    /// Whether this shard waits until another one takes what was sent to it.
    #[inline]
    pub(in crate::shard) fn waits_for_shards(&self) -> bool {
        self.outbound.is_blocked()
    }

    /// Clears `armed`; whether it was set. *Then* the loop takes what is there.
    pub(in crate::shard) fn disarm_mailbox(&self) -> bool {
        self.inbox.disarm()
    }

    /// Looks whether the other shards take anything again.
    #[inline]
    pub(in crate::shard) fn look_at_shards(&mut self) {
        if self.outbound.is_blocked() {
            self.outbound.look();
        }
    }

    /// Nothing is sent to other shards any more.
    pub(in crate::shard) fn quiet(&mut self) {
        self.outbound.quiet();
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
}

/// What time it is, timers, and the server's shutdown as far as the shard has heard of it.
impl Shard {
    /// The time of the turn.
    #[inline]
    pub(in crate::shard) fn now(&self) -> Instant {
        self.now
    }

    /// A turn begins at this time.
    pub(in crate::shard) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.watch.restart();
    }

    /// Tells the time between two turns.
    #[cfg(feature = "testing")]
    pub(in crate::shard) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    // Timers.

    /// Sees to it that the timer fires at this instant, or before.
    pub(in crate::shard) fn arm(&mut self, slot: Slot, due: Instant) {
        self.wheel.arm(slot, due);
    }

    /// The connection's phase ends by force at this instant, or its waiting does.
    pub(in crate::shard) fn set_deadline(&mut self, slot: Slot, deadline: Instant) {
        self.connections[slot].set_deadline(deadline);
        self.wheel.arm(slot, deadline);
    }

    #[inline]
    pub(in crate::shard) fn is_timer_due(&self) -> bool {
        self.wheel.is_due(self.now)
    }

    /// When the next timer is due.
    pub(in crate::shard) fn next_timer_due(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// Takes the timers that are due. Their connections may be gone.
    pub(in crate::shard) fn expire_timers(&mut self, fired: &mut Vec<Slot>) {
        self.wheel.expire(self.now, fired);
        self.summarise();
    }

    // The shutdown.

    /// Notes how far the server's shutdown has come; when its stages are due, if it has begun.
    #[inline]
    pub(in crate::shard) fn follow_shutdown(&mut self) -> Option<Schedule> {
        let schedule = self.hub.shared().shutdown.schedule(self.now)?;
        self.schedule = Some(schedule);
        Some(schedule)
    }

    /// When the stages of the shutdown are due, as far as this shard has heard of it.
    pub(in crate::shard) fn schedule(&self) -> Option<Schedule> {
        self.schedule
    }

    /// The end of the server's grace, if it shuts down and that is not only announced.
    #[inline]
    pub(in crate::shard) fn grace_end(&self) -> Option<Instant> {
        let schedule = self.schedule.filter(|schedule| schedule.accepts_until <= self.now)?;
        Some(schedule.ends_at)
    }
}

/// What puts a connection on a list.
impl Shard {
    /// Notes what happened to a connection's transport; the connection, if it is to be read.
    #[inline]
    pub(in crate::shard) fn notice(
        &mut self,
        address: Address,
        readiness: Readiness,
    ) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get_mut(slot)?;
        if connection.address() != address {
            return None;
        }
        let Readiness { is_readable, is_writable, has_ended } = readiness;
        if has_ended {
            connection.note_peer_end();
        }
        if connection.is_blocked() && is_writable {
            self.unblock(slot);
        }
        (is_readable || has_ended).then_some(slot)
    }

    pub(in crate::shard) fn make_ready(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.mark_ready() {
            self.ready.push(connection.address());
        }
    }

    /// Takes a connection that has just come on the ready list off it again; whether it had come.
    pub(in crate::shard) fn take_back_ready(&mut self, slot: Slot) -> bool {
        let connection = &mut self.connections[slot];
        let is_last = connection.is_ready() && self.ready.last() == Some(&connection.address());
        if is_last {
            connection.unmark_ready();
            self.ready.pop();
        }
        is_last
    }

    pub(in crate::shard) fn make_dirty(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.mark_dirty() {
            self.dirty.push(connection.address());
        }
    }
}

/// What takes connections off the lists.
impl Shard {
    /// Whether input waits, or may.
    #[inline]
    pub(in crate::shard) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the ready list, which is to be [put back](Self::put_back_ready). The connections keep
    /// their marks until they are read.
    pub(in crate::shard) fn take_ready(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.ready)
    }

    /// Puts the ready list back without its first connections, which were read; before those that
    /// have become ready meanwhile.
    pub(in crate::shard) fn put_back_ready(&mut self, mut ready: Vec<Address>, done_count: usize) {
        ready.drain(..done_count);
        ready.append(&mut self.ready);
        self.ready = ready;
    }

    /// Whether publications are to be delivered.
    #[inline]
    pub(in crate::shard) fn has_publications(&self) -> bool {
        !self.fanout.is_empty()
    }

    /// Whether a connection's end is decided and `on_close` is to be called.
    #[inline]
    pub(in crate::shard) fn has_pending_close(&self) -> bool {
        !self.pending_closes.is_empty()
    }

    /// Whether a budget, or the end of a turn, left output to be delivered, or reported as drained.
    pub(in crate::shard) fn has_undelivered(&self) -> bool {
        !self.fanout.is_empty() || !self.dirty.is_empty() || !self.drained.is_empty()
    }

    /// Hands all outboxes of the dirty list to the kernel, once each.
    #[inline]
    pub(in crate::shard) fn flush_dirty(&mut self) {
        if !self.dirty.is_empty() {
            self.flush_all_dirty();
        }
    }

    fn flush_all_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for address in dirty.drain(..) {
            if let Some(slot) = self.find(address) {
                self.flush(slot);
            }
        }
        // Keeps the allocation; what has become dirty meanwhile is the next turn's.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Takes the drained list: each is to be [begun](Self::begin_drain).
    pub(in crate::shard) fn take_drained(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.drained)
    }

    /// `on_drain` is called now; the connection, if it is still there and open.
    pub(in crate::shard) fn begin_drain(&mut self, address: Address) -> Option<Slot> {
        let slot = self.find(address)?;
        let connection = &mut self.connections[slot];
        connection.unmark_drained();
        connection.is_open().then_some(slot)
    }

    /// Takes a connection whose end is decided; it may have ended since.
    pub(in crate::shard) fn take_pending_close(&mut self) -> Option<Slot> {
        self.pending_closes.pop()
    }

    /// Takes a connection that is to be [removed](Self::remove).
    pub(in crate::shard) fn take_dead(&mut self) -> Option<Slot> {
        debug_assert!(self.pending_closes.is_empty(), "on_close is called before the reaping");
        self.dead.pop()
    }
}
