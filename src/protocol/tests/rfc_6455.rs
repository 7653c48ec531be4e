//! The rules of RFC 6455, one after another: bytes, and what must come of them at every cut.

use super::reference::{Seen, close_frame, drive, walk};
use super::streams::{BINARY, CLOSE, CONTINUATION, LengthForm, PING, PONG, TEXT, frame};
use super::{KEY, origin, part, whole};
use crate::config::Limits;
use crate::protocol::Receipt;

/// The limits that the cases are made for.
fn limits() -> Limits {
    Limits { message_bytes: 1000, frame_bytes: 700, ..Limits::default() }
}

/// Feeds the stream cut in two in every place, and in single bytes, and compares.
fn assert_means(name: &str, stream: &[u8], expected: &[Seen]) {
    let (limits, now) = (limits(), origin());
    let walk = walk(stream, &limits);
    let everywhere: Vec<usize> = (0..stream.len()).collect();
    for receipt in [Receipt::Messages, Receipt::Pieces] {
        for cut in 0..=stream.len() {
            let seen = drive(receipt, stream, &[cut], &walk, &limits, now);
            assert_eq!(seen, expected, "{name}, {receipt:?}, cut at {cut}");
        }
        let seen = drive(receipt, stream, &everywhere, &walk, &limits, now);
        assert_eq!(seen, expected, "{name}, {receipt:?}, in bytes");
    }
}

