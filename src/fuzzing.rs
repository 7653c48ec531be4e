//! The parsers without input or output, for the targets in `fuzz/` and nothing else. Compiled only
//! with `--cfg fuzzing`, which cargo-fuzz sets; no part of the API.
//!
//! Knows the parsers of `http` and `protocol`. Must not know shards, the hub, handlers or
//! transports.

#[path = "protocol/tests/operations.rs"]
mod operations;
#[path = "protocol/tests/reference.rs"]
mod reference;
#[path = "protocol/tests/streams.rs"]
mod streams;

use std::mem::MaybeUninit;
use std::net::IpAddr;

use crate::clock;
use crate::config::{HEADER_COUNT_MAX, Limits};
use crate::error::Refusal;
use crate::http::network::Networks;
use crate::http::proxy::{self, Malformed, Preface};
use crate::http::{Head, Origins, forwarded};
use crate::protocol::handshake::{self, HeaderSlots};

/// Lane and engine, and lane and pieces, mean the same as tungstenite alone, for every stream and
/// every way to cut it.
pub fn frames(data: &[u8]) {
    reference::check(data, clock::now());
}

/// A connection keeps its promises in whatever order bytes arrive, wait and are skimmed, the server
/// closes, and time passes.
pub fn protocol_ops(data: &[u8]) {
    operations::check(data, clock::now());
}

/// Parses a head and checks it as an upgrade; `see` gets the head, its length and the verdict.
fn parse<T>(
    bytes: &[u8],
    limits: &Limits,
    see: impl FnOnce(&Head<'_>, usize, Result<&[u8], Refusal>) -> T,
) -> Result<Option<T>, Refusal> {
    let mut room: HeaderSlots<'_> = [MaybeUninit::uninit(); HEADER_COUNT_MAX];
    let parsed = handshake::parse(bytes, &mut room, limits)?;
    Ok(parsed.map(|(head, length)| see(&head, length, handshake::check_upgrade(&head))))
}

/// A request's head never panics the parser; it is complete at its last byte and not before,
/// whatever follows it; and a refusal is never taken back.
pub fn handshake(data: &[u8]) {
    // Small limits are reached sooner.
    let limits = match data.first() {
        Some(b'g') => Limits { max_head_bytes: 128, max_headers: 4, ..Limits::default() },
        _ => Limits::default(),
    };
    let length_of = |bytes| parse(bytes, &limits, |_, length, _| length);
    let whole = parse(data, &limits, |head, length, verdict| {
        exercise(head);
        (length, verdict.map(answer))
    });
    let mut is_refused = false;
    for cut in cuts(data.len()) {
        match length_of(&data[..cut]) {
            Ok(None) => assert!(!is_refused, "a refusal was taken back at {cut}"),
            Ok(Some(length)) => {
                assert!(!is_refused, "a refusal was taken back at {cut}");
                let expected =
                    whole.as_ref().map(|whole| whole.as_ref().map(|&(length, _)| length));
                assert_eq!(expected, Ok(Some(length)), "what follows changed the head at {cut}");
                assert!(length <= cut && length <= limits.max_head_bytes);
            }
            Err(_) => is_refused = true,
        }
    }
    match whole {
        Ok(Some((length, verdict))) => {
            assert_eq!(length_of(&data[..length - 1]), Ok(None), "complete before its last byte");
            let alone =
                parse(&data[..length], &limits, |_, length, verdict| (length, verdict.map(answer)));
            assert_eq!(alone, Ok(Some((length, verdict))), "what follows changed the head");
        }
        Ok(None) => {
            assert!(data.len() < limits.max_head_bytes, "a head without end is not refused")
        }
        Err(_) => {}
    }
}

/// The PROXY protocol's header is complete at its last byte, whatever follows; a verdict is never
/// taken back. And of `Forwarded` and `X-Forwarded-For` only the trusted end counts: the bytes as
/// what a client sends there do not change what a trusted proxy appends.
pub fn proxy_header(data: &[u8]) {
    let whole = proxy::parse(data);
    for cut in cuts(data.len()) {
        match proxy::parse(&data[..cut]) {
            Ok(Preface::Partial) => {}
            verdict => assert_eq!(verdict, whole, "what follows changed the verdict at {cut}"),
        }
    }
    match whole {
        Ok(Preface::Header { length, .. }) => {
            assert_eq!(proxy::parse(&data[..length]), whole, "the header is its own length");
            let before = proxy::parse(&data[..length - 1]);
            assert_eq!(before, Ok(Preface::Partial), "complete before its last byte");
        }
        Ok(Preface::Partial) => assert!(data.len() < 4096, "a header without end"),
        Ok(Preface::Absent) | Err(Malformed) => {}
    }
    if let Ok(text) = str::from_utf8(data)
        && !text.contains(['\r', '\n'])
    {
        walk(text);
    }
}

/// A trusted proxy appends to what a client says, in one line.
fn walk(hostile: &str) {
    let [peer, client] = [[10, 0, 0, 1], [192, 0, 2, 1]].map(IpAddr::from);
    let Ok(proxies) = Networks::parse(&["10.0.0.0/8".to_owned()]) else { unreachable!() };
    for (name, end) in [("Forwarded", "for=192.0.2.1"), ("X-Forwarded-For", "192.0.2.1")] {
        let request = |value: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n");
        let seen = |value: &str| {
            parse(request(value).as_bytes(), &Limits::default(), |head, _, _| {
                let _ = Origins::Own.check(head);
                forwarded::client_ip(head, peer, &proxies).ok()
            })
        };
        let _ = seen(hostile);
        if let Ok(Some(Some(told))) = seen(&format!("{hostile}, {end}")) {
            assert_eq!(told, client, "{name}: {hostile:?}");
        }
    }
}

/// Where to cut: everywhere, or in at most a few hundred places, ascending.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).step_by(length / 256 + 1).chain([length])
}

/// Calls all that is ever asked of a head.
fn exercise(head: &Head<'_>) {
    assert!(!head.path.contains('?'));
    let _ = (head.keeps_alive(), head.has_body(), handshake::is_upgrade(head), head.host());
    for offered in head.subprotocols() {
        // It may stand in the answer.
        assert!(!offered.is_empty() && offered.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let _ = Origins::Own.check(head);
}

/// The answer to a key, which is a whole head and holds no line of the request's.
fn answer(key: &[u8]) -> Vec<u8> {
    assert_eq!(key.len(), 24, "a key is the Base64 of 16 bytes");
    let mut out = Vec::new();
    handshake::accept(&mut out, key, None, std::iter::empty());
    assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"=\r\n\r\n"));
    let line_count = out.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!(line_count, 5, "a status, three headers and an empty line");
    out
}
