//! What a connection holds, what it may count, and how it ends.

use std::time::Duration;

use super::reference::{Seen, State, close_frame, drive, expect, feed, walk};
use super::streams::{BINARY, CLOSE, CONTINUATION, LengthForm, PING, PONG, TEXT, frame};
use super::{KEY, origin, part, whole};
use crate::config::Limits;
use crate::error::Violation;
use crate::message::{CloseCode, Message};
use crate::protocol::{Event, MessageMode, Protocol, Received, lane};

/// Feeds bytes that must not end the connection; what came of them.
fn feed_open(protocol: &mut Protocol, bytes: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let state = feed(protocol, &mut bytes.to_vec(), &Limits::default(), origin(), &mut seen);
    assert_eq!(state, State::Open);
    seen
}

fn close_normally(protocol: &mut Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    protocol.close(CloseCode::NORMAL, "enough", &mut out, &Limits::default());
    out
}

#[test]
fn a_whole_frame_is_borrowed_from_the_input() {
    for opcode in [TEXT, BINARY] {
        let mut input = [whole(opcode, b"where it lies"), whole(opcode, b"x")].concat();
        let range = input.as_ptr_range();
        let mut piece = input.as_mut_slice();
        let (mut protocol, limits) = (Protocol::default(), Limits::default());
        let mut control = Vec::new();
        let event = protocol.receive(&mut piece, &mut control, &limits, origin());
        let Some(Event::Message(Received::Whole(message))) = event else {
            panic!("the lane was not taken: {event:?}");
        };
        assert_eq!(message.as_bytes(), b"where it lies");
        assert!(range.contains(&message.as_bytes().as_ptr()));
        assert_eq!(control.capacity(), 0);
        assert!(protocol.is_dormant());
    }
}

#[test]
fn the_lane_is_taken_again_after_every_detour() {
    let detours = [
        whole(PING, b"1"),
        whole(PONG, b""),
        [part(TEXT, b"a"), whole(PING, b""), whole(CONTINUATION, b"b")].concat(),
    ];
    for detour in detours {
        let mut input = [detour, whole(BINARY, b"whole")].concat();
        let (mut protocol, limits) = (Protocol::default(), Limits::default());
        let mut piece = input.as_mut_slice();
        let mut last = None;
        while let Some(Event::Message(message)) =
            protocol.receive(&mut piece, &mut Vec::new(), &limits, origin())
        {
            last = Some(message);
        }
        let Some(Received::Whole(message)) = last else { panic!("the engine was kept: {last:?}") };
        assert_eq!(message, Message::Binary(b"whole"));
    }
}

#[test]
fn it_is_dormant_at_a_message_boundary_and_nowhere_else() {
    let mut protocol = Protocol::default();
    assert!(protocol.is_dormant(), "before anything came");
    for (bytes, is_dormant) in [
        (whole(TEXT, b"a"), true),
        (whole(BINARY, b"")[..1].to_vec(), false),
        (whole(BINARY, b"")[1..].to_vec(), true),
        (whole(PING, b"p"), true),
        (whole(PONG, b""), true),
        (whole(PING, b"p")[..6].to_vec(), false),
        (whole(PING, b"p")[6..].to_vec(), true),
        (part(TEXT, b"a"), false),
        (whole(PING, b""), false),
        (part(CONTINUATION, b""), false),
        (whole(CONTINUATION, b"")[..5].to_vec(), false),
        (whole(CONTINUATION, b"")[5..].to_vec(), true),
        ([whole(TEXT, b"a"), vec![0x81]].concat(), false),
        (whole(TEXT, b"b")[1..].to_vec(), true),
    ] {
        feed_open(&mut protocol, &bytes);
        assert_eq!(protocol.is_dormant(), is_dormant, "after {bytes:02x?}");
    }
}

#[test]
fn closing_writes_a_close_frame_and_nothing_else() {
    let mut protocol = Protocol::default();
    assert_eq!(close_normally(&mut protocol), close_frame(1000, "enough"));
    assert_eq!(close_normally(&mut protocol), b"", "only once");
    assert!(protocol.is_dormant(), "a connection that awaits the peer's Close holds nothing");
}

