//! Clients that do not read, in a pipe of known size.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine::testing::{Received, TestClient, TestServer};
use peregrine::{Callbacks, ClosedBy, Limits, OverflowPolicy, SendError, Server};

use super::{Witness, closed, connect, start, text, witnessed};

/// What a frame of [`numbered`] takes, header included. All bounds are multiples of it.
const FRAME_BYTES: usize = 64;

/// A binary message that begins with its number; its frame is 64 bytes long.
fn numbered(number: u8) -> Vec<u8> {
    let mut payload = vec![0; FRAME_BYTES - 2];
    payload[0] = number;
    payload
}

/// A server whose outboxes hold 8 frames, above 4 with backpressure, and pipes 2.
fn narrow(overflow: OverflowPolicy) -> (TestServer, Witness) {
    let mut limits = Limits::default();
    limits.outbox_low_water_bytes = FRAME_BYTES;
    limits.outbox_high_water_bytes = 4 * FRAME_BYTES;
    limits.max_outbox_bytes = 8 * FRAME_BYTES;
    limits.overflow = overflow;
    let (mut server, witness) = witnessed(limits);
    server.set_pipe_bytes(2 * FRAME_BYTES);
    (server, witness)
}

/// Sends 20 messages to a client that does not read, which then reads what there is.
fn flood(server: &mut TestServer, client: TestClient) -> Vec<Received> {
    let (hub, id) = (server.hub(), server.id(client));
    server.stop_reading(client);
    for number in 0..20 {
        assert_eq!(hub.send_to(id, numbered(number)), Ok(()));
        server.settle();
    }
    server.start_reading(client);
    server.receive_all(client)
}

fn messages(numbers: impl IntoIterator<Item = u8>) -> Vec<Received> {
    numbers.into_iter().map(|number| Received::Binary(numbered(number))).collect()
}

#[test]
fn who_reads_too_slowly_gets_what_fitted_and_is_closed() {
    let (mut server, witness) = narrow(OverflowPolicy::Close);
    let client = connect(&mut server, "/");
    let mut expected = messages(0..10);
    expected.extend(closed(1013, "reads too slowly"));
    assert_eq!(flood(&mut server, client), expected, "2 in the pipe, 8 in the outbox");
    assert_eq!(witness.ends(), [(1013, ClosedBy::Server)]);
    assert_eq!(server.hub().dropped_count(), 10);
}

#[test]
fn the_newest_messages_are_dropped_if_that_is_the_policy() {
    let (mut server, witness) = narrow(OverflowPolicy::DropNewest);
    let client = connect(&mut server, "/");
    assert_eq!(flood(&mut server, client), messages(0..10));
    assert_eq!(server.hub().dropped_count(), 10);
    server.send(client, "still here");
    assert_eq!(server.receive(client), text("still here"));
    assert_eq!(witness.ends(), []);
}

#[test]
fn the_oldest_messages_are_dropped_if_that_is_the_policy() {
    let (mut server, witness) = narrow(OverflowPolicy::DropOldest);
    let client = connect(&mut server, "/");
    // What is in the pipe has left; the outbox keeps the last eight.
    assert_eq!(flood(&mut server, client), messages((0..2).chain(12..20)));
    assert_eq!(server.hub().dropped_count(), 10);
    assert_eq!(witness.ends(), []);
}

#[test]
fn a_message_that_has_begun_to_leave_is_not_dropped() {
    let (mut server, _) = narrow(OverflowPolicy::DropOldest);
    server.set_pipe_bytes(2 * FRAME_BYTES + 1);
    let client = connect(&mut server, "/");
    assert_eq!(flood(&mut server, client), messages((0..3).chain(13..20)));
    assert_eq!(server.hub().dropped_count(), 10);
}

#[test]
fn who_does_not_take_answers_may_not_ask() {
    let (mut server, _) = narrow(OverflowPolicy::Close);
    let client = connect(&mut server, "/");
    server.stop_reading(client);
    for number in 0..100 {
        server.send(client, numbered(number));
    }
    // 100 questions and no overflow: they wait on the client's side.
    server.start_reading(client);
    assert_eq!(server.receive_all(client), messages(0..100));
    assert_eq!(server.hub().dropped_count(), 0);
}

