//! What section 5.2 of RFC 6455 reserves, and masks that are missing (section 5.1). Autobahn's
//! families 3 and 4.

use crate::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, header};
use crate::table::{Case, case, run};

/// The kinds of frame that there are, with and without FIN.
const FIRSTS: [u8; 12] = [
    TEXT,
    BINARY,
    CONTINUATION,
    CLOSE,
    PING,
    PONG,
    TEXT ^ FIN,
    BINARY ^ FIN,
    CONTINUATION ^ FIN,
    CLOSE ^ FIN,
    PING ^ FIN,
    PONG ^ FIN,
];

/// A frame that is refused on its header, in every place where frames may stand.
fn refused(name: &str, header: &[u8], payload: &[u8]) -> [Case; 4] {
    let (header, text) = (header.to_vec(), b"before");
    let places = [
        case(name),
        case(format!("{name}, after a message")).echoes(TEXT, text),
        case(format!("{name}, after a ping")).sends(frame(PING, text)).gets(PONG, text),
        case(format!("{name}, amid a message")).sends(frame(TEXT ^ FIN, text)),
    ];
    let rest = [payload, &frame(PING, b"unheard"), &frame(TEXT, b"unheard")].concat();
    places.map(|place| place.sends(&header).fails(1002).unheard(rest.clone()))
}

#[test]
fn a_reserved_bit_is_refused() {
    let mut cases = Vec::new();
    for first in FIRSTS {
        for bits in (0x10..=0x70).step_by(0x10) {
            for length in [0u8, 2, 125] {
                let name = format!("{:#x} of {length} bytes", first | bits);
                let payload = vec![b'x'; usize::from(length)];
                let header = header(first | bits, u64::from(length));
                let in_places = refused(&name, &header, &payload);
                // Every bit in one place, and one bit in every place.
                let is_everywhere = bits == 0x40 && length == 2;
                cases.extend(in_places.into_iter().take(if is_everywhere { 4 } else { 1 }));
            }
        }
    }
    run(cases);
}

#[test]
fn a_reserved_opcode_is_refused() {
    let mut cases = Vec::new();
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        for first in [opcode, FIN | opcode] {
            let named = |length| format!("the opcode {first:#x}, {length} bytes");
            cases.extend(refused(&named(0), &header(first, 0), b""));
            cases.extend(refused(&named(2), &header(first, 2), b"hi"));
            cases.extend(refused(&named(126), &header(first, 126), &[0; 126]));
        }
    }
    run(cases);
}

#[test]
fn a_frame_without_a_mask_is_refused() {
    let mut cases = Vec::new();
    for first in FIRSTS {
        cases.extend(refused(&format!("{first:#x} unmasked, empty"), &[first, 0], b""));
        cases.extend(refused(&format!("{first:#x} unmasked"), &[first, 5], b"hello"));
        let long = [first, 126, 1, 0];
        cases.extend(refused(&format!("{first:#x} unmasked, 256 bytes"), &long, &[0; 256]));
    }
    run(cases);
}
