//! The HTTP that is spoken before the first frame, as a foreign program meets it: pages, refusals,
//! and deadlines. Upgrades are in `http/upgrade.rs`, handlers' decisions in `http/decision.rs`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

mod common;
#[path = "http/decision.rs"]
mod decision;
#[path = "common/raw.rs"]
mod raw;
#[path = "http/upgrade.rs"]
mod upgrade;

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use peregrine::{Callbacks, Limits, Response, RunningServer, Server};

use crate::common::{start, within};
use crate::raw::{Answer, Bystander, Raw, get, next_is_served, timed, until};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);
/// A deadline that a test can wait for.
const SHORT: Duration = Duration::from_millis(300);
/// More than the kernel's buffers hold.
const BIG_BYTES: usize = 16 << 20;

fn echo() -> Callbacks<()> {
    Callbacks::new().on_message(|_, message| message.into())
}

/// The body of the page that is too large for the kernel.
static BIG: LazyLock<Bytes> =
    LazyLock::new(|| (0..BIG_BYTES).map(|at| at.to_le_bytes()[at % 3]).collect());

fn big() -> Response {
    let page = Response::new(200).header("Content-Type", "application/octet-stream");
    page.expect("a header").body(BIG.clone())
}

/// The site that all these tests visit.
fn site(limits: Limits) -> RunningServer {
    start(1, |builder| {
        builder
            .limits(limits)
            .get("/", Response::html("<h1>home</h1>").header("X-Page", "home").expect("a header"))
            .get("/b", "b")
            .get("/big", big())
            .get("/both", "a page beside an endpoint")
            .get("/gone", Response::new(410))
            .get("/medium", "m".repeat(40_000))
            .websocket("/both", echo())
            .websocket("/echo", echo())
    })
}

fn short_limits() -> Limits {
    let mut limits = Limits::default();
    limits.handshake_timeout = SHORT;
    limits.close_timeout = SHORT;
    limits
}

fn has_end(raw: &mut Raw, answer: &Answer) {
    assert_eq!(answer.header("Connection"), Some("close"));
    raw.ended();
}

#[test]
fn a_page_is_served_with_its_headers() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        raw.send(get("/?with=a+query"));
        let answer = raw.answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"<h1>home</h1>"[..]));
        assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("X-Page"), Some("home"));
        assert_eq!(answer.header("Content-Length"), Some("13"));
        raw.send(get("/gone"));
        assert_eq!(raw.answer().status, 410);
    });
}

#[test]
fn who_comes_before_the_start_is_served_after_it() {
    within(LIMIT, || {
        let builder = Server::builder().shards(2).get("/b", "b").websocket("/echo", echo());
        let server = builder.bind("127.0.0.1:0").expect("a free port");
        let address = server.local_addr();
        let mut early: Vec<_> = (0..20).map(|_| Raw::connect(address)).collect();
        for raw in &mut early {
            raw.send([get("/b"), raw::upgrade("/echo")].concat());
        }
        let _running = server.start().expect("threads");
        for raw in &mut early {
            assert_eq!(raw.answer().body, b"b");
            assert_eq!(raw.head().status, 101);
        }
        next_is_served(address, "/echo");
    });
}

#[test]
fn head_is_answered_with_the_headers_of_get_and_no_body() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        for path in ["/", "/b", "/both", "/medium"] {
            raw.send(get(path));
            let whole = raw.answer();
            raw.send(get(path).replace("GET", "HEAD"));
            let described = raw.head();
            assert_eq!((described.status, described.headers), (whole.status, whole.headers));
        }
        // Had there been a body, it would be taken for this response.
        raw.send(get("/b"));
        assert_eq!(raw.answer().body, b"b");
    });
}

#[test]
fn a_connection_serves_one_request_after_another() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        for _ in 0..50 {
            raw.send(get("/"));
            assert_eq!(raw.answer().body, b"<h1>home</h1>");
            raw.send(get("/medium"));
            assert_eq!(raw.answer().body.len(), 40_000);
        }
    });
}

#[test]
fn requests_in_one_packet_are_answered_in_order() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect(site.local_addr());
        let requests = [get("/b"), get("/medium"), get("/"), get("/nothing"), get("/b")].concat();
        raw.send(&requests);
        assert_eq!(raw.answer().body, b"b");
        assert_eq!(raw.answer().body.len(), 40_000);
        assert_eq!(raw.answer().body, b"<h1>home</h1>");
        let refusal = raw.answer();
        assert_eq!(refusal.status, 404);
        has_end(&mut raw, &refusal);
    });
}

