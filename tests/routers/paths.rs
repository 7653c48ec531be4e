//! Paths as clients write them, and as embedders do: what means the same is the same, what nobody
//! can ask for is an error of `bind`.

use peregrine::{Callbacks, Error, Router, Server};

use super::{LIMIT, answer, bound, greeting, named, path_problem};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{Raw, get, upgrade};

/// RFC 3986 section 6.2.2.
#[test]
fn a_path_is_served_however_its_letters_are_encoded() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let running = start(shard_count, |builder| {
                builder
                    .websocket("/gr\u{f6}\u{df}e", named("a word"))
                    .websocket("/a b", named("a space"))
                    .websocket("/%63af%c3%a9", named("encoded by hand"))
                    .websocket("/{{x}}[1]|\\^`\"<2>", named("what no URL holds"))
                    .websocket("/100%25", named("percent"))
                    .websocket("/a+b@c:d", named("reserved"))
                    .websocket("/a%2Fb", named("a slash in a segment"))
                    .mount("/r\u{e4}ume", Router::new().websocket("/\u{2603}", named("mounted")))
            });
            let address = running.local_addr();
            for (path, expected) in [
                ("/gr%C3%B6%C3%9Fe", Some("a word")),
                ("/gr%c3%b6%c3%9fe", Some("a word")),
                ("/gr\u{f6}%C3%9fe?x", Some("a word")),
                ("/%67r%C3%B6%C3%9F%65", Some("a word")),
                ("/GR%C3%B6%C3%9Fe", None),
                ("/a%20b", Some("a space")),
                ("/a+b", None),
                ("/caf\u{e9}", Some("encoded by hand")),
                ("/caf%C3%A9", Some("encoded by hand")),
                ("/%7Bx%7D%5B1%5D%7c%5C%5E%60%22%3C2%3E", Some("what no URL holds")),
                ("/{x}[1]|\\^`\"<2>", Some("what no URL holds")),
                ("/100%25", Some("percent")),
                ("/100%", Some("percent")),
                ("/%31%30%30%2525", None),
                ("/a+b@c:d", Some("reserved")),
                ("/%61+b@c:d", Some("reserved")),
                ("/a%2Bb@c:d", None),
                ("/a%2fb", Some("a slash in a segment")),
                ("/a/b", None),
                ("/r%C3%A4ume/%E2%98%83", Some("mounted")),
                ("https://localhost/a%20b", Some("a space")),
            ] {
                match expected {
                    Some(name) => assert_eq!(greeting_raw(&running, path), name, "{path}"),
                    None => assert_eq!(answer(address, upgrade(path)).status, 404, "{path}"),
                }
            }
            let hub = running.hub();
            assert_eq!(hub.broadcast("/gr\u{f6}\u{df}e", "by the path as it was given"), Ok(()));
        }
    });
}

/// What is heard first at a path that no URL parser would leave as it is.
fn greeting_raw(running: &peregrine::RunningServer, path: &str) -> String {
    let mut raw = Raw::connect(running.local_addr());
    raw.send(upgrade(path));
    assert_eq!(raw.head().status, 101, "{path}");
    raw.text()
}

#[test]
fn pages_and_readiness_are_found_as_endpoints_are() {
    within(LIMIT, || {
        let running = start(1, |builder| {
            let pages = Router::new().get("/\u{fc}ber uns", "about us");
            builder.mount("/de DE", pages).readiness("/bereit!\u{df}")
        });
        for (path, body) in [
            ("/de%20DE/%C3%BCber%20uns", "about us"),
            ("/de%20%44E/%c3%bcber%20un%73", "about us"),
            ("/bereit!%C3%9F", "ready"),
            ("/bereit!\u{df}", "ready"),
        ] {
            let answer = answer(running.local_addr(), get(path));
            assert_eq!((answer.status, answer.body), (200, body.as_bytes().to_vec()), "{path}");
        }
    });
}

/// What stands in a parameter is what the client has meant, whichever way it was matched.
#[test]
fn parameters_are_decoded_once_whatever_else_is_encoded() {
    within(LIMIT, || {
        let told = |name: &'static str| {
            Callbacks::with_upgrade(move |request| {
                peregrine::Upgrade::accept(format!("{} {:?}", request.path(), request.param(name)))
            })
            .on_connect(move |ws| {
                let param = ws.param(name);
                format!("{} {param:?}", ws.session()).into()
            })
        };
        for shard_count in SHARD_COUNTS {
            let running = start(shard_count, |builder| {
                builder
                    .websocket("/r\u{e4}ume/{raum}", told("raum"))
                    .websocket("/r\u{e4}ume/lobby", named("the lobby"))
                    .websocket("/files/{*pfad-\u{e4}}", told("pfad-\u{e4}"))
                    .websocket("/img \u{e4}-{name}", told("name"))
            });
            for (path, value) in [
                ("/r%C3%A4ume/J%C3%BCrgen%20B", "J\u{fc}rgen B"),
                ("/r\u{e4}um%65/J\u{fc}rgen+B", "J\u{fc}rgen+B"),
                ("/r%C3%A4ume/a%2Fb", "a/b"),
                ("/r%C3%A4ume/%252F", "%2F"),
                ("/r%C3%A4ume/%25%32%46", "%2F"),
                ("/r%C3%A4ume/%2%46%zz%", "%2F%zz%"),
                ("/r%C3%A4ume/%FF%C3", "\u{fffd}\u{fffd}"),
                ("/r%C3%A4ume/%2e%2e", ".."),
                ("/files/x/%2E%2E/%7By%7D//", "x/../{y}//"),
                ("/img%20%c3%a4-%6C", "l"),
            ] {
                let heard = greeting_raw(&running, path);
                assert_eq!(heard, format!("{path} Some({value:?}) Some({value:?})"));
            }
            assert_eq!(greeting_raw(&running, "/r%C3%A4ume/%6Cobby"), "the lobby");
            assert_eq!(greeting(running.local_addr(), "/r%C3%A4ume/lobby"), "the lobby");
        }
    });
}

