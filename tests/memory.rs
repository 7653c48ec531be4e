//! What clients do not read is bounded in memory, not only in what is counted. One test alone in
//! its process, for the process is what is measured.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use peregrine::{Callbacks, Limits, Reply};

use self::common::{Client, connect, start, within};

/// What the process holds in memory, in MiB.
fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("pages");
    pages * 4096 / (1 << 20)
}

/// Clients ask for thousands of small pages in one packet and read none.
fn pages_that_nobody_reads() {
    let page = "x".repeat(15 << 10);
    let running = start(1, |app| app.get("/", page).websocket("/echo", Callbacks::<()>::new()));
    let before = resident_mib();
    let requests = "GET / HTTP/1.1\r\nHost:\r\n\r\n".repeat(5000);
    let sockets: Vec<_> = (0..4)
        .map(|_| {
            let mut socket = connect(running.local_addr());
            socket.write_all(requests.as_bytes()).expect("room in the kernel");
            socket
        })
        .collect();
    // Each upgrade is a turn of the shard later.
    for _ in 0..50 {
        drop(Client::connect(running.local_addr(), "/echo"));
    }
    let grown = resident_mib().saturating_sub(before);
    assert!(grown < 30, "300 MB were asked for by 4 clients: {grown} MiB are held");
    drop(sockets);
}

/// Whether the sender is told of each tiny message.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Told,
}

/// A slow client gets thousands of tiny messages among larger traffic of others.
fn tiny_messages_among_large_ones(kind: Kind) {
    let slow = Arc::new(OnceLock::new());
    let handler = Callbacks::<()>::new()
        .on_connect({
            let slow = Arc::clone(&slow);
            move |ws| {
                slow.get_or_init(|| ws.id());
                "here".into()
            }
        })
        .on_message(move |ws, message| {
            let slow = *slow.get().expect("it came first");
            if message.as_text() == Some("fill") {
                // The kernel's buffers, so that what follows is queued.
                (0..200).for_each(|_| ws.send_to(slow, [1; 60_000]).expect("room"));
                return Reply::none();
            }
            match kind {
                Kind::Plain => ws.send_to(slow, "x").expect("room"),
                Kind::Told => drop(ws.send_to_async(slow, "x")),
            }
            ws.broadcast_except(slow, vec![7; 62_000]).expect("room");
            Reply::none()
        });
    let mut limits = Limits::default();
    limits.max_outbox_bytes = 64 << 20;
    let running = start(1, |app| app.limits(limits).websocket("/", handler));
    let mut slow = Client::connect(running.local_addr(), "/");
    assert_eq!(slow.text(), "here");
    let mut fast = Client::connect(running.local_addr(), "/");
    assert_eq!(fast.text(), "here");
    fast.send("fill");
    fast.send("go");
    fast.bytes();
    let before = resident_mib();
    for _ in 0..3000 {
        fast.send("go");
        assert_eq!(fast.bytes().len(), 62_000);
    }
    let grown = resident_mib().saturating_sub(before);
    assert!(grown < 30, "3000 messages of one byte, {kind:?}: {grown} MiB are held");
}

/// A quarter of a million messages are told of to nobody, on all the ways.
fn futures_that_nobody_waits_for() {
    let handler = Callbacks::<()>::new()
        .on_connect(|ws| {
            ws.subscribe("all").expect("room");
            ws.id().to_string().into()
        })
        .on_message(|ws, message| {
            let id = ws.id();
            drop((ws.send_to_async(id, "told"), ws.publish_async("all", "told")));
            message.into()
        });
    let running = start(2, |app| app.websocket("/", handler));
    let hub = running.hub();
    let mut client = Client::connect(running.local_addr(), "/");
    let id = client.text().parse().expect("an id");
    let mut round = || {
        for at in 0..200 {
            client.send("go");
            drop((hub.send_to_async(id, "told"), hub.broadcast_async("/", "told")));
            let mut delivery = hub.publish_async("all", "told");
            if at % 2 == 0 {
                let mut context = Context::from_waker(Waker::noop());
                let _ = Pin::new(&mut delivery).poll(&mut context);
            }
        }
        (0..200 * 6).for_each(|_| drop(client.text()));
    };
    (0..10).for_each(|_| round());
    let before = resident_mib();
    (0..200).for_each(|_| round());
    let grown = resident_mib().saturating_sub(before);
    assert!(grown < 8, "240 000 messages were told of and all have arrived: {grown} MiB are held");
}

/// Topics with long names come and go, each with a publication on its way when it goes.
fn topics_that_nobody_has_any_more() {
    let handler = Callbacks::<()>::new().on_message(|ws, message| {
        let first: usize = message.as_text().and_then(|text| text.parse().ok()).expect("a number");
        for topic in first..first + 100 {
            let topic = format!("{topic:01000}");
            ws.subscribe(&topic).expect("room");
            ws.publish(&topic, "x").expect("room");
            ws.unsubscribe(&topic);
        }
        Reply::none()
    });
    let running = start(2, |app| app.websocket("/", handler));
    let mut client = Client::connect(running.local_addr(), "/");
    let mut round = |round: usize| {
        client.send((round * 100).to_string());
        (0..100).for_each(|_| drop(client.text()));
    };
    (0..10).for_each(&mut round);
    let before = resident_mib();
    (10..500).for_each(&mut round);
    let grown = resident_mib().saturating_sub(before);
    assert!(grown < 8, "49 000 topics of 1000 bytes have gone: {grown} MiB are held");
}

#[test]
fn what_a_client_does_not_read_is_bounded_in_memory() {
    within(Duration::from_secs(120), || {
        pages_that_nobody_reads();
        tiny_messages_among_large_ones(Kind::Plain);
        tiny_messages_among_large_ones(Kind::Told);
        futures_that_nobody_waits_for();
        topics_that_nobody_has_any_more();
    });
}
