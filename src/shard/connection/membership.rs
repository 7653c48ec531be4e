//! What a connection is a member of, and how far in the log of publications it is.
//!
//! Knows indexes, places and positions. Must not know audiences: the shard changes them, too.

use super::Connection;
use crate::hub::EndpointIndex;
use crate::shard::fanout::audience::{AudienceIndex, Place, Position};

impl Connection {
    /// The endpoint that serves it; until the upgrade is granted, the one that stands for none.
    #[inline]
    pub(in crate::shard) fn endpoint(&self) -> EndpointIndex {
        self.endpoint
    }

    /// Its place among the members of its endpoint.
    pub(in crate::shard) fn place(&self) -> Place {
        self.place
    }

    /// The topics that it subscribes to, in order, and its place among their members.
    #[inline]
    pub(in crate::shard) fn subscriptions(&self) -> &[(AudienceIndex, Place)] {
        self.details.as_ref().map_or(&[], |details| &details.subscriptions)
    }

    /// How far in the log of publications it is.
    #[inline]
    pub(in crate::shard) fn position(&self) -> Position {
        self.position
    }

    /// It is a member of this endpoint, and has got the log up to `position`.
    pub(in crate::shard) fn join(
        &mut self,
        endpoint: EndpointIndex,
        place: Place,
        position: Position,
    ) {
        (self.endpoint, self.place, self.position) = (endpoint, place, position);
    }

    /// It subscribes to a topic, which it did not, and stands there among the members.
    pub(in crate::shard) fn subscribe(&mut self, topic: AudienceIndex, place: Place) {
        let subscriptions = &mut self.details().subscriptions;
        let at = subscriptions.partition_point(|&(other, _)| other < topic);
        subscriptions.insert(at, (topic, place));
    }

    /// It subscribes to a topic no longer. Returns the place it had there, if it did subscribe.
    pub(in crate::shard) fn unsubscribe(&mut self, topic: AudienceIndex) -> Option<Place> {
        let subscriptions = &mut self.details.as_mut()?.subscriptions;
        let at = subscriptions.binary_search_by_key(&topic, |&(other, _)| other).ok()?;
        Some(subscriptions.remove(at).1)
    }

    /// Ends all subscriptions. Returns them.
    pub(in crate::shard) fn take_subscriptions(&mut self) -> Vec<(AudienceIndex, Place)> {
        let details = self.details.as_mut();
        details.map(|details| std::mem::take(&mut details.subscriptions)).unwrap_or_default()
    }

    /// It gets the log up to `end`. Returns how far it was.
    #[inline]
    pub(in crate::shard) fn catch_up(&mut self, end: Position) -> Position {
        std::mem::replace(&mut self.position, end)
    }
}
