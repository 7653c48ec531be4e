//! Who the client is behind proxies: only trusted ones are believed, however the bytes come.

use std::net::IpAddr;

use peregrine::{Callbacks, RunningServer, ServerBuilder};

use super::{LIMIT, ask, echo, upgrade_with};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{Bystander, Raw, get, next_is_served, upgrade};

/// The peer of every test is at 127.0.0.1, unless it says otherwise.
const PEER: &str = "127.0.0.1";

/// An endpoint that tells whom it sees; the request and the connection agree on that.
fn mirror() -> Callbacks<Option<IpAddr>> {
    Callbacks::with_upgrade(|request| peregrine::Upgrade::accept(Some(request.client_ip())))
        .on_connect(|ws| {
            assert!(ws.peer_addr().ip().is_loopback(), "the peer stays the socket's");
            let client = ws.client_ip();
            assert_eq!(*ws.session(), Some(client));
            client.to_string().into()
        })
        .on_message(|ws, _| ws.client_ip().to_string().into())
}

/// Believes what comes from 127.0.0.1 and the private networks; serves a page at `/b`, too.
fn site(shard_count: usize) -> RunningServer {
    let trusting = |builder: ServerBuilder| builder.trust_proxies([PEER, "10.0.0.0/8"]);
    start(shard_count, |builder| {
        let builder = trusting(builder).websocket("/", mirror()).get("/b", "b");
        builder.websocket("/echo", echo())
    })
}

/// Whom the server sees who is sent these bytes in one piece.
fn seen(mut raw: Raw, bytes: impl AsRef<[u8]>) -> String {
    raw.send(bytes);
    assert_eq!(raw.head().status, 101);
    raw.text()
}

/// A header of version 2 with a TLV, for `192.0.2.7`.
fn binary() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 80];
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11";
    [start.as_slice(), &addresses, &[1, 0, 2, b'h', b'2']].concat()
}

const LINE: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 12345 80\r\n";

#[test]
fn a_trusted_proxy_tells_the_client_by_headers_and_nobody_else_does() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let server = site(shard_count);
            for (headers, expected) in [
                ("", PEER),
                ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
                ("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.7\r\n", "192.0.2.1"),
                ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
                ("X-Forwarded-For: unknown\r\n", PEER),
                ("Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:80\";proto=https\r\n", "2001:db8::1"),
                ("Forwarded: for=a;for=b,,;\"\r\n", PEER),
            ] {
                let (mut raw, answer) = ask(&server, headers);
                assert_eq!(answer.status, 101, "{headers:?}");
                assert_eq!(raw.text(), expected, "{headers:?}");
                let stranger = Raw::connect_from("127.0.0.2", server.local_addr());
                assert_eq!(seen(stranger, upgrade_with(headers)), "127.0.0.2", "{headers:?}");
            }
        }
    });
}

#[test]
fn nobody_is_believed_if_nobody_is_trusted() {
    within(LIMIT, || {
        let server = start(1, |builder| builder.websocket("/", mirror()));
        let (mut raw, answer) = ask(&server, "X-Forwarded-For: 192.0.2.1\r\n");
        assert_eq!((answer.status, &*raw.text()), (101, PEER));
        for header in [LINE.as_bytes(), &binary()] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send([header, upgrade("/").as_bytes()].concat());
            assert_eq!(raw.answer().status, 400);
            raw.ended();
        }
    });
}

#[test]
fn headers_that_contradict_each_other_are_refused() {
    within(LIMIT, || {
        let server = site(1);
        let headers = "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n";
        assert_eq!(ask(&server, headers).1.status, 400);
        let headers = headers.replace("6.6.6.6", "192.0.2.1");
        assert_eq!(ask(&server, &headers).1.status, 101);
    });
}

#[test]
fn the_proxy_protocol_tells_the_client_cut_at_every_byte() {
    within(LIMIT, || {
        let server = site(1);
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        for header in [LINE.as_bytes(), &binary()] {
            let bytes = [header, upgrade("/").as_bytes()].concat();
            for cut in 0..header.len() + 8 {
                let mut raw = Raw::connect(server.local_addr());
                raw.send(&bytes[..cut]);
                bystander.is_served();
                assert_eq!(seen(raw, &bytes[cut..]), "192.0.2.7", "cut at {cut}");
            }
            // Byte by byte.
            let mut raw = Raw::connect(server.local_addr());
            for byte in &bytes {
                raw.send([*byte]);
            }
            assert_eq!(raw.head().status, 101);
            assert_eq!(raw.text(), "192.0.2.7");
        }
    });
}

