//! Promises that a review found broken once: about extreme limits, busy turns and held-up shards.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use peregrine::{Callbacks, ConnectionId, Limits, Message, Reply, Response, Upgrade};

use self::common::{Client, PATIENCE, connect, start, within};

const LIMIT: Duration = Duration::from_secs(120);

/// A gate that a handler waits at: its shard is held up until the test opens it.
struct Gate {
    arrived: Mutex<Sender<()>>,
    open: Mutex<Receiver<()>>,
}

/// A gate; whoever arrives is told by the receiver, let through by the sender.
fn gate() -> (Arc<Gate>, Receiver<()>, Sender<()>) {
    let (arrived, arrivals) = channel();
    let (opener, open) = channel();
    (Arc::new(Gate { arrived: Mutex::new(arrived), open: Mutex::new(open) }), arrivals, opener)
}

impl Gate {
    fn wait(&self) {
        self.arrived.lock().expect("a lock").send(()).expect("the test listens");
        self.open.lock().expect("a lock").recv_timeout(PATIENCE).expect("the test opens it");
    }
}

fn echo() -> Callbacks<()> {
    Callbacks::new().on_message(|_ws, message| message.into())
}

#[test]
fn times_and_counts_that_mean_never_are_taken_as_such() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_connections = Some(usize::MAX);
        limits.handshake_timeout = Duration::MAX;
        limits.ping_after = Duration::MAX;
        limits.idle_timeout = Duration::MAX;
        limits.close_timeout = Duration::MAX;
        let running = start(1, |app| app.limits(limits).websocket("/", echo()));
        // More than are kept beyond a limit.
        let mut clients: Vec<_> =
            (0..100).map(|_| Client::connect(running.local_addr(), "/")).collect();
        for client in &mut clients {
            client.send("a");
            assert_eq!(client.text(), "a");
        }
        drop(clients);
        running.shutdown(Duration::MAX).expect("the threads end");
    });
}

#[test]
fn an_idle_client_is_asked_before_it_counts_as_gone() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.ping_after = Duration::from_millis(300);
        limits.idle_timeout = Duration::from_millis(900);
        let handler = Callbacks::<()>::new().on_message(|_ws, message| {
            if message.as_text() == Some("block") {
                // Longer than it takes to be dead.
                thread::sleep(Duration::from_millis(1200));
            }
            message.into()
        });
        let running = start(1, |app| app.limits(limits).websocket("/", handler));
        let mut idle = Client::connect(running.local_addr(), "/");
        let mut blocking = Client::connect(running.local_addr(), "/");
        blocking.send("block");
        assert_eq!(blocking.text(), "block");
        // Reading answers pings. It is still there after several of them.
        for _ in 0..5 {
            match idle.0.read() {
                Ok(tungstenite::Message::Ping(_)) => {}
                other => panic!("it was not asked but {other:?}"),
            }
        }
        idle.send("still here");
        assert_eq!(idle.text(), "still here");
    });
}

/// A client on each shard, in the order of the shards.
fn one_on_each(address: std::net::SocketAddr, shards: usize) -> Vec<(ConnectionId, Client)> {
    let mut found: Vec<Option<(ConnectionId, Client)>> = (0..shards).map(|_| None).collect();
    let mut spare = Vec::new();
    while found.iter().any(Option::is_none) {
        let mut client = Client::connect(address, "/");
        let id: ConnectionId = client.text().parse().expect("an id");
        if found[id.shard()].is_none() {
            found[id.shard()] = Some((id, client));
        } else {
            spare.push(client);
        }
    }
    found.into_iter().flatten().collect()
}

#[test]
fn a_broadcast_of_a_handler_is_accepted_by_all_shards_or_by_none() {
    within(LIMIT, || {
        let (gate, arrivals, open) = gate();
        let handler = Callbacks::<()>::new()
            .on_connect(|ws| ws.id().to_string().into())
            .on_message(move |ws, message| match message.as_text() {
                Some("wait") => {
                    gate.wait();
                    "went on".into()
                }
                Some("fence") => ws.broadcast("fence").map_or("refused", |()| "accepted").into(),
                _ => ws.broadcast("b".repeat(600)).map_or("refused", |()| "accepted").into(),
            });
        let mut limits = Limits::default();
        limits.max_mailbox_bytes = 1000;
        let running = start(3, |app| app.limits(limits).websocket("/", handler));
        let mut clients = one_on_each(running.local_addr(), 3);
        for at in [1, 2] {
            clients[at].1.send("wait");
        }
        for _ in 0..2 {
            arrivals.recv_timeout(PATIENCE).expect("both shards wait");
        }
        let hub = running.hub();
        for at in [1, 2] {
            hub.send_to(clients[at].0, "f".repeat(990)).expect("room in an empty mailbox");
        }
        clients[0].1.send("broadcast");
        let mut told = clients[0].1.text();
        if told.len() == 600 {
            told = clients[0].1.text();
        }
        for _ in 0..2 {
            open.send(()).expect("the gate is there");
        }
        // What the same connection's handler sends last arrives last.
        clients[0].1.send("fence");
        for at in [1, 2] {
            let client = &mut clients[at].1;
            let mut broadcasts = 0;
            loop {
                match client.text() {
                    text if text.starts_with('b') => broadcasts += 1,
                    text if text == "fence" => break,
                    _ => {}
                }
            }
            assert_eq!(broadcasts, usize::from(told == "accepted"), "shard {at}, told {told}");
        }
    });
}

