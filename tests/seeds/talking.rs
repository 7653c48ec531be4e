//! S1 endpoints, S2 connect, S3 message, S10 query, S13 closures, and the order of what one call
//! sends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use peregrine::{Callbacks, Close, Endpoint, Handler, Message, Query, Reply, Upgrade, WebSocket};
use tungstenite::Message as ClientMessage;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::common::{Client, start};
use super::{Seed, enough_for, on_every_shard_count};

/// Answers every message with itself.
struct Echo;

impl Handler for Echo {
    type Session = ();

    fn on_message<'m>(&self, _ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        message.into()
    }
}

/// Says to all of its endpoint what one says.
struct Announcer;

impl Handler for Announcer {
    type Session = u64;

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, u64>, message: Message<'m>) -> Reply<'m> {
        *ws.session_mut() += 1;
        ws.broadcast(message).expect("room for a broadcast");
        Reply::none()
    }
}

#[test]
fn s1_an_app_has_several_endpoints_each_with_its_own_handler() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| {
            app.websocket("/web_socket", Seed).websocket("/echo", Echo).websocket("/all", Announcer)
        });
        let mut seed = Client::connect(running.local_addr(), "/web_socket");
        let mut echo = Client::connect(running.local_addr(), "/echo");
        let mut all = Client::connect(running.local_addr(), "/all?with=a&query=string");
        assert_eq!(seed.text(), "Connected to ws");
        for client in [&mut seed, &mut echo, &mut all] {
            client.send("hi");
        }
        assert_eq!(seed.text(), "Hello world, from ws");
        assert_eq!(echo.text(), "hi");
        assert_eq!(all.text(), "hi");
    });
}

#[test]
fn s1_a_path_that_serves_nothing_is_answered_with_404() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", Seed));
        for path in ["/", "/web_socket/", "/Web_socket", "/web_socke", "/web_socket/more"] {
            match Client::try_connect(running.local_addr(), path) {
                Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 404),
                other => panic!("{path:?} should be refused, not {:?}", other.map(|_| "served")),
            }
        }
    });
}

#[test]
fn s1_a_broadcast_stays_within_its_endpoint() {
    on_every_shard_count(|shards| {
        let running =
            start(shards, |app| app.websocket("/left", Announcer).websocket("/right", Announcer));
        let count = enough_for(shards);
        let connect = |path| -> Vec<Client> {
            (0..count).map(|_| Client::connect(running.local_addr(), path)).collect()
        };
        let (mut left, mut right) = (connect("/left"), connect("/right"));
        for round in 0..20 {
            left[round % count].send(format!("left {round}"));
            right[round % count].send(format!("right {round}"));
            let expected = [format!("left {round}"), format!("right {round}")];
            for (members, expected) in [&mut left, &mut right].into_iter().zip(expected) {
                assert!(members.iter_mut().all(|member| member.text() == expected));
            }
        }
    });
}

#[test]
fn s2_what_on_connect_returns_is_the_first_message() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| {
            app.websocket("/web_socket", Seed)
                .websocket("/bytes", Callbacks::<()>::new().on_connect(|_ws| vec![0, 255].into()))
                .websocket("/empty", Callbacks::<()>::new().on_connect(|_ws| "".into()))
                .websocket("/nothing", Echo)
        });
        let connect = |path| Client::connect(running.local_addr(), path);
        for _ in 0..enough_for(shards) {
            assert_eq!(connect("/web_socket").text(), "Connected to ws");
            assert_eq!(connect("/bytes").bytes(), [0, 255]);
            assert_eq!(connect("/empty").text(), "");
            let mut silent = connect("/nothing");
            silent.send("the first answer");
            assert_eq!(silent.text(), "the first answer");
        }
    });
}

