//! Routers within routers, as clients meet them: paths, parameters, what is demanded of a request.
//! What is inherited is in `routers/dependencies.rs` and `routers/limits.rs`, how paths are written
//! in `routers/paths.rs`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

mod common;
#[path = "routers/dependencies.rs"]
mod dependencies;
#[path = "routers/limits.rs"]
mod limits;
#[path = "routers/paths.rs"]
mod paths;
#[path = "common/raw.rs"]
mod raw;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine::{
    Accept, Callbacks, Endpoint, Error, IntoUpgrade, ParamError, Response, Router, Server,
    ServerBuilder, Upgrade,
};

use crate::common::{Client, SHARD_COUNTS, start, within};
use crate::raw::{Answer, Raw, get, upgrade};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Says its name to whoever connects.
fn named(name: &'static str) -> Callbacks<()> {
    Callbacks::new().on_connect(move |_| name.into())
}

/// What a client hears first at this path.
fn greeting(address: SocketAddr, path: &str) -> String {
    Client::connect(address, path).text()
}

/// The answer to this request alone.
fn answer(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut raw = Raw::connect(address);
    raw.send(request);
    raw.answer()
}

fn bound(builder: ServerBuilder) -> Result<Server, Error> {
    builder.bind("127.0.0.1:0")
}

/// The path and the problem of a server that cannot be bound for its paths.
fn path_problem(builder: ServerBuilder) -> (String, String) {
    match bound(builder) {
        Err(Error::Path { path, problem }) => (path, problem),
        other => panic!("a bad path was expected, not {other:?}"),
    }
}

/// Three routers deep, with an endpoint and a page at the root of each.
fn nested(builder: ServerBuilder) -> ServerBuilder {
    let innermost = Router::new().websocket("/", named("innermost")).get("/", "innermost page");
    let inner = Router::new()
        .websocket("/", named("inner"))
        .websocket("/b", named("inner b"))
        .mount("/innermost/", innermost)
        .get("/b", "page b");
    let outer = Router::new().websocket("/b", named("outer b")).mount("/inner", inner);
    let beside = Router::new().websocket("/beside", named("beside")).get("/", "home");
    builder
        .mount("/outer/", outer)
        .websocket("/b", named("b"))
        .mount("/", beside)
        .get("/outer", "page of the prefix")
}

#[test]
fn a_mounted_router_serves_its_paths_below_its_prefix() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let running = start(shard_count, nested);
            let address = running.local_addr();
            for (path, name) in [
                ("/b", "b"),
                ("/beside", "beside"),
                ("/outer/b", "outer b"),
                ("/outer/inner", "inner"),
                ("/outer/inner/b", "inner b"),
                ("/outer/inner/innermost", "innermost"),
            ] {
                assert_eq!(greeting(address, path), name, "{path}");
            }
            for (path, body) in [
                ("/", "home"),
                ("/outer", "page of the prefix"),
                ("/outer/inner/b", "page b"),
                ("/outer/inner/innermost", "innermost page"),
            ] {
                let answer = answer(address, get(path));
                assert_eq!((answer.status, answer.body), (200, body.as_bytes().to_vec()), "{path}");
            }
            for path in ["/inner", "/outer/", "/outer/inner/", "/outer/inner/innermost/", "//b"] {
                assert_eq!(answer(address, upgrade(path)).status, 404, "{path}");
            }
        }
    });
}

#[test]
fn path_parameters_are_found_by_name_and_decoded() {
    within(LIMIT, || {
        let told = || {
            Callbacks::with_upgrade(|request| match request.param("room") {
                Some("closed") => Upgrade::reject(Response::new(409)),
                _ => Accept::new(())
                    .header("X-Seat", seat(request.param_as("seat").ok()))
                    .into_upgrade(),
            })
            .on_connect(|ws| {
                let text = |name| ws.param(name).map_or("-".to_owned(), |text| text.into());
                let seat = seat(ws.param_as("seat").ok());
                format!("{}|{seat}|{}", text("room"), text("rest")).into()
            })
        };
        fn seat(seat: Option<u8>) -> String {
            seat.map_or("none".to_owned(), |seat| seat.to_string())
        }
        for shard_count in SHARD_COUNTS {
            let seats = Router::new()
                .websocket("/seats/{seat}", told())
                .websocket("/files/{*rest}", told())
                .websocket("/lobby", told());
            let running = start(shard_count, |builder| builder.mount("/rooms/{room}", seats));
            let address = running.local_addr();
            for (path, expected) in [
                ("/rooms/7/lobby", "7|none|-"),
                ("/rooms/J%C3%BCrgen%20B+/seats/8", "Jürgen B+|8|-"),
                ("/rooms/a%2Fb/seats/300?seat=1", "a/b|none|-"),
                ("/rooms/a/seats/", "404"),
                ("/rooms/%FF%00/files/x//y%2Fz/", "\u{FFFD}\0|none|x//y/z/"),
                ("/rooms/%zz/seats/%38", "%zz|8|-"),
                ("/rooms/a/files/", "404"),
                ("/rooms//lobby", "404"),
                ("/rooms/closed/lobby", "409"),
            ] {
                let mut raw = Raw::connect(address);
                raw.send(upgrade(path));
                let head = raw.head();
                match head.status {
                    101 => {
                        assert_eq!(raw.text(), expected, "{path}");
                        let seat = expected.split('|').nth(1);
                        assert_eq!(head.header("X-Seat"), seat, "{path}");
                    }
                    status => assert_eq!(status.to_string(), expected, "{path}"),
                }
            }
        }
    });
}

