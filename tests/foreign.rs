//! A program that uses every item, as somebody would who knows nothing but the documentation; also
//! in places and in orders that the documentation does not suggest.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "foreign/texts.rs"]
mod texts;

use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use common::executor::block_on;
use common::{Client, PATIENCE, SHARD_COUNTS, connect, eventually, start, within};
use peregrine::{
    Accept, BroadcastReport, Callbacks, Close, CloseCode, ConnectionId, Endpoint, Error,
    HeaderError, Hub, Limits, Message, MessageWriter, Query, Reply, Request, Response, Router,
    RunningServer, SendError, Server, ServerBuilder, Upgrade, WebSocket,
};

fn each(test: impl Fn(usize) + Send + 'static) {
    within(Duration::from_secs(60), move || SHARD_COUNTS.into_iter().for_each(test));
}

/// Splits a command into three words, the last of which may have spaces.
fn words(text: &str) -> [&str; 3] {
    let mut words = text.splitn(3, ' ');
    [(); 3].map(|()| words.next().unwrap_or_default())
}

fn id(text: &str) -> ConnectionId {
    text.parse().expect("an id")
}

/// Does what its client commands, and answers what it was told.
fn obey<'m>(ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
    let Some(text) = message.as_text() else { return message.into() };
    let [command, to, what] = words(text);
    let told = match command {
        "send" => ws.send(what),
        "send_to" => ws.send_to(id(to), what),
        "broadcast" => ws.broadcast(what),
        "broadcast_except" => ws.broadcast_except(id(to), what),
        "subscribe" => ws.subscribe(to),
        "unsubscribe" => {
            ws.unsubscribe(to);
            Ok(())
        }
        "publish" => ws.publish(to, what),
        "publish_except" => ws.publish_except(to, ws.id(), what),
        "subscriber_count" => return ws.subscriber_count(to).to_string().into(),
        "send_to_async" => return told(ws.send_to_async(id(to), what)),
        "broadcast_async" => return told(ws.broadcast_async(what)),
        "publish_async" => return told(ws.publish_async(to, what)),
        _ => return message.into(),
    };
    format!("{told:?}").into()
}

/// Answers with what a delivery tells.
fn told(delivery: impl Future<Output: std::fmt::Debug> + 'static) -> Reply<'static> {
    Reply::later(async { format!("{:?}", delivery.await) })
}

fn obedient() -> Callbacks<()> {
    Callbacks::new().on_connect(|ws| ws.id().to_string().into()).on_message(obey)
}

/// Clients of an endpoint, with their ids.
fn meet(server: &RunningServer, path: &str, count: usize) -> (Vec<Client>, Vec<ConnectionId>) {
    let address = server.local_addr();
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(address, path)).collect();
    let ids = clients.iter_mut().map(|client| id(&client.text())).collect();
    (clients, ids)
}

/// All of these get a text, and get it next.
fn all_get<'c>(clients: impl IntoIterator<Item = &'c mut Client>, text: &str) {
    for client in clients {
        assert_eq!(client.text(), text);
    }
}

