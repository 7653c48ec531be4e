//! The end of a server: what was accepted is delivered, everybody is told, nobody is waited for
//! longer than the grace.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "shutdown/accounts.rs"]
mod accounts;
mod common;
#[path = "common/raw.rs"]
mod raw;
#[cfg(feature = "testing")]
#[path = "shutdown/spread.rs"]
mod spread;

use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peregrine::{
    Callbacks, Close, ClosedBy, Limits, Response, RunningServer, SendError, Server, ShutdownPlan,
    ShutdownReport,
};

use crate::common::{Client, PATIENCE, SHARD_COUNTS, start, within};
use crate::raw::{
    BINARY, CLOSE, Raw, TEXT, close, frame, get, header, next_is_served, timed, until, upgrade,
    witnessed_echo,
};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);
/// A grace that a test can wait for.
const SHORT: Duration = Duration::from_millis(300);
/// The most that the server may be late.
const MARGIN: Duration = Duration::from_secs(2);

fn serve(shard_count: usize) -> (RunningServer, Receiver<Close>) {
    let (echo, closes) = witnessed_echo();
    let running = start(shard_count, |builder| {
        builder.websocket("/echo", echo).get("/", "home").get("/big", big())
    });
    (running, closes)
}

fn big() -> Response {
    Response::new(200).body(vec![7; 8 << 20])
}

/// Shuts down on a thread of its own: the report, and how long it took.
fn shut_down(server: RunningServer, grace: Duration) -> JoinHandle<(ShutdownReport, Duration)> {
    thread::spawn(move || timed(|| server.shutdown(grace).expect("no shard panicked")))
}

fn each(closes: &Receiver<Close>, count: usize) {
    let told: Vec<_> = closes.iter().collect();
    assert_eq!(told.len(), count, "on_close is called once for each");
    for close in told {
        assert_eq!((close.code(), close.by()), (1001.into(), ClosedBy::Server));
    }
}

#[test]
fn clients_get_what_was_queued_then_the_last_words_then_1001() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count);
            let hub = server.hub();
            let mut clients: Vec<_> =
                (0..24).map(|_| Client::connect(server.local_addr(), "/echo")).collect();
            for client in &mut clients {
                client.send("present");
                assert_eq!(client.text(), "present");
            }
            for number in 0..200 {
                hub.broadcast("/echo", format!("{number}")).expect("room");
            }
            let stopping = shut_down(server, LIMIT);
            // A client that sees the end closes its socket, for which the server waits.
            for mut client in clients {
                for number in 0..200 {
                    assert_eq!(client.text(), format!("{number}"));
                }
                assert_eq!(client.text(), "goodbye");
                assert_eq!(client.close_code(), 1001);
            }
            let (report, took) = stopping.join().expect("it returns");
            assert_eq!((report.open_count, report.aborted_count), (24, 0));
            assert!(took < MARGIN, "all had answered, and it took {took:?}");
            each(&closes, 24);
        });
    }
}

#[test]
fn who_does_not_answer_is_dropped_at_the_end_of_the_grace_and_counted() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count);
            let address = server.local_addr();
            let mut silent: Vec<_> = (0..5).map(|_| Raw::upgraded(address, "/echo")).collect();
            let mut polite: Vec<_> = (0..3).map(|_| Client::connect(address, "/echo")).collect();
            silent[0].send(header(BINARY, 1000));
            let stopping = shut_down(server, SHORT);
            for client in &mut polite {
                assert_eq!(client.text(), "goodbye");
                assert_eq!(client.close_code(), 1001);
            }
            for raw in &mut silent {
                let frames = raw.frames();
                assert_eq!(frames.len(), 2, "{frames:?}");
                assert_eq!(frames[1].close().0, 1001);
            }
            let (report, took) = stopping.join().expect("it returns");
            assert_eq!((report.open_count, report.aborted_count), (8, 5));
            assert!(took >= SHORT && took < SHORT + MARGIN, "it took {took:?} of {SHORT:?}");
            each(&closes, 8);
        });
    }
}

#[test]
fn without_grace_all_are_dropped_at_once_and_counted() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count);
            let address = server.local_addr();
            let mut open: Vec<_> = (0..10).map(|_| Raw::upgraded(address, "/echo")).collect();
            let (report, took) = timed(|| server.shutdown(Duration::ZERO).expect("no panic"));
            assert_eq!((report.open_count, report.aborted_count), (10, 10));
            assert!(took < MARGIN, "it took {took:?}");
            open.iter_mut().for_each(|raw| drop(raw.frames()));
            each(&closes, 10);
        });
    }
}

