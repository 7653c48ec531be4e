//! [`Server`]: the shards that are prepared. [`RunningServer`]: the threads that drive them, until
//! all of it is shut down.
//!
//! Knows threads and processors. Must not know what is served, nor how it was gathered.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::parts::Parts;
use super::thread::{OnShardThread, Outcome};
use crate::clock;
use crate::error::Error;
use crate::hub::{Hub, ShutdownPlan, ShutdownReport};
use crate::panics::discard;
use crate::shard::{EventLoop, LimitTable, PoolEnd, Service, ShardParts};

/// A WebSocket server whose address is bound.
///
/// ```
/// use peregrine::{Callbacks, Server};
///
/// let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
/// let running = Server::builder().websocket("/echo", echo).bind("127.0.0.1:0")?.start()?;
/// println!("ws://{}/echo", running.local_addr());
/// let report = running.shutdown(std::time::Duration::from_secs(1))?;
/// assert_eq!(report.aborted_count, 0);
/// # Ok::<(), peregrine::Error>(())
/// ```
#[must_use = "a server that is bound serves nobody until it runs"]
pub struct Server {
    pub(super) parts: Parts,
    pub(super) local_addr: SocketAddr,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .field("shard_count", &self.parts.shard_parts.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The address that is bound, with the port that was drawn.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A handle with which any thread reaches the connections.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.parts.hub.clone()
    }

    /// Serves on threads of its own, and blocks until the server has been shut down, by
    /// [`Hub::shutdown`] from another thread or a handler; or because a thread has failed. For the
    /// report, [`start`](Self::start) it and [`join`](RunningServer::join).
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started; [`Error::ShardThread`];
    /// [`Error::ShardPanicked`].
    pub fn run(self) -> Result<(), Error> {
        self.start()?.join().map(drop)
    }

    /// Serves on threads of its own, and returns at once. The log names the address, the number of
    /// shards and the limits that depend on the machine, as `info`.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started.
    pub fn start(self) -> Result<RunningServer, Error> {
        let Parts { shard_parts, service, pool_end, limits, hub, derived, on_shard_thread } =
            self.parts;
        let (address, shard_count) = (self.local_addr, shard_parts.len());
        let mut running =
            RunningServer { threads: Vec::new(), pool_end, hub: hub.clone(), local_addr: address };
        let processors = processors_to_pin(shard_count);
        for parts in shard_parts {
            let (service, limits, hub) = (Arc::clone(&service), limits.clone(), hub.clone());
            let on_shard_thread = on_shard_thread.clone();
            let processor = processors.get(parts.index).copied();
            let name = format!("peregrine-{}", parts.index);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                pin(processor);
                serve(parts, service, limits, hub, &on_shard_thread)
            })?;
            running.threads.push(thread);
        }
        log::info!("serving at {address}; shards: {shard_count}; {derived}");
        Ok(running)
    }
}

/// The life of a shard's thread.
fn serve(
    parts: ShardParts,
    service: Arc<Service>,
    limits: LimitTable,
    hub: Hub,
    on_shard_thread: &OnShardThread,
) -> Result<(), Error> {
    let shard = parts.index;
    let mut guard = Guard { hub: hub.clone(), shard, has_begun: false, is_over: false };
    let Outcome { value, panic } = on_shard_thread.contain(shard, || {
        guard.has_begun = true;
        let serve = || EventLoop::new(parts, service, limits, hub, clock::now())?.run();
        let served = catch_unwind(AssertUnwindSafe(serve));
        guard.is_over = matches!(served, Ok(Ok(())));
        served
    });
    let is_wrapped_well = panic.is_none();
    discard(panic);
    match value {
        Some(Err(panic)) => resume_unwind(panic),
        Some(Ok(Err(error))) => Err(Error::Io(error)),
        Some(Ok(Ok(()))) if is_wrapped_well => Ok(()),
        Some(Ok(Ok(()))) | None => Err(Error::ShardThread(shard)),
    }
}

/// Ends the whole server when one of its shards ends: half a server would refuse or lose half of
/// what it is given, and say nothing.
struct Guard {
    hub: Hub,
    shard: usize,
    /// Its loop was made.
    has_begun: bool,
    /// It has ended as it should.
    is_over: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let shared = self.hub.shared();
        log::error!("shard {} ended before its time; the server shuts down", self.shard);
        shared.shards[self.shard].mailbox.close();
        if !self.has_begun {
            // Its loop would have said so: nothing will come from here.
            shared.shutdown.add_quiet();
        }
        shared.begin_shutdown(ShutdownPlan::within(LAST_GRACE));
    }
}

