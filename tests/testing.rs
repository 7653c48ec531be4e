//! The test kit: what it promises, and what it can tell of the server that sockets cannot: times to
//! the tick, slow clients to the byte, the order among shards. Time is in `testing/time.rs`, slow
//! clients are in `testing/pressure.rs`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

#[path = "testing/addresses.rs"]
mod addresses;
#[path = "testing/output.rs"]
mod output;
#[path = "testing/pressure.rs"]
mod pressure;
#[path = "testing/time.rs"]
mod time;
#[path = "testing/waiting.rs"]
mod waiting;

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use peregrine::testing::{Received, TestClient, TestRequest, TestServer};
use peregrine::{
    Accept, Callbacks, Close, CloseCode, ClosedBy, Endpoint, Handler, Limits, Message, Reply,
    Request, Response, SendError, Server, ServerBuilder, Upgrade, WebSocket,
};

/// Echoes, and remembers how connections ended. "quit" closes with 4000.
#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Vec<Close>>>);

impl Handler for Witness {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        if message.as_text() == Some("quit") {
            ws.close_with(4000, "as you wish");
        }
        message.into()
    }

    fn on_close(&self, _: &mut WebSocket<'_, ()>, close: &Close) -> Reply<'static> {
        self.0.lock().expect("no panic").push(close.clone());
        Reply::none()
    }
}

impl Witness {
    /// The ends so far: code and who ended.
    fn ends(&self) -> Vec<(u16, ClosedBy)> {
        let closes = self.0.lock().expect("no panic");
        closes.iter().map(|close| (close.code().into(), close.by())).collect()
    }
}

pub(crate) fn start(builder: ServerBuilder) -> TestServer {
    TestServer::new(builder).expect("a right server")
}

/// A server of a [`Witness`] at "/".
pub(crate) fn witnessed(limits: Limits) -> (TestServer, Witness) {
    let witness = Witness::default();
    let builder = Server::builder().limits(limits).websocket("/", witness.clone());
    (start(builder), witness)
}

pub(crate) fn connect(server: &mut TestServer, path: &str) -> TestClient {
    server.connect(path).expect("the upgrade is granted")
}

pub(crate) fn text(text: &str) -> Option<Received> {
    Some(Received::Text(text.to_owned()))
}

pub(crate) fn closed(code: u16, reason: &str) -> Option<Received> {
    Some(Received::Close { code: code.into(), reason: reason.to_owned() })
}

#[test]
fn messages_come_back_whole_and_in_order_through_pipes_of_any_size() {
    let large = "é".repeat(20_000);
    for pipe_bytes in [1, 7, 1000, 128 << 10] {
        let (mut server, witness) = witnessed(Limits::default());
        server.set_pipe_bytes(pipe_bytes);
        let client = connect(&mut server, "/");
        server.send(client, "");
        server.send(client, &large);
        server.send(client, [0u8, 255]);
        server.send_in_fragments(client, &["fr", "ag", "ments"]);
        server.ping(client, "are you there?");
        server.close(client, 4001, "enough");
        assert_eq!(server.receive(client), text(""));
        assert_eq!(server.receive(client), text(&large));
        assert_eq!(server.receive(client), Some(Received::Binary(vec![0, 255])));
        assert_eq!(server.receive(client), text("fragments"));
        assert_eq!(server.receive(client), Some(Received::Pong(b"are you there?".to_vec())));
        assert_eq!(server.receive(client), closed(4001, "enough"));
        assert_eq!(server.receive(client), None);
        assert!(server.has_ended(client));
        assert_eq!(witness.ends(), [(4001, ClosedBy::Peer)]);
        assert_eq!(server.hub().connection_counts(), [0]);
    }
}

