//! Text is UTF-8 (RFC 6455 section 8.1, RFC 3629), and what is not is refused with the first byte
//! after which it cannot become it. Autobahn's family 6.

use crate::raw::{BINARY, CONTINUATION, FIN, PING, PONG, TEXT, frame};
use crate::table::{Case, case, run, run_quickly};

/// The grammar of RFC 3629 section 4: whether `next` may follow these bytes of a character.
fn may_follow(begun: &[u8], next: u8) -> bool {
    match (begun, next) {
        ([], _) => matches!(next, 0x00..=0x7F | 0xC2..=0xF4),
        ([0xE0], _) => matches!(next, 0xA0..=0xBF),
        ([0xED], _) => matches!(next, 0x80..=0x9F),
        ([0xF0], _) => matches!(next, 0x90..=0xBF),
        ([0xF4], _) => matches!(next, 0x80..=0x8F),
        _ => matches!(next, 0x80..=0xBF),
    }
}

/// How many bytes a character has that begins so.
fn width(first: u8) -> usize {
    match first {
        0x00..=0x7F => 1,
        0x80..=0xDF => 2,
        0xE0..=0xEF => 3,
        _ => 4,
    }
}

/// What becomes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Valid,
    /// It ends within a character.
    Cut,
    /// The byte at this place is the first that is wrong.
    Wrong(usize),
}

fn fate(text: &[u8]) -> Fate {
    let mut begun = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !may_follow(&text[begun..at], byte) {
            return Fate::Wrong(at);
        }
        if at + 1 - begun == width(text[begun]) {
            begun = at + 1;
        }
    }
    if begun == text.len() { Fate::Valid } else { Fate::Cut }
}

/// A text in these fragments, and what comes of it at which byte.
fn text(name: &str, fragments: &[&[u8]]) -> Case {
    let whole = fragments.concat();
    let fate = fate(&whole);
    let mut case = case(format!("{name}: {:02x?}", &whole[..whole.len().min(24)]));
    let mut start = 0;
    for (at, fragment) in fragments.iter().enumerate() {
        let is_last = at + 1 == fragments.len();
        let opcode = if at == 0 { TEXT } else { CONTINUATION };
        let bytes = frame(if is_last { opcode } else { opcode ^ FIN }, fragment);
        let header = bytes.len() - fragment.len();
        match fate {
            Fate::Wrong(wrong) if wrong - start < fragment.len() => {
                let (heard, unheard) = bytes.split_at(header + wrong - start + 1);
                let unheard = [unheard, &frame(CONTINUATION, b"unheard")].concat();
                return case.sends(heard).fails(1007).unheard(unheard);
            }
            _ => case = case.sends(bytes),
        }
        start += fragment.len();
    }
    if fate == Fate::Cut { case.fails(1007) } else { case.gets(TEXT, whole) }
}

/// A text in all the fragments that can matter.
fn in_all_fragments(name: &str, bytes: &[u8]) -> Vec<Case> {
    let mut cases = vec![text(name, &[bytes])];
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        cases.push(text(&format!("{name}, in two at {cut}"), &[head, tail]));
    }
    let single: Vec<&[u8]> = bytes.chunks(1).chain([&b""[..]]).collect();
    cases.push(text(&format!("{name}, in single bytes"), &single));
    cases
}

/// What surrounds a character, to begin and to end with.
const AROUND: [[&str; 2]; 3] = [["", ""], ["Hello-µ@ßöä", "äöü"], ["κόσμε", "\0"]];

#[test]
fn valid_text_comes_back_however_it_is_cut() {
    let mut cases = Vec::new();
    for bytes in [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "日本語 中文 한국어",
        "\0\u{1}\u{7F}",
        "👨‍👩‍👧‍👦🏳️‍🌈",
        "\u{FEFF}a byte order mark",
        "e\u{301}\u{202E}combined",
    ] {
        assert_eq!(fate(bytes.as_bytes()), Fate::Valid);
        cases.extend(in_all_fragments("valid", bytes.as_bytes()));
    }
    run_quickly(&cases);
    run(cases.into_iter().step_by(5).collect());
}

