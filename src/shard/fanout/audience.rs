//! The audiences of a shard: for each endpoint the topic of everybody, and the topics that its
//! connections subscribe to. Names are interned: a topic's name is kept once while anybody
//! subscribes to it.
//!
//! Knows who is a member of what, in which encodings the members of an audience take messages, and
//! which publications each audience has not got yet; must not know what is published, nor how it
//! reaches anybody.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::hub::{EndpointIndex, Slot};
use crate::protocol::parcel::Encoding;

/// How far in the log a connection is.
pub(in crate::shard) type Position = u64;

/// The index of an audience. An endpoint's own are the endpoints'.
pub(in crate::shard) type AudienceIndex = usize;

/// For how many members an audience keeps room when all have left.
const KEPT_COUNT: usize = 16;

/// Where a member stands in its audience. It keeps its place until it leaves.
pub(in crate::shard) type Place = usize;

#[derive(Debug)]
pub(in crate::shard) struct Audiences {
    audiences: Slab<Audience>,
    names: HashMap<Arc<str>, AudienceIndex>,
}

#[derive(Debug, Default)]
struct Audience {
    /// `None`: everybody of an endpoint.
    name: Option<Arc<str>>,
    members: Slab<Slot>,
    /// How many members do not take the plain form.
    encoded_count: usize,
    /// The encoding of those.
    encoding: Encoding,
    /// The publications that some member may not have got yet.
    pending: VecDeque<Position>,
}

impl Audiences {
    pub(in crate::shard) fn new(endpoint_count: usize) -> Self {
        let mut audiences = Slab::with_capacity(endpoint_count);
        for _ in 0..endpoint_count {
            audiences.insert(Audience::default());
        }
        Self { audiences, names: HashMap::new() }
    }

    /// The audience of all connections of an endpoint.
    pub(in crate::shard) fn everyone(endpoint: EndpointIndex) -> AudienceIndex {
        usize::from(endpoint)
    }

    /// The topic of that name, if anybody subscribes to it here.
    pub(in crate::shard) fn find(&self, topic: &str) -> Option<AudienceIndex> {
        self.names.get(topic).copied()
    }

    /// The topic of that name, which the caller is about to join.
    pub(in crate::shard) fn find_or_add(&mut self, topic: &str) -> AudienceIndex {
        if let Some(index) = self.find(topic) {
            return index;
        }
        let name: Arc<str> = topic.into();
        let audience = Audience { name: Some(Arc::clone(&name)), ..Audience::default() };
        let index = self.audiences.insert(audience);
        self.names.insert(name, index);
        index
    }

    /// The topic's name; `None` for everybody of an endpoint.
    pub(in crate::shard) fn name(&self, index: AudienceIndex) -> Option<&Arc<str>> {
        self.audiences[index].name.as_ref()
    }

    pub(in crate::shard) fn member_count(&self, index: AudienceIndex) -> usize {
        self.audiences[index].members.len()
    }

    /// The member at a place, or that nobody stands there; `Err` behind the last place.
    pub(in crate::shard) fn member(
        &self,
        index: AudienceIndex,
        place: Place,
    ) -> Result<Option<Slot>, ()> {
        let members = &self.audiences[index].members;
        if place < members.capacity() { Ok(members.get(place).copied()) } else { Err(()) }
    }

    /// All members of all endpoints.
    pub(in crate::shard) fn everybody(&self) -> impl Iterator<Item = Slot> {
        let everyone = self.audiences.iter().filter(|(_, audience)| audience.name.is_none());
        everyone.flat_map(|(_, audience)| audience.members.iter().map(|(_, &slot)| slot))
    }

    /// The encoding that some members take beside the plain form, and how many do.
    #[inline]
    pub(in crate::shard) fn encoding(&self, index: AudienceIndex) -> (Encoding, usize) {
        let Audience { encoding, encoded_count, .. } = self.audiences[index];
        (if encoded_count > 0 { encoding } else { Encoding::Plain }, encoded_count)
    }

    /// Begins a membership of a connection, which takes messages in this encoding until it leaves.
    pub(in crate::shard) fn join(
        &mut self,
        index: AudienceIndex,
        slot: Slot,
        encoding: Encoding,
    ) -> Place {
        let audience = &mut self.audiences[index];
        if !encoding.is_plain() {
            debug_assert!(
                audience.encoded_count == 0 || audience.encoding == encoding,
                "there is one second form"
            );
            audience.encoding = encoding;
            audience.encoded_count += 1;
        }
        audience.members.insert(slot)
    }

    /// Ends a membership; a topic that is of no use any more is forgotten.
    pub(in crate::shard) fn leave(
        &mut self,
        index: AudienceIndex,
        place: Place,
        slot: Slot,
        encoding: Encoding,
    ) {
        let Audience { members, encoded_count, .. } = &mut self.audiences[index];
        *encoded_count -= usize::from(!encoding.is_plain());
        let left = members.remove(place);
        debug_assert_eq!(left, slot, "a member stands where it says");
        if members.is_empty() && members.capacity() > KEPT_COUNT {
            // What many left holds memory no longer.
            *members = Slab::new();
        }
        self.tidy(index);
    }

    /// Notes that there is something for the audience.
    pub(in crate::shard) fn note(&mut self, index: AudienceIndex, position: Position) {
        self.audiences[index].pending.push_back(position);
    }

    /// All members have got the oldest publication.
    pub(in crate::shard) fn forget_oldest(&mut self, index: AudienceIndex) {
        self.audiences[index].pending.pop_front();
        self.tidy(index);
    }

