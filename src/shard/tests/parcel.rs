//! Messages in both forms on several shards: the second form of a publication is made once for all
//! of them, and each connection gets its own form.

use std::io::Read;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::publish::{add, messages};
use crate::config::{Limits, OverflowPolicy};
use crate::error::SendError;
use crate::hub::mailbox::{Inbox, mailbox};
use crate::hub::{Audience, Delivery, Envelope, Hub, MessageWriter, Node, Slot};
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::protocol::frame::{self, Fragment};
use crate::protocol::parcel::{Encoding, Parcel, Shortened};
use crate::shard::connection::CloseHandshake;
use crate::shard::limits::LimitTable;
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::state::Shard;
use crate::shard::{ClientEnd, WAKER, clock};
use crate::sync::Waker;

const BOTH: [Encoding; 2] = [Encoding::Plain, Encoding::Shortened];

/// A connection's client, and what it has got.
struct Member {
    slot: Slot,
    encoding: Encoding,
    client: ClientEnd,
    bytes: Vec<u8>,
}

/// A shard without a loop, and the clients of its connections.
struct World {
    shard: Shard,
    members: Vec<Member>,
}

/// The hub of so many shards, and their inboxes.
fn mailboxes(count: usize) -> (Hub, Vec<Inbox<Envelope>>) {
    let waker = || {
        let poll = mio::Poll::new().expect("a poll");
        Waker::new(poll.registry(), WAKER).expect("a waker")
    };
    let boxes = (0..count).map(|_| mailbox(waker(), 1000, 10 << 20));
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = boxes.unzip();
    let endpoints = [("/".to_owned(), 0)].into();
    (Hub::new(Node::random(), mailboxes.into(), Box::default(), endpoints), inboxes)
}

/// As many shards of one server as encodings are listed for; a connection for each of these.
fn server(encodings: &[&[Encoding]]) -> (Hub, Vec<World>) {
    let (hub, inboxes) = mailboxes(encodings.len());
    let limits = Limits::default();
    let world = |(index, inbox)| World::new(index, &hub, inbox, &limits, encodings[index]);
    let worlds = inboxes.into_iter().enumerate().map(world).collect();
    (hub, worlds)
}

impl World {
    fn new(
        index: usize,
        hub: &Hub,
        inbox: Inbox<Envelope>,
        limits: &Limits,
        encodings: &[Encoding],
    ) -> Self {
        let table = LimitTable::new(vec![limits.clone()], limits.clone());
        let mut shard = Shard::new(index, table, hub.clone(), inbox, clock::now());
        let member = |&encoding| {
            let (slot, client) = add(&mut shard, 0, encoding);
            Member { slot, encoding, client, bytes: Vec::new() }
        };
        let members = encodings.iter().map(member).collect();
        Self { shard, members }
    }

    /// Takes what has come by the mailbox. Returns how many messages were encoded for that.
    fn take_over(&mut self) -> usize {
        let before = Shortened::count();
        self.shard.take_over();
        Shortened::count() - before
    }

    /// Publishes as a handler. Returns how many messages were encoded for that.
    fn publish(&mut self, payload: &[u8], except: Option<Slot>) -> usize {
        let before = Shortened::count();
        let except = except.map(|slot| self.shard.id(slot));
        let everyone = Audience::Everyone(0);
        self.shard.publish(everyone, except, Message::Binary(payload), None).expect("room");
        Shortened::count() - before
    }

    /// The clients read so many bytes each, and the shard writes.
    fn turn(&mut self, bytes: impl Fn(Slot) -> usize) {
        self.shard.fan_out(7);
        for Member { slot, client, bytes: got, .. } in &mut self.members {
            client.reading_bytes = Some(bytes(*slot));
            // It ends with an error: nothing more is there, or wanted.
            let _ = client.read_to_end(got);
            if self.shard.connection(*slot).is_blocked() {
                self.shard.unblock(*slot);
            }
            self.shard.flush(*slot);
        }
        self.shard.check_deliveries();
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        let is_under_way = |shard: &Shard| {
            !shard.is_quiescent() || shard.connections().any(|(_, other)| other.has_output())
        };
        while is_under_way(&self.shard) {
            self.turn(|_| 5000);
        }
        self.turn(|_| 5000);
    }

