//! S4: `on_close`, whoever ends the connection and however.

use std::collections::HashMap;
use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use peregrine::{
    Close, ClosedBy, ConnectionId, Handler, Hub, Limits, Message, OverflowPolicy, Reply,
    RunningServer, SendError, WebSocket,
};
use socket2::SockRef;
use tungstenite::protocol::CloseFrame;

use super::common::{Client, PATIENCE, start};
use super::{GOODBYE, Seed, enough_for, eventually, id_of, on_every_shard_count};

/// Tells the test of every `on_connect` and `on_close`; does what its client asks for.
struct Witness {
    events: Sender<Event>,
}

#[derive(Debug)]
enum Event {
    Connect(ConnectionId),
    Close(ConnectionId, Close),
}

impl Handler for Witness {
    type Session = Option<ConnectionId>;

    fn on_connect(&self, ws: &mut WebSocket<'_, Self::Session>) -> Reply<'static> {
        *ws.session_mut() = Some(ws.id());
        self.events.send(Event::Connect(ws.id())).expect("the test listens");
        match ws.query("on_connect") {
            Some("panic") => panic!("as the test asked"),
            Some("close") => ws.close(),
            Some("abort") => ws.abort(),
            _ => {}
        }
        ws.id().to_string().into()
    }

    fn on_message<'m>(
        &self,
        ws: &mut WebSocket<'_, Self::Session>,
        message: Message<'m>,
    ) -> Reply<'m> {
        match message.as_text() {
            Some("close") => ws.close(),
            Some("close with") => ws.close_with(4001, "enough"),
            Some("close twice") => {
                ws.close_with(4001, "the first decision stands");
                ws.close_with(4002, "too late");
            }
            Some("close and panic") => {
                ws.close();
                panic!("as the test asked");
            }
            Some("close and abort") => {
                ws.close();
                ws.abort();
            }
            Some("abort") => ws.abort(),
            Some("panic") => panic!("as the test asked"),
            _ => return message.into(),
        }
        "Closing connection".into()
    }

    fn on_close(&self, ws: &mut WebSocket<'_, Self::Session>, close: &Close) -> Reply<'static> {
        let id = ws.id();
        assert_eq!(*ws.session(), Some(id), "the session is that of on_connect");
        assert_eq!(ws.send("too late"), Err(SendError::Closed));
        self.events.send(Event::Close(ws.id(), close.clone())).expect("the test listens");
        match ws.query("on_close") {
            Some("panic") => panic!("as the test asked"),
            Some("close") => ws.close_with(4003, "it is closed already"),
            _ => {}
        }
        GOODBYE.into()
    }
}

fn serve(shards: usize, limits: Limits) -> (RunningServer, Receiver<Event>) {
    let (events, seen) = channel();
    let witness = Witness { events };
    (start(shards, |app| app.limits(limits).websocket("/web_socket", witness)), seen)
}

/// The next `on_close`; `on_connect` comes before it, once.
fn closed(seen: &Receiver<Event>, id: ConnectionId) -> Close {
    for _ in 0..2 {
        match seen.recv_timeout(PATIENCE).expect("on_close is called") {
            Event::Connect(connected) => assert_eq!(connected, id),
            Event::Close(closed, close) => {
                assert_eq!(closed, id);
                return close;
            }
        }
    }
    panic!("on_connect was called twice for {id}");
}

/// What the client sees of an end.
enum Sees {
    /// What `on_close` returned, then a Close frame with this code, then the end of the stream.
    Goodbye(u16),
    /// The same after what the handler returned.
    ReplyAndGoodbye(u16),
    /// What `on_close` returned, then the end of the stream without a Close frame.
    GoodbyeOnly,
    /// The end of the stream and nothing else.
    End,
    /// It has left: nothing.
    Nothing,
}

struct End {
    name: &'static str,
    /// Ends the connection; gives the client back unless it vanishes.
    act: fn(Client, &Hub, ConnectionId) -> Option<Client>,
    code: u16,
    reason: &'static str,
    by: ClosedBy,
    sees: Sees,
}

fn say(mut client: Client, text: &str) -> Option<Client> {
    client.send(text);
    Some(client)
}

fn write(mut client: Client, bytes: &[u8]) -> Option<Client> {
    client.0.get_mut().write_all(bytes).expect("the server reads");
    Some(client)
}

fn close_with(mut client: Client, frame: Option<CloseFrame>) -> Option<Client> {
    client.0.close(frame).expect("the server reads");
    Some(client)
}

