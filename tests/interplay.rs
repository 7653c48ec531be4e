//! Features that meet: what was found by reading the shard with hostile eyes.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use std::future::{Future, pending};
use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::executor::yield_now;
use peregrine::testing::simulation::{Ending, Simulation};
use peregrine::testing::{Received, TestClient, TestServer};
use peregrine::{
    Callbacks, Endpoint, Limits, MessageWriter, Reply, Response, SendError, Server, ServerBuilder,
    ShutdownPlan, Upgrade,
};

fn start(builder: ServerBuilder) -> TestServer {
    TestServer::new(builder).expect("a right server")
}

fn connect(server: &mut TestServer) -> TestClient {
    server.connect("/").expect("the upgrade is granted")
}

fn text(text: &str) -> Option<Received> {
    Some(Received::Text(text.to_owned()))
}

fn closed(code: u16, reason: &str) -> Option<Received> {
    Some(Received::Close { code: code.into(), reason: reason.to_owned() })
}

/// Says its last word one round later.
fn late_goodbye() -> Callbacks<()> {
    Callbacks::new().on_message(|_ws, message| message.into()).on_close(|_ws, _close| {
        Reply::later(async {
            yield_now().await;
            "goodbye"
        })
    })
}

#[test]
fn on_close_may_answer_later_also_to_the_peers_close() {
    let mut server = start(Server::builder().websocket("/", late_goodbye()));
    let client = connect(&mut server);
    server.close(client, 4000, "bye");
    // Nothing but the answer may follow the peer's Close; the client's library does not show it.
    let end = server.receive_all(client).pop();
    assert_eq!(end, closed(4000, "bye"));
    assert!(server.has_ended(client));
}

#[test]
fn on_close_may_answer_later_in_the_middle_of_what_the_peer_says() {
    // Cut within a header, a payload, a message, and a ping.
    let fragment = [0x01, 0x83, 0, 0, 0, 0, b'a', b'b', b'c'];
    let ping = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let rest = [0x80, 0x80, 0, 0, 0, 0];
    let bytes = [&fragment[..], &ping, &rest].concat();
    for receives_chunks in [false, true] {
        for cut in 0..=bytes.len() {
            let mut handler = Callbacks::<()>::new().on_close(|_ws, _close| {
                Reply::later(async {
                    for _ in 0..3 {
                        yield_now().await;
                    }
                    pending::<()>().await;
                })
            });
            if receives_chunks {
                handler = handler.on_chunk(|_ws, _fragment| Reply::none());
            }
            let mut server = start(Server::builder().websocket("/", handler));
            let client = connect(&mut server);
            server.send_bytes(client, &bytes[..cut]);
            let id = server.id(client);
            server.hub().close(id).expect("room");
            server.settle();
            server.send_bytes(client, &bytes[cut..]);
            server.ping(client, "still there?");
            server.advance(Duration::from_secs(6));
            let end = server.receive_all(client).pop();
            assert_eq!(end, closed(1000, ""), "cut at {cut}");
            assert!(server.has_ended(client), "cut at {cut}");
        }
    }
}

#[test]
fn a_parameter_whose_parsing_panics_is_its_requests_own_trouble() {
    struct Picky;
    impl FromStr for Picky {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            assert_ne!(text, "bomb", "not this");
            Ok(Self)
        }
    }
    let endpoint = Endpoint::new(late_goodbye()).required_query::<Picky>("x");
    let mut server = start(Server::builder().websocket("/", endpoint));
    assert_eq!(server.connect("/?x=bomb").expect_err("a panic").status, 500);
    assert!(server.connect("/?x=fine").is_ok());
}