#[test]
fn a_handler_is_told_once_when_its_client_has_caught_up() {
    let drain_count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&drain_count);
    let stream = Callbacks::<u8>::new()
        .on_message(|ws, _| {
            while !ws.has_backpressure() {
                let next = *ws.session();
                *ws.session_mut() += 1;
                assert_eq!(ws.send(numbered(next)), Ok(()));
            }
            assert_eq!(ws.send(vec![0; 8 * FRAME_BYTES]), Err(SendError::Overloaded));
            ().into()
        })
        .on_drain(move |ws| {
            counter.fetch_add(1, Ordering::Relaxed);
            assert!(!ws.has_backpressure() && ws.buffered_bytes() <= FRAME_BYTES);
            assert_eq!(ws.send("drained"), Ok(()));
        });
    let mut limits = Limits::default();
    limits.outbox_low_water_bytes = FRAME_BYTES;
    limits.outbox_high_water_bytes = 4 * FRAME_BYTES;
    limits.max_outbox_bytes = 8 * FRAME_BYTES;
    limits.overflow = OverflowPolicy::DropNewest;
    let mut server = start(Server::builder().limits(limits).websocket("/", stream));
    server.set_pipe_bytes(FRAME_BYTES / 2);
    let client = connect(&mut server, "/");
    server.stop_reading(client);
    server.send(client, "go");
    assert_eq!(drain_count.load(Ordering::Relaxed), 0, "nothing has been taken");
    server.start_reading(client);
    assert_eq!(drain_count.load(Ordering::Relaxed), 1);
    let mut expected = messages(0..5);
    expected.extend(text("drained"));
    assert_eq!(server.receive_all(client), expected);
}

#[test]
fn a_slow_member_does_not_hold_up_the_others() {
    let (mut server, _) = narrow(OverflowPolicy::DropNewest);
    let [slow, fast] = [(); 2].map(|()| connect(&mut server, "/"));
    let hub = server.hub();
    server.stop_reading(slow);
    for number in 0..20 {
        assert_eq!(hub.broadcast("/", numbered(number)), Ok(()));
        assert_eq!(server.receive_all(fast), messages([number]));
    }
    server.start_reading(slow);
    assert_eq!(server.receive_all(slow), messages(0..10));
    assert_eq!(hub.dropped_count(), 10);
}

/// The pings wait behind a large message, and so do their answers.
#[test]
fn who_takes_a_little_now_and_then_is_not_dead() {
    let (mut server, witness) = witnessed(Limits::default());
    server.set_pipe_bytes(FRAME_BYTES);
    let client = connect(&mut server, "/");
    server.stop_reading(client);
    assert_eq!(server.hub().send_to(server.id(client), vec![7; 100 * FRAME_BYTES]), Ok(()));
    server.settle();
    for _ in 0..10 {
        server.advance(Limits::default().idle_timeout - Duration::from_secs(1));
        server.read_some(client, 1);
        assert_eq!(server.receive(client), None);
    }
    assert_eq!((witness.ends(), server.ping_count(client)), (vec![], 0));
    server.start_reading(client);
    assert_eq!(server.receive(client), Some(Received::Binary(vec![7; 100 * FRAME_BYTES])));
    server.stop_reading(client);
    server.advance(Limits::default().idle_timeout + Duration::from_secs(1));
    assert_eq!(witness.ends(), [(1001, ClosedBy::Server)]);
}

#[test]
fn reading_goes_on_at_the_low_water_mark_and_not_above_it() {
    let asked_count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked_count);
    let answerer = Callbacks::<()>::new().on_message(move |_, message| {
        counter.fetch_add(1, Ordering::Relaxed);
        message.into()
    });
    let mut limits = Limits::default();
    limits.outbox_low_water_bytes = FRAME_BYTES;
    limits.outbox_high_water_bytes = 4 * FRAME_BYTES;
    let mut server = start(Server::builder().limits(limits).websocket("/", answerer));
    server.set_pipe_bytes(2 * FRAME_BYTES);
    let client = connect(&mut server, "/");
    let (hub, id) = (server.hub(), server.id(client));
    server.stop_reading(client);
    for number in 0..7 {
        assert_eq!(hub.send_to(id, numbered(number)), Ok(()));
    }
    server.settle();
    // Two are in the pipe, five in the outbox: one more than its high-water mark.
    server.send(client, "a question");
    server.read_some(client, 4 * FRAME_BYTES - 1);
    assert_eq!(server.receive_all(client), messages(0..3));
    assert_eq!(asked_count.load(Ordering::Relaxed), 0, "the mark and a byte are left");
    server.read_some(client, 1);
    assert_eq!(asked_count.load(Ordering::Relaxed), 1);
    server.start_reading(client);
    let mut expected = messages(3..7);
    expected.extend(text("a question"));
    assert_eq!(server.receive_all(client), expected);
}
