//! The stages of a shutdown at exact times: announced, spread, ended.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use peregrine::testing::{Received, TestClient, TestServer};
use peregrine::{
    Callbacks, CloseCode, Limits, MessageWriter, Reply, SendError, Server, ServerBuilder,
    ShutdownPlan, ShutdownReport,
};

use crate::raw::get;

const SECOND: Duration = Duration::from_secs(1);
/// A timer may fire so much late.
const TICK: Duration = Duration::from_millis(16);
const GOING_AWAY: u16 = 1001;

fn echo() -> ServerBuilder {
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    Server::builder().websocket("/", echo).get("/page", "a page").readiness("/ready")
}

fn server(shard_count: usize) -> TestServer {
    TestServer::new(echo().shards(shard_count)).expect("a server")
}

fn connect(server: &mut TestServer, count: usize) -> Vec<TestClient> {
    (0..count).map(|_| server.connect("/").expect("the upgrade is accepted")).collect()
}

fn closed(code: u16) -> Received {
    Received::Close { code: code.into(), reason: "server is shutting down".into() }
}

/// How many of these have got the Close frame by now.
fn closed_count(server: &TestServer, clients: &[TestClient]) -> usize {
    clients.iter().filter(|&&client| server.has_ended(client)).count()
}

/// The report at the end of any of these shutdowns.
fn report(mut server: TestServer) -> (usize, usize) {
    server.advance(60 * SECOND);
    assert!(server.hub().connection_counts().iter().all(|&count| count == 0));
    let ShutdownReport { open_count, aborted_count, .. } = server.shutdown(Duration::ZERO);
    (open_count, aborted_count)
}

/// The answer to a request on a connection that is kept alive: its status, and whether it is still
/// kept.
fn ask(server: &mut TestServer, client: TestClient, request: &str) -> (u16, bool) {
    server.send_bytes(client, request);
    let answer = String::from_utf8(server.take_bytes(client)).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), answer.contains("Connection: keep-alive"))
}

#[test]
fn the_closes_are_spread_evenly_over_the_window() {
    for shard_count in [1, 3] {
        for count in [0, 1, 3, 7, 100] {
            let mut server = server(shard_count);
            let clients = connect(&mut server, count);
            let plan = ShutdownPlan::within(30 * SECOND).spread(10 * SECOND);
            server.hub().shutdown(plan);
            for step in 0..=100 {
                server.settle();
                let closed_count = closed_count(&server, &clients);
                let share = count * step / 100;
                // One for the rounding of each shard.
                assert!(
                    closed_count.abs_diff(share) <= shard_count,
                    "{closed_count} of {count} at {step} % on {shard_count} shards"
                );
                server.advance(SECOND / 10);
            }
            for &client in &clients {
                assert_eq!(server.receive_all(client), [closed(GOING_AWAY)]);
            }
            assert_eq!(report(server), (count, 0));
        }
    }
}

#[test]
fn who_leaves_by_itself_makes_nobody_else_leave_sooner_or_later() {
    let mut server = server(1);
    let clients = connect(&mut server, 10);
    server.hub().shutdown(ShutdownPlan::within(20 * SECOND).spread(10 * SECOND));
    server.settle();
    for &client in &clients[3..6] {
        server.close(client, CloseCode::NORMAL, "");
    }
    for (second, &client) in clients.iter().enumerate() {
        let left = (3..6).contains(&second);
        assert!(server.has_ended(client) == (left || second == 0), "client {second}");
        if second > 0 {
            server.advance(SECOND - TICK);
            assert!(server.has_ended(client) == left, "client {second} too soon");
            server.advance(TICK);
        }
        assert!(server.has_ended(client), "client {second} too late");
    }
    assert_eq!(report(server), (10, 0));
}