#[test]
fn a_path_that_nobody_can_ask_for_is_an_error_of_bind_that_says_why() {
    let endpoint = |path: &str| Server::builder().websocket(path, named(""));
    for (path, hint) in [
        ("/a\nb", "control character"),
        ("/chat\0", "control character"),
        ("/\u{85}", "control character"),
        ("/100%", "%25"),
        ("/%zz", "%25"),
        ("/a/../b", "segment"),
        ("/./a", "segment"),
        ("/a/%2e%2E", "segment"),
        ("/a?b", "?"),
        ("/a#b", "#"),
    ] {
        for builder in [
            endpoint(path),
            Server::builder().get(path, "a page"),
            Server::builder().readiness(path),
            Server::builder().mount(path, Router::new().get("/x", "a page")),
        ] {
            let (given, problem) = path_problem(builder);
            assert!(given.starts_with(path), "{given:?}");
            assert!(problem.contains(hint), "{path:?}: {problem}");
        }
    }
    // A segment of dots is one like any other if it holds anything else.
    for path in ["/...", "/.well-known", "/a..", "/..a/", "/{{..}}", "/.{name}"] {
        assert!(bound(endpoint(path)).is_ok(), "{path}");
    }
}

#[test]
fn the_syntax_of_other_routers_is_an_error_of_bind_that_says_what_to_write() {
    let endpoint = |path: &str| Server::builder().websocket(path, named(""));
    for (path, hint) in [
        ("/rooms/:room", "{room}"),
        ("/:a/b", "{a}"),
        ("/rooms/:room.json", "{room}"),
        ("/files/*path", "{*path}"),
        ("/files/*", "{*path}"),
        ("/files/**", "{*path}"),
        ("/*", "{*path}"),
        ("/rooms/<room>", "{room}"),
        ("/rooms/<int:room>", "{room}"),
        ("/files/<path..>", "{*path}"),
        ("/rooms/{id:[0-9]+}", "{id}"),
        ("/rooms/{id:int}", "{id}"),
        ("/files/{tail:.*}", "{*tail}"),
        ("/files/{tail...}", "{*tail}"),
        ("/files/{**tail}", "{*tail}"),
        ("/files/{tail*}", "{*tail}"),
        ("/rooms/{a b}", "\"a b\""),
    ] {
        for builder in [
            endpoint(path),
            Server::builder().get(path, "a page"),
            Server::builder().readiness(path),
            Server::builder().mount(path, Router::new().get("/x", "a page")),
        ] {
            let (given, problem) = path_problem(builder);
            assert!(given.starts_with(path), "{given:?}");
            assert!(problem.contains(hint), "{path:?}: {problem}");
        }
    }
    for path in ["/a:b", "/v1/things:batch", "/:", "/urn:x:y", "/a*b", "/a<b>", "/{room_1-\u{e4}}"]
    {
        assert!(bound(endpoint(path)).is_ok(), "{path}");
    }
}

#[test]
fn two_ways_to_write_one_path_are_one_path() {
    let (one, other) = ("/gr\u{f6}\u{df}e/{a}", "/gr%c3%B6%C3%9F%65/{a}");
    let builder = Server::builder().websocket(one, named("")).websocket(other, named(""));
    let (path, problem) = path_problem(builder);
    assert_eq!((&*path, &*problem), (other, "it is taken"));
    let both = Server::builder().websocket(one, named("")).get(other, "the page beside it");
    assert!(bound(both).is_ok());
}

/// The router that is used below panics at the 26th.
#[test]
fn more_parameters_than_can_be_told_apart_are_an_error_of_bind() {
    let path = |count| (0..count).map(|at| format!("/{{p{at}}}")).collect::<String>();
    assert!(bound(Server::builder().get(path(25), "")).is_ok());
    assert!(bound(Server::builder().get(path(25) + "/{*rest}", "")).is_ok());
    for count in [26, 27, 100] {
        let refused = bound(Server::builder().get(path(count), ""));
        assert!(matches!(refused, Err(Error::Path { .. })), "{count}");
    }
}