#[test]
fn without_connections_it_returns_at_once() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count);
            next_is_served(server.local_addr(), "/echo");
            closes.recv_timeout(PATIENCE).expect("it has left");
            let (report, took) = timed(|| server.shutdown(LIMIT).expect("no shard panicked"));
            assert_eq!((report.open_count, report.aborted_count), (0, 0));
            assert!(took < MARGIN, "it took {took:?}");
            each(&closes, 0);
        });
    }
}

#[test]
fn those_who_have_not_upgraded_are_not_waited_for() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, closes) = serve(shard_count);
            let address = server.local_addr();
            let mut silent = Raw::connect(address);
            let mut kept_alive = Raw::connect(address);
            kept_alive.send(get("/"));
            assert_eq!(kept_alive.answer().body, b"home");
            let mut asking = Raw::connect(address);
            asking.send(&upgrade("/echo")[..60]);
            next_is_served(address, "/echo");
            closes.recv_timeout(PATIENCE).expect("it has left");
            let stopping = shut_down(server, PATIENCE);
            silent.ended();
            // Its request might have been on its way: its end is waited for, too.
            drop(silent);
            kept_alive.ended();
            if shard_count == 1 {
                // Else its shard may not have seen the beginning of its request.
                assert_eq!(asking.answer().status, 503);
            }
            drop(asking);
            let (report, took) = stopping.join().expect("it returns");
            assert_eq!((report.open_count, report.aborted_count), (0, 0));
            assert!(took < MARGIN, "it took {took:?}");
        });
    }
}

/// The shard is kept from accepting until the server has been told to shut down.
#[test]
fn who_waits_in_the_listeners_queue_is_answered() {
    for spread in [Duration::ZERO, SHORT] {
        within(LIMIT, move || {
            let (go_on, may_go_on) = mpsc::channel::<()>();
            let may_go_on = Mutex::new(may_go_on);
            let (told, is_held) = mpsc::channel();
            let holding = Callbacks::<()>::new().on_message(move |_, _| {
                told.send(()).expect("the test listens");
                may_go_on.lock().expect("no panic").recv().expect("the test goes on");
                ().into()
            });
            let server = start(1, |builder| builder.websocket("/", holding).get("/page", "page"));
            let address = server.local_addr();
            let mut inside = Raw::upgraded(address, "/");
            inside.send(frame(TEXT, b"hold"));
            is_held.recv().expect("it is held");
            // More than are accepted in one turn.
            let mut asking: Vec<_> = (0..150).map(|_| Raw::connect(address)).collect();
            asking.iter_mut().for_each(|raw| raw.send(upgrade("/")));
            let mut reading = Raw::connect(address);
            reading.send(get("/page"));
            let mut silent = Raw::connect(address);
            server.hub().shutdown(ShutdownPlan::within(PATIENCE).spread(spread));
            go_on.send(()).expect("the handler waits");
            for raw in &mut asking {
                let answer = raw.answer();
                assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("1")));
                assert_eq!(answer.header("Connection"), Some("close"));
            }
            assert_eq!(reading.answer().body, b"page");
            assert_eq!(silent.end(), Ok(()), "in order, not by a reset");
            assert_eq!(inside.closed().0, 1001);
            drop((asking, reading, silent, inside));
            let report = server.join().expect("no shard panicked");
            assert_eq!((report.open_count, report.aborted_count), (1, 0));
        });
    }
}

#[test]
fn a_page_that_is_being_read_is_finished() {
    within(LIMIT, || {
        let (server, _closes) = serve(1);
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.send(get("/big"));
        assert_eq!(raw.head().status, 200);
        let stopping = shut_down(server, PATIENCE);
        for _ in 0..8 {
            thread::park_timeout(SHORT / 16);
            assert!(raw.take(1 << 20).is_some(), "the whole page");
        }
        raw.ended();
        let (report, _) = stopping.join().expect("it returns");
        assert_eq!(report.aborted_count, 0);
    });
}

#[test]
fn afterwards_nothing_is_accepted() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, _closes) = serve(shard_count);
            let (hub, address) = (server.hub(), server.local_addr());
            let ids = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into());
            let other = start(1, |builder| builder.websocket("/", ids));
            let foreign = Raw::upgraded(other.local_addr(), "/").text().parse().expect("an id");
            server.shutdown(SHORT).expect("no shard panicked");
            let refused = TcpStream::connect(address).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(std::io::ErrorKind::ConnectionRefused));
            assert_eq!(hub.broadcast("/echo", "late"), Err(SendError::ShuttingDown));
            assert_eq!(hub.send_to(foreign, "late"), Err(SendError::Gone));
            assert_eq!(hub.connection_counts(), vec![0; shard_count]);
        });
    }
}