fn end(
    name: &'static str,
    (code, reason, by): (u16, &'static str, ClosedBy),
    sees: Sees,
    act: fn(Client, &Hub, ConnectionId) -> Option<Client>,
) -> End {
    End { name, act, code, reason, by, sees }
}

/// Everybody who can end a connection, and every way of doing so, but for timers and shutdown.
fn ends() -> Vec<End> {
    use ClosedBy::{Application, Peer, Server};
    use Sees::{End, Goodbye, GoodbyeOnly, Nothing, ReplyAndGoodbye};
    vec![
        end("client, code and reason", (4000, "done", Peer), Goodbye(4000), |client, _, _| {
            close_with(client, Some(CloseFrame { code: 4000.into(), reason: "done".into() }))
        }),
        end("client, no code", (1005, "", Peer), Goodbye(1005), |client, _, _| {
            close_with(client, None)
        }),
        end(
            "close in on_message",
            (1000, "", Application),
            ReplyAndGoodbye(1000),
            |client, _, _| say(client, "close"),
        ),
        end("close_with", (4001, "enough", Application), ReplyAndGoodbye(4001), |client, _, _| {
            say(client, "close with")
        }),
        end(
            "close twice",
            (4001, "the first decision stands", Application),
            ReplyAndGoodbye(4001),
            |client, _, _| say(client, "close twice"),
        ),
        end("abort in on_message", (1006, "aborted", Application), End, |client, _, _| {
            say(client, "abort")
        }),
        end("close, then abort", (1000, "", Application), End, |client, _, _| {
            say(client, "close and abort")
        }),
        end("hub.close", (1000, "", Application), Goodbye(1000), |client, hub, id| {
            hub.close(id).map(|()| client).ok()
        }),
        end("hub.close_with", (4002, "hub", Application), Goodbye(4002), |client, hub, id| {
            hub.close_with(id, 4002, "hub").map(|()| client).ok()
        }),
        end("hub.abort", (1006, "aborted", Application), End, |client, hub, id| {
            hub.abort(id).map(|()| client).ok()
        }),
        end("the client vanishes", (1006, "", Peer), Nothing, |client, _, _| {
            drop(client);
            None
        }),
        end("half-close", (1006, "", Peer), GoodbyeOnly, |client, _, _| {
            client.0.get_ref().shutdown(Shutdown::Write).map(|()| client).ok()
        }),
        end("reset", (1006, "", Peer), Nothing, |client, _, _| {
            SockRef::from(client.0.get_ref()).set_linger(Some(Duration::ZERO)).expect("an option");
            None
        }),
        end(
            "unmasked frame",
            (1002, "frame is not masked", Server),
            Goodbye(1002),
            |client, _, _| write(client, &[0x81, 2, b'h', b'i']),
        ),
        end("bad UTF-8", (1007, "text is not UTF-8", Server), Goodbye(1007), |client, _, _| {
            write(client, &[0x81, 0x82, 0, 0, 0, 0, 0xFF, 0xFE])
        }),
        end("too big", (1009, "message is too big", Server), Goodbye(1009), |client, _, _| {
            write(client, &[0x82, 0xFF, 0, 0, 0, 0, 0, 0x20, 0, 0, 1, 2, 3, 4])
        }),
        end("panic", (1011, "handler panicked", Application), Goodbye(1011), |client, _, _| {
            say(client, "panic")
        }),
        end("close, then panic", (1000, "", Application), Goodbye(1000), |client, _, _| {
            say(client, "close and panic")
        }),
    ]
}

fn see_end(mut client: Client, sees: &Sees) {
    match sees {
        Sees::Goodbye(code) => {
            assert_eq!(client.text(), GOODBYE);
            assert_eq!(client.close_code(), *code);
        }
        Sees::ReplyAndGoodbye(code) => {
            assert_eq!(client.text(), "Closing connection");
            assert_eq!(client.text(), GOODBYE);
            assert_eq!(client.close_code(), *code);
        }
        Sees::GoodbyeOnly => {
            assert_eq!(client.text(), GOODBYE);
            see_end(client, &Sees::End);
        }
        Sees::End => {
            let end = client.0.read();
            assert!(
                matches!(&end, Err(tungstenite::Error::Protocol(_) | tungstenite::Error::Io(_))),
                "the stream ends without another word, not with {end:?}"
            );
        }
        Sees::Nothing => {}
    }
}

#[test]
fn s4_on_close_is_told_once_how_the_connection_ended_and_its_value_comes_before_our_close() {
    on_every_shard_count(|shards| {
        let (running, seen) = serve(shards, Limits::default());
        for end in ends() {
            eprintln!("{}", end.name);
            let mut client = Client::connect(running.local_addr(), "/web_socket");
            let id = id_of(&mut client);
            if let Some(client) = (end.act)(client, &running.hub(), id) {
                see_end(client, &end.sees);
            }
            let close = closed(&seen, id);
            assert_eq!(close.by(), end.by);
            assert_eq!(close.code(), end.code);
            if !matches!(end.sees, Sees::Nothing) {
                // How a vanished peer is noticed is the kernel's choice, and so is the reason.
                assert_eq!(close.reason(), end.reason);
            }
        }
        eventually(|| running.hub().connection_counts() == vec![0; shards]);
        running.shutdown(PATIENCE).expect("the threads end");
        assert!(seen.recv().is_err(), "nobody is told twice");
    });
}

#[test]
fn s4_what_on_close_returns_is_the_last_message_whoever_closes() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", Seed));
        let connect = || {
            let mut client = Client::connect(running.local_addr(), "/web_socket");
            assert_eq!(client.text(), "Connected to ws");
            client
        };
        let (mut leaver, mut offender, mut guest) = (connect(), connect(), connect());
        leaver.0.close(None).expect("the server reads");
        assert_eq!(leaver.text(), GOODBYE);
        assert_eq!(leaver.closed(), None);
        offender.0.get_mut().write_all(&[0xFF; 14]).expect("the server reads");
        assert_eq!(offender.text(), GOODBYE);
        assert_eq!(offender.close_code(), 1002);
        let stopping = thread::spawn(move || running.shutdown(PATIENCE));
        assert_eq!(guest.text(), GOODBYE);
        assert_eq!(guest.close_code(), 1001);
        drop((leaver, offender, guest));
        stopping.join().expect("no panic").expect("the threads end");
    });
}

