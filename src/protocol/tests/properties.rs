//! Generated streams, frame by frame: right ones, and nearly right ones. A failure is shown as the
//! frames that it takes.

use proptest::prelude::*;

use super::reference::{expect, walk};
use super::streams::{BINARY, CLOSE, CONTINUATION, LengthForm, PING, PONG, TEXT, ample, frame};
use super::{assert_same_cut_anywhere, origin};
use crate::cases;

/// A payload, short enough to be read when it is printed.
#[derive(Clone, Debug)]
enum Payload {
    /// So many bytes of text, of characters of one to four bytes.
    Text(usize),
    /// The same, with one byte spoilt.
    Spoilt(usize, prop::sample::Index),
    /// The same, cut off in the middle of a character at its end.
    Cut(usize),
    Bytes(usize),
    Close(Option<u16>, &'static [u8]),
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        let text = |length| "aé€🦅".bytes().cycle().take(length).collect::<Vec<_>>();
        // Ten bytes a round: the rest is what does not break a character.
        let whole = |length: usize| match length % 10 {
            3..6 => text(length / 10 * 10 + 3),
            6..10 => text(length / 10 * 10 + 6),
            2 => text(length / 10 * 10 + 1),
            _ => text(length),
        };
        match *self {
            Self::Text(length) => whole(length),
            Self::Spoilt(length, at) => {
                let mut text = whole(length.max(1));
                let at = at.index(text.len());
                text[at] = 0xFF;
                text
            }
            Self::Cut(length) => [whole(length), b"\xF0\x9F\xA6".to_vec()].concat(),
            Self::Bytes(length) => (0..=255).cycle().take(length).collect(),
            Self::Close(None, rest) => rest.to_vec(),
            Self::Close(Some(code), reason) => [&code.to_be_bytes(), reason].concat(),
        }
    }
}

#[derive(Clone, Debug)]
enum Item {
    /// A whole message in fragments that begin where `cuts` say, a ping before each but the first.
    Message {
        opcode: u8,
        payload: Payload,
        cuts: Vec<prop::sample::Index>,
        pings: bool,
    },
    Control {
        opcode: u8,
        length: usize,
    },
    Close(Payload),
    /// One frame, whatever it may mean there, with its header's bits turned.
    Odd {
        first: u8,
        payload: Payload,
        fault: Fault,
    },
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Unmasked,
    Reserved(u8),
    /// Longer than can ever come.
    Endless,
    LongForm,
}

const REASONS: &[&[u8]] = &[b"", b"why", "é".as_bytes(), b"\xFF", &[b'x'; 124]];

type Keyed = (Item, [u8; 4]);

impl Item {
    fn put(&self, key: [u8; 4], out: &mut Vec<u8>) {
        let whole = |first: u8, payload: &[u8]| frame(first, payload, key, LengthForm::Shortest);
        match self {
            Self::Message { opcode, payload, cuts, pings } => {
                let payload = payload.bytes();
                let mut cuts: Vec<_> =
                    cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
                cuts.sort_unstable();
                let mut start = 0;
                for (number, end) in cuts.iter().copied().chain([payload.len()]).enumerate() {
                    if number > 0 && *pings {
                        out.extend(whole(0x80 | PING, b"?"));
                    }
                    let fin = if number == cuts.len() { 0x80 } else { 0 };
                    let opcode = if number == 0 { *opcode } else { CONTINUATION };
                    out.extend(whole(fin | opcode, &payload[start..end]));
                    start = end;
                }
            }
            Self::Control { opcode, length } => {
                out.extend(whole(0x80 | opcode, &vec![b'!'; *length]));
            }
            Self::Close(payload) => out.extend(whole(0x80 | CLOSE, &payload.bytes())),
            Self::Odd { first, payload, fault } => {
                let payload = payload.bytes();
                match *fault {
                    Fault::None => out.extend(whole(*first, &payload)),
                    Fault::Reserved(bits) => out.extend(whole(first | bits, &payload)),
                    Fault::LongForm => {
                        out.extend(frame(*first, &payload, key, LengthForm::EightBytes));
                    }
                    Fault::Unmasked => {
                        out.extend([*first, u8::try_from(payload.len().min(125)).unwrap_or(0)]);
                        out.extend(payload.iter().take(125));
                    }
                    Fault::Endless => {
                        out.extend([*first, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255]);
                        out.extend(key);
                        out.extend(payload);
                    }
                }
            }
        }
    }
}

