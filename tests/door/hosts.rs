//! Which host a request names, and which origins are that host's own, also as programs that are no
//! browsers write them.

use peregrine::{Callbacks, RunningServer};

use super::{LIMIT, echo};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::{Raw, upgrade};

/// The status of an upgrade for this target, with this `Host` and this `Origin`.
fn status(server: &RunningServer, target: &str, host: &str, origin: &str) -> u16 {
    let request = upgrade(target).replacen("Host: localhost", &format!("Host: {host}"), 1);
    let mut raw = Raw::connect(server.local_addr());
    raw.send(request.replacen("Host", &format!("Origin: {origin}\r\nHost"), 1));
    raw.head().status
}

#[test]
fn the_authority_of_an_absolute_target_counts_and_the_host_header_does_not() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let server = start(shard_count, |builder| builder.websocket("/a", echo()));
            for (target, host, origin, expected) in [
                ("/a", "own.example", "https://own.example", 101),
                ("http://own.example/a", "own.example", "https://own.example", 101),
                ("https://own.example/a?x=/b", "proxy.example", "https://own.example", 101),
                ("WSS://Own.Example:443/a", "proxy.example", "https://own.example", 101),
                ("ws://own.example:/a", "", "http://own.example", 101),
                ("http://[::1]:8080/a", "own.example", "http://[0::1]:8080", 101),
                ("http://own.example/a", "evil.example", "https://evil.example", 403),
                ("http://own.example:81/a", "own.example", "https://own.example", 403),
                ("http://own.example/a", "own.example:8080", "https://own.example:8080", 403),
                ("https://own.example", "own.example", "https://own.example", 404),
                ("https://own.example/b", "own.example", "https://own.example", 404),
                ("http://u@own.example/a", "own.example", "https://own.example", 400),
            ] {
                let status = status(&server, target, host, origin);
                assert_eq!(status, expected, "{target} of {host} from {origin}");
            }
        }
    });
}

#[test]
fn an_empty_port_is_the_schemes_own() {
    within(LIMIT, || {
        let server = start(1, |builder| builder.websocket("/", echo()));
        for (host, origin, expected) in [
            ("h:", "http://h", 101),
            ("h:", "https://h:443", 101),
            ("[::1]:", "http://[::1]", 101),
            ("h", "http://h:", 101),
            ("h:", "http://h:81", 403),
            (":", "http://", 403),
            (":", "http://:", 403),
            ("h::", "http://h", 403),
            ("h:http", "http://h", 403),
        ] {
            assert_eq!(status(&server, "/", host, origin), expected, "{host} from {origin}");
        }
    });
}

/// No browser writes an origin so, whatever page it shows.
#[test]
fn the_own_host_passes_with_a_slash_at_its_end_and_without_a_scheme() {
    within(LIMIT, || {
        let listing =
            |origin| move |builder: peregrine::ServerBuilder| builder.allow_origin(origin);
        let strict = start(1, |builder| builder.websocket("/", echo()));
        let app = listing("https://app.example/");
        let app = start(1, |builder| app(builder).websocket("/", echo()));
        let device = listing("http://device.example:8080");
        let device = start(1, |builder| device(builder).websocket("/", echo()));
        for (server, host, origin, expected) in [
            (&strict, "h", "http://h/", 101),
            (&strict, "h:8080", "http://h:8080/", 101),
            (&strict, "h", "h", 101),
            (&strict, "h", "H/", 101),
            (&strict, "h:8080", "h:8080", 101),
            (&strict, "[::1]:80", "[::1]:80", 101),
            (&strict, "h", "wss://h", 101),
            (&strict, "h", "http://h//", 403),
            (&strict, "h", "http://h/page", 403),
            (&strict, "h", "//h", 403),
            (&strict, "h", "h:", 403),
            (&strict, "h", "h:8080", 403),
            (&strict, "h:8080", "h", 403),
            (&strict, "h", "other", 403),
            (&strict, "h", "h other", 403),
            (&strict, "", "", 403),
            (&strict, "", "/", 403),
            // A sandboxed frame of any page, at a server whose name is chosen badly.
            (&strict, "null", "null", 403),
            (&strict, "null", "NULL/", 403),
            (&strict, "data", "data:", 403),
            (&app, "h", "https://app.example", 101),
            (&app, "h", "https://app.example/", 101),
            (&app, "h", "app.example", 101),
            (&app, "h", "app.example:443", 101),
            (&app, "h", "wss://app.example", 101),
            (&app, "h", "ws://app.example", 403),
            (&app, "h", "app.example:80", 403),
            (&device, "h", "device.example:8080", 101),
            (&device, "h", "ws://device.example:8080", 101),
            (&device, "h", "device.example", 403),
        ] {
            assert_eq!(status(server, "/", host, origin), expected, "{host} from {origin:?}");
        }
    });
}

/// What a refusal says is to be written can be written, and helps.
#[test]
fn the_line_that_a_refusal_tells_lets_the_origin_in() {
    within(LIMIT, || {
        let server = start(1, |builder| builder.websocket("/", echo()));
        for origin in [
            "https://app.example",
            "https://app.example/",
            "http://app.example:8080",
            "app.example",
            "app.example:8080",
            "wss://app.example",
            "ws://app.example:81/",
            "tauri://app",
            "file://",
            "null",
        ] {
            let mut raw = Raw::connect(server.local_addr());
            let header = format!("Origin: {origin}\r\nHost");
            raw.send(upgrade("/").replacen("Host", &header, 1));
            let answer = raw.answer();
            assert_eq!(answer.status, 403, "{origin}");
            let text = String::from_utf8(answer.body).expect("text");
            let told = text.split("allow_origin(\"").nth(1).and_then(|rest| rest.split('"').next());
            let told = told.unwrap_or_else(|| panic!("nothing to write in {text:?}")).to_owned();
            let open = start(1, |builder| builder.allow_origin(told).websocket("/", echo()));
            assert_eq!(status(&open, "/", "localhost", origin), 101, "{text}");
        }
    });
}

#[test]
fn a_handler_sees_the_host_that_counts() {
    within(LIMIT, || {
        let told = Callbacks::with_upgrade(|request| {
            peregrine::Upgrade::accept(format!("{:?} {:?}", request.host(), request.path()))
        })
        .on_connect(|ws| ws.session().clone().into());
        let server = start(1, |builder| builder.websocket("/a", told));
        for (target, host, expected) in [
            ("/a", "own.example:80", "Some(\"own.example:80\") \"/a\""),
            ("wss://Own.Example:/a?x", "proxy", "Some(\"Own.Example:\") \"/a\""),
            ("/a", "", "Some(\"\") \"/a\""),
            ("/a", "\u{e9}", "Some(\"\u{e9}\") \"/a\""),
        ] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(upgrade(target).replacen("localhost", host, 1));
            assert_eq!(raw.head().status, 101, "{target}");
            assert_eq!(raw.text(), expected);
        }
    });
}
