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
mod links;
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
use crate::shard::connection::{Flags, Phase};
use crate::shard::dispatch::Application;
pub(crate) use crate::shard::dispatch::erased::ErasedHandler;
pub(crate) use crate::shard::dispatch::pool::{Pool, PoolEnd};
pub(crate) use crate::shard::dispatch::service::{Page, ServedEndpoint, Service};
use crate::shard::dispatch::tasks::WAITING_BYTES;
pub(crate) use crate::shard::limits::{LimitTable, Quick};
pub(crate) use crate::shard::quota::clients::Visitors;
pub(crate) use crate::shard::quota::connections::Places;
use crate::shard::stage::Life;
use crate::shard::state::Shard;
use crate::transport::listener::Listener;
pub(crate) use crate::transport::listener::{Bound, PortUse, bind};
#[cfg(feature = "testing")]
pub(crate) use crate::transport::memory::{ClientEnd, Unread, pipe};
#[cfg(feature = "testing")]
pub(crate) use crate::transport::memory_listener::Arrivals;
use crate::transport::readiness::News;
#[cfg(feature = "testing")]
use crate::transport::readiness::Readiness;

/// The token of the mailbox's waker. Addresses have at most 62 bits.
pub(crate) const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// The most events taken from the kernel in a turn.
const EVENT_BUDGET: usize = 1024;
/// The receive buffer, in bytes: also the most that one connection is read in a turn.
const RECEIVE_BYTES: usize = 128 << 10;
// A request's head is parsed there as a whole.
const _: () = assert!(HEAD_BYTES_MAX < RECEIVE_BYTES);
/// When a connection is looked at again whose input could not be read yet.
const HELD_UP: Duration = Duration::from_millis(100);
/// How often a shard looks again while it waits for another one.
const RETRY: Duration = Duration::from_millis(1);

/// What a shard is made of, prepared before its thread starts.
#[derive(Debug)]
pub(crate) struct Seat {
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

/// The loop of one shard.
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
    /// The connections in surplus, the oldest first, and some that have ended.
    surplus: Vec<Address>,
    budgets: Budgets,
    life: Life,
}

