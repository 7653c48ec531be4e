//! Connections beyond the limits: they get pages, so that a probe sees that the server is alive,
//! and no upgrade.

use std::net::SocketAddr;

use peregrine::{Callbacks, Limits, RunningServer};

use super::LIMIT;
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{Bystander, Raw, get, until, upgrade};

/// As many as `max_connections`.
const COUNT: usize = 2;
/// How many connections are kept beyond the limits.
const SURPLUS_COUNT: usize = 64;

/// An echo, pages, and a page that tells whether the server is ready.
fn site(shard_count: usize, limits: Limits) -> RunningServer {
    let echo = || Callbacks::<()>::new().on_message(|_, message| message.into());
    start(shard_count, |builder| {
        let builder = builder.limits(limits).trust_proxies(["127.0.0.9"]);
        let builder = builder.get("/live", "alive").readiness("/ready");
        builder.get("/both", "a page").websocket("/both", echo()).websocket("/echo", echo())
    })
}

/// A server that has all the connections that it may have.
fn full(shard_count: usize) -> (RunningServer, Vec<Bystander>) {
    let mut limits = Limits::default();
    limits.max_connections = Some(COUNT);
    let server = site(shard_count, limits);
    let inside = (0..COUNT).map(|_| Bystander::connect(server.local_addr(), "/echo")).collect();
    (server, inside)
}

/// Asks, and gets an answer with this status, after which the connection ends.
fn gets(mut raw: Raw, request: &str, status: u16) {
    raw.send(request);
    let is_head = request.starts_with("HEAD");
    let answer = if is_head { raw.head() } else { raw.answer() };
    assert_eq!(answer.status, status, "{request:?}");
    assert_eq!(answer.header("Connection").map(|value| value.starts_with("close")), Some(true));
    assert_eq!(answer.header("Retry-After").is_some(), matches!(status, 429 | 503));
    raw.ended();
}

/// What a server answers that lets its client ask and not upgrade.
fn serves_pages_only(connect: impl Fn() -> Raw, refusal: u16) {
    for (request, status) in [
        (get("/live"), 200),
        (get("/live").replace("GET", "HEAD"), 200),
        (get("/ready"), 200),
        (get("/ready").replace("GET", "HEAD"), 200),
        (get("/both"), 200),
        (upgrade("/both"), refusal),
        (upgrade("/echo"), refusal),
        (get("/echo"), 426),
        (get("/nothing"), 404),
        (upgrade("/nothing"), 404),
        (get("/live").replace("GET", "POST"), 405),
        (upgrade("/echo").replace("Host", "Origin: https://evil.example\r\nHost"), 403),
        ("nonsense\r\n\r\n".to_owned(), 400),
        // Only the first of two requests is served.
        (get("/live").repeat(2), 200),
    ] {
        gets(connect(), &request, status);
    }
}

#[test]
fn a_full_server_serves_its_pages_and_refuses_upgrades_only() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, mut inside) = full(shard_count);
            let address = server.local_addr();
            serves_pages_only(|| Raw::connect(address), 503);
            // A liveness probe goes on for as long as the server is full.
            for _ in 0..2 * SURPLUS_COUNT {
                gets(Raw::connect(address), &get("/live"), 200);
            }
            inside.iter_mut().for_each(Bystander::is_served);
            drop(inside);
            until("there is room", || {
                let mut raw = Raw::connect(address);
                raw.send(upgrade("/echo"));
                raw.head().status == 101
            });
        });
    }
}

#[test]
fn an_address_with_too_many_connections_gets_pages_and_no_upgrade() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let mut limits = Limits::default();
            limits.max_connections_per_ip = Some(1);
            let server = site(shard_count, limits);
            let address = server.local_addr();
            let _inside = Bystander::connect(address, "/echo");
            serves_pages_only(|| Raw::connect(address), 429);
            // Also one of whom a proxy tells whose it is, before the request or in it.
            let told = "PROXY TCP4 127.0.0.1 127.0.0.1 1 80\r\n";
            let behind = || {
                let mut raw = Raw::connect_from("127.0.0.9", address);
                raw.send(told);
                raw
            };
            serves_pages_only(behind, 429);
            let header = "X-Forwarded-For: 127.0.0.1\r\nHost";
            let mut raw = Raw::connect_from("127.0.0.9", address);
            raw.send(upgrade("/echo").replacen("Host", header, 1));
            assert_eq!(raw.answer().status, 429);
        });
    }
}

/// Opens as many silent connections as are kept, and waits until they are.
fn fill(server: &RunningServer, connect: impl Fn(SocketAddr) -> Raw, inside: usize) -> Vec<Raw> {
    let crowd = (0..SURPLUS_COUNT).map(|_| connect(server.local_addr())).collect();
    until("all are kept", || {
        server.hub().connection_counts().iter().sum::<usize>() == inside + SURPLUS_COUNT
    });
    crowd
}

/// When a crowd comes back at once, the 64 places are always taken.
#[test]
fn a_probe_is_answered_in_the_middle_of_a_crowd_that_says_nothing() {
    within(LIMIT, || {
        let (server, mut inside) = full(1);
        let address = server.local_addr();
        let mut crowd = fill(&server, Raw::connect, COUNT);
        for at in 0..10 {
            gets(Raw::connect(address), &get("/live"), 200);
            // It was the oldest that made room.
            assert!(crowd.remove(0).all().is_empty(), "the one that makes room gets no answer");
            crowd.push(Raw::connect(address));
            inside.iter_mut().for_each(Bystander::is_served);
            let count: usize = server.hub().connection_counts().iter().sum();
            assert!(count <= COUNT + SURPLUS_COUNT + 1, "{count} after {at} probes");
        }
        // The rest is still answered.
        for raw in crowd.drain(20..30) {
            gets(raw, &upgrade("/echo"), 503);
        }
    });
}

/// What has begun a request keeps its place.
#[test]
fn who_has_begun_a_request_makes_no_room_for_others() {
    within(LIMIT, || {
        let (server, mut inside) = full(1);
        let mut crowd = fill(&server, Raw::connect, COUNT);
        let request = upgrade("/echo");
        crowd.iter_mut().for_each(|raw| raw.send(&request[..20]));
        inside[0].is_served();
        let mut late = Raw::connect(server.local_addr());
        late.try_send(&request);
        assert!(late.all().is_empty(), "there is no place for it, nor an answer");
        for raw in crowd {
            gets(raw, &request[20..], 503);
        }
    });
}
