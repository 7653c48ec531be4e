//! Handlers that answer later: futures and offloaded work, and what their connections do meanwhile.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

mod common;
#[path = "later/crowd.rs"]
mod crowd;
#[path = "later/leaving.rs"]
mod leaving;
#[path = "common/raw.rs"]
mod raw;
#[path = "later/then.rs"]
mod then;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{Client, SHARD_COUNTS, eventually, start, within};
use futures_channel::oneshot;
use peregrine::{Accept, Callbacks, IntoUpgrade, Limits, Reply, Response, Upgrade};
use tungstenite::Message;

/// Promises that a test keeps or breaks.
type Promises = mpsc::Receiver<(String, oneshot::Sender<String>)>;

/// A handler that answers what the test says, when it says so; "now" it answers at once.
fn promising() -> (Callbacks<()>, Promises) {
    let (sender, promises) = mpsc::channel();
    let sender = Mutex::new(sender);
    let handler = Callbacks::new()
        .on_message(move |ws, message| {
            let text = message.as_text().unwrap_or_default();
            match text {
                "now" => return "now".into(),
                "close" => ws.close(),
                _ => {}
            }
            let (promise, answer) = oneshot::channel::<String>();
            let sent = sender.lock().expect("a lock").send((text.to_owned(), promise));
            sent.expect("the test listens");
            Reply::later(async move { answer.await.ok() })
        })
        .on_close(|_ws, close| format!("closed with {}", close.code()).into());
    (handler, promises)
}

/// Limits with which a connection that is gone waits for its answer only briefly.
fn briefly() -> Limits {
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(200);
    limits
}

fn each(test: impl Fn(usize) + Send + 'static) {
    within(Duration::from_secs(60), move || SHARD_COUNTS.into_iter().for_each(test));
}

#[test]
fn the_next_message_waits_its_turn_and_other_connections_do_not() {
    each(|shard_count| {
        let (handler, promises) = promising();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut clients: Vec<_> =
            (0..8).map(|_| Client::connect(server.local_addr(), "/")).collect();
        let (first, others) = clients.split_first_mut().expect("clients");
        first.send("one");
        first.send("two");
        let (text, promise) = promises.recv().expect("a call");
        assert_eq!(text, "one");
        for other in others {
            other.send("now");
            assert_eq!(other.text(), "now");
        }
        assert!(promises.try_recv().is_err(), "the second message was handled too early");
        let keep = thread::spawn(move || promise.send("1".to_owned()));
        assert_eq!(first.text(), "1");
        keep.join().expect("a thread").expect("the server waits");
        let (text, promise) = promises.recv().expect("a call");
        assert_eq!(text, "two");
        promise.send("2".to_owned()).expect("the server waits");
        assert_eq!(first.text(), "2");
    });
}

#[test]
fn pings_are_answered_while_an_answer_is_awaited_also_those_behind_messages() {
    each(|shard_count| {
        let (handler, promises) = promising();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("wait");
        client.send("now");
        client.0.send(Message::Ping("a".into())).expect("the server reads");
        assert_eq!(client.0.read().expect("a pong"), Message::Pong("a".into()));
        let (_, promise) = promises.recv().expect("a call");
        client.0.send(Message::Ping("b".into())).expect("the server reads");
        assert_eq!(client.0.read().expect("a pong"), Message::Pong("b".into()));
        promise.send("waited".to_owned()).expect("the server waits");
        assert_eq!(client.text(), "waited");
        assert_eq!(client.text(), "now");
    });
}

#[test]
fn after_close_the_answer_still_arrives_and_then_the_close() {
    each(|shard_count| {
        let (handler, promises) = promising();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("close");
        let (_, promise) = promises.recv().expect("a call");
        promise.send("Closing connection".to_owned()).expect("the server waits");
        assert_eq!(client.text(), "Closing connection");
        assert_eq!(client.text(), "closed with 1000");
        assert_eq!(client.close_code(), 1000);
    });
}

#[test]
fn the_peers_close_waits_for_the_answer_but_not_for_ever() {
    each(|shard_count| {
        let (handler, promises) = promising();
        let server = start(shard_count, |builder| {
            let mut limits = Limits::default();
            limits.close_timeout = Duration::from_millis(300);
            builder.limits(limits).websocket("/", handler)
        });
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("wait");
        client.0.close(None).expect("the server reads");
        let (_, promise) = promises.recv().expect("a call");
        promise.send("in time".to_owned()).expect("the server waits");
        assert_eq!(client.text(), "in time");
        assert_eq!(client.text(), "closed with 1005");

        let mut client = Client::connect(server.local_addr(), "/");
        client.send("wait");
        client.0.close(None).expect("the server reads");
        assert_eq!(client.text(), "closed with 1005");
        let (_, promise) = promises.recv().expect("a call");
        eventually(|| promise.is_canceled());
    });
}

