//! The end of a server: the plan for it ([`ShutdownPlan`]), how far its shards have come, and what
//! came of it ([`ShutdownReport`]).
//!
//! Knows times as lengths; the first shard that hears of a plan fixes when it began. Must not know
//! what is done at which time.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::config::AGES;
use crate::message::CloseCode;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How a server is to be shut down: for [`RunningServer::shutdown`](crate::RunningServer::shutdown)
/// and [`Hub::shutdown`](crate::Hub::shutdown). A [`Duration`] is a plan, too: the
/// [grace](Self::within), and nothing else.
///
/// ```text
///  ├── announce ──┼────── spread ──────┼──────────────┤
///  │ served as    │ nobody new; those  │ the last who │ what is left
///  │ ever, "not   │ who are here are   │ have not     │ is dropped
///  │ ready"       │ served, and closed │ answered yet │
///  │              │ one after another  │              │
///  ├───────────────────── grace ───────────────────────┤
/// ```
///
/// 1. For as long as [`announce`](Self::announce) says, everything goes on, but the
///    [readiness page](crate::ServerBuilder::readiness) answers 503: load balancers send nobody any
///    more.
/// 2. Nobody new is let in: a request for an upgrade gets status 503 with `Retry-After` from now
///    on. The listeners close, and connections that wait in their queues are accepted first. If
///    there is a `spread`, they take the first 250 ms of it for that, in which TCP handshakes under
///    way are completed and no others begin: the kernel of a new client tries again after a second,
///    and then reaches another process on the same port, or is refused. Without that time Linux
///    resets a handshake that is under way when the listener closes.
/// 3. Over the time of [`spread`](Self::spread) the connections get their Close frames, one after
///    another at even intervals, so that the clients do not come back as a herd. Until its turn
///    has come a connection is served as ever. What was queued for it is delivered before the
///    Close frame; answers that come later and messages in pieces are waited for.
/// 4. Then nothing is read any more, and nothing new is accepted for sending: what handlers have
///    sent to other shards arrives, and the connections that are left get their Close frames, all
///    at once: without a `spread` that is everybody.
/// 5. It is over when all connections are gone, at the latest at the end of the grace; what is left
///    then is dropped, and counted in the report.
///
/// ```
/// use std::time::Duration;
///
/// use peregrine::{Callbacks, CloseCode, Server, ShutdownPlan};
///
/// let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
/// let running = Server::builder().websocket("/echo", echo).bind("127.0.0.1:0")?.start()?;
/// // Another process has bound the same port (both call `share_port`): nobody has to
/// // wait long before coming back.
/// let plan = ShutdownPlan::within(Duration::from_secs(25))
///     .spread(Duration::from_secs(15))
///     .code(CloseCode::SERVICE_RESTART);
/// let report = running.shutdown(plan)?;
/// assert_eq!((report.open_count, report.aborted_count), (0, 0));
/// # Ok::<(), peregrine::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a plan changes nothing"]
pub struct ShutdownPlan {
    grace: Duration,
    announce: Duration,
    spread: Duration,
    code: CloseCode,
}

impl ShutdownPlan {
    /// A shutdown that has ended after `grace`, whatever happens; everything else happens within
    /// it. A service manager has such a limit, too, after which it kills: stay a little below.
    ///
    /// Without anything else, nothing is announced and all are closed at once, with 1001.
    pub const fn within(grace: Duration) -> Self {
        let (announce, spread) = (Duration::ZERO, Duration::ZERO);
        Self { grace, announce, spread, code: CloseCode::GOING_AWAY }
    }

    /// For how long everything goes on while the [readiness page](crate::ServerBuilder::readiness)
    /// says that it will not. Default zero. Behind a load balancer: longer than it takes to notice.
    pub const fn announce(mut self, time: Duration) -> Self {
        self.announce = time;
        self
    }

    /// Over how much time the Close frames are spread. Default zero: all are closed at once. What
    /// of the grace is left after it is for the last ones to answer: leave a few seconds, or more
    /// if clients read much that was queued for them.
    pub const fn spread(mut self, time: Duration) -> Self {
        self.spread = time;
        self
    }

    /// The code of the Close frames. Default 1001 (going away);
    /// [`SERVICE_RESTART`](CloseCode::SERVICE_RESTART) tells clients to come back. A code that
    /// [must not be sent](CloseCode::is_sendable) is sent as 1000.
    pub fn code(mut self, code: impl Into<CloseCode>) -> Self {
        self.code = code.into();
        self
    }

    /// After how much time it has ended, as far as it can be reckoned.
    pub(crate) fn longest(&self) -> Duration {
        self.grace.min(AGES)
    }

    /// This one, no longer than the other in any respect.
    fn hastened(self, other: Self) -> Self {
        Self {
            grace: self.grace.min(other.grace),
            announce: self.announce.min(other.announce),
            spread: self.spread.min(other.spread),
            code: self.code,
        }
    }
}

impl From<Duration> for ShutdownPlan {
    /// As [`ShutdownPlan::within`].
    fn from(grace: Duration) -> Self {
        Self::within(grace)
    }
}

/// A plan whose beginning is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The end of the announcement.
    pub(crate) accepts_until: Instant,
    pub(crate) spreads_until: Instant,
    /// The end of the grace.
    pub(crate) ends_at: Instant,
    pub(crate) code: CloseCode,
}

