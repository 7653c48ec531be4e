//! Handlers that panic, and destructors that do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use peregrine::{Callbacks, Close, Limits, Reply, RunningServer, WebSocket};

use super::{LIMIT, next, nothing_more};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{BINARY, Bystander, Raw, TEXT, close, frame, next_is_served, until};

/// Panics when a shard drops it, unless that would abort the process.
struct Sour {
    /// What it panics with is as sour.
    is_vicious: bool,
}

impl Drop for Sour {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let is_shard = thread.name().is_some_and(|name| name.starts_with("peregrine"));
        match is_shard && !std::thread::panicking() {
            true if self.is_vicious => std::panic::panic_any(Self { is_vicious: true }),
            true => panic!("on purpose"),
            false => {}
        }
    }
}

impl AsRef<[u8]> for Sour {
    fn as_ref(&self) -> &[u8] {
        b"a reply that panics when it is dropped"
    }
}

type Session = Option<Sour>;

/// Does what the query's `do` says, in the call that it names.
fn act(ws: &WebSocket<'_, Session>, call: &str) {
    match ws.query("do") {
        Some(word) if word == call => panic!("on purpose"),
        Some(word) if word.strip_prefix("vicious-") == Some(call) => {
            std::panic::panic_any(Sour { is_vicious: true })
        }
        _ => {}
    }
}

/// An echo that panics on demand, told of its ends.
fn serve(shard_count: usize) -> (RunningServer, Receiver<Close>) {
    let (told, closes) = mpsc::channel();
    let handler = Callbacks::<Session>::new()
        .on_connect(|ws| {
            act(ws, "connect");
            let is_vicious = ws.query("do") == Some("vicious-drop");
            if is_vicious || ws.query("do") == Some("drop") {
                *ws.session_mut() = Some(Sour { is_vicious });
            }
            Reply::none()
        })
        .on_message(|ws, message| {
            act(ws, "message");
            match ws.query("do") {
                Some("reply") => Bytes::from_owner(Sour { is_vicious: false }).into(),
                Some("close" | "vicious-close") => {
                    ws.close();
                    message.into()
                }
                Some("drain" | "vicious-drain") => {
                    ws.send(vec![1; 16 << 20]).expect("an empty outbox takes all");
                    Reply::none()
                }
                _ => message.into(),
            }
        })
        .on_drain(|ws| act(ws, "drain"))
        .on_close(move |ws, close| {
            let _ = told.send(close.clone());
            act(ws, "close");
            Reply::none()
        });
    let mut limits = Limits::default();
    limits.max_outbox_bytes = 32 << 20;
    let running = start(shard_count, |builder| builder.limits(limits).websocket("/echo", handler));
    (running, closes)
}

fn demand(server: &RunningServer, what: &str) -> Raw {
    Raw::upgraded(server.local_addr(), &format!("/echo?do={what}"))
}

fn panics_end_only_their_own(shard_count: usize, calls: &[&str]) {
    let (server, closes) = serve(shard_count);
    let mut bystanders: Vec<_> =
        (0..8).map(|_| Bystander::connect(server.local_addr(), "/echo")).collect();
    for what in calls {
        let mut raw = demand(&server, what);
        raw.send(frame(TEXT, b"go"));
        if what.ends_with("drain") {
            assert_eq!(raw.frame().expect("a message").payload.len(), 16 << 20);
        }
        assert_eq!(raw.closed().0, 1011, "panic in {what}");
        assert_eq!(next(&closes).code(), 1011, "panic in {what}");
        bystanders.iter_mut().for_each(Bystander::is_served);
        next_is_served(server.local_addr(), "/echo");
        next(&closes);
    }
    let count = bystanders.len();
    drop(bystanders);
    (0..count).for_each(|_| drop(next(&closes)));
    nothing_more(server, &closes);
}

#[test]
fn a_panic_ends_its_own_connection_with_1011_and_no_other() {
    for shard_count in SHARD_COUNTS {
        within(LIMIT, move || {
            panics_end_only_their_own(shard_count, &["connect", "message", "drain"]);
        });
    }
}

#[test]
fn a_panic_that_panics_when_it_is_dropped_is_only_a_panic() {
    within(LIMIT, || {
        panics_end_only_their_own(1, &["vicious-connect", "vicious-message", "vicious-drain"]);
    });
}

/// For each end, `on_close` panics: the server closes, the peer does, the peer vanishes.
fn on_close_panics(what: &str) {
    let (server, closes) = serve(1);
    let mut raw = demand(&server, what);
    raw.send(frame(TEXT, b"go"));
    assert_eq!(raw.text(), "go");
    assert_eq!(raw.closed().0, 1011, "{what}");
    let mut raw = demand(&server, what);
    raw.send(close(4000, b""));
    assert!(matches!(raw.closed().0, 4000 | 1011), "{what}");
    drop(demand(&server, what));
    for _ in 0..3 {
        next(&closes);
    }
    next_is_served(server.local_addr(), "/echo");
    next(&closes);
    nothing_more(server, &closes);
}

#[test]
fn a_panic_in_on_close_is_told_if_it_still_can_be() {
    within(LIMIT, || on_close_panics("close"));
}