#[test]
fn a_whole_close_is_taken_without_an_engine_unless_something_is_wrong_with_it() {
    let (limits, now) = (Limits::default(), origin());
    for code in (0..5100).chain([u16::MAX]) {
        let stream = whole(CLOSE, &[&code.to_be_bytes()[..], b"why"].concat());
        let walk = walk(&stream, &limits);
        let expected = expect(&stream, &walk, &limits);
        for mode in [MessageMode::Messages, MessageMode::Pieces] {
            expected.assert_met_by(&drive(mode, &stream, &[], &walk, &limits, now), &walk);
        }
        let is_simple = lane::take_close(&mut stream.clone().as_mut_slice()).is_some();
        assert_eq!(is_simple, CloseCode::from(code).is_sendable(), "{code}");
    }
}

#[test]
fn every_code_and_the_longest_reason_leave_as_they_are() {
    let reason = "é".repeat(61) + "!";
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999] {
        let mut out = Vec::new();
        let limits = Limits::default();
        Protocol::default().close(CloseCode::from(code), &reason, &mut out, &limits);
        assert_eq!(out, close_frame(code, &reason));
    }
}

#[test]
fn after_our_close_messages_are_read_and_pings_get_no_pong_until_the_peers_close() {
    let parts =
        [whole(TEXT, b"late"), whole(PING, b"?"), part(TEXT, b"a"), whole(CONTINUATION, b"b")];
    let answer = whole(CLOSE, &[&1000u16.to_be_bytes()[..], b"enough"].concat());
    let stream = [parts.concat(), answer].concat();
    let expected = [
        Seen::Text("late".to_owned()),
        Seen::Text("ab".to_owned()),
        Seen::Close(1000, "enough".to_owned()),
    ];
    for cut in 0..stream.len() {
        let mut protocol = Protocol::default();
        let _ = close_normally(&mut protocol);
        let mut seen = Vec::new();
        for piece in [&stream[..cut], &stream[cut..]] {
            let (limits, now) = (Limits::default(), origin());
            let state = feed(&mut protocol, &mut piece.to_vec(), &limits, now, &mut seen);
            assert_eq!(state == State::Over, seen.len() == 3, "cut at {cut}");
        }
        assert_eq!(seen, expected, "cut at {cut}");
    }
}

#[test]
fn messages_after_our_close_are_not_added_up() {
    let limits = Limits { max_message_bytes: 10, max_frame_bytes: 10, ..Limits::default() };
    let mut protocol = Protocol::default();
    protocol.close(CloseCode::NORMAL, "", &mut Vec::new(), &limits);
    let mut late = [whole(BINARY, &[0; 8]), part(TEXT, b"12345678"), whole(CONTINUATION, b"90")]
        .concat()
        .repeat(3);
    let mut seen = Vec::new();
    let state = feed(&mut protocol, &mut late, &limits, origin(), &mut seen);
    assert_eq!((state, seen.len()), (State::Open, 6), "{seen:?}");
}

#[test]
fn what_is_kept_of_a_message_is_what_has_come_of_it_and_nothing_once_it_has_ended() {
    for has_closed in [false, true] {
        let mut protocol = Protocol::default();
        if has_closed {
            let _ = close_normally(&mut protocol);
        }
        for opcode in [TEXT, BINARY, TEXT] {
            let last = whole(CONTINUATION, &[b'c'; 50]);
            let (begun, rest) = last.split_at(26);
            let steps = [
                (part(opcode, &[b'a'; 70]), 70),
                (whole(PING, b"in between"), 70),
                (part(CONTINUATION, &[b'b'; 30]), 100),
                (begun.to_vec(), 120),
                (rest.to_vec(), 0),
                (whole(opcode, &[b'd'; 40]), 0),
            ];
            for (bytes, kept_bytes) in steps {
                let _ = feed_open(&mut protocol, &bytes);
                assert_eq!(protocol.kept_bytes(), kept_bytes, "closed: {has_closed}");
            }
        }
    }
}

