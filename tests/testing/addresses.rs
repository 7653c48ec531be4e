//! What counts by client address, to the instant, against a naive model.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use peregrine::testing::{TestClient, TestRequest, TestServer};
use peregrine::{Callbacks, Limits, Server, Upgrade};

use super::{start, witnessed};

fn peer(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), 4567)
}

fn ask(server: &mut TestServer, path: &str, address: &str) -> Result<TestClient, u16> {
    let request = TestRequest::new(path).peer_addr(peer(address));
    server.connect(request).map_err(|refused| {
        if refused.status == 429 {
            let header = |name: &str| refused.headers.iter().find(|(key, _)| key == name);
            assert!(header("Retry-After").is_some());
            assert!(refused.body.starts_with("Too many"), "{}", refused.body);
        }
        refused.status
    })
}

#[test]
fn upgrades_of_an_address_come_back_one_by_one() {
    let mut limits = Limits::default();
    limits.max_upgrades_per_second_per_ip = Some(4);
    let (mut server, _) = witnessed(limits);
    let granted =
        |server: &mut TestServer| (0..10).filter(|_| ask(server, "/", "192.0.2.1").is_ok()).count();
    assert_eq!(granted(&mut server), 4, "a second's worth at once");
    for (wait_millis, count) in [(249, 0), (1, 1), (250, 1), (499, 1), (1, 1), (999, 3), (5000, 4)]
    {
        server.advance(Duration::from_millis(wait_millis));
        assert_eq!(granted(&mut server), count, "after {wait_millis} ms more");
    }
    assert!(ask(&mut server, "/", "192.0.2.2").is_ok(), "others have their own");
}

/// Anybody could use up the upgrades of a visitor by a page that asks for them.
#[test]
fn what_is_no_upgrade_or_comes_from_another_site_uses_up_none() {
    let mut limits = Limits::default();
    limits.max_upgrades_per_second_per_ip = Some(1);
    let refusing = Callbacks::<()>::with_upgrade(|_| Upgrade::reject(401));
    let builder = Server::builder().limits(limits).websocket("/", refusing).get("/page", "a page");
    let mut server = start(builder);
    let address = peer("192.0.2.1");
    for _ in 0..5 {
        let request =
            TestRequest::new("/").peer_addr(address).header("Origin", "https://evil.test");
        assert_eq!(server.connect(request).expect_err("another site").status, 403);
        assert_eq!(ask(&mut server, "/page", "192.0.2.1"), Err(200));
        assert_eq!(ask(&mut server, "/nothing", "192.0.2.1"), Err(404));
    }
    // Guessing a password does.
    assert_eq!(ask(&mut server, "/", "192.0.2.1"), Err(401));
    assert_eq!(ask(&mut server, "/", "192.0.2.1"), Err(429));
}

#[test]
fn who_is_silent_counts_until_its_time_is_over() {
    let mut limits = Limits::default();
    limits.max_connections_per_ip = Some(2);
    let (mut server, _) = witnessed(limits);
    // From where all come that do not say.
    let home = "127.0.0.1";
    let _silent = [(); 2].map(|()| server.open());
    server.advance(Duration::from_secs(4));
    assert_eq!(ask(&mut server, "/", home).err(), Some(429));
    assert!(ask(&mut server, "/", "127.0.0.2").is_ok());
    server.advance(Duration::from_secs(2));
    assert!(ask(&mut server, "/", home).is_ok() && ask(&mut server, "/", home).is_ok());
    assert_eq!(ask(&mut server, "/", home).err(), Some(429));
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("small") % limit
    }
}

/// Does what it is told, also to decide about the upgrade.
fn obedient() -> Callbacks<()> {
    Callbacks::with_upgrade(|request| match request.query("order") {
        Some("refuse") => Upgrade::reject(403),
        Some("panic") => panic!("on purpose"),
        Some("later") => Upgrade::later(async { Upgrade::<()>::reject(409) }),
        _ => Upgrade::accept(()),
    })
    .on_message(|ws, message| {
        match message.as_text() {
            Some("close") => ws.close(),
            Some("abort") => ws.abort(),
            Some("panic") => panic!("on purpose"),
            _ => {}
        }
        ().into()
    })
}

