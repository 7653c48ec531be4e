//! What `on_upgrade` sees and decides, and what becomes of its panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use peregrine::{Accept, Callbacks, HeaderError, IntoUpgrade, Response, RunningServer, Upgrade};

use super::{LIMIT, echo};
use crate::common::{start, within};
use crate::raw::{Raw, TEXT, frame, next_is_served, upgrade};

/// Serves `endpoint` at `/`, and an echo at `/echo`.
fn serve<S: Default + 'static>(endpoint: Callbacks<S>) -> RunningServer {
    start(1, |builder| builder.websocket("/", endpoint).websocket("/echo", echo()))
}

#[test]
fn a_rejection_is_sent_as_it_was_given() {
    within(LIMIT, || {
        let doorman = Callbacks::with_upgrade(|request| {
            let name = request.query("name").unwrap_or_default().to_owned();
            let response = Response::new(401).with_text(format!("Who is {name}?"));
            let response = response.header("WWW-Authenticate", "Basic")?.header("X-Late", "yes")?;
            Ok::<_, HeaderError>(Upgrade::<()>::reject(response))
        });
        let server = serve(doorman);
        let mut raw = Raw::connect(server.local_addr());
        raw.send([upgrade("/?name=J%C3%B6rg+M"), upgrade("/echo")].concat());
        let answer = raw.answer();
        assert_eq!(answer.status, 401);
        assert_eq!(String::from_utf8(answer.body.clone()).expect("text"), "Who is Jörg M?");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Basic"));
        assert_eq!(answer.header("X-Late"), Some("yes"));
        assert_eq!(answer.header("Connection"), Some("close"));
        raw.ended();
        next_is_served(server.local_addr(), "/echo");
    });
}

