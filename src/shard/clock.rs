//! The one place that reads the clock. Everything else is told the time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Now. A shard asks once a turn.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time since some moment, to a few milliseconds: cheap enough to be asked for each connection
/// that is served.
pub(super) fn coarse() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}
