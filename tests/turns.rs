//! What a connection says in one turn: replies gather, and whatever interrupts them keeps order,
//! bounds and the rest of the input.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::gate::gate;
use common::{Client, within};
use peregrine::testing::{Received, TestClient, TestServer};
use peregrine::{Callbacks, Limits, Reply, Server, ServerBuilder};

fn start(builder: ServerBuilder) -> TestServer {
    TestServer::new(builder).expect("a right server")
}

fn connect(server: &mut TestServer) -> TestClient {
    server.connect("/").expect("the upgrade is granted")
}

/// A masked frame whose key is zero.
fn raw_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn who_reads_is_not_refused_because_a_ping_came_before_its_messages() {
    let mut limits = Limits::default();
    limits.outbox_low_water_bytes = 512;
    limits.outbox_high_water_bytes = 1024;
    limits.max_outbox_bytes = 1024;
    let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
    let mut server = start(Server::builder().limits(limits).websocket("/", echo));
    let client = connect(&mut server);
    let ping = raw_frame(0x89, b"0123456789");
    let messages = raw_frame(0x82, &[7; 100]).repeat(30);
    server.send_bytes(client, [ping, messages].concat());
    let all = server.receive_all(client);
    let whole = all.iter().filter(|got| **got == Received::Binary(vec![7; 100])).count();
    assert_eq!(whole, 30, "{:?}", all.last());
}

#[test]
fn no_more_is_accepted_for_one_message_than_the_outbox_may_hold() {
    let mut limits = Limits::default();
    limits.outbox_low_water_bytes = 512;
    limits.outbox_high_water_bytes = 1024;
    limits.max_outbox_bytes = 1200;
    limits.overflow = peregrine::OverflowPolicy::DropNewest;
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let burst = Callbacks::<()>::new().on_message(move |ws, message| {
        if message.as_bytes() == b"one" {
            return Reply::binary(vec![1; 1000]);
        }
        for _ in 0..30 {
            let _ = ws.send(&[7u8; 98][..]);
        }
        seen.fetch_max(ws.buffered_bytes(), Ordering::Relaxed);
        Reply::none()
    });
    let mut server = start(Server::builder().limits(limits).websocket("/", burst));
    let client = connect(&mut server);
    let bytes = [raw_frame(0x82, b"one"), raw_frame(0x82, b"two")].concat();
    server.send_bytes(client, bytes);
    assert!(most.load(Ordering::Relaxed) <= 1300, "{most:?}");
}

#[test]
fn what_lies_behind_a_full_read_of_whole_messages_is_read_though_no_event_tells_of_it() {
    const READ_BYTES: usize = 128 << 10;
    const FRAME_BYTES: usize = 1024;
    const COUNT: usize = READ_BYTES / FRAME_BYTES + 1;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let counts = Callbacks::<()>::new().on_message(move |_ws, _message| {
        counted.fetch_add(1, Ordering::Relaxed);
        Reply::none()
    });
    let mut server = start(Server::builder().websocket("/", counts));
    server.set_pipe_bytes(2 * READ_BYTES);
    let client = connect(&mut server);
    let payload_bytes = u16::try_from(FRAME_BYTES - 8).expect("short").to_be_bytes();
    let mut frame = [&[0x82, 0x80 | 126], &payload_bytes[..], &[0; 4]].concat();
    frame.resize(FRAME_BYTES, 7);
    server.send_bytes(client, frame.repeat(COUNT));
    assert_eq!(count.load(Ordering::Relaxed), COUNT);
}

#[test]
fn what_is_published_goes_before_the_replies_of_those_who_are_heard_after_it() {
    within(Duration::from_secs(60), || {
        let chat = Callbacks::<()>::new().on_message(|ws, message| {
            if message.as_text() == Some("publish") {
                ws.broadcast("news").expect("room");
                return Reply::none();
            }
            message.into()
        });
        let (gate, arrived, open) = gate();
        let server =
            common::start(1, |builder| builder.websocket("/gate", gate).websocket("/chat", chat));
        let mut gate = Client::connect(server.local_addr(), "/gate");
        let mut members: Vec<Client> =
            (0..20).map(|_| Client::connect(server.local_addr(), "/chat")).collect();
        gate.send("");
        arrived.recv().expect("the shard waits at the gate");
        // All are heard in one phase, one after another.
        for (index, member) in members.iter_mut().enumerate() {
            member.send(if index == 10 { "publish" } else { "hello" });
        }
        open.send(()).expect("the shard waits at the gate");
        for (index, member) in members.iter_mut().enumerate() {
            let expected: &[&str] = match index {
                ..10 => &["hello", "news"],
                10 => &["news"],
                _ => &["news", "hello"],
            };
            for text in expected {
                assert_eq!(member.text(), *text, "member {index}");
            }
        }
    });
}
