//! The opening handshake (RFC 6455 section 4.2), byte by byte.

use peregrine::{Callbacks, Limits};

use super::{BIG_BYTES, LIMIT, site};
use crate::common::{start, within};
use crate::raw::{
    BINARY, Bystander, PING, PONG, Raw, TEXT, close, frame, get, next_is_served, upgrade,
};

#[test]
fn the_answer_is_the_one_of_the_rfc() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        raw.send(upgrade("/echo"));
        let answer = raw.head();
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let is = |name, token| answer.header(name).expect("it").eq_ignore_ascii_case(token);
        assert!(is("Upgrade", "websocket") && is("Connection", "Upgrade"));
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), None);
        assert_eq!(answer.header("Sec-WebSocket-Extensions"), None);
        assert_eq!(answer.header("Content-Length"), None);
    });
}

#[test]
fn what_the_rfc_requires_of_a_request_is_required() {
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    within(LIMIT, || {
        let site = site(Limits::default());
        let twice = |line: &str| line.repeat(2);
        let cases: Vec<(&str, String, &[u16])> = vec![
            ("GET", "POST".into(), &[405]),
            ("GET", "HEAD".into(), &[405, 426]),
            ("HTTP/1.1", "HTTP/1.0".into(), &[400]),
            ("HTTP/1.1", "HTTP/2.0".into(), &[400]),
            ("Host: localhost\r\n", "".into(), &[400]),
            ("Host: localhost\r\n", twice("Host: localhost\r\n"), &[400]),
            ("Upgrade: websocket\r\n", "".into(), &[426]),
            ("Upgrade: websocket", "Upgrade: h2c".into(), &[426]),
            ("Upgrade: websocket", "Upgrade: websockets".into(), &[426]),
            ("Upgrade: websocket", "Upgrade: \"websocket\"".into(), &[426]),
            ("Connection: Upgrade\r\n", "".into(), &[400, 426]),
            ("Connection: Upgrade", "Connection: keep-alive".into(), &[400, 426]),
            ("Connection: Upgrade", "Connection: Upgraded".into(), &[400, 426]),
            (KEY, "".into(), &[400]),
            (KEY, twice(KEY), &[400]),
            (KEY, "Sec-WebSocket-Key: \r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ====\r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMw==\r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhl-HNhbXBsZSBub25jZQ==\r\n".into(), &[400]),
            (KEY, "Sec-WebSocket-Key: dGhl HNhbXBsZSBub25jZQ==\r\n".into(), &[400]),
            (VERSION, "".into(), &[400, 426]),
            (VERSION, twice(VERSION), &[400, 426]),
            (VERSION, "Sec-WebSocket-Version: 8\r\n".into(), &[426]),
            (VERSION, "Sec-WebSocket-Version: 14\r\n".into(), &[426]),
            (VERSION, "Sec-WebSocket-Version: 013\r\n".into(), &[400, 426]),
            (VERSION, "Sec-WebSocket-Version: 13, 8\r\n".into(), &[400, 426]),
            ("Host", "Content-Length: 5\r\nHost".into(), &[400]),
            ("Host", "Transfer-Encoding: chunked\r\nHost".into(), &[400]),
            ("/echo", "/nothing".into(), &[404]),
        ];
        for (from, to, statuses) in cases {
            let mut raw = Raw::connect(site.local_addr());
            let request = upgrade("/echo").replacen(from, &to, 1);
            raw.send(&request);
            let answer = raw.head();
            assert!(statuses.contains(&answer.status), "{from:?} -> {to:?}: {answer:?}");
            if answer.status == 426 {
                assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
                assert_eq!(answer.header("Upgrade"), Some("websocket"));
            }
        }
        next_is_served(site.local_addr(), "/echo");
    });
}

#[test]
fn what_the_rfc_leaves_open_is_accepted() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for (from, to) in [
            ("Upgrade: websocket", "upgrade: WebSocket"),
            ("Upgrade: websocket", "UPGRADE: h2c,  WEBSOCKET"),
            ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
            ("Upgrade: websocket", "Upgrade:websocket  "),
            ("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
            ("Connection: Upgrade", "Connection:upgrade,,\tkeep-alive"),
            ("Connection: Upgrade", "Connection: keep-alive\r\nconnection: upgrade"),
            ("Host: localhost", "Host: "),
            ("Host: localhost", "Host: [::1]:80"),
            ("Sec-WebSocket-Version: 13", "SEC-WEBSOCKET-VERSION:  13 "),
            ("Host", "Content-Length: 0\r\nHost"),
            ("Host", "Origin: http://localhost\r\nHost"),
            ("Host", "Sec-WebSocket-Extensions: permessage-deflate\r\nHost"),
            ("Host", "Sec-WebSocket-Protocol: chat, superchat\r\nHost"),
            ("Host", "X: \u{e9}\r\nHost"),
            ("/echo", "/echo?"),
            ("/echo", "/echo?a=1&b=%00"),
            ("/echo", "http://localhost/echo"),
            ("/echo", "HTTP://example.com:8080/echo?x=/y"),
            ("/echo", "ws://example.com/echo"),
            ("GET", "\r\n\r\nGET"),
        ] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(upgrade("/echo").replacen(from, to, 1));
            let answer = raw.head();
            assert_eq!(answer.status, 101, "{from:?} -> {to:?}");
            assert_eq!(answer.header("Sec-WebSocket-Extensions"), None, "{to:?}");
            raw.send(frame(TEXT, b"hi"));
            assert_eq!(raw.text(), "hi", "{from:?} -> {to:?}");
        }
    });
}

