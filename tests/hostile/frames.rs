//! Frames that break RFC 6455, and frames that look odd and are right.

use peregrine::{ClosedBy, Limits};

use super::{LIMIT, SHORT, next, nothing_more, serve, short_limits};
use crate::common::within;
use crate::raw::{
    BINARY, Bystander, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, TEXT, close, frame, header,
    next_is_served,
};

struct Case {
    name: String,
    bytes: Vec<u8>,
    codes: &'static [u16],
}

fn case(name: impl Into<String>, bytes: impl Into<Vec<u8>>, codes: &'static [u16]) -> Case {
    Case { name: name.into(), bytes: bytes.into(), codes }
}

/// Frames that are wrong by their header (RFC 6455 sections 5.1, 5.2, 5.5).
fn wrong_headers() -> Vec<Case> {
    let mut cases = Vec::new();
    for first in [TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG, TEXT ^ FIN] {
        cases.push(case(format!("{first:#x} unmasked"), [first, 2, b'h', b'i'], &[1002]));
        cases.push(case(format!("{first:#x} unmasked, empty"), [first, 0], &[1002]));
        for bit in [0x40, 0x20, 0x10] {
            cases.push(case(format!("bit {bit:#x}"), frame(first | bit, b"hi"), &[1002]));
        }
    }
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        for fin in [0, FIN] {
            let first = fin | opcode;
            cases.push(case(format!("opcode {first:#x}"), frame(first, b"hi"), &[1002]));
            cases.push(case(format!("opcode {first:#x}, empty"), frame(first, b""), &[1002]));
        }
    }
    for first in [CLOSE, PING, PONG] {
        cases.push(case(format!("{first:#x} in fragments"), frame(first ^ FIN, b""), &[1002]));
        cases.push(case(format!("{first:#x} of 126"), frame(first, &[b'a'; 126]), &[1002]));
        cases.push(case(format!("{first:#x} of 2^40"), header(first, 1 << 40), &[1002]));
    }
    for first in [TEXT, BINARY, TEXT ^ FIN, BINARY ^ FIN] {
        // The payload never comes: who waits for it waits for ever.
        for length in [(1 << 20) + 1, 1 << 31, 1 << 32, (1 << 63) - 1] {
            cases.push(case(format!("{first:#x} of {length}"), header(first, length), &[1009]));
        }
        for length in [1 << 63, u64::MAX, u64::MAX - 13] {
            let name = format!("{first:#x} of {length}");
            cases.push(case(name, header(first, length), &[1002, 1009]));
        }
    }
    cases
}

/// Sequences that are wrong (sections 5.4, 5.5.1, 7.4, 8.1).
fn wrong_sequences() -> Vec<Case> {
    let begun = frame(TEXT ^ FIN, b"begun");
    let mut cases = vec![
        case("continuation of nothing", frame(CONTINUATION, b"x"), &[1002]),
        case("continuation of nothing, more to come", frame(0, b"x"), &[1002]),
        case("text within a message", [begun.clone(), frame(TEXT, b"x")].concat(), &[1002]),
        case("binary within a message", [begun.clone(), frame(BINARY, b"")].concat(), &[1002]),
        case("a second begin", [begun.clone(), begun.clone()].concat(), &[1002]),
        case("a Close of one byte", frame(CLOSE, &[3]), &[1002]),
        case("a Close of one byte within a message", [begun, frame(CLOSE, &[3])].concat(), &[1002]),
        case("a reason that is not UTF-8", close(1000, b"caf\xE9"), &[1007]),
        case("a reason that ends early", close(1000, "é".as_bytes().split_at(1).0), &[1007]),
    ];
    for code in [0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(format!("Close {code}"), close(code, b""), &[1002]));
    }
    for (name, text) in [
        ("a continuation byte alone", &b"\x80"[..]),
        ("an overlong slash", b"\xC0\xAF"),
        ("a surrogate", b"\xED\xA0\x80"),
        ("above U+10FFFF", b"\xF4\x90\x80\x80"),
        ("an early end", b"caf\xC3"),
        ("0xFF", b"good until \xFF here"),
    ] {
        cases.push(case(name, frame(TEXT, text), &[1007]));
        let (one, other) = text.split_at(1);
        let split = [frame(TEXT ^ FIN, one), frame(CONTINUATION, other)].concat();
        cases.push(case(format!("{name}, in fragments"), split, &[1007]));
        let late = [frame(TEXT ^ FIN, "ok ü".as_bytes()), frame(0, b""), frame(FIN, text)].concat();
        cases.push(case(format!("{name}, in the last fragment"), late, &[1007]));
    }
    cases
}

