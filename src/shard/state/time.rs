//! What time it is for the shard, the timers of its connections, and the server's shutdown as far
//! as the shard has heard of it.
//!
//! Knows instants. Must not know what is due at them.

use std::time::Instant;

use crate::hub::{Schedule, Slot};
use crate::shard::state::Shard;

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