    /// What each connection has got by now, each message in the connection's own form.
    fn got(&mut self) -> Vec<Vec<Vec<u8>>> {
        self.settle();
        let got = |member: &Member| messages(&member.bytes, member.encoding);
        self.members.iter().map(got).collect()
    }
}

/// A payload with a number, whose second form is shorter.
fn payload(number: u32, length: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length, b'.');
    payload
}

#[test]
fn the_first_shard_with_a_member_who_asks_makes_the_second_form_for_all() {
    let (hub, mut worlds) = server(&[&[Encoding::Plain; 2], &BOTH, &BOTH]);
    let payloads: Vec<_> = [60, 5000, 60, 5000].map(|length| payload(7, length)).into();
    hub.broadcast("/", payloads[0].as_slice()).expect("room");
    hub.broadcast("/", payloads[1].as_slice()).expect("room");
    // The first shard has nobody who asks, the last one gets what the second has made.
    for (index, count) in [(0, 0), (1, 2), (2, 0)] {
        assert_eq!(worlds[index].take_over(), count);
    }
    // A handler's own shard is the first, if somebody asks there.
    assert_eq!(worlds[1].publish(&payloads[2], None), 1);
    assert_eq!((worlds[0].take_over(), worlds[2].take_over()), (0, 0));
    assert_eq!(worlds[0].publish(&payloads[3], None), 0);
    assert_eq!((worlds[2].take_over(), worlds[1].take_over()), (1, 0));
    for world in &mut worlds {
        assert!(world.got().iter().all(|got| *got == payloads));
    }
}

#[test]
fn no_second_form_is_made_of_what_nobody_gets_who_asks() {
    let (hub, mut worlds) = server(&[&BOTH, &BOTH]);
    for world in &mut worlds {
        world.shard.subscribe(world.members[0].slot, "plain").expect("a subscriber");
    }
    hub.publish("plain", payload(1, 100).as_slice()).expect("room");
    assert_eq!((worlds[0].take_over(), worlds[1].take_over()), (0, 0));
    // The only one who asks on its shard is excepted, then one who does not.
    let [plain, asking] = [0, 1].map(|at| worlds[0].members[at].slot);
    assert_eq!(worlds[0].publish(&payload(2, 100), Some(asking)), 0);
    assert_eq!(worlds[0].publish(&payload(3, 100), Some(plain)), 1);
    // The publication that was not encoded there is here.
    assert_eq!(worlds[1].take_over(), 1);
    let [first, second, third] = [1, 2, 3].map(|number| payload(number, 100));
    let (all, some) = ([first, second.clone(), third.clone()], [second, third]);
    assert_eq!(worlds[0].got(), [all[..2].to_vec(), some[1..].to_vec()]);
    assert_eq!(worlds[1].got(), [all.to_vec(), some.to_vec()]);
}

#[test]
fn every_way_to_one_connection_takes_its_form() {
    let (hub, mut worlds) = server(&[&BOTH, &[]]);
    let long = 100_000;
    let payloads: Vec<_> = (0..).zip([100, 20_000, 100, 100, 100, 100, long, 100, 5]).collect();
    let payloads: Vec<_> =
        payloads.into_iter().map(|(number, length)| payload(number, length)).collect();
    let message = |at: usize| Message::Binary(&payloads[at]);
    for at in 0..BOTH.len() {
        let slot = worlds[0].members[at].slot;
        let id = worlds[0].shard.id(slot);
        hub.send_to(id, payloads[0].as_slice()).expect("room");
        hub.send_to(id, payloads[1].as_slice()).expect("room");
        worlds[1].shard.send_to(id, message(2), None).expect("room");
        worlds[0].take_over();
        let shard = &mut worlds[0].shard;
        shard.send_to(id, message(3), None).expect("room");
        let (_delivery, ticket) = Delivery::new();
        shard.send_to(id, message(4), Some(ticket)).expect("room");
        shard.enter(slot);
        shard.send_own(slot, message(5)).expect("room");
        shard.exit(slot);
        worlds[0].settle();
        // With nothing before it, a long reply may be written from where it lies.
        let shard = &mut worlds[0].shard;
        shard.enter(slot);
        shard.reply(slot, message(6));
        shard.exit(slot);
        worlds[0].settle();
        let shard = &mut worlds[0].shard;
        shard.enter(slot);
        shard.send_own(slot, message(7)).expect("room");
        let close = Close::new(CloseCode::NORMAL, "", ClosedBy::Application);
        shard.begin_close(slot, close, CloseHandshake::Close);
        shard.reply(slot, message(8));
        shard.exit(slot);
    }
    for got in worlds[0].got() {
        assert_eq!(got.len(), payloads.len());
        assert!(got == payloads);
    }
    assert_eq!(hub.dropped_count(), 0);
}