#[test]
fn s4_a_shutdown_says_goodbye_to_everyone_once() {
    on_every_shard_count(|shards| {
        let (running, seen) = serve(shards, Limits::default());
        let mut clients: Vec<_> = (0..enough_for(shards))
            .map(|_| Client::connect(running.local_addr(), "/web_socket"))
            .collect();
        let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
        let stopping = thread::spawn(move || running.shutdown(PATIENCE));
        for client in &mut clients {
            assert_eq!(client.text(), GOODBYE);
            assert_eq!(client.close_code(), 1001);
        }
        drop(clients);
        let report = stopping.join().expect("no panic").expect("the threads end");
        assert_eq!((report.open_count, report.aborted_count), (ids.len(), 0));
        let mut told = HashMap::new();
        for event in seen {
            if let Event::Close(id, close) = event {
                assert_eq!((close.code(), close.by()), (1001.into(), ClosedBy::Server));
                *told.entry(id).or_insert(0) += 1;
            }
        }
        assert_eq!(told, ids.into_iter().map(|id| (id, 1)).collect());
    });
}

#[test]
fn s4_a_server_that_is_dropped_calls_on_close_for_everyone() {
    on_every_shard_count(|shards| {
        let (running, seen) = serve(shards, Limits::default());
        let mut clients: Vec<_> = (0..enough_for(shards))
            .map(|_| Client::connect(running.local_addr(), "/web_socket"))
            .collect();
        let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
        drop(running);
        let closed = seen.iter().filter(|event| matches!(event, Event::Close(..))).count();
        assert_eq!(closed, ids.len());
    });
}

#[test]
fn s4_a_connection_that_ends_within_on_connect_still_gets_its_on_close() {
    on_every_shard_count(|shards| {
        let (running, seen) = serve(shards, Limits::default());
        for (ask, code) in [("panic", 1011), ("close", 1000), ("abort", 1006)] {
            let path = format!("/web_socket?on_connect={ask}");
            let client = Client::try_connect(running.local_addr(), &path);
            let Event::Connect(id) = seen.recv_timeout(PATIENCE).expect("on_connect is called")
            else {
                panic!("on_connect comes first");
            };
            assert_eq!(closed(&seen, id).code(), code);
            if ask != "abort" {
                let mut client = client.expect("the upgrade is accepted");
                if ask == "close" {
                    assert_eq!(id_of(&mut client), id);
                }
                assert_eq!(client.text(), GOODBYE);
                assert_eq!(client.close_code(), code);
            }
        }
        running.shutdown(PATIENCE).expect("the threads end");
        assert!(seen.recv().is_err(), "nobody is told twice");
    });
}

