//! Admission of sockets: they are accepted, here or for a shard with fewer connections, and given a
//! slot, unless there are too many: in all, or from one client address.
//!
//! A connection beyond these limits is over the limit. It has a slot like any other and gets pages,
//! but no upgrade. Few connections may be over the limit. When there are too many of them, a new
//! one takes the slot of an older one that has sent nothing. Without such a one it is dropped
//! silently.
//!
//! Knows listeners, quotas, placement and slots. Must not know requests, endpoints or frames.

use std::net::{IpAddr, SocketAddr};

use mio::Token;

use super::placement::place;
use crate::hub::{Address, Envelope, Slot};
use crate::shard::connection::{Admission, Connection, Yielding};
use crate::shard::quota::connections::OVER_LIMIT_COUNT;
use crate::shard::reports::Kind;
use crate::shard::stage::ShutdownStage;
use crate::shard::{EventLoop, Service};
use crate::transport::Transport;
use crate::transport::listener::{self, Accepted};

impl EventLoop {
    /// Phase 3: accepts waiting sockets, here or for a shard with fewer connections.
    pub(in crate::shard) fn accept(&mut self) {
        for _ in 0..self.budgets.accept_count {
            let now = self.shard.now();
            let Some(listener) = self.listener.as_mut().filter(|l| l.is_awake(now)) else { return };
            let (transport, peer) = match listener.accept(now) {
                Accepted::Connection(transport, peer) => (transport, peer),
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
            let own = self.shard.index();
            let shared = self.shard.shared();
            let target = place(shared, own);
            let link = &shared.shards[target];
            if target != own
                && let Ok(room) = link.mailbox.reserve(0)
            {
                let socket = transport.into_fd();
                // It fails only if that shard has ended.
                let _ = link.send_connection(room, Envelope::Adopt { socket, peer });
                continue;
            }
            self.shard.count_connection();
            self.adopt(transport, peer);
        }
    }

    /// Accepts the sockets that wait, and then none any more: closing the socket would reset those
    /// in its queue. Who connects from now on is refused by the kernel, or reaches another process.
    pub(in crate::shard) fn stop_accepting(&mut self) {
        if let Some(listener) = &mut self.listener {
            (listener.is_ready, listener.resting_until) = (true, None);
        }
        let now = self.shard.now();
        for _ in 0..=usize::from(listener::BACKLOG) / self.budgets.accept_count {
            if self.listener.as_ref().is_some_and(|listener| listener.is_awake(now)) {
                self.accept();
            }
        }
        self.listener = None;
    }

    /// Adopts the sockets that other shards have accepted for this one.
    pub(in crate::shard) fn adopt_handed_over(&mut self) {
        while let Some((socket, peer)) = self.shard.take_handed_over() {
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
            self.shard.uncount_connection();
        }
        adopted
    }

    fn give_slot(&mut self, mut transport: Transport, peer: SocketAddr) -> Option<Address> {
        if self.life == ShutdownStage::Closing {
            return None;
        }
        let address = self.shard.next_address()?;
        transport.register(self.poll.registry(), Token(address.token())).ok()?;
        let admission = self.admit(peer.ip())?;
        self.shard.insert(address, transport, peer, admission);
        self.note_over_limit(address.slot());
        Some(address)
    }

    /// Counts a fresh connection and takes a place for it, one over the limit if need be; `None` if
    /// there is none.
    fn admit(&mut self, peer: IpAddr) -> Option<Admission> {
        let is_proxy = self.application.service.proxies.contains(peer);
        // A proxy speaks for others: whose the connection is is told later.
        let admission = if is_proxy { Admission::Placed } else { self.count(peer)? };
        let Service { quota, client_limits, .. } = &*self.application.service;
        if admission == Admission::OverAddressLimit || quota.take() {
            return Some(admission);
        }
        if admission == Admission::Counted
            && let Some(client_limits) = client_limits
        {
            client_limits.leave(peer, self.shard.now());
        }
        self.take_over_limit(peer, "the server").then_some(Admission::OverLimit)
    }

    /// Counts a connection for its client, who is known for good; `None` if that has too many, and
    /// no place over the limit is free.
    fn count(&mut self, client: IpAddr) -> Option<Admission> {
        let Service { client_limits, .. } = &*self.application.service;
        let Some(client_limits) = client_limits else { return Some(Admission::Placed) };
        if client_limits.enter(client, self.shard.now()) {
            return Some(Admission::Counted);
        }
        self.take_over_limit(client, "its address").then_some(Admission::OverAddressLimit)
    }

    /// Takes one of the places over the limit for a connection, because `full` has as many as it
    /// may: that of an older connection if need be, for in a storm of new connections all places
    /// are always taken, and yet a probe has to get its answer.
    fn take_over_limit(&mut self, client: IpAddr, full: &str) -> bool {
        if self.application.service.quota.take_over_limit() {
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
                 connections, and all {OVER_LIMIT_COUNT} places for more are taken"
            ),
        );
        evicted.is_some()
    }

