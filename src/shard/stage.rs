//! [`ShutdownStage`]: where a shard stands in the server's shutdown.
//!
//! Knows times and addresses. Must not know how connections are closed.

use std::time::{Duration, Instant};

use crate::hub::{Address, Schedule};

/// How long TCP handshakes that are under way may take when the server stops accepting: few take
/// longer.
const LAST_CALL: Duration = Duration::from_millis(250);

/// Where a shard stands in the server's shutdown.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) enum ShutdownStage {
    /// Also while the shutdown is announced.
    Running,
    /// No client is accepted any more. Open connections are served, and closed one after another.
    Spreading(Spread),
    /// Nothing is read any more, until no shard reads.
    Quieting,
    /// Nothing can arrive any more: all connections are being closed.
    Closing,
}

/// The connections that are not closed yet, and how many there were.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) struct Spread {
    /// The next one last.
    pub(in crate::shard) waiting: Vec<Address>,
    pub(in crate::shard) count: usize,
}

impl Spread {
    /// When the next one is closed. The intervals are even, and those of the shards interlock: the
    /// moment of one who has left by itself passes unused.
    pub(in crate::shard) fn next_at(
        &self,
        schedule: Schedule,
        shard: usize,
        shard_count: usize,
    ) -> Option<Instant> {
        let place = self.count - self.waiting.len();
        if place == self.count {
            return None;
        }
        let window = schedule.spreads_until - schedule.accepts_until;
        let before = place * shard_count + shard;
        #[allow(clippy::cast_precision_loss, reason = "connections are fewer than 2^52")]
        let share = before as f64 / (self.count * shard_count) as f64;
        Some(schedule.accepts_until + window.mul_f64(share))
    }
}

/// When the listener closes.
pub(in crate::shard) fn last_call_until(schedule: Schedule) -> Instant {
    schedule.spreads_until.min(schedule.accepts_until + LAST_CALL)
}