#[test]
fn s2_nothing_comes_before_it_in_a_storm_of_broadcasts() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", Seed));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (hub, is_over) = (running.hub(), &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // A mailbox may be full for a moment; there is always a next broadcast.
                    let _ = hub.broadcast("/web_socket", "storm");
                    std::thread::yield_now();
                }
            });
            for _ in 0..50 {
                let mut client = Client::connect(running.local_addr(), "/web_socket");
                assert_eq!(client.text(), "Connected to ws");
                assert_eq!(client.text(), "storm");
            }
            is_over.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn s3_what_on_message_returns_answers_this_client_and_no_other() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", Seed));
        let mut clients: Vec<_> = (0..enough_for(shards))
            .map(|_| Client::connect(running.local_addr(), "/web_socket"))
            .collect();
        for client in &mut clients {
            assert_eq!(client.text(), "Connected to ws");
            client.send("anything");
            client.send_bytes([1, 2, 3]);
            assert_eq!(client.text(), "Hello world, from ws");
            assert_eq!(client.text(), "Hello world, from ws");
        }
        for client in &mut clients {
            client.0.close(None).expect("the server reads");
            assert_eq!(client.text(), "Goodbye world, from ws");
        }
    });
}

#[test]
fn s3_text_is_answered_by_text_and_bytes_by_binary() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/echo", Echo));
        let mut client = Client::connect(running.local_addr(), "/echo");
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            let text = "é".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
            client.send(text.clone());
            assert!(client.text() == text, "a text of {length} bytes");
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            client.send_bytes(bytes.clone());
            assert!(client.bytes() == bytes, "{length} bytes");
        }
    });
}

#[test]
fn s3_an_empty_string_sends_an_empty_message_and_none_sends_nothing() {
    on_every_shard_count(|shards| {
        let answers = Callbacks::<()>::new().on_message(|_ws, message| match message.as_text() {
            Some("empty text") => "".into(),
            Some("empty bytes") => Vec::new().into(),
            Some("none") => Reply::none(),
            Some("unit") => ().into(),
            Some("no option") => None::<String>.into(),
            _ => Some("fence").into(),
        });
        let running = start(shards, |app| app.websocket("/", answers));
        let mut client = Client::connect(running.local_addr(), "/");
        client.send("empty text");
        assert_eq!(client.text(), "");
        client.send("empty bytes");
        assert_eq!(client.bytes(), [0u8; 0]);
        for nothing in ["none", "unit", "no option"] {
            client.send(nothing);
            client.send("fence");
            assert_eq!(client.text(), "fence", "{nothing:?} sends nothing");
        }
    });
}

/// In the original some of these texts mean something to the machinery.
const INNOCENT_TEXTS: [&str; 14] = [
    "Connection closed",
    "connection closed",
    "close",
    "CLOSE",
    "disconnect",
    "quit",
    "exit",
    "None",
    "null",
    "\0",
    "1000",
    "\u{3}\u{e8}",
    "ping",
    "\r\n\r\n",
];

#[test]
fn s3_no_text_is_a_sentinel_that_closes_whoever_receives_it() {
    on_every_shard_count(|shards| {
        let running =
            start(shards, |app| app.websocket("/echo", Echo).websocket("/all", Announcer));
        let mut echo = Client::connect(running.local_addr(), "/echo");
        let mut members: Vec<_> = (0..enough_for(shards))
            .map(|_| Client::connect(running.local_addr(), "/all"))
            .collect();
        for text in INNOCENT_TEXTS {
            echo.send(text);
            echo.send_bytes(text.as_bytes());
            assert_eq!(echo.text(), text);
            assert_eq!(echo.bytes(), text.as_bytes());
            members[0].send(text);
            running.hub().broadcast("/all", text).expect("room");
            for member in &mut members {
                assert_eq!([member.text(), member.text()], [text, text]);
            }
        }
    });
}

fn fragment(data: &[u8], kind: Data, is_final: bool) -> ClientMessage {
    ClientMessage::Frame(Frame::message(data.to_vec(), OpCode::Data(kind), is_final))
}