#[test]
fn every_way_of_sending_from_a_handler_reaches_whom_it_names_and_says_so() {
    each(|shard_count| {
        let server = start(shard_count, |builder| {
            builder.websocket("/a", obedient()).websocket("/b", obedient())
        });
        let (mut clients, ids) = meet(&server, "/a", 4);
        let (mut others, other_ids) = meet(&server, "/b", 2);
        for client in clients.iter_mut().take(2).chain(&mut others) {
            client.send("subscribe news");
            assert_eq!(client.text(), "Ok(())");
        }
        let (first, rest) = clients.split_first_mut().expect("clients");
        // What it sends to itself comes before the answer, whichever way it takes.
        let own = ids[0];
        for command in
            ["send - me", &format!("send_to {own} me"), &format!("send_to_async {own} me")]
        {
            first.send(command);
            assert_eq!((first.text(), first.text()), ("me".into(), "Ok(())".into()));
        }
        for (command, answer) in [("broadcast", "Ok(())"), ("broadcast_async", &report(4))] {
            first.send(format!("{command} - everybody"));
            assert_eq!((first.text(), &*first.text()), ("everybody".into(), answer));
            all_get(&mut *rest, "everybody");
        }
        for (command, answer) in [("publish", "Ok(())"), ("publish_async", &report(4))] {
            first.send(format!("{command} news today"));
            assert_eq!((first.text(), &*first.text()), ("today".into(), answer));
            all_get(rest.iter_mut().take(1).chain(&mut others), "today");
        }
        first.send(format!("broadcast_except {} nearly all", ids[3]));
        assert_eq!((first.text(), first.text()), ("nearly all".into(), "Ok(())".into()));
        all_get(&mut rest[..2], "nearly all");
        // Whoever is no member of the endpoint is left out of nothing.
        first.send(format!("broadcast_except {} all", other_ids[0]));
        assert_eq!((first.text(), first.text()), ("all".into(), "Ok(())".into()));
        all_get(&mut *rest, "all");
        first.send("publish_except news others");
        assert_eq!(first.text(), "Ok(())");
        all_get(rest.iter_mut().take(1).chain(&mut others), "others");
        first.send(format!("send_to_async {} across", other_ids[1]));
        assert_eq!(first.text(), "Ok(())");
        all_get(&mut others[1..], "across");
        first.send("unsubscribe news");
        assert_eq!(first.text(), "Ok(())");
        first.send("subscriber_count news");
        assert_eq!(first.text(), "3");
        let name = "n".repeat(1025);
        first.send(format!("subscribe {name}"));
        assert_eq!(first.text(), "Err(NameTooLong)");
        first.send(format!("publish {name} ?"));
        assert_eq!(first.text(), "Err(NameTooLong)");
        first.send("publish nobody ?");
        assert_eq!(first.text(), "Ok(())");
    });
}

/// What a sender is told whose message has reached so many.
fn report(reached_count: usize) -> String {
    let mut report = BroadcastReport::default();
    report.reached_count = reached_count;
    format!("{:?}", Ok::<_, SendError>(report))
}

#[test]
fn a_hub_sends_as_handlers_do_and_after_the_end_tells_that_it_is_over() {
    each(|shard_count| {
        let server = start(shard_count, |builder| builder.websocket("/", obedient()));
        let hub = server.hub();
        let (mut clients, ids) = meet(&server, "/", 3);
        for &id in &ids {
            hub.subscribe(id, "news").expect("room");
        }
        hub.publish("news", "1").expect("room");
        hub.publish_except("news", ids[0], "2").expect("room");
        hub.unsubscribe(ids[1], "news").expect("room");
        let report = block_on(hub.publish_async("news", "3")).expect("a report");
        assert_eq!((report.reached_count, report.gone_count, report.overloaded_count), (2, 0, 0));
        hub.broadcast_except("/", ids[2], "4").expect("room");
        assert_eq!(block_on(hub.broadcast_async("/", "5")).map(|told| told.reached_count), Ok(3));
        hub.send_to(ids[0], "6").expect("room");
        assert_eq!(block_on(hub.send_to_async(ids[0], [7])), Ok(()));
        let got = |client: &mut Client, texts: &[&str]| {
            texts.iter().for_each(|&text| assert_eq!(client.text(), text));
        };
        got(&mut clients[0], &["1", "3", "4", "5", "6"]);
        assert_eq!(clients[0].bytes(), [7]);
        got(&mut clients[1], &["1", "2", "4", "5"]);
        got(&mut clients[2], &["1", "2", "3", "5"]);
        let long = "n".repeat(1025);
        assert_eq!(hub.subscribe(ids[0], &long), Err(SendError::NameTooLong));
        assert_eq!(block_on(hub.publish_async(&long, "?")), Err(SendError::NameTooLong));
        assert_eq!(hub.broadcast("/nowhere", "?"), Err(SendError::NoEndpoint));
        assert_eq!(block_on(hub.broadcast_async("/nowhere", "?")), Err(SendError::NoEndpoint));
        hub.close_with(ids[0], 4000, &"é".repeat(100)).expect("room");
        let frame = clients[0].closed().expect("a code");
        assert_eq!((u16::from(frame.code), frame.reason.len()), (4000, 122));
        hub.abort(ids[1]).expect("room");
        assert!(clients[1].0.read().is_err());
        eventually(|| hub.connection_counts().iter().sum::<usize>() == 1);
        assert_eq!(block_on(hub.send_to_async(ids[1], "?")), Err(SendError::Gone));
        drop(clients);
        server.shutdown(PATIENCE).expect("a report");
        says_that_it_is_over(&hub, ids[2]);
    });
}