    /// Ends the connection over the limit of this shard that yields its place first, if one does.
    /// The place is the caller's. Returns why, and the address of the client that lost it.
    fn evict(&mut self) -> Option<(Yielding, IpAddr)> {
        let shard = &self.shard;
        let candidates = self.over_limit.iter().filter_map(|&address| {
            let connection = shard.connection(shard.find(address)?);
            let is_over_limit = connection.admission().is_over_limit();
            Some((connection.yields(shard.now())?, address)).filter(|_| is_over_limit)
        });
        // The first of equals is the oldest.
        let (yielding, address) = candidates.min_by_key(|&(yields, _)| yields)?;
        let slot = address.slot();
        let connection = self.shard.connection_mut(slot);
        connection.admit(Admission::Evicted);
        let client = connection.client_ip();
        self.shard.lose(slot);
        Some((yielding, client))
    }

    /// Notes a connection that may have come over the limit.
    fn note_over_limit(&mut self, slot: Slot) {
        let connection = self.shard.connection(slot);
        if connection.admission().is_over_limit() {
            self.over_limit.retain(|&address| self.shard.find(address).is_some());
            self.over_limit.push(connection.address());
        }
    }

    /// Counts a connection that came by a trusted proxy, once its client is known; `false` if there
    /// is no place for it.
    #[must_use]
    pub(in crate::shard) fn admit_client(&mut self, slot: Slot) -> bool {
        let connection = self.shard.connection(slot);
        if connection.admission() != Admission::Placed {
            return true;
        }
        let Some(admission) = self.count(connection.client_ip()) else { return false };
        self.shard.connection_mut(slot).admit(admission);
        if admission == Admission::OverAddressLimit {
            self.application.service.quota.give_back();
            self.note_over_limit(slot);
        }
        true
    }

    /// Whether the client may upgrade at this moment.
    #[must_use]
    pub(in crate::shard) fn may_upgrade(&self, slot: Slot) -> bool {
        let Some(client_limits) = &self.application.service.client_limits else { return true };
        let client = self.shard.connection(slot).client_ip();
        client_limits.upgrade(client, self.shard.now())
    }

    /// A connection is gone: its place is free, and its address has one less.
    pub(in crate::shard) fn release_quota(&self, connection: &Connection) {
        let Service { quota, client_limits, .. } = &*self.application.service;
        match connection.admission() {
            Admission::OverLimit | Admission::OverAddressLimit => {
                return quota.release_over_limit();
            }
            // Another connection has its place.
            Admission::Evicted => return,
            Admission::Placed | Admission::Counted => quota.give_back(),
        }
        if connection.admission() == Admission::Counted
            && let Some(client_limits) = client_limits
        {
            client_limits.leave(connection.client_ip(), self.shard.now());
        }
    }
}

#[cfg(feature = "testing")]
impl EventLoop {
    /// Panics unless just those places are taken that the connections have; between two turns, of a
    /// server with one shard.
    pub(in crate::shard) fn check_places(&self) {
        let Service { quota, client_limits, .. } = &*self.application.service;
        let count = |is: fn(Admission) -> bool| {
            let connections = self.shard.connections();
            connections.filter(|(_, connection)| is(connection.admission())).count()
        };
        let placed_count = count(|a| matches!(a, Admission::Placed | Admission::Counted));
        let over_limit_count = count(Admission::is_over_limit);
        assert_eq!(
            quota.counts(),
            (placed_count, over_limit_count),
            "quota, and those over the limit"
        );
        if let Some(client_limits) = client_limits {
            let counted = count(|a| a == Admission::Counted);
            assert!(client_limits.counts(counted), "{counted} connections have an address");
        }
    }
}
