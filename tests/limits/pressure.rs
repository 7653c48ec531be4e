//! Backpressure: told truthfully, and released.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Limits, OverflowPolicy, WebSocket};

use super::{LIMIT, SHORT};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{
    BINARY, Bystander, Frame, PING, PONG, Raw, TEXT, close, frame, next_is_served, upgrade,
};

const CHUNK_BYTES: usize = 4 << 10;
const CHUNK_COUNT: u32 = 5000;

fn number_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.first_chunk().expect("a number"))
}

/// Sends until it should not, as a considerate handler does.
fn pump(ws: &mut WebSocket<'_, u32>) {
    while *ws.session() < CHUNK_COUNT && !ws.has_backpressure() {
        let mut chunk = [0; CHUNK_BYTES];
        chunk[..4].copy_from_slice(&ws.session().to_be_bytes());
        ws.send(chunk).expect("there is no backpressure");
        *ws.session_mut() += 1;
    }
}

#[test]
fn who_stops_at_backpressure_and_goes_on_at_on_drain_delivers_everything() {
    for shard_count in SHARD_COUNTS {
        for is_slow in [false, true] {
            within(LIMIT, move || {
                let source = Callbacks::<u32>::new()
                    .on_connect(|ws| {
                        pump(ws);
                        ().into()
                    })
                    .on_drain(pump);
                let server = start(shard_count, |builder| builder.websocket("/", source));
                let mut raw = Raw::connect_narrow(server.local_addr());
                if !is_slow {
                    raw = Raw::connect(server.local_addr());
                }
                raw.upgrade("/");
                for number in 0..CHUNK_COUNT {
                    if is_slow && number % 100 == 0 {
                        thread::park_timeout(Duration::from_millis(2));
                    }
                    let chunk = raw.frame().expect("a chunk");
                    assert_eq!(number_of(&chunk.payload), number, "slow: {is_slow}");
                }
            });
        }
    }
}

#[test]
fn on_drain_is_called_once_when_the_outbox_is_low_and_only_after_pressure() {
    within(LIMIT, || {
        let drains = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&drains);
        let limits = Limits::default();
        let low = limits.outbox_low_water_bytes;
        let server = start(1, |builder| {
            let source = Callbacks::<()>::new()
                .on_message(|_, message| match message.as_text() {
                    Some("a lot") => vec![7; 16 << 20].into(),
                    _ => message.into(),
                })
                .on_drain(move |ws| {
                    assert!(ws.buffered_bytes() <= low && !ws.has_backpressure());
                    counted.fetch_add(1, Ordering::Relaxed);
                });
            builder.limits(limits).websocket("/", source)
        });
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.upgrade("/");
        for round in 1..=5 {
            for _ in 0..100 {
                raw.send(frame(TEXT, b"a little"));
                assert_eq!(raw.text(), "a little");
            }
            assert_eq!(drains.load(Ordering::Relaxed), round - 1, "no pressure, no drain");
            // The second message waits until the first is delivered: who does not take answers
            // may not ask.
            raw.send([frame(TEXT, b"a lot"), frame(TEXT, b"after")].concat());
            let large = raw.frame().expect("a lot");
            assert_eq!(large.payload.len(), 16 << 20);
            assert_eq!(raw.text(), "after");
            assert_eq!(drains.load(Ordering::Relaxed), round);
        }
    });
}

#[test]
fn what_waits_is_told_to_the_byte() {
    within(LIMIT, || {
        let limits = Limits::default();
        let high = limits.outbox_high_water_bytes;
        let observer = Callbacks::<()>::new().on_message(move |ws, _| {
            let mut expected = 0;
            assert_eq!(ws.buffered_bytes(), 0);
            for length in [0, 1, 125, 126, 1000, 65_535, 65_536, 100_000] {
                ws.send(vec![1; length]).expect("room");
                expected += length
                    + match length {
                        0..=125 => 2,
                        126..=65_535 => 4,
                        _ => 10,
                    };
                assert_eq!(ws.buffered_bytes(), expected);
                assert_eq!(ws.has_backpressure(), expected > high);
            }
            "all right".into()
        });
        let server = start(1, |builder| builder.limits(limits).websocket("/", observer));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        for _ in 0..3 {
            raw.send(frame(TEXT, b"go"));
            for length in [0, 1, 125, 126, 1000, 65_535, 65_536, 100_000] {
                assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(length));
            }
            assert_eq!(raw.text(), "all right");
        }
    });
}

