//! Who gets in, and as whom: origins, cookies, subprotocols and decisions are here. Which host a
//! request names is in `door/hosts.rs`, headers of which a part is malformed in `door/parts.rs`,
//! what trusted proxies tell in `door/proxies.rs`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

mod common;
#[path = "door/hosts.rs"]
mod hosts;
#[path = "door/parts.rs"]
mod parts;
#[path = "door/proxies.rs"]
mod proxies;
#[path = "common/raw.rs"]
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine::{
    Accept, Callbacks, Error, ParamError, Request, Response, RunningServer, Server, ServerBuilder,
    Upgrade,
};

use crate::common::{Client, SHARD_COUNTS, start, within};
use crate::raw::{Answer, Raw, next_is_served, upgrade};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);

fn echo() -> Callbacks<()> {
    Callbacks::new().on_message(|_, message| message.into())
}

/// Serves `endpoint` at `/`, and an echo at `/echo`.
fn serve<S: 'static>(endpoint: Callbacks<S>) -> RunningServer {
    start(1, |builder| builder.websocket("/", endpoint).websocket("/echo", echo()))
}

/// An upgrade with more headers.
fn upgrade_with(headers: &str) -> String {
    upgrade("/").replacen("Host", &format!("{headers}Host"), 1)
}

/// Asks for an upgrade with more headers; the connection and the head of the answer.
fn ask(server: &RunningServer, headers: &str) -> (Raw, Answer) {
    let mut raw = Raw::connect(server.local_addr());
    raw.send(upgrade_with(headers));
    let answer = raw.head();
    (raw, answer)
}

#[test]
fn a_page_of_another_site_is_refused_and_its_developer_told_what_to_write() {
    within(LIMIT, || {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let doorman = Callbacks::with_upgrade(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Upgrade::accept(())
        });
        let server = serve(doorman);
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade_with("Origin: https://evil.example\r\n"));
        let answer = raw.answer();
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        let text = String::from_utf8(answer.body).expect("text");
        assert!(text.contains(".allow_origin(\"https://evil.example\")"), "{text}");
        raw.ended();
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the handler is not asked");
        next_is_served(server.local_addr(), "/echo");
    });
}

#[test]
fn an_origin_passes_if_it_is_the_own_host_or_listed() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let server = start(shard_count, |builder| {
                let builder = builder.websocket("/", echo()).allow_origin("https://app.example");
                builder.allow_origin("http://[::1]:3000")
            });
            for (headers, status) in [
                ("", 101),
                ("Origin: http://localhost\r\n", 101),
                ("origin: https://LOCALHOST:443\r\n", 101),
                ("Origin: https://app.example\r\n", 101),
                ("Origin: http://[::1]:3000\r\n", 101),
                ("Origin: http://localhost:81\r\n", 403),
                ("Origin: http://app.example\r\n", 403),
                ("Origin: https://sub.app.example\r\n", 403),
                ("Origin: null\r\n", 403),
                ("Origin: \r\n", 403),
                ("Origin: \u{e9}\r\n", 403),
                ("Origin: http://localhost\r\nOrigin: http://localhost\r\n", 403),
            ] {
                assert_eq!(ask(&server, headers).1.status, status, "{headers:?}");
            }
        }
    });
}

#[test]
fn a_long_origin_is_cut_when_it_is_told_back() {
    within(LIMIT, || {
        let server = serve(echo());
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade_with(&format!("Origin: https://{}\r\n", "a".repeat(6000))));
        let answer = raw.answer();
        assert_eq!(answer.status, 403);
        assert!(answer.body.len() < 1000, "{} bytes", answer.body.len());
    });
}

#[test]
fn any_origin_lets_every_page_in() {
    within(LIMIT, || {
        let server = start(1, |builder| builder.websocket("/", echo()).any_origin());
        for origin in ["https://evil.example", "null", "nonsense"] {
            assert_eq!(ask(&server, &format!("Origin: {origin}\r\n")).1.status, 101, "{origin}");
        }
    });
}

#[test]
fn what_can_never_match_is_an_error_at_the_start() {
    let bind =
        |build: fn(ServerBuilder) -> ServerBuilder| build(Server::builder()).bind("127.0.0.1:0");
    let refused = bind(|builder| builder.allow_origin("app.example"));
    assert!(matches!(&refused, Err(Error::Origin { origin, .. }) if origin == "app.example"));
    let refused = bind(|builder| builder.trust_proxies(["10.0.0.0/8", "10.0.0.0/33"]));
    assert!(matches!(&refused, Err(Error::Proxy(network)) if network == "10.0.0.0/33"));
    let text = refused.expect_err("an error").to_string();
    assert!(text.contains("10.0.0.0/33"), "{text}");
}

