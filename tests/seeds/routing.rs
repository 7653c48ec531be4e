//! S16: sub-routers.

use peregrine::{Callbacks, Error, Handler, Message, Reply, Router, Server, WebSocket};

use super::common::{Client, start};
use super::{Seed, enough_for, on_every_shard_count};

/// A broadcast answers every message; the value that the router gave names it.
struct Room;

/// What its router calls it.
struct Name(&'static str);

impl Handler for Room {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        let place = ws.param("place").unwrap_or_default();
        format!("{} {place}", ws.dependency::<Name>().0).into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        ws.broadcast(message).err().map(|error| error.to_string()).into()
    }
}

/// A sub-router as another module would make it: with paths of its own, and what they share.
fn rooms(name: &'static str) -> Router {
    Router::new()
        .requires::<Name>()
        .dependency(Name(name))
        .websocket("/", Room)
        .websocket("/web_socket", Room)
        .get("/", format!("the page of {name}"))
}

fn app(shards: usize) -> peregrine::RunningServer {
    start(shards, |app| {
        app.websocket("/web_socket", Seed)
            .mount("/kitchen", rooms("kitchen"))
            .mount("/house", Router::new().mount("/cellar/", rooms("cellar")))
            .mount("/places/{place}", rooms("somewhere"))
    })
}

#[test]
fn s16_a_sub_router_serves_its_endpoints_below_its_prefix() {
    on_every_shard_count(|shards| {
        let running = app(shards);
        for (path, greeting) in [
            ("/web_socket", "Connected to ws"),
            ("/kitchen", "kitchen "),
            ("/kitchen/web_socket", "kitchen "),
            ("/house/cellar", "cellar "),
            ("/house/cellar/web_socket", "cellar "),
            ("/places/n%C3%B6rdlich/web_socket", "somewhere nördlich"),
        ] {
            assert_eq!(Client::connect(running.local_addr(), path).text(), greeting, "{path}");
        }
        for path in ["/", "/cellar/web_socket", "/house", "/house/web_socket", "/kitchen/cellar"] {
            match Client::try_connect(running.local_addr(), path).err() {
                Some(tungstenite::Error::Http(refusal)) => {
                    assert_eq!(refusal.status(), 404, "{path}");
                }
                other => panic!("{path}: 404 was expected, not {other:?}"),
            }
        }
    });
}

#[test]
fn s16_endpoints_of_different_sub_routers_are_apart_also_with_the_same_handler() {
    on_every_shard_count(|shards| {
        let running = app(shards);
        let mut rooms: Vec<Vec<Client>> = ["/kitchen", "/kitchen/web_socket", "/house/cellar"]
            .into_iter()
            .map(|path| {
                let connect = |_| Client::connect(running.local_addr(), path);
                let mut clients: Vec<_> = (0..enough_for(shards)).map(connect).collect();
                clients.iter_mut().for_each(|client| assert!(!client.text().is_empty()));
                clients
            })
            .collect();
        // A stray message would come before the room's own.
        for (number, room) in rooms.iter_mut().enumerate() {
            room[0].send(format!("to room {number}"));
            for client in room {
                assert_eq!(client.text(), format!("to room {number}"));
            }
        }
        for room in &mut rooms {
            room[1].send("once more");
            for client in room {
                assert_eq!(client.text(), "once more");
            }
        }
    });
}

#[test]
fn s16_two_sub_routers_with_the_same_path_fail_at_bind() {
    let silent = || Router::new().websocket("/web_socket", Callbacks::<()>::new());
    let app = Server::builder().mount("/a", silent()).mount("/b", silent());
    assert!(app.bind("127.0.0.1:0").is_ok());
    let app = Server::builder().mount("/a", silent()).mount("/a/", silent());
    match app.bind("127.0.0.1:0") {
        Err(Error::Path { path, .. }) => assert_eq!(path, "/a/web_socket"),
        other => panic!("a conflict was expected, not {other:?}"),
    }
}
