//! The closing handshake (RFC 6455 sections 5.5.1, 7.1 and 7.4). Autobahn's family 7.

use std::time::Duration;

use peregrine::testing::TestServer;
use peregrine::{Callbacks, CloseCode, Server};

use crate::common::{start, within};
use crate::raw::{
    BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, Raw, TEXT, close, frame, header, upgrade,
};
use crate::table::{Case, case, frames, run};

const LIMIT: Duration = Duration::from_secs(60);

/// A Close frame's payload.
fn payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A case that the client ends with this, and that the server answers by its equal.
fn closed(case: Case, payload: &[u8]) -> Case {
    case.sends(frame(CLOSE, payload)).closes(payload)
}

#[test]
fn every_valid_code_is_answered_by_its_equal() {
    let codes = (1000..=1003).chain(1007..=1013).chain([3000, 3001, 3999, 4000, 4001, 4998, 4999]);
    let mut cases: Vec<Case> = codes
        .flat_map(|code| {
            let reasons = [&b""[..], b"because", "Ü".as_bytes()];
            reasons.map(|reason| closed(case(format!("code {code}")), &payload(code, reason)))
        })
        .collect();
    cases.push(closed(case("no code at all"), b""));
    run(cases);
}

#[test]
fn every_other_code_is_refused() {
    let reserved = [1004, 1005, 1006, 1014, 1015];
    let unassigned = [1016, 1017, 1100, 1999, 2000, 2999];
    let unreal = [0, 1, 999, 5000, 5001, 9999, 0x7FFF, 0x8000, 65_535];
    let cases = [&reserved[..], &unassigned, &unreal].concat().into_iter().flat_map(|code| {
        [&b""[..], b"because"].map(|reason| {
            let name = format!("code {code}, {} bytes of reason", reason.len());
            case(name).sends(close(code, reason)).fails(1002).unheard(frame(TEXT, b"unheard"))
        })
    });
    run(cases.collect());
}

#[test]
fn a_reason_may_have_123_bytes_of_utf_8() {
    let mut cases = Vec::new();
    for length in [0, 1, 2, 60, 121, 122, 123] {
        let name = format!("a reason of {length} bytes");
        cases.push(closed(case(name), &payload(1000, &vec![b'r'; length])));
    }
    let wide = ["é".repeat(61), "€".repeat(41), "🦅".repeat(30), "\u{FFFF}\0".to_owned()];
    for reason in wide {
        cases.push(closed(case("a wide reason"), &payload(1000, reason.as_bytes())));
    }
    for length in [124, 125, 65_536, 1 << 40] {
        let too_long = case(format!("a reason of {length} bytes")).sends(header(CLOSE, 2 + length));
        cases.push(too_long.fails(1002).unheard([b'r'; 300]));
    }
    for reason in [
        &b"\xFF"[..],
        b"caf\xE9",
        b"\xC0\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"cut short \xE2\x82",
        b"\x80 and more",
    ] {
        let name = format!("the reason {reason:02x?}");
        cases.push(case(name).sends(close(1000, reason)).fails(1007).unheard([0x81, 0x80]));
    }
    run(cases);
}

#[test]
fn a_close_frame_of_one_byte_or_in_fragments_is_refused() {
    let cases = [0, 3, 0xFF]
        .map(|byte| case(format!("the one byte {byte}")).sends(frame(CLOSE, &[byte])).fails(1002));
    let in_fragments = [&b""[..], b"\x03\xE8"].map(|payload| {
        let header = header(CLOSE ^ FIN, payload.len() as u64);
        case("a Close in fragments").sends(header).fails(1002).unheard(frame(CONTINUATION, b""))
    });
    run(cases.into_iter().chain(in_fragments).collect());
}

#[test]
fn what_follows_a_close_frame_is_not_heard() {
    let followers = [
        ("a text", frame(TEXT, b"unheard")),
        ("a ping", frame(PING, b"unheard")),
        ("another Close", close(1001, b"again")),
        ("a Close that is wrong", close(1005, b"")),
        ("a reserved opcode", frame(0x83, b"")),
        ("half a frame", header(BINARY, 70_000)),
        ("text that is not UTF-8", frame(TEXT, b"\xFF")),
        ("a quarter of a MiB", frame(BINARY, &vec![1; 256 << 10])),
    ];
    let cases = followers.into_iter().map(|(name, bytes)| {
        closed(case(format!("a Close, then {name}")).echoes(TEXT, b"a"), &payload(1000, b""))
            .unheard(bytes)
    });
    run(cases.collect());
}

