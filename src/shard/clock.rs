//! The one place that reads the clock. Everything else is told the time.

use std::time::Instant;

/// Now. A shard asks once a turn.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
