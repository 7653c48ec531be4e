//! Input that waits for an answer that comes later: skimmed for pings, it means what it meant.

use super::reference::{Seen, State, feed_partly};
use super::streams::{self, Choices, Manners};
use super::{MessageMode, for_seeds, origin, random_bytes};
use crate::config::Limits;
use crate::protocol::Protocol;

/// What the peer said, and what it was answered without anybody being asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    said: Vec<Seen>,
    pongs: Vec<u8>,
}

impl Heard {
    fn new(seen: Vec<Seen>) -> Self {
        let mut heard = Self::default();
        for seen in seen {
            match seen {
                Seen::Control(bytes) => heard.pongs.extend(bytes),
                said => heard.said.push(said),
            }
        }
        heard
    }
}

/// Feeds the stream byte by byte. Where `waits` says so after something was heard, what comes next
/// waits and is skimmed, as much of it as has come by then, and then the rest.
fn drive(
    stream: &[u8],
    mode: MessageMode,
    limits: &Limits,
    mut waits: impl FnMut() -> bool,
) -> Heard {
    let now = origin();
    let mut protocol = Protocol::default();
    protocol.hand_out(mode);
    let (mut seen, mut partial) = (Vec::new(), None);
    let mut input = stream.to_vec();
    while !input.is_empty() {
        let before = (seen.len(), partial.is_some());
        let mut used = 0;
        while used < input.len() && before == (seen.len(), partial.is_some()) {
            let byte = &mut input[used..=used];
            let state = feed_partly(&mut protocol, byte, limits, now, (&mut seen, &mut partial));
            assert_eq!(state, State::Open, "a polite stream goes on");
            used += 1;
        }
        input.drain(..used);
        if waits() {
            let (mut control, mut skimmed) = (Vec::new(), None);
            let late = input.split_off(input.len() / 2);
            for part in [Vec::new(), late] {
                input.extend(part);
                let found = protocol.skim(&mut input, &mut skimmed, &mut control, limits, now);
                assert_eq!(found, Ok(false), "a polite stream holds no Close");
            }
            seen.push(Seen::Control(control));
        }
    }
    Heard::new(seen)
}

#[test]
fn input_that_is_skimmed_on_the_way_means_the_same_and_its_pings_are_answered_once() {
    let limits = Limits::default();
    for_seeds(200, |seed| {
        let bytes = random_bytes(seed, 4000);
        let mut choices = Choices(&bytes);
        let stream = streams::stream(&mut choices, &limits, Manners::Polite, 12);
        for mode in [MessageMode::Messages, MessageMode::Pieces] {
            let expected = drive(&stream, mode, &limits, || false);
            let mut coins = random_bytes(seed + 1, 1000).into_iter().cycle();
            let mut toss = || coins.next().is_some_and(|coin| coin % 2 == 0);
            assert_eq!(drive(&stream, mode, &limits, &mut toss), expected, "{mode:?}");
            assert_eq!(drive(&stream, mode, &limits, || true), expected, "{mode:?}");
        }
    });
}
