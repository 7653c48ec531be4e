//! A shard: one thread, one `Poll`, one slab of connections, one loop.
//!
//! ```text
//! wait ─► receive ─► accept ─► mailbox ─► timers ─► fan-out ─► flush ─► reap ─► wait ..
//! ```
//!
//! One function a phase, in this order. Handlers are called in `receive` (messages), and between
//! phases for connections that leave or have drained; never inside one another. Only `reap` frees.
//!
//! Knows everything that a connection goes through. Must not know RFC 6455, which is `protocol`'s.

mod connection;
mod dispatch;
mod fanout;
mod footprint;
#[cfg(any(feature = "testing", feature = "__internals"))]
pub(crate) mod harness;
mod limits;
mod outbound;
mod outbox;
mod phases;
mod quota;
mod reports;
mod stage;
mod state;
mod stopwatch;
mod timers;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::clock;
use crate::config::HEAD_BYTES_MAX;
use crate::hub::mailbox::Inbox;
use crate::hub::{Address, Envelope, Hub, Slot};
use crate::message::{Close, CloseCode, ClosedBy};
use crate::panics::discard;
use crate::shard::connection::{Phase, WAITING_BYTES};
use crate::shard::dispatch::Application;
pub(crate) use crate::shard::dispatch::erased::{ErasedHandler, Served};
pub(crate) use crate::shard::dispatch::pool::{Pool, PoolEnd};
pub(crate) use crate::shard::dispatch::service::{Page, ServedEndpoint, Service};
pub(crate) use crate::shard::limits::{EndpointLimits, LimitTable};
pub(crate) use crate::shard::quota::clients::ClientLimits;
pub(crate) use crate::shard::quota::connections::ConnectionQuota;
use crate::shard::stage::ShutdownStage;
use crate::shard::state::Shard;
use crate::transport::listener::Listener;
pub(crate) use crate::transport::listener::{Bound, PortUse, bind};
#[cfg(feature = "testing")]
use crate::transport::readiness::Readiness;
use crate::transport::readiness::SocketEvent;
#[cfg(feature = "testing")]
pub(crate) use crate::transport::test::arrivals::Arrivals;
#[cfg(feature = "testing")]
pub(crate) use crate::transport::test::memory::{ClientEnd, Unread, pipe};

/// The token of the mailbox's waker. Addresses have at most 62 bits.
pub(crate) const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// The most events taken from the kernel in a turn.
const EVENT_BUDGET: usize = 1024;
/// The receive buffer, in bytes: also the most that is read in one service.
const RECEIVE_BYTES: usize = 128 << 10;
// A request's head is parsed there as a whole.
const _: () = assert!(HEAD_BYTES_MAX < RECEIVE_BYTES);
/// When a connection is looked at again whose input could not be read yet.
const CONGESTED: Duration = Duration::from_millis(100);
/// How often a shard looks again while it waits for another one.
const RETRY: Duration = Duration::from_millis(1);

/// What a shard is made of, prepared before its thread starts.
#[derive(Debug)]
pub(crate) struct ShardParts {
    pub(crate) index: usize,
    pub(crate) poll: Poll,
    /// `None` if connections come another way: the test kit's do.
    pub(crate) listener: Option<Bound>,
    pub(crate) inbox: Inbox<Envelope>,
}

/// What a turn does at most before others have theirs. Simulations make do with less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budgets {
    /// How many sockets are accepted.
    pub(crate) accept_count: usize,
    /// How many envelopes are taken.
    pub(crate) mailbox_count: usize,
    /// How many members the fan-out visits: half a millisecond.
    pub(crate) fanout_count: usize,
    /// How many messages, or fragments and control frames, of one connection are handled.
    pub(crate) frame_count: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { accept_count: 64, mailbox_count: 1024, fanout_count: 64, frame_count: 512 }
    }
}

