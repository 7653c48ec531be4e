//! Values that handlers find by their type.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peregrine::{
    Callbacks, Endpoint, Error, Handler, Message, Reply, Router, Server, Upgrade, WebSocket,
};

use crate::common::{Client, SHARD_COUNTS, start, within};
use crate::{LIMIT, bound, greeting, named};

/// From where a value was given.
struct From(&'static str);

/// A value that is given nowhere.
struct Nowhere;

/// Tells what it finds, at the upgrade and then.
struct Finder;

fn finder() -> Endpoint {
    Endpoint::with_upgrade(Finder, |request| {
        assert!(request.find_dependency::<Nowhere>().is_none());
        let found = request.find_dependency::<From>().map(|from| from.0);
        assert_eq!(found, Some(request.dependency::<From>().0));
        Upgrade::accept(request.dependency::<From>().0.to_owned())
    })
}

impl Handler for Finder {
    type Session = String;

    fn on_connect(&self, ws: &mut WebSocket<'_, String>) -> Reply<'static> {
        // The reference does not borrow the WebSocket.
        let from: &From = ws.dependency();
        ws.session_mut().push_str(" then");
        let text = format!("{} {}", ws.session(), from.0);
        ws.send(ws.dependency::<From>().0).expect("room");
        text.into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, String>, _: Message<'m>) -> Reply<'m> {
        assert!(ws.find_dependency::<Nowhere>().is_none());
        match ws.find_dependency::<From>() {
            Some(from) => from.0.into(),
            None => Reply::none(),
        }
    }
}

#[test]
fn the_nearest_dependency_of_a_type_is_found() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let running = start(shard_count, |builder| {
                let inner = Router::new()
                    .websocket("/outer", finder())
                    .websocket("/own", finder().dependency(From("endpoint")));
                let nearer = Router::new()
                    .dependency(From("replaced"))
                    .dependency(From("inner"))
                    .websocket("/inner", finder());
                let outer =
                    Router::new().mount("/a", inner).mount("/b", nearer).dependency(From("outer"));
                // What is said later about the whole holds for what was said before, too.
                builder
                    .requires::<From>()
                    .mount("/", outer)
                    .websocket("/global", finder())
                    .global(From("global"))
            });
            for (path, from) in [
                ("/global", "global"),
                ("/a/outer", "outer"),
                ("/a/own", "endpoint"),
                ("/b/inner", "inner"),
            ] {
                let mut client = Client::connect(running.local_addr(), path);
                assert_eq!(client.text(), from);
                assert_eq!(client.text(), format!("{from} then {from}"));
                client.send("again");
                assert_eq!(client.text(), from);
            }
        }
    });
}

#[test]
fn a_global_is_one_value_for_all_shards() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let visits = Arc::new(AtomicU64::new(0));
            let counting = Callbacks::<()>::new().on_connect(|ws| {
                let visit = ws.dependency::<Arc<AtomicU64>>().fetch_add(1, Ordering::Relaxed);
                visit.to_string().into()
            });
            let running = start(shard_count, |builder| {
                builder.websocket("/", counting).global(Arc::clone(&visits))
            });
            let clients: Vec<_> = (0..16u64)
                .map(|visit| {
                    let mut client = Client::connect(running.local_addr(), "/");
                    assert_eq!(client.text(), visit.to_string());
                    client
                })
                .collect();
            assert_eq!(visits.load(Ordering::Relaxed), clients.len() as u64);
        }
    });
}

#[test]
fn what_is_required_and_missing_is_an_error_of_bind() {
    let servers = [
        Server::builder()
            .requires::<Nowhere>()
            .mount("/a", Router::new().websocket("/b", named(""))),
        Server::builder()
            .mount("/a", Router::new().websocket("/b", named("")).requires::<Nowhere>())
            .mount("/c", Router::new().dependency(Nowhere)),
        Server::builder().websocket("/a/b", Endpoint::new(named("")).requires::<Nowhere>()),
        // A router's own value is not seen outside of it.
        Server::builder().mount(
            "/a",
            Router::new()
                .requires::<Nowhere>()
                .websocket("/c", Endpoint::new(named("")).dependency(Nowhere))
                .websocket("/b", named("")),
        ),
    ];
    for server in servers {
        match bound(server) {
            Err(error @ Error::Dependency { .. }) => {
                let text = error.to_string();
                assert!(text.contains("\"/a/b\"") && text.contains("Nowhere"), "{text}");
            }
            other => panic!("a missing dependency was expected, not {other:?}"),
        }
    }
}

#[test]
fn what_is_required_may_come_from_anywhere() {
    let requiring = || Endpoint::new(named("")).requires::<From>();
    let servers = [
        Server::builder().websocket("/", requiring()).global(From("")),
        Server::builder()
            .mount("/", Router::new().websocket("/", requiring()).dependency(From(""))),
        Server::builder().websocket("/", requiring().dependency(From(""))).requires::<From>(),
        Server::builder().requires::<Nowhere>(),
    ];
    for server in servers {
        assert!(bound(server).is_ok());
    }
}

#[test]
fn a_missing_dependency_costs_its_connection_alone() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let careless = Callbacks::<()>::new().on_message(|ws, message| {
                match message.as_text() {
                    Some("nowhere") => drop(ws.dependency::<Nowhere>()),
                    _ => return ws.dependency::<From>().0.into(),
                }
                Reply::none()
            });
            let careless = Endpoint::new(careless).dependency(From("here"));
            let running = start(shard_count, |builder| {
                builder.websocket("/careless", careless).websocket("/other", named("other"))
            });
            let address = running.local_addr();
            let mut witness = Client::connect(address, "/careless");
            let mut client = Client::connect(address, "/careless");
            client.send("nowhere");
            assert_eq!(client.close_code(), 1011);
            witness.send("");
            assert_eq!(witness.text(), "here");
            assert_eq!(greeting(address, "/other"), "other");
        }
    });
}