#[test]
fn the_proxy_protocol_is_heard_from_trusted_proxies_only() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let server = site(shard_count);
            for header in [LINE.as_bytes(), &binary()] {
                let bytes = [header, upgrade("/").as_bytes()].concat();
                assert_eq!(seen(Raw::connect(server.local_addr()), &bytes), "192.0.2.7");
                let mut stranger = Raw::connect_from("127.0.0.2", server.local_addr());
                stranger.send(&bytes);
                assert_eq!(stranger.answer().status, 400);
                stranger.ended();
            }
            next_is_served(server.local_addr(), "/echo");
        }
    });
}

#[test]
fn a_proxy_that_speaks_for_itself_or_says_nothing_is_served() {
    within(LIMIT, || {
        let server = site(1);
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x03abc".as_slice();
        for header in ["".as_bytes(), b"PROXY UNKNOWN\r\n", local] {
            let bytes = [header, upgrade("/").as_bytes()].concat();
            assert_eq!(seen(Raw::connect(server.local_addr()), bytes), PEER);
        }
        // A health check that only connects, or ends after the header, harms nobody.
        let mut check = Raw::connect(server.local_addr());
        check.send(local);
        check.half_close();
        check.ended();
        next_is_served(server.local_addr(), "/echo");
    });
}

#[test]
fn a_malformed_header_of_the_proxy_protocol_is_refused() {
    within(LIMIT, || {
        let server = site(1);
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(5000));
        let huge = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF".as_slice(), &[0; 5000]].concat();
        for header in [
            b"PROXY TCP4 192.0.2.7 127.0.0.1 12345\r\n".as_slice(),
            b"PROXY nonsense\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01!",
            endless.as_bytes(),
            &huge,
        ] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send([header, upgrade("/").as_bytes()].concat());
            assert_eq!(raw.answer().status, 400, "{header:?}");
            raw.ended();
        }
        next_is_served(server.local_addr(), "/echo");
    });
}

#[test]
fn the_proxy_protocol_is_heard_only_at_the_very_start() {
    within(LIMIT, || {
        let server = site(1);
        for (before, after) in [(LINE, ""), (LINE, LINE), ("", LINE)] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send([before, &get("/b"), after, &upgrade("/")].concat());
            assert_eq!(raw.answer().body, b"b");
            if after.is_empty() {
                assert_eq!(raw.head().status, 101);
                assert_eq!(raw.text(), "192.0.2.7", "what was told holds for all requests");
            } else {
                assert_eq!(raw.answer().status, 400);
            }
        }
        let mut raw = Raw::connect(server.local_addr());
        raw.send([LINE, LINE, &upgrade("/")].concat());
        assert_eq!(raw.answer().status, 400);
    });
}

#[test]
fn a_client_that_the_proxy_protocol_tells_is_believed_only_if_it_is_a_proxy_itself() {
    within(LIMIT, || {
        let server = site(1);
        let inner = "PROXY TCP4 10.0.0.7 127.0.0.1 12345 80\r\n";
        for (line, told, expected) in [
            (LINE, "192.0.2.1", "192.0.2.7"),
            (inner, "192.0.2.1", "192.0.2.1"),
            // Also if that is who we hear it from.
            (inner, PEER, PEER),
        ] {
            let header = format!("X-Forwarded-For: {told}\r\n");
            let bytes = [line, &upgrade_with(&header)].concat();
            assert_eq!(seen(Raw::connect(server.local_addr()), bytes), expected);
        }
    });
}

#[test]
fn each_request_of_a_kept_connection_has_its_own_client() {
    within(LIMIT, || {
        let server = site(1);
        let mut raw = Raw::connect(server.local_addr());
        raw.send(get("/b").replacen("Host", "X-Forwarded-For: 6.6.6.6\r\nHost", 1));
        assert_eq!(raw.answer().body, b"b");
        assert_eq!(seen(raw, upgrade_with("X-Forwarded-For: 192.0.2.1\r\n")), "192.0.2.1");
    });
}
