//! Peers that send garbage, vanish, or mean harm. Whatever they do, it is answered rightly or not
//! at all, `on_close` is called exactly once for each that was open, and the next connection is
//! served as if nothing had been.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "common/alone.rs"]
mod alone;
#[path = "hostile/chaos.rs"]
mod chaos;
mod common;
#[path = "hostile/descriptors.rs"]
mod descriptors;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/panics.rs"]
mod panics;
#[path = "common/raw.rs"]
mod raw;
#[path = "hostile/slow.rs"]
mod slow;

use std::sync::mpsc::Receiver;
use std::time::Duration;

use peregrine::{Close, CloseCode, ClosedBy, Limits, Response, RunningServer};

use crate::common::{PATIENCE, SHARD_COUNTS, start, within};
use crate::raw::{
    BINARY, Bystander, FIN, PING, PONG, Raw, TEXT, close, frame, get, next_is_served, until,
    upgrade, witnessed_echo,
};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);
/// A deadline that a test can wait for.
const SHORT: Duration = Duration::from_millis(200);

/// An echo at `/echo`, a large page at `/big`, and what the echo is told about ends.
fn serve(shard_count: usize, limits: Limits) -> (RunningServer, Receiver<Close>) {
    let (echo, closes) = witnessed_echo();
    let page = Response::new(200).body(vec![7; 8 << 20]);
    let running = start(shard_count, |builder| {
        builder.limits(limits).websocket("/echo", echo).get("/big", page).get("/", "home")
    });
    (running, closes)
}

fn short_limits() -> Limits {
    let mut limits = Limits::default();
    limits.handshake_timeout = SHORT * 5;
    limits.close_timeout = SHORT;
    limits
}

/// The next end that the handler was told of.
fn next(closes: &Receiver<Close>) -> Close {
    closes.recv_timeout(PATIENCE).expect("on_close is called")
}

/// The connection ended without a Close frame, by the peer's doing.
fn is_lost(close: &Close) -> bool {
    close.code() == CloseCode::ABNORMAL && close.by() == ClosedBy::Peer
}

/// Stops the server and makes sure that nobody else was told to have ended.
fn nothing_more(running: RunningServer, closes: &Receiver<Close>) {
    drop(running);
    let more: Vec<_> = closes.iter().collect();
    assert!(more.is_empty(), "on_close was called too often: {more:?}");
}

/// Numbers that look random and are the same every time (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).expect("a small number")
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll().to_le_bytes()[0]).collect()
    }
}

#[test]
fn garbage_instead_of_http_is_refused() {
    within(LIMIT, || {
        let (server, closes) = serve(1, short_limits());
        let mut client_hello = vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
        client_hello.extend(Dice(1).bytes(200));
        let cases: [(&str, &[u8]); 10] = [
            ("a TLS ClientHello", &client_hello),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0"),
            ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
            ("SMTP", b"EHLO localhost\r\nMAIL FROM:<a@b>\r\n"),
            ("Redis", b"*1\r\n$4\r\nPING\r\n"),
            ("zeros", &[0; 3000]),
            ("a WebSocket frame", &frame(TEXT, b"no upgrade before")),
            ("the PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n"),
            ("a line feed in the target", b"GET /\n/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("half a head", b"GET / HTTP/1.1\r\nHost:"),
        ];
        for (name, bytes) in cases {
            let mut raw = Raw::connect(server.local_addr());
            raw.try_send(bytes);
            let answer = raw.answer();
            assert!(matches!(answer.status, 400 | 408), "{name}: {answer:?}");
            raw.ended();
            next_is_served(server.local_addr(), "/echo");
            next(&closes);
        }
        nothing_more(server, &closes);
    });
}

#[test]
fn random_bytes_instead_of_http_do_no_harm() {
    within(LIMIT, || {
        let (server, closes) = serve(1, short_limits());
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let length = 1 + dice.below(3000);
            let bytes = dice.bytes(length);
            let mut raw = Raw::connect(server.local_addr());
            raw.try_send(&bytes);
            let status = raw.answer().status;
            assert!(matches!(status, 400 | 408 | 431), "seed {seed}: {status}");
        }
        next_is_served(server.local_addr(), "/echo");
        next(&closes);
        nothing_more(server, &closes);
    });
}