#[test]
fn until_its_turn_a_connection_is_served_as_ever() {
    for shard_count in [1, 3] {
        let chat = Callbacks::<()>::new()
            .on_message(|ws, message| ws.broadcast(message).err().map(|e| e.to_string()).into())
            .on_close(|_, _| "goodbye".into());
        let builder = Server::builder().shards(shard_count).websocket("/", chat);
        let mut server = TestServer::new(builder).expect("a server");
        let hub = server.hub();
        let clients = connect(&mut server, 12);
        hub.broadcast("/", "queued before").expect("room");
        hub.shutdown(ShutdownPlan::within(60 * SECOND).spread(12 * SECOND));
        let mut expected = vec![vec![Received::Text("queued before".into())]; clients.len()];
        for second in 0..12 {
            server.settle();
            let open: Vec<usize> =
                (0..clients.len()).filter(|&at| !server.has_ended(clients[at])).collect();
            // One of those who are left speaks, then another thread does.
            if let Some(&speaker) = open.last() {
                server.send(clients[speaker], format!("{second} by a handler"));
                let told = hub.broadcast_async("/", format!("{second} by the hub"));
                server.settle();
                let told = told.wait().expect("it is accepted");
                assert_eq!(told.reached_count, open.len());
            }
            for at in open {
                expected[at].push(Received::Text(format!("{second} by a handler")));
                expected[at].push(Received::Text(format!("{second} by the hub")));
            }
            server.advance(SECOND);
        }
        for (&client, mut expected) in clients.iter().zip(expected) {
            expected.push(Received::Text("goodbye".into()));
            expected.push(closed(GOING_AWAY));
            assert_eq!(server.receive_all(client), expected);
        }
        assert_eq!(hub.broadcast("/", "late"), Err(SendError::ShuttingDown));
        assert_eq!(report(server), (12, 0));
    }
}

#[test]
fn the_end_does_not_wait_for_the_window_when_all_have_gone() {
    for shard_count in [1, 3] {
        let mut server = server(shard_count);
        let hub = server.hub();
        let clients = connect(&mut server, 5);
        hub.shutdown(ShutdownPlan::within(60 * SECOND).spread(50 * SECOND));
        server.settle();
        for client in clients {
            assert_eq!(hub.send_to(server.id(client), "still accepted"), Ok(()));
            server.drop_connection(client);
        }
        assert_eq!(hub.broadcast("/", "late"), Err(SendError::ShuttingDown));
        assert_eq!(report(server), (5, 0));
    }
}

/// Load balancers keep connections for a minute.
#[test]
fn the_end_does_not_wait_for_connections_that_are_kept_between_two_pages() {
    for shard_count in [1, 3] {
        let mut server = server(shard_count);
        let hub = server.hub();
        let kept: Vec<_> = (0..2 * shard_count).map(|_| server.open()).collect();
        for &client in &kept {
            assert_eq!(ask(&mut server, client, &get("/page")), (200, true));
        }
        let clients = connect(&mut server, 4);
        hub.shutdown(ShutdownPlan::within(60 * SECOND).spread(50 * SECOND));
        server.settle();
        for client in clients {
            assert_eq!(hub.send_to(server.id(client), "still accepted"), Ok(()));
            server.drop_connection(client);
        }
        server.advance(SECOND);
        assert_eq!(hub.broadcast("/", "late"), Err(SendError::ShuttingDown));
        assert!(kept.iter().all(|&client| server.has_ended(client)));
        assert_eq!(report(server), (4, 0));
    }
}

#[test]
fn who_does_not_read_is_dropped_at_the_end_of_the_grace_and_counted() {
    for shard_count in [1, 3] {
        let mut server = server(shard_count);
        let clients = connect(&mut server, 9);
        for &client in &clients[..4] {
            server.stop_reading(client);
        }
        let plan = ShutdownPlan::within(10 * SECOND).spread(3 * SECOND);
        server.hub().shutdown(plan.code(CloseCode::SERVICE_RESTART));
        server.advance(10 * SECOND - TICK);
        assert_eq!(server.hub().connection_counts().iter().sum::<usize>(), 4);
        server.advance(TICK);
        assert_eq!(server.hub().connection_counts(), vec![0; shard_count]);
        for &client in &clients {
            server.start_reading(client);
            // The kernel had the Close frame before.
            assert_eq!(server.receive(client), Some(closed(1012)));
        }
        assert_eq!(report(server), (9, 4));
    }
}

