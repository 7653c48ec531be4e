//! What the threads of the load generator share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mio::Waker;
use rustix::time::{ClockId, clock_gettime};

use crate::floor::Floor;
use crate::options::Options;
use crate::script::Script;
use crate::tally::{Live, Window};
use crate::upgrade::Upgrade;

/// Counts nanoseconds from the beginning of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: monotonic_nanos() }
    }

    pub(crate) fn now(self) -> u64 {
        monotonic_nanos() - self.started
    }
}

/// What `Instant` is made of; as a number it costs less.
#[expect(clippy::cast_sign_loss, reason = "it counts from the machine's start")]
fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) address: SocketAddr,
    pub(crate) script: Script,
    pub(crate) upgrade: Upgrade,
    pub(crate) clock: Clock,
    /// When the load begins; `u64::MAX`: not yet known.
    begin: AtomicU64,
    /// Nothing more is to be sent: the run has been interrupted.
    pub(crate) is_stopped: Arc<AtomicBool>,
    /// All is over, the connections are to be closed.
    is_closing: AtomicBool,
    pub(crate) live: Mutex<Live>,
    /// Broadcasts under way.
    pub(crate) floor: Floor,
    /// One a thread.
    pub(crate) wakers: Vec<Waker>,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        address: SocketAddr,
        is_stopped: Arc<AtomicBool>,
        wakers: Vec<Waker>,
    ) -> Self {
        let in_flight_count = options.in_flight_count.unwrap_or(64);
        Self {
            script: Script::new(options.kind, options.payload_bytes, in_flight_count, options.seed),
            upgrade: Upgrade::new(&options.url, options.seed),
            options,
            address,
            clock: Clock::start(),
            begin: AtomicU64::new(u64::MAX),
            is_stopped,
            is_closing: AtomicBool::new(false),
            live: Mutex::default(),
            floor: Floor::default(),
            wakers,
        }
    }

    /// All connections that can be open are: the load begins, now.
    pub(crate) fn begin(&self, now: u64) {
        self.begin.store(now, Ordering::Release);
        self.wake_all();
    }

    /// When the load began; None: it has not.
    pub(crate) fn began(&self) -> Option<u64> {
        Some(self.begin.load(Ordering::Acquire)).filter(|begin| *begin != u64::MAX)
    }

    /// When what happens is measured; None: the load has not begun.
    pub(crate) fn window(&self) -> Option<Window> {
        let start = self.began()? + nanos(self.options.warm_up);
        let end = self.options.duration.map_or(u64::MAX, |duration| start + nanos(duration));
        Some(Window { start, end })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.wake_all();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    pub(crate) fn wake_all(&self) {
        for thread in 0..self.wakers.len() {
            self.wake(thread);
        }
    }

    pub(crate) fn wake(&self, thread: usize) {
        // Who is not woken looks for himself every now and then.
        let _ = self.wakers[thread].wake();
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