#[test]
fn a_server_that_never_started_takes_no_messages_to_its_grave() {
    within(LIMIT, || {
        let server = Server::builder().shards(2).websocket("/", Callbacks::<()>::new());
        let server = server.bind("127.0.0.1:0").expect("a free port");
        let hub = server.hub();
        drop(server);
        assert_eq!(hub.broadcast("/", "hello?"), Err(SendError::ShuttingDown));
    });
}

#[test]
fn dropping_it_stops_the_threads() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (told, closes) = mpsc::channel();
            // The handler is dropped when the last thread has ended.
            let handler = Arc::new(());
            let held = Arc::clone(&handler);
            let callbacks = Callbacks::<()>::new().on_close(move |_, close| {
                let _held = &held;
                told.send(close.clone()).expect("the test listens");
                ().into()
            });
            let server = start(shard_count, |builder| builder.websocket("/", callbacks));
            let address = server.local_addr();
            let mut open: Vec<_> = (0..10).map(|_| Raw::upgraded(address, "/")).collect();
            let ((), took) = timed(|| drop(server));
            assert!(took < MARGIN, "it took {took:?}");
            assert_eq!(Arc::strong_count(&handler), 1, "all threads have ended");
            each(&closes, 10);
            open.iter_mut().for_each(|raw| drop(raw.frames()));
            assert!(TcpStream::connect(address).is_err());
        });
    }
}

#[test]
fn another_server_takes_over_the_port_while_the_first_drains() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (first, _closes) = serve(shard_count);
            let address = first.local_addr();
            let mut staying = Raw::upgraded(address, "/echo");
            let stopping = shut_down(first, LIMIT);
            assert_eq!(staying.text(), "goodbye");
            assert_eq!(staying.frame().expect("a Close frame").close().0, 1001);
            // From here on the first one listens no more, and waits for the answer.
            let successor = || Callbacks::<()>::new().on_message(|_, message| message.into());
            let mut second = None;
            until("none of its shards listens", || {
                let builder = Server::builder().shards(shard_count);
                second = builder.websocket("/echo", successor()).bind(address).ok();
                second.is_some()
            });
            let second = second.map(|server| server.start().expect("threads"));
            for _ in 0..50 {
                next_is_served(address, "/echo");
            }
            assert!(!stopping.is_finished());
            staying.send(close(1001, b""));
            staying.ended();
            drop(staying);
            let (report, _) = stopping.join().expect("it returns");
            assert_eq!((report.open_count, report.aborted_count), (1, 0));
            next_is_served(address, "/echo");
            drop(second);
        });
    }
}

/// An application that is told to stop by a message.
#[test]
fn a_handler_may_shut_the_server_down_and_run_returns() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let stopper = Callbacks::<()>::new().on_message(|ws, _| {
                ws.hub().shutdown(LIMIT);
                "it shuts down".into()
            });
            let server = Server::builder().shards(shard_count).websocket("/", stopper);
            let server = server.bind("127.0.0.1:0").expect("a free port");
            let address = server.local_addr();
            let running = thread::spawn(move || server.run());
            let mut others: Vec<_> = (0..8).map(|_| Client::connect(address, "/")).collect();
            let mut client = Client::connect(address, "/");
            client.send("stop");
            assert_eq!(client.text(), "it shuts down");
            assert_eq!(client.close_code(), 1001);
            for other in &mut others {
                assert_eq!(other.close_code(), 1001);
            }
            drop((client, others));
            running.join().expect("it returns").expect("no shard panicked");
        });
    }
}

#[test]
fn a_server_that_is_told_before_it_starts_ends_as_soon_as_it_has() {
    within(LIMIT, || {
        let server = Server::builder().shards(2).websocket("/", Callbacks::<()>::new());
        let server = server.bind("127.0.0.1:0").expect("a free port");
        server.hub().shutdown(LIMIT);
        let running = server.start().expect("threads");
        let report = running.join().expect("no shard panicked");
        assert_eq!((report.open_count, report.aborted_count), (0, 0));
    });
}