#[test]
fn a_panic_in_on_close_that_panics_when_it_is_dropped_is_only_a_panic() {
    within(LIMIT, || on_close_panics("vicious-close"));
}

#[test]
fn a_panic_in_on_close_at_the_shutdown_does_not_stop_it() {
    for what in ["close", "vicious-close"] {
        within(LIMIT, move || {
            let (server, closes) = serve(2);
            let clients: Vec<_> = (0..40).map(|_| demand(&server, what)).collect();
            let closing = std::thread::spawn(move || {
                for mut raw in clients {
                    while let Some(frame) = raw.frame() {
                        assert_eq!(frame.close().0, 1011, "{what}");
                        raw.send(close(1011, b""));
                    }
                }
            });
            let report = server.shutdown(LIMIT).expect("no shard panicked");
            assert_eq!((report.open_count, report.aborted_count), (40, 0));
            closing.join().expect("all are closed");
            assert_eq!(closes.iter().count(), 40);
        });
    }
}

/// A connection goes whose session's destructor panics.
fn destructor_panics(what: &str) {
    let (server, closes) = serve(1);
    let hub = server.hub();
    for is_orderly in [true, false] {
        let mut raw = demand(&server, what);
        raw.send(frame(TEXT, b"hi"));
        assert_eq!(raw.text(), "hi");
        if is_orderly {
            raw.send(close(1000, b""));
            assert_eq!(raw.closed().0, 1000);
        } else {
            raw.reset();
        }
        next(&closes);
        until("it is gone", || hub.connection_counts() == [0]);
        next_is_served(server.local_addr(), "/echo");
        next(&closes);
    }
    // One is still open when the server stops.
    let _raw = demand(&server, what);
    server.shutdown(super::SHORT).expect("no shard panicked");
}

#[test]
fn a_session_whose_destructor_panics_harms_nobody() {
    within(LIMIT, || destructor_panics("drop"));
}

#[test]
fn a_destructor_that_panics_with_something_as_bad_harms_nobody() {
    within(LIMIT, || destructor_panics("vicious-drop"));
}

#[test]
fn a_reply_whose_destructor_panics_harms_nobody_else() {
    within(LIMIT, || {
        let (server, closes) = serve(1);
        let mut raw = demand(&server, "reply");
        raw.send(frame(TEXT, b"go"));
        let first = raw.frame().expect("the reply or a Close frame");
        assert!(first.first == BINARY || first.close().0 == 1011);
        next_is_served(server.local_addr(), "/echo");
        drop(raw);
        next(&closes);
    });
}

/// A session that panics when it is dropped, from the beginning.
struct BornSour(#[allow(dead_code, reason = "it is only dropped")] Sour);

impl Default for BornSour {
    fn default() -> Self {
        Self(Sour { is_vicious: true })
    }
}

#[test]
fn a_session_may_panic_when_it_is_dropped_because_on_upgrade_did_or_rejected() {
    within(LIMIT, || {
        let doorman = Callbacks::<BornSour>::with_upgrade(|request| match request.query("do") {
            Some("panic") => panic!("on purpose"),
            _ => peregrine::Upgrade::reject(peregrine::Response::new(403)),
        });
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let server = start(1, |builder| builder.websocket("/", doorman).websocket("/echo", echo));
        for (request, status) in [("/?do=panic", 500), ("/", 403)] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(crate::raw::upgrade(request));
            assert_eq!(raw.answer().status, status);
            raw.ended();
            next_is_served(server.local_addr(), "/echo");
        }
    });
}

/// A session that counts how many there are.
struct Counted(Arc<AtomicUsize>);

static LIVING: std::sync::LazyLock<Arc<AtomicUsize>> = std::sync::LazyLock::new(Arc::default);

impl Default for Counted {
    fn default() -> Self {
        LIVING.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&LIVING))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn every_session_is_dropped_exactly_once() {
    within(LIMIT, || {
        let handler = Callbacks::<Counted>::with_upgrade(|request| match request.query("do") {
            Some("reject") => peregrine::Upgrade::reject(peregrine::Response::new(403)),
            Some("panic") => panic!("on purpose"),
            _ => peregrine::Upgrade::accept(Counted::default()),
        })
        .on_message(|_, _| panic!("on purpose"));
        let server = start(2, |builder| builder.websocket("/", handler));
        let hub = server.hub();
        for round in 0..40 {
            let mut raw = Raw::connect(server.local_addr());
            let request = match round % 4 {
                0 => "/?do=reject",
                1 => "/?do=panic",
                _ => "/",
            };
            raw.send(crate::raw::upgrade(request));
            if raw.head().status == 101 && round % 4 == 2 {
                raw.send(frame(TEXT, b"panic"));
                assert_eq!(raw.closed().0, 1011);
            }
        }
        until("all are gone", || hub.connection_counts() == [0, 0]);
        assert_eq!(LIVING.load(Ordering::Relaxed), 0);
        let open: Vec<_> = (0..10).map(|_| Raw::upgraded(server.local_addr(), "/")).collect();
        assert_eq!(LIVING.load(Ordering::Relaxed), 10);
        drop(server);
        assert_eq!(LIVING.load(Ordering::Relaxed), 0);
        drop(open);
    });
}
