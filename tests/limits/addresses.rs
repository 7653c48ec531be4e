//! What counts by client address: connections, and how fast they upgrade. To the instant, and
//! through every way in and out, that is tested with the test kit (`testing/addresses.rs`).

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Limits, RunningServer, Upgrade};

use super::{LIMIT, SHORT};
use crate::alone::alone;
use crate::common::{SHARD_COUNTS, reports, start, within};
use crate::raw::{Raw, TEXT, close, frame, get, timed, until, upgrade};

/// Where the clients come from; the tests' others are at 127.0.0.1.
const HERE: &str = "127.0.0.2";
const THERE: &str = "127.0.0.3";

/// Does what it is told; a page at `/b`; 401 at `/members`.
fn site(shard_count: usize, limits: Limits) -> RunningServer {
    let told = Callbacks::<()>::new().on_message(|ws, message| {
        match message.as_text() {
            Some("abort") => ws.abort(),
            Some("close") => ws.close(),
            Some("panic") => panic!("on purpose"),
            _ => {}
        }
        message.into()
    });
    let members = Callbacks::<()>::with_upgrade(|_| Upgrade::reject(401));
    start(shard_count, |builder| {
        let builder = builder.limits(limits).websocket("/", told).websocket("/members", members);
        builder.get("/b", "b").trust_proxies(["127.0.0.1", "127.0.0.9"])
    })
}

fn at_most(count: usize) -> Limits {
    let mut limits = Limits::default();
    limits.max_connections_per_ip = Some(count);
    limits
}

/// Asks for an upgrade: whether it was granted, else 429 as it should be.
fn is_let_in(raw: &mut Raw) -> bool {
    raw.send(upgrade("/"));
    let answer = raw.head();
    if answer.status == 101 {
        return true;
    }
    assert_eq!(answer.status, 429);
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(answer.header("Connection"), Some("close"));
    let text = String::from_utf8(raw.all()).expect("a reason");
    assert!(text.starts_with("Too many"), "{text}");
    false
}

fn let_in(source: &str, address: SocketAddr) -> Option<Raw> {
    let mut raw = Raw::connect_from(source, address);
    is_let_in(&mut raw).then_some(raw)
}

fn echoes(raw: &mut Raw) {
    raw.send(frame(TEXT, b"hello"));
    assert_eq!(raw.text(), "hello");
}

#[test]
fn an_address_has_as_many_connections_as_it_may_whatever_the_shards() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let server = site(shard_count, at_most(3));
            let address = server.local_addr();
            let mut inside: Vec<Raw> =
                (0..3).map(|_| let_in(HERE, address).expect("room")).collect();
            for _ in 0..10 {
                assert!(let_in(HERE, address).is_none());
            }
            // Others have their own count, and those inside notice nothing.
            let mut others: Vec<Raw> =
                (0..3).map(|_| let_in(THERE, address).expect("room")).collect();
            inside.iter_mut().chain(&mut others).for_each(echoes);
            drop(inside.pop());
            until("one may come for the one that left", || {
                inside.extend(let_in(HERE, address));
                inside.len() == 3
            });
            assert!(let_in(HERE, address).is_none());
            inside.iter_mut().chain(&mut others).for_each(echoes);
        });
    }
}

#[test]
fn the_server_has_as_many_connections_as_it_may_whatever_the_shards() {
    const COUNT: usize = 20;
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let mut limits = Limits::default();
            limits.max_connections = Some(COUNT);
            let server = site(shard_count, limits);
            let mut crowd: Vec<Raw> =
                (0..COUNT + 50).map(|_| Raw::connect(server.local_addr())).collect();
            crowd.iter_mut().for_each(|raw| raw.send(upgrade("/")));
            let statuses: Vec<_> = crowd.iter_mut().map(|raw| raw.head().status).collect();
            let count = |wanted| statuses.iter().filter(|&&status| status == wanted).count();
            assert_eq!((count(101), count(503)), (COUNT, 50));
        });
    }
}

/// A slow head is a connection, too.
#[test]
fn who_says_nothing_counts_as_who_talks() {
    within(LIMIT, || {
        let server = site(2, at_most(3));
        let address = server.local_addr();
        let mut silent = Raw::connect_from(HERE, address);
        let mut slow = Raw::connect_from(HERE, address);
        slow.send("GET / HTTP/1.1\r\n");
        let mut page = Raw::connect_from(HERE, address);
        page.send(get("/b"));
        assert_eq!(page.answer().body, b"b");
        until("the shards have seen them", || {
            server.hub().connection_counts().iter().sum::<usize>() == 3
        });
        assert!(let_in(HERE, address).is_none());
        assert!(let_in(THERE, address).is_some());
        slow.send(&upgrade("/")["GET / HTTP/1.1\r\n".len()..]);
        assert_eq!(slow.head().status, 101);
        assert!(is_let_in(&mut silent) && is_let_in(&mut page));
    });
}