/// The borders of every plane and of every width, and of the surrogates' gap; noncharacters are
/// characters to UTF-8.
#[test]
fn the_borders_of_every_plane_are_valid() {
    let planes = (0..=0x10).flat_map(|plane| {
        [0, 1, 0xD7FF, 0xE000, 0xFDD0, 0xFFFD, 0xFFFE, 0xFFFF].map(|low| plane << 16 | low)
    });
    let widths = [0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0x3_FFFF, 0x4_0000, 0x10_FFFF];
    let points: Vec<u32> = planes.chain(widths).collect();
    let mut cases = Vec::new();
    for point in points {
        let character = char::from_u32(point).expect("no surrogate").to_string();
        let bytes = character.as_bytes();
        assert_eq!(fate(bytes), Fate::Valid, "U+{point:X}");
        cases.extend(in_all_fragments(&format!("U+{point:X}"), bytes));
    }
    run_quickly(&cases);
}

#[test]
fn every_character_there_is_comes_back() {
    let all: String = ('\0'..=char::MAX).collect();
    let all = all.as_bytes();
    let in_fragments: Vec<&[u8]> = all.chunks(65_537).collect();
    run_quickly(&[
        case("every character in one frame").echoes(TEXT, all),
        text("every character in fragments", &in_fragments),
    ]);
}

/// All ways to go wrong, byte by byte: after every first byte the borders of what may follow.
#[test]
fn every_sequence_is_refused_at_its_first_wrong_byte() {
    let borders = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF];
    let mut open: Vec<Vec<u8>> = (0x80..=0xFF).map(|first| vec![first]).collect();
    let mut cases = Vec::new();
    let mut wrong_count = 0;
    while let Some(sequence) = open.pop() {
        match fate(&sequence) {
            Fate::Cut => {
                open.extend(borders.map(|next| [&sequence[..], &[next]].concat()));
                cases.push(text("cut short", &[&sequence]));
            }
            Fate::Valid => cases.push(text("valid", &[&sequence])),
            Fate::Wrong(at) => {
                assert_eq!(at + 1, sequence.len());
                wrong_count += 1;
                let [before, after] = AROUND[wrong_count % AROUND.len()];
                let bytes = [before.as_bytes(), &sequence, after.as_bytes()].concat();
                let cut = before.len() + wrong_count % sequence.len();
                let (head, tail) = bytes.split_at(cut);
                cases.push(match wrong_count % 2 {
                    0 => text("wrong", &[&bytes]),
                    _ => text("wrong, in two", &[head, tail]),
                });
            }
        }
    }
    assert!(wrong_count > 500, "{wrong_count} wrong sequences");
    run_quickly(&cases);
}

/// The stress test of Markus Kuhn, on which Autobahn's cases 6.6 to 6.21 rest.
const STRESS: [(&str, &[u8]); 34] = [
    ("the first continuation byte", b"\x80"),
    ("the last continuation byte", b"\xBF"),
    ("two continuation bytes", b"\x80\xBF"),
    ("six continuation bytes", b"\x80\xBF\x80\xBF\x80\xBF"),
    ("lonely starts of two", b"\xC2 \xD0 \xDF "),
    ("lonely starts of three", b"\xE0 \xE8 \xEF "),
    ("lonely starts of four", b"\xF0 \xF4 "),
    ("the start of five that was never legal", b"\xF8 "),
    ("five bytes", b"\xF8\x88\x80\x80\x80"),
    ("six bytes", b"\xFC\x84\x80\x80\x80\x80"),
    ("two bytes without the last", b"\xC3"),
    ("three bytes without the last", b"\xE2\x82"),
    ("four bytes without the last", b"\xF0\x9F\xA6"),
    ("all of these one after another", b"\xC3\xE2\x82\xF0\x9F\xA6"),
    ("the byte 0xFE", b"\xFE"),
    ("the byte 0xFF", b"\xFF"),
    ("both of them", b"\xFE\xFE\xFF\xFF"),
    ("an overlong slash in two", b"\xC0\xAF"),
    ("an overlong slash in three", b"\xE0\x80\xAF"),
    ("an overlong slash in four", b"\xF0\x80\x80\xAF"),
    ("an overlong slash in five", b"\xF8\x80\x80\x80\xAF"),
    ("an overlong slash in six", b"\xFC\x80\x80\x80\x80\xAF"),
    ("the longest overlong form of two", b"\xC1\xBF"),
    ("the longest overlong form of three", b"\xE0\x9F\xBF"),
    ("the longest overlong form of four", b"\xF0\x8F\xBF\xBF"),
    ("an overlong zero", b"\xC0\x80"),
    ("the first surrogate", b"\xED\xA0\x80"),
    ("the last surrogate", b"\xED\xBF\xBF"),
    ("a pair of surrogates", b"\xED\xA0\x80\xED\xB0\x80"),
    ("another pair", b"\xED\xAE\x80\xED\xBF\xBF"),
    ("the first beyond Unicode", b"\xF4\x90\x80\x80"),
    ("far beyond Unicode", b"\xF7\xBF\xBF\xBF"),
    ("Latin-1", b"caf\xE9 au lait"),
    ("UTF-16", b"\xFF\xFEa\0b\0"),
];

