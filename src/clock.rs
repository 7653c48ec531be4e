//! The one place that reads the clock. Everything else is told the time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Now. A shard asks once a turn.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A moment, to a few milliseconds: cheap enough to be asked for several times in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    seconds: i64,
    nanoseconds: i64,
}

impl Moment {
    /// How long it is after an earlier one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let seconds =
            Duration::from_secs(self.seconds.saturating_sub(earlier.seconds).unsigned_abs());
        let nanoseconds = self.nanoseconds - earlier.nanoseconds;
        let fraction = Duration::from_nanos(nanoseconds.unsigned_abs());
        if nanoseconds < 0 { seconds.saturating_sub(fraction) } else { seconds + fraction }
    }
}

/// The time, as of the kernel's last tick.
#[inline]
pub(crate) fn coarse() -> Moment {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
    Moment { seconds: tv_sec, nanoseconds: tv_nsec }
}
