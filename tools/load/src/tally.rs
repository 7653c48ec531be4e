//! What is counted: by each thread for itself, added up at the end.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Latencies from 1 ns to about an hour, in nanoseconds, to three digits.
const LATENCY_MAX_NANOS: u64 = 4_000_000_000_000;
/// How many errors are told in words.
const TOLD_COUNT: usize = 10;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// No connection, or it took too long.
    Connect,
    /// The upgrade was refused, answered wrongly, or not at all.
    Upgrade,
    /// A message was not what had been sent.
    Wrong,
    /// Messages that never came.
    Missing,
    /// A message too many.
    Surplus,
    /// A frame against RFC 6455.
    Malformed,
    /// The server sent Close.
    Close,
    /// The connection ended, was reset, or did not end when it had to.
    End,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Upgrade => "upgrade",
            Self::Wrong => "wrong",
            Self::Missing => "missing",
            Self::Surplus => "surplus",
            Self::Malformed => "malformed",
            Self::Close => "close",
            Self::End => "end",
        }
    }
}

/// The errors of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    pub(crate) by_fault: BTreeMap<Fault, u64>,
    pub(crate) close_codes: BTreeMap<u16, u64>,
    /// The first ones.
    pub(crate) told: Vec<String>,
}

impl Errors {
    pub(crate) fn add(&mut self, fault: Fault, count: u64, told: impl FnOnce() -> String) {
        *self.by_fault.entry(fault).or_default() += count;
        if self.told.len() < TOLD_COUNT {
            self.told.push(told());
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.by_fault.values().sum()
    }

    fn merge(&mut self, other: Self) {
        for (fault, count) in other.by_fault {
            *self.by_fault.entry(fault).or_default() += count;
        }
        for (code, count) in other.close_codes {
            *self.close_codes.entry(code).or_default() += count;
        }
        self.told.extend(other.told);
        self.told.truncate(TOLD_COUNT);
    }
}

/// The times between which what happens is measured, in nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    /// Nothing is sent from here on.
    pub(crate) end: u64,
}

#[derive(Debug)]
pub(crate) struct Tally {
    /// Before the load begins all of it lies in the future.
    pub(crate) window: Window,
    /// Since the last [`Self::pass_on`]: in the window; and before.
    latencies: Histogram<u64>,
    early: Histogram<u64>,
    /// From the beginning of a connection to the answer to its upgrade.
    pub(crate) upgrades: Histogram<u64>,
    /// How much later than due this thread got to sending.
    pub(crate) lateness: Histogram<u64>,
    /// Messages (in broadcasts: deliveries; or visits) that came within the window, and the last.
    pub(crate) received_count: u64,
    pub(crate) last_received: u64,
    /// All that have been sent, also before the window.
    pub(crate) sent_count: u64,
    /// Data messages that a connection got that only holds.
    pub(crate) unasked_count: u64,
    pub(crate) ping_count: u64,
    pub(crate) opened_count: u64,
    /// Connections that the server ended while they stalled.
    pub(crate) ended_count: u64,
    pub(crate) errors: Errors,
    /// How many errors and openings have been passed on.
    shown: (u64, u64),
}

/// Where the threads put what they have counted, and the main thread takes it from: so adding up
/// costs the threads nothing.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Latencies in the window; and before.
    pub(crate) measured: Vec<Histogram<u64>>,
    pub(crate) early: Vec<Histogram<u64>>,
    pub(crate) empty: Vec<Histogram<u64>>,
    pub(crate) error_count: u64,
    pub(crate) opened_count: u64,
}

pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "constants")]
    Histogram::new_with_bounds(1, LATENCY_MAX_NANOS, 3).expect("valid bounds")
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            window: Window { start: u64::MAX, end: u64::MAX },
            latencies: histogram(),
            early: histogram(),
            upgrades: histogram(),
            lateness: histogram(),
            received_count: 0,
            last_received: 0,
            sent_count: 0,
            unasked_count: 0,
            ping_count: 0,
            opened_count: 0,
            ended_count: 0,
            errors: Errors::default(),
            shown: (0, 0),
        }
    }
}

impl Tally {
    /// `count` messages that were sent (or due) at one time have come.
    pub(crate) fn received(&mut self, sent: u64, now: u64, count: u64) {
        let took = now.saturating_sub(sent).max(1);
        if now < self.window.start {
            return self.early.saturating_record_n(took, count);
        }
        if now < self.window.end {
            self.received_count += count;
            self.last_received = now;
        }
        if sent >= self.window.start {
            self.latencies.saturating_record_n(took, count);
        }
    }

    /// Hands over what has been counted since the last time.
    pub(crate) fn pass_on(&mut self, live: &mut Live) {
        for (own, full) in
            [(&mut self.latencies, &mut live.measured), (&mut self.early, &mut live.early)]
        {
            if !own.is_empty() {
                let empty = live.empty.pop().unwrap_or_else(histogram);
                full.push(std::mem::replace(own, empty));
            }
        }
        let now = (self.errors.count(), self.opened_count);
        live.error_count += now.0 - self.shown.0;
        live.opened_count += now.1 - self.shown.1;
        self.shown = now;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        add(&mut self.upgrades, &other.upgrades);
        add(&mut self.lateness, &other.lateness);
        self.received_count += other.received_count;
        self.last_received = self.last_received.max(other.last_received);
        self.sent_count += other.sent_count;
        self.unasked_count += other.unasked_count;
        self.ping_count += other.ping_count;
        self.opened_count += other.opened_count;
        self.ended_count += other.ended_count;
        self.errors.merge(other.errors);
    }
}

pub(crate) fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    // It fails only if the bounds differ.
    let _ = to.add(from);
}