    /// What has been published to the audience, if that is one thing only.
    #[inline]
    pub(in crate::shard) fn only_pending(&self, index: AudienceIndex) -> Option<Position> {
        let pending = &self.audiences[index].pending;
        if pending.len() == 1 { pending.front().copied() } else { None }
    }

    /// Appends what has been published to the audience from `start` on.
    #[inline]
    pub(in crate::shard) fn due(
        &self,
        index: AudienceIndex,
        start: Position,
        due: &mut Vec<Position>,
    ) {
        let pending = &self.audiences[index].pending;
        if pending.is_empty() {
            return;
        }
        let seen = pending.partition_point(|&position| position < start);
        due.extend(pending.range(seen..));
    }

    #[inline]
    fn tidy(&mut self, index: AudienceIndex) {
        let Audience { name, members, pending, .. } = &self.audiences[index];
        if let Some(name) = name
            && members.is_empty()
            && pending.is_empty()
        {
            self.names.remove(name);
            self.audiences.remove(index);
        }
    }

    /// Asserts that names and topics are each other's, that no topic outlives its use, and that
    /// what each has pending is in the order of the log.
    #[cfg(feature = "testing")]
    pub(in crate::shard) fn check_invariants(&self) {
        let named = self.audiences.iter().filter(|(_, audience)| audience.name.is_some()).count();
        assert_eq!(self.names.len(), named, "each topic has one name");
        for (name, &index) in &self.names {
            let audience = &self.audiences[index];
            assert_eq!(audience.name.as_ref(), Some(name));
            let is_used = !audience.members.is_empty() || !audience.pending.is_empty();
            assert!(is_used, "the topic {name:?} is of no use");
        }
        for (_, audience) in &self.audiences {
            assert!(audience.pending.iter().is_sorted_by(|a, b| a < b), "{audience:?}");
        }
    }

    /// Asserts that a member stands at a place.
    #[cfg(all(test, feature = "testing"))]
    pub(in crate::shard) fn check_member(&self, index: AudienceIndex, place: Place, slot: Slot) {
        assert_eq!(self.audiences[index].members.get(place), Some(&slot), "member of {index}");
    }

    /// How much all audiences have pending, together.
    #[cfg(feature = "testing")]
    pub(in crate::shard) fn pending_count(&self) -> usize {
        self.audiences.iter().map(|(_, audience)| audience.pending.len()).sum()
    }
}

#[cfg(feature = "testing")]
impl Audiences {
    /// All members, with their audience and their place in it.
    pub(in crate::shard) fn members(&self) -> impl Iterator<Item = (AudienceIndex, Place, Slot)> {
        self.audiences.iter().flat_map(|(index, audience)| {
            audience.members.iter().map(move |(place, &slot)| (index, place, slot))
        })
    }

    /// All topics, and how many subscribe to them.
    pub(in crate::shard) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let count = |index: &AudienceIndex| self.audiences[*index].members.len();
        self.names.iter().map(move |(name, index)| (name, count(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_lives_while_it_has_members_or_something_for_them() {
        let mut audiences = Audiences::new(2);
        let topic = audiences.find_or_add("news");
        let place = audiences.join(topic, 7, Encoding::Plain);
        audiences.note(topic, 3);
        audiences.leave(topic, place, 7, Encoding::Plain);
        assert_eq!(audiences.find("news"), Some(topic), "a pass may still be visiting it");
        audiences.forget_oldest(topic);
        assert_eq!(audiences.find("news"), None);
        assert_eq!(audiences.find_or_add("other"), topic, "its index is used again");
    }

    #[test]
    fn everybody_of_an_endpoint_is_always_there() {
        let mut audiences = Audiences::new(1);
        let everyone = Audiences::everyone(0);
        let place = audiences.join(everyone, 4, Encoding::Plain);
        assert_eq!(audiences.everybody().collect::<Vec<_>>(), [4]);
        audiences.leave(everyone, place, 4, Encoding::Plain);
        assert_eq!(audiences.member_count(everyone), 0);
    }

    #[test]
    fn an_audience_is_encoded_for_while_a_member_takes_that() {
        let mut audiences = Audiences::new(1);
        let everyone = Audiences::everyone(0);
        let mut places = Vec::new();
        for (slot, encoding, count) in
            [(0, Encoding::Plain, 0), (1, Encoding::Shortened, 1), (2, Encoding::Shortened, 2)]
        {
            places.push((audiences.join(everyone, slot, encoding), slot, encoding));
            assert_eq!(audiences.encoding(everyone).1, count);
        }
        assert_eq!(audiences.encoding(everyone).0, Encoding::Shortened);
        for (place, slot, encoding) in places {
            audiences.leave(everyone, place, slot, encoding);
        }
        assert_eq!(audiences.encoding(everyone), (Encoding::Plain, 0));
    }

    #[test]
    fn what_many_have_left_holds_no_memory() {
        let mut audiences = Audiences::new(1);
        let everyone = Audiences::everyone(0);
        let places: Vec<Place> =
            (0..1000).map(|slot| audiences.join(everyone, slot, Encoding::Plain)).collect();
        for (slot, place) in places.into_iter().enumerate() {
            assert!(audiences.member(everyone, place).is_ok());
            audiences.leave(everyone, place, slot, Encoding::Plain);
        }
        assert_eq!(audiences.member(everyone, 0), Err(()));
    }

    #[test]
    fn what_is_due_is_what_came_since() {
        let mut audiences = Audiences::new(1);
        for position in [2, 5, 9] {
            audiences.note(0, position);
        }
        let due = |start| {
            let mut due = Vec::new();
            audiences.due(0, start, &mut due);
            due
        };
        assert_eq!((due(0), due(5), due(6), due(10)), (vec![2, 5, 9], vec![5, 9], vec![9], vec![]));
    }
}
