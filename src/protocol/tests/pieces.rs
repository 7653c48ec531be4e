//! Messages in pieces: what is handed out when, from where, and what is refused within a message.

use super::reference::{Seen, State, close_frame, feed_partly};
use super::streams::{BINARY, CLOSE, CONTINUATION, PING, TEXT};
use super::{KEY, origin, part, whole};
use crate::config::Limits;
use crate::error::Violation;
use crate::message::CloseCode;
use crate::protocol::{Event, MessageMode, Protocol};

fn protocol() -> Protocol {
    let mut protocol = Protocol::default();
    protocol.hand_out(MessageMode::Pieces);
    protocol
}

/// A piece: its bytes, whether it is the first, whether it is the last.
type Seized = (Vec<u8>, bool, bool);

/// The pieces of an input that breaks no rule; of a whole frame, too.
fn pieces(protocol: &mut Protocol, input: &[u8]) -> Vec<Seized> {
    let mut bytes = input.to_vec();
    let mut input = bytes.as_mut_slice();
    let mut pieces = Vec::new();
    loop {
        match protocol.receive(&mut input, &mut Vec::new(), &Limits::default(), origin()) {
            Some(Event::Piece(piece)) => {
                let fragment = piece.as_chunk();
                let bytes = fragment.as_bytes().to_vec();
                pieces.push((bytes, fragment.is_first(), fragment.is_last()));
            }
            Some(Event::Message(message)) => {
                pieces.push((message.as_message().as_bytes().to_vec(), true, true));
            }
            None => return pieces,
            other => panic!("no rule was broken: {other:?}"),
        }
    }
}

/// What is wrong with the input.
fn violation(limits: &Limits, input: &[u8]) -> Option<Violation> {
    let (mut protocol, mut bytes) = (protocol(), input.to_vec());
    let mut input = bytes.as_mut_slice();
    loop {
        match protocol.receive(&mut input, &mut Vec::new(), limits, origin()) {
            Some(Event::Violation(violation)) => return Some(violation),
            Some(_) => {}
            None => return None,
        }
    }
}

fn seized(bytes: &[u8], is_first: bool, is_last: bool) -> Seized {
    (bytes.to_vec(), is_first, is_last)
}

#[test]
fn a_piece_is_handed_out_as_soon_as_its_bytes_are_there_and_nothing_is_kept() {
    let stream = whole(BINARY, b"abcdefgh");
    let mut protocol = protocol();
    assert_eq!(pieces(&mut protocol, &stream[..6]), [], "a header alone is no piece");
    assert_eq!(pieces(&mut protocol, &stream[6..9]), [seized(b"abc", true, false)]);
    assert_eq!(pieces(&mut protocol, &stream[9..13]), [seized(b"defg", false, false)]);
    assert_eq!(pieces(&mut protocol, &stream[13..]), [seized(b"h", false, true)]);
    assert!(protocol.is_dormant());
}

#[test]
fn pieces_are_borrowed_from_the_input() {
    let mut bytes = [part(TEXT, b"one"), whole(CONTINUATION, b"two")].concat();
    let range = bytes.as_ptr_range();
    let (mut protocol, mut input) = (protocol(), bytes.as_mut_slice());
    for text in ["one", "two"] {
        let event = protocol.receive(&mut input, &mut Vec::new(), &Limits::default(), origin());
        let Some(Event::Piece(piece)) = event else { panic!("a piece, not {event:?}") };
        assert_eq!(piece.as_chunk().as_text(), Some(text));
        assert!(range.contains(&piece.as_chunk().as_bytes().as_ptr()));
    }
}

#[test]
fn a_whole_frame_is_one_piece_even_after_one_that_was_not() {
    let stream = [part(BINARY, b"1"), whole(CONTINUATION, b"2"), whole(TEXT, b"whole")].concat();
    let expected =
        [seized(b"1", true, false), seized(b"2", false, true), seized(b"whole", true, true)];
    assert_eq!(pieces(&mut protocol(), &stream), expected);
}

#[test]
fn an_empty_message_is_one_empty_piece_however_it_comes() {
    for opcode in [TEXT, BINARY] {
        assert_eq!(pieces(&mut protocol(), &whole(opcode, b"")), [seized(b"", true, true)]);
        let fragments =
            [part(opcode, b""), part(CONTINUATION, b""), whole(CONTINUATION, b"")].concat();
        assert_eq!(pieces(&mut protocol(), &fragments), [seized(b"", true, true)]);
        // Its last fragment was the only one with nothing in it.
        let fragments = [part(opcode, b"a"), whole(CONTINUATION, b"")].concat();
        let expected = [seized(b"a", true, false), seized(b"", false, true)];
        assert_eq!(pieces(&mut protocol(), &fragments), expected);
    }
}

#[test]
fn a_character_that_a_cut_runs_through_is_a_piece_of_its_own() {
    let stream = whole(TEXT, "a🦅b".as_bytes());
    for cut in 8..11 {
        let mut protocol = protocol();
        assert_eq!(pieces(&mut protocol, &stream[..cut]), [seized(b"a", true, false)]);
        let expected = [seized("🦅".as_bytes(), false, false), seized(b"b", false, true)];
        assert_eq!(pieces(&mut protocol, &stream[cut..]), expected, "cut at {cut}");
    }
}

