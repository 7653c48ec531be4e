//! [`Server`]: what is served where is gathered ([`Builder`], [`Router`], [`Endpoint`]), the
//! address is bound, one thread a shard is started, and all of it is shut down.
//!
//! Knows threads, processors and the operating system's limits. Must not know frames.

mod builder;
mod endpoint;
mod gather;
mod router;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub use self::builder::Builder;
pub(crate) use self::builder::Parts;
#[cfg(feature = "testing")]
pub(crate) use self::builder::Shards;
pub use self::endpoint::Endpoint;
pub use self::router::Router;
use crate::error::Error;
use crate::hub::{Hub, Shutdown, ShutdownReport};
use crate::shard::{EventLoop, clock};

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
    parts: Parts,
    local_addr: SocketAddr,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .field("shard_count", &self.parts.seats.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to gather what is served.
    pub fn builder() -> Builder {
        Builder::default()
    }

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
    /// report, [`start`](Self::start) it and [`join`](Running::join).
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started; [`Error::ShardPanicked`].
    pub fn run(self) -> Result<(), Error> {
        self.start()?.join().map(drop)
    }

    /// Serves on threads of its own, and returns at once.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started.
    pub fn start(self) -> Result<Running, Error> {
        let Parts { seats, service, limits, hub } = self.parts;
        let mut running =
            Running { threads: Vec::new(), hub: hub.clone(), local_addr: self.local_addr };
        let processors = processors_to_pin(seats.len());
        for seat in seats {
            let (service, limits, hub) = (Arc::clone(&service), limits.clone(), hub.clone());
            let processor = processors.get(seat.index).copied();
            let thread = thread::Builder::new().name(format!("peregrine-{}", seat.index)).spawn(
                move || {
                    pin(processor);
                    let mut guard = Guard { hub: hub.clone(), shard: seat.index, is_over: false };
                    let now = clock::now();
                    EventLoop::new(seat, service, limits, hub, now)?.run()?;
                    guard.is_over = true;
                    Ok(())
                },
            )?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

/// Ends the whole server when one of its shards ends: half a server would refuse or lose half of
/// what it is given, and say nothing.
struct Guard {
    hub: Hub,
    shard: usize,
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
        shared.mailboxes[self.shard].close();
        shared.begin_shutdown(Shutdown::within(LAST_GRACE));
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
pub struct Running {
    threads: Vec<JoinHandle<io::Result<()>>>,
    hub: Hub,
    local_addr: SocketAddr,
}

/// What is left to the other shards when one has ended before its time.
const LAST_GRACE: Duration = Duration::from_secs(1);

impl Running {
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
    /// a [`Shutdown`], which tells what happens in which order: nobody is accepted any more, every
    /// message that was accepted is delivered, every connection is closed, what is left at the end
    /// of the grace is dropped. `on_close` is called for all.
    ///
    /// Not to be called by a handler: its own shard cannot go on meanwhile, so the others wait for
    /// the whole grace and then drop their connections, and the report is wrong. A handler calls
    /// [`Hub::shutdown`].
    ///
    /// # Errors
    /// As of [`join`](Self::join).
    pub fn shutdown(mut self, plan: impl Into<Shutdown>) -> Result<ShutdownReport, Error> {
        self.stop(plan.into())
    }

    /// Blocks until the server has been shut down, by [`Hub::shutdown`], or until a thread of it
    /// has failed.
    ///
    /// # Errors
    /// [`Error::Io`] if the operating system refused to wait for events;
    /// [`Error::ShardPanicked`].
    pub fn join(mut self) -> Result<ShutdownReport, Error> {
        self.join_threads()
    }

    fn stop(&mut self, plan: Shutdown) -> Result<ShutdownReport, Error> {
        self.hub.shutdown(plan);
        self.join_threads()
    }

    fn join_threads(&mut self) -> Result<ShutdownReport, Error> {
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            if thread.thread().id() == thread::current().id() {
                // A handler stops its own server: its thread ends when the handler has returned.
                continue;
            }
            let ended = thread.join().map_err(|_| Error::ShardPanicked);
            let ended = ended.and_then(|result| result.map_err(Error::Io));
            outcome = outcome.and(ended);
        }
        outcome.map(|()| ShutdownReport::of(&self.hub.shared().shutdown))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty()
            && let Err(error) = self.stop(Duration::ZERO.into())
        {
            log::error!("the server did not stop cleanly: {error}");
        }
    }
}