#[test]
fn s3_fragmented_messages_arrive_whole() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/echo", Echo));
        let mut client = Client::connect(running.local_addr(), "/echo");
        let text = "In pieces, some of which cut a character: äöü€🦅".repeat(40);
        for size in [1, 2, 3, 7, 100, 1000] {
            for kind in [Data::Text, Data::Binary] {
                let pieces: Vec<_> = text.as_bytes().chunks(size.max(text.len() / 500)).collect();
                for (at, piece) in pieces.iter().enumerate() {
                    let kind = if at == 0 { kind } else { Data::Continue };
                    let frame = fragment(piece, kind, at + 1 == pieces.len());
                    client.0.send(frame).expect("the server reads");
                    if at % 100 == 50 {
                        // A control frame may stand between fragments (RFC 6455 section 5.4).
                        let ping = ClientMessage::Ping("still there?".into());
                        client.0.send(ping).expect("the server reads");
                    }
                }
                match kind {
                    Data::Text => assert_eq!(client.text(), text),
                    _ => assert_eq!(client.bytes(), text.as_bytes()),
                }
            }
        }
    });
}

/// Tells what the query says, at every stage of the connection.
struct Asked;

fn tell(query: &Query) -> String {
    query.iter().map(|(name, value)| format!("[{name}]=[{value}]")).collect()
}

fn asked() -> Endpoint {
    Endpoint::with_upgrade(Asked, |request| Upgrade::accept(tell(request.query_params())))
}

impl Handler for Asked {
    type Session = String;

