//! The protocol without sockets: every stream is fed in pieces, and must mean the same however it
//! is cut, to our three ways through it as to tungstenite alone.

mod closing;
mod encoder;
mod operations;
mod pieces;
mod properties;
mod reference;
mod skimming;
mod streams;

use std::time::Instant;

use self::reference::{Seen, drive, expect, walk};
use self::streams::{Choices, LengthForm, Manners, frame};
use crate::config::Limits;
use crate::protocol::MessageMode;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// How many short streams are cut in every place, and how many long ones in some.
const SHORT_STREAM_COUNT: u64 = 1200;
const LONG_STREAM_COUNT: u64 = 120;

/// Some beginning of time; all else is reckoned from it.
#[expect(clippy::disallowed_methods, reason = "the standard library offers no other instant")]
fn origin() -> Instant {
    Instant::now()
}

/// Bytes of a xorshift generator.
fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// Runs one case for each seed; a case that fails names its seed, and can be run alone by setting
/// `PEREGRINE_SEED` to it.
fn for_seeds(count: u64, case: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let only = std::env::var("PEREGRINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("replay it with PEREGRINE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A whole, final frame with a mask.
fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload, KEY, LengthForm::Shortest)
}

/// A frame that is not final.
fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, payload, KEY, LengthForm::Shortest)
}

/// The stream means what it means to tungstenite alone: cut once, in every place, and everywhere.
fn assert_same_cut_anywhere(stream: &[u8], limits: &Limits, now: Instant) {
    let walk = walk(stream, limits);
    let expected = expect(stream, &walk, limits);
    for cut in 0..=stream.len() {
        expected.assert_met(stream, &[cut], &walk, limits, now);
    }
    let everywhere: Vec<usize> = (0..stream.len()).collect();
    expected.assert_met(stream, &everywhere, &walk, limits, now);
}

#[test]
fn every_short_stream_means_the_same_cut_anywhere_and_to_tungstenite_alone() {
    let now = origin();
    for_seeds(SHORT_STREAM_COUNT, |seed| {
        let bytes = random_bytes(seed, 600);
        let mut choices = Choices(&bytes);
        let limits = streams::limits(&mut choices);
        let count = 1 + choices.below(5);
        let mut stream = streams::stream(&mut choices, &limits, Manners::Hostile, count);
        stream.truncate(400);
        assert_same_cut_anywhere(&stream, &limits, now);
    });
}

#[test]
fn every_long_stream_means_the_same_cut_at_random_and_to_tungstenite_alone() {
    let now = origin();
    for_seeds(LONG_STREAM_COUNT, |seed| {
        let bytes = random_bytes(seed ^ 0x5EED_0000, 40_000);
        let mut choices = Choices(&bytes);
        let limits = streams::limits(&mut choices);
        let mut stream = streams::stream(&mut choices, &limits, Manners::Polite, 100);
        stream.extend(streams::stream(&mut choices, &limits, Manners::Hostile, 10));
        let walk = walk(&stream, &limits);
        let expected = expect(&stream, &walk, &limits);
        for _ in 0..8 {
            let cuts = streams::cuts(&mut choices, stream.len());
            expected.assert_met(&stream, &cuts, &walk, &limits, now);
        }
    });
}

#[test]
fn every_input_of_the_fuzz_target_keeps_its_promise() {
    let now = origin();
    for_seeds(LONG_STREAM_COUNT, |seed| {
        reference::check(&random_bytes(seed ^ 0xF022, 500), now);
    });
}

#[test]
fn a_connection_keeps_its_promises_in_whatever_order_things_happen_to_it() {
    let now = origin();
    for_seeds(4 * SHORT_STREAM_COUNT, |seed| {
        operations::check(&random_bytes(seed ^ 0x0B5, 700), now);
    });
}

#[test]
fn limits_on_counts_act_in_the_same_place_wherever_a_stream_is_cut() {
    let now = origin();
    let mut policy_count = 0;
    for seed in 0..300 {
        let bytes = random_bytes(seed ^ 0xC0, 400);
        let mut choices = Choices(&bytes);
        let limits =
            Limits { max_fragments: 2, max_empty_frames_per_second: 2, ..Limits::default() };
        let stream = streams::stream(&mut choices, &limits, Manners::Hostile, 6);
        let walk = walk(&stream, &limits);
        for mode in [MessageMode::Messages, MessageMode::Pieces] {
            let at_once = drive(mode, &stream, &[], &walk, &limits, now);
            policy_count += usize::from(at_once.last() == Some(&Seen::Failure(1008)));
            for cut in 0..stream.len().min(300) {
                let in_two = drive(mode, &stream, &[cut], &walk, &limits, now);
                assert_eq!(in_two, at_once, "{mode:?}, seed {seed}, cut at {cut}");
            }
        }
    }
    assert!(policy_count > 20, "the limits were reached only {policy_count} times");
}

#[test]
fn the_generated_streams_reach_every_outcome() {
    let now = origin();
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..SHORT_STREAM_COUNT {
        let bytes = random_bytes(seed, 600);
        let mut choices = Choices(&bytes);
        let limits = streams::limits(&mut choices);
        let stream = streams::stream(&mut choices, &limits, Manners::Hostile, 5);
        for seen in
            drive(MessageMode::Messages, &stream, &[], &walk(&stream, &limits), &limits, now)
        {
            let kind = match seen {
                Seen::Text(_) => "text".to_owned(),
                Seen::Binary(_) => "binary".to_owned(),
                Seen::Control(_) => "control".to_owned(),
                Seen::Close(code, _) => format!("close {code}"),
                Seen::Failure(code) => format!("failure {code}"),
            };
            *counts.entry(kind).or_default() += 1;
        }
    }
    for kind in [
        "text",
        "binary",
        "control",
        "close 1000",
        "close 1002",
        "close 1005",
        "close 4999",
        "failure 1002",
        "failure 1007",
        "failure 1009",
    ] {
        assert!(counts.get(kind).is_some_and(|&count| count >= 5), "{kind}: {counts:?}");
    }
}
