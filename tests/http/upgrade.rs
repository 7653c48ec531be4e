//! Upgrades beside pages, and with frames behind them. What a request must be is in
//! `conformance/handshake.rs`.

use peregrine::{Callbacks, Limits};

use super::{BIG_BYTES, LIMIT, site};
use crate::common::{start, within};
use crate::raw::{BINARY, PING, PONG, Raw, TEXT, close, frame, get, upgrade};

#[test]
fn the_absolute_form_without_a_path_means_the_root() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for target in [
            "http://localhost",
            "http://localhost/",
            "http://localhost?next=/b",
            "HTTPS://localhost:443",
            "wss://[::1]:?next=/b",
        ] {
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