#[test]
fn an_announcement_tells_load_balancers_and_nobody_else() {
    for shard_count in [1, 3] {
        let mut server = server(shard_count);
        let mut balancers: Vec<_> = (0..shard_count).map(|_| server.open()).collect();
        let early = connect(&mut server, 2);
        for &balancer in &balancers {
            assert_eq!(ask(&mut server, balancer, &get("/ready")), (200, true));
        }
        let plan = ShutdownPlan::within(30 * SECOND).announce(5 * SECOND).spread(10 * SECOND);
        server.hub().shutdown(plan);
        for &balancer in &balancers {
            assert_eq!(ask(&mut server, balancer, &get("/ready")), (503, true));
            assert_eq!(ask(&mut server, balancer, &get("/page")), (200, true));
        }
        server.advance(5 * SECOND - TICK);
        assert_eq!(ask(&mut server, balancers[0], &get("/ready")), (503, true));
        let late = connect(&mut server, 2);
        assert_eq!(closed_count(&server, &[early, late].concat()), 0);
        server.advance(TICK);
        // From here on upgrades are refused, and connections not kept alive.
        let last = balancers.pop().expect("one");
        assert_eq!(ask(&mut server, last, &get("/ready")), (503, false));
        let refused = server.connect("/").expect_err("nobody is let in");
        assert_eq!(refused.status, 503);
        for header in [("Retry-After", "1"), ("Connection", "close")] {
            assert!(refused.headers.contains(&(header.0.into(), header.1.into())), "{header:?}");
        }
        assert_eq!(report(server), (4, 0));
    }
}

#[test]
fn an_upgrade_that_is_decided_too_late_is_refused() {
    let (promise, promised) = futures_channel::oneshot::channel::<()>();
    let promised = std::sync::Mutex::new(Some(promised));
    let late = Callbacks::with_upgrade(move |_| {
        let promised = promised.lock().expect("no panic").take().expect("one client");
        peregrine::Upgrade::later(async move {
            let _ = promised.await;
            peregrine::Upgrade::accept(())
        })
    });
    let mut server = TestServer::new(Server::builder().websocket("/", late)).expect("a server");
    let client = server.open();
    server.send_bytes(client, crate::raw::upgrade("/"));
    server.hub().shutdown(ShutdownPlan::within(4 * SECOND).spread(3 * SECOND));
    server.advance(SECOND);
    assert!(!server.has_ended(client));
    promise.send(()).expect("it is waited for");
    assert!(server.take_bytes(client).starts_with(b"HTTP/1.1 503 "));
    assert_eq!(report(server), (0, 0));
}

#[test]
fn an_answer_that_comes_later_arrives_before_the_close() {
    let (promise, promised) = futures_channel::oneshot::channel::<&str>();
    let promised = std::sync::Mutex::new(Some(promised));
    let later = Callbacks::<()>::new().on_message(move |_, _| {
        let promised = promised.lock().expect("no panic").take().expect("one message");
        Reply::later(async move { promised.await.ok() })
    });
    let mut server = TestServer::new(Server::builder().websocket("/", later)).expect("a server");
    let clients = connect(&mut server, 2);
    server.send(clients[0], "a question");
    server.hub().shutdown(ShutdownPlan::within(10 * SECOND).spread(4 * SECOND));
    server.advance(8 * SECOND);
    assert_eq!((server.has_ended(clients[0]), server.has_ended(clients[1])), (false, true));
    promise.send("the answer").expect("it is waited for");
    assert_eq!(server.receive(clients[0]), Some(Received::Text("the answer".into())));
    assert_eq!(server.receive(clients[0]), Some(closed(GOING_AWAY)));
    assert_eq!(report(server), (2, 0));
}

#[test]
fn a_second_call_makes_it_faster_and_never_slower() {
    for shard_count in [1, 3] {
        let mut server = server(shard_count);
        let hub = server.hub();
        let clients = connect(&mut server, 6);
        clients.iter().for_each(|&client| server.stop_reading(client));
        hub.shutdown(ShutdownPlan::within(60 * SECOND).announce(10 * SECOND).spread(20 * SECOND));
        server.advance(SECOND);
        hub.shutdown(ShutdownPlan::within(90 * SECOND).announce(90 * SECOND).spread(90 * SECOND));
        server.advance(9 * SECOND + TICK);
        assert!(server.connect("/").is_err(), "the announcement is over");
        hub.shutdown(2 * SECOND);
        server.advance(SECOND);
        assert_eq!(hub.broadcast("/", "late"), Err(SendError::ShuttingDown));
        server.advance(SECOND + TICK);
        assert_eq!(hub.connection_counts(), vec![0; shard_count]);
        assert_eq!(report(server), (6, 6));
    }
}

