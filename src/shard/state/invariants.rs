//! What always holds for a shard's connections, lists, members and accounts between two turns.
//!
//! Each part checks its own account; here is what they owe one another. Above all that nobody waits
//! for nothing: whatever is left over stands on a list, waits for an event that will come, or for a
//! timer that will fire.
//!
//! Knows all fields. Must not know handlers and the loop: `harness` checks what they owe a shard.

use std::collections::HashMap;
use std::time::Instant;

use crate::hub::{Address, Slot};
use crate::shard::connection::Connection;
use crate::shard::fanout::audience::Audiences;
use crate::shard::stage::ShutdownStage;
use crate::shard::state::Shard;

impl Shard {
    /// # Panics
    /// If something does not hold. Between two turns only.
    pub(in crate::shard) fn check_invariants(&self, life: &ShutdownStage) {
        assert!(self.cork.is_at_rest(), "a service goes on, or has left something");
        assert!(self.pending_closes.is_empty(), "somebody leaves who was not told");
        assert!(self.dead.is_empty(), "somebody is dead and not reaped");
        self.wheel.check_invariants();
        self.outbound.check_invariants();
        self.fanout.check_invariants();
        self.inbox.check_invariants();
        self.check_lists(life);
        self.check_members();
        let mut queued_bytes = 0;
        for (slot, connection) in &self.connections {
            assert_eq!(connection.address().slot(), slot, "a connection knows where it is");
            connection.check_invariants();
            queued_bytes += connection.outbox().bytes() + self.held_bytes(slot);
        }
        assert_eq!(self.queued_bytes, queued_bytes, "the sum of all outboxes");
        let kept_bytes = |(_, connection): (Slot, &Connection)| connection.kept_input_bytes();
        let kept_sum: usize = self.connections.iter().map(kept_bytes).sum();
        assert_eq!(self.input_quota.sum(), kept_sum, "the sum of all input that is kept");
    }

    /// Nothing has happened of which the shard was not told; with mail, it was.
    ///
    /// # Panics
    /// Also if another thread does anything to the server meanwhile.
    pub(in crate::shard) fn check_alone(&self, has_mail: bool) {
        self.inbox.check_notified(has_mail);
        let mut connections = self.connections.iter();
        assert!(connections.all(|(_, c)| !c.has_unheard_stream()), "an abandoned stream");
    }

    /// When the connection's timer fires, if it is armed.
    pub(in crate::shard) fn timer_of(&self, slot: Slot) -> Option<Instant> {
        self.wheel.fires_at(slot)
    }

    /// Whether a connection has died and was not reaped.
    pub(in crate::shard) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Whether a sender has woken the shard.
    pub(in crate::shard) fn is_woken(&self) -> bool {
        self.inbox.is_armed()
    }

    /// The flags say who stands on which list.
    fn check_lists(&self, life: &ShutdownStage) {
        let places = |list: &[Address]| {
            let mut places: HashMap<Slot, usize> = HashMap::new();
            for slot in list.iter().filter_map(|&address| self.find(address)) {
                *places.entry(slot).or_default() += 1;
            }
            places
        };
        let (ready, dirty) = (places(&self.ready), places(&self.dirty));
        let drained = places(&self.drained);
        for (slot, connection) in &self.connections {
            let [is_ready, is_dirty, is_drained] = connection.marks().map(usize::from);
            let on = |list: &HashMap<Slot, usize>| list.get(&slot).copied().unwrap_or_default();
            // Who is looked at out of turn in a shutdown is looked at once more.
            let is_extra = *life != ShutdownStage::Running && on(&ready) > 0;
            assert!(is_ready == on(&ready) || is_extra, "the ready list has {slot}");
            assert_eq!(is_dirty, on(&dirty), "the dirty list has {slot}");
            assert_eq!(is_drained, on(&drained), "the drained list has {slot}");
        }
    }

    /// Members and memberships point at one another, and all threads are told how many there are.
    fn check_members(&self) {
        let mut membership_count = 0;
        for membership in self.connections.iter().filter_map(|(_, c)| c.membership()) {
            membership_count += 1 + membership.subscriptions().len();
            assert!(self.fanout.reaches(membership.position()), "it has got what is not there");
            assert!(membership.subscriptions().is_sorted(), "topics in order");
        }
        let audiences = &self.fanout.audiences;
        for (index, place, slot) in audiences.members() {
            membership_count -= 1;
            let connection = &self.connections[slot];
            let Some(membership) = connection.membership() else {
                panic!("only who is open is a member");
            };
            let is_everyone =
                index == Audiences::everyone(connection.endpoint()) && place == membership.place();
            let is_topic = membership.subscriptions().contains(&(index, place));
            assert!(is_everyone || is_topic, "a member knows its place");
        }
        assert_eq!(membership_count, 0, "memberships without members");
        let told = &self.link().subscribers;
        let mut topic_count = 0;
        for (name, count) in audiences.topics() {
            assert_eq!(told.of(name), count, "how many subscribe to {name}");
            topic_count += usize::from(count > 0);
        }
        assert_eq!(told.topic_count(), topic_count, "topics that nobody subscribes to");
    }
}

#[cfg(test)]
impl Shard {
    /// The log, all outboxes and their sum, and that each subscriber is a member.
    ///
    /// # Panics
    /// If something does not hold; also in the middle of a turn.
    pub(in crate::shard) fn check_deliveries(&self) {
        self.fanout.check_invariants();
        let mut queued_bytes = 0;
        for (slot, connection) in &self.connections {
            connection.outbox().check_invariants();
            queued_bytes += connection.outbox().bytes();
            for &(topic, place) in connection.membership().iter().flat_map(|m| m.subscriptions()) {
                self.fanout.audiences.check_member(topic, place, slot);
            }
        }
        assert_eq!(self.queued_bytes, queued_bytes, "the sum of all outboxes");
    }

    /// Takes one envelope out of the mailbox, and does nothing with it.
    pub(in crate::shard) fn take_envelope(&mut self) -> Option<crate::hub::Envelope> {
        self.inbox.take(crate::hub::Envelope::size)
    }
}