#[test]
fn s4_on_close_that_panics_is_told_by_1011_and_one_that_closes_again_changes_nothing() {
    on_every_shard_count(|shards| {
        let (running, seen) = serve(shards, Limits::default());
        for ask in ["panic", "close"] {
            let path = format!("/web_socket?on_close={ask}");
            let mut client = Client::connect(running.local_addr(), &path);
            let id = id_of(&mut client);
            client.send("close with");
            assert_eq!(client.text(), "Closing connection");
            if ask == "close" {
                assert_eq!(client.text(), GOODBYE);
            }
            let code = if ask == "panic" { 1011 } else { 4001 };
            assert_eq!(client.close_code(), code);
            assert_eq!(closed(&seen, id).code(), 4001, "what on_close was told");
        }
        running.shutdown(PATIENCE).expect("the threads end");
        assert!(seen.recv().is_err(), "nobody is told twice");
    });
}

#[test]
fn s4_a_peer_that_answers_no_ping_gets_1001_and_its_on_close() {
    on_every_shard_count(|shards| {
        let mut limits = Limits::default();
        limits.ping_after = Duration::from_millis(100);
        limits.idle_timeout = Duration::from_millis(300);
        let (running, seen) = serve(shards, limits);
        let mut client = Client::connect(running.local_addr(), "/web_socket");
        let id = id_of(&mut client);
        // It does not read, so it answers no ping.
        let close = closed(&seen, id);
        assert_eq!((close.code(), close.by()), (1001.into(), ClosedBy::Server));
        assert_eq!(client.text(), GOODBYE);
        assert_eq!(client.close_code(), 1001);
        running.shutdown(PATIENCE).expect("the threads end");
        assert!(seen.recv().is_err(), "nobody is told twice");
    });
}

#[test]
fn s4_a_client_that_reads_too_slowly_is_closed_with_1013_and_its_on_close_is_called() {
    on_every_shard_count(|shards| {
        let mut limits = Limits::default();
        limits.close_timeout = Duration::from_millis(300);
        limits.overflow = OverflowPolicy::Close;
        let (running, seen) = serve(shards, limits);
        let mut slow = Client::connect(running.local_addr(), "/web_socket");
        let id = id_of(&mut slow);
        let message = vec![0; 1 << 20];
        let mut events = Vec::new();
        while events.len() < 2 {
            // Overloaded only means that the mailbox is full.
            let _ = running.hub().send_to(id, &message);
            events.extend(seen.try_recv());
        }
        let [Event::Connect(_), Event::Close(closed, close)] = &events[..] else {
            panic!("on_connect, then on_close, not {events:?}")
        };
        assert_eq!((*closed, close.by()), (id, ClosedBy::Server));
        assert_eq!(close.code(), 1013);
        running.shutdown(PATIENCE).expect("the threads end");
        assert!(seen.recv().is_err(), "nobody is told twice");
    });
}

#[test]
fn s4_every_on_connect_has_one_on_close_when_many_end_at_once_in_all_ways() {
    on_every_shard_count(|shards| {
        let (running, seen) = serve(shards, Limits::default());
        let ends = ends();
        let mut clients: Vec<_> = (0..ends.len() * 12)
            .map(|_| Client::connect(running.local_addr(), "/web_socket"))
            .collect();
        let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
        let hub = running.hub();
        // In every second the hub closes at the same time as the end that is listed.
        for (at, client) in clients.into_iter().enumerate() {
            if at % 2 == 0 {
                hub.close(ids[at]).expect("room");
            }
            drop((ends[at / 12].act)(client, &hub, ids[at]));
        }
        eventually(|| hub.connection_counts() == vec![0; shards]);
        running.shutdown(PATIENCE).expect("the threads end");
        let mut calls: HashMap<ConnectionId, (u32, u32)> = HashMap::new();
        for event in seen {
            match event {
                Event::Connect(id) => calls.entry(id).or_default().0 += 1,
                Event::Close(id, _) => calls.entry(id).or_default().1 += 1,
            }
        }
        assert_eq!(calls, ids.into_iter().map(|id| (id, (1, 1))).collect());
    });
}
