//! How connections come in: sockets are accepted, here or for a shard with fewer connections, and
//! given a slot, unless there are too many: in all, or from one client address.
//!
//! A connection beyond these limits is in surplus. It has a slot like any other and gets pages, but
//! no upgrade. The surplus has few places; when all are taken, a newer connection gets that of an
//! older one that says nothing. Without such a one it is dropped without a word.

use std::net::{IpAddr, SocketAddr};

use mio::Token;

use super::placement::place;
use crate::hub::{Address, Envelope, SLOT_COUNT_MAX, Slot};
use crate::protocol::Protocol;
use crate::shard::connection::{Admission, Connection, Flags, Heard, Phase, Yielding};
use crate::shard::outbox::Outbox;
use crate::shard::quota::connections::SURPLUS_COUNT;
use crate::shard::reports::Kind;
use crate::shard::stage::Life;
use crate::shard::{EventLoop, Service};
use crate::transport::listener::{self, Accepted};
use crate::transport::{self, Transport};

impl EventLoop {
    /// Phase 3: accepts waiting sockets, here or for a shard with fewer connections.
    pub(in crate::shard) fn accept(&mut self) {
        for _ in 0..self.budgets.accept_count {
            let now = self.shard.now;
            let Some(listener) = self.listener.as_mut().filter(|l| l.is_awake(now)) else { return };
            let (socket, peer) = match listener.accept(now) {
                Accepted::Socket(socket, peer) => (socket, peer),
                Accepted::Nobody => return,
                Accepted::Failed(error) => {
                    let case = format_args!("a connection could not be accepted: {error}");
                    self.shard.report(Kind::NotAccepted, case);
                    continue;
                }
                Accepted::Exhausted(error) => {
                    let case = format_args!("the listener rests for a moment: {error}");
                    self.shard.report(Kind::Rests, case);
                    return;
                }
            };
            let own = self.shard.index;
            let shared = self.shard.hub.shared();
            let target = place(shared, own);
            let link = &shared.shards[target];
            if target != own
                && let Ok(room) = link.mailbox.reserve(0)
            {
                let socket = transport::into_fd(socket);
                // It fails only if that shard has ended.
                let _ = link.send_connection(room, Envelope::Adopt { socket, peer });
                continue;
            }
            self.shard.link().counters.add_connection();
            self.adopt(Transport::new(socket), peer);
        }
    }