#[test]
fn output_that_was_never_offered_to_the_kernel_is_no_overflow() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.outbox_low_water_bytes = 512;
        limits.outbox_high_water_bytes = 1 << 10;
        limits.max_outbox_bytes = 4 << 10;
        let running = start(1, |app| app.limits(limits).websocket("/", echo()));
        let mut client = Client::connect(running.local_addr(), "/");
        let payload = vec![1; 1000];
        for _ in 0..10 {
            let message = tungstenite::Message::binary(payload.clone());
            client.0.write(message).expect("room in the client's buffer");
        }
        client.0.flush().expect("the server reads");
        for _ in 0..10 {
            assert_eq!(client.bytes(), payload);
        }
    });
}

#[test]
fn broadcasts_of_a_busy_turn_wait_for_room() {
    const COUNT: usize = 400;
    const PAYLOAD_BYTES: usize = 100_000;
    within(LIMIT, || {
        let (gate, arrivals, open) = gate();
        let refused = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refused);
        let handler = Callbacks::<()>::new().on_message(move |ws, message| {
            if message.as_text() == Some("wait") {
                gate.wait();
            } else if ws.broadcast(vec![1; PAYLOAD_BYTES]).is_err() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Reply::none()
        });
        let mut limits = Limits::default();
        limits.max_outbox_bytes = 128 << 20;
        let running =
            start(1, |app| app.limits(limits).websocket("/", handler).websocket("/gate", echo()));
        let mut clients: Vec<_> =
            (0..2).map(|_| Client::connect(running.local_addr(), "/")).collect();
        // All requests are there when the shard goes on: they come to 80 MB in one turn.
        clients[0].send("wait");
        arrivals.recv_timeout(PATIENCE).expect("the shard waits");
        for client in &mut clients {
            for _ in 0..COUNT {
                client.send("x");
            }
        }
        open.send(()).expect("the gate is there");
        let readers = clients.into_iter().map(|mut client| {
            thread::spawn(move || {
                for _ in 0..2 * COUNT {
                    assert_eq!(client.bytes().len(), PAYLOAD_BYTES);
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.join().expect("everything arrives");
        }
        assert_eq!(refused.load(Ordering::Relaxed), 0);
    });
}

/// Bytes whose destructor panics.
struct Bomb;

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        b"no"
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor that panics, on purpose");
    }
}

#[test]
fn an_answer_that_finds_nobody_is_no_dropped_message() {
    within(LIMIT, || {
        let (gate, arrivals, open) = gate();
        // A body that could be taken for frames.
        let handler = Callbacks::<()>::with_upgrade(move |_request| {
            gate.wait();
            Upgrade::reject(Response::new(403).body(vec![0; 4000]))
        });
        let running = start(1, |app| app.websocket("/", handler).get("/ok", "fine"));
        let address = running.local_addr();
        let asking = connect(address);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        (&asking).write_all(request.as_bytes()).expect("the server reads");
        arrivals.recv_timeout(PATIENCE).expect("the request is being decided");
        // A reset: the answer cannot be written.
        socket2::SockRef::from(&asking).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(asking);
        open.send(()).expect("the gate is there");
        assert!(exchange(address, LAST).ends_with("fine"));
        assert_eq!(running.hub().dropped_count(), 0);
    });
}

/// One request, and all that comes back until the end.
fn exchange(address: std::net::SocketAddr, requests: &str) -> String {
    let mut socket = connect(address);
    socket.write_all(requests.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer, and an end");
    answer
}

const LAST: &str = "GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn a_rejection_whose_destructor_panics_harms_nobody() {
    within(LIMIT, || {
        let handler = Callbacks::<()>::with_upgrade(|_request| {
            Upgrade::reject(Response::new(403).body(Bytes::from_owner(Bomb)))
        });
        let running = start(1, |app| app.websocket("/", handler).get("/ok", "fine"));
        assert!(Client::try_connect(running.local_addr(), "/").is_err());
        assert!(exchange(running.local_addr(), LAST).ends_with("fine"));
        running.shutdown(PATIENCE).expect("no shard has panicked");
    });
}

#[test]
fn a_status_without_a_body_is_followed_by_none() {
    within(LIMIT, || {
        let running =
            start(1, |app| app.get("/no", Response::new(204).body("junk")).get("/ok", "fine"));
        let requests = format!("GET /no HTTP/1.1\r\nHost: a\r\n\r\n{LAST}");
        let answer = exchange(running.local_addr(), &requests);
        assert!(!answer.contains("junk") && answer.ends_with("fine"), "{answer:?}");
    });
}

#[test]
fn a_request_that_lies_unread_when_the_server_shuts_down_is_answered() {
    within(LIMIT, || {
        let (gate, arrivals, open) = gate();
        let handler = Callbacks::<()>::new().on_message(move |_ws, message: Message<'_>| {
            gate.wait();
            message.into()
        });
        let running = start(1, |app| app.websocket("/", handler).get("/ok", "fine"));
        let mut asking = connect(running.local_addr());
        // It is accepted before the shard is held up: this one came later.
        let mut client = Client::connect(running.local_addr(), "/");
        client.send("wait");
        arrivals.recv_timeout(PATIENCE).expect("the shard waits");
        asking.write_all(LAST.as_bytes()).expect("room in the kernel");
        let shutdown = thread::spawn(move || running.shutdown(PATIENCE));
        open.send(()).expect("the gate is there");
        // Whether the shutdown has begun by then or not: there is an answer, not a reset.
        let mut answer = String::new();
        asking.read_to_string(&mut answer).expect("an answer, and an end");
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"));
        assert_eq!(client.text(), "wait");
        assert_eq!(client.close_code(), 1001);
        shutdown.join().expect("a report").expect("the threads end");
    });
}
