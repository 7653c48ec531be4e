//! How connections come in: sockets are accepted, here or for a shard with fewer connections, and
//! given a slot, unless there are too many: in all, or from one client address.
//!
//! Who is too many is told so, as long as only a few have to be: until its request has come, it has
//! a slot like any other. The rest is dropped without a word.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::Token;

use super::connection::{Admission, Connection, Flags, Heard, Phase};
use super::listener::{self, Accepted};
use super::outbox::Outbox;
use super::shutdown::Life;
use super::state::Slot;
use super::transport::{self, Transport};
use super::{EventLoop, Service};
use crate::hub::{Address, Envelope, SLOT_COUNT_MAX};
use crate::protocol::Protocol;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// How many connections that are too many are kept for as long as it takes to tell them so.
const SURPLUS_COUNT: usize = 64;
/// How often it is reported that connections are turned away, or have to wait.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// How many connections there may be, and how many there are: the one count that all shards share,
/// touched when a connection comes and when it goes.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    taken_count: AtomicUsize,
    /// Those that are too many: they take no place from the others.
    kept_count: AtomicUsize,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken_count: AtomicUsize::new(0), kept_count: AtomicUsize::new(0) }
    }

    /// Takes a place, if one is free.
    #[must_use]
    fn take(&self) -> bool {
        add_one(&self.taken_count, self.limit)
    }

    fn give_back(&self) {
        self.taken_count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes one of the places of those that are too many.
    #[must_use]
    fn keep(&self) -> bool {
        add_one(&self.kept_count, SURPLUS_COUNT)
    }

    fn let_go(&self) {
        self.kept_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more, if that is no more than the limit. The count guards nothing but itself.
fn add_one(count: &AtomicUsize, limit: usize) -> bool {
    let one_more = |count| (count < limit).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

/// What may happen often and is reported rarely: how often it did since it was. Each shard reports
/// its own.
#[derive(Debug, Default)]
pub(super) struct Unreported {
    count: u64,
    reported_at: Option<Instant>,
}

impl Unreported {
    /// Counts one more; if it is time, how many are to be reported.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        let is_time = |at| now.saturating_duration_since(at) >= REPORT_INTERVAL;
        if !self.reported_at.is_none_or(is_time) {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

impl EventLoop {
    /// Phase 3: accepts waiting sockets, here or for a shard with fewer connections.
    pub(super) fn accept(&mut self) {
        for _ in 0..self.budgets.accept_count {
            let now = self.shard.now;
            let Some(listener) = self.listener.as_mut().filter(|l| l.is_awake(now)) else { return };
            let (socket, peer) = match listener.accept(now) {
                Accepted::Socket(socket, peer) => (socket, peer),
                Accepted::Nobody => return,
                Accepted::Exhausted(error) => {
                    if let Some(count) = self.rests.add(now) {
                        log::warn!("accepting rested {count} times for a moment: {error}");
                    }
                    return;
                }
            };
            let own = self.shard.index;
            let shared = self.shard.hub.shared();
            let target = listener::place(shared, own);
            let mailbox = &shared.mailboxes[target];
            if target != own
                && let Ok(room) = mailbox.reserve(0)
            {
                let socket = transport::into_fd(socket);
                // It fails only if that shard has ended.
                let _ = room.send_connection(Envelope::Adopt { socket, peer });
                continue;
            }
            self.shard.inbox.mailbox().add_connection();
            self.adopt(Transport::new(socket), peer);
        }
    }

    /// Accepts whoever is waiting, and then nobody any more: closing the socket would reset those
    /// in its queue. Who connects from now on is refused by the kernel, or reaches another process.
    pub(super) fn stop_accepting(&mut self) {
        if let Some(listener) = &mut self.listener {
            (listener.is_ready, listener.resting_until) = (true, None);
        }
        let now = self.shard.now;
        for _ in 0..=usize::from(listener::BACKLOG) / self.budgets.accept_count {
            if self.listener.as_ref().is_some_and(|listener| listener.is_awake(now)) {
                self.accept();
            }
        }
        self.listener = None;
    }

    /// Adopts the sockets that other shards have accepted for this one.
    pub(super) fn adopt_newcomers(&mut self) {
        while let Some((socket, peer)) = self.shard.newcomers.pop_front() {
            self.adopt(Transport::from_fd(socket), peer);
        }
    }

    /// Gives a fresh socket a slot, unless it is refused. It is counted already.
    pub(super) fn adopt(&mut self, transport: Transport, peer: SocketAddr) -> Option<Address> {
        let adopted = self.give_slot(transport, peer);
        if adopted.is_none() {
            self.shard.inbox.mailbox().remove_connection();
        }
        adopted
    }

    fn give_slot(&mut self, transport: Transport, peer: SocketAddr) -> Option<Address> {
        let slot = self.shard.connections.vacant_key();
        if self.life == Life::Closing || slot >= SLOT_COUNT_MAX {
            return None;
        }
        let address = Address::new(slot, self.shard.generation);
        transport.register(self.poll.registry(), Token(address.token())).ok()?;
        let admission = self.admit(peer.ip())?;
        self.shard.generation += 1;
        let deadline = self.shard.now + self.shard.limits.server().handshake;
        self.shard.connections.insert(Connection {
            transport,
            address,
            peer,
            phase: Phase::Upgrading { heard: Heard::Nothing },
            protocol: Protocol::default(),
            outbox: Outbox::default(),
            backlog: Vec::new(),
            details: None,
            endpoint: self.shard.limits.no_endpoint(),
            place: 0,
            position: 0,
            heard_at: self.shard.now,
            deadline,
            ping_count: 0,
            flags: Flags { admission, ..Flags::default() },
        });
        self.shard.arm(slot, deadline);
        Some(address)
    }

    /// Counts a fresh connection and takes a place for it; `None` if there is none, not even to be
    /// told so.
    fn admit(&mut self, peer: IpAddr) -> Option<Admission> {
        let is_proxy = self.application.service.proxies.contains(peer);
        // A proxy speaks for others: whose the connection is is told later.
        let admission = if is_proxy { Admission::Placed } else { self.count(peer)? };
        let Service { places, visitors, .. } = &*self.application.service;
        if admission == Admission::SurplusOfAddress || places.take() {
            return Some(admission);
        }
        if admission == Admission::Counted
            && let Some(visitors) = visitors
        {
            visitors.leave(peer, self.shard.now);
        }
        let is_kept = places.keep();
        self.report_refusal(peer, "there are too many connections");
        is_kept.then_some(Admission::Surplus)
    }

    /// Counts a connection for its client, who is known for good; `None` if that has too many, and
    /// there is no place to be told so.
    fn count(&mut self, client: IpAddr) -> Option<Admission> {
        let Service { places, visitors, .. } = &*self.application.service;
        let Some(visitors) = visitors else { return Some(Admission::Placed) };
        if visitors.enter(client, self.shard.now) {
            return Some(Admission::Counted);
        }
        let is_kept = places.keep();
        self.report_refusal(client, "its address has too many connections");
        is_kept.then_some(Admission::SurplusOfAddress)
    }

    /// Counts a connection that came by a trusted proxy, once its client is known; `false` if there
    /// is no place for it, not even to be told so.
    #[must_use]
    pub(super) fn admit_client(&mut self, slot: Slot) -> bool {
        let connection = &self.shard.connections[slot];
        if connection.flags.admission != Admission::Placed {
            return true;
        }
        let Some(admission) = self.count(connection.client_ip()) else { return false };
        self.shard.connections[slot].flags.admission = admission;
        if admission == Admission::SurplusOfAddress {
            self.application.service.places.give_back();
        }
        true
    }

    /// Whether the client may upgrade at this moment.
    #[must_use]
    pub(super) fn may_upgrade(&mut self, slot: Slot) -> bool {
        let Some(visitors) = &self.application.service.visitors else { return true };
        let client = self.shard.connections[slot].client_ip();
        let may_upgrade = visitors.upgrade(client, self.shard.now);
        if !may_upgrade {
            self.report_refusal(client, "its address upgrades too often");
        }
        may_upgrade
    }

    /// A connection is gone: its place is free, and its address has one less.
    pub(super) fn let_out(&self, connection: &Connection) {
        let Service { places, visitors, .. } = &*self.application.service;
        match connection.flags.admission {
            Admission::Surplus | Admission::SurplusOfAddress => return places.let_go(),
            Admission::Placed | Admission::Counted => places.give_back(),
        }
        if connection.flags.admission == Admission::Counted
            && let Some(visitors) = visitors
        {
            visitors.leave(connection.client_ip(), self.shard.now);
        }
    }

    fn report_refusal(&mut self, address: IpAddr, why: &str) {
        if let Some(count) = self.turned_away.add(self.shard.now) {
            log::warn!("{count} turned away, the last of them {address}: {why}");
        }
    }
}