/// A conversation of every kind of frame.
fn conversation() -> Vec<u8> {
    [
        frame(TEXT, b"hello"),
        frame(TEXT ^ FIN, "ü".as_bytes()),
        frame(PING, b"between"),
        frame(0, b""),
        frame(FIN, &[b'x'; 300]),
        frame(BINARY, &[9; 70_000]),
        frame(PONG, b"unasked"),
        frame(BINARY, b""),
        close(1000, b"enough"),
    ]
    .concat()
}

#[test]
fn damaged_frames_do_no_harm() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let whole = conversation();
        for seed in 0..400 {
            let mut dice = Dice(seed);
            let mut bytes = whole.clone();
            // Most of the bytes are payload, where damage is no damage.
            for _ in 0..=dice.below(4) {
                let at = dice.below(400);
                bytes[at] ^= 1 << dice.below(8);
            }
            let mut raw = Raw::upgraded(server.local_addr(), "/echo");
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (packet, after) = rest.split_at(rest.len().min(1 + dice.below(40_000)));
                raw.try_send(packet);
                rest = after;
            }
            let _ = raw.socket.shutdown(std::net::Shutdown::Write);
            let frames = raw.frames();
            let told = next(&closes);
            if let Some(last) = frames.last().filter(|frame| frame.first == raw::CLOSE) {
                let code = if last.payload.is_empty() { 1005 } else { last.close().0 };
                let is_right = matches!(code, 1000 | 1002 | 1007..=1009)
                    || (told.by() == ClosedBy::Peer && told.code() == code);
                assert!(is_right, "seed {seed}: {code}, told {told}");
            } else {
                assert!(is_lost(&told), "seed {seed}: {told}");
            }
        }
        next_is_served(server.local_addr(), "/echo");
        next(&closes);
        nothing_more(server, &closes);
    });
}

#[test]
fn a_peer_that_vanishes_within_a_frame_is_missed_once() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let frames = [
            frame(TEXT, b"short"),
            frame(BINARY, &[1; 130])[..12].to_vec(),
            raw::header(BINARY, 100_000),
            [frame(TEXT ^ FIN, b"a"), frame(PING, b"p"), frame(FIN, b"b")].concat(),
            close(1000, b"bye"),
        ];
        for bytes in &frames {
            for cut in 0..bytes.len() {
                for is_reset in [false, true] {
                    let mut raw = Raw::upgraded(server.local_addr(), "/echo");
                    raw.send(&bytes[..cut]);
                    if is_reset {
                        raw.reset();
                    } else {
                        drop(raw);
                    }
                    let told = next(&closes);
                    assert!(is_lost(&told), "cut at {cut} of {bytes:?}: {told}");
                }
            }
        }
        bystander.is_served();
        next_is_served(server.local_addr(), "/echo");
        drop(bystander);
        next(&closes);
        next(&closes);
        nothing_more(server, &closes);
    });
}