#[test]
fn bounds_and_drops_count_the_form_that_a_connection_takes() {
    let limits = Limits {
        outbox_high_water_bytes: 100,
        outbox_low_water_bytes: 0,
        max_outbox_bytes: 1100,
        overflow: OverflowPolicy::DropOldest,
        ..Limits::default()
    };
    let (hub, inboxes) = mailboxes(1);
    let inbox = inboxes.into_iter().next().expect("one");
    let mut world = World::new(0, &hub, inbox, &limits, &BOTH);
    let payloads: Vec<_> = (0..20).map(|number| payload(number, 1000)).collect();
    for payload in &payloads {
        for at in 0..BOTH.len() {
            let to = world.shard.id(world.members[at].slot);
            let parcel = Parcel::new(Message::Binary(payload));
            let sent = world.shard.send_here(to.address(), Outgoing::Parcel(&parcel), &mut None);
            assert_eq!(sent, Ok(()), "older ones are dropped");
        }
    }
    let [plain, short] =
        [0, 1].map(|at| world.shard.connection(world.members[at].slot).outbox().output_bytes());
    // One frame of the plain ones, and all of the short ones.
    assert_eq!(plain, 1004);
    assert!(short < 20 * 20, "{short} bytes");
    assert_eq!(world.got(), [payloads[19..].to_vec(), payloads]);
    assert_eq!(hub.dropped_count(), 19);
}

#[test]
fn pieces_are_plain_and_what_waits_behind_them_is_in_the_form_of_its_connection() {
    let (hub, mut worlds) = server(&[&BOTH]);
    let (piece, held, last) = (b"a piece........", payload(1, 100), payload(2, 100));
    for at in 0..BOTH.len() {
        let world = &mut worlds[0];
        let Member { slot, encoding, .. } = world.members[at];
        let id = world.shard.id(slot);
        let credit = world.shard.begin_stream(slot).expect("a stream");
        let mut stream = MessageWriter::<[u8]>::new(hub.clone(), id, credit);
        hub.send_to(id, held.as_slice()).expect("room");
        stream.write(piece).expect("room");
        world.take_over();
        world.shard.enter(slot);
        let close = Close::new(CloseCode::NORMAL, "", ClosedBy::Application);
        world.shard.begin_close(slot, close, CloseHandshake::Close);
        world.shard.reply(slot, Message::Binary(&last));
        world.shard.exit(slot);
        stream.finish().expect("room");
        world.take_over();
        world.settle();
        let fragment = |payload, is_first| {
            let fragment = Fragment { is_first, is_last: !is_first };
            frame::encode_fragment(Message::Binary(payload), fragment)
        };
        let pieces = [fragment(piece, true), fragment(b"", false)].concat();
        let rest = world.members[at].bytes.strip_prefix(pieces.as_slice()).expect("the pieces");
        assert_eq!(messages(rest, encoding), [held.clone(), last.clone()]);
    }
}

/// How many messages each publisher sends.
const COUNT: u32 = 60;
/// The number of publishers: each shard's handlers, and the hub.
const PUBLISHER_COUNT: u32 = 4;

/// The message of a publisher: of every size, from one form only up to one that is referred to.
fn numbered(publisher: u32, number: u32) -> Vec<u8> {
    let lengths = [4, 20, 60, 300, 5000, 17_000];
    payload(publisher << 24 | number, lengths[number as usize % lengths.len()])
}

