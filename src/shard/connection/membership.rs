//! [`Membership`]: where an open connection stands among the members of its endpoint and of topics,
//! and how far in the log of publications it is.
//!
//! Knows indexes, places and positions. Must not know audiences: the shard changes them, too.

use crate::shard::fanout::audience::{AudienceIndex, Place, Position};

/// What only an open connection has. When its end is decided, this goes to the shard, which ends
/// the memberships.
#[derive(Debug)]
pub(in crate::shard) struct Membership {
    /// Among all connections of its endpoint on this shard.
    place: Place,
    /// How far in the log of publications it is.
    position: Position,
    /// `None` while it has not subscribed to anything.
    topics: Option<Box<Topics>>,
}

/// The topics that a connection subscribes to, and its place among their members; in the order of
/// the topics.
#[derive(Debug, Default)]
struct Topics(Vec<(AudienceIndex, Place)>);

impl Membership {
    /// The membership of the endpoint's audience; it has got the log up to `position`.
    pub(in crate::shard) fn new(place: Place, position: Position) -> Self {
        Self { place, position, topics: None }
    }

    /// Its place among the members of its endpoint.
    pub(in crate::shard) fn place(&self) -> Place {
        self.place
    }

    /// How far in the log of publications it is.
    #[inline]
    pub(in crate::shard) fn position(&self) -> Position {
        self.position
    }

    /// The topics that it subscribes to, in order, and its place among their members.
    #[inline]
    pub(in crate::shard) fn subscriptions(&self) -> &[(AudienceIndex, Place)] {
        self.topics.as_ref().map_or(&[], |topics| &topics.0)
    }

    /// It gets the log up to `end`. Returns how far it was.
    #[inline]
    pub(in crate::shard) fn catch_up(&mut self, end: Position) -> Position {
        std::mem::replace(&mut self.position, end)
    }

    /// It subscribes to a topic, which it did not, and stands there among the members.
    pub(in crate::shard) fn subscribe(&mut self, topic: AudienceIndex, place: Place) {
        let Topics(topics) = &mut **self.topics.get_or_insert_default();
        let at = topics.partition_point(|&(other, _)| other < topic);
        topics.insert(at, (topic, place));
    }

    /// It subscribes to a topic no longer. Returns the place it had there, if it did subscribe.
    pub(in crate::shard) fn unsubscribe(&mut self, topic: AudienceIndex) -> Option<Place> {
        let Topics(topics) = &mut **self.topics.as_mut()?;
        let at = topics.binary_search_by_key(&topic, |&(other, _)| other).ok()?;
        Some(topics.remove(at).1)
    }
}