#[test]
fn a_refusal_comes_with_status_headers_and_body() {
    struct Members;
    impl Handler for Members {
        type Session = ();
    }
    fn admit(request: &Request<'_>) -> Result<Accept<()>, Upgrade<()>> {
        if request.cookie("member") != Some("yes") {
            let response = Response::new(401).with_text("Who are you?");
            return Err(response.header("X-Hint", "a cookie")?.into());
        }
        assert_eq!(request.peer_addr().to_string(), "10.1.2.3:4567");
        assert_eq!(request.header("Host"), Some("example.com"));
        Ok(Accept::new(()).subprotocol("v2").header("X-Greeting", "hello")?)
    }
    let pages = Server::builder().get("/page", "a page").get("/none", Response::new(204));
    let mut server = start(pages.websocket("/members", Endpoint::with_upgrade(Members, admit)));
    let refused = server.connect("/members").expect_err("no cookie");
    assert_eq!((refused.status, &*refused.body), (401, "Who are you?"));
    assert!(refused.headers.contains(&("X-Hint".to_owned(), "a cookie".to_owned())));
    assert_eq!(server.connect("/nowhere").expect_err("no endpoint").status, 404);
    for (path, status, body) in [("/page", 200, "a page"), ("/none", 204, "")] {
        let refused = server.connect(path).expect_err("no endpoint");
        assert_eq!((refused.status, &*refused.body), (status, body));
    }
    let request = TestRequest::new("/members")
        .header("Cookie", "member=yes")
        .header("Sec-WebSocket-Protocol", "v1, v2")
        .header("Host", "example.com")
        .peer_addr("10.1.2.3:4567".parse().expect("an address"));
    let client = server.connect(request).expect("a member");
    assert_eq!(server.header(client, "sec-websocket-protocol"), Some("v2"));
    assert_eq!(server.header(client, "X-Greeting"), Some("hello"));
    assert_eq!(server.hub().connection_counts(), [1], "the refused are gone");
}

#[test]
fn a_request_that_would_be_another_one_is_not_sent() {
    let mut server = start(Server::builder().websocket("/", Callbacks::<()>::new()));
    let smuggled = "x HTTP/1.1\r\nHost: a\r\n\r\nGET /";
    for (request, why) in [
        (TestRequest::new(format!("/{smuggled}")), "the path holds a control character"),
        (TestRequest::new("/").header("X", smuggled), "control character"),
        (TestRequest::new("/").header(smuggled, "x"), "not the name"),
        (TestRequest::new("/").header("", "x"), "not the name"),
    ] {
        let refused = server.connect(request).expect_err("it is not sent");
        assert!(refused.status == 0 && refused.body.contains(why), "{refused:?}");
        assert!(refused.to_string().starts_with("the request was not sent: "), "{refused}");
    }
    assert_eq!(server.hub().connection_counts(), [0]);
    for (path, status) in [("/a b", 400), ("a", 404), ("", 400), ("/\u{e9}", 404)] {
        assert_eq!(server.connect(path).expect_err("no endpoint").status, status, "{path:?}");
    }
}

#[test]
fn frames_that_no_client_may_send_end_the_connection_and_not_the_test() {
    let mut server = start(Server::builder().websocket("/", Callbacks::<()>::new()));
    let long = "\u{e9}".repeat(100);
    for say in [
        |server: &mut TestServer, client, long: &str| server.ping(client, long),
        |server: &mut TestServer, client, long: &str| server.close(client, 1000, long),
        |server: &mut TestServer, client, _: &str| server.close(client, 1005, "\0"),
        |server: &mut TestServer, client, _: &str| server.close(client, 0, ""),
        |server: &mut TestServer, client, _: &str| server.send_bytes(client, "\r\n"),
    ] {
        let client = server.connect("/").expect("an endpoint");
        say(&mut server, client, &long);
        let end = server.receive(client);
        assert!(matches!(end, Some(Received::Close { .. })), "{end:?}");
    }
}