fn says_that_it_is_over(hub: &Hub, id: ConnectionId) {
    let over = Err(SendError::ShuttingDown);
    assert_eq!(
        [hub.send_to(id, "?"), hub.broadcast("/", "?"), hub.publish("news", "?")],
        [over; 3]
    );
    assert_eq!([hub.subscribe(id, "news"), hub.unsubscribe(id, "news")], [over; 2]);
    assert_eq!([hub.close(id), hub.abort(id), block_on(hub.send_to_async(id, "?"))], [over; 3]);
    assert_eq!(block_on(hub.broadcast_async("/", "?")), Err(SendError::ShuttingDown));
    assert_eq!(hub.subscriber_count("news"), 0);
}

/// What a connection may still do once its end is decided: reach others, and nothing else.
fn last_deeds<S>(ws: &WebSocket<'_, S>) -> String {
    let own = [
        ws.send("?"),
        ws.send_to(ws.id(), "?"),
        block_on(ws.send_to_async(ws.id(), "?")),
        ws.subscribe("news"),
        ws.stream::<str>().map(drop),
    ];
    assert_eq!(own, [Err(SendError::Closed); 5]);
    ws.unsubscribe("news");
    ws.close_with(4999, "too late");
    format!("{:?}", [ws.broadcast("gone"), ws.publish("news", "?")])
}

#[test]
fn who_closes_still_reaches_others_but_not_itself() {
    each(|shard_count| {
        let (sender, deeds) = mpsc::channel();
        let sender = Mutex::new(sender);
        let handler = Callbacks::<()>::new()
            .on_connect(|ws| format!("{:?}", ws.subscribe("news")).into())
            .on_message(|ws, message| {
                match message.as_text() {
                    Some("abort") => ws.abort(),
                    _ => ws.close_with(4000, "enough"),
                }
                last_deeds(ws).into()
            })
            .on_close(move |ws, close| {
                let deeds = (last_deeds(ws), close.to_string());
                sender.lock().expect("a lock").send(deeds).expect("the test listens");
                let report = ws.broadcast_async("told of");
                Reply::later(async { format!("{:?}", report.await) })
            });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut witness = Client::connect(server.local_addr(), "/");
        let both = format!("{:?}", [Ok::<(), SendError>(()); 2]);
        assert_eq!(witness.text(), "Ok(())");
        for (way, told) in [
            ("close", "closed by the application with 4000 (enough)"),
            ("abort", "closed by the application with 1006 (aborted)"),
            ("leave", "closed by the peer with 1005"),
        ] {
            let mut client = Client::connect(server.local_addr(), "/");
            assert_eq!(client.text(), "Ok(())");
            match way {
                "leave" => client.0.close(None).expect("the server reads"),
                _ => client.send(way),
            }
            let deeds = deeds.recv_timeout(PATIENCE).expect("on_close is called");
            assert_eq!(deeds, (both.clone(), told.to_owned()));
            let expected: &[&str] = match way {
                "leave" => &["gone", "?", "told of"],
                _ => &["gone", "?", "gone", "?", "told of"],
            };
            expected.iter().for_each(|&text| assert_eq!(witness.text(), text));
            match way {
                "abort" => assert!(client.0.read().is_err()),
                "leave" => assert_eq!((client.text(), client.close_code()), (report(1), 1005)),
                _ => {
                    assert_eq!((client.text(), client.text()), (both.clone(), report(1)));
                    assert_eq!(client.close_code(), 4000);
                }
            }
        }
    });
}