/// As [`assert_means`], for streams of which all is wrong from the start.
fn assert_fails(name: &str, stream: &[u8], code: u16) {
    assert_means(name, stream, &[Seen::Failure(code)]);
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

/// A pong as the server sends it.
fn pong(payload: &[u8]) -> Seen {
    Seen::Control([&[0x8A, payload.len().to_le_bytes()[0]], payload].concat())
}

fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

#[test]
fn the_examples_of_section_5_7_are_read() {
    let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_means("a masked text", &hello, &[text("Hello")]);
    let pong_hello = [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_means("a masked pong", &pong_hello, &[]);
    let fragments = join(&[part(TEXT, b"Hel"), whole(CONTINUATION, b"lo")]);
    assert_means("a fragmented text", &fragments, &[text("Hello")]);
    assert_means("a ping", &whole(PING, b"Hello"), &[pong(b"Hello")]);
    let bytes = vec![0x5A; 256];
    assert_means("256 bytes", &whole(BINARY, &bytes), &[Seen::Binary(bytes)]);
}

#[test]
fn an_empty_message_is_a_message() {
    assert_means("text", &whole(TEXT, b""), &[text("")]);
    assert_means("binary", &whole(BINARY, b""), &[Seen::Binary(vec![])]);
    let fragments = join(&[part(TEXT, b""), part(CONTINUATION, b""), whole(CONTINUATION, b"")]);
    assert_means("fragments", &fragments, &[text("")]);
}

#[test]
fn control_frames_may_come_between_fragments() {
    let stream = join(&[
        part(BINARY, b"a"),
        whole(PING, b"1"),
        part(CONTINUATION, b"b"),
        whole(PONG, b"?"),
        whole(PING, b""),
        whole(CONTINUATION, b"c"),
        whole(TEXT, b"d"),
    ]);
    let pongs = Seen::Control(vec![0x8A, 1, b'1', 0x8A, 0]);
    assert_means("pings", &stream, &[pongs, Seen::Binary(b"abc".to_vec()), text("d")]);
}

#[test]
fn a_ping_is_answered_before_what_follows_it() {
    let longest = [7; 125];
    let stream = join(&[whole(TEXT, b"a"), whole(PING, &longest), whole(TEXT, b"b")]);
    assert_means("a ping between texts", &stream, &[text("a"), pong(&longest), text("b")]);
}

#[test]
fn a_character_may_be_spread_over_fragments() {
    let bytes = "€🦅".as_bytes();
    let mut frames: Vec<_> = bytes.iter().map(|byte| part(CONTINUATION, &[*byte])).collect();
    frames[0] = part(TEXT, &bytes[..1]);
    frames.push(whole(CONTINUATION, b""));
    assert_means("one byte each", &join(&frames), &[text("€🦅")]);
}

#[test]
fn text_that_is_not_utf_8_gets_1007() {
    for (name, bytes) in [
        ("a byte that is never legal", &b"ab\xFFcd"[..]),
        ("a continuation byte alone", b"\x80"),
        ("an overlong form", b"\xC0\xAF"),
        ("a surrogate", b"\xED\xA0\x80"),
        ("beyond Unicode", b"\xF4\x90\x80\x80"),
        ("a character cut short", "a€".as_bytes().split_last().expect("bytes").1),
    ] {
        assert_fails(name, &whole(TEXT, bytes), 1007);
        let fragments = join(&[part(TEXT, &bytes[..1]), whole(CONTINUATION, &bytes[1..])]);
        assert_fails(name, &fragments, 1007);
        // A binary message may hold it.
        assert_means(name, &whole(BINARY, bytes), &[Seen::Binary(bytes.to_vec())]);
    }
}

#[test]
fn a_text_is_refused_at_its_first_wrong_byte_and_not_before() {
    for (text, valid_bytes) in [
        (&b"abc\xFFabc"[..], 3),
        (b"\x80", 0),
        (b"\xE2\x82\xFF", 2),
        (b"\xE2\xE2", 1),
        (b"\xED\xA0\x80", 1),
        (b"a\xC0\x80", 1),
        (b"\xF0\x9F\xA6a", 3),
        (b"\xF4\x90\x80\x80", 1),
    ] {
        let (valid, wrong) = (&text[..valid_bytes], &text[..valid_bytes + 1]);
        // One byte more is to come.
        let mut frame = whole(TEXT, text);
        frame[1] += 1;
        assert_means("the bytes before", &frame[..6 + valid_bytes], &[]);
        assert_fails("in one frame", &frame[..7 + valid_bytes], 1007);
        let begun = part(TEXT, valid);
        assert_means("a fragment before", &begun, &[]);
        assert_fails("in one fragment", &part(TEXT, wrong), 1007);
        let split = join(&[begun, whole(PING, b""), part(CONTINUATION, &wrong[valid_bytes..])]);
        assert_means("in two", &split, &[pong(b""), Seen::Failure(1007)]);
    }
}

#[test]
fn reserved_bits_opcodes_and_missing_masks_get_1002_on_the_header_alone() {
    for bit in [0x40, 0x20, 0x10, 0x70] {
        for opcode in [TEXT, BINARY, CONTINUATION, PING, CLOSE] {
            assert_fails("a reserved bit", &whole(bit | opcode, b"ab")[..6], 1002);
        }
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_fails("a reserved opcode", &whole(opcode, b"ab")[..6], 1002);
    }
    for opcode in [TEXT, BINARY, PING, CLOSE] {
        assert_fails("no mask", &[0x80 | opcode, 2], 1002);
        assert_fails("no mask, no payload", &[0x80 | opcode, 0], 1002);
    }
}

#[test]
fn control_frames_in_fragments_or_too_long_get_1002_on_the_header_alone() {
    for opcode in [CLOSE, PING, PONG] {
        assert_fails("not final", &part(opcode, b"ab")[..6], 1002);
        assert_fails("126 bytes", &whole(opcode, &[b'x'; 126])[..8], 1002);
        let endless = [0x80 | opcode, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_fails("2^63 bytes", &endless, 1002);
    }
}

#[test]
fn fragments_out_of_order_get_1002_on_the_header_alone() {
    assert_fails("a continuation of nothing", &whole(CONTINUATION, b"ab")[..6], 1002);
    assert_fails("a part that continues nothing", &part(CONTINUATION, b"ab")[..6], 1002);
    for opcode in [TEXT, BINARY] {
        let begun = join(&[part(TEXT, b"a"), whole(opcode, b"b")[..6].to_vec()]);
        assert_fails("a message in a message", &begun, 1002);
        let ended = join(&[
            part(TEXT, b"a"),
            whole(CONTINUATION, b"b"),
            whole(CONTINUATION, b"c")[..6].to_vec(),
        ]);
        assert_means("a continuation too many", &ended, &[text("ab"), Seen::Failure(1002)]);
    }
}

#[test]
fn sizes_are_accepted_up_to_the_limit_and_get_1009_beyond() {
    let (frame_limit, message_limit) = (vec![b'x'; 700], vec![b'x'; 1000]);
    let longest = String::from_utf8(frame_limit.clone()).expect("ASCII");
    assert_means("a frame at the limit", &whole(TEXT, &frame_limit), &[text(&longest)]);
    assert_fails("a frame beyond, its header", &whole(BINARY, &[0; 701])[..8], 1009);
    let fits = join(&[part(BINARY, &message_limit[..700]), whole(CONTINUATION, &[b'x'; 300])]);
    assert_means("a message at the limit", &fits, &[Seen::Binary(message_limit)]);
    let exceeds = join(&[part(BINARY, &frame_limit), whole(CONTINUATION, &[b'x'; 301])]);
    assert_fails("a message beyond, its last header", &exceeds[..708 + 8], 1009);
    for high in [0x80, 0x7F, 0x01] {
        let endless = [0x82, 0xFF, high, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_fails("a length without end", &endless, 1009);
    }
}

#[test]
fn a_length_in_a_longer_form_than_needed_is_read_as_it_is() {
    // Section 5.2 forbids it to the sender, and obliges no receiver; tungstenite reads it too.
    for form in [LengthForm::TwoBytes, LengthForm::EightBytes] {
        assert_means("text", &frame(0x81, b"abc", KEY, form), &[text("abc")]);
        assert_means("ping", &frame(0x89, b"abc", KEY, form), &[pong(b"abc")]);
    }
}

#[test]
fn the_peers_close_is_answered_with_its_own_code() {
    let close = |code: u16, reason: &str| [&code.to_be_bytes(), reason.as_bytes()].concat();
    for code in [1000, 1001, 1003, 1007, 1011, 1013, 3000, 4000, 4999] {
        let stream = join(&[whole(TEXT, b"a"), whole(CLOSE, &close(code, "bye"))]);
        let answer = Seen::Control(close_frame(code, "bye"));
        let expected = [text("a"), Seen::Close(code, "bye".to_owned()), answer];
        assert_means("a code", &stream, &expected);
    }
    let no_code = [Seen::Close(1005, String::new()), Seen::Control(vec![0x88, 0])];
    assert_means("no code", &whole(CLOSE, b""), &no_code);
    let amid = join(&[part(TEXT, b"a"), whole(CLOSE, b"")]);
    assert_means("amid a message", &amid, &no_code);
    let followed = join(&[whole(CLOSE, b""), whole(TEXT, b"unheard"), whole(PING, b"")]);
    assert_means("followed by more", &followed, &no_code);
    let longest = "r".repeat(123);
    let answer = Seen::Control(close_frame(1000, &longest));
    let expected = [Seen::Close(1000, longest.clone()), answer];
    assert_means("the longest reason", &whole(CLOSE, &close(1000, &longest)), &expected);
}

#[test]
fn a_close_that_may_not_be_sent_gets_1002_and_a_reason_that_is_not_utf_8_gets_1007() {
    assert_fails("one byte", &whole(CLOSE, &[3]), 1002);
    assert_fails("a bad reason", &whole(CLOSE, b"\x03\xE8\xFF"), 1007);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        // tungstenite says so by putting its own code in the place of the peer's.
        let reason = "Protocol violation";
        let stream = whole(CLOSE, &code.to_be_bytes());
        let answer = Seen::Control(close_frame(1002, reason));
        assert_means("a code", &stream, &[Seen::Close(1002, reason.to_owned()), answer]);
    }
}
