//! What always holds between two turns. A simulation checks it after each, the test kit whenever
//! nothing is left to do.
//!
//! Each part checks its own account; here is what they owe one another. Above all that nobody waits
//! for nothing: whatever is left over stands on a list, waits for an event that will come, or for a
//! timer that will fire.

use std::collections::HashMap;

use crate::hub::{Address, Slot};
use crate::shard::connection::{Connection, Phase};
use crate::shard::dispatch::tasks::WAITING_BYTES;
use crate::shard::fanout::audience::Audiences;
use crate::shard::{EventLoop, HELD_UP, Life};

impl EventLoop {
    /// # Panics
    /// If something does not hold. Between two turns only.
    pub(crate) fn check_invariants(&self) {
        let shard = &self.shard;
        assert!(shard.current.is_none() && shard.scratch.is_empty(), "nobody's turn goes on");
        assert_eq!(shard.scratch_http_bytes, 0, "what is HTTP of nothing");
        assert!(!shard.room.is_open() && shard.room.content().is_empty(), "the room is left open");
        assert!(shard.lent.is_none(), "a message is lent that is gone");
        assert!(self.control.is_empty(), "an answer to a control frame is left");
        assert!(shard.leaving.is_empty(), "somebody leaves who was not told");
        assert!(shard.dead.is_empty(), "somebody is dead and not reaped");
        shard.wheel.check_invariants();
        shard.links.check_invariants();
        shard.fanout.check_invariants();
        shard.inbox.check_invariants();
        self.check_lists();
        self.check_members();
        if shard.hub.shared().shards.len() == 1 {
            self.check_places();
        }
        let mut queued_bytes = 0;
        for (slot, connection) in &shard.connections {
            assert_eq!(connection.address.slot(), slot, "a connection knows where it is");
            self.check_connection(slot, connection);
            queued_bytes += connection.outbox.bytes() + shard.held_bytes(slot);
        }
        assert_eq!(shard.queued_bytes, queued_bytes, "the sum of all outboxes");
        let kept_bytes = |c: &Connection| c.backlog.len() + c.protocol.kept_bytes();
        let kept_sum: usize = shard.connections.iter().map(|(_, c)| kept_bytes(c)).sum();
        assert_eq!(shard.kept_input.sum(), kept_sum, "the sum of all input that is kept");
        let sessions = shard.connections.iter().filter(|&(s, _)| self.application.has_session(s));
        assert_eq!(sessions.count(), self.application.session_count(), "a session without owner");
        if let Some(listener) = &self.listener {
            assert!(!listener.is_deaf(), "somebody waits to be accepted for ever");
        }
    }

    /// As [`check_invariants`](Self::check_invariants), and nothing has happened of which the shard
    /// was not told.
    ///
    /// # Panics
    /// If something does not hold; also if another thread does anything to the server meanwhile.
    pub(crate) fn check_alone(&self) {
        self.check_invariants();
        self.shard.inbox.check_told(self.has_mail);
        let mut connections = self.shard.connections.iter();
        assert!(connections.all(|(_, c)| !c.has_unheard_stream()), "an abandoned stream");
    }

    /// The flags say who stands on which list.
    fn check_lists(&self) {
        let shard = &self.shard;
        let places = |list: &[Address]| {
            let mut places: HashMap<Slot, usize> = HashMap::new();
            for slot in list.iter().filter_map(|&address| shard.find(address)) {
                *places.entry(slot).or_default() += 1;
            }
            places
        };
        let (ready, dirty) = (places(&shard.ready), places(&shard.dirty));
        let drained = places(&shard.drained);
        for (slot, connection) in &shard.connections {
            let flags = &connection.flags;
            let on = |list: &HashMap<Slot, usize>| list.get(&slot).copied().unwrap_or_default();
            // Who is looked at out of turn in a shutdown is looked at once more.
            let is_extra = self.life != Life::Running && on(&ready) > 0;
            let is_ready = usize::from(flags.is_ready);
            assert!(is_ready == on(&ready) || is_extra, "the ready list has {slot}");
            assert_eq!(usize::from(flags.is_dirty), on(&dirty), "the dirty list has {slot}");
            assert_eq!(usize::from(flags.is_drained), on(&drained), "the drained list has {slot}");
        }
    }

