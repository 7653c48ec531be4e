//! Messages that the server sends in pieces.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Client, SHARD_COUNTS, eventually, start, within};
use peregrine::{Callbacks, Close, Limits, MessageWriter, Reply, RunningServer, SendError};
use tungstenite::Message;

fn each(test: impl Fn(usize) + Send + 'static) {
    within(Duration::from_secs(60), move || SHARD_COUNTS.into_iter().for_each(test));
}

/// A handler that begins a message for whoever says "begin" and gives it to the test; anything else
/// is echoed.
fn handler() -> (Callbacks<()>, mpsc::Receiver<MessageWriter<str>>) {
    let (sender, streams) = mpsc::channel();
    let sender = Mutex::new(sender);
    let handler = Callbacks::new()
        .on_message(move |ws, message| {
            if message.as_text() != Some("begin") {
                return message.into();
            }
            ws.send("before").expect("room");
            match ws.stream::<str>() {
                Ok(stream) => {
                    sender.lock().expect("a lock").send(stream).expect("the test listens");
                    "after".into()
                }
                Err(error) => error.to_string().into(),
            }
        })
        .on_close(|_ws, close: &Close| format!("closed with {}", close.code()).into());
    (handler, streams)
}

/// A client to which a message has begun that the test will send.
fn begin(
    server: &RunningServer,
    streams: &mpsc::Receiver<MessageWriter<str>>,
) -> (Client, MessageWriter<str>) {
    let mut client = Client::connect(server.local_addr(), "/");
    client.send("begin");
    let stream = streams.recv().expect("a stream");
    assert_eq!(client.text(), "before");
    (client, stream)
}

#[test]
fn a_message_in_pieces_arrives_whole_and_others_wait_for_its_end() {
    each(|shard_count| {
        let (handler, streams) = handler();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let (mut client, mut stream) = begin(&server, &streams);
        for piece in ["one, ", "", "two, ", "drei€"] {
            assert_eq!(stream.write(piece), Ok(()));
        }
        client.send("echo");
        server.hub().broadcast("/", "to all").expect("room");
        server.hub().send_to(stream.id(), "to one").expect("room");
        client.0.send(Message::Ping("p".into())).expect("the server reads");
        assert_eq!(client.0.read().expect("a pong"), Message::Pong("p".into()));
        assert_eq!(stream.finish(), Ok(()));
        assert_eq!(stream.write("more"), Err(SendError::Closed));
        assert_eq!(client.text(), "one, two, drei€");
        assert_eq!(client.text(), "after");
        let mut rest = [client.text(), client.text(), client.text()];
        rest.sort();
        assert_eq!(rest, ["echo", "to all", "to one"]);
    });
}

