//! What is for many: who belongs to an audience, what is published to it, and how its members get
//! that.
//!
//! Knows audiences, the log, other shards' mailboxes, and outboxes. Must not know handlers
//! (`dispatch`) or the loop.

use std::sync::Arc;

use crate::error::SendError;
use crate::hub::ticket::{Tally, Ticket};
use crate::hub::{
    Audience, ConnectionId, EndpointIndex, Publication, Slot, TOPIC_BYTES_MAX, topic_name,
};
use crate::message::Message;
use crate::protocol::parcel::Encoding;
use crate::shard::connection::Membership;
use crate::shard::fanout::audience::Position;
use crate::shard::fanout::audience::{AudienceIndex, Audiences, Place};
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::state::Shard;
use crate::transport::Output;

/// How many runs queued for a member cost as much as the look at it.
const RUNS_PER_MEMBER: usize = 16;

impl Shard {
    // Membership.

    /// Makes a connection one of its endpoint's.
    pub(super) fn join(&mut self, slot: Slot, endpoint: EndpointIndex) -> Membership {
        let encoding = self.connections[slot].encoding();
        let place = self.fanout.audiences.join(Audiences::everyone(endpoint), slot, encoding);
        Membership::new(place, self.fanout.end())
    }

    /// Ends all of a connection's memberships.
    #[allow(clippy::needless_pass_by_value, reason = "it has ended")]
    pub(super) fn leave(&mut self, slot: Slot, membership: Membership) {
        let connection = &self.connections[slot];
        let (endpoint, encoding) = (connection.endpoint(), connection.encoding());
        let everyone = Audiences::everyone(endpoint);
        self.fanout.audiences.leave(everyone, membership.place(), slot, encoding);
        for &(topic, place) in membership.subscriptions() {
            self.leave_topic(topic, place, slot);
        }
    }