#[test]
fn on_close_may_answer_later_whoever_closes_and_whatever_follows() {
    each(|shard_count| {
        let handler = Callbacks::<()>::new().on_close(|ws, close: &Close| {
            let (report, close) = (ws.broadcast_async("left"), close.to_string());
            Reply::later(async move { report.await.map(|_| close).ok() })
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        // A Close and a fault, each with more behind it, which counts no more.
        for (bytes, code, words) in [
            (&b"\x88\x80\0\0\0\0\x89\x81\0\0\0\0a\xFF"[..], None, "closed by the peer with 1005"),
            (
                b"\xF1\x80\0\0\0\0\x89\x81\0\0\0\0a",
                Some(1002),
                "closed by the server with 1002 (reserved bits are set)",
            ),
        ] {
            let mut client = Client::connect(server.local_addr(), "/");
            client.0.get_mut().write_all(bytes).expect("the server reads");
            assert_eq!(client.text(), words);
            let tungstenite::Message::Close(frame) = client.read() else { panic!("no Close") };
            assert_eq!(frame.map(|frame| u16::from(frame.code)), code);
        }
        server.shutdown(PATIENCE).expect("no shard has ended before");
    });
}

#[test]
fn what_on_connect_sends_in_many_ways_arrives_in_the_order_sent() {
    each(|shard_count| {
        let handler = Callbacks::<()>::new()
            .on_connect(|ws| {
                ws.broadcast("1").expect("room");
                let told = ws.send_to_async(ws.id(), "2");
                let mut stream = ws.stream::<[u8]>().expect("the first one");
                assert_eq!(stream.id(), ws.id());
                ws.send("4").expect("room");
                assert_eq!(ws.stream::<str>().map(drop), Err(SendError::Overloaded));
                stream.write(b"3").expect("room");
                stream.finish().expect("room");
                assert_eq!(stream.finish(), Err(SendError::Closed));
                Reply::later(async move { format!("{:?}", told.await) })
            })
            .on_message(|_, _| {
                // A later answer may be a later answer, which may be work for the pool.
                Reply::later(async { Reply::later(async { Reply::offload(|| Some("nested")) }) })
            });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("?");
        assert_eq!((client.text(), client.text()), ("1".into(), "2".into()));
        assert_eq!((client.bytes(), client.text()), (b"3".to_vec(), "4".into()));
        assert_eq!((client.text(), client.text()), ("Ok(())".into(), "nested".into()));
    });
}

#[test]
fn a_stream_may_be_kept_in_the_session_and_awaited_by_its_own_handler() {
    each(|shard_count| {
        let handler =
            Callbacks::<Option<MessageWriter<str>>>::new().on_message(|ws, message| {
                match (ws.session_mut().take(), message.as_text()) {
                    (None, Some("begin")) => {
                        *ws.session_mut() = ws.stream().ok();
                        "begun".into()
                    }
                    (Some(mut stream), Some("end")) => Reply::later(async move {
                        let taken = [stream.write_async("e").await, stream.write_async("").await];
                        let ended = [stream.finish_async().await, stream.finish_async().await];
                        assert_eq!((taken, ended), ([Ok(()); 2], [Ok(()), Err(SendError::Closed)]));
                        stream.buffered_bytes().to_string()
                    }),
                    (Some(mut stream), Some(piece)) => {
                        let written = stream.write(piece);
                        *ws.session_mut() = Some(stream);
                        format!("{written:?}").into()
                    }
                    _ => Reply::none(),
                }
            });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        for command in ["begin", "on", "", "end"] {
            client.send(command);
        }
        for expected in ["one", "begun", "Ok(())", "Ok(())", "0"] {
            assert_eq!(client.text(), expected);
        }
    });
}

struct Outer(&'static str);
struct Inner(&'static str);

/// What is known of a request at the door.
fn seen(request: &Request<'_>) -> String {
    let header = request.header("X-ONE");
    assert_eq!(request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("x-one")).count(), 1);
    assert!(request.find_dependency::<String>().is_none());
    assert_eq!(request.method(), "GET");
    let offered: Vec<_> = request.subprotocols().collect();
    let (outer, inner) = (request.dependency::<Outer>().0, request.dependency::<Inner>().0);
    format!("{} {header:?} {:?} {offered:?} {outer} {inner}", request.path(), request.cookie("c"))
}

/// What is known of it at the door and afterwards.
macro_rules! known {
    ($of:expr) => {{
        let of = $of;
        let tags: Vec<_> = of.query_params().get_all("tag").collect();
        let number = (of.query_as::<u32>("n").ok(), of.query_as::<u32>("tag").ok());
        let id = (of.param("id"), of.param_as::<u8>("id").ok());
        let ip = (of.client_ip().to_string(), of.peer_addr().ip().to_string());
        format!("{:?} {tags:?} {number:?} {id:?} {ip:?}", of.query("q"))
    }};
}

fn attentive() -> Callbacks<(String, String)> {
    Callbacks::with_upgrade(|request| {
        Accept::new((seen(request), known!(request)))
            .subprotocols(["v2", "v1"])
            .header("X-Ip", request.client_ip().to_string())
    })
    .on_connect(|ws| {
        let known = known!(&*ws);
        assert_eq!(ws.session().1, known);
        assert!(!ws.has_backpressure() && ws.buffered_bytes() == 0);
        let chosen = ws.subprotocol().unwrap_or_default().to_owned();
        let seen = &ws.session().0;
        format!("{seen} | {known} | {chosen}").into()
    })
}

#[test]
fn what_is_known_of_a_request_at_the_door_is_known_of_its_connection_too() {
    each(|shard_count| {
        let server = start(shard_count, |builder| {
            let endpoint = Endpoint::new(attentive()).required_param::<u8>("id");
            let router = Router::new().dependency(Inner("inner")).websocket("/{id}", endpoint);
            let proxies = ["127.0.0.0/8", "10.1.1.1"];
            builder.global(Outer("outer")).trust_proxies(proxies).mount("/a/", router)
        });
        let query = "q=a+%C3%A9&tag=x&n=7&tag=y";
        let own = "X-One: 1\r\nCookie: a=b; c=d=e\r\nSec-WebSocket-Protocol: v1, v3\r\n";
        for (before, header, ip) in [
            ("", "", "127.0.0.1"),
            ("", "X-Forwarded-For: 9.9.9.9, 8.8.8.8, 10.1.1.1\r\n", "8.8.8.8"),
            ("", "Forwarded: for=\"[2001:db8::1]:80\"\r\n", "2001:db8::1"),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "X-Forwarded-For: 7.7.7.7\r\n", "1.2.3.4"),
        ] {
            let mut socket = connect(server.local_addr());
            write!(
                socket,
                "{before}GET /a/4%32?{query} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Version: 13\r\n{own}{header}\r\n"
            )
            .expect("the server reads");
            socket.write_all(b"\x88\x80\0\0\0\0").expect("the server reads");
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).expect("an answer and its end");
            let answer = String::from_utf8_lossy(&answer);
            for expected in [
                "\r\nSec-WebSocket-Protocol: v1\r\n",
                &format!("\r\nX-Ip: {ip}\r\n"),
                r#"/a/4%32 Some("1") Some("d=e") ["v1", "v3"] outer inner"#,
                r#"Some("a é") ["x", "y"] (Some(7), None) (Some("42"), Some(42))"#,
                &format!("(\"{ip}\", \"127.0.0.1\")"),
                " | v1",
            ] {
                assert!(answer.contains(expected), "{expected} is not in {answer}");
            }
        }
    });
}

#[test]
fn a_decision_within_a_decision_counts() {
    each(|shard_count| {
        let handler = Callbacks::<Option<String>>::with_upgrade(|request| {
            let name = request.query("name").map(str::to_owned);
            let decide = |name| {
                Upgrade::later(async { Accept::new(Some::<String>(name)).subprotocol("inner") })
            };
            let inner = async move { Upgrade::offload_then(|| name.unwrap_or_default(), decide) };
            Upgrade::later(inner)
        })
        .on_connect(|ws| format!("{:?} {:?}", ws.session().clone(), ws.subprotocol()).into());
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/?name=Ann");
        assert_eq!(client.text(), "Some(\"Ann\") None");
    });
}

#[test]
fn what_the_server_writes_into_a_response_cannot_be_written_twice() {
    let reserved = |name: &str| HeaderError::Reserved(name.to_owned());
    for name in ["Content-Length", "connection", "Transfer-Encoding"] {
        assert_eq!(Response::text("abc").header(name, "7"), Err(reserved(name)));
        assert_eq!(Accept::new(()).header(name, "7").err(), Some(reserved(name)));
    }
    for name in
        ["Upgrade", "sec-websocket-accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"]
    {
        assert_eq!(Accept::new(()).header(name, "7").err(), Some(reserved(name)));
        assert!(Response::new(426).header(name, "7").is_ok(), "{name}");
    }
    assert_eq!(Response::html("<b>").with_text("b"), Response::text("b"));
}

#[test]
fn every_mistake_in_what_is_served_has_its_error_and_its_words() {
    let handler = Callbacks::<()>::new;
    let problem = |builder: ServerBuilder| match builder.bind("127.0.0.1:0") {
        Ok(_) => "none".to_owned(),
        Err(error) => error.to_string(),
    };
    let mut limits = Limits::default();
    limits.max_offload_threads = Some(0);
    let narrow = Endpoint::new(handler()).adjust_limits(|limits| limits.max_head_bytes = 1);
    let unnamed = Endpoint::new(handler()).required_param::<u8>("b");
    let page = || Router::new().get("/", "1");
    for (builder, words) in [
        (Server::builder(), "none"),
        (Server::builder().mount("/", page()).mount("/a", Router::new()), "none"),
        (Server::builder().shards(0), "0 shards"),
        (Server::builder().shards(4097), "4097 shards"),
        (Server::builder().limits(limits), "at least one thread"),
        (Server::builder().websocket("/", narrow), "the server alone"),
        (Server::builder().websocket("/{a}", unnamed), "no parameter \"b\""),
        (
            Server::builder().mount("/a", page()).get("/a", "2"),
            "\"/a\" cannot be served: it is taken",
        ),
        (Server::builder().mount("", page()), "begin with a slash"),
        (Server::builder().requires::<u8>().websocket("/x", handler()), "\"/x\" requires"),
        (Server::builder().allow_origin("https://*.a"), "any_origin()"),
        (Server::builder().trust_proxies(["b"]), "\"b\" is neither"),
    ] {
        let problem = problem(builder);
        assert!(problem.contains(words), "{words} is not in {problem}");
    }
    assert!(matches!(Server::builder().bind("nonsense"), Err(Error::Io(_))));
}

#[test]
fn values_are_what_they_say() {
    let message = Message::Binary(b"[1]");
    assert_eq!((message.as_binary(), message.as_text()), (Some(&b"[1]"[..]), None));
    assert_eq!((message.len(), message.is_empty(), message.is_text()), (3, false, false));
    let given: ConnectionId = id("B1946AC9-2F1D-8003-8000-0040000007C2");
    assert_eq!((given.shard(), given.as_u128()), (3, 0xb1946ac9_2f1d_8003_8000_0040000007c2));
    assert_eq!(format!("{given:?}"), given.to_string());
    assert!("".parse::<ConnectionId>().is_err_and(|error| !error.to_string().is_empty()));
    assert!(CloseCode::from(4999) > CloseCode::NORMAL && CloseCode::from(4999).is_sendable());
    assert_eq!(
        (CloseCode::POLICY.to_string(), u16::from(CloseCode::POLICY)),
        ("1008".into(), 1008)
    );
    let query = Query::new("a=1&b&=c&a=%zz");
    assert_eq!(format!("{query:?}"), r#"{"a": "1", "b": "", "": "c", "a": "%zz"}"#);
    assert!(Query::new("").is_empty() && !query.is_empty());
    for status in [0, 101, 199, 600] {
        assert_eq!(Response::new(status), Response::new(500), "{status}");
    }
    for name in ["", "a b", "a,b", "a\r\nb", "\0", "\u{e9}"] {
        drop((Accept::new(()).subprotocol(name), Accept::new(()).subprotocols(["ok", name])));
        let refused = Accept::new(()).header(name, "").expect_err("no name");
        assert_eq!(refused, HeaderError::Name(name.to_owned()));
    }
    let smuggled = Accept::new(()).header("a", "\n").expect_err("a line break");
    let error: Error = smuggled.into();
    assert!(matches!(&error, Error::Header(HeaderError::Value(name)) if name == "a"));
    assert!(std::error::Error::source(&error).is_some() && error.to_string().contains("\"a\""));
}