#[test]
fn pieces_keep_to_what_the_client_takes() {
    each(|shard_count| {
        let (handler, streams) = handler();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("begin");
        let mut stream = streams.recv().expect("a stream");
        let piece = "x".repeat(40 << 10);
        let mut sent = 0;
        // The client reads nothing: the kernel's buffers fill, then the credit is used up.
        let writer = thread::spawn(move || {
            let mut refused_count = 0;
            while sent < 400 {
                match stream.write(&piece) {
                    Ok(()) => sent += 1,
                    Err(SendError::Overloaded) => {
                        refused_count += 1;
                        assert!(stream.buffered_bytes() <= 80 << 10);
                        thread::yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            while stream.finish().is_err() {}
            refused_count
        });
        assert_eq!(client.text(), "before");
        assert_eq!(client.text().len(), 400 * (40 << 10));
        assert_eq!(client.text(), "after");
        assert!(writer.join().expect("a thread") > 0);
    });
}

/// What the pieces are made of.
fn byte(at: usize) -> u8 {
    u8::try_from(at % 251).expect("a byte")
}

#[test]
fn offloaded_work_streams_at_the_clients_pace_without_a_runtime() {
    each(|shard_count| {
        let handler = Callbacks::<()>::new().on_message(|ws, _| {
            let mut stream = ws.stream::<[u8]>().expect("no other one");
            Reply::offload(move || {
                for at in 0..200 {
                    stream.write_async(&vec![byte(at); 64 << 10]).wait().expect("the client reads");
                }
                assert_eq!(stream.finish_async().wait(), Ok(()));
                "all was taken"
            })
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("go");
        let bytes = client.bytes();
        assert!(bytes.chunks(64 << 10).enumerate().all(|(at, piece)| piece[0] == byte(at)));
        assert_eq!((bytes.len(), client.text().as_str()), (200 * (64 << 10), "all was taken"));
    });
}

#[test]
fn a_handler_streams_from_a_future_at_the_clients_pace() {
    each(|shard_count| {
        let handler = Callbacks::<()>::new().on_message(|ws, message| {
            let count: usize = message.as_text().and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut stream = ws.stream::<[u8]>().expect("no other one");
            Reply::later(async move {
                for at in 0..count {
                    let piece = vec![byte(at); 64 << 10];
                    stream.write_async(&piece).await.expect("the client reads");
                }
                stream.finish_async().await.expect("the client reads");
                "done"
            })
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        for count in [0, 1, 200] {
            client.send(count.to_string());
            let bytes = client.bytes();
            assert_eq!(bytes.len(), count * (64 << 10));
            assert!(bytes.iter().enumerate().all(|(at, &found)| found == byte(at >> 16)));
            assert_eq!(client.text(), "done");
        }
    });
}

#[test]
fn a_message_that_is_abandoned_closes_its_connection() {
    each(|shard_count| {
        let (handler, streams) = handler();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let (mut client, mut stream) = begin(&server, &streams);
        stream.write("half a ").expect("room");
        drop(stream);
        let closed = loop {
            match client.0.read().expect("a Close") {
                Message::Close(frame) => break frame.expect("a code"),
                // Only if nothing of the message had left: the client's library checks that.
                Message::Text(text) => {
                    assert!(["after", "closed with 1011"].contains(&text.as_str()), "{text}");
                }
                other => panic!("a Close was expected, not {other:?}"),
            }
        };
        assert_eq!(u16::from(closed.code), 1011);
    });
}

#[test]
fn a_closing_connection_waits_for_the_messages_end_but_not_for_ever() {
    each(|shard_count| {
        let (handler, streams) = handler();
        let server = start(shard_count, |builder| {
            let mut limits = Limits::default();
            limits.close_timeout = Duration::from_millis(300);
            builder.limits(limits).websocket("/", handler)
        });
        let hub = server.hub();
        for is_finished in [true, false] {
            let (mut client, mut stream) = begin(&server, &streams);
            stream.write("a whole ").expect("room");
            hub.close(stream.id()).expect("room");
            if is_finished {
                stream.write("message").expect("room");
                stream.finish().expect("room");
                assert_eq!(client.text(), "a whole message");
                assert_eq!(client.text(), "after");
                assert_eq!(client.text(), "closed with 1000");
                assert_eq!(client.close_code(), 1000);
            } else {
                eventually(|| stream.write("more") == Err(SendError::Gone));
                let frame = loop {
                    if let Message::Close(frame) = client.0.read().expect("a Close") {
                        break frame.expect("a code");
                    }
                };
                assert_eq!(u16::from(frame.code), 1000);
                assert!(hub.dropped_count() > 0, "what waited is counted");
            }
        }
    });
}

#[test]
fn only_one_message_at_a_time_is_sent_in_pieces_and_a_lost_client_is_told() {
    each(|shard_count| {
        let (handler, streams) = handler();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("begin");
        client.send("begin");
        client.0.send(Message::Ping("p".into())).expect("the server reads");
        assert_eq!(client.text(), "before");
        assert_eq!(client.0.read().expect("a pong"), Message::Pong("p".into()));
        let mut stream = streams.recv().expect("a stream");
        stream.finish().expect("room");
        assert_eq!(client.text(), "");
        assert_eq!(client.text(), "after");
        assert_eq!(client.text(), "before");
        assert_eq!(client.text(), SendError::Overloaded.to_string());

        let mut client = Client::connect(server.local_addr(), "/");
        client.send("begin");
        let mut stream = streams.recv().expect("a stream");
        drop(client);
        eventually(|| stream.write("lost") == Err(SendError::Gone));
    });
}