#[test]
fn a_handler_may_drop_its_own_server() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let running = Arc::new(Mutex::new(None::<RunningServer>));
            let held = Arc::clone(&running);
            let stopper = Callbacks::<()>::new().on_message(move |_, _| {
                drop(held.lock().expect("no panic").take());
                "stopped".into()
            });
            let server = start(shard_count, |builder| builder.websocket("/", stopper));
            let address = server.local_addr();
            *running.lock().expect("no panic") = Some(server);
            let mut raw = Raw::upgraded(address, "/");
            let mut other = Raw::upgraded(address, "/");
            raw.send(frame(TEXT, b"stop"));
            raw.frames();
            other.frames();
            until("nobody listens", || TcpStream::connect(address).is_err());
            until("all threads have ended", || Arc::strong_count(&running) == 1);
        });
    }
}

/// Sends a large message to a slow reader, and shuts down before it has arrived.
fn reads_within_the_grace(closing: Duration) {
    const MESSAGE_BYTES: usize = 16 << 20;
    let large = Callbacks::<()>::new()
        .on_connect(|_| vec![7; MESSAGE_BYTES].into())
        .on_close(|_, _| "goodbye".into());
    let mut limits = Limits::default();
    limits.close_timeout = closing;
    let server = start(1, |builder| builder.limits(limits).websocket("/", large));
    let mut raw = Raw::connect_narrow(server.local_addr());
    raw.upgrade("/");
    assert!(raw.take(10).is_some(), "the header");
    let stopping = shut_down(server, LIMIT);
    for part in 0..32 {
        thread::park_timeout(SHORT / 8);
        assert!(raw.take(MESSAGE_BYTES / 32).is_some(), "dropped at part {part} of 32");
    }
    assert_eq!(raw.text(), "goodbye");
    assert_eq!(raw.closed().0, 1001);
    let (report, took) = stopping.join().expect("it returns");
    assert_eq!((report.open_count, report.aborted_count), (1, 0));
    assert!(took < LIMIT / 2, "it took {took:?}");
}

#[test]
fn a_slow_reader_gets_all_of_a_large_message_within_the_grace() {
    within(LIMIT, || reads_within_the_grace(PATIENCE));
}

/// The grace is what the caller of `shutdown` asked for.
#[test]
fn a_grace_longer_than_the_closing_handshake_counts() {
    within(LIMIT, || reads_within_the_grace(SHORT));
}

#[test]
fn who_is_dropped_for_want_of_an_answer_is_counted_whatever_the_deadline() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.close_timeout = SHORT;
        let (echo, _closes) = witnessed_echo();
        let server = start(1, |builder| builder.limits(limits).websocket("/echo", echo));
        let _silent = Raw::upgraded(server.local_addr(), "/echo");
        let report = server.shutdown(SHORT * 4).expect("no shard panicked");
        assert_eq!((report.open_count, report.aborted_count), (1, 1));
    });
}

#[test]
fn who_floods_does_not_prolong_it() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            let (server, _closes) = serve(shard_count);
            let mut flooding = Raw::upgraded(server.local_addr(), "/echo");
            let mut writer = flooding.socket.try_clone().expect("a descriptor");
            let sending = thread::spawn(move || {
                let message = frame(TEXT, &[b'x'; 1000]);
                while std::io::Write::write_all(&mut writer, &message).is_ok() {}
            });
            for _ in 0..100 {
                assert!(flooding.frame().is_some());
            }
            let stopping = shut_down(server, SHORT);
            let frames = flooding.frames();
            let (_, took) = stopping.join().expect("it returns");
            assert!(took < SHORT + MARGIN, "it took {took:?}");
            assert!(frames.iter().filter(|frame| frame.first == CLOSE).count() <= 1);
            drop(flooding);
            sending.join().expect("the sender");
        });
    }
}

/// The last one's shard is still in its handler when the others look who is left.
#[test]
fn a_server_whose_last_connection_begins_its_shutdown_does_not_wait_for_the_spread() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let last = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into());
            let last = last.on_close(|ws, _| {
                ws.hub().shutdown(ShutdownPlan::within(LIMIT).spread(LIMIT));
                // Not a wait for anything: a handler takes its time.
                thread::park_timeout(2 * SHORT);
                ().into()
            });
            let server = start(shard_count, |builder| builder.websocket("/", last));
            let mut client = Client::connect(server.local_addr(), "/");
            let id = client.text().parse().expect("an id");
            server.hub().abort(id).expect("room");
            let (report, took) = timed(|| server.join().expect("no shard panicked"));
            assert_eq!((report.open_count, report.aborted_count), (0, 0));
            assert!(took < PATIENCE, "{shard_count} shards: it took {took:?}");
        }
    });
}
