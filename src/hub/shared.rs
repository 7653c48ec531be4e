//! [`Shared`]: what all threads of a server share.
//!
//! Knows the mailboxes of all shards and what each shard publishes of itself. Must not know
//! messages before they are encoded, nor what a connection is.

use std::collections::HashMap;
use std::sync::Arc;

use super::envelope::{EndpointIndex, Envelope, Publication};
use super::id::Node;
use super::mailbox::Mailbox;
use super::shutdown::{Progress, Shutdown};
use super::topics::SubscriberCounts;
use crate::error::SendError;

/// What all threads of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) mailboxes: Box<[Arc<Mailbox<Envelope>>]>,
    pub(crate) endpoints: HashMap<String, EndpointIndex>,
    /// By shard.
    pub(crate) subscribers: Box<[SubscriberCounts]>,
    pub(crate) shutdown: Progress,
}

impl Shared {
    /// Begins the shutdown, or makes it faster.
    pub(crate) fn begin_shutdown(&self, plan: Shutdown) {
        self.shutdown.begin(plan);
        self.wake_all();
    }

    pub(crate) fn wake_all(&self) {
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    /// Sends a publication to every shard but one, or to none.
    pub(crate) fn publish(
        &self,
        publication: &Arc<Publication>,
        but: Option<usize>,
    ) -> Result<(), SendError> {
        let bytes = publication.parcel.plain().len();
        let mut rooms = Vec::with_capacity(self.mailboxes.len());
        for (shard, mailbox) in self.mailboxes.iter().enumerate() {
            if Some(shard) != but {
                rooms.push((mailbox, mailbox.reserve(bytes)?));
            }
        }
        for (mailbox, room) in rooms {
            if room.send(Envelope::Publish(Arc::clone(publication))).is_err() {
                // It has ended just now. The others get it, so it was accepted.
                mailbox.count_dropped(1);
            }
        }
        Ok(())
    }

    pub(crate) fn subscriber_count(&self, topic: &str) -> usize {
        self.subscribers.iter().map(|counts| counts.of(topic)).sum()
    }

    /// Those on their way from the shard that accepted them included.
    pub(crate) fn connection_count(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.connection_count()).sum()
    }
}