#[test]
fn a_rejected_connection_is_never_connected_nor_closed() {
    within(LIMIT, || {
        let calls = Arc::new(AtomicUsize::new(0));
        let (connects, closes) = (Arc::clone(&calls), Arc::clone(&calls));
        let doorman = Callbacks::<()>::with_upgrade(|_| Upgrade::reject(Response::new(403)))
            .on_connect(move |_| {
                connects.fetch_add(1, Ordering::Relaxed);
                ().into()
            })
            .on_close(move |_, _| {
                closes.fetch_add(1, Ordering::Relaxed);
                ().into()
            });
        let server = serve(doorman);
        let mut raw = Raw::connect(server.local_addr());
        raw.send([upgrade("/").into_bytes(), frame(TEXT, b"let me in")].concat());
        assert_eq!(raw.answer().status, 403);
        raw.ended();
        drop(server);
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn an_acceptance_carries_the_subprotocol_and_the_headers() {
    within(LIMIT, || {
        let chooser = Callbacks::with_upgrade(|request| {
            let offered: Vec<_> = request.subprotocols().collect();
            assert_eq!(offered, ["v2.chat", "v1.chat", "echo"]);
            let chosen = offered.iter().find(|name| name.starts_with("v1"));
            Accept::new(())
                .subprotocol(chosen.expect("v1 is offered"))
                .header("Set-Cookie", "seen=1; HttpOnly")
        })
        .on_connect(|ws| ws.subprotocol().map(str::to_owned).into());
        let server = serve(chooser);
        let mut raw = Raw::connect(server.local_addr());
        let offers =
            "Sec-WebSocket-Protocol: v2.chat, v1.chat\r\nSec-WebSocket-Protocol: echo\r\nHost";
        raw.send(upgrade("/").replace("Host", offers));
        let answer = raw.head();
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("v1.chat"));
        assert_eq!(answer.header("Set-Cookie"), Some("seen=1; HttpOnly"));
        assert_eq!(raw.text(), "v1.chat");
    });
}

#[test]
fn the_session_set_at_the_upgrade_is_there_when_connected() {
    within(LIMIT, || {
        let members = Callbacks::with_upgrade(|request| {
            let mut session = Vec::new();
            session.push(format!("{} {}", request.method(), request.path()));
            session.push(request.cookie("user").unwrap_or("nobody").to_owned());
            session.push(request.header("x-tag").unwrap_or("none").to_owned());
            let all = request.query_params();
            session.push(all.iter().map(|(key, value)| format!("{key}={value};")).collect());
            session.push(format!("{}", request.peer_addr()));
            Upgrade::accept(session)
        })
        .on_connect(|ws| {
            let peer = ws.peer_addr().to_string();
            assert_eq!(ws.session_mut().pop(), Some(peer));
            ws.session().join("|").into()
        })
        .on_message(|ws, _| ws.session().len().to_string().into());
        let server = serve(members);
        let mut raw = Raw::connect(server.local_addr());
        let headers = "Cookie: theme=dark; user=ann; user=bob\r\nX-TAG: t1\r\nX-Tag: t2\r\nHost";
        raw.send(upgrade("/?a=1&a=2&b=x%26y+z&c").replace("Host", headers));
        assert_eq!(raw.head().status, 101);
        assert_eq!(raw.text(), "GET /|ann|t1|a=1;a=2;b=x&y z;c=;");
        raw.send(frame(TEXT, b"?"));
        assert_eq!(raw.text(), "4");
        // The next one, perhaps in the same slot, has a session of its own.
        drop(raw);
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade("/"));
        assert_eq!(raw.head().status, 101);
        assert_eq!(raw.text(), "GET /|nobody|none|");
    });
}

/// What `on_upgrade` may have told with the header that it made of the query.
fn told<T>(refused: &Result<T, HeaderError>) -> String {
    match refused {
        Ok(_) => "added".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_header_made_of_what_a_client_sends_adds_no_other_and_is_no_panic() {
    within(LIMIT, || {
        let mirror = Callbacks::with_upgrade(|request| {
            let of = |key| request.query(key).unwrap_or_default().to_owned();
            let (name, value) = (of("name"), of("value"));
            let accept = Accept::new(()).header(name.clone(), value.clone());
            let response = Response::new(401).header(name.clone(), value.clone());
            match request.query("how") {
                Some("accept") => accept.into_upgrade(),
                Some("reject") => response.map(Upgrade::reject).into_upgrade(),
                Some("later") => Upgrade::later(std::future::ready(accept)),
                Some("offload") => Upgrade::offload(|| Accept::new(()).header(name, value)),
                Some("then") => Upgrade::offload_then(
                    move || (name, value),
                    |(name, value)| Accept::new(()).header(name, value),
                ),
                _ => {
                    assert_eq!(told(&accept), told(&response));
                    Upgrade::reject(Response::text(told(&accept)))
                }
            }
        });
        let server = serve(mirror);
        for (query, blame) in [
            ("name=X-Name&value=a%0d%0aSet-Cookie:%20stolen=1", "control character"),
            ("name=X-Name&value=a%0aX:%20y", "control character"),
            ("name=X-Name&value=%0d%0a%0d%0a%81%02hi", "control character"),
            ("name=X-Name&value=%00", "control character"),
            ("name=X%0d%0aSet-Cookie&value=stolen=1", "not the name"),
            ("name=X:%20y&value=z", "not the name"),
            ("name=&value=z", "not the name"),
            ("name=%C3%A9&value=z", "not the name"),
            ("name=content-length&value=7", "itself writes"),
            ("name=CONNECTION&value=close", "itself writes"),
        ] {
            let answer = |how: &str| {
                let mut raw = Raw::connect(server.local_addr());
                raw.send(upgrade(&format!("/?how={how}&{query}")));
                let answer = raw.answer();
                raw.ended();
                answer
            };
            for how in ["accept", "reject", "later", "offload", "then"] {
                let answer = answer(how);
                assert_eq!(answer.status, 500, "{how} {query}");
                assert_eq!(answer.header("Set-Cookie"), None, "{how} {query}");
            }
            let text = String::from_utf8(answer("tell").body).expect("text");
            assert!(text.contains(blame), "{query}: {text}");
        }
        for (how, status) in [("accept", 101), ("later", 101), ("reject", 401), ("then", 101)] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(upgrade(&format!("/?how={how}&name=X-Name&value=J%C3%BCrgen%09B")));
            let answer = raw.head();
            assert_eq!((answer.status, answer.header("X-Name")), (status, Some("J\u{fc}rgen\tB")));
        }
        next_is_served(server.local_addr(), "/echo");
    });
}

/// No name is a panic; what is answered is always one of the offers.
#[test]
fn a_subprotocol_that_no_client_can_offer_is_never_chosen() {
    within(LIMIT, || {
        let chooser = Callbacks::with_upgrade(|request| {
            let name = request.query("name").unwrap_or_default();
            match request.query("list") {
                Some(_) => Accept::new(()).subprotocols([name, "", "v\r\n1", "v1"]),
                None => Accept::new(()).subprotocol(name),
            }
        });
        let server = serve(chooser);
        for (query, chosen) in [
            ("name=v1", Some("v1")),
            ("name=v1%0d%0aSet-Cookie:%20stolen=1", None),
            ("name=", None),
            ("name=v0,%20v1", None),
            ("name=v0,v1", None),
            ("name=%20v1", None),
            ("name=%C3%A9", None),
            ("name=YWJjZA==", Some("YWJjZA==")),
            ("list&name=v1%0d%0a", Some("v1")),
            ("list&name=YWJjZA==", Some("YWJjZA==")),
            ("list&name=%00", Some("v1")),
        ] {
            let mut raw = Raw::connect(server.local_addr());
            let offers = "Sec-WebSocket-Protocol: v0, v1, YWJjZA==\r\nHost";
            raw.send(upgrade(&format!("/?{query}")).replacen("Host", offers, 1));
            let answer = raw.head();
            assert_eq!(answer.status, 101, "{query}");
            assert_eq!(answer.header("Sec-WebSocket-Protocol"), chosen, "{query}");
            assert_eq!(answer.header("Set-Cookie"), None, "{query}");
        }
    });
}

#[test]
fn a_panic_is_answered_with_500_and_the_server_lives() {
    within(LIMIT, || {
        let server =
            serve(Callbacks::<()>::with_upgrade(|_| -> Upgrade<()> { panic!("on purpose") }));
        for _ in 0..3 {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(upgrade("/"));
            assert_eq!(raw.answer().status, 500);
            raw.ended();
            next_is_served(server.local_addr(), "/echo");
        }
    });
}

/// A session whose making fails.
struct Unmakeable;

impl Default for Unmakeable {
    fn default() -> Self {
        panic!("on purpose")
    }
}

#[test]
fn a_panic_while_the_session_is_made_is_answered_with_500() {
    within(LIMIT, || {
        let server = serve(Callbacks::<Unmakeable>::new());
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade("/"));
        assert_eq!(raw.answer().status, 500);
        next_is_served(server.local_addr(), "/echo");
    });
}

/// Panics when a shard drops it, unless that would abort the process.
struct Vicious;

impl Drop for Vicious {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let is_shard = thread.name().is_some_and(|name| name.starts_with("peregrine"));
        if is_shard && !std::thread::panicking() {
            panic!("on purpose");
        }
    }
}

#[test]
fn a_panic_that_panics_when_it_is_dropped_does_no_more_harm() {
    within(LIMIT, || {
        let server = serve(Callbacks::<()>::with_upgrade(|_| -> Upgrade<()> {
            std::panic::panic_any(Vicious)
        }));
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade("/"));
        assert_eq!(raw.answer().status, 500);
        next_is_served(server.local_addr(), "/echo");
    });
}
