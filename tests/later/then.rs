//! Answers that come later and are made with the connection at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures_channel::oneshot;
use peregrine::{Callbacks, Reply, WebSocket};

use super::common::{Client, eventually, start};
use super::{briefly, each};

#[test]
fn the_session_and_the_connection_are_there_when_the_value_has_come() {
    each(|shard_count| {
        let handler = Callbacks::<Vec<String>>::new().on_message(|ws, message| {
            let text = message.as_text().unwrap_or_default().to_owned();
            let (sender, receiver) = oneshot::channel();
            match &*text {
                "pool" => ws.offload_then(|| "from the pool".to_owned(), remember),
                _ => {
                    thread::spawn(move || sender.send(text));
                    ws.later_then(async { receiver.await.unwrap_or_default() }, remember)
                }
            }
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("one");
        client.send("pool");
        client.send("bye");
        assert_eq!(client.text(), "to all: one");
        assert_eq!(client.text(), "one");
        assert_eq!(client.text(), "to all: from the pool");
        assert_eq!(client.text(), "one, from the pool");
        assert_eq!(client.text(), "to all: bye");
        assert_eq!(client.text(), "one, from the pool, bye");
        assert_eq!(client.close_code(), 4001);
    });
}

/// What is done with each value.
fn remember(ws: &mut WebSocket<'_, Vec<String>>, text: String) -> String {
    ws.broadcast(format!("to all: {text}")).expect("room");
    if text == "bye" {
        ws.close_with(4001, "");
    }
    ws.session_mut().push(text);
    ws.session().join(", ")
}

#[test]
fn what_follows_may_panic_and_may_follow_any_number_of_times() {
    /// Counts up by answers that come later, each at once.
    fn count(ws: &mut WebSocket<'_, usize>, to: usize) -> Reply<'static> {
        *ws.session_mut() += 1;
        match *ws.session() {
            count if count < to => ws.later_then(async move { to }, count_on),
            count => count.to_string().into(),
        }
    }
    fn count_on(ws: &mut WebSocket<'_, usize>, to: usize) -> Reply<'static> {
        count(ws, to)
    }
    each(|shard_count| {
        let handler = Callbacks::<usize>::new().on_message(|ws, message| {
            match message.as_text().and_then(|text| text.parse().ok()) {
                Some(to) => count(ws, to),
                None => ws.later_then(async {}, |_ws, ()| -> () { panic!("as the test wants") }),
            }
        });
        let server = start(shard_count, |builder| builder.websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("200000");
        assert_eq!(client.text(), "200000");
        client.send("panic");
        assert_eq!(client.close_code(), 1011);
    });
}

#[test]
fn nothing_follows_for_a_peer_that_has_gone() {
    each(|shard_count| {
        let (begun, followed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&begun), Arc::clone(&followed));
        let handler = Callbacks::<()>::new().on_message(move |ws, _| {
            let (begun, followed) = counters.clone();
            begun.fetch_add(1, Ordering::Relaxed);
            ws.later_then(std::future::pending::<()>(), move |_ws, ()| {
                followed.fetch_add(1, Ordering::Relaxed);
            })
        });
        let server =
            start(shard_count, |builder| builder.limits(briefly()).websocket("/", handler));
        let mut client = Client::connect(server.local_addr(), "/");
        client.send("wait");
        eventually(|| begun.load(Ordering::Relaxed) == 1);
        drop(client);
        eventually(|| server.hub().connection_counts().iter().sum::<usize>() == 0);
        assert_eq!(followed.load(Ordering::Relaxed), 0);
    });
}