/// How many bytes all messages take in an encoding.
fn all_bytes(encoding: Encoding) -> usize {
    let publishers = 0..PUBLISHER_COUNT;
    let payloads = publishers.flat_map(|of| (0..COUNT).map(move |number| numbered(of, number)));
    let bytes = |payload: Vec<u8>| {
        let parcel = Parcel::new(Message::Binary(&payload));
        parcel.encode(encoding).map_or(parcel.len(), |twin| twin.len())
    };
    payloads.map(bytes).sum()
}

/// One shard's thread: publishes and delivers until its clients have everything. Returns how many
/// messages it has encoded.
fn run(world: &mut World, publisher: u32, all_bytes: [usize; 2], until: Instant) -> usize {
    let before = Shortened::count();
    let (mut number, mut turn) = (0, 0);
    let is_done =
        |member: &Member| member.bytes.len() == all_bytes[usize::from(!member.encoding.is_plain())];
    while number < COUNT || !world.members.iter().all(is_done) {
        world.shard.take_over();
        world.shard.look_at_shards();
        if number < COUNT {
            let payload = numbered(publisher, number);
            let message = Message::Binary(&payload);
            match world.shard.publish(Audience::Everyone(0), None, message, None) {
                Ok(()) => number += 1,
                Err(error) => assert_eq!(error, SendError::Overloaded),
            }
        }
        // The first connection's client reads slowly at first: its outbox fills.
        world.turn(|slot| if slot == 0 && turn < 500 { turn % 3 } else { 5000 });
        turn += 1;
        assert!(clock::now() < until, "something does not arrive");
        thread::yield_now();
    }
    Shortened::count() - before
}

#[test]
fn threads_make_each_second_form_once_and_all_get_their_form_in_order() {
    use Encoding::{Plain, Shortened};
    let encodings: [&[Encoding]; 3] =
        [&[Shortened, Plain], &[Plain, Plain], &[Plain, Shortened, Shortened]];
    let (hub, inboxes) = mailboxes(encodings.len());
    let all_bytes = BOTH.map(all_bytes);
    let until = clock::now() + Duration::from_secs(60);
    let are_there = Barrier::new(encodings.len() + 1);
    let (hub, are_there) = (&hub, &are_there);
    let shard = |(index, inbox): (usize, Inbox<Envelope>)| {
        move || {
            let publisher = u32::try_from(index).expect("a few");
            let mut world = World::new(index, hub, inbox, &Limits::default(), encodings[index]);
            are_there.wait();
            let encoded_count = run(&mut world, publisher, all_bytes, until);
            check_order(&world.got());
            encoded_count
        }
    };
    let encoded_counts: Vec<usize> = thread::scope(|scope| {
        let shards = inboxes.into_iter().enumerate().map(|of| scope.spawn(shard(of)));
        let shards: Vec<_> = shards.collect();
        are_there.wait();
        let mut number = 0;
        while number < COUNT {
            match hub.broadcast("/", numbered(PUBLISHER_COUNT - 1, number).as_slice()) {
                Ok(()) => number += 1,
                Err(error) => assert_eq!(error, SendError::Overloaded),
            }
            thread::yield_now();
        }
        shards.into_iter().map(|shard| shard.join().expect("a shard")).collect()
    });
    assert_eq!(encoded_counts.iter().sum::<usize>(), (COUNT * PUBLISHER_COUNT) as usize);
    assert_eq!(encoded_counts[1], 0, "nobody asks there");
    assert_eq!(hub.dropped_count(), 0);
}

/// Each connection has got what each publisher has sent, in order.
fn check_order(got: &[Vec<Vec<u8>>]) {
    for got in got {
        for publisher in 0..PUBLISHER_COUNT {
            let own = got.iter().filter(|payload| u32::from(payload[0]) == publisher);
            let expected = (0..COUNT).map(|number| numbered(publisher, number));
            assert!(own.cloned().eq(expected), "what {publisher} has published");
        }
    }
}
