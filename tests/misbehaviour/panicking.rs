//! Panics: reported, and harmless to threads that others need.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Limits, Reply, Upgrade};

use super::LIMIT;
use crate::common::{Client, PATIENCE, reports, start, within};
use crate::raw::{Raw, TEXT, frame, next_is_served, until, upgrade};

/// Panics when it is dropped by a thread of the server, with something as bad.
struct Vicious;

impl Drop for Vicious {
    fn drop(&mut self) {
        let thread = thread::current();
        let is_theirs = thread.name().is_some_and(|name| name.starts_with("peregrine"));
        if is_theirs && !thread::panicking() {
            std::panic::panic_any(Self);
        }
    }
}

impl From<Vicious> for Reply<'_> {
    fn from(_: Vicious) -> Self {
        "never seen".into()
    }
}

#[test]
fn a_panic_is_reported_once_with_its_endpoint() {
    within(LIMIT, || {
        reports::listen();
        let doorman = Callbacks::<()>::with_upgrade(|_| -> Upgrade<()> { panic!("on purpose") });
        let handler = Callbacks::<()>::new().on_message(|_, _| panic!("on purpose"));
        let late = Callbacks::<()>::new()
            .on_message(|_, _| Reply::later(async { panic!("on purpose") as () }));
        let offloaded =
            Callbacks::<()>::new().on_message(|_, _| Reply::offload(|| panic!("on purpose") as ()));
        let server = start(1, |app| {
            let app = app.websocket("/doorman", doorman).websocket("/handler-{n}", handler);
            app.websocket("/late", late).websocket("/offloaded", offloaded)
        });
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade("/doorman"));
        assert_eq!(raw.answer().status, 500);
        for path in ["/handler-7", "/late", "/offloaded"] {
            let mut raw = Raw::upgraded(server.local_addr(), path);
            raw.send(frame(TEXT, b"go"));
            assert_eq!(raw.closed().0, 1011);
        }
        for path in ["/doorman", "/handler-{n}", "/late", "/offloaded"] {
            let mut reports = reports::with(path);
            // Not that it took long.
            reports.retain(|report| report.starts_with("ERROR"));
            assert_eq!(reports.len(), 1, "{path}: {reports:?}");
        }
    });
}

#[test]
fn the_pools_threads_survive_whatever_their_work_panics_with() {
    within(LIMIT, || {
        let (told, begun) = mpsc::channel();
        let (open, gate) = crossbeam_channel::unbounded::<()>();
        let handler = Callbacks::<()>::new().on_message(move |_, message| {
            if message.as_text() == Some("work") {
                return Reply::offload(|| "done");
            }
            let (told, gate) = (told.clone(), gate.clone());
            let panics = message.as_text() == Some("panic");
            Reply::offload(move || {
                told.send(()).expect("the test waits");
                gate.recv().expect("the test opens it");
                if panics {
                    std::panic::panic_any(Vicious);
                }
                Vicious
            })
        });
        let mut limits = Limits::default();
        limits.max_offload_threads = Some(2);
        // So long a connection that is gone waits for its work.
        limits.close_timeout = Duration::from_millis(200);
        let server = start(1, |app| app.limits(limits).websocket("/", handler));
        let hub = server.hub();
        for what in ["panic", "value", "panic", "value"] {
            // Whoever asked has gone when it comes: the pool's thread drops it.
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            raw.send(frame(TEXT, what.as_bytes()));
            begun.recv_timeout(PATIENCE).expect("a thread took it");
            drop(raw);
            until("it is gone", || hub.connection_counts() == [0]);
            open.send(()).expect("it waits");
        }
        for _ in 0..4 {
            let mut client = Client::connect(server.local_addr(), "/");
            client.send("work");
            assert_eq!(client.text(), "done");
        }
    });
}

/// Threads and descriptors of this process; what other tests of it do makes them drift a little.
fn resources() -> [usize; 2] {
    ["/proc/self/task", "/proc/self/fd"]
        .map(|path| std::fs::read_dir(path).expect("a Linux with /proc").count())
}

#[test]
fn a_thousand_panics_leave_nothing_behind() {
    within(LIMIT, || {
        let handler =
            Callbacks::<Vec<u8>>::with_upgrade(|request| match request.query("panic").is_some() {
                true => panic!("on purpose"),
                false => Upgrade::accept(Vec::new()),
            })
            .on_message(|ws, message| {
                ws.session_mut().extend_from_slice(message.as_bytes());
                let _ = ws.subscribe("topic");
                let _ = ws.send("half");
                match message.as_text() {
                    Some("later") => Reply::later(async { panic!("on purpose") as () }),
                    Some("offload") => Reply::offload(|| panic!("on purpose") as ()),
                    Some("stream") => {
                        let _stream = ws.stream::<str>();
                        panic!("on purpose")
                    }
                    _ => panic!("on purpose"),
                }
            });
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let mut limits = Limits::default();
        limits.max_offload_threads = Some(1);
        let server =
            start(1, |app| app.limits(limits).websocket("/", handler).websocket("/echo", echo));
        let hub = server.hub();
        let mut before = [0; 2];
        for at in 0..1000 {
            if at == 10 {
                before = resources();
            }
            let mut raw = Raw::connect(server.local_addr());
            match ["now", "later", "offload", "stream", "upgrade"][at % 5] {
                "upgrade" => {
                    raw.send(upgrade("/?panic=1"));
                    assert_eq!(raw.answer().status, 500);
                }
                what => {
                    raw.upgrade("/");
                    raw.send(frame(TEXT, what.as_bytes()));
                    while raw.frame().is_some_and(|frame| frame.first != crate::raw::CLOSE) {}
                }
            }
        }
        until("all are gone", || hub.connection_counts() == [0]);
        let after = resources();
        assert!(after.iter().zip(before).all(|(&after, before)| after < before + 100), "{after:?}");
        assert_eq!(hub.subscriber_count("topic"), 0);
        next_is_served(server.local_addr(), "/echo");
        server.shutdown(LIMIT).expect("no shard panicked");
    });
}