/// What a peer has done when it resets the connection, and whether it was open by then.
type Stage = (&'static str, bool, fn(&mut Raw));

const STAGES: [Stage; 12] = [
    ("connected", false, |_| {}),
    ("begun a request", false, |raw| raw.send("GET / HTTP/1.1\r\n")),
    ("asked for a page", false, |raw| raw.send(get("/"))),
    ("asked for a large page", false, |raw| raw.send(get("/big").repeat(3))),
    ("begun to read a large page", false, |raw| {
        raw.send(get("/big"));
        raw.take(100_000).expect("a part");
    }),
    ("been refused", false, |raw| {
        raw.send(get("/nothing"));
        assert_eq!(raw.head().status, 404);
    }),
    ("been upgraded", true, |raw| raw.upgrade("/echo")),
    ("begun a frame", true, |raw| {
        raw.upgrade("/echo");
        raw.send(raw::header(BINARY, 1000));
    }),
    ("not read an answer", true, |raw| {
        raw.upgrade("/echo");
        raw.send(frame(TEXT, b"hello"));
        raw.take(1).expect("the beginning of the answer");
    }),
    ("not read a lot", true, |raw| {
        raw.upgrade("/echo");
        let message = frame(BINARY, &[1; 1 << 16]);
        raw.flood(&message, 64 << 20, SHORT / 4);
    }),
    ("said goodbye and not read the answer", true, |raw| {
        raw.upgrade("/echo");
        raw.send(close(1000, b""));
        raw.take(1).expect("the beginning of the answer");
    }),
    ("broken the protocol", true, |raw| {
        raw.upgrade("/echo");
        raw.send([0xFF; 100]);
        raw.take(1).expect("the beginning of the answer");
    }),
];

#[test]
fn a_peer_may_reset_at_any_stage() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count, Limits::default());
            let hub = server.hub();
            for (what, was_open, act) in STAGES {
                let mut raw = Raw::connect(server.local_addr());
                act(&mut raw);
                raw.reset();
                if was_open {
                    next(&closes);
                }
                until("the connection is gone", || hub.connection_counts().iter().all(|&n| n == 0));
                next_is_served(server.local_addr(), "/echo");
                assert_eq!(next(&closes).code(), CloseCode::NO_STATUS, "after one that had {what}");
            }
            nothing_more(server, &closes);
        });
    }
}

#[test]
fn a_thousand_may_come_and_vanish_at_once() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count, Limits::default());
            let hub = server.hub();
            let address = server.local_addr();
            let mut bystander = Bystander::connect(address, "/echo");
            for _ in 0..1000 {
                drop(Raw::connect(address));
            }
            let half: Vec<Raw> = (0..1000)
                .map(|number| {
                    let mut raw = Raw::connect(address);
                    raw.send(&upgrade("/echo")[..number % 150]);
                    raw
                })
                .collect();
            drop(half);
            let open: Vec<Raw> = (0..1000).map(|_| Raw::upgraded(address, "/echo")).collect();
            bystander.is_served();
            for (number, mut raw) in open.into_iter().enumerate() {
                match number % 3 {
                    0 => raw.reset(),
                    1 => raw.send(frame(TEXT, b"and gone")),
                    _ => drop(raw),
                }
            }
            for _ in 0..1000 {
                assert!(is_lost(&next(&closes)));
            }
            until("they are gone", || hub.connection_counts().iter().sum::<usize>() == 1);
            bystander.is_served();
            next_is_served(address, "/echo");
            drop(bystander);
            next(&closes);
            next(&closes);
            nothing_more(server, &closes);
        });
    }
}

#[test]
fn who_only_ends_its_own_side_still_hears_the_last_words() {
    within(LIMIT, || {
        let (server, closes) = serve(1, Limits::default());
        for (tail, is_orderly) in [
            (Vec::new(), false),
            (frame(TEXT, b"hi")[..3].to_vec(), false),
            (close(3000, b"x"), true),
        ] {
            let mut raw = Raw::upgraded(server.local_addr(), "/echo");
            raw.send([frame(TEXT, b"one"), frame(TEXT, b"two"), tail].concat());
            raw.half_close();
            assert_eq!([raw.text(), raw.text(), raw.text()], ["one", "two", "goodbye"]);
            let told = next(&closes);
            if is_orderly {
                assert_eq!(raw.closed(), (3000, "x".to_owned()));
                assert_eq!((told.code(), told.by()), (3000.into(), ClosedBy::Peer));
            } else {
                raw.ended();
                assert!(is_lost(&told), "{told}");
            }
        }
        // The same before the upgrade, and in one packet with it.
        let mut raw = Raw::connect(server.local_addr());
        raw.send([get("/big"), get("/")].concat());
        raw.half_close();
        assert_eq!(raw.answer().body.len(), 8 << 20);
        assert_eq!(raw.answer().body, b"home");
        raw.ended();
        let mut raw = Raw::connect(server.local_addr());
        raw.send([upgrade("/echo").into_bytes(), frame(TEXT, b"one")].concat());
        raw.half_close();
        assert_eq!(raw.head().status, 101);
        assert_eq!([raw.text(), raw.text()], ["one", "goodbye"]);
        assert!(is_lost(&next(&closes)));
        nothing_more(server, &closes);
    });
}