impl EventLoop {
    /// Builds the loop; on the shard's own thread, for sessions never leave it.
    pub(crate) fn new(
        seat: Seat,
        service: Arc<Service>,
        limits: LimitTable,
        hub: Hub,
        now: Instant,
    ) -> io::Result<Self> {
        let Seat { index, poll, listener, inbox } = seat;
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
            surplus: Vec::new(),
            budgets: Budgets::default(),
            life: Life::Running,
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
            self.shard.now = clock::now();
            self.shard.watch.restart();
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
        self.accept();
        self.take_mail();
        self.advance_shutdown();
        self.fire_timers(events);
        self.shard.fan_out(self.budgets.fanout_count);
        self.flush();
        self.reap();
        if self.is_over() {
            self.shard.lose_mail();
            self.shard.reports.finish(self.shard.now);
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
    fn hear(&mut self, news: &impl News) -> Option<Slot> {
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

    /// Puts those who are to be read on the ready list.
    fn file(&mut self, news: impl IntoIterator<Item: News>) {
        for news in news {
            if let Some(slot) = self.hear(&news) {
                self.shard.make_ready(slot);
            }
        }
    }

    /// Puts on the lists what one look at the kernel did not bring: nobody counts as silent for
    /// what this shard, busy for long, has not heard of.
    fn file_all_events(&mut self, events: &mut Events) {
        // Each connection has news once, unless it has more meanwhile, which may wait.
        let mut look_count = self.shard.connections.len() / EVENT_BUDGET + 1;
        while events.iter().count() >= events.capacity() && look_count > 0 {
            look_count -= 1;
            if self.wait(events, Some(Duration::ZERO)).is_err() {
                // The next turn's wait says so.
                return;
            }
            self.file(&*events);
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
        let now = self.shard.now;
        if self.listener.as_ref().is_some_and(|listener| listener.is_awake(now)) {
            return Some(Duration::ZERO);
        }
        // Reckoned from the turn's beginning: at most a turn too late.
        Some(self.next_due()?.saturating_duration_since(now))
    }

    /// Whether a budget left something to the next turn.
    fn has_leftovers(&self) -> bool {
        let shard = &self.shard;
        (!shard.ready.is_empty() && self.may_receive())
            || self.has_mail
            || !shard.fanout.is_empty()
            || !shard.dirty.is_empty()
            || !shard.drained.is_empty()
    }

    /// Whether this shard cannot go on before another one has; nobody tells it then.
    fn waits_for_shards(&self) -> bool {
        self.shard.links.is_blocked() || self.life == Life::Quieting
    }

    /// When something is due of which no event will tell.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let shard = &self.shard;
        let listener = self.listener.as_ref().filter(|listener| listener.is_ready);
        let resting_until = listener.and_then(|listener| listener.resting_until);
        earlier(earlier(shard.wheel.next_due(), resting_until), self.shutdown_due())
    }

    /// Phase 4: clears `armed`, *then* takes what is there, at most a budget of it.
    fn take_mail(&mut self) {
        if !self.shard.inbox.disarm() && !self.has_mail {
            return;
        }
        // Not those that are rung meanwhile: who yields lets the others go first.
        let budget = self.budgets.mailbox_count;
        let bell_count = self.shard.inbox.bell_count().min(budget);
        for _ in 0..bell_count {
            let Some(address) = self.shard.inbox.take_bell() else { break };
            if let Some(slot) = self.shard.find(address) {
                self.attend(slot);
            }
        }
        self.has_mail = !self.take_envelopes(budget) || bell_count == budget;
        self.adopt_newcomers();
    }

    /// Takes over at most so many envelopes; whether those are all.
    fn take_envelopes(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            if self.shard.fanout.is_behind() {
                // The fan-out comes first; the mailbox fills, and its senders are told.
                return false;
            }
            let Some(envelope) = self.shard.inbox.take(Envelope::size) else { return true };
            self.shard.open(envelope);
        }
        false
    }

    /// Phase 5: looks at the connections whose timer has fired.
    fn fire_timers(&mut self, events: &mut Events) {
        if !self.shard.wheel.is_due(self.shard.now) {
            return;
        }
        self.file_all_events(events);
        let mut fired = std::mem::take(&mut self.fired);
        self.shard.wheel.expire(self.shard.now, &mut fired);
        self.shard.summarise();
        for slot in fired.drain(..) {
            if self.shard.connections.contains(slot) {
                self.time_out(slot);
            }
        }
        self.fired = fired;
    }

    /// Does what is due for one connection, and arms its timer for what is due next.
    fn time_out(&mut self, slot: Slot) {
        let now = self.shard.now;
        let connection = &self.shard.connections[slot];
        if connection.flags.is_ready && !matches!(connection.phase, Phase::Closing(_)) {
            // It has said something that this shard had no time to read: that is not its fault.
            self.shard.arm(slot, now + HELD_UP);
            return;
        }
        let Flags { is_waiting, is_answer_due, .. } = connection.flags;
        let due = match connection.phase {
            Phase::Upgrading { .. } | Phase::Closing(_) => connection.deadline,
            Phase::Leaving(_) if is_waiting => connection.deadline,
            Phase::Open if is_waiting && is_answer_due => connection.deadline,
            Phase::Open => return self.check_silence(slot),
            Phase::Leaving(_) | Phase::Dead => return,
        };
        match connection.phase {
            _ if due > now => self.shard.arm(slot, due),
            Phase::Closing(_) => self.time_out_closing(slot),
            Phase::Upgrading { .. } => self.time_out_upgrade(slot),
            Phase::Open => {
                self.stop_waiting(slot);
                // Its Close is heard now, unless it does not take what it is told before.
                self.check_silence(slot);
            }
            _ => self.stop_waiting(slot),
        }
    }

    /// Pings a peer that is silent; closes one that does not answer (RFC 6455 section 5.5.2).
    fn check_silence(&mut self, slot: Slot) {
        let Shard { now, limits, connections, .. } = &mut self.shard;
        let connection = &mut connections[slot];
        let limits = &limits[connection.endpoint];
        let (now, dead_after, ping_after) = (*now, limits.dead_after, limits.ping_after);
        if connection.flags.is_waiting && connection.backlog.len() >= WAITING_BYTES {
            // It may have said more than is read while its handler takes its time.
            connection.touch(now);
        }
        if connection.heard_at + dead_after <= now && connection.ping_count == 0 {
            // Nobody has asked it: this shard was held up. It gets the time to answer.
            connection.heard_at = now.checked_sub(ping_after).unwrap_or(now);
        }
        let mut dead_at = connection.heard_at + dead_after;
        if dead_at <= now && self.shard.makes_progress(slot, dead_after) {
            // It takes what is sent to it: the pings are still on their way. It counts as pinged,
            // so that what the kernel has told now is not noted anew: a kernel that only answers
            // probes has made progress once, not each time.
            let connection = &mut self.shard.connections[slot];
            (connection.heard_at, connection.ping_count) = (now, 1);
            dead_at = now + dead_after;
        }
        if dead_at <= now {
            let close = Close::new(CloseCode::GOING_AWAY, "timed out", ClosedBy::Server);
            self.shard.begin_close(slot, close, connection::Farewell::Close);
            return;
        }
        // Up to a tenth earlier, so that pings do not come in herds.
        let connection = &mut self.shard.connections[slot];
        let spread = u32::try_from(connection.address.slot() % 64).unwrap_or_default();
        let interval = ping_after - ping_after / 640 * spread;
        let mut ping_at = connection.heard_at + interval * (u32::from(connection.ping_count) + 1);
        if ping_at <= now {
            connection.ping_count = connection.ping_count.saturating_add(1);
            if connection.ping_count == 1 {
                self.shard.note_progress(slot);
            }
            self.shard.push_control(slot, &crate::protocol::frame::PING);
            ping_at = now + interval;
        }
        self.shard.arm(slot, ping_at.min(dead_at));
    }

    /// Phase 7: hands every dirty outbox to the kernel, once; then tells those that have drained,
    /// and those that leave.
    fn flush(&mut self) {
        self.close_leaving();
        if !self.shard.dirty.is_empty() {
            self.flush_dirty();
        }
        if !self.shard.drained.is_empty() {
            self.call_drained();
        }
        self.close_leaving();
    }

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.shard.dirty);
        for address in dirty.drain(..) {
            if let Some(slot) = self.shard.find(address) {
                self.shard.flush(slot);
            }
        }
        // Keeps the allocation; what has become dirty meanwhile is the next turn's.
        dirty.append(&mut self.shard.dirty);
        self.shard.dirty = dirty;
    }