/// How the bytes of a case reach the server.
#[derive(Clone, Copy, Debug)]
enum Way {
    Whole,
    ByteByByte,
    BehindAMessage,
    BeforeALotMore,
}

#[test]
fn what_breaks_the_protocol_is_answered_with_the_right_code() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let address = server.local_addr();
        let mut bystander = Bystander::connect(address, "/echo");
        for Case { name, bytes, codes } in wrong_headers().into_iter().chain(wrong_sequences()) {
            for way in [Way::Whole, Way::ByteByByte, Way::BehindAMessage, Way::BeforeALotMore] {
                let mut raw = Raw::upgraded(address, "/echo");
                match way {
                    Way::Whole => raw.send(&bytes),
                    Way::ByteByByte => bytes.iter().for_each(|&byte| raw.try_send([byte])),
                    Way::BehindAMessage => {
                        raw.send([frame(TEXT, b"right"), bytes.clone()].concat());
                        assert_eq!(raw.text(), "right");
                    }
                    Way::BeforeALotMore => {
                        raw.try_send([bytes.clone(), vec![0xFF; 500_000]].concat());
                    }
                }
                let frames = raw.frames();
                let [goodbye, last] = frames.as_slice() else {
                    panic!("{name}, {way:?}: {frames:?}");
                };
                assert_eq!(goodbye.payload, b"goodbye", "{name}, {way:?}");
                let (code, _) = last.close();
                assert!(codes.contains(&code), "{name}, {way:?}: {code}");
                let told = next(&closes);
                assert_eq!(told.code(), code, "{name}, {way:?}: {told}");
            }
        }
        bystander.is_served();
        next_is_served(address, "/echo");
        next(&closes);
        drop(bystander);
        next(&closes);
        nothing_more(server, &closes);
    });
}

#[test]
fn who_breaks_the_protocol_and_stays_is_dropped_after_the_deadline() {
    within(LIMIT, || {
        let (server, closes) = serve(1, short_limits());
        let hub = server.hub();
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        raw.send(frame(0x83, b""));
        assert_eq!(raw.text(), "goodbye");
        assert_eq!(raw.closed().0, 1002);
        assert_eq!(next(&closes).by(), ClosedBy::Server);
        // It neither ends its side nor is silent.
        crate::raw::until("it is dropped", || {
            raw.try_send(b"more");
            hub.connection_counts() == [0]
        });
        nothing_more(server, &closes);
    });
}

#[test]
fn a_valid_close_is_answered_by_its_equal() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let reason = "Ü".repeat(61);
        let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013];
        for code in codes.into_iter().chain([3000, 3999, 4000, 4999]) {
            for reason in ["", "because", &reason] {
                let mut raw = Raw::upgraded(server.local_addr(), "/echo");
                // What follows a Close frame does not count.
                let bytes = [close(code, reason.as_bytes()), frame(TEXT, b"ignored")].concat();
                raw.send(bytes);
                assert_eq!(raw.text(), "goodbye");
                assert_eq!(raw.closed(), (code, reason.to_owned()));
                let told = next(&closes);
                assert_eq!((told.code(), told.reason()), (code.into(), reason));
                assert_eq!(told.by(), ClosedBy::Peer);
            }
        }
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        raw.send(frame(CLOSE, b""));
        assert_eq!(raw.text(), "goodbye");
        let frames = raw.frames();
        assert!(frames.len() == 1 && frames[0].first == CLOSE && frames[0].payload.is_empty());
        assert_eq!(next(&closes).code(), 1005);
        nothing_more(server, &closes);
    });
}

#[test]
fn every_ping_is_answered_by_its_equal() {
    within(LIMIT, || {
        let (server, _closes) = serve(1, Limits::default());
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        for length in 0..=125 {
            let payload = vec![length; usize::from(length)];
            raw.send(frame(PING, &payload));
            let pong = raw.frame().expect("a pong");
            assert_eq!((pong.first, pong.payload), (PONG, payload));
        }
        let burst: Vec<u8> = (0..10u8).flat_map(|number| frame(PING, &[number])).collect();
        raw.send(burst);
        for number in 0..10 {
            let pong = raw.frame().expect("a pong");
            assert_eq!((pong.first, pong.payload), (PONG, vec![number]));
        }
        raw.send([frame(PONG, b"unasked"), frame(TEXT, b"hi")].concat());
        assert_eq!(raw.text(), "hi");
    });
}