#[test]
fn what_is_literal_goes_before_what_is_a_parameter() {
    within(LIMIT, || {
        let running = start(1, |builder| {
            builder
                .websocket("/{*path}", named("anything"))
                .websocket("/rooms/{room}", named("a room"))
                .websocket("/rooms/lobby", named("the lobby"))
                .websocket("/{{room}}", named("braces"))
        });
        for (path, name) in [
            ("/rooms/lobby", "the lobby"),
            ("/rooms/lobby2", "a room"),
            ("/rooms/lobby/2", "anything"),
            ("/{room}", "braces"),
            ("/room", "anything"),
        ] {
            assert_eq!(greeting(running.local_addr(), path), name, "{path}");
        }
    });
}

#[test]
fn a_broadcast_reaches_an_endpoint_whatever_its_parameters() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let room = || {
                named("hello").on_message(|ws, message| {
                    let sent = ws.broadcast(message);
                    sent.err().map(|error| error.to_string()).into()
                })
            };
            let rooms = Router::new().websocket("/{room}", room()).websocket("/", room());
            let running = start(shard_count, |builder| builder.mount("/rooms", rooms));
            let mut clients: Vec<_> = ["/rooms/1", "/rooms/2", "/rooms/3?x", "/rooms"]
                .map(|path| Client::connect(running.local_addr(), path))
                .into();
            for client in &mut clients {
                assert_eq!(client.text(), "hello");
            }
            let mut outsider = clients.pop().expect("the last");
            clients[0].send("from a client");
            clients.iter_mut().for_each(|client| assert_eq!(client.text(), "from a client"));
            let hub = running.hub();
            hub.broadcast("/rooms/{room}", "from the hub").expect("an endpoint");
            clients.iter_mut().for_each(|client| assert_eq!(client.text(), "from the hub"));
            hub.broadcast("/rooms", "to the other").expect("an endpoint");
            assert_eq!(outsider.text(), "to the other");
            for path in ["/rooms/1", "/rooms/", "/{room}", "/"] {
                let refused = hub.broadcast(path, "to nobody");
                assert_eq!(refused, Err(peregrine::SendError::NoEndpoint), "{path}");
            }
        }
    });
}

#[test]
fn paths_that_cannot_be_served_are_errors_of_bind() {
    let builder = Server::builder;
    let room = || Router::new().websocket("/{room}", named(""));
    let bad = [
        // Taken: by the same pattern, by another name for it, by a way around.
        (builder().mount("/a", room()).mount("/a/", room()), "/a/{room}"),
        (builder().mount("/a", room()).websocket("/a/{id}", named("")), "/a/{id}"),
        (builder().websocket("/a", named("")).mount("/a", nested_root()), "/a"),
        (builder().get("/{*rest}", "").get("/{*all}", ""), "/{*all}"),
        // Malformed.
        (builder().mount("a", room()), "a"),
        (builder().mount("", room()), ""),
        (builder().mount("/a", Router::new().get("b", "")), "b"),
        (builder().mount("/a?b", room()), "/a?b/{room}"),
        (builder().mount("/{*rest}", room()), "/{*rest}/{room}"),
        (builder().mount("/{room}", room()), "/{room}/{room}"),
        (builder().websocket("/{a}-{b}", named("")), "/{a}-{b}"),
        (builder().websocket("/{}", named("")), "/{}"),
        (builder().websocket("/{a", named("")), "/{a"),
        // A parameter is required that the path does not hold.
        (
            builder().mount(
                "/a",
                Router::new()
                    .websocket("/{room}", Endpoint::new(named("")).required_param::<u64>("id")),
            ),
            "/a/{room}",
        ),
    ];
    for (builder, expected) in bad {
        let (path, problem) = path_problem(builder);
        assert_eq!(path, expected, "{problem}");
        assert!(!problem.is_empty());
    }
}

fn nested_root() -> Router {
    Router::new().mount("/", Router::new().websocket("/", named("")))
}

#[test]
fn what_an_endpoint_requires_is_refused_at_the_door_with_its_name() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let asked_count = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&asked_count);
            let handler = Callbacks::with_upgrade(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
                Upgrade::accept(())
            })
            .on_connect(|ws| {
                let page: Option<u32> = ws.query_as("page").ok();
                let room: Option<u64> = ws.param_as("room").ok();
                assert_eq!(ws.query_as::<u8>("missing"), Err(ParamError::Missing));

                format!("{page:?} {room:?}").into()
            });
            let endpoint = Endpoint::new(handler)
                .required_query::<u32>("page")
                .required_param::<u64>("room")
                .required_query::<char>("a \"b\"");
            let running = start(shard_count, |builder| {
                builder.websocket("/rooms/{room}", endpoint).get("/rooms/{room}", "a page")
            });
            let address = running.local_addr();
            for (path, text) in [
                ("/rooms/7", "The query parameter \"page\" is missing."),
                ("/rooms/7?Page=1", "The query parameter \"page\" is missing."),
                ("/rooms/7?page=", "The query parameter \"page\" is malformed."),
                ("/rooms/7?page=-1&page=1", "The query parameter \"page\" is malformed."),
                ("/rooms/x?page=1", "The path parameter \"room\" is malformed."),
                ("/rooms/7?page=1", "The query parameter \"a \\\"b\\\"\" is missing."),
            ] {
                let answer = answer(address, upgrade(path));
                let body = String::from_utf8(answer.body).expect("text");
                assert_eq!((answer.status, body.as_str()), (400, text), "{path}");
            }
            assert_eq!(asked_count.load(Ordering::Relaxed), 0);
            let path = "/rooms/%37?page=%31&a+%22b%22=%C3%BC";
            assert_eq!(greeting(address, path), "Some(1) Some(7)");
            assert_eq!(answer(address, get("/rooms/x")).status, 200, "a page is for everybody");
            assert_eq!(asked_count.load(Ordering::Relaxed), 1);
        }
    });
}
