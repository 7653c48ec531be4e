//! What is for many: who belongs to an audience, what is published to it, and how its members get
//! that.

use std::sync::Arc;

use crate::error::SendError;
use crate::hub::ticket::{Tally, Ticket};
use crate::hub::{
    Audience, ConnectionId, EndpointIndex, Publication, Slot, TOPIC_BYTES_MAX, topic_name,
};
use crate::message::Message;
use crate::shard::fanout::audience::Position;
use crate::shard::fanout::audience::{AudienceIndex, Audiences, Place};
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::state::Shard;
use crate::transport::Output;

/// How many runs queued for a member cost as much as the visit itself.
const RUNS_PER_VISIT: usize = 16;

impl Shard {
    // Membership.

    /// Makes a connection one of its endpoint's.
    pub(in crate::shard) fn join(&mut self, slot: Slot, endpoint: EndpointIndex) {
        let place = self.fanout.audiences.join(Audiences::everyone(endpoint), slot);
        let connection = &mut self.connections[slot];
        connection.endpoint = endpoint;
        connection.place = place;
        connection.position = self.fanout.end();
    }

    /// Ends all of a connection's memberships.
    pub(in crate::shard) fn leave(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        debug_assert!(connection.is_open(), "only who is open is a member");
        let everyone = Audiences::everyone(connection.endpoint);
        self.fanout.audiences.leave(everyone, connection.place, slot);
        let subscriptions = match &mut connection.details {
            Some(details) => std::mem::take(&mut details.subscriptions),
            None => return,
        };
        for (topic, place) in subscriptions {
            self.leave_topic(topic, place, slot);
        }
    }

    /// Makes a connection a subscriber from this point in the order of things on; nothing happens
    /// if it is one.
    pub(in crate::shard) fn subscribe(&mut self, slot: Slot, topic: &str) -> Result<(), SendError> {
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(SendError::Overloaded);
        }
        // What was published before is not for it; what is for it otherwise keeps its place.
        self.catch_up(slot);
        let connection = &mut self.connections[slot];
        if !connection.is_open() {
            return Err(SendError::Closed);
        }
        let topic_limit = self.limits[connection.endpoint].topic_count;
        let subscriptions = connection.subscriptions();
        let known = self.fanout.audiences.find(topic);
        let found = known.map(|index| subscriptions.binary_search_by_key(&index, |&(at, _)| at));
        if matches!(found, Some(Ok(_))) {
            return Ok(());
        }
        if subscriptions.len() >= topic_limit {
            return Err(SendError::Overloaded);
        }
        let audiences = &mut self.fanout.audiences;
        let index = audiences.find_or_add(topic);
        let place = audiences.join(index, slot);
        let details = connection.details();
        let at = details.subscriptions.partition_point(|&(other, _)| other < index);
        details.subscriptions.insert(at, (index, place));
        self.tell_count(index, self.fanout.audiences.member_count(index));
        Ok(())
    }

    /// Ends a subscription. What was published before still arrives.
    pub(in crate::shard) fn unsubscribe(&mut self, slot: Slot, topic: &str) {
        self.catch_up(slot);
        let Some(index) = self.fanout.audiences.find(topic) else { return };
        let Some(details) = &mut self.connections[slot].details else { return };
        let subscriptions = &mut details.subscriptions;
        if let Ok(at) = subscriptions.binary_search_by_key(&index, |&(at, _)| at) {
            let (_, place) = subscriptions.remove(at);
            self.leave_topic(index, place, slot);
        }
    }

    fn leave_topic(&mut self, index: AudienceIndex, place: Place, slot: Slot) {
        // Before it may be forgotten, and its name with it.
        self.tell_count(index, self.fanout.audiences.member_count(index) - 1);
        self.fanout.audiences.leave(index, place, slot);
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
        let frame = self.encoder.encode(message);
        let publication = Publication { audience, except, frame, tally };
        self.links.publish(&publication)?;
        self.publish_here(&publication);
        Ok(())
    }

    /// Publishes on this shard.
    pub(in crate::shard) fn publish_here(&mut self, publication: &Publication) {
        let Publication { audience, except, frame, tally } = publication;
        let audiences = &self.fanout.audiences;
        let index = match audience {
            Audience::Everyone(endpoint) => Some(Audiences::everyone(*endpoint)),
            Audience::Topic(topic) => audiences.find(topic),
        };
        let Some(index) = index.filter(|&index| audiences.member_count(index) > 0) else { return };
        // Whoever is excepted lives here, or does not matter here.
        let except = except.filter(|id| id.shard() == self.index);
        self.fanout.append(index, except, frame, tally.clone());
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
            let connection = &self.connections[slot];
            let takes_all = connection.outbox.is_empty()
                && !connection.flags.is_blocked
                && !connection.flags.has_stream;
            match self.sole_due(slot) {
                Due::Nothing => {}
                Due::One(position) if takes_all => self.write_due(slot, position),
                Due::One(_) | Due::Many => {
                    self.collect_due(slot);
                    budget = budget.saturating_sub(self.due.len() / RUNS_PER_VISIT);
                    match self.due[..] {
                        [position] if takes_all => self.write_due(slot, position),
                        _ => self.push_due(slot),
                    }
                }
            }
        }
        // This was no handler's time.
        self.watch.restart();
    }

    /// What is due to a connection, where that is quickly found: nearly always.
    #[inline]
    fn sole_due(&self, slot: Slot) -> Due {
        let connection = &self.connections[slot];
        let everyone = Audiences::everyone(connection.endpoint);
        match self.fanout.audiences.only_pending(everyone) {
            _ if !connection.subscriptions().is_empty() => Due::Many,
            Some(position) if position < connection.position => Due::Nothing,
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
        let start = std::mem::replace(&mut connection.position, end);
        if start == end {
            return;
        }
        let audiences = &self.fanout.audiences;
        audiences.due(Audiences::everyone(connection.endpoint), start, &mut self.due);
        let subscriptions = connection.subscriptions();
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
            let (frames, message_count) = (run.frames.clone(), run.message_count);
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
        let connection = &mut self.connections[slot];
        // Not to the log's end: a run that is still growing may be for it, too.
        connection.position = connection.position.max(position + 1);
        let Some(run) = self.fanout.run(position) else { return };
        if run.except.is_some_and(|except| except == self.id(slot)) {
            return;
        }
        let output = self.connections[slot].transport.write(&run.frames);
        if output == Output::Bytes(run.frames.len()) {
            if let Some(tally) = &run.tally {
                tally.count(Ok(()));
            }
        } else {
            let ticket = run.tally.as_ref().map(Ticket::share);
            let frames = run.frames.clone();
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
