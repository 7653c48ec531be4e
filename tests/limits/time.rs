//! Silence, and the deadlines of closing.

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Close, ClosedBy, Limits, RunningServer};

use super::{LIMIT, SHORT};
use crate::common::{PATIENCE, start, within};
use crate::raw::{
    BINARY, CLOSE, PING, PONG, Raw, TEXT, close, frame, header, timed, until, witnessed_echo,
};

/// The most that the server may be late.
const MARGIN: Duration = Duration::from_secs(2);

fn silence(ping_after: Duration, idle_timeout: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.ping_after = ping_after;
    limits.idle_timeout = idle_timeout;
    limits.close_timeout = SHORT;
    limits
}

fn serve(limits: Limits) -> (RunningServer, Receiver<Close>) {
    let (echo, closes) = witnessed_echo();
    (start(1, |builder| builder.limits(limits).websocket("/echo", echo)), closes)
}

#[test]
fn who_is_silent_is_pinged_and_who_answers_lives() {
    within(LIMIT, || {
        let (server, closes) = serve(silence(SHORT / 2, SHORT * 6));
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        // Longer than it takes to be given up.
        let ((), took) = timed(|| {
            for _ in 0..20 {
                let ping = raw.frame().expect("a ping");
                assert_eq!(ping.first, PING);
                raw.send(frame(PONG, &ping.payload));
            }
        });
        assert!(took > SHORT * 8, "20 pings in {took:?} are too many");
        raw.send(frame(TEXT, b"alive"));
        assert_eq!(raw.text(), "alive");
        assert!(closes.try_recv().is_err(), "nobody has left");
    });
}

#[test]
fn who_is_busy_is_not_pinged() {
    within(LIMIT, || {
        let (server, _closes) = serve(silence(SHORT * 4, SHORT * 10));
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        for _ in 0..20 {
            thread::park_timeout(SHORT / 4);
            raw.send(frame(TEXT, b"busy"));
            let answer = raw.frame().expect("an answer");
            assert_eq!(answer.first, TEXT, "a ping to who was heard a moment ago");
        }
    });
}

#[test]
fn who_answers_no_ping_is_closed_with_1001_and_then_dropped() {
    within(LIMIT, || {
        let (server, closes) = serve(silence(SHORT / 2, SHORT * 2));
        let hub = server.hub();
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        let (mut frames, took) = timed(|| raw.frames());
        let last = frames.pop().expect("a Close frame");
        assert_eq!(last.close().0, 1001);
        assert_eq!(frames.pop().map(|goodbye| goodbye.payload), Some(b"goodbye".to_vec()));
        assert!((1..=5).contains(&frames.len()), "{} pings", frames.len());
        assert!(frames.iter().all(|frame| frame.first == PING));
        assert!(took >= SHORT * 3, "given up after {took:?}, before the time and the deadline");
        assert!(took <= SHORT * 3 + MARGIN, "given up only after {took:?}");
        let told = closes.recv_timeout(PATIENCE).expect("on_close is called");
        assert_eq!((told.code(), told.by()), (1001.into(), ClosedBy::Server));
        until("it is gone", || hub.connection_counts() == [0]);
    });
}

#[test]
fn who_comes_back_just_in_time_is_kept() {
    within(LIMIT, || {
        let (server, closes) = serve(silence(SHORT / 2, SHORT * 7));
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        for _ in 0..3 {
            thread::park_timeout(SHORT * 3);
            // Any byte is a sign of life, also one within a frame.
            let message = frame(TEXT, b"here");
            raw.send(&message[..3]);
            thread::park_timeout(SHORT * 3);
            raw.send(&message[3..]);
            assert_eq!(raw.text(), "here");
        }
        assert!(closes.try_recv().is_err(), "nobody has left");
    });
}