#[test]
fn control_frames_may_come_between_fragments() {
    within(LIMIT, || {
        let (server, _closes) = serve(1, Limits::default());
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let text = "Grüße aus Köln, 你好, 👋".as_bytes();
        for size in 1..text.len() {
            let mut raw = Raw::upgraded(server.local_addr(), "/echo");
            let count = u8::try_from(text.len().div_ceil(size)).expect("few");
            for (at, part) in (0u8..).zip(text.chunks(size)) {
                let opcode = if at == 0 { TEXT ^ FIN } else { 0 };
                let fin = if at + 1 == count { FIN } else { 0 };
                raw.send([frame(PING, &[at]), frame(opcode | fin, part)].concat());
                if at % 7 == 3 {
                    bystander.is_served();
                }
            }
            for at in 0..count {
                let pong = raw.frame().expect("a pong");
                assert_eq!((pong.first, pong.payload), (PONG, vec![at]));
            }
            assert_eq!(raw.text().as_bytes(), text);
        }
    });
}

#[test]
fn empty_messages_are_messages() {
    within(LIMIT, || {
        let (server, _closes) = serve(1, Limits::default());
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        let empty = [frame(TEXT, b""), frame(BINARY, b""), frame(TEXT ^ FIN, b""), frame(FIN, b"")]
            .concat();
        raw.send(empty);
        for first in [TEXT, BINARY, TEXT] {
            let frame = raw.frame().expect("a message");
            assert_eq!((frame.first, frame.payload.len()), (first, 0));
        }
    });
}

#[test]
fn frames_without_data_run_into_a_budget() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let floods = [
            ("pings", Vec::new(), frame(PING, b"")),
            ("pongs", Vec::new(), frame(PONG, b"")),
            ("empty fragments", frame(TEXT ^ FIN, b""), frame(0, b"")),
            ("pings within a message", frame(TEXT ^ FIN, b"x"), frame(PING, b"x")),
        ];
        for (name, start, flood) in floods {
            let mut raw = Raw::upgraded(server.local_addr(), "/echo");
            raw.try_send([start, flood.repeat(20_000)].concat());
            let frames = raw.frames();
            let (code, reason) = frames.last().expect("a Close frame").close();
            assert_eq!(code, 1008, "{name}: {reason}");
            let pongs = frames.iter().filter(|frame| frame.first == PONG).count();
            // In so short a time the budget is full again once or twice.
            assert!(pongs <= 256 * 8, "{name}: {pongs} pongs");
            assert_eq!(next(&closes).by(), ClosedBy::Server);
        }
        bystander.is_served();
        next_is_served(server.local_addr(), "/echo");
    });
}

#[test]
fn tiny_fragments_run_into_a_limit() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        raw.try_send([frame(BINARY ^ FIN, b"x"), frame(0, b"x").repeat(20_000)].concat());
        let frames = raw.frames();
        assert_eq!(frames.last().expect("a Close frame").close().0, 1008);
        assert_eq!(next(&closes).by(), ClosedBy::Server);
        next_is_served(server.local_addr(), "/echo");
    });
}

/// After the server's Close frame the peer may go on for a while; it just does not count.
#[test]
fn what_comes_after_our_close_frame_is_discarded_until_theirs() {
    within(LIMIT, || {
        let quitter = peregrine::Callbacks::<u32>::new().on_message(|ws, _| {
            *ws.session() += 1;
            ws.close_with(4000, "that will do");
            ws.session().to_string().into()
        });
        let mut limits = short_limits();
        limits.closing = SHORT * 50;
        let server =
            crate::common::start(1, |builder| builder.limits(limits).websocket("/", quitter));
        let after: [(&str, Vec<u8>); 6] = [
            ("messages", frame(TEXT, b"more").repeat(100)),
            ("a large message", frame(BINARY, &[1; 500_000])),
            ("half a message", frame(TEXT ^ FIN, b"never ended")),
            ("a ping", frame(PING, b"?")),
            ("text that is not UTF-8", frame(TEXT, b"\xFF")),
            ("nothing", Vec::new()),
        ];
        for (name, bytes) in after {
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            raw.send(frame(TEXT, b"go"));
            assert_eq!(raw.text(), "1");
            let last = raw.frame().expect("a Close frame");
            assert_eq!(last.close(), (4000, "that will do".to_owned()), "{name}");
            raw.try_send([bytes, close(4000, b"")].concat());
            raw.ended();
        }
    });
}
