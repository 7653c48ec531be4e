//! Sends, publications and memberships against one list for each connection of what it should get.
//! A part of the connections takes the second form of messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use crate::cases;
use crate::config::{Limits, OverflowPolicy};
use crate::error::SendError;
use crate::hub::mailbox::mailbox;
use crate::hub::{Audience, BroadcastDelivery, Delivery, Hub, Node, Publication, Slot};
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::protocol::Protocol;
use crate::protocol::frame::Header;
use crate::protocol::parcel::{Encoding, Parcel, Shortened};
use crate::shard::connection::CloseHandshake;
use crate::shard::limits::LimitTable;
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::state::Shard;
use crate::shard::{ClientEnd, clock, pipe};

const TOPICS: [&str; 3] = ["news", "weather", "sport"];

#[derive(Clone, Debug)]
enum Step {
    Join {
        endpoint: u16,
        encoding: Encoding,
    },
    /// Of the connections that are open, one; so everywhere below.
    Leave {
        who: prop::sample::Index,
    },
    Subscribe {
        who: prop::sample::Index,
        topic: usize,
    },
    Unsubscribe {
        who: prop::sample::Index,
        topic: usize,
    },
    /// As an envelope that came by the mailbox.
    Send {
        who: prop::sample::Index,
        length: usize,
    },
    /// As its own handler, so many messages in a turn.
    Own {
        who: prop::sample::Index,
        length: usize,
        count: usize,
    },
    Publish {
        whom: Whom,
        except: Option<prop::sample::Index>,
        length: usize,
        told: Told,
    },
    FanOut {
        budget: usize,
    },
    /// The client reads, and the shard writes.
    Read {
        who: prop::sample::Index,
        bytes: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Whom {
    Everyone(u16),
    Topic(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = any::<prop::sample::Index>;
    // The shortest have one form only.
    let length =
        || prop_oneof![2 => 4..9usize, 6 => 4..60usize, 1 => 4..300usize, 1 => 4000..5000usize];
    let encoding = prop_oneof![2 => Just(Encoding::Plain), 1 => Just(Encoding::Shortened)];
    let whom =
        prop_oneof![(0..2u16).prop_map(Whom::Everyone), (0..TOPICS.len()).prop_map(Whom::Topic),];
    let told = prop_oneof![2 => Just(Told::No), 1 => Just(Told::Yes)];
    let except = prop::option::weighted(0.2, who());
    let step = prop_oneof![
        2 => (0..2u16, encoding).prop_map(|(endpoint, encoding)| Step::Join { endpoint, encoding }),
        1 => who().prop_map(|who| Step::Leave { who }),
        3 => (who(), 0..TOPICS.len()).prop_map(|(who, topic)| Step::Subscribe { who, topic }),
        1 => (who(), 0..TOPICS.len()).prop_map(|(who, topic)| Step::Unsubscribe { who, topic }),
        2 => (who(), length()).prop_map(|(who, length)| Step::Send { who, length }),
        1 => (who(), length(), 1..4usize)
            .prop_map(|(who, length, count)| Step::Own { who, length, count }),
        6 => (whom, except, length(), told).prop_map(|(whom, except, length, told)| {
            Step::Publish { whom, except, length, told }
        }),
        3 => (1..6usize).prop_map(|budget| Step::FanOut { budget }),
        3 => (who(), 0..400usize).prop_map(|(who, bytes)| Step::Read { who, bytes }),
    ];
    prop::collection::vec(step, 1..80)
}

/// A connection's client, and what it should get: the numbers of messages.
struct Member {
    client: ClientEnd,
    is_open: bool,
    endpoint: u16,
    encoding: Encoding,
    topics: BTreeSet<usize>,
    due: Vec<u32>,
    bytes: Vec<u8>,
}

impl Member {
    /// The numbers of the messages that have come.
    fn got(&self) -> Vec<u32> {
        let number = |payload: Vec<u8>| {
            let number = *payload.first_chunk().expect("a number");
            assert!(payload[4..].iter().all(|byte| *byte == b'.'), "what is behind it");
            u32::from_be_bytes(number)
        };
        messages(&self.bytes, self.encoding).into_iter().map(number).collect()
    }
}

/// The payloads of the binary messages that a connection has got, each of which is exactly in the
/// form that the connection takes.
pub(super) fn messages(mut bytes: &[u8], encoding: Encoding) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while let Some(header) = Header::parse(bytes) {
        let head = Header::length(bytes[1]);
        let length = usize::try_from(header.payload_bytes).expect("a short one");
        let (frame, rest) = bytes.split_at(head + length);
        let payload = match Shortened::decode(frame) {
            Some((_, payload)) if !encoding.is_plain() => payload,
            _ => frame[head..].to_vec(),
        };
        let parcel = Parcel::new(Message::Binary(&payload));
        let expected = parcel.encode(encoding).unwrap_or_else(|| parcel.into_frame());
        assert_eq!(frame, expected, "in the form for {encoding:?}");
        payloads.push(payload);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame at the end");
    payloads
}

/// Adds an open connection to a shard; its slot, and its client's end.
pub(super) fn add(shard: &mut Shard, endpoint: u16, encoding: Encoding) -> (Slot, ClientEnd) {
    let (server, client) = pipe(100);
    let protocol = Protocol::with_encoding(encoding);
    let slot = shard.insert_open(server.into(), endpoint, protocol).expect("a slot");
    (slot, client)
}

struct World {
    shard: Shard,
    members: BTreeMap<Slot, Member>,
    next: u32,
    /// Sends that were accepted, to whom they went, and what was told.
    sends: Vec<(u32, Slot, Delivery)>,
    /// Publications of which somebody wants to know, and to how many they went.
    publications: Vec<(u32, usize, BroadcastDelivery)>,
}

fn now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl World {
    fn new(limits: Limits) -> Self {
        let poll = mio::Poll::new().expect("a poll");
        let waker = crate::sync::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (mailbox, inbox) = mailbox(waker, 8, 1000);
        let hub = Hub::new(Node::random(), Box::new([mailbox]), Box::default(), HashMap::new());
        let limits = LimitTable::new(vec![limits.clone(), limits.clone()], limits);
        Self {
            shard: Shard::new(0, limits, hub, inbox, clock::now()),
            members: BTreeMap::new(),
            next: 0,
            sends: Vec::new(),
            publications: Vec::new(),
        }
    }

    fn join(&mut self, endpoint: u16, encoding: Encoding) {
        let (slot, client) = add(&mut self.shard, endpoint, encoding);
        let (topics, due, bytes) = Default::default();
        let member = Member { client, is_open: true, endpoint, encoding, topics, due, bytes };
        self.members.insert(slot, member);
    }

    /// One of those that are open.
    fn pick(&self, who: prop::sample::Index) -> Option<Slot> {
        let open: Vec<Slot> = self
            .members
            .iter()
            .filter(|(_, member)| member.is_open)
            .map(|(&slot, _)| slot)
            .collect();
        (!open.is_empty()).then(|| *who.get(&open))
    }

    fn member(&mut self, slot: Slot) -> &mut Member {
        self.members.get_mut(&slot).expect("a member")
    }

    /// A message with a number that stands in its payload.
    fn message(&mut self, length: usize) -> (u32, Vec<u8>) {
        self.next += 1;
        let mut payload = self.next.to_be_bytes().to_vec();
        payload.resize(length, b'.');
        (self.next, payload)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join { endpoint, encoding } => self.join(endpoint, encoding),
            Step::Leave { who } => {
                if let Some(slot) = self.pick(who) {
                    let close = Close::new(CloseCode::NORMAL, "", ClosedBy::Application);
                    self.shard.begin_close(slot, close, CloseHandshake::Close);
                }
            }
            Step::Subscribe { who, topic } => {
                if let Some(slot) = self.pick(who)
                    && self.shard.subscribe(slot, TOPICS[topic]).is_ok()
                {
                    self.member(slot).topics.insert(topic);
                }
            }
            Step::Unsubscribe { who, topic } => {
                if let Some(slot) = self.pick(who) {
                    self.shard.unsubscribe(slot, TOPICS[topic]);
                    self.member(slot).topics.remove(&topic);
                }
            }
            Step::Send { who, length } => self.send(who, length),
            Step::Own { who, length, count } => self.own_turn(who, length, count),
            Step::Publish { whom, except, length, told } => {
                self.publish(whom, except, length, told)
            }
            Step::FanOut { budget } => self.fan_out(budget),
            Step::Read { who, bytes } => {
                if let Some(slot) = self.pick(who) {
                    self.read(slot, bytes);
                }
            }
        }
        self.note_who_left();
        self.check();
    }

    fn send(&mut self, who: prop::sample::Index, length: usize) {
        let Some(slot) = self.pick(who) else { return };
        let (number, payload) = self.message(length);
        let (mut delivery, ticket) = Delivery::new();
        let parcel = Parcel::new(Message::Binary(&payload));
        let to = self.shard.connection(slot).address();
        let mut ticket = Some(ticket);
        match self.shard.send_here(to, Outgoing::Parcel(&parcel), &mut ticket) {
            Ok(()) => {
                self.member(slot).due.push(number);
                self.sends.push((number, slot, delivery));
            }
            Err(error) => {
                assert_eq!(now(&mut delivery), Poll::Pending, "the caller settles what is refused");
                ticket.expect("it is left to the caller").settle(Err(error));
                assert_eq!(now(&mut delivery), Poll::Ready(Err(error)));
            }
        }
    }

    fn own_turn(&mut self, who: prop::sample::Index, length: usize, count: usize) {
        let Some(slot) = self.pick(who) else { return };
        self.shard.enter(slot);
        for _ in 0..count {
            let (number, payload) = self.message(length);
            if self.shard.send_own(slot, Message::Binary(&payload)).is_ok() {
                self.member(slot).due.push(number);
            }
        }
        self.shard.exit(slot);
    }

    fn publish(
        &mut self,
        whom: Whom,
        except: Option<prop::sample::Index>,
        length: usize,
        told: Told,
    ) {
        let (number, payload) = self.message(length);
        let except = except.and_then(|except| self.pick(except));
        let is_addressed = |slot: Slot, member: &Member| {
            let is_member = match whom {
                Whom::Everyone(endpoint) => member.endpoint == endpoint,
                Whom::Topic(topic) => member.topics.contains(&topic),
            };
            member.is_open && is_member && Some(slot) != except
        };
        let (mut count, mut is_twin_due) = (0, false);
        for (&slot, member) in &mut self.members {
            if is_addressed(slot, member) {
                member.due.push(number);
                count += 1;
                is_twin_due |= !member.encoding.is_plain();
            }
        }
        let (delivery, tally) = BroadcastDelivery::new();
        let encoded_count = Shortened::count();
        self.shard.publish_here(&Publication {
            audience: match whom {
                Whom::Everyone(endpoint) => Audience::Everyone(endpoint),
                Whom::Topic(topic) => Audience::Topic(TOPICS[topic].into()),
            },
            except: except.map(|slot| self.shard.id(slot)),
            parcel: Parcel::new(Message::Binary(&payload)).into(),
            tally: (told == Told::Yes).then_some(tally),
        });
        let encoded_count = Shortened::count() - encoded_count;
        assert_eq!(encoded_count, usize::from(is_twin_due), "once, and only if a member asks");
        if told == Told::Yes {
            self.publications.push((number, count, delivery));
        }
    }

    /// Visits so many members, for which nothing is encoded again.
    fn fan_out(&mut self, budget: usize) {
        let encoded_count = Shortened::count();
        self.shard.fan_out(budget);
        assert_eq!(Shortened::count(), encoded_count, "it was encoded when it was published");
    }

    /// The client reads so much, and the shard writes what there is then room for.
    fn read(&mut self, slot: Slot, bytes: usize) {
        let member = self.members.get_mut(&slot).expect("a member");
        member.client.reading_bytes = Some(bytes);
        // It ends with an error: nothing more is there, or wanted.
        let _ = member.client.read_to_end(&mut member.bytes);
        if self.shard.connection(slot).is_blocked() {
            self.shard.unblock(slot);
        }
        self.shard.flush(slot);
    }

    /// Whoever has left gets nothing more.
    fn note_who_left(&mut self) {
        for (&slot, member) in &mut self.members {
            if !self.shard.connection(slot).is_open() {
                member.is_open = false;
                member.topics.clear();
            }
        }
    }

    fn check(&self) {
        self.shard.check_deliveries();
        for (slot, connection) in self.shard.connections() {
            let counted_bytes = connection.outbox().bytes() - connection.outbox().exempt_bytes();
            let limit = self.shard.limits_of(slot).max_outbox_bytes;
            assert!(!connection.is_open() || counted_bytes <= limit, "{counted_bytes} bytes");
            let max_topics_per_connection =
                connection.membership().map_or(0, |m| m.subscriptions().len());
            assert_eq!(max_topics_per_connection, self.members[&slot].topics.len());
        }
        for (topic, name) in TOPICS.iter().enumerate() {
            let subscribers = self.members.values().filter(|member| member.topics.contains(&topic));
            assert_eq!(self.shard.hub().subscriber_count(name), subscribers.count(), "{name}");
        }
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        while !self.shard.is_quiescent() {
            self.fan_out(1000);
            self.note_who_left();
            self.check();
        }
        let slots: Vec<Slot> = self.members.keys().copied().collect();
        for slot in slots {
            while self.shard.connection(slot).has_output() {
                self.read(slot, 5000);
            }
            self.read(slot, 5000);
        }
        self.note_who_left();
        self.check();
    }
}

/// Each connection gets what was sent to it and what was published to whatever it was a member of
/// by then, in that order and once.
#[test]
fn everybody_gets_exactly_what_is_for_them_in_order() {
    let limits = Limits { max_topics_per_connection: 3, ..Limits::default() };
    cases::check(96, steps(), |steps| {
        let mut world = World::new(limits.clone());
        steps.iter().for_each(|step| world.take(step));
        world.settle();
        for (slot, member) in &world.members {
            assert_eq!(member.got(), member.due, "connection {slot}");
        }
        for (number, _, mut delivery) in world.sends {
            assert_eq!(now(&mut delivery), Poll::Ready(Ok(())), "{number}");
        }
        for (number, count, mut delivery) in world.publications {
            let Poll::Ready(Ok(report)) = now(&mut delivery) else { panic!("{number} is open") };
            let counts = (report.reached_count, report.gone_count, report.overloaded_count);
            assert_eq!(counts, (count, 0, 0), "{number}");
        }
        assert_eq!(world.shard.hub().dropped_count(), 0);
    });
}

#[test]
fn what_is_published_while_others_are_visited_reaches_those_who_were_not_yet() {
    for length in [10, 5000] {
        let mut world = World::new(Limits::default());
        (0..4).for_each(|_| world.join(0, Encoding::Plain));
        for _ in 0..4 {
            world.publish(Whom::Everyone(0), None, length, Told::No);
            world.take(&Step::FanOut { budget: 1 });
        }
        world.settle();
        for (slot, member) in &world.members {
            assert_eq!(member.got(), [1, 2, 3, 4], "connection {slot}, {length} bytes");
        }
    }
}

#[test]
fn a_visit_that_brings_many_publications_costs_as_much_as_many_visits() {
    let mut world = World::new(Limits::default());
    (0..20).for_each(|_| world.join(0, Encoding::Plain));
    for _ in 0..160 {
        // Each is a run of its own, because somebody wants to know of it.
        world.publish(Whom::Everyone(0), None, 10, Told::Yes);
    }
    let visited_count = |world: &World| {
        let memberships = world.shard.connections().filter_map(|(_, c)| c.membership());
        memberships.filter(|membership| membership.position() > 0).count()
    };
    // One for the visit, and one for every sixteen.
    for turn in 1..=10 {
        world.shard.fan_out(2 * (1 + 160 / 16));
        assert_eq!(visited_count(&world), 2 * turn);
    }
    world.settle();
}

/// Where outboxes are too small, messages are missing; but those that come are in order, and every
/// one that was accepted and is missing is told of and counted.
#[test]
fn what_an_overflow_takes_is_told_and_counted_and_nothing_else_is_missing() {
    let policy = prop_oneof![
        Just(OverflowPolicy::Close),
        Just(OverflowPolicy::DropNewest),
        Just(OverflowPolicy::DropOldest)
    ];
    cases::check(96, (policy, steps()), |(overflow, steps)| {
        let mut world = World::new(Limits {
            max_topics_per_connection: 3,
            outbox_high_water_bytes: 60,
            outbox_low_water_bytes: 20,
            max_outbox_bytes: 200,
            max_shard_outbox_bytes: 400,
            overflow,
            ..Limits::default()
        });
        steps.iter().for_each(|step| world.take(step));
        world.settle();
        let mut missing_count = 0;
        let got: BTreeMap<Slot, Vec<u32>> =
            world.members.iter().map(|(&slot, member)| (slot, member.got())).collect();
        for (slot, member) in &world.members {
            let mut due = member.due.iter();
            let is_in_order = got[slot].iter().all(|number| due.any(|due| due == number));
            assert!(is_in_order, "connection {slot} got {:?} of {:?}", got[slot], member.due);
            missing_count += (member.due.len() - got[slot].len()) as u64;
        }
        assert_eq!(world.shard.hub().dropped_count(), missing_count, "{overflow:?}");
        for (number, slot, mut delivery) in world.sends {
            let has_come = got[&slot].contains(&number);
            let expected = if has_come { Ok(()) } else { Err(SendError::Overloaded) };
            assert_eq!(now(&mut delivery), Poll::Ready(expected), "{number} to {slot}");
        }
        for (number, count, mut delivery) in world.publications {
            let Poll::Ready(Ok(report)) = now(&mut delivery) else { panic!("{number} is open") };
            let reached_count = got.values().filter(|got| got.contains(&number)).count();
            let counts = (report.reached_count, report.gone_count, report.overloaded_count);
            assert_eq!(counts, (reached_count, 0, count - reached_count), "{number}");
        }
    });
}
