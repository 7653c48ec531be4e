//! [`Shared`]: what all threads of a server share.
//!
//! Knows how each shard is reached and what it publishes of itself. Must not know messages before
//! they are encoded, nor what a connection is.

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::Counters;
use super::envelope::{EndpointIndex, Envelope, Publication};
use super::id::Node;
use super::mailbox::{Mailbox, Room};
use super::shutdown::{Progress, Shutdown};
use super::topics::SubscriberCounts;
use crate::error::SendError;

/// What all threads of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) shards: Box<[ShardLink]>,
    pub(crate) endpoints: HashMap<String, EndpointIndex>,
    pub(crate) shutdown: Progress,
}

/// What all threads know of one shard: how it is reached, and what it publishes of itself.
#[derive(Debug)]
pub(crate) struct ShardLink {
    pub(crate) mailbox: Arc<Mailbox<Envelope>>,
    pub(crate) counters: Counters,
    pub(crate) subscribers: SubscriberCounts,
}

impl ShardLink {
    pub(super) fn new(mailbox: Arc<Mailbox<Envelope>>) -> Self {
        let (counters, subscribers) = Default::default();
        Self { mailbox, counters, subscribers }
    }

    /// Sends an envelope that carries a connection, which counts from here on; `room` is that of
    /// this shard's mailbox.
    ///
    /// # Errors
    /// As of [`Room::send`]; then it does not count.
    pub(crate) fn send_connection(
        &self,
        room: Room<'_, Envelope>,
        envelope: Envelope,
    ) -> Result<(), SendError> {
        // First: it may end before this thread goes on.
        self.counters.add_connection();
        room.send(envelope).inspect_err(|_| self.counters.remove_connection())
    }
}

impl Shared {
    /// Begins the shutdown, or makes it faster.
    pub(crate) fn begin_shutdown(&self, plan: Shutdown) {
        self.shutdown.begin(plan);
        self.wake_all();
    }

    pub(crate) fn wake_all(&self) {
        for shard in &self.shards {
            shard.mailbox.wake();
        }
    }

    /// Sends a publication to every shard but one, or to none.
    pub(crate) fn publish(
        &self,
        publication: &Arc<Publication>,
        but: Option<usize>,
    ) -> Result<(), SendError> {
        let bytes = publication.frame.len();
        let mut rooms = Vec::with_capacity(self.shards.len());
        for (index, shard) in self.shards.iter().enumerate() {
            if Some(index) != but {
                rooms.push((shard, shard.mailbox.reserve(bytes)?));
            }
        }
        for (shard, room) in rooms {
            if room.send(Envelope::Publish(Arc::clone(publication))).is_err() {
                // It has ended just now. The others get it, so it was accepted.
                shard.counters.count_dropped(1);
            }
        }
        Ok(())
    }

    pub(crate) fn subscriber_count(&self, topic: &str) -> usize {
        self.shards.iter().map(|shard| shard.subscribers.of(topic)).sum()
    }

    /// How many connections there are, including those on their way from the shard that accepted
    /// them.
    pub(crate) fn connection_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.counters.connection_count()).sum()
    }
}