#[test]
fn an_upgrade_behind_pages_that_could_not_be_written_opens_nothing() {
    common::within(Duration::from_secs(60), || {
        let (blocked, is_blocked) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (blocked, released) = (Mutex::new(blocked), Mutex::new(released));
        let connect_count = Arc::new(AtomicUsize::new(0));
        let connects = Arc::clone(&connect_count);
        let handler = Callbacks::<()>::new()
            .on_connect(move |_ws| {
                connects.fetch_add(1, Ordering::SeqCst);
                Reply::none()
            })
            .on_message(move |_ws, message| {
                if message.as_text() == Some("block") {
                    blocked.lock().expect("a lock").send(()).expect("the test listens");
                    released.lock().expect("a lock").recv().expect("the test says so");
                }
                message.into()
            });
        let page = Response::new(200).body(vec![b'x'; 15 << 10]);
        let server = common::start(1, |builder| builder.websocket("/", handler).get("/page", page));
        let address = server.local_addr();
        let mut blocker = common::Client::connect(address, "/");
        let mut victim = common::connect(address);
        victim.write_all(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n").expect("the server reads");
        assert_ne!(victim.read(&mut [0; 64]).expect("an answer"), 0);
        blocker.send("block");
        is_blocked.recv().expect("a call");
        let mut requests = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5);
        requests.extend_from_slice(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        victim.write_all(&requests).expect("the kernel reads");
        // What it has not read makes the kernel send a reset.
        drop(victim);
        release.send(()).expect("the handler waits");
        assert_eq!(blocker.text(), "block");
        server.hub().broadcast("/", "to all").expect("room");
        assert_eq!(blocker.text(), "to all");
        blocker.send("still here");
        assert_eq!(blocker.text(), "still here");
        assert_eq!(connect_count.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn who_talks_on_while_the_upgrade_is_undecided_is_told_all_the_same() {
    let undecided = Callbacks::<()>::with_upgrade(|_| Upgrade::later(pending::<Upgrade<()>>()));
    let mut server = start(Server::builder().websocket("/", undecided));
    server.set_pipe_bytes(1 << 20);
    let client = server.open();
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    bytes.resize(256 << 10, 0);
    server.send_bytes(client, &bytes);
    server.advance(Duration::from_secs(6));
    let answer = String::from_utf8(server.take_bytes(client)).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
}

/// Begins a message in pieces on "begin", and gives it to the test; answers everything else.
fn streaming() -> (Callbacks<()>, mpsc::Receiver<MessageWriter<str>>) {
    let (sender, streams) = mpsc::channel();
    let sender = Mutex::new(sender);
    let handler = Callbacks::new().on_message(move |ws, message| {
        if message.as_text() == Some("begin") {
            let stream = ws.stream::<str>().expect("no other one");
            sender.lock().expect("a lock").send(stream).expect("the test listens");
            return Reply::none();
        }
        message.into()
    });
    (handler, streams)
}

#[test]
fn an_abandoned_message_with_much_behind_it_does_not_keep_the_close_from_being_heard() {
    let (handler, streams) = streaming();
    let mut server = start(Server::builder().websocket("/", handler));
    let client = connect(&mut server);
    server.send(client, "begin");
    let mut stream = streams.recv().expect("a stream");
    stream.write("half a ").expect("room");
    let id = server.id(client);
    server.hub().send_to(id, "x".repeat(100 << 10)).expect("room");
    server.settle();
    drop(stream);
    assert_eq!(server.receive(client), closed(1011, "a message was not finished"));
    assert!(server.has_ended(client), "the closing handshake is over");
    assert_eq!(server.hub().connection_counts(), [0]);
}

#[test]
fn what_waits_behind_a_message_of_which_nothing_left_arrives_though_it_is_abandoned() {
    let handler = Callbacks::<()>::new()
        .on_message(|ws, _message| {
            let stream = ws.stream::<str>().expect("no other one");
            ws.send("accepted").expect("room");
            drop(stream);
            "answered".into()
        })
        .on_close(|_ws, close| format!("closed with {}", close.code()).into());
    let mut server = start(Server::builder().websocket("/", handler));
    let client = connect(&mut server);
    server.send(client, "go");
    for expected in ["accepted", "answered", "closed with 1011"] {
        assert_eq!(server.receive(client), text(expected));
    }
    assert_eq!(server.receive(client), closed(1011, "a message was not finished"));
    assert_eq!(server.hub().dropped_count(), 0);
}

#[test]
fn a_close_that_crossed_ours_while_a_message_was_finished_is_heard() {
    for is_finished in [true, false] {
        let (handler, streams) = streaming();
        let mut server = start(Server::builder().websocket("/", handler));
        let client = connect(&mut server);
        server.send(client, "begin");
        let mut stream = streams.recv().expect("a stream");
        stream.write("a message").expect("room");
        server.hub().close(stream.id()).expect("room");
        server.settle();
        server.close(client, 4000, "bye");
        if is_finished {
            stream.finish().expect("room");
        }
        drop(stream);
        let end = server.receive_all(client).pop();
        assert!(matches!(end, Some(Received::Close { .. })), "{end:?}");
        assert!(server.has_ended(client), "the closing handshake is over");
        assert_eq!(server.hub().connection_counts(), [0]);
    }
}

#[test]
fn a_future_that_yields_lets_the_others_go_first() {
    let handler = Callbacks::<()>::new().on_message(|ws, _message| {
        let (hub, id) = (ws.hub(), ws.id());
        Reply::later(async move {
            let mut delivery = hub.send_to_async(id, "first");
            let mut yield_count = 0;
            while pin!(&mut delivery).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                yield_now().await;
                yield_count += 1;
            }
            format!("{} yields", yield_count)
        })
    });
    let mut server = start(Server::builder().websocket("/", handler));
    let client = connect(&mut server);
    server.send(client, "go");
    assert_eq!(server.receive(client), text("first"));
    let Some(Received::Text(answer)) = server.receive(client) else { panic!("an answer") };
    let yields: usize = answer.split(' ').next().expect("a word").parse().expect("a number");
    assert!(yields <= 3, "{answer}: each of them should have been a turn");
}

#[test]
fn an_abort_also_ends_a_closing_handshake() {
    let mut server = start(Server::builder().websocket("/", late_goodbye()));
    let client = connect(&mut server);
    server.stop_reading(client);
    let (hub, id) = (server.hub(), server.id(client));
    hub.close(id).expect("room");
    server.settle();
    hub.abort(id).expect("room");
    server.settle();
    assert_eq!(hub.connection_counts(), [0]);
}

#[test]
fn a_message_in_pieces_may_be_finished_within_the_grace_of_a_shutdown() {
    common::within(Duration::from_secs(60), || {
        let (handler, streams) = streaming();
        let server = common::start(2, |builder| builder.websocket("/", handler));
        let mut client = common::Client::connect(server.local_addr(), "/");
        client.send("begin");
        let mut stream = streams.recv().expect("a stream");
        stream.write("one, ").expect("room");
        let hub = server.hub();
        hub.send_to(stream.id(), "what waits").expect("room");
        let shutdown = std::thread::spawn(move || server.shutdown(Duration::from_secs(20)));
        common::eventually(|| hub.broadcast("/", "late") == Err(SendError::ShuttingDown));
        assert_eq!(stream.write("two"), Ok(()));
        assert_eq!(stream.finish(), Ok(()));
        assert_eq!(client.text(), "one, two");
        let mut rest = Vec::new();
        loop {
            match client.read() {
                tungstenite::Message::Text(text) => rest.push(text.as_str().to_owned()),
                tungstenite::Message::Close(frame) => {
                    assert_eq!(u16::from(frame.expect("a code").code), 1001);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(rest.first().map(String::as_str), Some("what waits"));
        while client.0.read().is_ok() {}
        drop(client);
        let report = shutdown.join().expect("a thread").expect("a clean end");
        assert_eq!((report.open_count, report.aborted_count), (1, 0));
    });
}

#[test]
fn a_waker_that_panics_hurts_nobody_else() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("not this");
        }
    }
    let mut server = start(Server::builder().websocket("/", late_goodbye()));
    let client = connect(&mut server);
    let (hub, id) = (server.hub(), server.id(client));
    let waker = Waker::from(Arc::new(Bomb));
    let mut context = Context::from_waker(&waker);
    let mut delivery = hub.send_to_async(id, "one");
    assert!(Pin::new(&mut delivery).poll(&mut context).is_pending());
    let mut report = hub.broadcast_async("/", "two");
    assert!(Pin::new(&mut report).poll(&mut context).is_pending());
    assert_eq!(server.receive(client), text("one"));
    assert_eq!(server.receive(client), text("two"));
    server.send(client, "three");
    assert_eq!(server.receive(client), text("three"));
}

/// What destructors do when they may.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

#[test]
fn work_that_the_pool_refuses_may_be_dropped_with_a_bang() {
    let mut limits = Limits::default();
    limits.max_offload_threads = Some(1);
    limits.max_queued_jobs = 0;
    let offloader = Callbacks::with_upgrade(|_| {
        let (one, other) = (Grenade, Grenade);
        let work = move || std::mem::forget(one);
        Upgrade::offload_then(work, move |()| {
            std::mem::forget(other);
            Upgrade::accept(())
        })
    })
    .on_message(|_, message| message.into());
    let mut server = start(Server::builder().limits(limits).websocket("/", offloader));
    // With a queue of no length it is chance whether the thread is ready to take the work.
    for _ in 0..20 {
        match server.connect("/") {
            Ok(client) => {
                server.send(client, "here");
                assert_eq!(server.receive(client), text("here"));
            }
            Err(refused) => assert_eq!(refused.status, 503),
        }
    }
}

#[test]
fn who_has_closed_and_does_not_read_what_is_in_the_way_is_let_go_all_the_same() {
    let never = Callbacks::<()>::new().on_message(|_ws, _message| Reply::later(pending::<()>()));
    let mut server = start(Server::builder().websocket("/", never));
    server.set_pipe_bytes(1000);
    let client = connect(&mut server);
    server.advance(Duration::from_secs(1));
    server.send(client, "go");
    server.close(client, 1000, "");
    server.stop_reading(client);
    let (hub, id) = (server.hub(), server.id(client));
    hub.send_to(id, "x".repeat(100 << 10)).expect("room");
    server.advance(Duration::from_secs(200));
    assert_eq!(hub.connection_counts(), [0]);
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// One shard finds nobody left and ends the spread; the other one accepts somebody after that.
#[test]
fn who_comes_when_one_shard_has_seen_nobody_left_is_answered_and_not_waited_for() {
    let builder = Server::builder().shards(2).websocket("/", late_goodbye());
    let mut simulation = Simulation::new(builder, [64, 1024, 512, 512]).expect("a right server");
    let grace = Duration::from_secs(60);
    simulation.begin_shutdown(ShutdownPlan::within(grace).spread(grace));
    let wires: Vec<_> = (0..6).map(|_| simulation.connect(1, 1 << 20)).collect();
    for shard in [0, 1] {
        simulation.turn(shard, || true);
    }
    // They were accepted; what they ask for comes after that.
    for &wire in &wires {
        simulation.wires()[wire].write(REQUEST);
    }
    // Longer than the server waits for their ends, and much shorter than the grace.
    for _ in 0..60 {
        for turn in 0..20 {
            simulation.turn(1 - turn % 2, || true);
        }
        simulation.advance(Duration::from_millis(100));
    }
    for wire in wires {
        let said = simulation.wires()[wire].tapped();
        assert!(said.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&said));
    }
    let report = simulation.report().expect("nobody is waited for");
    assert_eq!((report.open_count, report.aborted_count), (0, 0));
}

/// Asks for `path`, and says so much more at once.
fn talk(server: &mut TestServer, path: &str, more: &[u8], count: usize) -> TestClient {
    let client = server.open();
    server.stop_reading(client);
    let request = String::from_utf8(REQUEST.to_vec()).expect("text");
    let request = request.replace("GET / ", &format!("GET {path} "));
    server.send_bytes(client, [request.into_bytes(), more.repeat(count)].concat());
    client
}

#[test]
fn what_is_said_before_the_upgrade_counts_with_the_input_that_a_shard_keeps() {
    let mut limits = Limits::default();
    limits.max_shard_input_bytes = 300_000;
    let undecided = Callbacks::<()>::with_upgrade(|_| Upgrade::later(pending::<Upgrade<()>>()));
    let page = Response::new(200).body(vec![b'x'; 100 << 10]);
    let builder = Server::builder().limits(limits).websocket("/", undecided).get("/page", page);
    let mut server = start(builder);
    let get = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n";
    let clients: Vec<_> = (0..20)
        .map(|number| match number % 2 {
            0 => talk(&mut server, "/", b"x", 100_000),
            _ => talk(&mut server, "/page", get, 3000),
        })
        .collect();
    // All of them are still within the time of the handshake.
    assert!(server.hub().connection_counts()[0] <= 4, "{:?}", server.hub().connection_counts());
    drop(clients);
}

/// Panics on some reports: from that no shard can be protected. Counts others.
struct Log;

static REST_COUNT: AtomicUsize = AtomicUsize::new(0);

fn listen_to_the_log() {
    // A process has one.
    let _ = log::set_logger(&Log);
    log::set_max_level(log::LevelFilter::Warn);
}

impl log::Log for Log {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let report = record.args().to_string();
        assert!(!report.contains("/bomb"), "the logger");
        REST_COUNT.fetch_add(usize::from(report.contains("rest")), Ordering::SeqCst);
    }

    fn flush(&self) {}
}

/// The others have a second then, and none of it is spent waiting for the shard that is gone.
#[test]
fn a_shard_that_fails_while_the_shutdown_is_announced_is_not_waited_for() {
    listen_to_the_log();
    common::within(Duration::from_secs(60), || {
        let (closing, is_closing) = mpsc::channel();
        let greet = || Callbacks::<()>::new().on_connect(|ws| ws.id().shard().to_string().into());
        let heir = greet().on_close(move |_ws, _close| {
            closing.send(()).expect("the test listens");
            "goodbye".into()
        });
        let slow = greet().on_message(|_ws, _message| {
            std::thread::park_timeout(Duration::from_millis(300));
            Reply::none()
        });
        let bomb = Endpoint::new(slow).adjust_limits(|limits| {
            limits.slow_handler_after = Duration::from_millis(100);
        });
        let mut limits = Limits::default();
        limits.slow_handler_after = Duration::from_secs(60);
        limits.max_outbox_bytes = 32 << 20;
        let server = common::start(2, |builder| {
            builder.limits(limits).websocket("/", heir).websocket("/bomb", bomb)
        });
        let (address, hub) = (server.local_addr(), server.hub());
        let mut client = common::Client::connect(address, "/");
        let shard = client.text();
        hub.broadcast("/", vec![0; 8 << 20]).expect("room");
        let mut bomber = loop {
            let mut bomber = common::Client::connect(address, "/bomb");
            if bomber.text() != shard {
                break bomber;
            }
        };
        let long = Duration::from_secs(50);
        hub.shutdown(ShutdownPlan::within(long).announce(long));
        bomber.send("go");
        is_closing.recv().expect("a call");
        assert_eq!(client.bytes().len(), 8 << 20);
        assert_eq!(client.text(), "goodbye");
        assert_eq!(client.close_code(), 1001);
        assert!(matches!(server.join(), Err(peregrine::Error::ShardPanicked)));
    });
}

/// Whenever somebody leaves, a descriptor has become free, and accepting is tried again at once.
#[test]
fn a_server_out_of_descriptors_whose_clients_come_and_go_does_not_flood_the_log() {
    listen_to_the_log();
    let builder = Server::builder().websocket("/", late_goodbye());
    let mut simulation = Simulation::new(builder, [1, 1024, 512, 512]).expect("a right server");
    for _ in 0..100 {
        let wire = simulation.connect(0, 1 << 20);
        while simulation.turn(0, || true) {}
        simulation.exhaust(0);
        simulation.connect(0, 1 << 20);
        simulation.turn(0, || true);
        simulation.wires()[wire].end(Ending::Reset);
        while simulation.turn(0, || true) {}
    }
    assert_eq!(REST_COUNT.load(Ordering::SeqCst), 1, "reports");
    simulation.advance(Duration::from_secs(10));
    simulation.exhaust(0);
    simulation.connect(0, 1 << 20);
    simulation.turn(0, || true);
    assert_eq!(REST_COUNT.load(Ordering::SeqCst), 2, "reports");
}
