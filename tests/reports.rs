//! What the log says about clients, and about handlers in their name: the first case of a kind at
//! once, then a summary each ten seconds. One test at a time, for a process has one log.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;
use std::{panic, thread};

use common::{reports, within};
use log::LevelFilter;
use peregrine::testing::{TestClient, TestServer};
use peregrine::{
    Accept, Callbacks, IntoUpgrade, Limits, Reply, Response, Server, ServerBuilder, Upgrade,
};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often each case happens in a burst: in memory, and over sockets.
const COUNT: usize = 500;
const SOCKET_COUNT: usize = 2000;
/// How long the log is silent about a kind, and a timer's tick.
const INTERVAL: Duration = Duration::from_millis(10_016);

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

fn upgrade(path: &str, headers: &str) -> String {
    let headers = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}"
    );
    request("GET", path, &headers)
}

fn echo() -> Callbacks<()> {
    Callbacks::new().on_message(|_, message| message.into())
}

fn deciding<U>(decide: impl Fn() -> U + Send + Sync + 'static) -> Callbacks<()>
where
    U: IntoUpgrade<Session = ()>,
{
    Callbacks::with_upgrade(move |_| decide())
}

fn panicking_later() -> Upgrade<()> {
    async fn panicking() -> Upgrade<()> {
        panic!("on purpose")
    }
    Upgrade::later(panicking())
}

/// The site that all these clients visit.
fn site(limits: Limits) -> ServerBuilder {
    Server::builder()
        .limits(limits)
        .get("/page", "a page")
        .websocket("/echo", echo())
        .websocket("/later", deciding(|| Upgrade::later(pending::<Upgrade<()>>())))
        .websocket("/members", deciding(|| Upgrade::reject(401)))
        .websocket("/panic", deciding(|| -> Upgrade<()> { panic!("on purpose") }))
        .websocket("/panic-later", deciding(panicking_later))
        .websocket("/speaks", deciding(|| Accept::new(()).subprotocol("x")))
        .websocket("/header", deciding(|| Accept::new(()).header("X-Bad", "\n")))
}

fn server(builder: ServerBuilder) -> TestServer {
    TestServer::new(builder).expect("a right server")
}

/// `act` happens so often. There is one line at once, `line`, and one ten seconds later.
#[track_caller]
fn is_reported_twice(
    server: &mut TestServer,
    line: &str,
    mut act: impl FnMut(&mut TestServer, usize),
) {
    (0..COUNT).for_each(|at| act(server, at));
    assert_eq!(reports::take(), [line]);
    let is_over = Duration::from_millis(9_900);
    server.advance(is_over);
    assert_eq!(reports::take(), [""; 0], "the summary comes after ten seconds");
    server.advance(INTERVAL - is_over);
    let rest = COUNT - 1;
    assert_eq!(reports::take(), [format!("{line} (the last of {rest} in 10 s)")]);
    // As long as it goes on, there is one line each ten seconds, and then none.
    act(server, COUNT);
    assert_eq!(reports::take(), [""; 0]);
    server.advance(INTERVAL);
    assert_eq!(reports::take(), [line]);
    server.advance(INTERVAL * 3);
    assert_eq!(reports::take(), [""; 0]);
    act(server, COUNT + 1);
    assert_eq!(reports::take(), [line], "after a pause the next case is told at once");
}

/// A client comes, says something, and is gone.
fn says(server: &mut TestServer, said: &str) {
    let client = server.open();
    server.send_bytes(client, said);
    server.drop_connection(client);
}

const NOT_FOUND: &str = "404: Nothing is served at this path.";
const WRONG_METHOD: &str = "405: Only GET is served at this path.";
const NO_UPGRADE: &str = "426: This path speaks WebSocket: upgrade with Sec-WebSocket-Version 13.";
const WITH_BODY: &str = "400: An upgrade has no body.";
const NO_HTTP: &str = "400: This is not an HTTP/1.1 request.";
const TOO_LARGE: &str = "431: The request head is too large.";
const ORIGIN: &str = "403: Pages of https://evil.example may not open WebSockets here. If they \
                      should, the server has to be built with \
                      .allow_origin(\"https://evil.example\")";
const REJECTED: &str = "401: The handler rejects the upgrade.";

#[test]
fn each_kind_of_refusal_is_reported_once_and_then_summed_up() {
    let long = "x".repeat(100_000);
    let origin = "Origin: https://evil.example\r\n";
    let cases = [
        (request("GET", "/no?token=secret", ""), "INFO", "asked for \"/no\"", NOT_FOUND),
        (request("POST", "/page", ""), "INFO", "asked for \"/page\"", WRONG_METHOD),
        (request("GET", "/echo?token=secret", ""), "INFO", "asked for \"/echo\"", NO_UPGRADE),
        (upgrade("/echo", "Content-Length: 5\r\n"), "INFO", "asked for \"/echo\"", WITH_BODY),
        ("\x16\x03\x01 TLS\r\n\r\n".to_owned(), "INFO", r#"sent "\x16\x03\x01 TLS""#, NO_HTTP),
        (format!("GET /page?{long}"), "INFO", "sent \"GET /page\"", TOO_LARGE),
        (upgrade("/echo", origin), "WARN", "asked for \"/echo\"", ORIGIN),
        (upgrade("/members", ""), "DEBUG", "asked for \"/members\"", REJECTED),
    ];
    for (said, level, what, answer) in cases {
        let _turn = reports::listen_alone(LevelFilter::Debug);
        let mut server = server(site(Limits::default()));
        let line = format!("{level} 127.0.0.1 {what} and got {answer}");
        is_reported_twice(&mut server, &line, |server, _| says(server, &said));
    }
}

#[test]
fn what_a_server_lacks_is_reported_as_a_warning() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    let limits = |adjust: fn(&mut Limits)| {
        let mut limits = Limits::default();
        // Who is inside stays there.
        (limits.ping_after, limits.idle_timeout) = (Duration::MAX, Duration::MAX);
        adjust(&mut limits);
        limits
    };
    let ask = upgrade("/echo", "");
    for (limits, why) in [
        (
            limits(|limits| limits.max_connections = Some(1)),
            "503: The server takes no more connections; try again later.",
        ),
        (
            limits(|limits| limits.max_connections_per_ip = Some(1)),
            "429: Too many connections from this address.",
        ),
    ] {
        let mut server = server(site(limits));
        server.connect("/echo").expect("room for one");
        let line = format!("WARN 127.0.0.1 asked for \"/echo\" and got {why}");
        is_reported_twice(&mut server, &line, |server, _| says(server, &ask));
    }
}

#[test]
fn upgrades_that_come_too_fast_are_reported() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    let mut limits = Limits::default();
    limits.max_upgrades_per_second_per_ip = Some(1);
    let mut server = server(site(limits));
    let ask = upgrade("/echo", "");
    let line = "WARN 127.0.0.1 asked for \"/echo\" and got 429: Too many upgrades from this \
                address; try again later.";
    is_reported_twice(&mut server, line, |server, at| {
        if at == 0 || at >= COUNT {
            says(server, &ask);
        }
        says(server, &ask);
    });
}

