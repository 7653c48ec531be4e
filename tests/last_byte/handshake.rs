//! The end of a connection on the wire: what the server has reported as delivered is not cut by a
//! reset that the server causes itself (RFC 6455 section 7.1.1).

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use peregrine::{Callbacks, Hub, Limits, Reply, RunningServer};

use crate::common::{eventually, start, within};
use crate::raw::{BINARY, CLOSE, FIN, PING, PONG, Raw, TEXT, close, frame, timed};

/// Sends as many bytes as the message says, and counts the messages.
fn sending(handled_count: Arc<AtomicUsize>) -> Callbacks<()> {
    Callbacks::new().on_connect(|ws| ws.id().to_string().into()).on_message(move |_ws, message| {
        handled_count.fetch_add(1, Ordering::SeqCst);
        let bytes = message.as_text().and_then(|text| text.parse().ok()).unwrap_or(0);
        vec![7; bytes].into()
    })
}

/// The server, and how many messages it has handled.
fn serve(adjust: impl FnOnce(&mut Limits)) -> (RunningServer, Arc<AtomicUsize>) {
    let mut limits = Limits::default();
    limits.max_outbox_bytes = 16 << 20;
    adjust(&mut limits);
    let handled_count = Arc::new(AtomicUsize::new(0));
    let handler = sending(Arc::clone(&handled_count));
    (start(1, |builder| builder.limits(limits).websocket("/", handler)), handled_count)
}

/// Waits until the server has handled so many messages more.
fn handled(count: &AtomicUsize, more: usize) {
    eventually(|| count.load(Ordering::SeqCst) >= more);
    count.fetch_sub(more, Ordering::SeqCst);
}

/// A client whose kernel holds little of what it has not read, and the id of its connection.
fn narrow(address: SocketAddr) -> (Raw, peregrine::ConnectionId) {
    let mut client = Raw::connect_narrow(address);
    client.upgrade("/");
    let id = client.text().parse().expect("an id");
    (client, id)
}

/// All data that the client can read, without the frames' headers, and the code of the Close frame.
/// The client answers nothing.
fn all_data(client: &mut Raw) -> (usize, Option<u16>) {
    let (mut bytes, mut code) = (0, None);
    while let Some(frame) = client.frame() {
        match frame.first {
            CLOSE => code = Some(frame.close().0),
            _ if frame.is_control() => {}
            _ => bytes += frame.payload.len(),
        }
    }
    (bytes, code)
}

fn is_gone(hub: &Hub) -> bool {
    hub.connection_counts().iter().sum::<usize>() == 0
}

/// What a client may still send when the server regards the closing handshake as done.
fn late_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("a pong", frame(PONG, b"late")),
        ("a crossing Close", close(1001, b"")),
        ("a message", frame(TEXT, b"trailing")),
        ("half a message", frame(BINARY, &[1; 4000])[..100].to_vec()),
        ("much", frame(BINARY, &vec![1; 400_000])),
        ("garbage", vec![0xFF; 5000]),
    ]
}

#[test]
fn what_was_sent_arrives_whatever_the_client_sends_behind_its_close() {
    within(Duration::from_secs(60), || {
        let (server, _) = serve(|_| {});
        for (what, late) in late_frames() {
            let (mut client, _) = narrow(server.local_addr());
            for _ in 0..2 {
                client.send(frame(TEXT, b"200000"));
            }
            client.send(close(1000, b""));
            // The server has handed everything over by now, or is about to; the client reads first
            // when it has sent the rest.
            client.try_send(late);
            assert_eq!(all_data(&mut client), (400_000, Some(1000)), "{what}");
            drop(client);
            eventually(|| is_gone(&server.hub()));
        }
        assert_eq!(server.hub().dropped_count(), 0);
    });
}

