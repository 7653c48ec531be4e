//! Frames (RFC 6455 sections 5.2 and 5.3): lengths, masks, one after another. Autobahn's family 1.

use crate::raw::{BINARY, CONTINUATION, FIN, MASK, PING, TEXT, frame, header};
use crate::table::{Case, case, run};

/// Where the forms of a length begin and end.
const LENGTHS: [usize; 10] = [0, 1, 2, 125, 126, 127, 128, 65_535, 65_536, 65_537];

/// A payload in which no byte stands for its neighbour; ASCII.
fn payload(length: usize) -> Vec<u8> {
    (b' '..=b'~').cycle().take(length).collect()
}

/// A frame whose length is written in this many bytes, with this mask.
fn formed(first: u8, payload: &[u8], length_bytes: usize, mask: [u8; 4]) -> Vec<u8> {
    let length = (payload.len() as u64).to_be_bytes();
    let second = match length_bytes {
        2 => 126,
        8 => 127,
        _ => length[7],
    };
    let mut bytes = vec![first, 0x80 | second];
    if length_bytes > 0 {
        bytes.extend(&length[8 - length_bytes..]);
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

#[test]
fn a_message_of_any_length_comes_back() {
    let mut cases = Vec::new();
    for (first, kind) in [(TEXT, "text"), (BINARY, "binary message")] {
        for length in LENGTHS {
            let name = format!("a {kind} of {length} bytes");
            cases.push(case(name).echoes(first, &payload(length)));
        }
    }
    let bytes: Vec<u8> = (0..=255).collect();
    cases.push(case("a binary message of every byte").echoes(BINARY, &bytes));
    run(cases);
}

#[test]
fn messages_one_after_another_come_back_in_order() {
    let mut hundred = case("a hundred messages of both kinds");
    for number in 0..100u8 {
        let first = if number % 3 == 0 { BINARY } else { TEXT };
        hundred = hundred.echoes(first, &[number, b'0' + number % 10]);
    }
    let empty = [TEXT, BINARY, TEXT, TEXT, BINARY]
        .into_iter()
        .fold(case("nothing but empty messages"), |case, first| case.echoes(first, b""));
    let mixed = LENGTHS[..7]
        .iter()
        .fold(case("a short message after every longer one"), |case, &length| {
            case.echoes(BINARY, &payload(length)).echoes(TEXT, b"short")
        });
    run(vec![hundred, empty, mixed]);
}

#[test]
fn any_mask_is_taken_off() {
    let text = "Grüße, 你好, 👋".as_bytes();
    let mut cases = Vec::new();
    for mask in [[0; 4], [0xFF; 4], [0, 0, 0, 1], [0x80, 0, 0, 0], [1, 2, 3, 4]] {
        for length_bytes in [0, 2, 8] {
            // Section 5.2 forbids a longer form than needed to the sender, and obliges no receiver.
            let name = format!("the mask {mask:02x?}, the length in {length_bytes} bytes more");
            cases.push(case(name).sends(formed(TEXT, text, length_bytes, mask)).gets(TEXT, text));
        }
    }
    let changing = (0u8..20).fold(case("a mask of its own for every frame"), |case, number| {
        case.sends(formed(TEXT, text, 0, [number, 0x55, !number, 7])).gets(TEXT, text)
    });
    cases.push(changing);
    for length_bytes in [2, 8] {
        let name = format!("a ping's length in {length_bytes} bytes more");
        cases.push(case(name).sends(formed(PING, b"?", length_bytes, MASK)).gets(PING + 1, b"?"));
    }
    run(cases);
}

#[test]
fn the_examples_of_section_5_7_are_read() {
    let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    let mut ping = hello;
    ping[0] = 0x89;
    let fragments = [frame(TEXT ^ FIN, b"Hel"), frame(CONTINUATION, b"lo")].concat();
    run(vec![
        case("a masked text").sends(hello).gets(TEXT, "Hello"),
        case("a masked ping").sends(ping).gets(PING + 1, "Hello"),
        case("a fragmented text").sends(fragments).gets(TEXT, "Hello"),
        case("256 bytes").echoes(BINARY, &[0x5A; 256]),
        case("64 KiB").echoes(BINARY, &vec![0x5A; 65_536]),
    ]);
}

/// Section 5.2: "the most significant bit MUST be 0"; and nobody has so much memory.
#[test]
fn a_length_that_cannot_be_is_refused_on_the_header() {
    let cases = [1 << 25, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX - 13, u64::MAX]
        .into_iter()
        .flat_map(|length| {
            [TEXT, BINARY, TEXT ^ FIN].map(|first| -> Case {
                let name = format!("{first:#x} of {length} bytes");
                case(name).sends(header(first, length)).fails(1009).unheard(frame(TEXT, b"more"))
            })
        });
    run(cases.collect());
}
