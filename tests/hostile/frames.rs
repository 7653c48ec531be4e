//! Frames that break RFC 6455: what a handler is told, and that nobody else notices. What is right
//! and what is wrong is in `tests/conformance/`.

use peregrine::{ClosedBy, Limits};

use super::{LIMIT, SHORT, next, nothing_more, serve, short_limits};
use crate::common::within;
use crate::raw::{
    BINARY, Bystander, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, TEXT, close, frame, header,
    next_is_served,
};

/// One frame, or two, for everything that a client can do wrong, and the close code.
fn faults() -> Vec<(&'static str, Vec<u8>, u16)> {
    let begun = frame(TEXT ^ FIN, b"begun");
    vec![
        ("no mask", vec![TEXT, 2, b'h', b'i'], 1002),
        ("a reserved bit", frame(TEXT | 0x40, b"hi"), 1002),
        ("a reserved opcode", frame(0x83, b"hi"), 1002),
        ("a ping in fragments", frame(PING ^ FIN, b""), 1002),
        ("a ping of 2^40 bytes", header(PING, 1 << 40), 1002),
        ("a continuation of nothing", frame(CONTINUATION, b"x"), 1002),
        ("a text within a text", [begun.clone(), frame(TEXT, b"x")].concat(), 1002),
        ("a Close of one byte", frame(CLOSE, &[3]), 1002),
        ("a Close amid a message, its code reserved", [begun, close(1005, b"")].concat(), 1002),
        ("a reason that is not UTF-8", close(1000, b"caf\xE9"), 1007),
        ("a text that is not UTF-8", frame(TEXT, b"good until \xFF here"), 1007),
        ("a text that ends early", frame(TEXT, b"caf\xC3"), 1007),
        ("a frame that is too large", header(BINARY, (1 << 20) + 1), 1009),
        ("a frame without end", header(TEXT, u64::MAX), 1009),
    ]
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
        for (name, bytes, expected) in faults() {
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
                assert_eq!(code, expected, "{name}, {way:?}");
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
fn a_valid_close_is_answered_by_its_equal_and_told() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let reason = "Ü".repeat(61);
        for code in [1000, 1013, 4999] {
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
            *ws.session_mut() += 1;
            ws.close_with(4000, "that will do");
            ws.session().to_string().into()
        });
        let mut limits = short_limits();
        limits.close_timeout = SHORT * 50;
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
