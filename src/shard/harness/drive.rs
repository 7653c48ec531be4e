//! The test kit's driver of a shard without a thread: it gives the shard turns one by one, tells it
//! the time, hands it connections in memory and reports what happened to them.
//!
//! Knows the event loop and transports in memory. Must not know handlers, nor what the bytes mean.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::Events;

use crate::hub::ConnectionId;
use crate::shard::{Budgets, EventLoop};
use crate::transport::listener::Listener;
use crate::transport::test::arrivals::Arrivals;
use crate::transport::test::memory::{ClientEnd, ServerEnd};

/// How long a shard waits for other threads before the next one does.
const MOMENT: Duration = Duration::from_millis(1);

impl EventLoop {
    /// Takes over a connection; `None` if the shard refuses it outright.
    pub(crate) fn adopt_pipe(
        &mut self,
        end: ServerEnd,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<ConnectionId> {
        self.shard.set_now(now);
        self.shard.count_connection();
        let address = self.adopt(end.into(), peer)?;
        Some(ConnectionId::new(self.shard.shared().node, self.shard.index(), address))
    }

    pub(crate) fn set_budgets(&mut self, budgets: Budgets) {
        self.budgets = budgets;
    }

    /// Listens in memory.
    pub(crate) fn listen(&mut self, arrivals: Arrivals) {
        self.listener = Some(Listener::in_memory(arrivals));
    }

    pub(crate) fn is_listening(&self) -> bool {
        self.listener.is_some()
    }

    /// Tells the shard what the client of one of its connections did; `false` if that was nothing.
    pub(crate) fn tell(&mut self, client: &ClientEnd, now: Instant) -> bool {
        let Some((token, news)) = client.take_readiness(self.poll.as_raw_fd()) else {
            return false;
        };
        self.shard.set_now(now);
        self.told.push((token, news));
        true
    }

    /// Tells the shard that somebody has come; `false` if nobody has.
    pub(crate) fn announce(&mut self, arrivals: &Arrivals) -> bool {
        let Some(listener) = self.listener.as_mut().filter(|_| arrivals.take_readiness()) else {
            return false;
        };
        listener.is_ready = true;
        true
    }

    /// Whether the loop would not sleep now.
    pub(crate) fn has_work(&self, now: Instant) -> bool {
        !self.told.is_empty()
            || self.has_leftovers()
            // A connection that was adopted between two turns has taken the place of another one.
            || self.shard.has_dead()
            || self.waits_for_shards()
            || self.shard.is_woken()
            || self.listener.as_ref().is_some_and(|listener| listener.is_awake(now))
            || self.next_due().is_some_and(|due| due <= now)
    }

    /// Gives the shard a turn at this time, if it has anything to do.
    pub(crate) fn take_turn(&mut self, now: Instant) -> bool {
        let has_work = self.has_work(now);
        if has_work {
            self.shard.begin_turn(now);
            // What happened was told.
            self.turn(&mut Events::with_capacity(1));
        }
        has_work
    }

    /// Whether work of a handler is with the pool.
    pub(crate) fn has_offloaded(&self) -> bool {
        self.application.tasks.has_offloaded()
    }

    /// Sleeps until another thread wakes the shard, in real time and not for long.
    pub(crate) fn await_others(&mut self) -> io::Result<()> {
        // Nothing that it brings is news: turns find out for themselves.
        self.wait(&mut Events::with_capacity(1), Some(MOMENT))
    }
}