/// So many clients come that the time of one test is enough for; then it is over for all.
fn time_out(said: &str, line: &str) {
    let mut server = server(site(Limits::default()));
    let come = |server: &mut TestServer, count: usize| -> Vec<TestClient> {
        let come = |_| {
            let client = server.open();
            server.send_bytes(client, said);
            client
        };
        (0..count).map(come).collect()
    };
    come(&mut server, COUNT);
    assert_eq!(reports::take(), [""; 0]);
    server.advance(Duration::from_millis(5_100));
    assert_eq!(reports::take(), [line]);
    server.advance(INTERVAL);
    let rest = COUNT - 1;
    assert_eq!(reports::take(), [format!("{line} (the last of {rest} in 10 s)")]);
}

#[test]
fn requests_that_come_too_late_are_reported_and_silence_is_not() {
    let _turn = reports::listen_alone(LevelFilter::Debug);
    time_out(
        "GET /page?token=secret HT",
        "INFO 127.0.0.1 sent \"GET /page\" and got 408: The request did not arrive in time.",
    );
    time_out(
        &upgrade("/later", ""),
        "WARN 127.0.0.1 sent \"GET /later HTTP/1.1\" and got 503: The upgrade was not decided in \
         time; try again later.",
    );
    let mut server = server(site(Limits::default()));
    let silent: Vec<_> = (0..100).map(|_| server.open()).collect();
    server.advance(INTERVAL * 3);
    assert!(silent.iter().all(|&client| server.has_ended(client)));
    assert_eq!(reports::take(), [""; 0]);
}