#[test]
fn the_absolute_form_without_a_path_means_the_root() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for target in ["http://localhost", "http://localhost/", "http://localhost?next=/b"] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(get(target));
            assert_eq!(raw.answer().body, b"<h1>home</h1>", "{target}");
        }
        let query =
            Callbacks::<()>::new().on_connect(|ws| ws.query("next").map(String::from).into());
        let root = start(1, |builder| builder.websocket("/", query));
        let mut raw = Raw::connect(root.local_addr());
        raw.send(upgrade("http://localhost?next=/b"));
        assert_eq!(raw.head().status, 101);
        assert_eq!(raw.text(), "/b");
    });
}

#[test]
fn a_page_and_an_endpoint_share_a_path() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        for request in [get("/both"), get("/both").replace("Host", "Upgrade: h2c\r\nHost")] {
            raw.send(&request);
            assert_eq!(raw.answer().body, b"a page beside an endpoint");
        }
        raw.upgrade("/both");
        raw.send(frame(BINARY, b"hi"));
        assert_eq!(raw.frame().map(|frame| frame.payload), Some(b"hi".to_vec()));
        // Whoever asks for a WebSocket and gets it wrong is not served the page instead.
        let mut raw = Raw::connect(site.local_addr());
        raw.send(upgrade("/both").replace("13", "12"));
        assert_eq!(raw.answer().status, 426);
    });
}

#[test]
fn an_upgrade_of_a_path_that_has_only_a_page_is_served_the_page() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        raw.send(upgrade("/b"));
        assert_eq!(raw.answer().status, 200);
    });
}

#[test]
fn an_upgrade_may_be_cut_anywhere() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut bystander = Bystander::connect(site.local_addr(), "/echo");
        let request = [upgrade("/echo").into_bytes(), frame(TEXT, b"hi")].concat();
        for cut in 1..request.len() {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(&request[..cut]);
            bystander.is_served();
            raw.send(&request[cut..]);
            assert_eq!(raw.head().status, 101, "cut at {cut}");
            assert_eq!(raw.text(), "hi", "cut at {cut}");
        }
        let mut raw = Raw::connect(site.local_addr());
        for byte in request {
            raw.send([byte]);
            bystander.is_served();
        }
        assert_eq!(raw.head().status, 101);
        assert_eq!(raw.text(), "hi");
    });
}

#[test]
fn frames_in_the_packet_of_the_upgrade_are_handled() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        let mut bytes = upgrade("/echo").into_bytes();
        bytes.extend((0..1000).flat_map(|number: u32| frame(BINARY, &number.to_be_bytes())));
        bytes.extend(close(4321, b"done"));
        raw.send(&bytes);
        assert_eq!(raw.head().status, 101);
        for number in 0..1000u32 {
            assert_eq!(raw.frame().map(|f| f.payload), Some(number.to_be_bytes().to_vec()));
        }
        assert_eq!(raw.closed(), (4321, "done".to_owned()));
    });
}

#[test]
fn pages_the_upgrade_and_frames_may_come_in_one_packet() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for path in ["/b", "/medium", "/big"] {
            let mut raw = Raw::connect_narrow(site.local_addr());
            let requests = [get(path), get("/"), upgrade("/echo")].concat();
            // The ping overtakes data, but not the responses that make it a frame at all.
            raw.send([requests.into_bytes(), frame(PING, b"now"), frame(TEXT, b"hi")].concat());
            let length = match path {
                "/b" => 1,
                "/medium" => 40_000,
                _ => BIG_BYTES,
            };
            let answer = raw.answer();
            assert_eq!((answer.status, answer.body.len()), (200, length));
            assert_eq!(raw.answer().body, b"<h1>home</h1>");
            assert_eq!(raw.head().status, 101);
            let pong = raw.frame().expect("a pong");
            assert_eq!((pong.first, pong.payload.as_slice()), (PONG, &b"now"[..]));
            assert_eq!(raw.text(), "hi");
        }
    });
}

/// A large broadcast leaves by another way than small messages; the pong must not find a gap.
#[test]
fn nothing_precedes_the_answer_to_the_upgrade() {
    within(LIMIT, || {
        let greeter = Callbacks::<()>::new().on_connect(|ws| {
            ws.broadcast(vec![7; 20_000]).expect("room");
            ws.send("after the broadcast").expect("room");
            "last".into()
        });
        let server = start(1, |builder| builder.websocket("/", greeter));
        let mut raw = Raw::connect(server.local_addr());
        raw.send([upgrade("/").into_bytes(), frame(PING, b"1"), frame(PING, b"2")].concat());
        assert_eq!(raw.head().status, 101);
        let mut frames: Vec<_> = (0..5).map(|_| raw.frame().expect("a frame")).collect();
        let pongs: Vec<_> = frames.extract_if(.., |f| f.first == PONG).map(|f| f.payload).collect();
        assert_eq!(pongs, [b"1", b"2"]);
        assert_eq!(frames[0].payload, [7; 20_000]);
        assert_eq!(frames[1].payload, b"after the broadcast");
        assert_eq!(frames[2].payload, b"last");
    });
}