/// The loop of one shard: it brings events, the [`Shard`] and the handlers together.
///
/// The methods are of these kinds:
///
/// * **The loop**: [`new`](Self::new), then [`run`](Self::run), which repeats [`wait`](Self::wait)
///   and [`turn`](Self::turn) until [`is_over`](Self::is_over). The test kit does the same without
///   a thread (`harness::drive`).
/// * **Phases**, which a turn calls in their order: [`receive`](Self::receive),
///   [`accept`](Self::accept), [`take_mail`](Self::take_mail),
///   [`advance_shutdown`](Self::advance_shutdown), [`fire_timers`](Self::fire_timers), the fan-out,
///   which is the shard's, [`flush`](Self::flush), [`reap`](Self::reap).
/// * **Services**: a phase gives a connection its service, which calls handlers, between
///   [`Shard::enter`] and [`Shard::exit`]: [`receive_from_one`](Self::receive_from_one),
///   [`attend`](Self::attend), [`call_drained`](Self::call_drained),
///   [`run_pending_closes`](Self::run_pending_closes). None begins in another one.
/// * **Facts for the wait**: [`timeout`](Self::timeout), [`has_leftovers`](Self::has_leftovers),
///   [`next_due`](Self::next_due).
pub(crate) struct EventLoop {
    poll: Poll,
    /// `None` once the shutdown has begun, and if there never was one.
    listener: Option<Listener>,
    has_mail: bool,
    application: Application,
    shard: Shard,
    /// The one receive buffer.
    buffer: Vec<u8>,
    /// Answers to control frames, on their way from the protocol to the connection.
    control: Vec<u8>,
    fired: Vec<Slot>,
    /// What the test kit has told.
    #[cfg(feature = "testing")]
    told: Vec<(Token, Readiness)>,
    /// The connections over the limit, the oldest first, and some that have ended.
    over_limit: Vec<Address>,
    budgets: Budgets,
    life: ShutdownStage,
}

impl EventLoop {
    /// Builds the loop; on the shard's own thread, for sessions never leave it.
    pub(crate) fn new(
        parts: ShardParts,
        service: Arc<Service>,
        limits: LimitTable,
        hub: Hub,
        now: Instant,
    ) -> io::Result<Self> {
        let ShardParts { index, poll, listener, inbox } = parts;
        // First: whatever fails after it, nobody waits for this shard to become quiet.
        let shard = Shard::new(index, limits, hub, inbox, now);
        let listen = |listener| Listener::new(listener, poll.registry(), LISTENER);
        let listener = listener.map(listen).transpose()?;
        Ok(Self {
            listener,
            has_mail: false,
            application: Application::new(service),
            shard,
            buffer: vec![0; RECEIVE_BYTES],
            control: Vec::new(),
            fired: Vec::new(),
            #[cfg(feature = "testing")]
            told: Vec::new(),
            over_limit: Vec::new(),
            budgets: Budgets::default(),
            life: ShutdownStage::Running,
            poll,
        })
    }