#[test]
fn what_was_sent_arrives_whatever_the_client_sends_when_the_server_closes() {
    within(Duration::from_secs(60), || {
        let (server, handled_count) = serve(|_| {});
        for (what, late) in late_frames() {
            // The client's answer comes behind other frames, before them, or crosses the server's.
            for answer in [[late.clone(), close(1000, b"")], [close(1000, b""), late]] {
                let (mut client, id) = narrow(server.local_addr());
                for _ in 0..2 {
                    client.send(frame(TEXT, b"200000"));
                }
                client.send(frame(PING, b""));
                handled(&handled_count, 2);
                server.hub().close_with(id, 4000, "").expect("it is open");
                client.try_send(answer.concat());
                let (bytes, code) = all_data(&mut client);
                assert_eq!(bytes, 400_000, "{what}");
                // Whichever Close was sent first.
                assert!(matches!(code, Some(4000 | 1000 | 1002)), "{what}: {code:?}");
                drop(client);
                eventually(|| is_gone(&server.hub()));
            }
        }
        assert_eq!(server.hub().dropped_count(), 0);
    });
}

#[test]
fn an_answer_larger_than_all_buffers_is_not_cut_by_what_the_client_still_sends() {
    within(Duration::from_secs(60), || {
        let (server, _) = serve(|_| {});
        let (mut client, _) = narrow(server.local_addr());
        client.send(frame(TEXT, b"6000000"));
        client.send(close(1000, b""));
        // Much behind the Close, while the client does not read and its outbox is full.
        client.send(frame(BINARY, &vec![1; 1_000_000]));
        assert_eq!(all_data(&mut client), (6_000_000, Some(1000)));
    });
}

