//! The opening handshake (RFC 6455 section 4.2, RFC 9112): what must be there, what may be, and
//! what is answered to the rest. Pages and handlers' decisions are in `tests/http*`.

use std::collections::BTreeMap;

use peregrine::testing::{TestClient, TestServer};
use peregrine::{Callbacks, Server, ServerBuilder};

use crate::common::{start, within};
use crate::raw::{Answer, Raw, TEXT, frame, upgrade};
use crate::table::{LIMIT, frames};

const HOST: &str = "Host: localhost\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

/// The request that section 4.1 describes, one part of it replaced by another.
#[derive(Clone)]
struct Request {
    name: String,
    bytes: Vec<u8>,
    status: u16,
}

/// Replaces `from` by `to`, and gets this status.
fn request(from: &str, to: impl AsRef<[u8]>, status: u16) -> Request {
    let whole = upgrade("/");
    let (before, after) = whole.split_once(from).expect("a part of the request");
    let bytes = [before.as_bytes(), to.as_ref(), after.as_bytes()].concat();
    let name = format!("{from:?} -> {:?}", String::from_utf8_lossy(to.as_ref()));
    Request { name, bytes, status }
}

/// Adds a line.
fn adding(line: impl AsRef<[u8]>, status: u16) -> Request {
    request(HOST, [HOST.as_bytes(), line.as_ref(), b"\r\n"].concat(), status)
}

fn site(builder: ServerBuilder) -> ServerBuilder {
    builder.websocket("/", Callbacks::<()>::new().on_message(|_, message| message.into()))
}

/// The answer's head is right for its status; the same requests of every server.
fn assert_head(answer: &Answer, name: &str) {
    let headers = |name| answer.header(name).map(str::to_ascii_lowercase);
    match answer.status {
        101 => {
            // Section 4.2.2, with the example of section 1.3.
            assert_eq!(headers("Upgrade").as_deref(), Some("websocket"), "{name}");
            assert_eq!(headers("Connection").as_deref(), Some("upgrade"), "{name}");
            let proof = answer.header("Sec-WebSocket-Accept");
            assert_eq!(proof, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{name}");
            for absent in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length"] {
                assert_eq!(answer.header(absent), None, "{name}");
            }
            return;
        }
        // Section 4.4, and RFC 9110 sections 15.5.22 and 15.5.6.
        426 => {
            assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"), "{name}");
            assert_eq!(headers("Upgrade").as_deref(), Some("websocket"), "{name}");
            let connection = headers("Connection").expect("Connection");
            assert!(connection.split(',').any(|token| token.trim() == "upgrade"), "{name}");
        }
        405 => assert!(answer.header("Allow").is_some_and(|list| list.contains("GET")), "{name}"),
        _ => {}
    }
    let connection = headers("Connection").unwrap_or_default();
    assert!(connection.split(',').any(|token| token.trim() == "close"), "{name}: {answer:?}");
    assert_eq!(answer.header("Sec-WebSocket-Accept"), None, "{name}");
}

/// Over a socket: the answer, then an echo or the end.
fn assert_answered(raw: &mut Raw, Request { name, bytes, status }: &Request) {
    let answer = raw.head();
    assert_eq!(answer.status, *status, "{name}: {answer:?}");
    assert_head(&answer, name);
    if *status == 101 {
        raw.send(frame(TEXT, b"hi"));
        assert_eq!(raw.text(), "hi", "{name}");
        return;
    }
    let length: usize =
        answer.header("Content-Length").map_or(0, |text| text.parse().expect("one"));
    let body_bytes = if bytes.starts_with(b"HEAD") { 0 } else { length };
    assert!(raw.take(body_bytes).is_some(), "{name}: the whole body");
    raw.ended();
}

/// In memory: what is answered to a request that comes in these parts.
fn answer_in_memory(server: &mut TestServer, parts: [&[u8]; 2]) -> (TestClient, Vec<u8>) {
    let client = server.open();
    let bytes = parts.map(|part| {
        server.send_bytes(client, part);
        server.take_bytes(client)
    });
    (client, bytes.concat())
}