#[test]
fn a_peer_that_vanishes_cancels_the_future() {
    each(|shard_count| {
        let (handler, promises) = promising();
        let server =
            start(shard_count, |builder| builder.limits(briefly()).websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("wait");
        let (_, promise) = promises.recv().expect("a call");
        drop(client);
        eventually(|| promise.is_canceled());
        eventually(|| server.hub().connection_counts().iter().sum::<usize>() == 0);
    });
}

#[test]
fn a_panic_in_a_future_or_in_offloaded_work_ends_its_own_connection() {
    each(|shard_count| {
        let handler = Callbacks::<()>::new().on_message(|_ws, message| match message.as_text() {
            Some("future") => Reply::later(async { panic!("as the test wants") as () }),
            Some("work") => Reply::offload(|| panic!("as the test wants") as ()),
            _ => message.into(),
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut other = Client::connect(server.local_addr(), "/");
        for text in ["future", "work"] {
            let mut client = Client::connect(server.local_addr(), "/");
            client.send(text);
            assert_eq!(client.close_code(), 1011);
        }
        other.send("still here");
        assert_eq!(other.text(), "still here");
    });
}

#[test]
fn offloaded_work_runs_elsewhere_and_a_full_pool_is_told() {
    each(|shard_count| {
        let (release, gate) = crossbeam_channel::bounded::<()>(0);
        let (begun, has_begun) = crossbeam_channel::unbounded();
        let handler = Callbacks::<()>::new().on_message(move |_ws, message| {
            if message.as_text() == Some("thread") {
                return Reply::offload(|| thread::current().name().unwrap_or_default().to_owned());
            }
            let (begun, gate) = (begun.clone(), gate.clone());
            Reply::offload(move || {
                begun.send(()).ok()?;
                gate.recv().map(|()| "released").ok()
            })
        });
        let server = start(shard_count, |builder| {
            let mut limits = Limits::default();
            limits.max_offload_threads = Some(1);
            limits.max_queued_jobs = 1;
            builder.limits(limits).websocket("/", handler)
        });
        let connect = || Client::connect(server.local_addr(), "/");
        let mut client = connect();
        client.send("thread");
        assert!(client.text().starts_with("peregrine-pool-"));
        // One is being run, one waits, and there is no room for more.
        let (sender, outcomes) = mpsc::channel();
        for index in 0..6 {
            let (mut client, sender) = (connect(), sender.clone());
            thread::spawn(move || {
                client.send("block");
                let _ = sender.send(client.read());
            });
            if index == 0 {
                has_begun.recv().expect("the thread takes it");
            }
        }
        for _ in 0..4 {
            let outcome = outcomes.recv().expect("an outcome");
            assert!(outcome.is_close(), "{outcome:?}");
        }
        for _ in 0..2 {
            release.send(()).expect("the work waits");
            let outcome = outcomes.recv().expect("an outcome");
            assert_eq!(outcome, Message::text("released"));
        }
    });
}

async fn panicking() -> Upgrade<()> {
    panic!("as the test wants")
}

#[test]
fn an_upgrade_may_be_decided_later_and_its_first_messages_wait() {
    each(|shard_count| {
        let handler = Callbacks::with_upgrade(|request| {
            let name = request.query("name").unwrap_or_default().to_owned();
            match &*name {
                "panic" => Upgrade::later(panicking()),
                "never" => Upgrade::later(std::future::pending::<Upgrade<()>>()),
                "work" => Upgrade::offload_then(|| true, |_| Upgrade::accept(())),
                _ => {
                    let (sender, receiver) = oneshot::channel();
                    thread::spawn(move || sender.send(name));
                    Upgrade::later(async {
                        match receiver.await.as_deref() {
                            Ok("alice") => Accept::new(()).header("X-Name", "alice").into_upgrade(),
                            _ => Upgrade::reject(Response::new(401)),
                        }
                    })
                }
            }
        })
        .on_message(|_ws, message| message.into());
        let server = start(shard_count, |builder| {
            let mut limits = Limits::default();
            limits.handshake_timeout = Duration::from_millis(300);
            builder.limits(limits).websocket("/", handler)
        });
        let connect =
            |name: &str| Client::try_connect(server.local_addr(), &format!("/?name={name}"));
        for name in ["alice", "work"] {
            let mut client = connect(name).expect("the upgrade is granted");
            client.send("hello");
            assert_eq!(client.text(), "hello");
        }
        for (name, status) in [("bob", 401), ("panic", 500), ("never", 503)] {
            match connect(name).err() {
                Some(tungstenite::Error::Http(response)) => assert_eq!(response.status(), status),
                other => panic!("{name}: a refusal was expected, not {other:?}"),
            }
        }
    });
}

#[test]
fn a_shutdown_waits_for_answers_within_its_grace() {
    each(|shard_count| {
        let (handler, promises) = promising();
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        let mut forgotten = Client::connect(server.local_addr(), "/");
        client.send("answered");
        let (_, promise) = promises.recv().expect("a call");
        forgotten.send("never answered");
        let (_, _broken) = promises.recv().expect("a call");
        let stopped = thread::spawn(move || server.shutdown(Duration::from_secs(3)));
        // Others notice that the server shuts down; then the answer comes.
        promise.send("the last word".to_owned()).expect("the server waits");
        assert_eq!(client.text(), "the last word");
        assert_eq!(client.text(), "closed with 1001");
        assert_eq!(client.close_code(), 1001);
        let report = stopped.join().expect("a thread").expect("a clean end");
        assert_eq!((report.open_count, report.aborted_count), (2, 1));
        drop(forgotten);
    });
}

#[test]
fn a_future_that_wakes_itself_does_not_stop_the_others() {
    each(|shard_count| {
        let polled = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&polled);
        let handler = Callbacks::<()>::new().on_message(move |_ws, message| {
            if message.as_text() != Some("spin") {
                return message.into();
            }
            let counter = Arc::clone(&counter);
            Reply::later(std::future::poll_fn(move |context| {
                counter.fetch_add(1, Ordering::Relaxed);
                context.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            }))
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut spinning = Client::connect(server.local_addr(), "/");
        spinning.send("spin");
        eventually(|| polled.load(Ordering::Relaxed) > 1000);
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("hello");
        assert_eq!(client.text(), "hello");
    });
}