/// A long announcement gives nobody a long time to answer.
#[test]
fn a_closing_handshake_has_its_own_time_until_the_announcement_is_over() {
    let mut limits = Limits::default();
    limits.close_timeout = 5 * SECOND;
    let mut server = TestServer::new(echo().limits(limits)).expect("a server");
    let client = server.connect("/").expect("the upgrade is accepted");
    server.stop_reading(client);
    let hub = server.hub();
    hub.shutdown(ShutdownPlan::within(60 * SECOND).announce(50 * SECOND));
    hub.close(server.id(client)).expect("room");
    server.advance(4 * SECOND);
    assert_eq!(hub.connection_counts(), [1]);
    server.advance(SECOND + TICK);
    assert_eq!(hub.connection_counts(), [0]);
    assert_eq!(report(server), (0, 0));
}

#[test]
fn who_sends_is_told_what_became_of_it() {
    for shard_count in [1, 3] {
        let mut server = server(shard_count);
        let hub = server.hub();
        server.set_pipe_bytes(1000);
        let clients = connect(&mut server, shard_count * 4);
        let (slow, deaf) = (clients[0], clients[1]);
        for client in [slow, deaf] {
            server.stop_reading(client);
        }
        let large = "x".repeat(10_000);
        let before = [slow, deaf].map(|client| hub.send_to_async(server.id(client), &large));
        let plan = ShutdownPlan::within(20 * SECOND).spread(10 * SECOND);
        hub.shutdown(plan);
        server.advance(7 * SECOND);
        let last = *clients.last().expect("a client");
        assert!(!server.has_ended(last));
        let in_time = hub.send_to_async(server.id(last), "in time");
        let too_late = hub.send_to_async(server.id(slow), "its turn is over");
        server.start_reading(slow);
        assert_eq!(in_time.wait(), Ok(()));
        assert_eq!(too_late.wait(), Err(SendError::Gone));
        server.advance(14 * SECOND);
        let [to_slow, to_deaf] = before;
        assert_eq!(to_slow.wait(), Ok(()));
        assert_eq!(to_deaf.wait(), Err(SendError::ShuttingDown));
        assert_eq!(server.receive(slow), Some(Received::Text(large)));
        assert_eq!(server.receive(slow), Some(closed(GOING_AWAY)));
        assert_eq!(server.receive(last), Some(Received::Text("in time".into())));
        assert_eq!(server.receive(last), Some(closed(GOING_AWAY)));
        assert_eq!(report(server), (clients.len(), 1));
    }
}

/// An endpoint that keeps the streams it begins.
fn streaming() -> (ServerBuilder, Receiver<MessageWriter<str>>) {
    let (streams, kept) = std::sync::mpsc::channel();
    let streaming = Callbacks::<()>::new().on_connect(move |ws| {
        let mut stream = ws.stream::<str>().expect("the first");
        stream.write("half").expect("room");
        streams.send(stream).expect("the test listens");
        Reply::none()
    });
    (Server::builder().websocket("/", streaming), kept)
}

#[test]
fn a_message_in_pieces_may_be_finished_after_its_connections_turn_has_come() {
    for seconds in [2, 8] {
        let (builder, kept) = streaming();
        let mut server = TestServer::new(builder).expect("a server");
        let client = server.connect("/").expect("the upgrade is accepted");
        let mut stream = kept.recv().expect("a stream");
        server.hub().shutdown(ShutdownPlan::within(10 * SECOND).spread(5 * SECOND));
        server.advance(seconds * SECOND);
        stream.write(" and half").expect("room");
        stream.finish().expect("room");
        assert_eq!(server.receive(client), Some(Received::Text("half and half".into())));
        assert_eq!(server.receive(client), Some(closed(GOING_AWAY)));
        assert_eq!(report(server), (1, 0));
    }
}

/// The handle is kept, and nothing more is written.
#[test]
fn who_waits_for_the_rest_of_a_message_gets_a_close_frame_at_the_end_of_the_grace() {
    let (builder, kept) = streaming();
    let mut server = TestServer::new(builder).expect("a server");
    let client = server.connect("/").expect("the upgrade is accepted");
    let _stream = kept.recv().expect("a stream");
    server.hub().shutdown(10 * SECOND);
    server.advance(10 * SECOND - TICK);
    assert!(!server.has_ended(client));
    server.advance(TICK);
    assert_eq!(server.receive_all(client), [closed(GOING_AWAY)]);
    assert_eq!(report(server), (1, 1));
}
