//! What always holds between two turns. A simulation checks it after each, the test kit whenever
//! nothing is left to do.
//!
//! Shards and connections check themselves; here is what the loop, the handlers and they owe one
//! another.

use crate::hub::Slot;
use crate::shard::connection::{Connection, Phase};
use crate::shard::{CONGESTED, EventLoop, ShutdownStage};

impl EventLoop {
    /// # Panics
    /// If something does not hold. Between two turns only.
    pub(crate) fn check_invariants(&self) {
        let shard = &self.shard;
        shard.check_invariants(&self.life);
        assert!(self.control.is_empty(), "an answer to a control frame is left");
        if shard.shared().shards.len() == 1 {
            self.check_places();
        }
        for (slot, connection) in shard.connections() {
            self.check_connection(slot, connection);
        }
        let sessions = shard.connections().filter(|&(slot, _)| self.application.has_session(slot));
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
        self.shard.check_alone(self.has_mail);
    }

    fn check_connection(&self, slot: Slot, connection: &Connection) {
        let has_task = self.application.tasks.has(slot);
        let has_opened = connection.has_opened();
        let (is_waiting, has_stream) = (connection.is_waiting(), connection.has_stream());
        match connection.phase() {
            Phase::Upgrading { .. } => assert!(!has_opened, "who has opened upgrades"),
            Phase::Open(_) => {
                assert!(self.life != ShutdownStage::Closing, "somebody stays open in a shutdown");
                assert_eq!(is_waiting, has_task, "it waits for its handler's answer");
            }
            Phase::PendingClose(pending) => {
                assert!(is_waiting, "who leaves and waits for nothing goes");
                assert!(has_task || has_stream, "it waits for something");
                assert_eq!(pending.answer_due(), Some(connection.deadline()), "not for ever");
            }
            Phase::Closing(_) => assert!(!has_task && !has_stream, "all has been said"),
            Phase::Dead => panic!("the dead are reaped"),
        }
        assert!(!has_opened || self.application.has_session(slot), "a session");
        self.check_timer(slot, connection);
    }

    /// A timer is armed, and soon enough.
    fn check_timer(&self, slot: Slot, connection: &Connection) {
        let Some(fires_at) = self.shard.timer_of(slot) else {
            panic!("no timer is armed for {connection:?}");
        };
        if !matches!(connection.phase(), Phase::Open(_) | Phase::Dead) {
            let latest = connection.deadline().max(self.shard.now()) + CONGESTED + CONGESTED;
            assert!(fires_at <= latest, "the timer fires too late for {connection:?}");
        }
    }
}