#[test]
fn connections_that_are_dropped_are_reported() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    let mut limits = Limits::default();
    limits.max_connections = Some(1);
    (limits.ping_after, limits.idle_timeout) = (Duration::MAX, Duration::MAX);
    limits.handshake_timeout = Duration::MAX;
    let mut server = server(site(limits));
    server.connect("/echo").expect("room for one");
    for _ in 0..64 {
        let client = server.open();
        // It has begun, and keeps its place.
        server.send_bytes(client, "GET");
    }
    assert_eq!(reports::take(), [""; 0]);
    let line = "WARN a connection of 127.0.0.1 is dropped without a response: the server has too \
                many connections, and all 64 places for more are taken";
    is_reported_twice(&mut server, line, |server, _| {
        let client = server.open();
        assert!(server.has_ended(client));
    });
}

#[test]
fn a_panic_of_on_upgrade_is_reported_with_its_endpoint_and_client() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    quietly(|| {
        for path in ["/panic", "/panic-later"] {
            let mut server = server(site(Limits::default()));
            let ask = upgrade(path, "");
            let line =
                format!("ERROR on_upgrade of {path} panicked; the request of 127.0.0.1 gets 500");
            is_reported_twice(&mut server, &line, |server, _| says(server, &ask));
        }
    });
}

/// Without the lines of the panic hook, which are the process's own.
fn quietly(test: impl FnOnce()) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(test));
    panic::set_hook(hook);
    if let Err(panic) = outcome {
        panic::resume_unwind(panic);
    }
}

#[test]
fn mistakes_of_handlers_that_clients_can_repeat_are_reported() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    for (ask, line) in [
        (
            upgrade("/speaks", ""),
            "ERROR on_upgrade of /speaks named a subprotocol that the client had not offered, so \
             it is not answered: \"x\"",
        ),
        (
            upgrade("/header", ""),
            "ERROR on_upgrade of /header: the value of the header \"X-Bad\" holds a control \
             character; the request gets 500",
        ),
    ] {
        let mut server = server(site(Limits::default()));
        is_reported_twice(&mut server, line, |server, _| says(server, &ask));
    }
}

/// One line of a kind at once, and a summary of that many; what differs from case to case is
/// between `begin` and `end`.
#[track_caller]
fn is_reported(server: &mut TestServer, begin: &str, end: &str, count: usize) {
    let lines = reports::take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(begin) && lines[0].ends_with(end), "{lines:?}");
    server.advance(INTERVAL);
    let lines = reports::take();
    let sum = format!("{end} (the last of {} in 10 s)", count - 1);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(begin) && lines[0].ends_with(&sum), "{lines:?}");
}

/// Panics when it is dropped.
#[derive(Default)]
struct Vicious;

impl Drop for Vicious {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("on purpose");
        }
    }
}

#[test]
fn panics_of_handlers_and_their_values_are_reported_with_endpoint_and_connection() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    quietly(|| {
        let handler = Callbacks::<()>::new().on_message(|_, _| panic!("on purpose"));
        let late = Callbacks::<()>::new()
            .on_message(|_, _| Reply::later(async { panic!("on purpose") as () }));
        let site = Server::builder().websocket("/rooms/{id}", handler).websocket("/late", late);
        let site = site.websocket("/vicious", Callbacks::<Vicious>::new());
        let mut server = server(site);
        for (path, begin) in [
            ("/rooms/7", "ERROR the handler of /rooms/{id} panicked; its connection "),
            ("/late", "ERROR the handler of /late panicked; its connection "),
        ] {
            for _ in 0..COUNT {
                let client = server.connect(path).expect("room");
                server.send(client, "go");
            }
            is_reported(&mut server, begin, " with 127.0.0.1 is closed", COUNT);
        }
        for _ in 0..COUNT {
            let client = server.connect("/vicious").expect("room");
            server.drop_connection(client);
        }
        let line = "ERROR a value of a connection to /vicious panicked in drop";
        is_reported(&mut server, line, "", COUNT);
    });
}

