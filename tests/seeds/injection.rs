//! S14: dependencies, found by type from any handler.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use peregrine::{
    Callbacks, Close, Endpoint, Error, Handler, Message, Reply, Router, Server, Upgrade, WebSocket,
};

use super::common::{Client, start};
use super::{enough_for, eventually, on_every_shard_count};

/// Three types of the same shape: what is found is never taken for another.
struct GlobalDependency(&'static str);
struct RouterDependency(&'static str);
struct NobodysDependency(#[expect(dead_code, reason = "nobody has one")] &'static str);

/// Where every handler says what it found.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn note(&self, handler: &str, found: &GlobalDependency) {
        self.0.lock().expect("a lock").push(format!("{handler}: {}", found.0));
    }
}

/// Uses its dependencies in every handler.
struct Injected;

impl Injected {
    fn endpoint() -> Endpoint {
        Endpoint::with_upgrade(Self, |request| {
            request.dependency::<Log>().note("upgrade", request.dependency());
            Upgrade::accept(())
        })
    }
}

impl Handler for Injected {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.dependency::<Log>().note("connect", ws.dependency());
        ws.dependency::<GlobalDependency>().0.into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, _message: Message<'m>) -> Reply<'m> {
        ws.dependency::<Log>().note("message", ws.dependency());
        assert!(ws.find_dependency::<NobodysDependency>().is_none());
        let router = ws.find_dependency::<RouterDependency>();
        format!("{}, {}", ws.dependency::<GlobalDependency>().0, router.map_or("none", |r| r.0))
            .into()
    }

    fn on_close(&self, ws: &mut WebSocket<'_, ()>, _close: &Close) -> Reply<'static> {
        ws.dependency::<Log>().note("close", ws.dependency());
        Reply::none()
    }
}

#[test]
fn s14_dependencies_are_found_by_type_from_every_handler() {
    on_every_shard_count(|shards| {
        // The log is the server's: a handler tells what is in it.
        let reader = Callbacks::<()>::new().on_connect(|ws| {
            let log = ws.dependency::<Log>().0.lock().expect("a lock");
            log.join("\n").into()
        });
        let running = start(shards, |app| {
            app.global(GlobalDependency("GLOBAL DEPENDENCY"))
                .global(Log::default())
                .websocket("/log", reader)
                .websocket("/web_socket", Injected::endpoint())
        });
        let mut client = Client::connect(running.local_addr(), "/web_socket");
        assert_eq!(client.text(), "GLOBAL DEPENDENCY");
        client.send("hi");
        assert_eq!(client.text(), "GLOBAL DEPENDENCY, none");
        client.0.close(None).expect("the server reads");
        assert_eq!(client.closed(), None);
        let expected = ["upgrade", "connect", "message", "close"]
            .map(|handler| format!("{handler}: GLOBAL DEPENDENCY"))
            .join("\n");
        eventually(|| Client::connect(running.local_addr(), "/log").text() == expected);
    });
}

#[test]
fn s14_the_nearer_dependency_wins() {
    on_every_shard_count(|shards| {
        let running = start(shards, |app| {
            let inner = Router::new()
                .dependency(GlobalDependency("inner"))
                .websocket("/", Injected::endpoint());
            let own = Injected::endpoint().dependency(GlobalDependency("own"));
            let outer = Router::new()
                .dependency(GlobalDependency("outer"))
                .dependency(RouterDependency("ROUTER DEPENDENCY"))
                .websocket("/web_socket", Injected::endpoint())
                .websocket("/own", own)
                .mount("/inner", inner);
            app.global(GlobalDependency("GLOBAL DEPENDENCY"))
                .global(Log::default())
                .websocket("/web_socket", Injected::endpoint())
                .mount("/router", outer)
        });
        for (path, nearest, router) in [
            ("/web_socket", "GLOBAL DEPENDENCY", "none"),
            ("/router/web_socket", "outer", "ROUTER DEPENDENCY"),
            ("/router/own", "own", "ROUTER DEPENDENCY"),
            ("/router/inner", "inner", "ROUTER DEPENDENCY"),
        ] {
            let mut client = Client::connect(running.local_addr(), path);
            assert_eq!(client.text(), nearest, "{path}");
            client.send("hi");
            assert_eq!(client.text(), format!("{nearest}, {router}"), "{path}");
        }
    });
}

/// How many messages the whole server got.
#[derive(Default)]
struct Count(AtomicU64);

#[test]
fn s14_one_value_serves_all_shards_endpoints_and_async_handlers() {
    on_every_shard_count(|shards| {
        let counting = || {
            Callbacks::<()>::new().on_message(|ws, message| {
                let count = ws.dependency::<Count>().0.fetch_add(1, Ordering::Relaxed) + 1;
                match message.as_text() {
                    Some("async") => Reply::later(async move { count.to_string() }),
                    _ => count.to_string().into(),
                }
            })
        };
        let running = start(shards, |app| {
            app.global(Count::default())
                .websocket("/one", counting())
                .mount("/router", Router::new().websocket("/two", counting()))
        });
        let mut clients: Vec<_> = (0..enough_for(shards))
            .flat_map(|_| ["/one", "/router/two"])
            .map(|path| Client::connect(running.local_addr(), path))
            .collect();
        let mut count = 0;
        for request in ["sync", "async"] {
            for client in &mut clients {
                count += 1;
                client.send(request);
                assert_eq!(client.text(), count.to_string());
            }
        }
    });
}

#[test]
fn s14_what_a_handler_requires_and_nobody_gives_fails_at_bind() {
    let endpoint = || Injected::endpoint().requires::<GlobalDependency>();
    let given = || GlobalDependency("given");
    let missing = [
        Server::builder().websocket("/web_socket", endpoint()),
        Server::builder()
            .websocket("/web_socket", Injected::endpoint())
            .requires::<GlobalDependency>(),
        // Another type of the same shape is not it, and a neighbour's is not seen.
        Server::builder().websocket("/web_socket", endpoint()).global(RouterDependency("")),
        Server::builder()
            .mount(
                "/router",
                Router::new().dependency(given()).websocket("/", Injected::endpoint()),
            )
            .websocket("/web_socket", endpoint()),
    ];
    for app in missing {
        match app.bind("127.0.0.1:0") {
            Err(error @ Error::Dependency { .. }) => {
                let text = error.to_string();
                let told = text.contains("\"/web_socket\"") && text.contains("GlobalDependency");
                assert!(told, "{text}");
            }
            other => panic!("a missing dependency was expected, not {other:?}"),
        }
    }
    let complete = [
        Server::builder().websocket("/web_socket", endpoint()).global(given()),
        Server::builder().websocket("/web_socket", endpoint().dependency(given())),
        Server::builder()
            .mount("/", Router::new().dependency(given()).websocket("/web_socket", endpoint())),
    ];
    for app in complete {
        assert!(app.bind("127.0.0.1:0").is_ok(), "nothing is missing");
    }
}
