//! Handlers that keep their thread.

use std::sync::mpsc;
use std::time::Duration;

use peregrine::{Callbacks, Limits, Reply};

use super::LIMIT;
use crate::common::{Client, PATIENCE, start, within};
use crate::raw::{PING, PONG, Raw, TEXT, frame, timed, until, upgrade};

/// More than a shard hears of with one look at the kernel.
const CROWD: usize = 1300;

/// A handler that waits until it is told to go on, and says when it does.
fn gate() -> (Callbacks<()>, mpsc::Receiver<()>, crossbeam_channel::Sender<()>) {
    let (told, begun) = mpsc::channel();
    let (open, wait) = crossbeam_channel::unbounded::<()>();
    let handler = Callbacks::new().on_message(move |_, message| {
        if message.as_text() == Some("block") {
            told.send(()).expect("the test waits");
            let _ = wait.recv();
        }
        message.into()
    });
    (handler, begun, open)
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the max");
}

#[test]
fn nobody_is_gone_or_late_because_the_shard_itself_was_asleep() {
    within(LIMIT, || {
        raise_descriptor_limit();
        let (handler, begun, open) = gate();
        let mut limits = Limits::default();
        limits.ping_after = Duration::from_secs(2);
        limits.idle_timeout = Duration::from_secs(8);
        limits.handshake_timeout = Duration::from_secs(8);
        limits.slow_handler_after = Duration::MAX;
        let server = start(1, |app| app.limits(limits).websocket("/", handler));
        let mut crowd: Vec<_> =
            (0..CROWD).map(|_| Raw::upgraded(server.local_addr(), "/")).collect();
        let mut asking: Vec<_> = (0..40).map(|_| Raw::connect(server.local_addr())).collect();
        let hub = server.hub();
        until("all are there", || hub.connection_counts() == [CROWD + asking.len()]);
        let mut blocker = Client::connect(server.local_addr(), "/");
        // Everybody has been asked whether they live; then the shard sleeps.
        for raw in &mut crowd {
            assert_eq!(raw.frame().expect("a ping").first, PING);
        }
        blocker.send("block");
        begun.recv_timeout(PATIENCE).expect("it blocks");
        crowd.iter_mut().for_each(|raw| raw.send(frame(PONG, b"")));
        asking.iter_mut().for_each(|raw| raw.send(upgrade("/")));
        // Not a wait for anything: longer than any deadline.
        std::thread::park_timeout(Duration::from_secs(9));
        open.send(()).expect("it waits");
        assert_eq!(blocker.text(), "block");
        for raw in crowd.iter_mut().chain(&mut asking).rev() {
            if raw.socket.peer_addr().is_ok() {
                raw.send(frame(TEXT, b"alive"));
            }
        }
        for raw in &mut asking {
            assert_eq!(raw.head().status, 101, "its request lay in the kernel all the time");
        }
        for raw in crowd.iter_mut().chain(&mut asking) {
            assert_eq!(raw.text(), "alive");
        }
    });
}

#[test]
fn a_shard_that_is_blocked_does_not_hold_up_another() {
    within(LIMIT, || {
        let (handler, begun, open) = gate();
        let mut limits = Limits::default();
        limits.slow_handler_after = Duration::MAX;
        let server = start(2, |app| app.limits(limits).websocket("/", handler));
        let hub = server.hub();
        let mut blocker = Client::connect(server.local_addr(), "/");
        let blocked = hub.connection_counts().iter().position(|&count| count == 1);
        let blocked = blocked.expect("it is somewhere");
        let mut clients: Vec<Client> = Vec::new();
        while hub.connection_counts().contains(&0) {
            clients.push(Client::connect(server.local_addr(), "/"));
        }
        blocker.send("block");
        begun.recv_timeout(PATIENCE).expect("it blocks");
        let counts = hub.connection_counts();
        assert!(counts[1 - blocked] > 0);
        let mut last = clients.pop().expect("one on the other shard");
        for _ in 0..100 {
            last.send("hi");
            assert_eq!(last.text(), "hi");
        }
        clients.iter_mut().for_each(|client| client.send("later"));
        open.send(()).expect("it waits");
        assert_eq!(blocker.text(), "block");
        clients.iter_mut().for_each(|client| assert_eq!(client.text(), "later"));
    });
}

#[test]
fn work_that_never_ends_fills_a_bounded_pool_and_does_not_keep_the_server_from_stopping() {
    within(LIMIT, || {
        let (_open, wait) = crossbeam_channel::unbounded::<()>();
        let (told, begun) = mpsc::channel();
        let stuck = Callbacks::<()>::new().on_message(move |_, message| {
            let (told, wait) = (told.clone(), wait.clone());
            match message.as_text() {
                Some("stuck") => Reply::offload(move || {
                    let _ = told.send(());
                    let _ = wait.recv();
                }),
                _ => message.into(),
            }
        });
        let late = Callbacks::with_upgrade(|_| {
            peregrine::Upgrade::offload_then(|| (), |()| peregrine::Upgrade::accept(()))
        });
        let mut limits = Limits::default();
        limits.max_offload_threads = Some(2);
        limits.max_queued_jobs = 3;
        let server =
            start(1, |app| app.limits(limits).websocket("/", stuck).websocket("/late", late));
        let mut busy: Vec<_> = (0..5).map(|_| Client::connect(server.local_addr(), "/")).collect();
        for client in &mut busy[..2] {
            client.send("stuck");
            begun.recv_timeout(PATIENCE).expect("a thread took it");
        }
        busy[2..].iter_mut().for_each(|client| client.send("stuck"));
        let mut echo = Client::connect(server.local_addr(), "/");
        echo.send("served");
        assert_eq!(echo.text(), "served");
        let mut refused = Client::connect(server.local_addr(), "/");
        refused.send("stuck");
        assert_eq!(refused.close_code(), 1013);
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade("/late"));
        assert_eq!(raw.answer().status, 503);
        let grace = Duration::from_millis(300);
        let (report, took) = timed(|| server.shutdown(grace).expect("no shard panicked"));
        assert!(took < PATIENCE, "the work is not waited for: {took:?}");
        assert!(report.open_count >= 6);
    });
}