    /// Members and memberships point at one another, and all threads are told how many there are.
    fn check_members(&self) {
        let shard = &self.shard;
        let mut membership_count = 0;
        for (_, connection) in shard.connections.iter().filter(|(_, c)| c.is_open()) {
            membership_count += 1 + connection.subscriptions().len();
            assert!(shard.fanout.reaches(connection.position), "it has got what is not there");
            assert!(connection.subscriptions().is_sorted(), "topics in order");
        }
        let audiences = &shard.fanout.audiences;
        for (index, place, slot) in audiences.members() {
            membership_count -= 1;
            let connection = &shard.connections[slot];
            assert!(connection.is_open(), "only who is open is a member");
            let is_everyone =
                index == Audiences::everyone(connection.endpoint) && place == connection.place;
            let is_topic = connection.subscriptions().contains(&(index, place));
            assert!(is_everyone || is_topic, "a member knows its place");
        }
        assert_eq!(membership_count, 0, "memberships without members");
        let told = &shard.hub.shared().shards[shard.index].subscribers;
        let mut topic_count = 0;
        for (name, count) in audiences.topics() {
            assert_eq!(told.of(name), count, "how many subscribe to {name}");
            topic_count += usize::from(count > 0);
        }
        assert_eq!(told.topic_count(), topic_count, "topics that nobody subscribes to");
    }

    fn check_connection(&self, slot: Slot, connection: &Connection) {
        let Connection { flags, phase, outbox, .. } = connection;
        outbox.check_invariants();
        connection.check_stream_invariants();
        let has_task = self.application.tasks.has(slot);
        let is_leaving = matches!(phase, Phase::Leaving(_));
        match phase {
            Phase::Upgrading { .. } => assert!(!flags.has_opened, "who has opened upgrades"),
            Phase::Open => {
                assert!(self.life != Life::Closing, "somebody stays open in a shutdown");
                assert_eq!(flags.is_waiting, has_task, "it waits for its handler's answer");
            }
            Phase::Leaving(leaving) => {
                assert!(flags.is_waiting, "who leaves and waits for nothing goes");
                assert!(has_task || flags.has_stream, "it waits for something");
                assert_eq!(leaving.answer_due, Some(connection.deadline), "not for ever");
            }
            Phase::Closing(_) => assert!(!has_task && !flags.has_stream, "all has been said"),
            Phase::Dead => panic!("the dead are reaped"),
        }
        assert!(!flags.has_opened || self.application.has_session(slot), "a session");
        self.check_output(slot, connection);
        self.check_input(slot, connection);
        self.check_timer(connection, is_leaving);
    }

    /// Output moves, or somebody will tell that it can.
    fn check_output(&self, slot: Slot, connection: &Connection) {
        let Connection { flags, outbox, .. } = connection;
        let moves = flags.is_dirty || flags.is_blocked;
        assert!(outbox.is_empty() || moves, "output of {slot} that nobody flushes");
        assert!(!flags.is_pressed || moves || flags.has_stream, "{slot} is pressed by nothing");
        let has_settled = !matches!(connection.phase, Phase::Closing(closing) if closing.is_due());
        assert!(has_settled || !outbox.is_empty(), "{slot} has got all and is not let go");
    }

    /// Input is looked at, or something is under way after which it will be.
    fn check_input(&self, slot: Slot, connection: &Connection) {
        let Connection { flags, phase, backlog, transport, .. } = connection;
        let is_kept = flags.is_pressed || flags.is_ready;
        let is_upgrading = matches!(phase, Phase::Upgrading { .. });
        let is_partial = is_upgrading || backlog.is_empty();
        assert!(is_partial || is_kept || flags.is_waiting, "input of {slot} is forgotten");
        // When the waiting is over, it is read on.
        let is_not_read = is_upgrading || flags.has_peer_ended || backlog.len() >= WAITING_BYTES;
        let is_waited_for = flags.is_waiting && is_not_read;
        let is_looked_at = is_kept || is_waited_for || transport.is_at_rest(flags.is_blocked);
        assert!(is_looked_at, "{slot} is not asked for what it has: {connection:?}");
    }

    /// A timer is armed, and soon enough.
    fn check_timer(&self, connection: &Connection, is_leaving: bool) {
        let Connection { address, deadline, phase, .. } = connection;
        let Some(fires_at) = self.shard.wheel.fires_at(address.slot()) else {
            panic!("no timer is armed for {connection:?}");
        };
        if is_leaving || matches!(phase, Phase::Upgrading { .. } | Phase::Closing(_)) {
            let latest = (*deadline).max(self.shard.now) + HELD_UP + HELD_UP;
            assert!(fires_at <= latest, "the timer fires too late for {connection:?}");
        }
    }
}