#[test]
fn a_large_message_is_accepted_into_an_empty_outbox() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_outbox_bytes = 1000;
        limits.outbox_high_water_bytes = 500;
        limits.outbox_low_water_bytes = 0;
        let server = super::echo(limits);
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.upgrade("/echo");
        for _ in 0..10 {
            raw.send(frame(BINARY, &[3; 1 << 20]));
            assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(1 << 20));
        }
    });
}

/// A client that asks ahead and reads all the time is not a slow consumer.
#[test]
fn who_reads_what_it_asked_for_is_not_taken_for_a_slow_consumer() {
    const COUNT: usize = 48;
    within(LIMIT, || {
        for message_bytes in [1 << 20, (1 << 20) - 100_000, 600_000, 300_000] {
            let server = super::echo(Limits::default());
            let mut raw = Raw::connect_narrow(server.local_addr());
            raw.upgrade("/echo");
            let mut writer = raw.socket.try_clone().expect("a descriptor");
            let sending = thread::spawn(move || {
                let message = frame(BINARY, &vec![3; message_bytes]);
                for _ in 0..COUNT {
                    std::io::Write::write_all(&mut writer, &message).expect("the server reads");
                }
            });
            for number in 0..COUNT {
                let echo = raw.frame().expect("an echo");
                assert_eq!(
                    echo.first,
                    BINARY,
                    "{message_bytes} bytes, {number}: {:?}",
                    echo.close()
                );
                assert_eq!(echo.payload.len(), message_bytes);
            }
            sending.join().expect("the sender");
        }
    });
}

/// Small and large answers mixed, as they come.
#[test]
fn a_large_answer_after_small_ones_is_not_an_overflow() {
    within(LIMIT, || {
        let mixed = Callbacks::<()>::new().on_message(|_, message| match message.as_text() {
            Some("large") => vec![7; 1 << 20].into(),
            _ => message.into(),
        });
        let server = start(1, |builder| builder.websocket("/", mixed));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        let small = frame(BINARY, &[1; 1000]).repeat(50);
        let bytes = [small, frame(TEXT, b"large"), frame(TEXT, b"after")].concat();
        for _ in 0..10 {
            raw.send(&bytes);
            for _ in 0..50 {
                assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(1000));
            }
            let large = raw.frame().expect("the large answer");
            assert_eq!(large.first, BINARY, "not a Close frame");
            assert_eq!(large.payload.len(), 1 << 20);
            assert_eq!(raw.text(), "after");
        }
    });
}

/// While a client does not read, the handler is not called for what it sends.
#[test]
fn who_does_not_take_answers_may_not_ask() {
    within(LIMIT, || {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source = Callbacks::<()>::new().on_message(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            vec![7; 1 << 20].into()
        });
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let server = start(1, |builder| builder.websocket("/", source).websocket("/echo", echo));
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let mut raw = Raw::connect_narrow(server.local_addr());
        // All in one packet, which the server reads at once.
        raw.send([upgrade("/").into_bytes(), frame(TEXT, b"more").repeat(100)].concat());
        bystander.is_served();
        let called = calls.load(Ordering::Relaxed);
        assert!(called < 50, "{called} MiB were made for a client that reads nothing");
        assert_eq!(raw.head().status, 101);
        for _ in 0..100 {
            assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(1 << 20));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 100);
    });
}

