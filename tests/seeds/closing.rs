//! S11: `ws.close()`; S12: the return value after it.

use std::io::Read;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use peregrine::{Close, Handler, Limits, Message, Reply, SendError, WebSocket};

use super::common::{Client, PATIENCE, start};
use super::{GOODBYE, enough_for, eventually, id_of, on_every_shard_count};

/// Leaves in the middle of a call, and tells what every later send comes to.
struct Leaver {
    results: Sender<Vec<Result<(), SendError>>>,
}

impl Handler for Leaver {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let (own, text) = (ws.id(), message.as_text().unwrap_or_default());
        match text.parse() {
            Ok(other) => {
                self.results.send(vec![ws.send_to(other, "late")]).expect("the test listens");
                Reply::none()
            }
            Err(_) if text == "disconnect" => {
                // The broadcast comes last: it is on its way when the connection leaves.
                let before = [ws.send("one"), ws.send_to(own, "two"), ws.broadcast("three")];
                ws.close();
                let after = [ws.send("x"), ws.send_to(own, "x"), ws.broadcast("to the others")];
                self.results.send([before, after].concat()).expect("the test listens");
                "Closing connection".into()
            }
            Err(_) => message.into(),
        }
    }

    fn on_close(&self, ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
        ws.broadcast("somebody left").expect("room");
        GOODBYE.into()
    }
}

#[test]
fn s11_close_delivers_what_was_queued_before_and_nothing_that_comes_after() {
    on_every_shard_count(|shards| {
        let (results, told) = channel();
        let running = start(shards, |app| app.websocket("/web_socket", Leaver { results }));
        let connect = || Client::connect(running.local_addr(), "/web_socket");
        let mut others: Vec<_> = (0..enough_for(shards)).map(|_| connect()).collect();
        others.iter_mut().map(id_of).for_each(|id| assert!(id.shard() < shards));
        let mut leaver = connect();
        id_of(&mut leaver);
        leaver.send("disconnect");
        for expected in ["one", "two", "three", "Closing connection", GOODBYE] {
            assert_eq!(leaver.text(), expected);
        }
        assert_eq!(leaver.close_code(), 1000, "then Close, the handshake, the end of TCP");
        let closed = Err(SendError::Closed);
        let told = told.recv_timeout(PATIENCE).expect("the handler ran");
        assert_eq!(told, [Ok(()), Ok(()), Ok(()), closed, closed, Ok(())]);
        for other in &mut others {
            for expected in ["three", "to the others", "somebody left"] {
                assert_eq!(other.text(), expected);
            }
        }
    });
}

#[test]
fn s11_after_close_nothing_reaches_the_connection_while_it_waits_for_the_peers_close() {
    on_every_shard_count(|shards| {
        let mut limits = Limits::default();
        limits.close_timeout = Duration::from_millis(500);
        let (results, told) = channel();
        let running =
            start(shards, |app| app.limits(limits).websocket("/web_socket", Leaver { results }));
        let connect = || Client::connect(running.local_addr(), "/web_socket");
        let mut others: Vec<_> = (0..enough_for(shards)).map(|_| connect()).collect();
        let other_ids: Vec<_> = others.iter_mut().map(id_of).collect();
        let mut leaver = connect();
        let id = id_of(&mut leaver);
        leaver.send("disconnect");
        told.recv_timeout(PATIENCE).expect("the handler ran");
        let dropped_count = running.hub().dropped_count();
        let mut accepted_count = 0;
        for (other, other_id) in others.iter_mut().zip(&other_ids) {
            other.send(id.to_string());
            match told.recv_timeout(PATIENCE).expect("the handler ran")[0] {
                // Another shard can only learn later that nobody is there.
                Ok(()) if other_id.shard() != id.shard() => accepted_count += 1,
                result => assert_eq!(result, Err(SendError::Gone)),
            }
        }
        running.hub().broadcast("/web_socket", "late").expect("room");
        running.hub().send_to(id, "late").expect("room");
        accepted_count += 1;
        eventually(|| running.hub().dropped_count() == dropped_count + accepted_count);
        for other in &mut others {
            for expected in ["three", "to the others", "somebody left", "late"] {
                assert_eq!(other.text(), expected);
            }
        }
        // The client answers no Close frame: the server drops it at the deadline.
        let mut bytes = Vec::new();
        leaver.0.get_mut().read_to_end(&mut bytes).expect("the end of the stream");
        let mut expected = Vec::new();
        for text in ["one", "two", "three", "Closing connection", GOODBYE] {
            expected.extend([0x81, text.len().try_into().expect("a short text")]);
            expected.extend(text.as_bytes());
        }
        expected.extend([0x88, 2, 0x03, 0xE8]);
        assert_eq!(bytes, expected);
    });
}

#[test]
fn s11_the_codes_and_reasons_of_close_with_reach_the_client() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| {
            let closing = peregrine::Callbacks::<()>::new().on_message(|ws, message| {
                let text = message.as_text().unwrap_or_default();
                let (code, reason) = text.split_once(' ').expect("a code and a reason");
                ws.close_with(code.parse::<u16>().expect("a code"), reason);
                Reply::none()
            });
            app.websocket("/web_socket", closing)
        });
        let long = "é".repeat(100);
        let cut = "é".repeat(61);
        for (code, reason, sent_code, sent_reason) in [
            (1000, "", 1000, ""),
            (1001, "moving", 1001, "moving"),
            (4999, "Schluß", 4999, "Schluß"),
            (3000, &*long, 3000, &*cut),
            // These must not stand in a Close frame (RFC 6455 section 7.4.1).
            (1006, "no", 1000, "no"),
            (17, "no", 1000, "no"),
        ] {
            let mut client = Client::connect(running.local_addr(), "/web_socket");
            client.send(format!("{code} {reason}"));
            let frame = client.closed().expect("a code");
            assert_eq!((u16::from(frame.code), frame.reason.as_str()), (sent_code, sent_reason));
        }
    });
}

#[test]
fn s12_the_client_gets_closing_connection_then_close_1000() {
    struct Closing;
    impl Handler for Closing {
        type Session = ();
        fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
            if message.as_text() == Some("disconnect") {
                ws.close();
                return "Closing connection".into();
            }
            "Message received".into()
        }
    }
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", Closing));
        for _ in 0..enough_for(shards) {
            let mut client = Client::connect(running.local_addr(), "/web_socket");
            client.send("hello");
            assert_eq!(client.text(), "Message received");
            client.send("disconnect");
            client.send("this comes too late");
            assert_eq!(client.text(), "Closing connection");
            assert_eq!(client.close_code(), 1000);
        }
    });
}