#[test]
fn our_close_may_come_anywhere_in_the_peers_stream() {
    let stream = [
        whole(TEXT, b"one"),
        whole(PING, b"?"),
        part(BINARY, b"tw"),
        whole(CONTINUATION, b"o"),
        whole(CLOSE, &1001u16.to_be_bytes()),
    ]
    .concat();
    let ping_end = whole(TEXT, b"one").len() + whole(PING, b"?").len();
    for cut in 0..stream.len() {
        let mut protocol = Protocol::default();
        let mut seen = feed_open(&mut protocol, &stream[..cut]);
        assert_eq!(close_normally(&mut protocol), close_frame(1000, "enough"), "cut at {cut}");
        let mut rest = stream[cut..].to_vec();
        let (limits, now) = (Limits::default(), origin());
        assert_eq!(feed(&mut protocol, &mut rest, &limits, now, &mut seen), State::Over);
        let pong = Seen::Control(vec![0x8A, 1, b'?']);
        let mut expected = vec![
            Seen::Text("one".to_owned()),
            pong.clone(),
            Seen::Binary(b"two".to_vec()),
            // It crossed ours: both have said all, no answer is owed.
            Seen::Close(1001, String::new()),
        ];
        if cut < ping_end {
            expected.retain(|seen| *seen != pong);
        }
        assert_eq!(seen, expected, "cut at {cut}");
    }
}

#[test]
fn the_peers_close_is_answered_once_and_nothing_is_held_meanwhile() {
    let close = whole(CLOSE, &4000u16.to_be_bytes());
    for cut in 0..close.len() {
        let (mut protocol, limits) = (Protocol::default(), Limits::default());
        let (mut control, mut heard) = (Vec::new(), Vec::new());
        for piece in [&close[..cut], &close[cut..]] {
            let mut input = piece.to_vec();
            let mut input = input.as_mut_slice();
            heard.extend(match protocol.receive(&mut input, &mut control, &limits, origin()) {
                Some(Event::Close(code, _)) => Some(u16::from(code)),
                _ => None,
            });
        }
        assert_eq!(heard, [4000]);
        assert_eq!(control, b"", "the answer waits for what is still to be sent");
        assert!(protocol.is_dormant(), "nothing is held any more");
        let mut pings = whole(PING, b"p");
        let skimmed = protocol.skim(&mut pings, &mut None, &mut control, &limits, origin());
        assert_eq!((skimmed, control.len()), (Ok(false), 0), "what comes after it is not heard");
        assert_eq!(close_normally(&mut protocol), close_frame(1000, "enough"));
        assert_eq!(close_normally(&mut protocol), b"", "it was answered");
    }
}

#[test]
fn a_close_without_a_code_is_answered_without_one() {
    let mut out = Vec::new();
    Protocol::default().close(CloseCode::NO_STATUS, "", &mut out, &Limits::default());
    assert_eq!(out, [0x88, 0]);
}

#[test]
fn a_violation_after_our_close_gets_no_second_close() {
    let mut protocol = Protocol::default();
    let _ = close_normally(&mut protocol);
    let limits = Limits::default();
    let mut input = vec![0xFF; 20];
    let event = protocol.receive(&mut input.as_mut_slice(), &mut Vec::new(), &limits, origin());
    assert!(matches!(event, Some(Event::Violation(Violation::ReservedBits))));
    assert_eq!(close_normally(&mut protocol), b"");
}

/// How many of these frames are taken before 1008, all at one time; `None`: all.
fn taken_before_1008(frames: &[Vec<u8>], limits: &Limits) -> Option<usize> {
    let mut protocol = Protocol::default();
    let now = origin();
    frames.iter().position(|bytes| {
        let mut seen = Vec::new();
        let state = feed(&mut protocol, &mut bytes.clone(), limits, now, &mut seen);
        assert_eq!(state == State::Over, seen.contains(&Seen::Failure(1008)), "{seen:?}");
        state == State::Over
    })
}

#[test]
fn frames_without_data_are_counted_and_others_are_not() {
    let limits = Limits { max_empty_frames_per_second: 3, ..Limits::default() };
    for idle in [whole(PING, b"p"), whole(PONG, b"")] {
        assert_eq!(taken_before_1008(&vec![idle.clone(); 3], &limits), None);
        assert_eq!(taken_before_1008(&vec![idle; 4], &limits), Some(3));
    }
    let mut empty = vec![part(CONTINUATION, b""); 4];
    empty[0] = part(TEXT, b"");
    assert_eq!(taken_before_1008(&empty, &limits), Some(3));
    let mut full = vec![part(CONTINUATION, b"x"); 40];
    full[0] = part(TEXT, b"x");
    assert_eq!(taken_before_1008(&full, &limits), None);
    assert_eq!(taken_before_1008(&vec![whole(TEXT, b""); 40], &limits), None);
}

