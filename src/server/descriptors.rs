//! How many descriptors the process may have open, and how many connections follow from that.
//!
//! Knows the operating system's limit. Must not know what else a server has.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of open descriptors: `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors(Option<u64>);

impl fmt::Display for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => count.fmt(f),
            None => f.write_str("unlimited"),
        }
    }
}

impl Descriptors {
    /// The limit that counts now.
    pub(super) fn now() -> Self {
        Self(getrlimit(Resource::Nofile).current)
    }

    /// How many connections they allow, leaving some to the application.
    pub(super) fn max_connections(self) -> usize {
        let count = self.0.unwrap_or(u64::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        count.saturating_sub((count / 8).max(64)).max(1)
    }
}

/// Raises the soft limit to the hard one. A failure changes nothing, and is logged.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let (from, to) = (Descriptors(limit.current), Descriptors(limit.maximum));
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => log::info!("the limit of open descriptors was raised from {from} to {to}"),
        Err(error) => {
            log::warn!("the limit of open descriptors stays at {from}, not {to}: {error}");
        }
    }
}