#[test]
fn a_control_frame_goes_before_waiting_messages_and_never_into_one() {
    const MESSAGE_BYTES: usize = 12 << 20;
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_outbox_bytes = 64 << 20;
        // The server goes on reading, and has a ping of its own to send.
        limits.outbox_high_water_bytes = 64 << 20;
        limits.ping_after = SHORT;
        let source = Callbacks::<()>::new()
            .on_connect(|ws| {
                ws.send(vec![1; MESSAGE_BYTES]).expect("room");
                ws.send(vec![2; MESSAGE_BYTES]).expect("room");
                "last".into()
            })
            .on_message(|_, message| message.into());
        let server = start(1, |builder| builder.limits(limits).websocket("/", source));
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.upgrade("/");
        raw.send([frame(PING, b"first"), frame(PING, b"second"), frame(TEXT, b"hi")].concat());
        thread::park_timeout(SHORT * 3);
        let mut frames = Vec::new();
        while frames.last().is_none_or(|last: &Frame| last.payload != b"hi") {
            frames.push(raw.frame().expect("a frame"));
        }
        let pings: Vec<_> = frames.extract_if(.., |frame| frame.first == PING).collect();
        assert!(!pings.is_empty(), "the server was silent for long enough to ping");
        let [one, first, second, two, last, hi] = frames.as_slice() else {
            panic!("{} frames", frames.len());
        };
        assert!(one.payload == vec![1; MESSAGE_BYTES] && two.payload == vec![2; MESSAGE_BYTES]);
        assert_eq!((first.first, first.payload.as_slice()), (PONG, &b"first"[..]));
        assert_eq!((second.first, second.payload.as_slice()), (PONG, &b"second"[..]));
        assert_eq!((last.payload.as_slice(), hi.payload.as_slice()), (&b"last"[..], &b"hi"[..]));
    });
}

/// Everything that a handler may do in `on_drain`, at once.
#[test]
fn on_drain_may_broadcast_send_and_abort() {
    within(LIMIT, || {
        for overflow in [OverflowPolicy::Close, OverflowPolicy::DropOldest] {
            let mut limits = Limits::default();
            limits.overflow = overflow;
            // The handler aborts: what is still queued then would not arrive.
            limits.outbox_low_water_bytes = 0;
            let source = Callbacks::<()>::new()
                .on_connect(|_| vec![7; 16 << 20].into())
                .on_message(|_, message| message.into())
                .on_drain(|ws| {
                    ws.broadcast(vec![1; 20_000]).expect("room");
                    ws.send("after the broadcast").expect("room");
                    ws.broadcast("small").expect("room");
                    ws.abort();
                });
            let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
            let server = start(1, |builder| {
                builder.limits(limits).websocket("/", source).websocket("/echo", echo)
            });
            for _ in 0..20 {
                let mut raw = Raw::connect_narrow(server.local_addr());
                raw.upgrade("/");
                assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(16 << 20));
                raw.frames();
                next_is_served(server.local_addr(), "/echo");
            }
        }
    });
}

/// The same for closing: what was sent before is delivered.
#[test]
fn on_drain_may_send_and_close() {
    within(LIMIT, || {
        let source = Callbacks::<()>::new()
            .on_connect(|_| vec![7; 16 << 20].into())
            .on_drain(|ws| {
                ws.broadcast(vec![1; 20_000]).expect("room");
                ws.send("after the broadcast").expect("room");
                ws.close_with(4000, "drained");
            })
            .on_close(|_, _| "goodbye".into());
        let server = start(1, |builder| builder.websocket("/", source));
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.upgrade("/");
        assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(16 << 20));
        assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(20_000));
        assert_eq!([raw.text(), raw.text()], ["after the broadcast", "goodbye"]);
        let last = raw.frame().expect("a Close frame");
        assert_eq!(last.close(), (4000, "drained".to_owned()));
        raw.send(close(4000, b""));
        raw.ended();
    });
}