/// Lengths that matter, and short ones.
fn length(large: &'static [usize]) -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..24usize, 2 => 120..132usize, 1 => prop::sample::select(large)]
}

fn item(large: &'static [usize]) -> impl Strategy<Value = Keyed> {
    let cuts = || {
        let index = any::<prop::sample::Index>();
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(index, 1..4)]
    };
    let text = prop_oneof![
        12 => length(large).prop_map(Payload::Text),
        1 => (length(large), any::<prop::sample::Index>())
            .prop_map(|(length, at)| Payload::Spoilt(length, at)),
        1 => length(large).prop_map(Payload::Cut),
    ];
    let binary = length(large).prop_map(Payload::Bytes);
    let texts = (text, cuts(), any::<bool>()).prop_map(|(payload, cuts, pings)| Item::Message {
        opcode: TEXT,
        payload,
        cuts,
        pings,
    });
    let binaries = (binary, cuts(), any::<bool>())
        .prop_map(|(payload, cuts, pings)| Item::Message { opcode: BINARY, payload, cuts, pings });
    let controls = (prop_oneof![Just(PING), Just(PONG)], prop_oneof![0..8usize, Just(125)])
        .prop_map(|(opcode, length)| Item::Control { opcode, length });
    let codes =
        prop::sample::select(&[1000u16, 1001, 1004, 1005, 1006, 1011, 2999, 3000, 4999, 5000]);
    let reasons = prop::sample::select(REASONS);
    let closes = prop_oneof![
        Just(Payload::Close(None, b"")),
        Just(Payload::Close(None, b"\x03")),
        (codes, reasons).prop_map(|(code, reason)| Payload::Close(Some(code), reason)),
    ]
    .prop_map(Item::Close);
    let faults = prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::Unmasked),
        1 => prop::sample::select(&[0x40u8, 0x20, 0x10]).prop_map(Fault::Reserved),
        1 => Just(Fault::Endless),
        1 => Just(Fault::LongForm),
    ];
    let odd = (any::<u8>(), 0..140usize, faults).prop_map(|(first, length, fault)| Item::Odd {
        first: first & 0x8F,
        payload: Payload::Text(length),
        fault,
    });
    let items = prop_oneof![8 => texts, 5 => binaries, 3 => controls, 1 => closes, 2 => odd];
    // A mask of zeros is legal, and easier to read.
    (items, prop_oneof![1 => Just([0; 4]), 3 => any::<[u8; 4]>()])
}

fn limits() -> impl Strategy<Value = (usize, usize)> {
    prop::sample::select(&[(1 << 20, 1 << 20), (64, 64), (300, 130), (130, 300)])
}

fn stream(items: &[Keyed]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (item, key) in items {
        item.put(*key, &mut stream);
    }
    stream
}

#[test]
fn short_streams_of_frames_mean_the_same_cut_anywhere_and_to_tungstenite_alone() {
    let now = origin();
    let items = prop::collection::vec(item(&[0]), 1..6);
    cases::check(96, (items, limits()), |(items, limits)| {
        let (mut stream, limits) = (stream(&items), ample(limits));
        stream.truncate(260);
        assert_same_cut_anywhere(&stream, &limits, now);
    });
}

#[test]
fn long_streams_of_frames_mean_the_same_cut_at_random_and_to_tungstenite_alone() {
    let now = origin();
    let items = prop::collection::vec(item(&[1000, 65_535, 65_536, 65_537]), 1..24);
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..12);
    cases::check(48, (items, limits(), cuts), |(items, limits, cuts)| {
        let (stream, limits) = (stream(&items), ample(limits));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let walk = walk(&stream, &limits);
        let expected = expect(&stream, &walk, &limits);
        expected.assert_met(&stream, &cuts, &walk, &limits, now);
        expected.assert_met(&stream, &[], &walk, &limits, now);
    });
}