#[test]
fn the_budget_of_idle_frames_is_full_again_after_a_second_and_not_before() {
    let limits = Limits { max_empty_frames_per_second: 3, ..Limits::default() };
    let start = origin();
    let mut protocol = Protocol::default();
    let mut feed_at = |millis: u64, bytes: &[u8]| {
        let now = start + Duration::from_millis(millis);
        feed(&mut protocol, &mut bytes.to_vec(), &limits, now, &mut Vec::new())
    };
    let pings = whole(PING, b"").repeat(3);
    for millis in [0, 1000, 2500, 3500] {
        assert_eq!(feed_at(millis, &pings), State::Open, "at {millis} ms");
        assert_eq!(feed_at(millis + 999, &whole(TEXT, b"a")), State::Open);
    }
    assert_eq!(feed_at(4499, &whole(PING, b"")), State::Over, "one more in the last second");
}

#[test]
fn a_clock_that_stands_still_or_goes_back_grants_nothing() {
    let limits = Limits { max_empty_frames_per_second: 1, ..Limits::default() };
    let start = origin() + Duration::from_secs(10);
    let mut protocol = Protocol::default();
    let mut ping = |now| feed(&mut protocol, &mut whole(PING, b""), &limits, now, &mut Vec::new());
    assert_eq!(ping(start), State::Open);
    assert_eq!(ping(start - Duration::from_secs(5)), State::Over);
}

#[test]
fn a_message_may_have_as_many_fragments_as_allowed_and_no_more() {
    let limits = Limits { max_fragments: 3, ..Limits::default() };
    let fragments = |count: usize| {
        let mut frames = vec![part(CONTINUATION, b"x"); count];
        frames[0] = part(BINARY, b"x");
        frames[count - 1] = whole(CONTINUATION, b"x");
        frames
    };
    assert_eq!(taken_before_1008(&fragments(3), &limits), None);
    assert_eq!(taken_before_1008(&fragments(4), &limits), Some(3));
    let two_messages = [fragments(3), fragments(3)].concat();
    assert_eq!(taken_before_1008(&two_messages, &limits), None);
}

#[test]
fn control_frames_are_taken_whatever_the_frame_limit_is() {
    let limits = Limits { max_message_bytes: 10, max_frame_bytes: 10, ..Limits::default() };
    let stream = whole(PING, &[1; 125]);
    let walk = walk(&stream, &limits);
    let seen = drive(MessageMode::Messages, &stream, &[], &walk, &limits, origin());
    assert!(matches!(&seen[..], [Seen::Control(pong)] if pong.len() == 127), "{seen:?}");
}

#[test]
fn a_small_frame_limit_holds_for_data_frames_all_the_same() {
    let limits = Limits { max_message_bytes: 300, max_frame_bytes: 64, ..Limits::default() };
    for (payload_bytes, expected) in [(64, None), (65, Some(Seen::Failure(1009)))] {
        let mut header = whole(BINARY, &vec![0; payload_bytes])[..6].to_vec();
        let mut seen = Vec::new();
        let _ = feed(&mut Protocol::default(), &mut header, &limits, origin(), &mut seen);
        assert_eq!(seen.pop(), expected, "{payload_bytes} bytes");
    }
}

#[test]
fn a_fragment_that_makes_a_message_too_big_is_refused_on_its_header() {
    let limits = Limits { max_message_bytes: 10, max_frame_bytes: 10, ..Limits::default() };
    let mut stream = [part(BINARY, &[1; 8]), whole(CONTINUATION, &[1; 3])[..6].to_vec()].concat();
    let mut seen = Vec::new();
    let state = feed(&mut Protocol::default(), &mut stream, &limits, origin(), &mut seen);
    assert_eq!((state, seen), (State::Over, vec![Seen::Failure(1009)]));
}

#[test]
fn a_frame_is_unmasked_with_any_key() {
    for key in [[0; 4], [0xFF; 4], KEY] {
        let bytes = frame(0x82, &[0, 1, 2, 250, 251, 252, 253], key, LengthForm::Shortest);
        let seen = feed_open(&mut Protocol::default(), &bytes);
        assert_eq!(seen, [Seen::Binary(vec![0, 1, 2, 250, 251, 252, 253])]);
    }
}