/// The processors to pin the shards to: one each if there are exactly as many, else none. With
/// fewer shards the scheduler knows better where there is room; with more, they have to share.
fn processors_to_pin(shard_count: usize) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    if processors.len() == shard_count { processors } else { Vec::new() }
}

fn pin(processor: Option<usize>) {
    let Some(processor) = processor else { return };
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::debug!("the shard is not pinned: {error}");
    }
}

/// A server that serves. Dropping it stops it at once, without grace.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct RunningServer {
    threads: Vec<JoinHandle<Result<(), Error>>>,
    pool_end: PoolEnd,
    hub: Hub,
    local_addr: SocketAddr,
}

/// What is left to the other shards when one has ended before its time.
const LAST_GRACE: Duration = Duration::from_secs(1);

impl RunningServer {
    /// The address that is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// A handle with which any thread reaches the connections.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Shuts the server down and blocks until that is done. The plan is a grace (a `Duration`), or
    /// a [`ShutdownPlan`], which says what happens in which order: nobody is accepted any more,
    /// every message that was accepted is delivered, every connection is closed, what is left at
    /// the end of the grace is dropped. `on_close` is called for all. Offloaded work that the pool
    /// has accepted is done when this returns, unless the grace was too short for it; the log
    /// says so.
    ///
    /// Not to be called by a handler: its own shard cannot go on meanwhile, so the others wait for
    /// the whole grace and then drop their connections, and the report is wrong. A handler calls
    /// [`Hub::shutdown`].
    ///
    /// # Errors
    /// As of [`join`](Self::join).
    pub fn shutdown(mut self, plan: impl Into<ShutdownPlan>) -> Result<ShutdownReport, Error> {
        self.stop(plan.into())
    }

    /// Blocks until the server has been shut down, by [`Hub::shutdown`], or until a thread of it
    /// has failed.
    ///
    /// # Errors
    /// [`Error::Io`] if the operating system refused to wait for events; [`Error::ShardThread`] if
    /// a closure given to [`on_shard_thread`](crate::ServerBuilder::on_shard_thread) panicked;
    /// [`Error::ShardPanicked`].
    pub fn join(mut self) -> Result<ShutdownReport, Error> {
        self.join_threads()
    }

    fn stop(&mut self, plan: ShutdownPlan) -> Result<ShutdownReport, Error> {
        self.hub.shutdown(plan);
        self.join_threads()
    }

    fn join_threads(&mut self) -> Result<ShutdownReport, Error> {
        let mut outcome = Ok(());
        let mut is_own_thread = false;
        for thread in self.threads.drain(..) {
            if thread.thread().id() == std::thread::current().id() {
                // A handler stops its own server: its thread ends when the handler has returned.
                is_own_thread = true;
                continue;
            }
            let ended = thread.join().unwrap_or(Err(Error::ShardPanicked));
            outcome = outcome.and(ended);
        }
        if !is_own_thread {
            self.join_pool();
        }
        let report = ShutdownReport::of(&self.hub.shared().shutdown);
        let (address, ShutdownReport { open_count, aborted_count }) = (self.local_addr, report);
        match &outcome {
            Ok(()) => log::info!(
                "stopped serving at {address}; connections open at the shutdown: {open_count}; \
                 dropped at its end: {aborted_count}"
            ),
            Err(error) => log::error!("stopped serving at {address}: {error}"),
        }
        outcome.map(|()| report)
    }
}

impl RunningServer {
    /// Waits for offloaded work whose connections did not wait for it any more, within the grace:
    /// when this returns, the process may end.
    fn join_pool(&self) {
        let now = clock::now();
        let schedule = self.hub.shared().shutdown.schedule(now);
        let left = schedule.map(|schedule| schedule.ends_at.saturating_duration_since(now));
        if !self.pool_end.wait(left.unwrap_or_default()) {
            log::warn!(
                "the grace of the shutdown is over and offloaded work is not done; it goes on as \
                 long as the process lives"
            );
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            // An error is in the log.
            let _ = self.stop(Duration::ZERO.into());
        }
    }
}
