//! Where connections live: spread evenly over the shards, counted truly, on one port, each under
//! an id that no other server takes for its own. And what `bind` refuses, and how.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "what the tests share is public to each of them")]

mod common;
#[path = "common/skipped.rs"]
mod skipped;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use common::{Client, PATIENCE, SHARD_COUNTS, eventually, start, within};
use peregrine::{
    Callbacks, ConnectionId, Error, Handler, Limits, Message, Reply, SendError, Server, WebSocket,
};

/// How long a test may take in all.
const LIMIT: Duration = Duration::from_secs(120);

/// Tells each client its id; sends `"ID TEXT"` to one and answers with what came of it.
struct Post;

impl Handler for Post {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let text = message.as_text().unwrap_or_default();
        let (id, text) = text.split_once(' ').expect("an id and a text");
        let sent = ws.send_to(id.parse().expect("an id"), text);
        format!("{sent:?}").into()
    }
}

fn connect(address: SocketAddr) -> (Client, ConnectionId) {
    let mut client = Client::connect(address, "/");
    let id = client.text().parse().expect("an id");
    (client, id)
}

/// How many of the ids each shard has.
fn counts(shards: usize, ids: &[ConnectionId]) -> Vec<usize> {
    let mut counts = vec![0; shards];
    ids.iter().for_each(|id| counts[id.shard()] += 1);
    counts
}

/// How far the fullest shard may be above the emptiest: whoever accepts keeps a socket only while
/// it has fewer than two (and a 32nd) more than the emptiest, and else gives it to that one.
fn slack(counts: &[usize]) -> usize {
    2 + counts.iter().min().expect("a shard") / 32
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().expect("a shard") - counts.iter().min().expect("a shard")
}

#[test]
fn connections_that_come_one_by_one_spread_evenly_and_are_counted() {
    within(LIMIT, || {
        for shards in [2, 4] {
            let running = start(shards, |app| app.websocket("/", Post));
            let hub = running.hub();
            assert_eq!(hub.connection_counts(), vec![0; shards]);
            let (mut clients, mut ids) = (Vec::new(), Vec::new());
            for count in 1..=400 {
                let (client, id) = connect(running.local_addr());
                clients.push(client);
                ids.push(id);
                let counts = counts(shards, &ids);
                assert!(spread(&counts) <= slack(&counts), "{count} are spread as {counts:?}");
                assert_eq!(hub.connection_counts(), counts);
            }
            drop(clients);
            eventually(|| hub.connection_counts() == vec![0; shards]);
        }
    });
}

#[test]
fn connections_that_come_all_at_once_spread_evenly_and_are_counted() {
    within(LIMIT, || {
        for shards in [2, 4] {
            let running = start(shards, |app| app.websocket("/", Post));
            let (hub, address) = (running.hub(), running.local_addr());
            let comers: Vec<_> = (0..8)
                .map(|_| thread::spawn(move || (0..50).map(|_| connect(address)).collect()))
                .collect();
            let guests: Vec<Vec<_>> =
                comers.into_iter().map(|comer| comer.join().expect("no panic")).collect();
            let ids: Vec<_> = guests.iter().flatten().map(|(_, id)| *id).collect();
            let counts = counts(shards, &ids);
            // Each shard may decide once by counts that have just changed.
            assert!(spread(&counts) <= slack(&counts) + shards, "spread as {counts:?}");
            assert_eq!(hub.connection_counts(), counts);
            drop(guests);
            eventually(|| hub.connection_counts() == vec![0; shards]);
        }
    });
}

#[test]
fn a_shard_that_has_emptied_gets_the_next_connections() {
    within(LIMIT, || {
        for shards in [2, 4] {
            let running = start(shards, |app| app.websocket("/", Post));
            let hub = running.hub();
            let mut guests: Vec<_> = (0..40).map(|_| connect(running.local_addr())).collect();
            guests.retain(|(_, id)| id.shard() != 0);
            eventually(|| hub.connection_counts()[0] == 0);
            let emptiest_of_others = hub.connection_counts()[1..].iter().copied().min();
            for count in 1..=emptiest_of_others.expect("another shard") - 2 {
                let (client, id) = connect(running.local_addr());
                assert_eq!(id.shard(), 0, "the {count}th that came after it had emptied");
                guests.push((client, id));
            }
        }
    });
}

#[test]
fn who_has_not_upgraded_is_counted_until_it_leaves() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = start(shards, |app| app.websocket("/", Post));
            let total = || running.hub().connection_counts().iter().sum::<usize>();
            let silent: Vec<_> = (0..9).map(|_| common::connect(running.local_addr())).collect();
            eventually(|| total() == silent.len());
            drop(silent);
            eventually(|| total() == 0);
        }
    });
}

/// How many sockets of this machine listen on a port.
fn listener_count(port: u16) -> usize {
    let listens = |line: &&str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1).unwrap_or_default();
        // 0A is TCP_LISTEN.
        local.ends_with(&format!(":{port:04X}")) && words.nth(1) == Some("0A")
    };
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|table| table.lines().filter(listens).count())
        .sum()
}