#[test]
fn the_stress_test_is_refused_at_every_split_and_in_every_fragment() {
    let (mut whole, mut in_fragments) = (Vec::new(), Vec::new());
    for (name, bytes) in STRESS {
        assert_ne!(fate(bytes), Fate::Valid, "{name}");
        whole.push(text(name, &[bytes]));
        in_fragments.extend(in_all_fragments(name, bytes));
        for [before, after] in &AROUND[1..] {
            let bytes = [before.as_bytes(), bytes, after.as_bytes()].concat();
            assert!(matches!(fate(&bytes), Fate::Wrong(_)), "{name}");
            in_fragments.extend(in_all_fragments(name, &bytes));
        }
    }
    run(whole);
    run_quickly(&in_fragments);
}

/// Autobahn's cases 6.4.1 to 6.4.4, and the same in a message that is long.
#[test]
fn what_is_wrong_is_refused_before_the_rest_of_it_comes() {
    let valid = "κόσμε".as_bytes();
    let wrong = [valid, b"\xF4\x90\x80\x80", b"edited"].concat();
    let in_three: [&[u8]; 3] = [valid, b"\xF4\x90\x80\x80", b"edited"];
    let cut_within: [&[u8]; 3] = [&wrong[..12], &wrong[12..13], &wrong[13..]];
    let long = [&vec![b'a'; 200_000], &b"\xC0"[..], &vec![b'a'; 200_000]].concat();
    let mut pinged = case("a ping within the character").sends(frame(TEXT ^ FIN, b"\xE2\x82"));
    pinged = pinged.sends(frame(PING, b"\xFF")).gets(PONG, [0xFF]);
    let empty = pinged.clone().sends(frame(CONTINUATION ^ FIN, b""));
    run(vec![
        text("in fragments", &in_three),
        text("in fragments, cut within the character", &cut_within),
        text("in one frame", &[&wrong]),
        text("in the middle of a long frame", &[&long]),
        text("in the middle of long fragments", &long.chunks(7001).collect::<Vec<_>>()),
        pinged.sends(&frame(CONTINUATION, b"\x2D")[..7]).fails(1007).unheard([0; 9]),
        empty.clone().sends(frame(CONTINUATION, b"")).fails(1007).unheard(frame(TEXT, b"")),
        empty.sends(frame(CONTINUATION, b"\xAC")).gets(TEXT, "€"),
    ]);
}

#[test]
fn only_text_has_to_be_utf_8() {
    let mut cases = Vec::new();
    for (name, bytes) in STRESS {
        let case = case(format!("{name}, in a binary message")).echoes(BINARY, bytes);
        let case = case.sends(frame(PING, bytes)).gets(PONG, bytes);
        let (head, tail) = bytes.split_at(1);
        let case = case.sends(frame(BINARY ^ FIN, head)).sends(frame(CONTINUATION, tail));
        // The next text is none the worse for it.
        cases.push(case.gets(BINARY, bytes).echoes(TEXT, "größer".as_bytes()));
    }
    run_quickly(&cases);
}