    /// Accepts whoever is waiting, and then nobody any more: closing the socket would reset those
    /// in its queue. Who connects from now on is refused by the kernel, or reaches another process.
    pub(in crate::shard) fn stop_accepting(&mut self) {
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
    pub(in crate::shard) fn adopt_newcomers(&mut self) {
        while let Some((socket, peer)) = self.shard.newcomers.pop_front() {
            self.adopt(Transport::from_fd(socket), peer);
        }
    }

    /// Gives a fresh socket a slot, unless it is refused. It is counted already.
    pub(in crate::shard) fn adopt(
        &mut self,
        transport: Transport,
        peer: SocketAddr,
    ) -> Option<Address> {
        let adopted = self.give_slot(transport, peer);
        if adopted.is_none() {
            self.shard.link().counters.remove_connection();
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
        self.note_surplus(slot);
        Some(address)
    }

    /// Counts a fresh connection and takes a place for it, in the surplus if need be; `None` if
    /// there is none.
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
        self.take_surplus(peer, "the server").then_some(Admission::Surplus)
    }

    /// Counts a connection for its client, who is known for good; `None` if that has too many, and
    /// the surplus has no place.
    fn count(&mut self, client: IpAddr) -> Option<Admission> {
        let Service { visitors, .. } = &*self.application.service;
        let Some(visitors) = visitors else { return Some(Admission::Placed) };
        if visitors.enter(client, self.shard.now) {
            return Some(Admission::Counted);
        }
        self.take_surplus(client, "its address").then_some(Admission::SurplusOfAddress)
    }

    /// Takes one of the surplus's places for a connection, because `full` has as many as it may:
    /// that of an older connection if need be, for in a storm of new connections all places are
    /// always taken, and yet a probe has to get its answer.
    fn take_surplus(&mut self, client: IpAddr, full: &str) -> bool {
        if self.application.service.places.take_surplus() {
            return true;
        }
        let evicted = self.evict();
        let dropped = match evicted {
            Some((Yielding::Answered, _)) => return true,
            Some((Yielding::Silent, older)) => older,
            None => client,
        };
        self.shard.report(
            Kind::Dropped,
            format_args!(
                "a connection of {dropped} is dropped without a response: {full} has too many \
                 connections, and all {SURPLUS_COUNT} places for more are taken"
            ),
        );
        evicted.is_some()
    }

    /// Ends the connection of this shard's surplus that yields its place first, if one does. The
    /// place is the caller's. Returns why, and the address of the client that lost it.
    fn evict(&mut self) -> Option<(Yielding, IpAddr)> {
        let shard = &self.shard;
        let candidates = self.surplus.iter().filter_map(|&address| {
            let connection = &shard.connections[shard.find(address)?];
            let is_surplus = connection.flags.admission.is_surplus();
            Some((connection.yields(shard.now)?, address)).filter(|_| is_surplus)
        });
        // The first of equals is the oldest.
        let (yielding, address) = candidates.min_by_key(|&(yields, _)| yields)?;
        let slot = address.slot();
        let connection = &mut self.shard.connections[slot];
        connection.flags.admission = Admission::Evicted;
        let client = connection.client_ip();
        self.shard.lose(slot);
        Some((yielding, client))
    }

    /// Notes a connection that may have come into surplus.
    fn note_surplus(&mut self, slot: Slot) {
        let connection = &self.shard.connections[slot];
        if connection.flags.admission.is_surplus() {
            self.surplus.retain(|&address| self.shard.find(address).is_some());
            self.surplus.push(connection.address);
        }
    }

    /// Counts a connection that came by a trusted proxy, once its client is known; `false` if there
    /// is no place for it.
    #[must_use]
    pub(in crate::shard) fn admit_client(&mut self, slot: Slot) -> bool {
        let connection = &self.shard.connections[slot];
        if connection.flags.admission != Admission::Placed {
            return true;
        }
        let Some(admission) = self.count(connection.client_ip()) else { return false };
        self.shard.connections[slot].flags.admission = admission;
        if admission == Admission::SurplusOfAddress {
            self.application.service.places.give_back();
            self.note_surplus(slot);
        }
        true
    }

    /// Whether the client may upgrade at this moment.
    #[must_use]
    pub(in crate::shard) fn may_upgrade(&self, slot: Slot) -> bool {
        let Some(visitors) = &self.application.service.visitors else { return true };
        let client = self.shard.connections[slot].client_ip();
        visitors.upgrade(client, self.shard.now)
    }

    /// A connection is gone: its place is free, and its address has one less.
    pub(in crate::shard) fn let_out(&self, connection: &Connection) {
        let Service { places, visitors, .. } = &*self.application.service;
        match connection.flags.admission {
            Admission::Surplus | Admission::SurplusOfAddress => return places.give_back_surplus(),
            // Another connection has its place.
            Admission::Evicted => return,
            Admission::Placed | Admission::Counted => places.give_back(),
        }
        if connection.flags.admission == Admission::Counted
            && let Some(visitors) = visitors
        {
            visitors.leave(connection.client_ip(), self.shard.now);
        }
    }
}

#[cfg(feature = "testing")]
impl EventLoop {
    /// Panics unless just those places are taken that the connections have; between two turns, of a
    /// server with one shard.
    pub(in crate::shard) fn check_places(&self) {
        let Service { places, visitors, .. } = &*self.application.service;
        let count = |is: fn(Admission) -> bool| {
            let connections = self.shard.connections.iter();
            connections.filter(|(_, connection)| is(connection.flags.admission)).count()
        };
        let placed_count = count(|a| matches!(a, Admission::Placed | Admission::Counted));
        let surplus_count = count(Admission::is_surplus);
        assert_eq!(places.counts(), (placed_count, surplus_count), "places, and of the surplus");
        if let Some(visitors) = visitors {
            let counted = count(|a| a == Admission::Counted);
            assert!(visitors.counts(counted), "{counted} connections have an address");
        }
    }
}