#[test]
fn every_way_out_makes_room_for_another() {
    type Act = (&'static str, fn(Raw));
    let ways: [Act; 13] = [
        ("vanished", drop),
        ("reset", Raw::reset),
        ("vanished after the upgrade", |mut raw| raw.upgrade("/")),
        ("reset after the upgrade", |mut raw| {
            raw.upgrade("/");
            raw.reset();
        }),
        ("said goodbye", |mut raw| {
            raw.upgrade("/");
            raw.send(close(1000, b""));
            assert_eq!(raw.closed().0, 1000);
        }),
        ("been closed", |mut raw| {
            raw.upgrade("/");
            raw.send([frame(TEXT, b"close"), close(1000, b"")].concat());
            raw.frames();
        }),
        ("been aborted", |mut raw| {
            raw.upgrade("/");
            raw.send(frame(TEXT, b"abort"));
            raw.all();
        }),
        ("met a panic", |mut raw| {
            raw.upgrade("/");
            raw.send([frame(TEXT, b"panic"), close(1000, b"")].concat());
            raw.frames();
        }),
        ("been turned away by the handler", |mut raw| {
            raw.send(upgrade("/members"));
            assert_eq!(raw.answer().status, 401);
        }),
        ("found nothing", |mut raw| {
            raw.send(get("/nothing"));
            assert_eq!(raw.answer().status, 404);
        }),
        ("talked nonsense", |mut raw| {
            raw.send("nonsense\r\n\r\n");
            assert_eq!(raw.answer().status, 400);
        }),
        ("read a page", |mut raw| {
            raw.send(get("/b"));
            assert_eq!(raw.answer().body, b"b");
        }),
        ("been too slow", |mut raw| {
            raw.send("GET");
            assert_eq!(raw.answer().status, 408);
        }),
    ];
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let mut limits = at_most(1);
            // Time enough for those who are not slow, on a machine that is.
            limits.handshake_timeout = 5 * SHORT;
            limits.close_timeout = SHORT;
            let server = site(shard_count, limits);
            for (what, leave) in ways {
                leave(Raw::connect_from(HERE, server.local_addr()));
                until(&format!("there is room after one that has {what}"), || {
                    let_in(HERE, server.local_addr()).is_some()
                });
                until("it is gone", || server.hub().connection_counts().iter().sum::<usize>() == 0);
            }
        });
    }
}

#[test]
fn a_crowd_from_one_address_takes_no_place_from_others() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let mut limits = at_most(1);
            limits.max_connections = Some(4);
            let server = site(shard_count, limits);
            let (address, hub) = (server.local_addr(), server.hub());
            let mut inside = let_in(HERE, address).expect("room");
            let mut crowd: Vec<Raw> = (0..500).map(|_| Raw::connect_from(HERE, address)).collect();
            let mut others: Vec<Raw> = ["127.0.0.3", "127.0.0.4"]
                .into_iter()
                .map(|source| let_in(source, address).expect("room"))
                .collect();
            let count = || hub.connection_counts().iter().sum::<usize>();
            // Those on their way to another shard count until that has dropped them.
            until("no more are kept than may be", || count() <= 4 + 64);
            // Those who are kept are told, the rest is dropped.
            let mut told_count = 0;
            for raw in &mut crowd {
                raw.try_send(upgrade("/"));
                let bytes = raw.all();
                told_count += usize::from(bytes.starts_with(b"HTTP/1.1 429"));
                assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 429"));
            }
            assert!((1..=64).contains(&told_count), "{told_count} are told");
            drop(crowd);
            until("they have gone", || hub.connection_counts().iter().sum::<usize>() == 3);
            assert!(let_in(HERE, address).is_none(), "the next is told again");
            echoes(&mut inside);
            others.iter_mut().for_each(echoes);
        });
    }
}

#[test]
fn an_address_upgrades_as_fast_as_it_may_and_no_faster() {
    const RATE: u32 = 20;
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let mut limits = Limits::default();
            limits.max_upgrades_per_second_per_ip = Some(RATE);
            let server = site(shard_count, limits);
            let address = server.local_addr();
            let (count, took) = timed(|| {
                let mut count = 0;
                for number in 0..10 * RATE {
                    count += u32::from(let_in(HERE, address).is_some());
                    if number % 20 == 0 {
                        assert!(let_in(THERE, address).is_some(), "others have their own time");
                        // Pages are none.
                        let mut page = Raw::connect_from(HERE, address);
                        page.send(get("/b"));
                        assert_eq!(page.answer().body, b"b");
                    }
                }
                count
            });
            let most = f64::from(RATE) * (1.0 + took.as_secs_f64());
            assert!(count >= RATE, "only {count}");
            assert!(f64::from(count) <= most, "{count} in {took:?}");
            until("it may again", || let_in(HERE, address).is_some());
        });
    }
}

/// What a trusted proxy says first, and in the upgrade.
fn proxied(line: &str, header: &str) -> String {
    line.to_owned() + &upgrade("/").replacen("Host", &format!("{header}Host"), 1)
}

