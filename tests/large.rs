//! Long messages, which are gathered as they arrive and leave from where they lie.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use std::time::Duration;

use common::within;
use peregrine::testing::{Received, TestServer};
use peregrine::{Callbacks, Message, Server};

const LIMIT: Duration = Duration::from_secs(60);

/// Says "first" to each message, then echoes it.
fn server(pipe_bytes: usize) -> TestServer {
    let echo = Callbacks::<()>::new().on_message(|ws, message| {
        ws.send("first").expect("room");
        message.into()
    });
    let mut server = TestServer::new(Server::builder().websocket("/", echo)).expect("a server");
    server.set_pipe_bytes(pipe_bytes);
    server
}

/// Of at least so many bytes, of characters of one to four.
fn long_text(bytes: usize) -> String {
    let text = "a long text; é, €, 🦅. ";
    text.repeat(bytes.div_ceil(text.len()))
}

#[test]
fn a_long_echo_arrives_whole_and_in_order_however_little_the_kernel_takes() {
    within(LIMIT, || {
        for pipe_bytes in [7, 8, 17, 18, 1000, 65_536, 100_000, 1 << 20] {
            let mut server = server(pipe_bytes);
            let client = server.connect("/").expect("the upgrade is granted");
            let text = long_text(70_000.max(pipe_bytes / 2));
            let binary: Vec<u8> = (0..=255).cycle().take(65_536).collect();
            server.send(client, &text);
            server.send(client, &binary);
            server.ping(client, "?");
            server.send(client, "short");
            let first = || Received::Text("first".to_owned());
            let mut received = server.receive_all(client);
            // A pong may overtake what waits.
            received.retain(|received| *received != Received::Pong(b"?".to_vec()));
            let expected = [
                first(),
                Received::Text(text),
                first(),
                Received::Binary(binary),
                first(),
                Received::Text("short".to_owned()),
            ];
            assert!(received == expected, "another answer through {pipe_bytes} bytes");
        }
    });
}

#[test]
fn a_long_echo_that_is_not_read_waits_with_what_comes_after_it() {
    within(LIMIT, || {
        let mut server = server(100_000);
        let client = server.connect("/").expect("the upgrade is granted");
        let text = long_text(900_000);
        server.stop_reading(client);
        server.send(client, &text);
        server.ping(client, "?");
        server.send(client, "short");
        server.read_some(client, 9);
        server.read_some(client, 500_000);
        server.start_reading(client);
        let received = server.receive_all(client);
        let texts = received.iter().filter_map(|received| match received {
            Received::Text(text) => Some(text.as_str()),
            _ => None,
        });
        assert!(texts.eq(["first", &text, "first", "short"]));
        assert!(received.contains(&Received::Pong(b"?".to_vec())));
    });
}

#[test]
fn a_part_of_a_long_message_may_be_the_answer() {
    within(LIMIT, || {
        let half = Callbacks::<()>::new().on_message(|_ws, message| match message {
            Message::Text(text) => text[text.len() / 2..].into(),
            Message::Binary(bytes) => bytes[..bytes.len() / 2].into(),
        });
        let builder = Server::builder().websocket("/", half);
        let mut server = TestServer::new(builder).expect("a server");
        server.set_pipe_bytes(5000);
        let client = server.connect("/").expect("the upgrade is granted");
        let bytes: Vec<u8> = (0..=250).cycle().take(300_000).collect();
        server.send(client, &bytes);
        assert!(server.receive(client) == Some(Received::Binary(bytes[..150_000].to_vec())));
        let text = "0123456789".repeat(20_000);
        server.send(client, &text);
        assert!(server.receive(client) == Some(Received::Text(text[100_000..].to_owned())));
    });
}