    fn call_drained(&mut self) {
        for address in std::mem::take(&mut self.shard.drained) {
            let Some(slot) = self.shard.find(address) else { continue };
            self.shard.connections[slot].flags.is_drained = false;
            if self.shard.connections[slot].is_open() {
                self.shard.enter(slot);
                self.application.drain(&mut self.shard, slot);
                self.shard.exit(slot);
            }
        }
    }

    /// Phase 8: frees what has died. Nothing is freed anywhere else.
    fn reap(&mut self) {
        debug_assert!(self.shard.leaving.is_empty(), "whoever leaves is told before the reaping");
        while let Some(slot) = self.shard.dead.pop() {
            self.application.forget(&mut self.shard, slot);
            let connection = self.shard.connections.remove(slot);
            self.shard.wheel.disarm(slot);
            debug_assert!(connection.is_dead() && connection.outbox.is_empty());
            self.let_out(&connection);
            self.shard.link().counters.remove_connection();
            if let Some(listener) = &mut self.listener {
                // A descriptor has become free.
                listener.resting_until = None;
            }
            if matches!(self.life, Life::Spreading(_)) && !self.has_members() {
                // If all others have nobody left either, it goes on.
                self.shard.hub.shared().wake_all();
            }
        }
        let sums = (self.shard.queued_bytes, self.shard.kept_input.sum());
        debug_assert!(!self.shard.connections.is_empty() || sums == (0, 0), "{sums:?}");
    }

    /// Whether there is room for what handlers send to other shards.
    fn may_receive(&self) -> bool {
        !self.shard.is_held_up() && self.life != Life::Quieting
    }

    /// Whether the shard has nothing to do ever again.
    pub(crate) fn is_over(&self) -> bool {
        self.life == Life::Closing && self.shard.connections.is_empty()
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