#[test]
fn a_full_pool_is_reported_whatever_it_is_full_for() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    within(LIMIT, || {
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let other_gate = gate.clone();
        let work = move || {
            let gate = gate.clone();
            move || gate.recv().unwrap_or(())
        };
        let other_work = move || {
            let gate = other_gate.clone();
            move || gate.recv().unwrap_or(())
        };
        let busy = Callbacks::<()>::new().on_message(move |_, _| Reply::offload(work()));
        let doorman = Callbacks::with_upgrade(move |_| {
            Upgrade::<()>::offload_then(other_work(), |()| Upgrade::reject(Response::new(401)))
        });
        let mut limits = Limits::default();
        limits.max_offload_threads = Some(1);
        limits.max_queued_jobs = 1;
        let site = Server::builder().limits(limits);
        let mut server = server(site.websocket("/busy", busy).websocket("/doorman", doorman));
        // One for the thread, which may take it at any time, and one for the queue.
        for _ in 0..3 {
            let client = server.connect("/busy").expect("room");
            server.send(client, "go");
        }
        thread::sleep(Duration::from_millis(50));
        let client = server.connect("/busy").expect("room");
        server.send(client, "go");
        server.advance(INTERVAL * 2);
        reports::take();
        for _ in 0..COUNT {
            let client = server.connect("/busy").expect("room");
            server.send(client, "go");
        }
        let line = "WARN the pool for offloaded work is full; 127.0.0.1 at /busy is closed with \
                    1013";
        is_reported(&mut server, line, "", COUNT);
        let ask = upgrade("/doorman", "");
        let line = "WARN the pool for offloaded work is full; 127.0.0.1 at /doorman gets 503";
        is_reported_twice(&mut server, line, |server, _| says(server, &ask));
        drop(open);
    });
}

#[test]
fn too_many_topics_are_reported() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    let mut limits = Limits::default();
    limits.max_topics_per_connection = 1;
    let mut server = server(site(limits));
    let client = server.connect("/echo").expect("room");
    let (hub, id) = (server.hub(), server.id(client));
    hub.subscribe(id, "one").expect("a place");
    let line = format!("WARN connection {id} to /echo has too many topics for \"a\\r\\ntopic\"");
    is_reported_twice(&mut server, &line, |server, _| {
        hub.subscribe(id, "a\r\ntopic").expect("a mailbox");
        server.settle();
    });
}

#[test]
fn slow_handlers_are_named_also_those_that_grant_nothing() {
    const SLOW: Duration = Duration::from_millis(60);
    let _turn = reports::listen_alone(LevelFilter::Info);
    let mut limits = Limits::default();
    limits.slow_handler_after = Duration::from_millis(20);
    let refusing = deciding(|| {
        thread::sleep(SLOW);
        Upgrade::reject(401)
    });
    let granting = deciding(|| {
        thread::sleep(SLOW);
        Upgrade::accept(())
    });
    let pending = deciding(|| {
        Upgrade::later(async {
            thread::sleep(SLOW);
            pending::<Upgrade<()>>().await
        })
    });
    let talking = Callbacks::<()>::new().on_message(|_, _| {
        thread::sleep(SLOW);
        ().into()
    });
    let site = Server::builder().limits(limits).websocket("/refusing/{n}", refusing);
    let site = site.websocket("/granting", granting).websocket("/pending", pending);
    let mut server = server(site.websocket("/talking", talking));
    for path in ["/refusing/{n}", "/granting", "/pending", "/talking"] {
        for _ in 0..20 {
            let client = server.open();
            let ask = upgrade(&path.replace("{n}", "7"), "");
            // A whole masked frame, for the one that is let in.
            let message = [0x82, 0x80, 0, 0, 0, 0].as_slice();
            server.send_bytes(client, [ask.as_bytes(), message].concat());
            server.drop_connection(client);
        }
        let begin = format!("WARN the handler of {path} kept shard 0 for ");
        is_reported(&mut server, &begin, " ms: the others had to wait", 20);
    }
}