#[test]
fn a_close_may_come_amid_a_message_and_after_anything() {
    let bye = payload(3333, b"bye");
    let begun = case("amid a message").sends(frame(TEXT ^ FIN, b"never "));
    let more = begun.clone().sends(frame(CONTINUATION ^ FIN, b"ended"));
    let late = frame(CONTINUATION, b"late");
    let large = vec![b'x'; 100_000];
    run(vec![
        closed(case("at once"), &bye),
        closed(begun, &bye).unheard(late.clone()),
        closed(more.sends(frame(PING, b"?")).gets(PONG, "?"), &bye).unheard(late),
        closed(case("amid an empty one").sends(frame(BINARY ^ FIN, b"")), &bye),
        closed(case("after a large message").echoes(TEXT, &large), &bye),
        closed(case("after a ping").sends(frame(PING, b"!")).gets(PONG, "!"), b""),
    ]);
}

/// An endpoint that closes when it is told to.
fn quitter() -> Callbacks<()> {
    Callbacks::new().on_message(|ws, message| {
        if message.as_text() == Some("quit") {
            ws.close_with(4000, "as you wish");
        }
        message.into()
    })
}

/// What a client may send behind its "quit" and in front of its answer.
fn late() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", vec![]),
        ("a message", frame(TEXT, b"late")),
        ("a large message", frame(BINARY, &vec![1; 300_000])),
        ("half a message", frame(TEXT ^ FIN, b"never ended")),
        ("a ping", frame(PING, b"?")),
        ("text that is not UTF-8", frame(TEXT, b"\xFF")),
    ]
}

/// Both Close frames may be on their way at once: each answers the other (section 7.1.2).
#[test]
fn both_may_close_at_once() {
    let expected = [
        Frame { first: TEXT, payload: b"quit".to_vec() },
        Frame { first: CLOSE, payload: payload(4000, b"as you wish") },
    ];
    within(LIMIT, move || {
        let server = start(1, |builder| builder.websocket("/", quitter()));
        for (name, bytes) in late() {
            for code in [1000, 4000, 1001] {
                let stream = [frame(TEXT, b"quit"), bytes.clone(), close(code, b"me too")].concat();
                let mut raw = Raw::upgraded(server.local_addr(), "/");
                raw.try_send(&stream);
                assert_eq!(raw.frames(), expected, "{name}, {code}");
            }
        }
        // In memory, cut everywhere, and the answer is not even needed.
        let builder = Server::builder().websocket("/", quitter());
        let mut memory = TestServer::new(builder).expect("a right server");
        for (name, bytes) in late().into_iter().filter(|(_, bytes)| bytes.len() < 100) {
            let stream = [frame(TEXT, b"quit"), bytes, close(1000, b"")].concat();
            for cut in 0..stream.len() {
                let client = memory.open();
                memory.send_bytes(client, upgrade("/"));
                let _head = memory.take_bytes(client);
                memory.send_bytes(client, &stream[..cut]);
                memory.send_bytes(client, &stream[cut..]);
                assert_eq!(frames(memory.take_bytes(client)), expected, "{name}, cut at {cut}");
                assert!(memory.has_ended(client), "{name}, cut at {cut}");
            }
        }
    });
}

/// Section 7.4.1: these codes must never stand in a frame.
#[test]
fn codes_that_must_not_be_sent_are_not_sent() {
    within(LIMIT, || {
        for code in [1004u16, 1005, 1006, 1015, 0, 999, 5000] {
            let closer = Callbacks::<()>::new().on_message(move |ws, _| {
                ws.close_with(CloseCode::from(code), "");
                ().into()
            });
            let mut server =
                TestServer::new(Server::builder().websocket("/", closer)).expect("one");
            let client = server.open();
            server.send_bytes(client, upgrade("/"));
            let _head = server.take_bytes(client);
            server.send_bytes(client, frame(TEXT, b"go"));
            let sent = frames(server.take_bytes(client));
            let [Frame { first: CLOSE, payload }] = &sent[..] else { panic!("{code}: {sent:?}") };
            let on_the_wire = payload.first_chunk().copied().map(u16::from_be_bytes);
            assert_ne!(on_the_wire, Some(code));
        }
    });
}