impl Schedule {
    fn new(plan: ShutdownPlan, now: Instant) -> Self {
        let grace = plan.longest();
        let announced = plan.announce.min(grace);
        let spread = plan.spread.min(grace - announced);
        let accepts_until = now + announced;
        let spreads_until = accepts_until + spread;
        Self { accepts_until, spreads_until, ends_at: now + grace, code: plan.code }
    }

    /// This one, no later than the other in any respect.
    fn hastened(self, other: Self) -> Self {
        Self {
            accepts_until: self.accepts_until.min(other.accepts_until),
            spreads_until: self.spreads_until.min(other.spreads_until),
            ends_at: self.ends_at.min(other.ends_at),
            code: self.code,
        }
    }
}

/// How far a shutdown has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    has_begun: AtomicBool,
    decided: Mutex<Decided>,
    /// How many shards have handed over all that their handlers had sent to other shards. Once it
    /// is all of them, nothing more can arrive anywhere.
    quiet_count: AtomicUsize,
    /// How many connections were dropped at the end of the grace.
    aborted_count: AtomicUsize,
    /// How many connections were open when nobody was let in any more.
    open_count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Decided {
    /// No shard has heard of it yet.
    plan: Option<ShutdownPlan>,
    schedule: Option<Schedule>,
}

impl Progress {
    /// Every shard asks in every turn: this must cost next to nothing.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        // Acquire: a thread that sees it finds the plan.
        self.has_begun.load(Ordering::Acquire)
    }

    /// A shard has handed over all that its handlers had sent to others, or will never do so.
    pub(crate) fn add_quiet(&self) {
        // Release: a thread that sees it sees what was handed over. Acquire: with it, what those
        // before this one have handed over, so that one look at the sum is enough.
        self.quiet_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether nothing more can arrive anywhere but what is in the mailboxes.
    pub(crate) fn are_all_quiet(&self, shard_count: usize) -> bool {
        // Acquire: as above.
        self.quiet_count.load(Ordering::Acquire) >= shard_count
    }

    // What the report tells. Relaxed: it is read when the shards' threads were joined.

    pub(crate) fn add_open(&self, count: usize) {
        self.open_count.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_aborted(&self, count: usize) {
        self.aborted_count.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes up a plan. If there was one before, the shutdown only becomes faster.
    pub(super) fn begin(&self, plan: ShutdownPlan) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.plan = Some(decided.plan.map_or(plan, |first| first.hastened(plan)));
        // Release: as above.
        self.has_begun.store(true, Ordering::Release);
    }

    /// When what is to be done, for a shard whose time is `now`; `None` if no shutdown has begun.
    #[inline]
    pub(crate) fn schedule(&self, now: Instant) -> Option<Schedule> {
        if self.has_begun() { self.fix_schedule(now) } else { None }
    }

    #[cold]
    fn fix_schedule(&self, now: Instant) -> Option<Schedule> {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = decided.plan.take() {
            let next = Schedule::new(plan, now);
            decided.schedule = Some(decided.schedule.map_or(next, |first| first.hastened(next)));
        }
        decided.schedule
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How many connections were open when the server began to let nobody in. Those that are not
    /// among the aborted have come to their end.
    pub open_count: usize,
    /// How many connections were dropped because the grace was over before they had ended; those
    /// that were still upgrading included.
    pub aborted_count: usize,
}

impl ShutdownReport {
    pub(crate) fn of(progress: &Progress) -> Self {
        Self {
            open_count: progress.open_count.load(Ordering::Relaxed),
            aborted_count: progress.aborted_count.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn everything_happens_within_the_grace() {
        let now = instant();
        let plan = ShutdownPlan::within(5 * SECOND).announce(3 * SECOND).spread(10 * SECOND);
        let schedule = Schedule::new(plan, now);
        assert_eq!(schedule.accepts_until, now + 3 * SECOND);
        assert_eq!(schedule.spreads_until, schedule.ends_at);
        let endless =
            ShutdownPlan::within(Duration::MAX).announce(Duration::MAX).spread(Duration::MAX);
        assert_eq!(Schedule::new(endless, now).accepts_until, now + AGES);
    }

    #[test]
    fn a_second_plan_only_makes_it_faster() {
        let now = instant();
        let progress = Progress::default();
        assert_eq!(progress.schedule(now), None);
        progress.begin(ShutdownPlan::within(9 * SECOND).spread(4 * SECOND).code(1012));
        progress.begin(ShutdownPlan::within(8 * SECOND).spread(6 * SECOND));
        let schedule = progress.schedule(now).expect("it has begun");
        let ends = (schedule.spreads_until - now, schedule.ends_at - now, schedule.code);
        assert_eq!(ends, (4 * SECOND, 8 * SECOND, CloseCode::SERVICE_RESTART));
        assert_eq!(progress.schedule(now + SECOND), Some(schedule), "fixed once for all shards");
        progress.begin(ShutdownPlan::within(Duration::ZERO));
        let at_once = progress.schedule(now + SECOND).expect("it has begun");
        assert_eq!(at_once.ends_at, now + SECOND);
        assert_eq!(at_once.accepts_until, now, "what is past stays past");
        progress.begin(ShutdownPlan::within(60 * SECOND));
        assert_eq!(progress.schedule(now + 2 * SECOND), Some(at_once));
    }
}
