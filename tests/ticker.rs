//! `examples/ticker.rs` does what it says, also to subscribers of whom a third reads nothing. Alone
//! in its process, for the process's memory is what is measured.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "the example's main is not called here")]

mod common;
#[path = "common/raw.rs"]
mod raw;
#[path = "../examples/ticker.rs"]
mod ticker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use self::common::{Client, start, within};
use self::raw::{Raw, TEXT};
use self::ticker::{Market, SYMBOLS, app};

const LIMIT: Duration = Duration::from_secs(120);

const READER_COUNT: usize = 200;
const SLOW_COUNT: usize = 100;

/// What the process may grow by, for 100 clients that owe it megabytes each.
const GROWTH_MIB_MAX: usize = 24;

/// After so many lost ticks it ends.
const DROP_COUNT: u64 = 1_500_000;

/// The number in a tick; its symbol must be this one, if any is given.
fn number(payload: &[u8]) -> (String, u64) {
    let tick = str::from_utf8(payload).expect("text");
    let mut words = tick.split(' ');
    let symbol = words.next().expect("a symbol").to_owned();
    let number = words.next().and_then(|word| word.parse().ok()).expect("a number");
    assert!(words.next().is_some_and(|price| price.parse::<f64>().is_ok_and(|price| price > 0.0)));
    (symbol, number)
}

/// The next tick; what is no text frame is a ping.
fn next(client: &mut Raw) -> (String, u64) {
    loop {
        let frame = client.frame().expect("a frame");
        if frame.first == TEXT {
            return number(&frame.payload);
        }
    }
}

/// What the process holds in memory, in MiB.
fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("pages");
    (pages * 4096) >> 20
}

#[test]
fn who_reads_gets_every_tick_and_who_does_not_gets_the_newest_from_bounded_memory() {
    within(LIMIT, || {
        let market = Arc::new(Market::default());
        let server = start(2, |_| app(Arc::clone(&market)).shards(2));
        let (address, hub) = (server.local_addr(), server.hub());
        let mut readers: Vec<_> = (0..READER_COUNT)
            .map(|at| format!("/ticks?symbol={}", SYMBOLS[at % SYMBOLS.len()]))
            .map(|path| Raw::upgraded(address, &path))
            .collect();
        let all = format!("/ticks?symbol={}", SYMBOLS.join("&symbol="));
        let slow = (0..SLOW_COUNT).map(|_| {
            let mut client = Raw::connect_narrow(address);
            client.upgrade(&all);
            client
        });
        let mut slow: Vec<_> = slow.collect();
        for reader in &mut readers {
            assert_eq!(next(reader).1, 0);
        }

        // Set before the last round is published, so whoever sees that round's tick knows it.
        let last = Arc::new(AtomicU64::new(u64::MAX));
        let mut witnesses = readers.split_off(READER_COUNT - 8);
        let thread = thread::spawn({
            let last = Arc::clone(&last);
            move || {
                for round in 1.. {
                    for reader in &mut readers {
                        assert_eq!(next(reader).1, round, "a tick is missing");
                    }
                    if round == last.load(Ordering::Acquire) {
                        return;
                    }
                }
            }
        });

        let before = resident_mib();
        let mut round = 0;
        while round < last.load(Ordering::Acquire) {
            if round % 100 == 0 && hub.dropped_count() > DROP_COUNT {
                last.store(round + 1, Ordering::Release);
            }
            round += 1;
            market.trade(&hub).expect("the server serves");
            // They keep the market from running ahead of the shards.
            for witness in &mut witnesses {
                assert_eq!(next(witness).1, round);
            }
        }
        let grown = resident_mib().saturating_sub(before);
        thread.join().expect("every tick");
        assert!(grown < GROWTH_MIB_MAX, "{grown} MiB more after {round} rounds");
        eprintln!("{round} rounds, {} dropped, {grown} MiB more", hub.dropped_count());

        // The slow wake up: what they find is in order, with a gap, and ends with the newest.
        for client in &mut slow {
            let mut numbers = SYMBOLS.map(|symbol| (symbol, 0));
            let mut has_gap = false;
            while numbers.iter().any(|(_, number)| *number < round) {
                let (symbol, number) = next(client);
                let known = numbers.iter_mut().find(|(known, _)| *known == symbol);
                let (_, known) = known.expect("a symbol");
                assert!(number > *known || number == 0, "{symbol} {number} after {known}");
                has_gap |= number > *known + 1;
                *known = number;
            }
            assert!(has_gap);
        }
    });
}

#[test]
fn symbols_are_added_and_removed_by_messages() {
    within(LIMIT, || {
        let market = Arc::new(Market::default());
        let server = start(1, |_| app(Arc::clone(&market)).shards(1));
        let hub = server.hub();
        let mut client = Client::connect(server.local_addr(), "/ticks");
        client.send("+ACME");
        assert_eq!(client.text(), "ACME 0 100.00");
        market.trade(&hub).expect("the server serves");
        assert!(client.text().starts_with("ACME 1 "));
        client.send("-ACME");
        client.send("+BOLT");
        assert!(client.text().starts_with("BOLT 1 "));
        market.trade(&hub).expect("the server serves");
        let next = loop {
            // The first one may have been on its way when BOLT was added.
            let tick = client.text();
            if !tick.starts_with("BOLT 1 ") {
                break tick;
            }
        };
        assert!(next.starts_with("BOLT 2 "), "{next:?}");
        client.send("+NONE");
        assert_eq!(client.text(), r#"there is no symbol "NONE""#);
        client.send("ACME");
        assert_eq!(client.text(), "say +SYMBOL or -SYMBOL");
    });
}