#[test]
fn connections_that_the_server_closes_are_told_to_who_debugs() {
    let _turn = reports::listen_alone(LevelFilter::Debug);
    let mut server = server(site(Limits::default()));
    for _ in 0..COUNT {
        let client = server.open();
        // A frame with a reserved bit.
        let frame = [0xF2, 0x80, 0, 0, 0, 0].as_slice();
        server.send_bytes(client, [upgrade("/echo", "").as_bytes(), frame].concat());
        server.drop_connection(client);
    }
    let end = " of 127.0.0.1 to /echo is closed with 1002: reserved bits are set";
    is_reported(&mut server, "DEBUG connection ", end, COUNT);
}

/// What a client chooses is cut and escaped, whatever the level.
#[test]
fn lines_are_bounded_and_hold_no_control_characters() {
    let _turn = reports::listen_alone(LevelFilter::Debug);
    let mut server = server(site(Limits::default()));
    let long = format!("/{}", "%0a\u{7f}x".replace('\u{7f}', "").repeat(2000));
    says(&mut server, &request("GET", &long, ""));
    says(&mut server, "a\u{1b}[31m\0\t\u{85}\r\n\r\n");
    let client = server.open();
    server.send_bytes(client, "\u{1b}[31m");
    server.advance(INTERVAL * 2);
    let lines = reports::take();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines {
        assert!(line.len() < 600 && !line.contains(char::is_control), "{line:?}");
    }
}

/// The client's own address, also behind a proxy that tells it only in the request.
#[test]
fn behind_proxies_the_client_is_named() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    let mut server = server(site(Limits::default()).trust_proxies(["127.0.0.1"]));
    says(&mut server, &request("GET", "/nothing", "X-Forwarded-For: 192.0.2.7\r\n"));
    says(&mut server, "PROXY TCP4 192.0.2.8 127.0.0.1 1 80\r\nnonsense\r\n\r\n");
    let named = reports::take().concat();
    assert!(named.contains("192.0.2.7 asked") && named.contains("192.0.2.8 sent"), "{named}");
}

/// What was not told when the server ends is told then.
#[test]
fn the_last_summary_is_written_at_the_end() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    let mut server = server(site(Limits::default()));
    (0..100).for_each(|_| says(&mut server, &request("GET", "/nothing", "")));
    reports::take();
    server.shutdown(Duration::from_secs(1));
    let line = "INFO 127.0.0.1 asked for \"/nothing\" and got 404: Nothing is served at this \
                path. (the last of 99 in 0 s)";
    assert_eq!(reports::take(), [line]);
}

/// A burst over sockets, of which the clock is the kernel's.
#[test]
fn two_thousand_refusals_over_sockets_are_a_few_lines() {
    let _turn = reports::listen_alone(LevelFilter::Info);
    within(LIMIT, || {
        let server = common::start(1, |builder| builder.get("/page", "a page"));
        // That the server has started.
        reports::take();
        let (told, telling) = mpsc::channel();
        let ask = |address: SocketAddr| {
            use std::io::{Read, Write};
            let mut socket = common::connect(address);
            socket.write_all(request("GET", "/nothing", "").as_bytes()).expect("it reads");
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 404 "));
        };
        (0..SOCKET_COUNT).for_each(|_| ask(server.local_addr()));
        told.send(reports::take()).expect("this thread listens");
        drop(server);
        let at_once = telling.recv().expect("the first lines");
        let expected = "INFO 127.0.0.1 asked for \"/nothing\" and got 404: Nothing is served at \
                        this path.";
        assert_eq!(at_once[0], expected);
        let mut lines = [at_once, reports::take()].concat();
        lines.retain(|line| !line.starts_with("INFO stopped serving"));
        assert!((2..10).contains(&lines.len()), "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with(expected)), "{lines:?}");
    });
}