    fn on_connect(&self, ws: &mut WebSocket<'_, String>) -> Reply<'static> {
        assert_eq!(tell(ws.query_params()), *ws.session());
        tell(ws.query_params()).into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, String>, message: Message<'m>) -> Reply<'m> {
        let name = message.as_text().unwrap_or_default();
        let all: Vec<_> = ws.query_params().get_all(name).collect();
        assert_eq!(ws.query(name), all.first().cloned());
        match ws.query(name) {
            Some(first) => format!("{first} of {all:?}").into(),
            None => "None".into(),
        }
    }

    fn on_close(&self, ws: &mut WebSocket<'_, String>, _close: &Close) -> Reply<'static> {
        tell(ws.query_params()).into()
    }
}

#[test]
fn s10_query_values_are_percent_decoded_with_plus_as_space_and_repeated_keys_in_order() {
    let queries = BTreeMap::from([
        ("?name=gary&desg=professor", "[name]=[gary][desg]=[professor]"),
        ("?name=J%C3%BCrgen+%F0%9F%A6%85", "[name]=[Jürgen 🦅]"),
        ("?tag=c&other=1&tag=a&tag=b", "[tag]=[c][other]=[1][tag]=[a][tag]=[b]"),
        ("?na%6De=x&a%20b=c+d&plus=%2B&and=%26%3D", "[name]=[x][a b]=[c d][plus]=[+][and]=[&=]"),
        ("?empty=&flag&eq=a=b&&=nameless", "[empty]=[][flag]=[][eq]=[a=b][]=[nameless]"),
        ("?bad=%zz%4&half=%C3", "[bad]=[%zz%4][half]=[\u{fffd}]"),
        ("?", ""),
        ("", ""),
    ]);
    on_every_shard_count(move |shards| {
        let running = start(shards, |app| app.websocket("/web_socket", asked()));
        for (query, told) in &queries {
            let mut client = Client::connect(running.local_addr(), &format!("/web_socket{query}"));
            assert_eq!(client.text(), *told, "on_connect sees {query:?}");
            client.0.close(None).expect("the server reads");
            assert_eq!(client.text(), *told, "on_close sees {query:?}");
        }
    });
}

#[test]
fn s10_a_parameter_is_found_by_name_and_a_missing_one_is_none() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", asked()));
        let path = "/web_socket?name=gary+b&tag=2&tag=1&Name=other&caf%C3%A9=ol%C3%A9";
        let mut client = Client::connect(running.local_addr(), path);
        client.text();
        for (name, answer) in [
            ("name", r#"gary b of ["gary b"]"#),
            ("tag", r#"2 of ["2", "1"]"#),
            ("Name", r#"other of ["other"]"#),
            ("café", r#"olé of ["olé"]"#),
            ("missing", "None"),
            ("", "None"),
        ] {
            client.send(name);
            assert_eq!(client.text(), answer);
        }
    });
}

#[test]
fn s13_a_handler_names_only_what_it_takes() {
    struct OnlyHears;
    impl Handler for OnlyHears {
        type Session = ();
        fn on_message<'m>(&self, _ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
            format!("{} bytes", message.len()).into()
        }
    }
    struct SaysNothing;
    impl Handler for SaysNothing {
        type Session = ();
    }
    on_every_shard_count(|shards| {
        let running = start(shards, |app| {
            app.websocket("/hears", OnlyHears).websocket("/nothing", SaysNothing)
        });
        let mut hears = Client::connect(running.local_addr(), "/hears");
        hears.send("four");
        assert_eq!(hears.text(), "4 bytes");
        hears.0.close(None).expect("the server reads");
        assert_eq!(hears.closed(), None);
        let mut nothing = Client::connect(running.local_addr(), "/nothing");
        nothing.send("is anyone there?");
        running.hub().broadcast("/nothing", "yes").expect("room");
        assert_eq!(nothing.text(), "yes");
        nothing.0.close(None).expect("the server reads");
        assert_eq!(nothing.closed(), None);
    });
}

#[test]
fn s13_closures_make_a_handler_and_those_not_given_do_nothing() {
    on_every_shard_count(|shards| {
        let counting = Callbacks::<u32>::with_upgrade(|request| {
            Upgrade::accept(request.query_as("from").unwrap_or(0))
        })
        .on_connect(|ws| format!("{} from {}", ws.id(), ws.session()).into())
        .on_message(|ws, message| {
            *ws.session_mut() += 1;
            format!("{}: {}", ws.session(), message.as_text().unwrap_or("bytes")).into()
        })
        .on_close(|ws, close| format!("{} after {}", close.code(), ws.session()).into());
        let running = start(shards, |app| {
            app.websocket("/counting", counting)
                .websocket("/hello", Callbacks::<()>::new().on_message(|_, _| "hello".into()))
                .websocket("/nothing", Callbacks::<()>::new())
        });
        let connect = |path| Client::connect(running.local_addr(), path);
        let mut clients = [connect("/counting?from=7"), connect("/counting?from=x")];
        for (client, from) in clients.iter_mut().zip([7, 0]) {
            assert!(client.text().ends_with(&format!(" from {from}")));
            client.send("one");
            assert_eq!(client.text(), format!("{}: one", from + 1));
            client.send_bytes([1]);
            assert_eq!(client.text(), format!("{}: bytes", from + 2));
            client.0.close(None).expect("the server reads");
            assert_eq!(client.text(), format!("1005 after {}", from + 2));
        }
        let mut hello = connect("/hello");
        hello.send("");
        assert_eq!(hello.text(), "hello");
        let mut nothing = connect("/nothing");
        nothing.0.close(None).expect("the server reads");
        assert_eq!(nothing.closed(), None);
    });
}

/// Sends itself what the message lists, one letter each, in all the ways there are.
struct Orderly;

impl Handler for Orderly {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let own = ws.id();
        for (at, way) in message.as_text().unwrap_or_default().chars().enumerate() {
            let text = format!("{way}{at}");
            match way {
                's' => ws.send(text),
                't' => ws.send_to(own, text),
                'b' => ws.broadcast(text),
                _ => ws.broadcast(vec![0; 20_000]).and_then(|()| ws.send(text)),
            }
            .expect("room");
        }
        "returned".into()
    }
}

#[test]
fn order_what_one_call_sends_to_itself_arrives_in_program_order() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/", Orderly));
        let mut client = Client::connect(running.local_addr(), "/");
        for ways in ["stb", "bts", "tbsbtbstts", "bbbb", "btbtbtb", "Bsbt", "sBtB", "bBbBb"] {
            // Twice in one packet: the second call comes after the first.
            for _ in 0..2 {
                client.0.write(ClientMessage::text(ways)).expect("room");
            }
            client.0.flush().expect("the server reads");
            for _ in 0..2 {
                for (at, way) in ways.chars().enumerate() {
                    if way == 'B' {
                        assert_eq!(client.bytes().len(), 20_000);
                    }
                    assert_eq!(client.text(), format!("{way}{at}"), "in {ways:?}");
                }
                assert_eq!(client.text(), "returned");
            }
        }
    });
}