#[test]
fn thousands_of_requests_ahead_of_their_answers_are_all_answered() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect_narrow(site.local_addr());
        let mut writer = raw.socket.try_clone().expect("a descriptor");
        let sending = thread::spawn(move || {
            let requests = get("/medium").repeat(2000);
            std::io::Write::write_all(&mut writer, requests.as_bytes()).expect("the server reads");
        });
        for _ in 0..2000 {
            assert_eq!(raw.answer().body.len(), 40_000);
        }
        sending.join().expect("the sender");
    });
}

#[test]
fn a_request_may_be_cut_anywhere() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut bystander = Bystander::connect(site.local_addr(), "/echo");
        let mut raw = Raw::connect(site.local_addr());
        let request = get("/b");
        for cut in 1..request.len() {
            raw.send(&request[..cut]);
            bystander.is_served();
            raw.send(&request[cut..]);
            assert_eq!(raw.answer().body, b"b", "cut at {cut}");
        }
        for byte in request.bytes() {
            raw.send([byte]);
            bystander.is_served();
        }
        assert_eq!(raw.answer().body, b"b");
    });
}

#[test]
fn http_1_0_and_connection_close_end_after_one_response() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for request in [
            "GET /b HTTP/1.0\r\n\r\n",
            "GET /b HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, Close\r\n\r\n",
        ] {
            let mut raw = Raw::connect(site.local_addr());
            // The second one is never answered.
            raw.send([request, &get("/")].concat());
            let answer = raw.answer();
            assert_eq!(answer.body, b"b", "{request:?}");
            has_end(&mut raw, &answer);
        }
    });
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let inner = get("/");
        let length = inner.len();
        for body in [
            format!("Content-Length: {length}"),
            format!("Content-Length: 0, {length}"),
            format!("Content-Length: 0\r\nContent-Length: {length}"),
            "Transfer-Encoding: chunked".to_owned(),
        ] {
            let head = get("/b").replace("Host", &format!("{body}\r\nHost"));
            let mut raw = Raw::connect(site.local_addr());
            raw.send([head.as_str(), &inner].concat());
            let answer = raw.answer();
            assert!(answer.status == 400 || answer.body == b"b", "{head:?}: {answer:?}");
            has_end(&mut raw, &answer);
        }
        next_is_served(site.local_addr(), "/echo");
    });
}

#[test]
fn a_page_read_slowly_is_complete() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let mut raw = Raw::connect_narrow(site.local_addr());
        let mut bystander = Bystander::connect(site.local_addr(), "/echo");
        raw.send([get("/big"), get("/b")].concat());
        let head = raw.head();
        let length: usize = head.header("Content-Length").expect("one").parse().expect("bytes");
        assert_eq!(length, BIG_BYTES);
        for at in 0..BIG_BYTES / 65_536 {
            let part = raw.take(65_536).expect("a part of the page");
            assert!(part == BIG[at * 65_536..][..65_536], "part {at} is damaged");
            bystander.is_served();
        }
        assert_eq!(raw.answer().body, b"b");
    });
}

/// The deadlines are for who does nothing.
#[test]
fn a_download_in_progress_outlasts_the_deadlines() {
    /// The kernel tells of progress only when a third of its buffer is free again.
    const DEADLINE: Duration = Duration::from_millis(1500);
    for request in [get("/big"), get("/big").replace("Host", "Connection: close\r\nHost")] {
        within(LIMIT, move || {
            let mut limits = Limits::default();
            limits.handshake_timeout = DEADLINE;
            limits.close_timeout = DEADLINE;
            let site = site(limits);
            let mut raw = Raw::connect_narrow(site.local_addr());
            raw.send(&request);
            raw.head();
            for part in 0..32 {
                thread::park_timeout(DEADLINE * 2 / 32);
                let taken = raw.take(BIG_BYTES / 32);
                assert!(taken.is_some(), "{request:?} ends after {part} of 32 parts");
            }
        });
    }
}