/// Runs a table over sockets, at once and byte by byte, and in memory at every split.
fn run(requests: Vec<Request>) {
    within(LIMIT, move || {
        let server = start(1, site);
        for request in &requests {
            let mut at_once = Raw::connect(server.local_addr());
            at_once.send(&request.bytes);
            assert_answered(&mut at_once, request);
            let mut chopped = Raw::connect(server.local_addr());
            let part_bytes = if request.bytes.len() < 400 { 1 } else { 97 };
            request.bytes.chunks(part_bytes).for_each(|bytes| chopped.try_send(bytes));
            assert_answered(&mut chopped, request);
        }
        for Request { name, bytes, status } in &requests {
            let mut memory = TestServer::new(site(Server::builder())).expect("a right server");
            let (_, at_once) = answer_in_memory(&mut memory, [bytes, b""]);
            assert!(at_once.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{name}");
            for cut in (1..bytes.len()).step_by((bytes.len() / 400 * 7).max(1)) {
                let (head, tail) = bytes.split_at(cut);
                if cut % 64 == 0 {
                    memory = TestServer::new(site(Server::builder())).expect("a right server");
                }
                let (client, answer) = answer_in_memory(&mut memory, [head, tail]);
                assert!(answer == at_once, "{name}, cut at {cut}");
                assert_eq!(memory.has_ended(client), *status != 101, "{name}, cut at {cut}");
                if *status == 101 {
                    memory.send_bytes(client, frame(TEXT, b"hi"));
                    assert_eq!(frames(memory.take_bytes(client))[0].payload, b"hi", "{name}");
                }
            }
        }
    });
}

#[test]
fn what_the_rfc_requires_is_required_once_and_well_formed() {
    let twice = |line: &str| line.repeat(2);
    run(vec![
        request("GET", "POST", 405),
        request("GET", "PUT", 405),
        request("GET", "get", 405),
        request("GET", "HEAD", 426),
        request("HTTP/1.1", "HTTP/1.0", 400),
        request("HTTP/1.1", "HTTP/0.9", 400),
        request("HTTP/1.1", "HTTP/1.2", 400),
        request("HTTP/1.1", "HTTP/2.0", 400),
        request("HTTP/1.1", "HTTP/11", 400),
        request("HTTP/1.1", "http/1.1", 400),
        request(" HTTP/1.1", "", 400),
        request("GET / HTTP", "GET HTTP", 400),
        request("GET / HTTP", "GET  / HTTP", 400),
        request(HOST, "", 400),
        request(HOST, twice(HOST), 400),
        request(HOST, "Host: a\r\nHost: b\r\n", 400),
        request(UPGRADE, "", 426),
        request(UPGRADE, "Upgrade: \r\n", 426),
        request(UPGRADE, "Upgrade: h2c\r\n", 426),
        request(UPGRADE, "Upgrade: websockets\r\n", 426),
        request(UPGRADE, "Upgrade: web socket\r\n", 426),
        request(UPGRADE, "Upgrade: \"websocket\"\r\n", 426),
        request(CONNECTION, "", 400),
        request(CONNECTION, "Connection: \r\n", 400),
        request(CONNECTION, "Connection: keep-alive\r\n", 400),
        request(CONNECTION, "Connection: Upgraded\r\n", 400),
        request(CONNECTION, "Connection: close\r\n", 400),
        request(VERSION, "", 426),
        request(VERSION, twice(VERSION), 426),
        request(VERSION, "Sec-WebSocket-Version: \r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 0\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 7\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 8\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 14\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 013\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 13.0\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 13, 8\r\n", 426),
        request(VERSION, "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13\r\n", 426),
    ]);
}

#[test]
fn a_key_is_sixteen_bytes_in_base64_once() {
    let key = |value: &str| request(KEY, format!("Sec-WebSocket-Key: {value}\r\n"), 400);
    run(vec![
        request(KEY, "", 400),
        request(KEY, KEY.repeat(2), 400),
        key(""),
        key("="),
        key("=="),
        key("dGhlIHNhbXBsZSBub25jZQ"),
        key("dGhlIHNhbXBsZSBub25jZQ="),
        key("dGhlIHNhbXBsZSBub25jZQ==="),
        key("dGhlIHNhbXBsZSBub25jZQ===="),
        key("dGhlIHNhbXBsZSBub25jZTEyMw=="),
        key("dGhlIHNhbXBsZSBub25j"),
        key("dGhlIHNhbXBsZSBub24="),
        // 13, 15, 17 and 32 bytes, one of the paddings in another place.
        key("AAAAAAAAAAAAAAAAAA=="),
        key("AAAAAAAAAAAAAAAAAAAA"),
        key("AAAAAAAAAAAAAAAAAAAAAAA="),
        key("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        key("=AAAAAAAAAAAAAAAAAAAAAA="),
        key("AAAAAAAAAAAAAAAAAAAAA==="),
        key("AAAAAAAAAAAAAAAAAAAAA\u{e9}=="),
        key("dGhl-HNhbXBsZSBub25jZQ=="),
        key("dGhl_HNhbXBsZSBub25jZQ=="),
        key("dGhl HNhbXBsZSBub25jZQ=="),
        key("dGhl,HNhbXBsZSBub25jZQ=="),
        key("\"dGhlIHNhbXBsZSBub25jZQ==\""),
        key(&"A".repeat(4000)),
    ]);
}

/// Two bits of the last digit belong to the sixteenth byte. Section 4.1 sets others in its example.
#[test]
fn the_spare_bits_of_a_key_are_ignored_and_the_key_is_hashed_as_it_was_sent() {
    within(LIMIT, || {
        let server = start(1, site);
        let digits = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']);
        for key in digits.map(|digit| format!("AQIDBAUGBwgJCgsMDQ4PE{digit}==")) {
            let Request { bytes, .. } = request(KEY, format!("Sec-WebSocket-Key: {key}\r\n"), 101);
            let mut raw = Raw::connect(server.local_addr());
            raw.send(bytes);
            let answer = raw.head();
            assert_eq!(answer.status, 101, "{key}");
            let proof = tungstenite::handshake::derive_accept_key(key.as_bytes());
            assert_eq!(answer.header("Sec-WebSocket-Accept"), Some(&*proof), "{key}");
        }
    });
}

#[test]
fn a_body_and_whatever_may_smuggle_one_is_refused() {
    run(vec![
        adding("Content-Length: 1", 400),
        adding("Content-Length: 5", 400),
        adding("Content-Length: -1", 400),
        adding("Content-Length: +0", 400),
        adding("Content-Length: 0x0", 400),
        adding("Content-Length: ", 400),
        adding("Content-Length: 0, 5", 400),
        adding("Content-Length: 0\r\nContent-Length: 5", 400),
        adding("Content-Length: 99999999999999999999999999", 400),
        adding("Transfer-Encoding: chunked", 400),
        adding("Transfer-Encoding: identity", 400),
        adding("transfer-encoding:\tgzip, chunked", 400),
    ]);
}

#[test]
fn what_is_not_http_is_refused() {
    run(vec![
        request("GET", "G\0T", 400),
        request("GET", "G T", 400),
        request("GET", "GET,", 400),
        request("GET", "", 400),
        request("GET", " GET", 400),
        request("GET", "\u{feff}GET", 400),
        request("GET / ", "GET /\0 ", 400),
        request("GET / ", "GET /\r ", 400),
        request("Host: ", "Host : ", 400),
        request("Host: ", "Ho st: ", 400),
        request("Host: ", " Host: ", 400),
        request("Host: ", "Höst: ", 400),
        request("Host: ", "Host", 400),
        request("Host: ", ": ", 400),
        adding("no colon", 400),
        adding("X: a\0b", 400),
        adding("X: a\rb", 400),
        adding("X: a\u{7f}b", 400),
        adding("X: a\u{1b}b", 400),
        // Line folding, which RFC 9112 section 5.2 has abolished.
        adding("X: a\r\n folded", 400),
        adding("X: a\r\n\tfolded", 400),
        request("Upgrade: websocket", "Upgrade:\r\n websocket", 400),
    ]);
}

/// RFC 9112 section 3.2.2, RFC 9110 sections 4.2.1 and 4.2.4.
#[test]
fn the_authority_of_an_absolute_target_is_well_formed_and_names_no_user() {
    let target = |target: &str| request("GET / ", format!("GET {target} "), 400);
    run(vec![
        target("http://user@localhost/"),
        target("http://user:secret@localhost/"),
        target("https://@localhost/"),
        target("http:///"),
        target("ws://"),
        target("wss://?x"),
        target("http://:80/"),
        target("http://localhost:8o/"),
        target("http://localhost:+80/"),
        target("http://localhost:65536/"),
        target("http://localhost:80:80/"),
        target("http://[::1/"),
        target("http://[::1]80/"),
        target("http://[localhost]/"),
        target("http://local\\host/"),
        target("http://local^host/"),
        target("http://local%zzhost/"),
        target("http://local%6"),
        target("http://l\u{f6}cal/"),
        // The authority does not stand in for the header (section 3.2).
        request("/ HTTP/1.1\r\nHost: localhost", "http://localhost/ HTTP/1.1", 400),
        request("GET / ", "GET http:/localhost/ ", 404),
        request("GET / ", "GET ftp://localhost/ ", 404),
        request("GET / ", "GET localhost ", 404),
        request("GET / ", "GET * ", 404),
    ]);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let many = |count: usize| (0..count).map(|at| format!("X-{at}: y\r\n")).collect::<String>();
    let long = |count: usize| format!("X: {}", "a".repeat(count));
    let room = (16 << 10) - upgrade("/").len() - "X: \r\n".len();
    run(vec![
        adding(long(room), 101),
        adding(long(room + 1), 431),
        adding(long(20_000), 431),
        request(VERSION, many(58) + VERSION + "Y: last\r\n", 101),
        request(VERSION, many(59) + VERSION, 101),
        request(VERSION, many(60) + VERSION, 431),
        request("GET /", format!("GET /?{}", "q".repeat(17_000)), 431),
    ]);
}

#[test]
fn what_the_rfc_leaves_open_is_accepted() {
    run(vec![
        request("", "", 101),
        request(UPGRADE, "upgrade: WebSocket\r\n", 101),
        request(UPGRADE, "UPGRADE:WEBSOCKET\r\n", 101),
        request(UPGRADE, "Upgrade: h2c,  WebSocket\r\n", 101),
        request(UPGRADE, "Upgrade: websocket, h2c\r\n", 101),
        request(UPGRADE, "Upgrade: h2c\r\nUpgrade: websocket\r\n", 101),
        request(UPGRADE, UPGRADE.repeat(2), 101),
        request(UPGRADE, "Upgrade: \t websocket \t \r\n", 101),
        request(CONNECTION, "Connection: keep-alive, Upgrade\r\n", 101),
        request(CONNECTION, "connection: upgrade,keep-alive\r\n", 101),
        request(CONNECTION, "Connection:UPGRADE,,\tkeep-alive\r\n", 101),
        request(CONNECTION, "Connection: keep-alive\r\nconnection: upgrade\r\n", 101),
        request(CONNECTION, CONNECTION.repeat(2), 101),
        request(HOST, "Host: \r\n", 101),
        request(HOST, "hOST:[::1]:80\r\n", 101),
        request(HOST, "Host: example.com:8080\r\n", 101),
        request(VERSION, "SEC-WEBSOCKET-VERSION:  13 \r\n", 101),
        request("Sec-WebSocket-Key", "sec-websocket-key", 101),
        adding("Content-Length: 0", 101),
        adding("Origin: http://localhost", 101),
        adding("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", 101),
        adding("Sec-WebSocket-Protocol: chat, superchat", 101),
        adding("Cookie: a=b; c=\"d e\"", 101),
        adding("X-Empty:", 101),
        adding(b"X-Latin-1: \xE9", 101),
        adding(b"Cookie: \xE9=1\r\nSec-WebSocket-Protocol: \xE9", 101),
        request(CONNECTION, b"Connection: \xE9, Upgrade\r\n", 101),
        request(UPGRADE, b"Upgrade: \xE9\xFF,websocket\r\n", 101),
        adding("!#$%&'*+-.^_`|~: every letter that a name may have", 101),
        request("GET / ", "GET /? ", 101),
        request("GET / ", "GET /?a=1&b=%00 ", 101),
        request("GET / ", "GET http://localhost/ ", 101),
        request("GET / ", "GET HTTP://example.com:8080/?x=/y ", 101),
        request("GET / ", "GET ws://example.com ", 101),
        request("GET / ", "GET https://example.com/ ", 101),
        request("GET / ", "GET WSS://[::1]:/?x ", 101),
        request("GET / ", "GET wSs://ex%61mple-1_a.com:65535 ", 101),
        request(HOST, "Host: h:\r\n", 101),
        request("GET / ", "GET /nothing ", 404),
        request("GET", "\r\n\r\nGET", 101),
        // RFC 9112 section 2.2 allows a line feed alone.
        Request {
            name: "line feeds alone".to_owned(),
            bytes: upgrade("/").replace("\r\n", "\n").into_bytes(),
            status: 101,
        },
    ]);
}

/// Nothing of it is lost, and nothing is read as something else.
#[test]
fn frames_may_come_with_the_request() {
    within(LIMIT, || {
        let mut answers = BTreeMap::new();
        let stream = [upgrade("/").as_bytes(), &frame(TEXT, b"hi"), &frame(0x88, b"")].concat();
        for cut in 0..stream.len() {
            let mut server = TestServer::new(site(Server::builder())).expect("a right server");
            let (head, tail) = stream.split_at(cut);
            let (client, answer) = answer_in_memory(&mut server, [head, tail]);
            assert!(server.has_ended(client), "cut at {cut}");
            answers.insert(answer, cut);
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
        let (answer, _) = answers.pop_first().expect("one");
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\x81\x02hi\x88\0"));
    });
}