#[test]
fn a_cookie_decides_who_comes_in() {
    within(LIMIT, || {
        fn admit(request: &Request<'_>) -> Result<Accept<String>, Upgrade<String>> {
            if request.cookie("token") != Some("secret") {
                let response = Response::new(401).with_text("log in");
                return Err(response.header("WWW-Authenticate", "Cookie")?.into());
            }
            let name = request.cookie("name").unwrap_or("nobody").to_owned();
            Ok(Accept::new(name).header("Set-Cookie", "seen=1; HttpOnly")?)
        }
        let members = Callbacks::with_upgrade(admit).on_connect(|ws| ws.session().clone().into());
        let server = serve(members);
        let (mut raw, answer) = ask(&server, "Cookie: name=ann; token=secret; x=y\r\n");
        assert_eq!((answer.status, answer.header("Set-Cookie")), (101, Some("seen=1; HttpOnly")));
        assert_eq!(raw.text(), "ann");
        for cookies in ["", "Cookie: token=guess\r\n", "Cookie: xtoken=secret; secret\r\n"] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(upgrade_with(cookies));
            let answer = raw.answer();
            assert_eq!((answer.status, &answer.body[..]), (401, b"log in".as_slice()));
            assert_eq!(answer.header("WWW-Authenticate"), Some("Cookie"));
            raw.ended();
        }
    });
}

#[test]
fn the_servers_order_decides_which_offered_subprotocol_is_spoken() {
    within(LIMIT, || {
        let polyglot =
            Callbacks::with_upgrade(|_| Accept::new(()).subprotocols(["v3", "v2", "v1"]))
                .on_connect(|ws| ws.subprotocol().unwrap_or("none").to_owned().into());
        let server = serve(polyglot);
        for (offered, chosen) in [
            ("Sec-WebSocket-Protocol: v1, v2\r\n", Some("v2")),
            ("Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v0,v3\r\n", Some("v3")),
            ("Sec-WebSocket-Protocol: v0, V1\r\n", None),
            ("Sec-WebSocket-Protocol: ,\r\n", None),
            ("", None),
        ] {
            let (mut raw, answer) = ask(&server, offered);
            assert_eq!(answer.status, 101);
            assert_eq!(answer.header("Sec-WebSocket-Protocol"), chosen, "{offered:?}");
            assert_eq!(raw.text(), chosen.unwrap_or("none"));
        }
    });
}

#[test]
fn a_subprotocol_that_was_not_offered_is_not_answered() {
    within(LIMIT, || {
        let stubborn = Callbacks::with_upgrade(|_| Accept::new(()).subprotocol("chat"))
            .on_connect(|ws| ws.subprotocol().unwrap_or("none").to_owned().into());
        let server = serve(stubborn);
        for (offered, chosen) in [
            ("Sec-WebSocket-Protocol: soap, chat\r\n", Some("chat")),
            ("Sec-WebSocket-Protocol: soap, superchat\r\n", None),
            ("", None),
        ] {
            let (mut raw, answer) = ask(&server, offered);
            assert_eq!(answer.status, 101);
            assert_eq!(answer.header("Sec-WebSocket-Protocol"), chosen, "{offered:?}");
            assert_eq!(raw.text(), chosen.unwrap_or("none"));
        }
    });
}

#[test]
fn the_session_that_the_decision_brings_is_the_connections() {
    within(LIMIT, || {
        let members = Callbacks::with_upgrade(|request| {
            Upgrade::accept(request.query("name").unwrap_or("made for the request").to_owned())
        })
        .on_connect(|ws| ws.session().clone().into());
        let server = serve(members);
        for (path, expected) in [("/?name=ann", "ann"), ("/", "made for the request")] {
            assert_eq!(Raw::upgraded(server.local_addr(), path).text(), expected);
        }
    });
}

#[test]
fn a_session_needs_no_default() {
    struct Member(std::num::NonZero<u8>);
    within(LIMIT, || {
        let members = Callbacks::with_upgrade(|request| -> Result<_, ParamError> {
            Ok(Accept::new(Member(request.query_as("number")?)))
        })
        .on_connect(|ws| ws.session().0.to_string().into());
        let server = serve(members);
        assert_eq!(Raw::upgraded(server.local_addr(), "/?number=7").text(), "7");
        for query in ["", "?number=0", "?number=x"] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(upgrade(&format!("/{query}")));
            assert_eq!(raw.answer().status, 400, "{query}");
        }
    });
}

#[test]
fn a_refusal_never_looks_like_success() {
    within(LIMIT, || {
        let refusing = Callbacks::with_upgrade(|request| match request.query("how") {
            Some("status") => Upgrade::<()>::reject(401),
            Some("text") => Upgrade::reject("not today"),
            _ => Upgrade::reject(Response::html("<p>success</p>")),
        });
        let server = start(1, |builder| builder.websocket("/", refusing));
        for (how, status) in [("status", 401), ("text", 403), ("page", 403)] {
            let refused = Client::try_connect(server.local_addr(), &format!("/?how={how}")).err();
            match refused {
                Some(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), status),
                other => panic!("{how}: a refusal was expected, not {other:?}"),
            }
        }
    });
}