#[test]
fn all_shards_share_the_port_that_was_drawn_with_ipv4_and_with_ipv6() {
    within(LIMIT, || {
        let mut addresses = vec!["127.0.0.1:0", "localhost:0"];
        match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            Ok(_) => addresses.push("[::1]:0"),
            Err(error) => skipped::skip("addresses of IPv6", &error.to_string()),
        }
        for address in addresses {
            for shards in SHARD_COUNTS {
                let app = Server::builder().shards(shards).websocket("/", Post);
                let running = app.bind(address).expect("a free port").start().expect("threads");
                let local_addr = running.local_addr();
                assert_ne!(local_addr.port(), 0);
                assert_eq!(listener_count(local_addr.port()), shards, "at {local_addr}");
                let guests: Vec<_> = (0..4 * shards).map(|_| connect(local_addr)).collect();
                let used: HashSet<_> = guests.iter().map(|(_, id)| id.shard()).collect();
                assert_eq!(used.len(), shards, "every shard serves");
            }
        }
    });
}

#[test]
fn who_connects_between_bind_and_start_is_served() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let app = Server::builder().shards(shards).websocket("/", Post);
            let server = app.bind("127.0.0.1:0").expect("a free port");
            let address = server.local_addr();
            let early: Vec<_> = (0..20).map(|_| common::connect(address)).collect();
            let running = server.start().expect("threads");
            for socket in early {
                let (mut client, _) =
                    tungstenite::client(format!("ws://{address}/"), socket).expect("an upgrade");
                let id = client.read().expect("an id");
                assert!(id.to_text().is_ok_and(|id| id.parse::<ConnectionId>().is_ok()));
            }
            drop(running);
        }
    });
}

#[test]
fn without_a_wish_there_is_one_shard_a_processor() {
    let server = Server::builder().bind("127.0.0.1:0").expect("a free port");
    let parallelism = thread::available_parallelism().expect("a number").get();
    assert_eq!(server.hub().connection_counts(), vec![0; parallelism]);
}

#[test]
fn an_id_of_another_server_is_gone_and_harms_nobody() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            // Shard by shard and slot by slot the two are alike.
            let servers = [(); 2].map(|()| start(shards, |app| app.websocket("/", Post)));
            let mut guests = servers.each_ref().map(|server| -> Vec<_> {
                (0..3 * shards).map(|_| connect(server.local_addr())).collect()
            });
            let ids = guests
                .each_ref()
                .map(|guests| -> Vec<_> { guests.iter().map(|(_, id)| *id).collect() });
            let all: HashSet<_> = ids.iter().flatten().collect();
            assert_eq!(all.len(), 6 * shards, "ids are unique among servers");
            for (server, own) in servers.iter().zip([0, 1]) {
                let hub = server.hub();
                for &id in &ids[1 - own] {
                    let gone = Err(SendError::Gone);
                    assert_eq!(hub.send_to(id, "x"), gone);
                    assert_eq!(hub.close(id), gone);
                    assert_eq!(hub.close_with(id, 4000, "x"), gone);
                    assert_eq!(hub.abort(id), gone);
                    for (client, _) in &mut guests[own] {
                        client.send(format!("{id} x"));
                        assert_eq!(client.text(), "Err(Gone)");
                    }
                }
                assert_eq!(hub.dropped_count(), 0);
            }
            for (server, guests) in servers.iter().zip(&mut guests) {
                server.hub().broadcast("/", "still here").expect("room");
                assert!(guests.iter_mut().all(|(client, _)| client.text() == "still here"));
            }
        }
    });
}

#[test]
fn a_hub_that_outlives_its_server_says_so_and_a_restart_knows_no_old_id() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = start(shards, |app| app.websocket("/", Post));
            let (hub, address) = (running.hub(), running.local_addr());
            let (mut client, old_id) = connect(address);
            let leaving = thread::spawn(move || client.close_code());
            running.shutdown(PATIENCE).expect("the threads end");
            assert_eq!(leaving.join().expect("no panic"), 1001);
            for told in [
                hub.send_to(old_id, "x"),
                hub.broadcast("/", "x"),
                hub.close(old_id),
                hub.abort(old_id),
            ] {
                assert_eq!(told, Err(SendError::ShuttingDown));
            }
            assert_eq!(hub.connection_counts(), vec![0; shards]);

            let app = Server::builder().shards(shards).websocket("/", Post);
            let restarted = app.bind(address).expect("the port is free").start().expect("threads");
            let (mut client, id) = connect(address);
            assert_ne!(id, old_id);
            assert_eq!(restarted.hub().send_to(old_id, "x"), Err(SendError::Gone));
            client.send(format!("{old_id} x"));
            assert_eq!(client.text(), "Err(Gone)");
        }
    });
}

fn nothing() -> Callbacks<()> {
    Callbacks::new()
}