#[test]
fn a_client_may_say_what_it_likes() {
    let builder = Server::builder().get("/health", "ok").websocket("/", Witness::default());
    let mut server = start(builder);
    let client = server.open();
    server.send_bytes(client, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let page = server.take_bytes(client);
    assert!(page.starts_with(b"HTTP/1.1 200 OK") && page.ends_with(b"ok"));
    assert_eq!(server.take_bytes(client), b"");
    server.send_bytes(client, "nonsense\r\n\r\n");
    assert!(server.take_bytes(client).starts_with(b"HTTP/1.1 400"));
    assert!(server.has_ended(client));
    let client = connect(&mut server, "/");
    server.send_bytes(client, b"\x81\x05hello");
    assert_eq!(server.receive(client), closed(1002, "frame is not masked"));
}

#[test]
fn who_vanishes_is_noticed() {
    let (mut server, witness) = witnessed(Limits::default());
    let client = connect(&mut server, "/");
    server.send(client, "last words");
    server.drop_connection(client);
    assert_eq!(witness.ends(), [(1006, ClosedBy::Peer)]);
    assert_eq!(server.hub().connection_counts(), [0]);
    assert_eq!(server.receive(client), text("last words"));
    assert_eq!(server.receive(client), None);
    server.send(client, "from beyond");
    assert_eq!(server.receive(client), None);
}

#[test]
fn an_abort_and_a_panic_are_seen_as_a_browser_sees_them() {
    let handler = Callbacks::<()>::new().on_message(|ws, message| {
        assert_eq!(message, Message::Text("abort"), "everything else is too much");
        ws.abort();
        ().into()
    });
    let mut server = start(Server::builder().websocket("/", handler));
    let client = connect(&mut server, "/");
    server.send(client, "abort");
    assert_eq!(server.receive(client), closed(1006, ""));
    let client = connect(&mut server, "/");
    server.send(client, "panic");
    assert_eq!(server.receive(client), closed(1011, "handler panicked"));
    assert_eq!(server.hub().connection_counts(), [0]);
}

#[test]
fn an_id_is_never_given_twice() {
    let mut server = start(Server::builder().websocket("/", Witness::default()));
    let hub = server.hub();
    let mut ids = Vec::new();
    for _ in 0..100 {
        let client = connect(&mut server, "/");
        let id = server.id(client);
        assert!(!ids.contains(&id));
        for &gone in &ids {
            assert_eq!(hub.send_to(gone, "for somebody else"), Ok(()));
        }
        server.settle();
        assert_eq!(hub.dropped_count(), (0..=ids.len() as u64).sum::<u64>());
        assert_eq!(server.receive(client), None, "the slot is the same, the address is not");
        ids.push(id);
        server.drop_connection(client);
    }
}

#[test]
fn all_members_on_all_shards_see_broadcasts_in_one_order_every_time() {
    let talk = || {
        let room = Callbacks::<()>::new().on_message(|ws, message| {
            assert_eq!(ws.broadcast(message), Ok(()));
            ().into()
        });
        let mut server = start(Server::builder().shards(4).websocket("/", room));
        let clients: Vec<_> = (0..12).map(|_| connect(&mut server, "/")).collect();
        let shards: Vec<_> = clients.iter().map(|&client| server.id(client).shard()).collect();
        assert_eq!(shards[..5], [0, 1, 2, 3, 0], "in turn");
        for round in 0..10 {
            for (at, &client) in clients.iter().enumerate() {
                server.send(client, format!("{round} {at}"));
            }
        }
        clients.iter().map(|&client| server.receive_all(client)).collect::<Vec<_>>()
    };
    let first = talk();
    let said = |at: usize| Received::Text(format!("{} {}", at / 12, at % 12));
    assert_eq!(first[0], (0..120).map(said).collect::<Vec<_>>());
    assert!(first.iter().all(|seen| *seen == first[0]));
    assert_eq!(talk(), first);
}

#[test]
fn a_message_to_another_shard_arrives_before_its_sender_goes_on() {
    let post = Callbacks::<()>::new().on_message(|ws, message| {
        let (to, text) = message.as_text().and_then(|m| m.split_once(' ')).expect("an address");
        match ws.send_to(to.parse().expect("an id"), text) {
            Ok(()) => ().into(),
            Err(error) => error.to_string().into(),
        }
    });
    let mut server = start(Server::builder().shards(3).websocket("/", post));
    let [alice, bob, carol] = [(); 3].map(|()| connect(&mut server, "/"));
    for (from, to) in [(alice, bob), (bob, carol), (carol, alice), (alice, alice)] {
        server.send(from, format!("{} hello", server.id(to)));
        assert_eq!(server.receive(to), text("hello"));
    }
    server.drop_connection(bob);
    server.send(alice, format!("{} hello", server.id(bob)));
    assert_eq!(server.receive(alice), None, "that he is gone is known only on his shard");
    assert_eq!(server.hub().dropped_count(), 1);
}

#[test]
fn other_threads_reach_clients_through_the_hub() {
    let mut server = start(Server::builder().shards(2).websocket("/", Witness::default()));
    let clients = [(); 2].map(|()| connect(&mut server, "/"));
    let hub = server.hub();
    assert_eq!(hub.broadcast("/", "from this thread"), Ok(()));
    for client in clients {
        assert_eq!(server.receive(client), text("from this thread"));
    }
    let thread = thread::spawn(move || hub.broadcast("/", "from another thread"));
    for client in clients {
        let received = server.receive_within(client, Duration::from_secs(20));
        assert_eq!(received, text("from another thread"));
    }
    assert_eq!(thread.join().expect("no panic"), Ok(()));
    assert_eq!(server.receive_within(clients[0], Duration::ZERO), None);
}

#[test]
fn what_handlers_offload_is_waited_for() {
    let work = || thread::park_timeout(Duration::from_millis(20));
    let handler =
        Callbacks::with_upgrade(move |_| Upgrade::offload_then(work, |()| Upgrade::accept(())))
            .on_message(move |_, _| {
                Reply::offload(move || {
                    work();
                    "done"
                })
            });
    let mut server = start(Server::builder().shards(2).websocket("/", handler));
    let [alice, bob] = [(); 2].map(|()| connect(&mut server, "/"));
    for client in [alice, bob] {
        server.send(client, "go");
        server.send(client, "and again");
    }
    assert_eq!(server.receive(alice), text("done"));
    assert_eq!(server.receive_all(alice).len(), 1);
    assert_eq!(server.receive_all(bob).len(), 2);
}

#[test]
fn a_future_that_waits_for_the_test_holds_up_nothing_but_its_connection() {
    let (sender, promises) = mpsc::channel();
    let sender = Mutex::new(sender);
    let handler = Callbacks::<()>::new().on_message(move |_, message| {
        let (promise, answer) = oneshot::channel::<String>();
        sender.lock().expect("no panic").send(promise).expect("the test listens");
        let question = message.as_text().unwrap_or_default().to_owned();
        Reply::later(async move { answer.await.ok().map(|answer| question + &answer) })
    });
    let mut server = start(Server::builder().websocket("/", handler));
    let [alice, bob] = [(); 2].map(|()| connect(&mut server, "/"));
    server.send(alice, "1 + 1 = ");
    server.send(bob, "2 + 2 = ");
    server.send(bob, "3 + 3 = ");
    assert_eq!((server.receive(alice), server.receive(bob)), (None, None));
    let [first, second] = [(); 2].map(|()| promises.try_recv().expect("a call"));
    assert!(promises.try_recv().is_err(), "the second question waits for the first answer");
    second.send("4".to_owned()).expect("bob waits");
    assert_eq!((server.receive(alice), server.receive(bob)), (None, text("2 + 2 = 4")));
    // The time goes on, and pings are answered meanwhile.
    server.advance(Duration::from_secs(600));
    first.send("2".to_owned()).expect("alice waits");
    assert_eq!(server.receive(alice), text("1 + 1 = 2"));
    drop(promises.try_recv().expect("a call"));
    assert_eq!(server.receive(bob), None);
}

#[test]
fn mistakes_in_what_is_served_are_found() {
    let twice = Server::builder().websocket("/", Witness::default());
    let error = TestServer::new(twice.websocket("/", Witness::default()));
    assert!(matches!(error, Err(peregrine::Error::Path { .. })));
}

#[test]
fn after_the_shutdown_nobody_is_let_in() {
    let (mut server, witness) = witnessed(Limits::default());
    let client = connect(&mut server, "/");
    let hub = server.hub();
    let report = server.shutdown(Duration::from_secs(10));
    assert_eq!((report.open_count, report.aborted_count), (1, 0));
    assert_eq!(server.receive(client), closed(1001, "server is shutting down"));
    assert_eq!(witness.ends(), [(CloseCode::GOING_AWAY.into(), ClosedBy::Server)]);
    assert_eq!(server.connect("/").expect_err("it is over").status, 0);
    assert_eq!(hub.broadcast("/", "anybody?"), Err(SendError::ShuttingDown));
}

#[test]
fn a_server_that_is_dropped_says_goodbye_to_everyone() {
    let (mut server, witness) = witnessed(Limits::default());
    for _ in 0..3 {
        let client = connect(&mut server, "/");
        server.stop_reading(client);
    }
    drop(server);
    assert_eq!(witness.ends(), [(1001, ClosedBy::Server); 3]);
}

/// The README's example.
#[test]
fn who_says_nothing_for_a_minute_is_gone() {
    let chat = Callbacks::<()>::new().on_message(|ws, message| {
        assert_eq!(ws.broadcast(message), Ok(()));
        ().into()
    });
    let mut server = start(Server::builder().websocket("/chat", chat));
    let alice = connect(&mut server, "/chat");
    let bob = connect(&mut server, "/chat");
    server.send(alice, "hello");
    assert_eq!(server.receive_all(bob).last(), Some(&Received::Text("hello".into())));
    server.stop_reading(bob);
    server.advance(Duration::from_secs(70));
    assert_eq!(server.hub().connection_counts(), [1]);
}
