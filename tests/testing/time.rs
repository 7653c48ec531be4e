//! Deadlines, to the tick: 16 ms, which no timer is late by more than.

use std::future::pending;
use std::time::Duration;

use peregrine::testing::TestServer;
use peregrine::{Callbacks, ClosedBy, Limits, Reply, Server};

use super::{closed, connect, text, witnessed};

const TICK: Duration = Duration::from_millis(16);
const INSTANT: Duration = Duration::from_millis(1);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn who_is_silent_is_pinged_when_it_is_time() {
    let (mut server, witness) = witnessed(Limits::default());
    let client = connect(&mut server, "/");
    server.advance(seconds(25) - INSTANT);
    assert_eq!(server.ping_count(client), 0);
    server.advance(TICK + INSTANT);
    assert_eq!(server.ping_count(client), 1);
    // The answer was a sign of life, and so is a message.
    server.advance(seconds(24));
    assert_eq!(server.ping_count(client), 1);
    server.send(client, "here I am");
    server.advance(seconds(25) - INSTANT);
    assert_eq!(server.ping_count(client), 1);
    server.advance(TICK + INSTANT);
    assert_eq!(server.ping_count(client), 2);
    assert_eq!(server.receive(client), text("here I am"));
    // A day goes by.
    server.advance(seconds(24 * 60 * 60));
    assert_eq!(witness.ends(), []);
    let ping_count = server.ping_count(client) - 2;
    assert!((3453..=3456).contains(&ping_count), "{ping_count} pings in a day");
}

#[test]
fn pings_do_not_come_in_herds() {
    let (mut server, _) = witnessed(Limits::default());
    let clients: Vec<_> = (0..64).map(|_| connect(&mut server, "/")).collect();
    server.advance(seconds(25) * 9 / 10);
    let mut most = 0;
    let mut total = 0;
    for _ in 0..25 {
        server.advance(Duration::from_millis(100) + INSTANT);
        let sum = clients.iter().map(|&client| server.ping_count(client)).sum::<usize>();
        most = most.max(sum - total);
        total = sum;
    }
    assert!(total == 64 && most <= 4, "{total} pings, {most} at once");
}

#[test]
fn who_answers_nothing_is_closed_and_then_dropped_when_it_is_time() {
    let (mut server, witness) = witnessed(Limits::default());
    let client = connect(&mut server, "/");
    server.stop_reading(client);
    server.advance(seconds(60) - INSTANT);
    assert_eq!(witness.ends(), []);
    server.advance(TICK + INSTANT);
    assert_eq!(witness.ends(), [(1001, ClosedBy::Server)]);
    server.advance(seconds(5) - TICK - INSTANT);
    assert_eq!(server.hub().connection_counts(), [1], "it has time to answer");
    server.advance(TICK + TICK + INSTANT);
    assert_eq!(server.hub().connection_counts(), [0]);
    server.start_reading(client);
    assert_eq!(server.ping_count(client), 2);
    assert_eq!(server.receive(client), closed(1001, "timed out"));
    assert!(server.has_ended(client));
}

/// What it answers to pings lies behind what is not read.
#[test]
fn who_has_said_more_than_is_read_while_its_handler_takes_its_time_is_not_silent() {
    let slow = Callbacks::<()>::new().on_message(|_, _| Reply::later(pending::<()>()));
    let builder = Server::builder().websocket("/", slow);
    let mut server = TestServer::new(builder).expect("a right server");
    let client = connect(&mut server, "/");
    server.send(client, "go");
    server.send(client, [7; 80 << 10]);
    server.advance(seconds(10 * 60));
    assert_eq!((server.hub().connection_counts(), server.has_ended(client)), (vec![1], false));
}

#[test]
fn a_request_has_to_arrive_in_time() {
    let (mut server, witness) = witnessed(Limits::default());
    let slow = server.open();
    for part in ["GET / HTTP/1.1\r\n", "Host: localhost\r\n", "Upgrade: websocket\r\n"] {
        // A byte now and then gains no time.
        server.send_bytes(slow, part);
        server.advance(seconds(5) / 3 - INSTANT);
    }
    let late = INSTANT * 3 + TICK;
    assert!(!server.has_ended(slow));
    server.advance(late);
    assert!(server.take_bytes(slow).starts_with(b"HTTP/1.1 408"));
    assert!(server.has_ended(slow));
    assert_eq!(server.hub().connection_counts(), [0]);
    assert_eq!(witness.ends(), [], "there was no connection to close");
}

#[test]
fn who_does_not_answer_our_close_is_dropped_when_it_is_time() {
    let mut limits = Limits::default();
    limits.close_timeout = seconds(3);
    let (mut server, witness) = witnessed(limits);
    let client = connect(&mut server, "/");
    server.stop_reading(client);
    server.send(client, "quit");
    assert_eq!(witness.ends(), [(4000, ClosedBy::Application)]);
    server.advance(seconds(3) - INSTANT);
    assert_eq!(server.hub().connection_counts(), [1]);
    // Neither does a message gain time.
    server.send(client, "and another thing");
    server.advance(TICK + INSTANT);
    assert_eq!(server.hub().connection_counts(), [0]);
    server.start_reading(client);
    assert_eq!(server.receive(client), text("quit"));
    assert_eq!(server.receive(client), closed(4000, "as you wish"));
}

#[test]
fn the_grace_of_a_shutdown_ends_when_it_is_time() {
    let mut limits = Limits::default();
    limits.close_timeout = seconds(3);
    let (mut server, witness) = witnessed(limits);
    let [polite, stubborn] = [(); 2].map(|()| connect(&mut server, "/"));
    server.stop_reading(stubborn);
    let report = server.shutdown(seconds(7));
    assert_eq!((report.open_count, report.aborted_count), (2, 1));
    assert_eq!(witness.ends().len(), 2);
    assert_eq!(server.receive(polite), closed(1001, "server is shutting down"));
}
