//! S15 sync and async handlers; S12 `close()` in an async handler.

use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::thread;

use futures_channel::oneshot;
use peregrine::{Callbacks, Close, Handler, Message, Reply, WebSocket};

use super::common::{Client, PATIENCE, start};
use super::{GOODBYE, enough_for, eventually, on_every_shard_count};
use crate::common::executor::block_on;

/// Lets the shard go on to something else once.
async fn pause() {
    let mut has_paused = false;
    poll_fn(|context| match std::mem::replace(&mut has_paused, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// What an `async def` handler returns.
async fn after_a_pause(text: impl Into<String>) -> String {
    pause().await;
    text.into()
}

/// The first program of the seed page, with async handlers.
struct AsyncSeed;

impl Handler for AsyncSeed {
    type Session = ();

    fn on_connect(&self, _ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        Reply::later(after_a_pause("Connected to ws"))
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        match message.as_text() {
            Some("close, then await") => {
                ws.close();
                Reply::later(after_a_pause("Closing connection"))
            }
            Some("await, then close") => {
                let (hub, id) = (ws.hub(), ws.id());
                Reply::later(async move {
                    pause().await;
                    hub.close(id).expect("it is open");
                    "Closing connection"
                })
            }
            Some("close, then block") => {
                ws.close();
                Reply::offload(|| "Closing connection")
            }
            _ => Reply::later(after_a_pause("Hello world, from ws")),
        }
    }

    fn on_close(&self, _ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
        Reply::later(after_a_pause(GOODBYE))
    }
}

#[test]
fn s15_what_async_handlers_return_is_sent_as_what_sync_handlers_return() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", AsyncSeed));
        for _ in 0..enough_for(shards) {
            let mut client = Client::connect(running.local_addr(), "/web_socket");
            // It may speak before it is greeted.
            client.send("hi");
            assert_eq!(client.text(), "Connected to ws");
            assert_eq!(client.text(), "Hello world, from ws");
            client.0.close(None).expect("the server reads");
            assert_eq!(client.text(), GOODBYE);
            assert_eq!(client.closed(), None);
        }
    });
}

#[test]
fn s12_close_inside_an_async_handler_delivers_its_answer_then_close_1000() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", AsyncSeed));
        for request in ["close, then await", "await, then close", "close, then block"] {
            let mut client = Client::connect(running.local_addr(), "/web_socket");
            client.send(request);
            for expected in ["Connected to ws", "Closing connection", GOODBYE] {
                assert_eq!(client.text(), expected, "{request}");
            }
            assert_eq!(client.close_code(), 1000, "{request}");
        }
        eventually(|| running.hub().connection_counts().iter().all(|count| *count == 0));
    });
}

/// Answers `"sync .."`, `"async .."` and `"blocking .."` each in its way.
fn mixed() -> Callbacks<u32> {
    Callbacks::new().on_message(|ws, message| {
        let text = message.as_text().expect("text").to_owned();
        // What belongs to the connection is touched before the future, which owns what it needs.
        *ws.session_mut() += 1;
        let answer = format!("{} {text}", ws.session());
        match text.split(' ').next() {
            Some("async") => Reply::later(after_a_pause(answer)),
            Some("blocking") => Reply::offload(move || {
                thread::yield_now();
                answer
            }),
            _ => answer.into(),
        }
    })
}

#[test]
fn s15_answers_come_in_the_order_of_the_messages_whatever_their_kind() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| app.websocket("/web_socket", mixed()));
        let mut clients: Vec<_> = (0..enough_for(shards))
            .map(|_| Client::connect(running.local_addr(), "/web_socket"))
            .collect();
        let kinds = ["async", "sync", "blocking", "sync", "blocking", "async", "async", "sync"];
        for client in &mut clients {
            kinds.iter().for_each(|kind| client.send(format!("{kind} handler")));
        }
        for client in &mut clients {
            for (number, kind) in kinds.iter().enumerate() {
                assert_eq!(client.text(), format!("{} {kind} handler", number + 1));
            }
        }
    });
}

/// Promises of answers, which the test keeps.
type Promises = Receiver<(String, oneshot::Sender<String>)>;