#[test]
fn a_request_that_waited_behind_a_download_is_answered() {
    within(LIMIT, || {
        let mut limits = short_limits();
        limits.handshake_timeout = SHORT * 4;
        let site = site(limits);
        let mut raw = Raw::connect_narrow(site.local_addr());
        raw.send([get("/big"), get("/b")].concat());
        raw.head();
        for _ in 0..16 {
            thread::park_timeout(SHORT * 6 / 16);
            assert!(raw.take(BIG_BYTES / 16).is_some(), "the whole page");
        }
        let answer = raw.answer();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"b"[..]));
    });
}

#[test]
fn what_is_not_served_is_refused_and_says_why() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for (request, status) in [
            (get("/nothing"), 404),
            (get("/b/"), 404),
            (get("/B"), 404),
            (get("//b"), 404),
            (get("/../b"), 404),
            (get("*"), 404),
            (get("/b").replace("GET", "POST"), 405),
            (get("/b").replace("GET", "get"), 405),
            (get("/both").replace("GET", "DELETE"), 405),
            (get("/b").replace("GET", "OPTIONS"), 405),
            (get("/b").replace("Host: localhost\r\n", ""), 400),
            (get("/b").replace("Host: localhost", "Host: a\r\nHost: b"), 400),
            (get("/b").replace("HTTP/1.1", "HTTP/2.0"), 400),
            (get("/b").replace("HTTP/1.1", "HTTP/1.2"), 400),
            (get("/b").replace("HTTP/1.1", "FTP/1.1"), 400),
            (get("/b").replace("GET /b", "GET  /b"), 400),
            (get("/b").replace("Host:", "Host :"), 400),
            (get("/b").replace("localhost", "local\0host"), 400),
            (get("/b").replace("localhost\r\n", "localhost\r\n folded: yes\r\n"), 400),
            (get("/b").replace("localhost\r\n", "localhost\r\nno colon\r\n"), 400),
            ("GET /b\r\n\r\n".to_owned(), 400),
        ] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(&request);
            let answer = raw.answer();
            assert_eq!(answer.status, status, "{request:?}");
            assert!(!answer.body.is_empty(), "{request:?} gets a reason");
            assert_eq!(answer.header("Allow").is_some(), status == 405, "{request:?}");
            has_end(&mut raw, &answer);
        }
        next_is_served(site.local_addr(), "/echo");
    });
}

#[test]
fn a_refused_head_request_gets_no_body() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for path in ["/nothing", "/echo"] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(get(path));
            let whole = raw.answer();
            let mut raw = Raw::connect(site.local_addr());
            raw.send(get(path).replace("GET", "HEAD"));
            let described = raw.head();
            raw.ended();
            assert_eq!(described.status, whole.status, "HEAD of {path} is like GET");
        }
    });
}

#[test]
fn a_method_that_is_allowed_is_not_refused() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for path in ["/b", "/echo", "/both"] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(get(path).replace("GET", "POST"));
            let allowed = raw.answer().header("Allow").expect("a list").to_owned();
            for method in allowed.split(", ") {
                let mut raw = Raw::connect(site.local_addr());
                raw.send(get(path).replace("GET", method));
                assert_ne!(raw.head().status, 405, "{method} {path}, of {allowed}");
            }
        }
    });
}

#[test]
fn a_head_up_to_its_limit_is_read_and_not_a_byte_more() {
    within(LIMIT, || {
        let site = site(Limits::default());
        let padded = |bytes: usize| {
            let bare = get("/b").replace("\r\n\r\n", "\r\nX: \r\n\r\n");
            bare.replace("X: ", &format!("X: {}", "x".repeat(bytes - bare.len())))
        };
        for (bytes, status) in [(16_383, 200), (16_384, 200), (16_385, 431), (40_000, 431)] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(padded(bytes));
            assert_eq!(raw.answer().status, status, "{bytes} bytes");
        }
        for (count, status) in [(63, 200), (64, 431), (1000, 431)] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(get("/b").replace("Host", &format!("{}Host", "a: b\r\n".repeat(count))));
            assert_eq!(raw.answer().status, status, "{count} headers and Host");
        }
        next_is_served(site.local_addr(), "/echo");
    });
}