#[test]
fn a_client_on_a_slow_uplink_sees_why_its_message_was_refused() {
    within(Duration::from_secs(60), || {
        let (server, _) = serve(|limits| {
            limits.max_message_bytes = 1000;
            limits.max_frame_bytes = 1000;
        });
        let (mut client, _) = narrow(server.local_addr());
        let message = frame(BINARY, &vec![1; 300_000]);
        // It takes 2 seconds to send all of it, and the client reads only then.
        let ((), time) = timed(|| {
            for piece in message.chunks(message.len() / 20) {
                client.send(piece);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(time > Duration::from_millis(1500), "the uplink is slow");
        assert_eq!(all_data(&mut client), (0, Some(1009)));
    });
}

#[test]
fn the_closing_time_does_not_cut_a_client_that_still_takes_what_waits_for_it() {
    within(Duration::from_secs(60), || {
        for by_server in [true, false] {
            let (server, handled_count) =
                serve(|limits| limits.close_timeout = Duration::from_millis(400));
            let (mut client, id) = narrow(server.local_addr());
            client.send(frame(TEXT, b"6000000"));
            handled(&handled_count, 1);
            if by_server {
                server.hub().close(id).expect("it is open");
            } else {
                client.send(close(1000, b""));
            }
            // The client takes three seconds for all of it: many times the closing time.
            let mut bytes = 0;
            let (code, time) = timed(|| {
                let mut buffer = vec![0; 200_000];
                let mut tail = Vec::new();
                loop {
                    use std::io::Read;
                    let mut read = 0;
                    while read < buffer.len() {
                        match client.socket.read(&mut buffer[read..]) {
                            Ok(0) => break,
                            Ok(count) => read += count,
                            Err(error) => panic!("cut after {bytes} bytes: {error}"),
                        }
                    }
                    bytes += read;
                    tail.extend_from_slice(&buffer[..read]);
                    let at = tail.len().saturating_sub(4);
                    tail.drain(..at);
                    if read < buffer.len() {
                        break u16::from_be_bytes([tail[2], tail[3]]);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            assert_eq!(code, 1000, "by the server: {by_server}");
            assert!(bytes > 6_000_000 && time > Duration::from_secs(2), "{bytes} {time:?}");
        }
    });
}

#[test]
fn a_client_that_takes_nothing_is_dropped_after_the_closing_time() {
    within(Duration::from_secs(60), || {
        let (server, handled_count) =
            serve(|limits| limits.close_timeout = Duration::from_millis(400));
        let (mut client, id) = narrow(server.local_addr());
        client.send(frame(TEXT, b"6000000"));
        handled(&handled_count, 1);
        server.hub().close(id).expect("it is open");
        let ((), time) = timed(|| eventually(|| is_gone(&server.hub())));
        assert!(time < Duration::from_secs(3), "{time:?}");
        assert_eq!(server.hub().dropped_count(), 1, "its answer was not delivered");
    });
}

#[test]
fn a_client_that_never_ends_its_side_is_dropped_after_the_closing_time() {
    within(Duration::from_secs(60), || {
        let (server, _) = serve(|limits| limits.close_timeout = Duration::from_millis(400));
        let (mut client, _) = narrow(server.local_addr());
        client.send(close(1000, b""));
        assert_eq!(client.frame().expect("a Close frame").close().0, 1000);
        client.ended();
        // It sends all the time, which is no progress.
        let ((), time) = timed(|| {
            eventually(|| {
                client.try_send(frame(PONG, b""));
                is_gone(&server.hub())
            });
        });
        assert!(time > Duration::from_millis(200) && time < Duration::from_secs(3), "{time:?}");
    });
}

#[test]
fn a_message_in_pieces_may_be_finished_when_the_client_has_closed_and_ended_its_side() {
    within(Duration::from_secs(60), || {
        let (streams, begun) = mpsc::channel();
        let streams = Mutex::new(streams);
        let handler = Callbacks::<()>::new().on_message(move |ws, _message| {
            let mut stream = ws.stream::<str>().expect("no other");
            stream.write("begun, ").expect("room");
            streams.lock().expect("a lock").send(stream).expect("the test listens");
            Reply::none()
        });
        let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
        let server = start(1, |builder| builder.websocket("/", handler).websocket("/echo", echo));
        let mut client = Raw::upgraded(server.local_addr(), "/");
        client.send([frame(TEXT, b"go"), close(1000, b"")].concat());
        client.half_close();
        let mut stream = begun.recv().expect("a stream");
        crate::raw::next_is_served(server.local_addr(), "/echo");
        stream.write("and finished").expect("the client reads");
        stream.finish().expect("the client reads");
        let frames = client.frames();
        let text: Vec<u8> = frames
            .iter()
            .filter(|frame| !frame.is_control())
            .flat_map(|frame| frame.payload.clone())
            .collect();
        assert_eq!(text, b"begun, and finished");
        assert!(frames.iter().any(|frame| frame.first & !FIN == TEXT & !FIN));
        assert_eq!(frames.last().expect("a Close frame").close().0, 1000);
    });
}

#[test]
fn a_connection_ends_in_order_not_by_reset_for_those_who_wait_for_it() {
    within(Duration::from_secs(60), || {
        let (server, _) = serve(|_| {});
        for by_server in [true, false] {
            let (mut client, id) = narrow(server.local_addr());
            if by_server {
                server.hub().close(id).expect("it is open");
                assert_eq!(client.frame().expect("a Close frame").close().0, 1000);
            }
            client.send(close(1000, b""));
            if !by_server {
                assert_eq!(client.frame().expect("a Close frame").close().0, 1000);
            }
            assert_eq!(client.end(), Ok(()));
            // The server's side has ended, and still it listens: nothing resets the connection.
            client.send(frame(PONG, b"late"));
            crate::common::connect(server.local_addr());
            assert_ne!(client.end(), Err(ErrorKind::ConnectionReset));
        }
    });
}

/// A client sends a message and a Close at once, and nothing after the server's Close.
fn assert_hears_the_close_behind_a_message(handler: Callbacks<()>, code: u16) {
    within(Duration::from_secs(30), move || {
        let mut limits = Limits::default();
        limits.close_timeout = Duration::from_secs(600);
        let server = start(1, |builder| builder.limits(limits).websocket("/", handler));
        let mut client = Raw::upgraded(server.local_addr(), "/");
        client.send([frame(BINARY, b"bang"), close(1000, b"")].concat());
        assert_eq!(client.frame().expect("a Close frame").close().0, code);
        // Had the client's Close not been heard, the server would wait for it.
        assert_eq!(client.end(), Ok(()));
    });
}

#[test]
fn the_close_behind_a_message_whose_handler_panics_is_heard() {
    let panics = Callbacks::<()>::new().on_message(|_ws, message| {
        assert_ne!(message.as_bytes(), b"bang", "bang");
        Reply::none()
    });
    assert_hears_the_close_behind_a_message(panics, 1011);
}

#[test]
fn the_close_behind_a_message_whose_handler_closes_is_heard() {
    let closes = Callbacks::<()>::new().on_message(|ws, _message| {
        ws.close();
        Reply::none()
    });
    assert_hears_the_close_behind_a_message(closes, 1000);
}
