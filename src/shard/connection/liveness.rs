//! When the peer was last heard, and how often it was pinged since.
//!
//! Knows times and a count. Must not know how a ping is sent, nor what silence leads to.

use std::time::{Duration, Instant};

use super::Connection;

impl Connection {
    /// The peer was heard, or took something.
    #[inline]
    pub(in crate::shard) fn touch(&mut self, now: Instant) {
        self.heard_at = now;
        self.ping_count = 0;
    }

    /// When the peer counts as dead, unless it is heard before. A peer that nobody has pinged all
    /// that time, because the shard was held up, gets the time to answer.
    pub(in crate::shard) fn dead_at(
        &mut self,
        dead_after: Duration,
        ping_after: Duration,
        now: Instant,
    ) -> Instant {
        if self.heard_at + dead_after <= now && self.ping_count == 0 {
            self.heard_at = now.checked_sub(ping_after).unwrap_or(now);
        }
        self.heard_at + dead_after
    }

    /// It was not heard, but takes what is sent to it: it counts as heard, and as pinged.
    pub(in crate::shard) fn touch_pinged(&mut self, now: Instant) {
        (self.heard_at, self.ping_count) = (now, 1);
    }

    /// How far apart its pings are: up to a tenth less, so that pings do not come in herds.
    pub(in crate::shard) fn ping_interval(&self, ping_after: Duration) -> Duration {
        let spread = u32::try_from(self.address.slot() % 64).unwrap_or_default();
        ping_after - ping_after / 640 * spread
    }

    /// When the next ping is due.
    pub(in crate::shard) fn ping_at(&self, interval: Duration) -> Instant {
        self.heard_at + interval * (u32::from(self.ping_count) + 1)
    }

    /// A ping is sent. Returns whether it is the first since the peer was heard.
    #[must_use]
    pub(in crate::shard) fn count_ping(&mut self) -> bool {
        self.ping_count = self.ping_count.saturating_add(1);
        self.ping_count == 1
    }
}
