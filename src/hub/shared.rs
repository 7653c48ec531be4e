//! [`Shared`]: what all threads of a server share.
//!
//! Knows how each shard is reached and what it publishes of itself, and where publications go. Must
//! not know messages before they are encoded, what a connection is, nor what is behind an outlet.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use super::counters::Counters;
use super::envelope::{EndpointIndex, Envelope, Publication};
use super::excess::Excess;
use super::id::Node;
use super::mailbox::{Mailbox, Permit};
use super::outlet::{Outlet, OutletPermit};
use super::shutdown::{Progress, ShutdownPlan};
use super::topics::SubscriberCounts;
use crate::error::SendError;

/// What all threads of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) shards: Box<[ShardLink]>,
    /// The destinations of publications beside the shards. Without any they cost nothing.
    pub(super) outlets: Box<[Arc<dyn Outlet>]>,
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

    /// # Errors
    /// `ShuttingDown` if the shard takes nothing new.
    #[inline]
    fn check_open(&self) -> Result<(), SendError> {
        if self.mailbox.is_closed() { Err(SendError::ShuttingDown) } else { Ok(()) }
    }

    /// Sends an envelope that carries a connection, which counts from here on; `room` is that of
    /// this shard's mailbox.
    ///
    /// # Errors
    /// As of [`Permit::send`]; then it does not count.
    pub(crate) fn send_connection(
        &self,
        room: Permit<'_, Envelope>,
        envelope: Envelope,
    ) -> Result<(), SendError> {
        // First: it may end before this thread goes on.
        self.counters.add_connection();
        room.send(envelope).inspect_err(|_| self.counters.remove_connection())
    }
}

/// Where a publication comes from. It goes everywhere else.
#[derive(Debug)]
pub(crate) enum Origin<'o> {
    /// Any thread, by the hub.
    Hub,
    /// A handler on this shard, which gives it to its own connections itself.
    Handler {
        shard: usize,
        /// With it, the shard sends beyond the room of mailboxes, within its bounds.
        excess: Option<&'o mut Excess>,
    },
    /// An outlet.
    Outlet(usize),
}

impl Origin<'_> {
    fn outlet(&self) -> Option<usize> {
        match self {
            Self::Outlet(outlet) => Some(*outlet),
            Self::Hub | Self::Handler { .. } => None,
        }
    }
}

/// A publication that all destinations but its origin have.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// The origin is the only destination.
    Alone(Publication),
    Shared(Arc<Publication>),
}

impl Deref for Accepted {
    type Target = Publication;

    #[inline]
    fn deref(&self) -> &Publication {
        match self {
            Self::Alone(publication) => publication,
            Self::Shared(publication) => publication,
        }
    }
}

/// The right to send one publication to all shards but its origin.
enum ShardPermits<'s> {
    Rooms(Vec<(&'s ShardLink, Permit<'s, Envelope>)>),
    /// The shard's own bounds allow it, whatever room the mailboxes have.
    Beyond {
        shared: &'s Shared,
        own: usize,
        excess: &'s mut Excess,
    },
}

impl ShardPermits<'_> {
    /// A shard that has ended just now does not get it; the others do, so it was accepted.
    fn send(self, publication: &Arc<Publication>) {
        let envelope = || Envelope::Publish(Arc::clone(publication));
        match self {
            Self::Rooms(rooms) => {
                for (shard, room) in rooms {
                    if room.send(envelope()).is_err() {
                        shard.counters.count_dropped(1);
                    }
                }
            }
            Self::Beyond { shared, own, excess } => {
                for (index, shard) in shared.shards.iter().enumerate() {
                    if index != own && shared.send_anyway(index, envelope(), excess).is_err() {
                        shard.counters.count_dropped(1);
                    }
                }
            }
        }
    }
}

impl Shared {
    /// Begins the shutdown, or makes it faster.
    pub(crate) fn begin_shutdown(&self, plan: ShutdownPlan) {
        self.shutdown.begin(plan);
        self.wake_all();
    }

    pub(crate) fn wake_all(&self) {
        for shard in &self.shards {
            shard.mailbox.wake();
        }
    }

    /// Sends a publication to all destinations but its origin, or to none. This is the only way in
    /// which a publication leaves its origin. Returns it for the origin's own connections.
    ///
    /// # Errors
    /// `Overloaded` if a destination has no room, `ShuttingDown` if a shard takes nothing new.
    #[inline]
    pub(crate) fn accept_publication(
        &self,
        publication: Publication,
        origin: Origin<'_>,
    ) -> Result<Accepted, SendError> {
        match (&origin, &*self.shards) {
            (Origin::Handler { .. }, [only]) if self.outlets.is_empty() => {
                only.check_open().map(|()| Accepted::Alone(publication))
            }
            _ => self.send_everywhere(publication, origin).map(Accepted::Shared),
        }
    }

    /// Apart, so that a handler on the only shard does not pay for it.
    #[inline(never)]
    fn send_everywhere(
        &self,
        publication: Publication,
        origin: Origin<'_>,
    ) -> Result<Arc<Publication>, SendError> {
        let bytes = publication.parcel.plain().len();
        let but = origin.outlet();
        let to_shards = self.reserve_in_shards(bytes, origin)?;
        let to_outlets = self.reserve_in_outlets(bytes, but)?;
        // All hold the same one, so that its second form is made once.
        let publication = Arc::new(publication);
        // The outlets first: what a client publishes in answer to it then follows it there, too.
        for permit in to_outlets {
            permit.send(Arc::clone(&publication));
        }
        to_shards.send(&publication);
        Ok(publication)
    }

    fn reserve_in_outlets(
        &self,
        bytes: usize,
        but: Option<usize>,
    ) -> Result<Vec<OutletPermit<'_>>, SendError> {
        let mut permits = Vec::with_capacity(self.outlets.len());
        for (index, outlet) in self.outlets.iter().enumerate() {
            if Some(index) != but {
                permits.push(OutletPermit::reserve(outlet.as_ref(), bytes)?);
            }
        }
        Ok(permits)
    }

    #[inline]
    fn reserve_in_shards<'s>(
        &'s self,
        bytes: usize,
        origin: Origin<'s>,
    ) -> Result<ShardPermits<'s>, SendError> {
        let own = match origin {
            Origin::Hub | Origin::Outlet(_) => None,
            Origin::Handler { shard: own, excess } => {
                self.shards.iter().try_for_each(ShardLink::check_open)?;
                if let Some(excess) = excess {
                    let others = self.shards.len() - 1;
                    excess.check(others, bytes * others)?;
                    return Ok(ShardPermits::Beyond { shared: self, own, excess });
                }
                Some(own)
            }
        };
        let mut rooms = Vec::with_capacity(self.shards.len());
        for (index, shard) in self.shards.iter().enumerate() {
            if Some(index) != own {
                rooms.push((shard, shard.mailbox.reserve(bytes)?));
            }
        }
        Ok(ShardPermits::Rooms(rooms))
    }

    /// Sends an envelope of one shard to another one, with room or beyond it; the excess allows it.
    pub(crate) fn send_anyway(
        &self,
        shard: usize,
        envelope: Envelope,
        excess: &mut Excess,
    ) -> Result<(), SendError> {
        let bytes = envelope.size();
        let mailbox = &self.shards[shard].mailbox;
        match mailbox.reserve(bytes) {
            Ok(room) => room.send(envelope),
            Err(SendError::Overloaded) => {
                mailbox.send_beyond(envelope)?;
                excess.add(shard, bytes);
                Ok(())
            }
            Err(error) => Err(error),
        }
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
