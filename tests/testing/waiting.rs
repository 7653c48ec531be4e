//! How long a connection that speaks HTTP may be silent, and what it gets at the end, to the tick.

use std::future::pending;
use std::time::Duration;

use peregrine::testing::{TestClient, TestServer};
use peregrine::{Callbacks, Limits, Server, Upgrade};

use super::start;

const TICK: Duration = Duration::from_millis(16);
const INSTANT: Duration = Duration::from_millis(1);
const HANDSHAKE: Duration = Duration::from_secs(5);
const PAGE: &str = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// More than a pipe holds.
const BIG_BYTES: usize = 256 << 10;

/// A page at `/page`, a big one at `/big`, an endpoint at `/later` that never decides. Its clients
/// come from a proxy that is trusted.
fn site(keep_alive: Option<Duration>) -> TestServer {
    let mut limits = Limits::default();
    assert_eq!(limits.handshake_timeout, HANDSHAKE);
    assert_eq!(limits.keep_alive_timeout, Duration::from_secs(75));
    if let Some(keep_alive) = keep_alive {
        limits.keep_alive_timeout = keep_alive;
    }
    let later = Callbacks::<()>::with_upgrade(|_| Upgrade::later(pending::<Upgrade<()>>()));
    let builder = Server::builder().limits(limits).trust_proxies(["127.0.0.1"]);
    let builder = builder.get("/page", "a page").get("/big", "b".repeat(BIG_BYTES));
    start(builder.websocket("/later", later))
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// What the client has got so far.
fn said(server: &mut TestServer, client: TestClient) -> String {
    String::from_utf8(server.take_bytes(client)).expect("text")
}

/// Asks for the page and gets it.
fn is_served(server: &mut TestServer, client: TestClient) {
    server.send_bytes(client, PAGE);
    let answer = said(server, client);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("a page"), "{answer:?}");
}

/// Nothing happens for so long, and then the connection ends; what it got since the last look.
fn ends_after(server: &mut TestServer, client: TestClient, time: Duration) -> String {
    server.advance(time - INSTANT);
    assert!(!server.has_ended(client), "before {time:?} are over");
    server.advance(TICK + INSTANT);
    assert!(server.has_ended(client), "after {time:?}");
    said(server, client)
}

#[test]
fn a_connection_that_has_said_nothing_is_closed_without_a_word() {
    for proxy in ["", "PROXY TCP4 192.0.2.7 192.0.2.1 4567 80\r\n", "PROXY UNKNOWN\r\n"] {
        let mut server = site(None);
        let client = server.open();
        server.send_bytes(client, proxy);
        assert_eq!(ends_after(&mut server, client, HANDSHAKE), "", "{proxy:?}");
        assert_eq!(server.hub().connection_counts(), [0], "nothing is left of it");
    }
}

#[test]
fn a_request_that_has_begun_and_does_not_arrive_in_time_gets_408() {
    for beginning in ["G", "GET / HTTP/1.1\r\nHost: a\r\n", "\r\n", "PROXY TCP4 192.0"] {
        let mut server = site(None);
        let client = server.open();
        server.send_bytes(client, beginning);
        let answer = ends_after(&mut server, client, HANDSHAKE);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{beginning:?}: {answer:?}");
        // The first byte comes late: it gains no time.
        let client = server.open();
        server.advance(HANDSHAKE - INSTANT * 3);
        server.send_bytes(client, beginning);
        let answer = ends_after(&mut server, client, INSTANT * 3);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{beginning:?}: {answer:?}");
    }
}

#[test]
fn silence_after_a_page_has_a_time_of_its_own_and_ends_without_a_word() {
    for seconds in [1, 4, 5, 6, 75, 1000] {
        let keep_alive = Duration::from_secs(seconds);
        let mut server = site((seconds != 75).then_some(keep_alive));
        let client = server.open();
        for _ in 0..3 {
            // Each response begins the time anew.
            is_served(&mut server, client);
            server.advance(keep_alive - INSTANT);
        }
        is_served(&mut server, client);
        assert_eq!(ends_after(&mut server, client, keep_alive), "", "{keep_alive:?}");
        assert_eq!(server.hub().connection_counts(), [0]);
    }
}

#[test]
fn the_next_request_has_the_time_of_a_handshake_from_its_first_byte() {
    for seconds in [2, 75] {
        let mut server = site(Some(Duration::from_secs(seconds)));
        let client = server.open();
        is_served(&mut server, client);
        server.advance(Duration::from_secs(1));
        server.send_bytes(client, &PAGE[..1]);
        server.advance(HANDSHAKE / 2);
        // A byte now and then gains no time.
        server.send_bytes(client, &PAGE[1..20]);
        let answer = ends_after(&mut server, client, HANDSHAKE / 2);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{seconds} s: {answer:?}");
        // One that comes in time is served, and silence after it ends as ever.
        let client = server.open();
        is_served(&mut server, client);
        server.send_bytes(client, &PAGE[..20]);
        server.advance(HANDSHAKE - INSTANT);
        server.send_bytes(client, &PAGE[20..]);
        assert!(said(&mut server, client).ends_with("a page"));
        assert_eq!(ends_after(&mut server, client, Duration::from_secs(seconds)), "");
    }
}

#[test]
fn an_upgrade_after_a_page_is_decided_within_the_time_of_a_handshake() {
    let mut server = site(None);
    let client = server.open();
    is_served(&mut server, client);
    server.advance(Duration::from_secs(30));
    server.send_bytes(client, upgrade("/later"));
    let answer = ends_after(&mut server, client, HANDSHAKE);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
}

#[test]
fn the_silence_after_a_page_begins_when_the_page_has_been_taken() {
    let keep_alive = Duration::from_secs(2);
    let mut server = site(Some(keep_alive));
    let client = server.open();
    server.stop_reading(client);
    server.send_bytes(client, PAGE.replace("/page", "/big"));
    // As long as the pipe does not hold the rest.
    for _ in 0..10 {
        server.advance(HANDSHAKE - INSTANT);
        server.read_some(client, 10 << 10);
    }
    server.advance(HANDSHAKE - INSTANT);
    assert!(!server.has_ended(client), "it takes what it gets");
    server.start_reading(client);
    assert!(said(&mut server, client).ends_with("bbb"));
    assert_eq!(ends_after(&mut server, client, keep_alive), "");
}

#[test]
fn without_keep_alive_each_page_says_that_it_is_the_last() {
    let mut server = site(Some(Duration::ZERO));
    let client = server.open();
    server.send_bytes(client, PAGE.repeat(2));
    let answer = said(&mut server, client);
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("\r\n\r\na page"));
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer:?}");
    assert!(server.has_ended(client));
}

#[test]
fn as_good_as_never_is_a_time_like_any_other() {
    let mut server = site(Some(Duration::MAX));
    let client = server.open();
    is_served(&mut server, client);
    server.advance(Duration::from_secs(24 * 60 * 60));
    is_served(&mut server, client);
}