/// What we send does not show that anybody is there.
#[test]
fn messages_to_a_dead_peer_do_not_keep_it_alive() {
    within(LIMIT, || {
        let ids = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into());
        let limits = silence(SHORT / 2, SHORT * 2);
        let server = start(1, |builder| builder.limits(limits).websocket("/", ids));
        let hub = server.hub();
        let mut sent_to = Raw::upgraded(server.local_addr(), "/");
        let id = sent_to.text().parse().expect("an id");
        let (_, took) = timed(|| {
            for _ in 0..100 {
                if hub.connection_counts() == [0] {
                    return;
                }
                hub.send_to(id, "are you there?").expect("a mailbox with room");
                hub.broadcast("/", "is anybody there?").expect("a mailbox with room");
                thread::park_timeout(SHORT / 4);
            }
        });
        assert!(took < SHORT * 3 + MARGIN, "a peer that was silent for {took:?} is still there");
    });
}

/// The pings wait behind a large message, and so do their answers.
#[test]
fn who_reads_slowly_is_not_dead() {
    const MESSAGE_BYTES: usize = 16 << 20;
    within(LIMIT, || {
        let large = Callbacks::<()>::new().on_connect(|_| vec![7; MESSAGE_BYTES].into());
        let limits = silence(SHORT, SHORT * 6);
        let server = start(1, |builder| builder.limits(limits).websocket("/", large));
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.upgrade("/");
        let parts = 64;
        for part in 0..parts {
            thread::park_timeout(SHORT / 5);
            let taken = raw.take(MESSAGE_BYTES / parts);
            assert!(taken.is_some(), "given up at part {part} of {parts}");
        }
    });
}

#[test]
fn who_does_not_answer_our_close_is_dropped_after_the_deadline() {
    within(LIMIT, || {
        let quitter = Callbacks::<()>::new().on_message(|ws, _| {
            ws.close_with(4000, "over");
            ().into()
        });
        let mut limits = Limits::default();
        limits.close_timeout = SHORT;
        let server = start(1, |builder| builder.limits(limits).websocket("/", quitter));
        let hub = server.hub();
        let silent = Vec::new();
        let half_a_frame = header(BINARY, 1000);
        for (name, bytes) in [("silent", silent), ("in the middle of a frame", half_a_frame)] {
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            raw.send([frame(TEXT, b"go"), bytes].concat());
            let last = raw.frame().expect("a Close frame");
            assert_eq!(last.close(), (4000, "over".to_owned()), "{name}");
            let ((), took) = timed(|| raw.ended());
            assert!(took >= SHORT * 3 / 4, "{name}: dropped after {took:?}");
            assert!(took <= SHORT + MARGIN, "{name}: dropped only after {took:?}");
            until("it is gone", || hub.connection_counts() == [0]);
        }
        // Who talks on and on gains no time by it.
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        raw.send(frame(TEXT, b"go"));
        let ((), took) = timed(|| {
            until("it is gone", || {
                raw.try_send(frame(TEXT, b"and another thing"));
                hub.connection_counts() == [0]
            });
        });
        assert!(took <= SHORT + MARGIN, "dropped only after {took:?}");
    });
}

#[test]
fn who_answers_our_close_is_released_at_once() {
    within(LIMIT, || {
        let quitter = Callbacks::<()>::new().on_connect(|ws| {
            ws.close();
            "hello and goodbye".into()
        });
        let mut limits = Limits::default();
        limits.close_timeout = PATIENCE;
        let server = start(1, |builder| builder.limits(limits).websocket("/", quitter));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        assert_eq!(raw.text(), "hello and goodbye");
        let (last, took) = timed(|| raw.closed());
        assert_eq!(last.0, 1000);
        assert!(took < MARGIN, "released only after {took:?}");
        // The same, when both close at once.
        let mut raw = Raw::connect(server.local_addr());
        raw.send([crate::raw::upgrade("/").into_bytes(), close(4001, b"")].concat());
        assert_eq!(raw.head().status, 101);
        let (frames, took) = timed(|| raw.frames());
        assert_eq!(frames.iter().filter(|frame| frame.first == CLOSE).count(), 1);
        assert!(took < MARGIN, "released only after {took:?}");
    });
}