    /// Makes a connection a subscriber from this point in the order of things on; nothing happens
    /// if it is one.
    pub(in crate::shard) fn subscribe(&mut self, slot: Slot, topic: &str) -> Result<(), SendError> {
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(SendError::NameTooLong);
        }
        // What was published before is not for it; what is for it otherwise keeps its place.
        self.catch_up(slot);
        let connection = &mut self.connections[slot];
        let topic_limit = self.limits[connection.endpoint()].max_topics_per_connection;
        let encoding = connection.encoding();
        let Some(membership) = connection.membership_mut() else { return Err(SendError::Closed) };
        let subscriptions = membership.subscriptions();
        let known = self.fanout.audiences.find(topic);
        let found = known.map(|index| subscriptions.binary_search_by_key(&index, |&(at, _)| at));
        if matches!(found, Some(Ok(_))) {
            return Ok(());
        }
        if subscriptions.len() >= topic_limit {
            return Err(SendError::TooManyTopics);
        }
        let audiences = &mut self.fanout.audiences;
        let index = known.unwrap_or_else(|| audiences.find_or_add(topic));
        let place = audiences.join(index, slot, encoding);
        membership.subscribe(index, place);
        self.tell_count(index, self.fanout.audiences.member_count(index));
        Ok(())
    }

    /// Ends a subscription. What was published before still arrives.
    pub(in crate::shard) fn unsubscribe(&mut self, slot: Slot, topic: &str) {
        self.catch_up(slot);
        let Some(index) = self.fanout.audiences.find(topic) else { return };
        let Some(membership) = self.connections[slot].membership_mut() else { return };
        if let Some(place) = membership.unsubscribe(index) {
            self.leave_topic(index, place, slot);
        }
    }

    #[inline]
    fn leave_topic(&mut self, index: AudienceIndex, place: Place, slot: Slot) {
        // Before it may be forgotten, and its name with it.
        self.tell_count(index, self.fanout.audiences.member_count(index) - 1);
        let encoding = self.connections[slot].encoding();
        self.fanout.audiences.leave(index, place, slot, encoding);
    }

    /// Tells all threads how many subscribers a topic has here.
    fn tell_count(&self, index: AudienceIndex, count: usize) {
        if let Some(name) = self.fanout.audiences.name(index) {
            self.link().subscribers.set(name, count);
        }
    }

    // Publishing.

    /// The name of a topic as it travels: the interned one if anybody subscribes to it here.
    pub(in crate::shard) fn topic(&self, topic: &str) -> Result<Arc<str>, SendError> {
        let audiences = &self.fanout.audiences;
        match audiences.find(topic).and_then(|index| audiences.name(index)) {
            Some(name) => Ok(Arc::clone(name)),
            None => topic_name(topic),
        }
    }

    /// Publishes on all shards, for a handler.
    pub(in crate::shard) fn publish(
        &mut self,
        audience: Audience,
        except: Option<ConnectionId>,
        message: Message<'_>,
        tally: Option<Tally>,
    ) -> Result<(), SendError> {
        if !self.fanout.has_room() {
            return Err(SendError::Overloaded);
        }
        let parcel = self.encoder.encode(message).into();
        let publication = Publication { audience, except, parcel, tally };
        let publication = self.outbound.publish(publication)?;
        self.publish_here(&publication);
        Ok(())
    }

    /// Publishes on this shard.
    pub(in crate::shard) fn publish_here(&mut self, publication: &Publication) {
        let Publication { audience, except, parcel, tally } = publication;
        let audiences = &self.fanout.audiences;
        let index = match audience {
            Audience::Everyone(endpoint) => Some(Audiences::everyone(*endpoint)),
            Audience::Topic(topic) => audiences.find(topic),
        };
        let Some(index) = index.filter(|&index| audiences.member_count(index) > 0) else { return };
        // The excepted connection lives here, or does not matter here.
        let except = except.filter(|id| id.shard() == self.index);
        let twin = parcel.twin(self.encoding_for(index, except));
        self.fanout.append(index, except, parcel.plain().frame(), twin, tally.clone());
    }

    /// The encoding that some members of an audience but one take beside the plain form.
    #[inline]
    fn encoding_for(&self, index: AudienceIndex, except: Option<ConnectionId>) -> Encoding {
        match self.fanout.audiences.encoding(index) {
            (encoding, 1) if except.is_some_and(|id| self.is_encoded_member(id, index)) => {
                debug_assert!(!encoding.is_plain(), "it is this one's");
                Encoding::Plain
            }
            (encoding, _) => encoding,
        }
    }

    /// Whether a connection is a member of an audience and does not take the plain form.
    fn is_encoded_member(&self, id: ConnectionId, index: AudienceIndex) -> bool {
        let Some(slot) = self.find(id.address()) else { return false };
        let connection = &self.connections[slot];
        let Some(membership) = connection.membership() else { return false };
        let is_member = Audiences::everyone(connection.endpoint()) == index
            || membership.subscriptions().iter().any(|&(topic, _)| topic == index);
        is_member && !connection.encoding().is_plain()
    }

    // Delivery.

    /// Gives a connection what was published to it and it has not got yet.
    #[inline]
    pub(in crate::shard) fn catch_up(&mut self, slot: Slot) {
        if !self.fanout.is_empty() && self.connections[slot].is_open() {
            self.collect_due(slot);
            self.push_due(slot);
        }
    }

    /// Visits members who have publications to catch up with, at most `budget` of them.
    pub(in crate::shard) fn fan_out(&mut self, mut budget: usize) {
        if self.fanout.is_empty() {
            return;
        }
        while let Some(slot) = self.fanout.next_member(&mut budget) {
            let takes_all = self.connections[slot].may_write_at_once();
            let sole = match self.sole_due(slot) {
                Due::Nothing => continue,
                Due::One(position) if takes_all => Some(position),
                Due::One(_) | Due::Many => {
                    self.collect_due(slot);
                    budget = budget.saturating_sub(self.due.len() / RUNS_PER_MEMBER);
                    match self.due[..] {
                        [position] if takes_all => Some(position),
                        _ => None,
                    }
                }
            };
            match sole {
                Some(position) => self.write_due(slot, position),
                None => self.push_due(slot),
            }
        }
        // This was no handler's time.
        self.watch.restart();
    }

    /// What is due to a connection, where that is quickly found: nearly always.
    #[inline]
    fn sole_due(&self, slot: Slot) -> Due {
        let connection = &self.connections[slot];
        let Some(membership) = connection.membership() else { return Due::Nothing };
        let everyone = Audiences::everyone(connection.endpoint());
        match self.fanout.audiences.only_pending(everyone) {
            _ if !membership.subscriptions().is_empty() => Due::Many,
            Some(position) if position < membership.position() => Due::Nothing,
            Some(position) => Due::One(position),
            None => Due::Many,
        }
    }

    /// Collects the positions of what is due to a connection, which has then caught up.
    #[inline]
    fn collect_due(&mut self, slot: Slot) {
        self.due.clear();
        let end = self.fanout.end();
        let connection = &mut self.connections[slot];
        let everyone = Audiences::everyone(connection.endpoint());
        let Some(membership) = connection.membership_mut() else { return };
        let start = membership.catch_up(end);
        if start == end {
            return;
        }
        let audiences = &self.fanout.audiences;
        audiences.due(everyone, start, &mut self.due);
        let subscriptions = membership.subscriptions();
        for &(topic, _) in subscriptions {
            audiences.due(topic, start, &mut self.due);
        }
        if !subscriptions.is_empty() {
            self.due.sort_unstable();
        }
    }

    /// Appends what is due to what the connection gets.
    fn push_due(&mut self, slot: Slot) {
        let due = std::mem::take(&mut self.due);
        for &position in &due {
            let Some(run) = self.fanout.run(position) else { continue };
            if run.except.is_some_and(|except| except == self.id(slot)) {
                continue;
            }
            let mut ticket = run.tally.as_ref().map(Ticket::share);
            let encoding = self.connections[slot].encoding();
            let (frames, message_count) = (run.frames(encoding).clone(), run.message_count);
            let sent = if self.connections[slot].is_open() {
                self.push(slot, Outgoing::Frames(&frames), &mut ticket)
            } else {
                // An earlier publication has overflowed its outbox: it misses the rest.
                Err(SendError::Overloaded)
            };
            if sent.is_err() {
                self.count_dropped(u64::from(message_count));
            }
            if let Some(ticket) = ticket {
                debug_assert!(sent.is_err(), "an accepted message keeps its ticket");
                ticket.settle(sent);
            }
        }
        self.due = due;
    }

    /// Hands the one run that is due to the kernel at once.
    fn write_due(&mut self, slot: Slot, position: Position) {
        if let Some(membership) = self.connections[slot].membership_mut() {
            // Not to the log's end: a run that is still growing may be for it, too.
            membership.catch_up(membership.position().max(position + 1));
        }
        let Some(run) = self.fanout.run(position) else { return };
        if run.except.is_some_and(|except| except == self.id(slot)) {
            return;
        }
        let connection = &mut self.connections[slot];
        let frames = run.frames(connection.encoding());
        let output = connection.write(frames);
        if output == Output::Bytes(frames.len()) {
            if let Some(tally) = &run.tally {
                tally.count(Ok(()));
            }
        } else {
            let ticket = run.tally.as_ref().map(Ticket::share);
            let frames = frames.clone();
            self.end_shared_write(slot, &frames, ticket, output);
        }
    }
}

/// What is due to a connection, as far as that is known without looking further.
enum Due {
    Nothing,
    One(Position),
    /// To be collected.
    Many,
}
