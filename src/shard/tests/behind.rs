//! A shard that is behind with what was published asks for no more of it, and loses none of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Limits;
use crate::handler::Callbacks;
use crate::server::Server;
use crate::testing::simulation::Simulation;

const MEMBER_COUNT: usize = 6;
const MAILBOX_COUNT: usize = 50;
/// How many publications may wait for all members, if none is small.
const LOG_COUNT: usize = 128;
/// Too large to be gathered with others; and its header.
const MESSAGE: [u8; 4096] = [7; 4096];
const FRAME_BYTES: usize = MESSAGE.len() + 4;
/// What each message is answered by.
const BURST_COUNT: usize = 10;
const CORK_BYTES: usize = 64 << 20;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A shard that visits one member a turn, its members, and how many messages their handler got.
fn shard() -> (Simulation, Arc<AtomicUsize>) {
    let handled_count = Arc::new(AtomicUsize::new(0));
    let handled = Arc::clone(&handled_count);
    let handler = Callbacks::<()>::new().on_message(move |ws, _| {
        handled.fetch_add(1, Ordering::Relaxed);
        (0..BURST_COUNT).for_each(|_| ws.broadcast(MESSAGE).expect("room in the log"));
        ().into()
    });
    let limits = Limits {
        max_mailbox_envelopes: MAILBOX_COUNT,
        max_outbox_bytes: 64 << 20,
        ..Limits::default()
    };
    let builder = Server::builder().shards(1).limits(limits).websocket("/", handler);
    let mut simulation = Simulation::new(builder, [64, 1024, 1, 512]).expect("a right server");
    for _ in 0..MEMBER_COUNT {
        let index = simulation.connect(0, CORK_BYTES);
        simulation.wires()[index].write(REQUEST.as_bytes());
    }
    while simulation.turn(0, || true) {}
    assert!(simulation.wires().iter().all(|wire| wire.tapped().starts_with(b"HTTP/1.1 101")));
    (simulation, handled_count)
}

/// Everybody gets so many, after however many turns.
fn all_get(mut simulation: Simulation, count: usize) {
    while simulation.turn(0, || true) {}
    for wire in simulation.wires() {
        assert_eq!(wire.tapped().len(), count * FRAME_BYTES);
    }
}

#[test]
fn what_comes_by_the_mailbox_waits_there_until_all_have_got_what_came_before() {
    let (mut simulation, _) = shard();
    let hub = simulation.hub();
    let mut accepted_count = 0;
    for _ in 0..MEMBER_COUNT {
        while hub.broadcast("/", MESSAGE).is_ok() {
            accepted_count += 1;
        }
        simulation.turn(0, || true);
    }
    assert!(accepted_count <= LOG_COUNT + MAILBOX_COUNT, "{accepted_count} were accepted");
    all_get(simulation, accepted_count);
}

#[test]
fn who_publishes_for_each_message_is_not_read_until_all_have_got_what_came_before() {
    const COUNT: usize = 100;
    let (mut simulation, handled_count) = shard();
    simulation.wires()[0].write(&[0x82, 0x80, 0, 0, 0, 0].repeat(COUNT));
    simulation.turn(0, || true);
    let handled_at_first = handled_count.load(Ordering::Relaxed);
    assert!(handled_at_first * BURST_COUNT < LOG_COUNT + BURST_COUNT, "{handled_at_first}");
    all_get(simulation, COUNT * BURST_COUNT);
    assert_eq!(handled_count.load(Ordering::Relaxed), COUNT);
}