#[test]
fn a_path_that_is_taken_or_malformed_is_refused_by_name() {
    let taken = [
        Server::builder().websocket("/a", nothing()).websocket("/a", nothing()),
        Server::builder().get("/a", "x").websocket("/b", nothing()).get("/a", "y"),
    ];
    for app in taken {
        match app.bind("127.0.0.1:0") {
            Err(Error::Path { path, problem }) => {
                assert_eq!((path.as_str(), problem.is_empty()), ("/a", false));
            }
            other => panic!("{other:?}"),
        }
    }
    for path in ["", "chat", "chat/", "/a?b", "/a#b", "/{id", "/{*rest}/a", "ws://host/a"] {
        let apps = [Server::builder().websocket(path, nothing()), Server::builder().get(path, "x")];
        for app in apps {
            let refused = app.bind("127.0.0.1:0").expect_err("a malformed path");
            assert!(refused.to_string().contains(&format!("{path:?}")), "{refused}");
            assert!(matches!(refused, Error::Path { path: named, .. } if named == path));
        }
    }
    let both = Server::builder().get("/a", "x").websocket("/a", nothing()).websocket("/", Post);
    assert!(both.bind("127.0.0.1:0").is_ok(), "a page and an endpoint share a path");
}

#[test]
fn limits_that_contradict_one_another_are_refused() {
    let contradictions: [fn(&mut Limits); 14] = [
        |limits| limits.max_message_bytes = 0,
        |limits| limits.max_frame_bytes = 0,
        |limits| limits.max_headers = 0,
        |limits| limits.max_headers = 129,
        |limits| limits.outbox_low_water_bytes = limits.outbox_high_water_bytes + 1,
        |limits| limits.outbox_high_water_bytes = limits.max_outbox_bytes + 1,
        |limits| limits.max_shard_outbox_bytes = limits.max_outbox_bytes - 1,
        |limits| limits.max_mailbox_envelopes = 0,
        |limits| limits.max_mailbox_envelopes = usize::MAX,
        |limits| limits.max_mailbox_bytes = 0,
        |limits| limits.max_mailbox_bytes = usize::MAX,
        |limits| limits.ping_after = limits.idle_timeout,
        |limits| limits.idle_timeout = Duration::ZERO,
        |limits| limits.max_connections = Some(0),
    ];
    for (at, contradict) in contradictions.into_iter().enumerate() {
        let mut limits = Limits::default();
        contradict(&mut limits);
        match Server::builder().limits(limits).bind("127.0.0.1:0") {
            Err(Error::Limits(rule)) => assert!(!rule.is_empty()),
            other => panic!("contradiction {at}: {other:?}"),
        }
    }
}

#[test]
fn limits_at_the_edge_of_the_rules_serve() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.outbox_low_water_bytes = 0;
        limits.outbox_high_water_bytes = 0;
        // The answer to the upgrade waits in the outbox, too, and the id behind it.
        limits.max_outbox_bytes = 256;
        limits.max_shard_outbox_bytes = 256;
        limits.max_mailbox_bytes = 1;
        limits.max_connections = Some(1);
        let running = start(1, |app| app.limits(limits).websocket("/", Post));
        let (mut client, id) = connect(running.local_addr());
        // Whatever its size, a message is accepted where nothing waits.
        for size in [0, 1, 100_000] {
            let text = "x".repeat(size);
            running.hub().send_to(id, &text).expect("an empty mailbox");
            assert_eq!(client.text(), text);
        }
    });
}

#[test]
fn a_number_of_shards_that_cannot_be_is_refused() {
    for count in [0, 4097, usize::MAX] {
        match Server::builder().shards(count).bind("127.0.0.1:0") {
            Err(Error::Shards(refused)) => assert_eq!(refused, count),
            other => panic!("{count} shards: {other:?}"),
        }
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_an_error_that_names_it_and_says_why() {
    // The standard library's listener shares its port with nobody.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let refusals = [
        (address.to_string(), ErrorKind::AddrInUse),
        // Reserved for documentation (RFC 5737): no machine has it.
        ("192.0.2.1:0".to_owned(), ErrorKind::AddrNotAvailable),
        ("127.0.0.1".to_owned(), ErrorKind::InvalidInput),
        ("127.0.0.1:99999".to_owned(), ErrorKind::InvalidInput),
    ];
    for (address, kind) in refusals {
        for shards in SHARD_COUNTS {
            match Server::builder().shards(shards).bind(&address) {
                Err(Error::Bind { address: named, error }) => {
                    assert_eq!((named.to_string(), error.kind()), (address.clone(), kind));
                }
                // It is no address at all.
                Err(Error::Io(error)) => {
                    let outcome = (error.kind(), ErrorKind::InvalidInput);
                    assert_eq!(outcome, (kind, kind), "{address}");
                }
                other => panic!("{address}: {other:?}"),
            }
        }
    }
    drop(taken);
    let server = Server::builder().shards(2).bind(address).expect("it is free again");
    assert_eq!(server.local_addr(), address);
}
