//! The mailbox against a bounded queue.

use proptest::prelude::*;

use crate::cases;
use crate::error::SendError;
use crate::hub::mailbox::{Permit, mailbox};
use crate::hub::{Address, ConnectionId, Node};
use crate::sync::Waker;

const LIMIT_COUNT: usize = 4;
const LIMIT_BYTES: usize = 100;

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        bytes: usize,
    },
    ReserveForRest {
        bytes: usize,
    },
    /// Of the reservations that are held, one is used, or given back.
    Send(prop::sample::Index),
    GiveBack(prop::sample::Index),
    /// Without room, as a shard.
    SendBeyond {
        bytes: usize,
    },
    Take,
    Disarm,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || prop_oneof![Just(0), 1..60usize, 90..110usize, Just(usize::MAX)];
    let which = any::<prop::sample::Index>;
    let step = prop_oneof![
        60 => bytes().prop_map(|bytes| Step::Reserve { bytes }),
        10 => bytes().prop_map(|bytes| Step::ReserveForRest { bytes }),
        50 => which().prop_map(Step::Send),
        10 => which().prop_map(Step::GiveBack),
        10 => bytes().prop_map(|bytes| Step::SendBeyond { bytes }),
        70 => Just(Step::Take),
        20 => Just(Step::Disarm),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..100)
}

/// An envelope, and when its sending began. That is when its room was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    bytes: usize,
    begun_at: usize,
}

/// What should be in the mailbox.
#[derive(Default)]
struct Model {
    now: usize,
    /// And when its sending ended.
    sent: Vec<(Item, usize)>,
    /// How many of them are in the channel or were reserved there.
    held: Vec<Item>,
    promised: Vec<Item>,
    has_line: bool,
    is_closed: bool,
    has_readiness: bool,
}

impl Model {
    fn reserve(&self, bytes: usize) -> Result<(), SendError> {
        let all = self.held.iter().fold(bytes, |all, item| all.saturating_add(item.bytes));
        let has_room = self.held.is_empty() || all <= LIMIT_BYTES;
        let fits = self.held.len() < LIMIT_COUNT && has_room && !self.has_line;
        if fits { Ok(()) } else { Err(SendError::Overloaded) }
    }

    fn begin(&mut self, bytes: usize) -> Item {
        self.now += 1;
        Item { bytes, begun_at: self.now }
    }

    fn end(&mut self, item: Item) {
        self.now += 1;
        self.sent.push((item, self.now));
        self.has_readiness = true;
    }

    /// Nothing that is left was there before the sending of this one began.
    fn take(&mut self, taken: Option<Item>) {
        let Some(taken) = taken else {
            assert!(self.sent.is_empty(), "something is left");
            self.has_line = false;
            return;
        };
        self.sent.retain(|&(item, _)| item != taken);
        self.held.retain(|&item| item != taken);
        let overtaken = self.sent.iter().find(|&&(_, ended_at)| ended_at < taken.begun_at);
        assert_eq!(overtaken, None, "{taken:?} has overtaken it");
    }
}

#[test]
fn a_mailbox_is_a_bounded_queue_in_envelopes_and_in_bytes() {
    cases::check(256, steps(), |steps| {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (mailbox, mut inbox) = mailbox::<Item>(waker, LIMIT_COUNT, LIMIT_BYTES);
        let mut model = Model::default();
        let mut rooms: Vec<Permit<'_, Item>> = Vec::new();
        for step in steps {
            match step {
                Step::Reserve { bytes } | Step::ReserveForRest { bytes } => {
                    let is_for_rest = matches!(step, Step::ReserveForRest { .. });
                    let (room, expected) = match (is_for_rest, model.is_closed) {
                        (false, true) => (mailbox.reserve(bytes), Err(SendError::ShuttingDown)),
                        (false, false) => (mailbox.reserve(bytes), model.reserve(bytes)),
                        (true, _) => (mailbox.reserve_for_rest(bytes), model.reserve(bytes)),
                    };
                    assert_eq!(room.as_ref().err(), expected.err().as_ref());
                    if let Ok(room) = room {
                        rooms.push(room);
                        let item = model.begin(bytes);
                        model.promised.push(item);
                        model.held.push(item);
                    }
                }
                Step::Send(which) if !rooms.is_empty() => {
                    let at = which.index(rooms.len());
                    let item = model.promised.remove(at);
                    assert_eq!(rooms.remove(at).send(item), Ok(()));
                    model.end(item);
                }
                Step::GiveBack(which) if !rooms.is_empty() => {
                    let at = which.index(rooms.len());
                    let item = model.promised.remove(at);
                    drop(rooms.remove(at));
                    model.held.retain(|&other| other != item);
                }
                Step::Send(_) | Step::GiveBack(_) => {}
                Step::SendBeyond { bytes } => {
                    let item = model.begin(bytes);
                    if model.is_closed {
                        assert_eq!(mailbox.send_beyond(item), Err(SendError::ShuttingDown));
                        continue;
                    }
                    assert_eq!(mailbox.send_beyond(item), Ok(()));
                    model.has_line = true;
                    model.end(item);
                }
                Step::Take => model.take(inbox.take(|item| item.bytes)),
                Step::Disarm => {
                    assert_eq!(inbox.disarm(), std::mem::take(&mut model.has_readiness));
                }
                Step::Close => {
                    mailbox.close();
                    model.is_closed = true;
                }
            }
            inbox.check_invariants();
            assert_eq!((inbox.count(), mailbox.has_line()), (model.sent.len(), model.has_line));
            let is_settled = model.held.is_empty() && !model.has_line;
            assert_eq!((inbox.is_settled(), mailbox.is_closed()), (is_settled, model.is_closed));
        }
    });
}

#[test]
fn an_id_survives_its_text_and_no_other_text_is_one() {
    let parts = (0..4096usize, 0..1usize << 22, 0..1u64 << 40);
    cases::check(256, parts, |(shard, slot, generation)| {
        let id = ConnectionId::new(Node::random(), shard, Address::new(slot, generation));
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(u128::from_str_radix(&text.replace('-', ""), 16), Ok(id.as_u128()));
        assert_eq!((id.shard(), id.address()), (shard, Address::new(slot, generation)));
    });
    let texts = prop_oneof![
        "\\PC{0,40}",
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-fA-F]{12}",
        "[0-9a-f+é-]{36}",
    ];
    cases::check(512, texts, |text: String| {
        let is_ours = || {
            let bits = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
            let dashes: Vec<_> = text.match_indices('-').map(|(at, _)| at).collect();
            // Version 8 and the variant of RFC 9562.
            let is_uuid = text.len() == 36 && dashes == [8, 13, 18, 23] && !text.contains('+');
            Some(is_uuid && bits >> 76 & 0xF == 8 && bits >> 62 & 0b11 == 0b10)
        };
        match text.parse::<ConnectionId>() {
            Ok(id) => assert_eq!(id.to_string(), text.to_lowercase()),
            Err(_) => assert_ne!(is_ours(), Some(true), "{text:?}"),
        }
    });
}