#[test]
fn a_head_that_never_ends_is_refused_soon() {
    within(LIMIT, || {
        let site = site(Limits::default());
        for endless in
            ["GET / HTTP/1.1\r\nX: x", "GET /", "G", "\r\n", "GET / HTTP/1.1\r\na: b\r\n"]
        {
            let mut raw = Raw::connect(site.local_addr());
            let (start, more) = endless.split_at(endless.len() - 1);
            raw.try_send(start);
            raw.try_send(more.repeat(100_000));
            let answer = raw.answer();
            assert!(matches!(answer.status, 400 | 431), "{endless:?}: {answer:?}");
            has_end(&mut raw, &answer);
        }
        next_is_served(site.local_addr(), "/echo");
    });
}

/// Larger than the shard's receive buffer.
#[test]
fn a_head_limit_above_the_receive_buffer_works_or_is_refused_at_the_start() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_head_bytes = 256 << 10;
        let builder = Server::builder().shards(1).limits(limits).get("/b", "b");
        let Ok(server) = builder.bind("127.0.0.1:0") else { return };
        let site = server.start().expect("threads");
        let mut raw = Raw::connect(site.local_addr());
        raw.send(get("/b").replace("Host", &format!("X: {}\r\nHost", "x".repeat(200_000))));
        assert_eq!(raw.answer().status, 200);
    });
}

#[test]
fn a_request_that_does_not_arrive_in_time_is_told_so() {
    within(LIMIT, || {
        let site = site(short_limits());
        for beginning in ["G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut raw = Raw::connect(site.local_addr());
            raw.send(beginning);
            let answer = raw.answer();
            assert_eq!(answer.status, 408, "{beginning:?}");
            has_end(&mut raw, &answer);
        }
        // A byte now and then does not buy time.
        let mut raw = Raw::connect(site.local_addr());
        let mut writer = raw.socket.try_clone().expect("a descriptor");
        let trickle = thread::spawn(move || {
            let mut count = 0;
            while std::io::Write::write_all(&mut writer, b"G").is_ok() && count < 1000 {
                thread::park_timeout(SHORT / 10);
                count += 1;
            }
            count
        });
        assert_eq!(raw.answer().status, 408);
        drop(raw);
        assert!(trickle.join().expect("the trickle") < 100, "the deadline is not moved");
    });
}

/// A browser connects in advance, a pool keeps connections: both would take a 408 for the response
/// to their next request.
#[test]
fn a_connection_that_has_said_nothing_is_closed_in_order_and_without_a_word() {
    within(LIMIT, || {
        let site = site(short_limits());
        let mut raw = Raw::connect(site.local_addr());
        assert_eq!(raw.end(), Ok(()));
    });
}

#[test]
fn silence_after_a_page_is_the_end_of_keep_alive_and_no_offence() {
    within(LIMIT, || {
        let mut limits = short_limits();
        limits.keep_alive_timeout = SHORT * 3;
        let site = site(limits);
        let mut raw = Raw::connect(site.local_addr());
        for _ in 0..8 {
            // Each response begins the wait anew.
            thread::park_timeout(SHORT / 2);
            raw.send(get("/b"));
            assert_eq!(raw.answer().body, b"b");
        }
        assert_eq!(raw.end(), Ok(()));
        // The next request has less time, once it has begun.
        let mut raw = Raw::connect(site.local_addr());
        raw.send([get("/b").as_str(), "GET"].concat());
        assert_eq!(raw.answer().body, b"b");
        let (late, took) = timed(|| raw.answer());
        assert_eq!(late.status, 408);
        assert!(took < SHORT * 3, "not {took:?}");
        has_end(&mut raw, &late);
    });
}

#[test]
fn who_is_too_many_is_told_to_come_back() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_connections = Some(2);
        let site = site(limits);
        let hub = site.hub();
        let mut first = Bystander::connect(site.local_addr(), "/echo");
        let second = Bystander::connect(site.local_addr(), "/echo");
        let mut third = Raw::connect(site.local_addr());
        third.send(raw::upgrade("/echo"));
        let answer = third.answer();
        assert_eq!(answer.status, 503);
        assert!(answer.header("Retry-After").is_some());
        has_end(&mut third, &answer);
        // Those beyond even the room for refusals do not take it from those inside.
        let crowd: Vec<Raw> = (0..200).map(|_| Raw::connect(site.local_addr())).collect();
        first.is_served();
        drop((second, crowd));
        until("they have left", || hub.connection_counts() == [1]);
        next_is_served(site.local_addr(), "/echo");
        first.is_served();
    });
}
