//! What the test kit does with a shard instead of running it on a thread: it gives it turns one by
//! one, tells it the time, hands it connections in memory and tells what happened to them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::pipe::{ClientEnd, ServerEnd};
use super::transport::Transport;
use super::{EventLoop, clock};
use crate::hub::{Address, ConnectionId};

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
        self.shard.now = now;
        self.inbox.mailbox().add_connection();
        let address = self.adopt(Transport::new(end), peer)?;
        Some(ConnectionId::new(self.shard.hub.shared().node, self.shard.index, address))
    }

    /// Tells the shard what the client of a connection did; `false` if that was nothing.
    pub(crate) fn tell(&mut self, address: Address, client: &ClientEnd, now: Instant) -> bool {
        let Some(news) = client.take_news() else { return false };
        self.shard.now = now;
        self.shard.notice(address, news);
        true
    }

    /// Gives the shard a turn at this time, if it has anything to do.
    pub(crate) fn take_turn(&mut self, now: Instant) -> bool {
        let has_work = self.has_leftovers()
            || self.waits_for_shards()
            || self.inbox.is_armed()
            || self.next_due().is_some_and(|due| due <= now);
        if has_work {
            self.shard.now = now;
            self.shard.watch = clock::coarse();
            self.turn();
        }
        has_work
    }

    /// Whether work of a handler is with the pool.
    pub(crate) fn has_offloaded(&self) -> bool {
        self.application.tasks.has_offloaded()
    }

    /// Sleeps until another thread wakes the shard, in real time and not for long.
    pub(crate) fn await_others(&mut self) -> io::Result<()> {
        self.wait(Some(MOMENT))
    }
}
