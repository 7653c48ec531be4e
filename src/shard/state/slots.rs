//! How a connection gets its slot, opens, and loses its slot.
//!
//! Knows the slab and generations. Must not know who may come in: admission is decided before.

use std::net::SocketAddr;

use crate::hub::{Address, EndpointIndex, SLOT_COUNT_MAX, Slot};
use crate::protocol::MessageMode;
use crate::shard::connection::{Admission, Connection};
use crate::shard::state::Shard;
use crate::transport::Transport;

impl Shard {
    /// The address of the connection that is [inserted](Self::insert) next; `None` if there is no
    /// slot.
    pub(in crate::shard) fn next_address(&self) -> Option<Address> {
        let slot = self.connections.vacant_key();
        (slot < SLOT_COUNT_MAX).then(|| Address::new(slot, self.generation))
    }

    /// Gives a fresh connection the next address, and the time of the handshake.
    pub(in crate::shard) fn insert(
        &mut self,
        address: Address,
        transport: Transport,
        peer: SocketAddr,
        admission: Admission,
    ) {
        debug_assert_eq!(Some(address), self.next_address());
        self.generation += 1;
        let deadline = self.now + self.limits.server().handshake_timeout;
        let no_endpoint = self.limits.no_endpoint();
        let slot = self.connections.insert(Connection::new(
            address,
            transport,
            peer,
            no_endpoint,
            self.now,
            deadline,
        ));
        self.connections[slot].admit(admission);
        self.arm(slot, deadline);
    }

    /// The upgrade is granted: messages flow.
    pub(in crate::shard) fn open_connection(
        &mut self,
        slot: Slot,
        endpoint: EndpointIndex,
        mode: MessageMode,
    ) {
        let membership = self.join(slot, endpoint);
        self.connections[slot].open(endpoint, membership, mode, self.now);
        let due = self.now + self.limits[endpoint].ping_after * 9 / 10;
        self.arm(slot, due);
    }

    /// Frees the slot of a connection that is dead.
    pub(in crate::shard) fn remove(&mut self, slot: Slot) {
        let connection = self.connections.remove(slot);
        self.wheel.disarm(slot);
        debug_assert!(connection.is_dead() && !connection.has_output());
    }

    /// Asserts that without connections nothing is queued or kept.
    #[inline]
    pub(in crate::shard) fn check_accounts(&self) {
        let sums = (self.queued_bytes, self.input_quota.sum());
        debug_assert!(!self.connections.is_empty() || sums == (0, 0), "{sums:?}");
    }
}

#[cfg(any(all(test, feature = "testing"), feature = "__internals"))]
impl Shard {
    /// Adds an open connection that nobody asked for.
    pub(in crate::shard) fn insert_open(
        &mut self,
        transport: Transport,
        endpoint: EndpointIndex,
        protocol: crate::protocol::Protocol,
    ) -> Option<Slot> {
        let address = self.next_address()?;
        self.insert(address, transport, ([127, 0, 0, 1], 1).into(), Admission::default());
        self.connections[address.slot()].speak(protocol);
        self.open_connection(address.slot(), endpoint, MessageMode::default());
        Some(address.slot())
    }
}