    /// Runs until the server has shut down.
    ///
    /// # Errors
    /// Only if the operating system refuses to wait.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENT_BUDGET);
        while !self.is_over() {
            self.wait(&mut events, self.timeout())?;
            self.shard.begin_turn(clock::now());
            self.turn(&mut events);
        }
        // The last shard drops the handlers; a panic there is not the shard's.
        if discard(self.application) {
            log::error!("a handler panicked when it was dropped");
        }
        Ok(())
    }

    /// All phases but the first, at the time that the shard was told.
    fn turn(&mut self, events: &mut Events) {
        self.receive(events);
        if self.listener.as_ref().is_some_and(|listener| listener.is_ready) {
            self.accept();
        }
        self.take_mail();
        if let Some(schedule) = self.shard.follow_shutdown() {
            self.advance_shutdown(schedule);
        }
        self.fire_timers(events);
        if self.shard.has_publications() {
            self.shard.fan_out(self.budgets.fanout_count);
        }
        self.flush();
        self.reap();
        if self.is_over() {
            self.shard.lose_mail();
            self.shard.finish_reports();
        }
    }

    /// Phase 1: sleeps until something happens, at most for so long.
    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes what happened, to whomever; the connection, if one is to be read.
    fn dispatch_event(&mut self, news: &impl SocketEvent) -> Option<Slot> {
        match news.token() {
            // It may have come too late for this turn's mail, and comes once.
            WAKER => self.has_mail = true,
            LISTENER => {
                if let Some(listener) = &mut self.listener {
                    listener.is_ready = true;
                }
            }
            Token(token) => return self.shard.notice(Address::from_token(token), news.readiness()),
        }
        None
    }

    /// Puts the connections that are to be read on the ready list.
    fn dispatch_events(&mut self, news: impl IntoIterator<Item: SocketEvent>) {
        for news in news {
            if let Some(slot) = self.dispatch_event(&news) {
                self.shard.make_ready(slot);
            }
        }
    }

    /// Puts on the lists what one look at the kernel did not bring: nobody counts as silent for
    /// what this shard, busy for long, has not heard of.
    fn dispatch_all_events(&mut self, events: &mut Events) {
        // Each connection has news once, unless it has more meanwhile, which may wait.
        let mut look_count = self.shard.connection_count() / EVENT_BUDGET + 1;
        while events.iter().count() >= events.capacity() && look_count > 0 {
            look_count -= 1;
            if self.wait(events, Some(Duration::ZERO)).is_err() {
                // The next turn's wait says so.
                return;
            }
            self.dispatch_events(&*events);
        }
    }

    /// How long there is nothing to do; `None` for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.has_leftovers() {
            return Some(Duration::ZERO);
        }
        if self.waits_for_shards() {
            return Some(RETRY);
        }
        let now = self.shard.now();
        if self.listener.as_ref().is_some_and(|listener| listener.is_awake(now)) {
            return Some(Duration::ZERO);
        }
        // Reckoned from the turn's beginning: at most a turn too late.
        Some(self.next_due()?.saturating_duration_since(now))
    }

    /// Whether a budget left something to the next turn.
    fn has_leftovers(&self) -> bool {
        (self.shard.has_ready() && self.may_receive())
            || self.has_mail
            || self.shard.has_undelivered()
    }

    /// Whether this shard cannot go on before another one has; nobody tells it then.
    fn waits_for_shards(&self) -> bool {
        self.shard.waits_for_shards() || self.life == ShutdownStage::Quieting
    }

    /// When something is due of which no event will tell.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let listener = self.listener.as_ref().filter(|listener| listener.is_ready);
        let resting_until = listener.and_then(|listener| listener.resting_until);
        let shutdown_due = self.shard.schedule().and_then(|schedule| self.shutdown_due(schedule));
        earlier(earlier(self.shard.next_timer_due(), resting_until), shutdown_due)
    }

    /// Phase 4: clears `armed`, *then* takes what is there, at most a budget of it.
    fn take_mail(&mut self) {
        if !self.shard.disarm_mailbox() && !self.has_mail {
            return;
        }
        // Not those that are rung meanwhile: who yields lets the others go first.
        let budget = self.budgets.mailbox_count;
        let woken_count = self.shard.woken_count().min(budget);
        for _ in 0..woken_count {
            let Some(address) = self.shard.take_woken() else { break };
            if let Some(slot) = self.shard.find(address) {
                self.attend(slot);
            }
        }
        self.has_mail = !self.shard.take_envelopes(budget) || woken_count == budget;
        self.adopt_handed_over();
    }

    /// Phase 5: looks at the connections whose timer has fired.
    fn fire_timers(&mut self, events: &mut Events) {
        if !self.shard.is_timer_due() {
            return;
        }
        self.dispatch_all_events(events);
        let mut fired = std::mem::take(&mut self.fired);
        self.shard.expire_timers(&mut fired);
        for slot in fired.drain(..) {
            if self.shard.has(slot) {
                self.time_out(slot);
            }
        }
        self.fired = fired;
    }

    /// Does what is due for one connection, and arms its timer for what is due next.
    fn time_out(&mut self, slot: Slot) {
        let now = self.shard.now();
        let connection = self.shard.connection(slot);
        if connection.is_ready() && !connection.is_closing() {
            // It has said something that this shard had no time to read: that is not its fault.
            self.shard.arm(slot, now + CONGESTED);
            return;
        }
        let is_waiting = connection.is_waiting();
        let due = match connection.phase() {
            Phase::Upgrading { .. } | Phase::Closing(_) => connection.deadline(),
            Phase::PendingClose(_) if is_waiting => connection.deadline(),
            Phase::Open(_) if is_waiting && connection.is_answer_due() => connection.deadline(),
            Phase::Open(_) => return self.check_silence(slot),
            Phase::PendingClose(_) | Phase::Dead => return,
        };
        match connection.phase() {
            _ if due > now => self.shard.arm(slot, due),
            Phase::Closing(_) => self.time_out_closing(slot),
            Phase::Upgrading { .. } => self.time_out_upgrade(slot),
            Phase::Open(_) => {
                self.stop_waiting(slot);
                // Its Close is heard now, unless it does not take what it is told before.
                self.check_silence(slot);
            }
            _ => self.stop_waiting(slot),
        }
    }

    /// Pings a peer that is silent; closes one that does not answer (RFC 6455 section 5.5.2).
    fn check_silence(&mut self, slot: Slot) {
        let now = self.shard.now();
        let (connection, limits) = self.shard.connection_with_limits(slot);
        let (idle_timeout, ping_after) = (limits.idle_timeout, limits.ping_after);
        if connection.is_waiting() && connection.backlog().len() >= WAITING_BYTES {
            // It may have said more than is read while its handler takes its time.
            connection.touch(now);
        }
        let mut dead_at = connection.dead_at(idle_timeout, ping_after, now);
        if dead_at <= now && connection.makes_progress(idle_timeout) {
            // It takes what is sent to it: the pings are still on their way. It counts as pinged,
            // so that what the kernel has told now is not noted anew: a kernel that only answers
            // probes has made progress once, not each time.
            connection.touch_pinged(now);
            dead_at = now + idle_timeout;
        }
        if dead_at <= now {
            let close = Close::new(CloseCode::GOING_AWAY, "timed out", ClosedBy::Server);
            self.shard.begin_close(slot, close, connection::CloseHandshake::Close);
            return;
        }
        let connection = self.shard.connection_mut(slot);
        let interval = connection.ping_interval(ping_after);
        let mut ping_at = connection.ping_at(interval);
        if ping_at <= now {
            if connection.count_ping() {
                connection.note_progress();
            }
            self.shard.push_control(slot, &crate::protocol::frame::PING);
            ping_at = now + interval;
        }
        self.shard.arm(slot, ping_at.min(dead_at));
    }

    /// Calls `on_close` for all connections whose end is decided, if there are any.
    #[inline]
    pub(in crate::shard) fn run_pending_closes(&mut self) {
        if self.shard.has_pending_close() {
            self.close_all_pending();
        }
    }

    /// Phase 7: hands every dirty outbox to the kernel, once; then tells those that have drained,
    /// and those that leave.
    fn flush(&mut self) {
        self.run_pending_closes();
        self.shard.flush_dirty();
        self.call_drained();
        self.run_pending_closes();
    }

    #[inline]
    fn call_drained(&mut self) {
        for address in self.shard.take_drained() {
            if let Some(slot) = self.shard.begin_drain(address) {
                self.shard.enter(slot);
                self.application.drain(&mut self.shard, slot);
                self.shard.exit(slot);
            }
        }
    }

    /// Phase 8: frees what has died. Nothing is freed anywhere else.
    fn reap(&mut self) {
        while let Some(slot) = self.shard.take_dead() {
            self.application.forget(&mut self.shard, slot);
            self.release_quota(self.shard.connection(slot));
            self.shard.remove(slot);
            self.shard.uncount_connection();
            if let Some(listener) = &mut self.listener {
                // A descriptor has become free.
                listener.resting_until = None;
            }
            if matches!(self.life, ShutdownStage::Spreading(_)) && !self.has_members() {
                // If all others have nobody left either, it goes on.
                self.shard.shared().wake_all();
            }
        }
        self.shard.check_accounts();
    }

    /// Whether handlers may be called: the shard is not congested and not in the quieting stage.
    fn may_receive(&self) -> bool {
        !self.shard.is_congested() && self.life != ShutdownStage::Quieting
    }

    /// Whether the shard has nothing to do ever again.
    pub(crate) fn is_over(&self) -> bool {
        self.life == ShutdownStage::Closing && self.shard.connection_count() == 0
    }
}

/// The earlier of two instants, as far as there are any.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

#[cfg(test)]
mod tests;
