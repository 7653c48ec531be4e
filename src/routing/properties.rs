//! What stands in paths and queries, against a plain reading of the rules.

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
        assert_eq!(params.find("room").as_deref(), Some(&*decoded(&room)));
        assert_eq!(params.find("file").as_deref(), Some(&*decoded(&file)));
        assert_eq!(params.find("other"), None);
        assert!(routes.find(&format!("/rooms/{room}/{file}/x")).is_none());
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
            query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        assert_eq!(got, expected);
        for (name, _) in &expected {
            let values: Vec<_> = query.all(name).map(|value| value.into_owned()).collect();
            let same = expected.iter().filter(|(other, _)| other == name);
            assert_eq!(values, same.map(|(_, value)| value.clone()).collect::<Vec<_>>());
            assert_eq!(query.first(name).as_deref(), values.first().map(String::as_str));
        }
    });
}