/// Answers `"async .."` and `"blocking .."` with what the test says, anything else at once.
fn promising() -> (Callbacks<()>, Promises) {
    let (sender, promises): (Sender<(String, oneshot::Sender<String>)>, _) = channel();
    let sender = Mutex::new(sender);
    let handler = Callbacks::new().on_message(move |_ws, message| {
        let text = message.as_text().expect("text");
        let is_blocking = text.starts_with("blocking");
        if !is_blocking && !text.starts_with("async") {
            return message.into();
        }
        let (promise, answer) = oneshot::channel();
        let promise = (text.to_owned(), promise);
        sender.lock().expect("a lock").send(promise).expect("the test listens");
        match is_blocking {
            true => Reply::offload(move || block_on(answer).ok()),
            false => Reply::later(async { answer.await.ok() }),
        }
    });
    (handler, promises)
}

#[test]
fn s15_the_next_message_waits_its_turn_and_other_connections_do_not() {
    on_every_shard_count(|shards| {
        let (handler, promises) = promising();
        let running = start(shards, |app| app.websocket("/web_socket", handler));
        let connect = || Client::connect(running.local_addr(), "/web_socket");
        let mut waiting = connect();
        let mut others: Vec<_> = (0..enough_for(shards)).map(|_| connect()).collect();
        for kind in ["async", "blocking"] {
            waiting.send(format!("{kind} one"));
            waiting.send(format!("{kind} two"));
            waiting.send("three");
            let (text, promise) = promises.recv_timeout(PATIENCE).expect("a call");
            assert_eq!(text, format!("{kind} one"));
            for other in &mut others {
                for number in 0..10 {
                    other.send(format!("number {number}"));
                    assert_eq!(other.text(), format!("number {number}"));
                }
            }
            // It is a member still: what others say reaches it while it waits.
            running.hub().broadcast("/web_socket", "to all").expect("room");
            for client in others.iter_mut().chain([&mut waiting]) {
                assert_eq!(client.text(), "to all");
            }
            assert!(promises.try_recv().is_err(), "the second message was handled too early");
            promise.send("first".to_owned()).expect("the server waits");
            assert_eq!(waiting.text(), "first");
            let (text, promise) = promises.recv_timeout(PATIENCE).expect("a call");
            assert_eq!(text, format!("{kind} two"));
            promise.send("second".to_owned()).expect("the server waits");
            assert_eq!(waiting.text(), "second");
            assert_eq!(waiting.text(), "three");
        }
    });
}

#[test]
fn s15_async_handlers_of_all_connections_are_under_way_at_once() {
    on_every_shard_count(|shards| {
        let (handler, promises) = promising();
        let running = start(shards, |app| app.websocket("/web_socket", handler));
        let count = 20 * shards;
        let mut clients: Vec<_> =
            (0..count).map(|_| Client::connect(running.local_addr(), "/web_socket")).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("async {number}"));
        }
        let mut kept: Vec<_> =
            (0..count).map(|_| promises.recv_timeout(PATIENCE).expect("a call")).collect();
        // The answers come in another order than the questions.
        kept.sort_by_key(|(text, _)| std::cmp::Reverse(text.clone()));
        for (text, promise) in kept {
            promise.send(format!("answer to {text}")).expect("the server waits");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.text(), format!("answer to async {number}"));
        }
    });
}

#[test]
fn s15_an_async_handler_awaits_what_any_runtime_drives() {
    on_every_shard_count(|shards| {
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let tokio = runtime.handle().clone();
        let driver = thread::spawn(move || runtime.block_on(stopped));
        let handler = Callbacks::<()>::new().on_message(move |_ws, message| {
            let text = message.as_text().expect("text").to_owned();
            let task = tokio.spawn(async move {
                tokio::task::yield_now().await;
                format!("tokio heard {text}")
            });
            Reply::later(async { task.await.ok() })
        });
        let running = start(shards, |app| app.websocket("/web_socket", handler));
        let mut clients: Vec<_> = (0..enough_for(shards))
            .map(|_| Client::connect(running.local_addr(), "/web_socket"))
            .collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("number {number}"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.text(), format!("tokio heard number {number}"));
        }
        drop(stop);
        assert!(driver.join().expect("the runtime").is_err());
    });
}