#[test]
fn whoever_comes_and_goes_in_whatever_way_the_count_stays_right() {
    const LIMIT: usize = 4;
    let addresses = ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "10.0.0.1"];
    for (seed, shard_count) in [(1, 1), (2, 2), (3, 4)] {
        let mut limits = Limits::default();
        limits.max_connections_per_ip = Some(LIMIT);
        let builder = Server::builder().shards(shard_count).limits(limits);
        let mut server = start(builder.websocket("/", obedient()));
        let mut dice = Dice(seed);
        let mut inside: HashMap<&str, Vec<TestClient>> = HashMap::new();
        let mut refused_count = 0;
        for step in 0..3000 {
            let address = addresses[dice.below(addresses.len())];
            let clients = inside.entry(address).or_default();
            let is_full = clients.len() == LIMIT;
            match dice.below(10) {
                0..=4 => match ask(&mut server, "/", address) {
                    Ok(client) => clients.push(client),
                    Err(status) => {
                        assert!(is_full && status == 429, "seed {seed}, step {step}: {status}");
                        refused_count += 1;
                    }
                },
                at @ 5..=6 => {
                    let order = ["refuse", "panic", "later"][dice.below(3)];
                    let path = [format!("/?order={order}"), "/nothing".to_owned()][at - 5].clone();
                    let status = ask(&mut server, &path, address).expect_err("nobody gets in");
                    let is_upgrade = at == 5;
                    let expected = is_full && is_upgrade;
                    assert_eq!(status == 429, expected, "seed {seed}, step {step}: {status}");
                }
                _ if clients.is_empty() => {}
                _ => {
                    let client = clients.swap_remove(dice.below(clients.len()));
                    match dice.below(5) {
                        0 => server.drop_connection(client),
                        1 => server.close(client, 1000, ""),
                        2 => server.send(client, "close"),
                        3 => server.send(client, "abort"),
                        _ => server.send(client, "panic"),
                    }
                }
            }
        }
        assert!(refused_count > 100, "the test is too small: {refused_count}");
        let left: usize = inside.values().map(Vec::len).sum();
        assert_eq!(server.hub().connection_counts().iter().sum::<usize>(), left);
        let report = server.shutdown(Duration::from_secs(10));
        assert_eq!((report.open_count, report.aborted_count), (left, 0));
    }
}

/// With more of them than the surplus has places, so that some lose theirs to others. The kit
/// checks the places after each step.
#[test]
fn whoever_comes_by_a_proxy_in_whatever_way_the_places_are_counted_right() {
    const HEAD: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: localhost\r\n";
    for (seed, proxy) in [(1, "127.0.0.1"), (2, "127.0.0.1"), (3, "10.0.0.1")] {
        let mut limits = Limits::default();
        limits.max_connections = Some(6);
        limits.max_connections_per_ip = Some(2);
        let builder = Server::builder().shards(1).limits(limits).trust_proxies([proxy]);
        let mut server = start(builder.websocket("/", obedient()).get("/page", "a page"));
        let mut dice = Dice(seed);
        let mut clients: Vec<TestClient> = Vec::new();
        let (mut full_count, mut dropped_count) = (0, 0);
        for _ in 0..1000 {
            clients.push(server.open());
            clients.push(server.open());
            let at = dice.below(clients.len());
            let client = clients[at];
            let address = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1"][dice.below(4)];
            let order = ["", "?order=refuse", "?order=panic", "?order=later"][dice.below(4)];
            match dice.below(12) {
                0 => server.send_bytes(client, format!("PROXY TCP4 {address} 127.0.0.1 1 80\r\n")),
                1 => server.send_bytes(client, "PROXY UNKNOWN\r\n"),
                2 | 3 => server.send_bytes(
                    client,
                    format!("GET /{order} HTTP/1.1\r\n{HEAD}X-Forwarded-For: {address}\r\n\r\n"),
                ),
                4 | 5 => server.send_bytes(client, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                6 => server.send_bytes(client, "GET /pa"),
                7 => server.advance(Duration::from_millis(300)),
                8 => server.send_bytes(client, "\u{81}\u{85}\0\0\0\0panic"),
                9 | 10 => server.settle(),
                _ => server.drop_connection(clients.swap_remove(at)),
            }
            let has_ended = |client: &TestClient| server.has_ended(*client);
            dropped_count += clients.iter().filter(|client| has_ended(client)).count();
            clients.retain(|client| !has_ended(client));

            full_count += usize::from(server.hub().connection_counts()[0] > 64);
        }
        assert!(full_count > 100 && dropped_count > 100, "{full_count}, {dropped_count}");
        for client in clients {
            server.drop_connection(client);
        }
        server.advance(Duration::from_secs(60));
        assert_eq!(server.hub().connection_counts(), [0]);
    }
}