#[test]
fn a_character_may_be_spread_over_fragments_with_pings_between() {
    let eagle = "🦅".as_bytes();
    let mut stream = part(TEXT, &eagle[..1]);
    for byte in &eagle[1..3] {
        stream.extend([whole(PING, b"?"), part(CONTINUATION, &[*byte])].concat());
    }
    stream.extend([part(CONTINUATION, b""), whole(CONTINUATION, &eagle[3..])].concat());
    assert_eq!(pieces(&mut protocol(), &stream), [seized(eagle, true, true)]);
}

#[test]
fn limits_count_in_pieces_too() {
    let limits =
        Limits { max_message_bytes: 10, max_frame_bytes: 8, max_fragments: 3, ..Limits::default() };
    let head = |bytes: Vec<u8>| bytes[..6].to_vec();
    let two = part(BINARY, &[1; 8]);
    let fragments = |count| [part(BINARY, b"x"), part(CONTINUATION, b"x").repeat(count)].concat();
    for (stream, expected) in [
        (head(whole(BINARY, &[0; 9])), Some(Violation::TooBig)),
        (head(whole(BINARY, &[0; 8])), None),
        ([two.clone(), head(whole(CONTINUATION, &[0; 3]))].concat(), Some(Violation::TooBig)),
        ([two, head(whole(CONTINUATION, &[0; 2]))].concat(), None),
        (fragments(2), None),
        (fragments(3), Some(Violation::TooManyFragments)),
    ] {
        assert_eq!(violation(&limits, &stream), expected, "{stream:02x?}");
    }
}

#[test]
fn the_budget_of_idle_frames_counts_in_pieces_too() {
    let limits = Limits { max_empty_frames_per_second: 3, ..Limits::default() };
    for idle in [whole(PING, b""), part(CONTINUATION, b"")] {
        let begun = part(TEXT, b"a");
        let within = [begun.clone(), idle.repeat(3)].concat();
        assert_eq!(violation(&limits, &within), None);
        let beyond = [begun, idle.repeat(4)].concat();
        assert_eq!(violation(&limits, &beyond), Some(Violation::TooManyIdleFrames));
    }
}

#[test]
fn our_close_may_come_anywhere_in_a_message_and_the_peers_answer_is_heard() {
    let answer = whole(CLOSE, &1000u16.to_be_bytes());
    let message = [part(TEXT, "é1".as_bytes()), whole(PING, b"?"), whole(CONTINUATION, b"2")];
    let ping_end = message[..2].concat().len();
    let stream = [message.concat(), whole(BINARY, b"late"), answer].concat();
    for cut in 0..stream.len() {
        let (limits, now) = (Limits::default(), origin());
        let (mut protocol, mut seen, mut partial) = (protocol(), Vec::new(), None);
        let (mut before, mut after) = (stream[..cut].to_vec(), stream[cut..].to_vec());
        let seeing = (&mut seen, &mut partial);
        let state = feed_partly(&mut protocol, &mut before, &limits, now, seeing);
        assert_eq!(state, State::Open);
        let mut out = Vec::new();
        protocol.close(CloseCode::NORMAL, "enough", &mut out, &limits);
        assert_eq!(out, close_frame(1000, "enough"), "cut at {cut}");
        let seeing = (&mut seen, &mut partial);
        let state = feed_partly(&mut protocol, &mut after, &limits, now, seeing);
        assert_eq!(state, State::Over, "cut at {cut}");
        let mut expected = vec![
            Seen::Control(vec![0x8A, 1, b'?']),
            Seen::Text("é12".to_owned()),
            Seen::Binary(b"late".to_vec()),
            Seen::Close(1000, String::new()),
        ];
        if cut < ping_end {
            expected.remove(0);
        }
        assert_eq!(seen, expected, "cut at {cut}");
        assert!(protocol.is_dormant());
    }
}

#[test]
fn the_peers_close_within_a_message_is_answered() {
    let mut stream = [part(TEXT, b"never "), whole(CLOSE, &4000u16.to_be_bytes())].concat();
    let (limits, mut seen, mut partial) = (Limits::default(), Vec::new(), None);
    let seeing = (&mut seen, &mut partial);
    let state = feed_partly(&mut protocol(), &mut stream, &limits, origin(), seeing);
    assert_eq!(state, State::Over);
    let answer = Seen::Control(close_frame(4000, ""));
    assert_eq!(seen, [Seen::Close(4000, String::new()), answer]);
    assert_eq!(partial, Some(Seen::Text("never ".to_owned())));
}

#[test]
fn a_frame_larger_than_any_memory_is_handed_out_as_it_comes() {
    let limits =
        Limits { max_message_bytes: usize::MAX, max_frame_bytes: usize::MAX, ..Limits::default() };
    let mut protocol = protocol();
    let mut stream = [&[0x82, 0xFF][..], &(1u64 << 60).to_be_bytes(), &KEY].concat();
    let mut first = 0;
    for _ in 0..100 {
        stream.resize(stream.len() + 999, 0);
        let mut input = stream.as_mut_slice();
        let event = protocol.receive(&mut input, &mut Vec::new(), &limits, origin());
        let Some(Event::Piece(piece)) = event else { panic!("a piece, not {event:?}") };
        let masks = KEY.iter().cycle().skip(first);
        assert!(piece.as_chunk().as_bytes().iter().eq(masks.take(999)));
        assert!(!piece.as_chunk().is_last());
        first += 999;
        stream.clear();
    }
}
