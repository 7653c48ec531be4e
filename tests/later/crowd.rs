//! Many who come at once, each with work for the pool: they are let in, or are told the truth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Limits, Reply, Upgrade};

use crate::common::{Client, PATIENCE, SHARD_COUNTS, start, within};
use crate::raw::{Answer, Raw, TEXT, frame, timed, upgrade};

const LIMIT: Duration = Duration::from_secs(60);

/// An answer of 503 that says when to come again; its sentence.
fn unavailable(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("1")));
    String::from_utf8(answer.body.clone()).expect("text")
}

#[test]
fn five_hundred_who_come_back_at_once_and_are_looked_up_for_50_ms_each_are_all_let_in() {
    within(LIMIT, || {
        let doorman = Callbacks::with_upgrade(|_| {
            // Work that blocks: a database, far away.
            let look_up = || thread::sleep(Duration::from_millis(50));
            Upgrade::offload_then(look_up, |()| Upgrade::accept(()))
        })
        .on_message(|_, message| message.into());
        let server = start(2, |app| app.websocket("/", doorman));
        let mut crowd: Vec<_> = (0..500).map(|_| Raw::connect(server.local_addr())).collect();
        let (statuses, took) = timed(|| {
            crowd.iter_mut().for_each(|raw| raw.send(upgrade("/")));
            crowd.iter_mut().map(|raw| raw.head().status).collect::<Vec<_>>()
        });
        let let_in_count = statuses.iter().filter(|&&status| status == 101).count();
        assert_eq!(let_in_count, 500, "{statuses:?}");
        assert!(took < Limits::default().handshake_timeout, "{took:?}");
        for raw in &mut crowd {
            raw.send(frame(TEXT, b"hello"));
            assert_eq!(raw.text(), "hello");
        }
    });
}

#[test]
fn sixteen_jobs_at_least_run_at_the_same_time_whatever_the_processors() {
    within(LIMIT, || {
        let all = Arc::new(Barrier::new(16));
        let meeting = Callbacks::<()>::new().on_message(move |_, _| {
            let all = Arc::clone(&all);
            Reply::offload(move || {
                all.wait();
                "met"
            })
        });
        let server = start(2, |app| app.websocket("/", meeting));
        let mut clients: Vec<_> =
            (0..16).map(|_| Client::connect(server.local_addr(), "/")).collect();
        for _ in 0..3 {
            clients.iter_mut().for_each(|client| client.send("meet"));
            clients.iter_mut().for_each(|client| assert_eq!(client.text(), "met"));
        }
    });
}

/// A handler whose upgrades wait in the pool until the test lets them go, one by one; how many have
/// begun is counted, and told.
fn gated() -> (Callbacks<()>, mpsc::Receiver<()>, crossbeam_channel::Sender<()>, Arc<AtomicUsize>) {
    let (open, gate) = crossbeam_channel::unbounded::<()>();
    let (tell, begun) = mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let handler = Callbacks::with_upgrade(move |_| {
        let (gate, tell, counter) = (gate.clone(), tell.clone(), Arc::clone(&counter));
        let wait = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            // The test may be over.
            let _ = tell.send(());
            let _ = gate.recv();
        };
        Upgrade::offload_then(wait, |()| Upgrade::accept(()))
    });
    (handler, begun, open, count)
}

#[test]
fn an_upgrade_that_the_queue_is_too_long_for_is_told_so_in_time_and_its_work_is_not_begun() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let (handler, begun, open, count) = gated();
            let mut limits = Limits::default();
            limits.handshake_timeout = Duration::from_millis(300);
            limits.max_offload_threads = Some(1);
            let server = start(shard_count, |app| app.limits(limits).websocket("/", handler));
            let ask = || {
                let mut raw = Raw::connect(server.local_addr());
                raw.send(upgrade("/"));
                raw
            };
            let first = ask();
            begun.recv_timeout(PATIENCE).expect("a thread took it");
            let others = [(); 20].map(|()| ask());
            for mut raw in std::iter::once(first).chain(others) {
                let sentence = unavailable(&raw.answer());
                assert!(sentence.contains("not decided in time"), "{sentence}");
                raw.ended();
            }
            // The thread is free again. Those who wait before the next one are not waited for.
            (0..2).for_each(|_| open.send(()).expect("it waits"));
            let mut next = ask();
            assert_eq!(next.head().status, 101);
            assert_eq!(count.load(Ordering::SeqCst), 2, "the first one, and the next");
        }
    });
}

#[test]
fn an_upgrade_for_which_there_is_no_room_in_the_queue_is_told_so_at_once() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let (handler, begun, open, _) = gated();
            let mut limits = Limits::default();
            (limits.max_offload_threads, limits.max_queued_jobs) = (Some(2), 3);
            let server = start(shard_count, |app| app.limits(limits).websocket("/", handler));
            let ask = || {
                let mut raw = Raw::connect(server.local_addr());
                raw.send(upgrade("/"));
                raw
            };
            // Whichever shard hears of its client first: two begin, three wait, the rest is told.
            let (sender, answers) = mpsc::channel();
            let threads: Vec<_> = (0..9)
                .map(|_| {
                    let (mut raw, sender) = (ask(), sender.clone());
                    thread::spawn(move || {
                        sender.send(raw.answer()).expect("the test listens");
                    })
                })
                .collect();
            (0..2).for_each(|_| begun.recv_timeout(PATIENCE).expect("a thread took it"));
            for _ in 0..4 {
                let answer = answers.recv_timeout(PATIENCE).expect("an answer");
                let sentence = unavailable(&answer);
                assert!(sentence.contains("wait to be decided"), "{sentence}");
            }
            (0..5).for_each(|_| open.send(()).expect("it waits"));
            for _ in 0..5 {
                assert_eq!(answers.recv_timeout(PATIENCE).expect("an answer").status, 101);
            }
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        }
    });
}
