//! What stands in paths and queries, against a plain reading of the rules.
//!
//! Knows this folder's patterns, routes and queries. Must not know handlers.

use proptest::prelude::*;

use super::{Query, Routes};
use crate::cases;

/// RFC 3986 section 2.1, byte by byte; then what is not UTF-8 is replaced.
fn decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two digits"));
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A part of a path: what may be sent there, and what should not be.
fn part() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![4 => "[a-z0-9._~-]", 3 => "%[0-9a-fA-F]{2}", 1 => "[%é+ ]"],
        1..8,
    )
    .prop_map(|pieces| pieces.concat())
}

#[test]
fn what_stands_in_a_path_is_found_decoded() {
    let mut routes = Routes::default();
    assert!(routes.add_endpoint("/rooms/{room}/files/{*file}", 7).is_ok());
    let file = prop::collection::vec(part(), 1..3).prop_map(|parts| parts.join("/"));
    cases::check(256, (part(), file), |(room, file)| {
        let (route, params) = routes.find(&format!("/rooms/{room}/files/{file}")).expect("a route");
        assert_eq!(route.endpoint, Some(7));
        assert_eq!(params.find("room"), Some(&*decoded(&room)));
        assert_eq!(params.find("file"), Some(&*decoded(&file)));
        assert_eq!(params.find("other"), None);
        assert!(routes.find(&format!("/rooms/{room}/{file}/x")).is_none());
    });
}

/// Encodes some of the letters that need not be, and decodes nothing: the choice is one bit each.
fn encoded_more(path: &str, choices: u64) -> String {
    let mut out = String::new();
    for (at, byte) in path.bytes().enumerate() {
        let is_chosen = choices >> (at % 64) & 1 == 1;
        match byte {
            // What may be half of something encoded is left alone.
            b'g'..=b'z' | b'_' | b'~' if is_chosen => out += &format!("%{byte:02x}"),
            0x80.. => out += &format!("%{byte:02X}"),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[test]
fn a_path_finds_the_same_however_it_is_encoded() {
    let mut routes = Routes::default();
    for (index, pattern) in
        ["/{*all}", "/r\u{f6}\u{f6}m/{room}", "/room/{room}/x"].iter().enumerate()
    {
        let index = u16::try_from(index).expect("few");
        assert!(routes.add_endpoint(pattern, index).is_ok(), "{pattern}");
    }
    let prefix = prop_oneof![Just("/r\u{f6}\u{f6}m/"), Just("/room/"), Just("/")];
    let end = prop_oneof![Just("/x"), Just("")];
    cases::check(256, (prefix, part(), end, any::<u64>()), |(prefix, part, end, choices)| {
        let path = format!("{prefix}{part}{end}");
        let other = encoded_more(&path, choices);
        let (route, params) = routes.find(&path).expect("a route");
        let (other_route, other_params) = routes.find(&other).expect("a route");
        assert_eq!(route.endpoint, other_route.endpoint, "{path} {other}");
        for name in ["all", "room"] {
            assert_eq!(params.find(name), other_params.find(name), "{path} {other}");
        }
    });
}

/// The embedder may have read it from anywhere.
#[test]
fn any_text_is_a_path_that_is_served_or_refused_and_never_a_panic() {
    let piece = prop_oneof![
        4 => r"[/{}*:%<>.a\u{e9}]{1,3}",
        1 => r"\{[a-c*]{1,2}\}",
        1 => "\\PC{0,4}",
        1 => Just("{a}/{b}".to_owned()),
    ];
    let text =
        prop::collection::vec(piece, 1..12).prop_map(|pieces| format!("/{}", pieces.concat()));
    cases::check(256, prop::collection::vec(text, 1..6), |paths| {
        let mut routes = Routes::default();
        for (index, path) in paths.iter().enumerate() {
            let added = routes.add_page(path, index);
            if added.is_ok() && !path.contains(['{', '}']) {
                let (route, _) =
                    routes.find(path).expect("what is literal is found as it is given");
                assert_eq!(route.page, Some(index), "{path}");
            }
        }
    });
}

#[test]
fn a_query_is_read_as_forms_are_written() {
    let text = prop::collection::vec(
        prop_oneof![3 => part(), 2 => Just("&".into()), 2 => Just("=".into())],
        0..10,
    )
    .prop_map(|pieces: Vec<String>| pieces.concat());
    cases::check(256, text, |text| {
        let form = |text: &str| decoded(&text.replace('+', " "));
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (form(name), form(value))
        };
        let expected: Vec<_> = text.split('&').filter(|part| !part.is_empty()).map(pair).collect();
        let query = Query::new(&text);
        let got: Vec<_> =
            query.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(got, expected);
        for (name, _) in &expected {
            let values: Vec<_> = query.get_all(name).map(str::to_owned).collect();
            let same = expected.iter().filter(|(other, _)| other == name);
            assert_eq!(values, same.map(|(_, value)| value.clone()).collect::<Vec<_>>());
            assert_eq!(query.get(name), values.first().map(String::as_str));
        }
    });
}