#[test]
fn behind_proxies_it_is_the_clients_address_that_counts() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let server = site(shard_count, at_most(2));
            let mut inside = Vec::new();
            let mut ask = |line: &str, header: &str| {
                let mut raw = Raw::connect(server.local_addr());
                raw.send(proxied(line, header));
                let status = raw.head().status;
                inside.extend((status == 101).then_some(raw));
                status
            };
            // However it is told; one client, another one, one network of IPv6, another one.
            let behind = "PROXY TCP4 127.0.0.9 127.0.0.1 1 80\r\n";
            for (line, other_line, header) in [
                ("PROXY TCP4 192.0.2.7 127.0.0.1 1 80\r\n", "", "X-Forwarded-For: 192.0.2.7\r\n"),
                ("PROXY TCP4 192.0.2.8 127.0.0.1 1 80\r\n", "", "Forwarded: for=192.0.2.8\r\n"),
                (
                    "PROXY TCP6 2001:db8::1 ::1 1 80\r\n",
                    "",
                    "X-Forwarded-For: 2001:db8::f:0:0:2\r\n",
                ),
                (
                    "PROXY TCP6 2001:db8:0:1::1 ::1 1 80\r\n",
                    behind,
                    "X-Forwarded-For: 2001:db8:0:1::2\r\n",
                ),
            ] {
                let statuses = [(); 2].map(|()| [ask(line, ""), ask(other_line, header)]);
                assert_eq!(statuses, [[101, 101], [429, 429]], "{line} {header}");
            }
            // The proxy itself, and who speaks for itself.
            assert_eq!(ask("", ""), 101);
            assert!(let_in(HERE, server.local_addr()).is_some());
            assert_eq!(inside.len(), 4 * 2 + 1);
            drop(inside);
            until("all have left", || server.hub().connection_counts().iter().sum::<usize>() == 0);
        });
    }
}

/// A proxy fetches pages for all its clients over one connection.
#[test]
fn pages_through_a_proxy_count_for_nobody() {
    within(LIMIT, || {
        let server = site(1, at_most(1));
        let mut first = Raw::connect(server.local_addr());
        first.send(proxied("", "X-Forwarded-For: 192.0.2.7\r\n"));
        assert_eq!(first.head().status, 101);
        let mut pages = Raw::connect(server.local_addr());
        for client in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
            let header = format!("X-Forwarded-For: {client}\r\nHost");
            pages.send(get("/b").replacen("Host", &header, 1));
            assert_eq!(pages.answer().body, b"b");
        }
        pages.send(proxied("", "X-Forwarded-For: 192.0.2.7\r\n"));
        assert_eq!(pages.answer().status, 429);
        pages.ended();
        // One that tells whose it is first is that one's, whatever it asks for.
        let mut page = Raw::connect(server.local_addr());
        page.send(format!("PROXY TCP4 192.0.2.7 127.0.0.1 1 80\r\n{}", get("/b")));
        let answer = page.answer();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
        page.ended();
        echoes(&mut first);
    });
}

#[test]
fn a_shutdown_lets_everybody_out() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let mut limits = at_most(5);
            limits.max_upgrades_per_second_per_ip = Some(1000);
            let server = site(shard_count, limits);
            let address = server.local_addr();
            let inside: Vec<Raw> = (0..5).map(|_| let_in(HERE, address).expect("room")).collect();
            let _silent: Vec<Raw> = (0..5).map(|_| Raw::connect_from(THERE, address)).collect();
            let _kept: Vec<Raw> = (0..70).map(|_| Raw::connect_from(HERE, address)).collect();
            let closing = thread::spawn(move || {
                inside.into_iter().for_each(|mut raw| {
                    assert_eq!(raw.closed().0, 1001);
                    raw.send(close(1001, b""));
                })
            });
            let report = server.shutdown(Duration::from_secs(10)).expect("no shard panicked");
            assert_eq!((report.open_count, report.aborted_count), (5, 0));
            closing.join().expect("all are closed");
        });
    }
}

#[test]
fn who_is_turned_away_is_reported_and_a_flood_does_not_flood_the_log() {
    alone(
        "addresses::who_is_turned_away_is_reported_and_a_flood_does_not_flood_the_log",
        LIMIT,
        || {
            reports::listen();
            let server = site(1, at_most(1));
            let _inside = let_in(HERE, server.local_addr()).expect("room");
            let (_, took) =
                timed(|| (0..200).for_each(|_| drop(let_in(HERE, server.local_addr()))));
            drop(server);
            let reports = reports::take();
            let expected = "WARN 127.0.0.2 asked for \"/\" and got 429: \
                            Too many connections from this address.";
            assert_eq!(reports.first().map(String::as_str), Some(expected), "{reports:?}");
            // And a summary at the end.
            let most = 2 + took.as_secs() / 10;
            assert!(reports.len() as u64 <= most, "{reports:?}");
        },
    );
}
