//! Headers of which a part is malformed: the other parts count as if it were not there.

use peregrine::{Accept, Callbacks, Upgrade};

use super::{LIMIT, upgrade_with};
use crate::common::{SHARD_COUNTS, start, within};
use crate::raw::Raw;

/// Each character as one byte, as ISO 8859-1 has them: most of them are no UTF-8.
fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a letter of ISO 8859-1")).collect()
}

/// Tells the cookies `a` to `d`.
fn cookies() -> Callbacks<String> {
    Callbacks::with_upgrade(|request| {
        let cookies = ["a", "b", "c", "d"].map(|name| request.cookie(name).unwrap_or("-"));
        Upgrade::accept(cookies.join("|"))
    })
    .on_connect(|ws| ws.session().clone().into())
}

#[test]
fn a_cookie_that_is_no_text_hides_no_other() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let server = start(shard_count, |builder| builder.websocket("/", cookies()));
            for (headers, expected) in [
                ("Cookie: a=1; b=\u{e9}; c=2\r\n", "1|-|2|-"),
                ("Cookie: \u{e9}=1; a=2\r\n", "2|-|-|-"),
                ("Cookie: \u{e9};a=2;\u{ff}\r\n", "2|-|-|-"),
                ("Cookie: a=\u{e9}; a=2\r\n", "2|-|-|-"),
                ("Cookie: a=\u{e9}\r\nCookie: b=3;\tc=\u{e4}=; d==\r\n", "-|3|-|="),
                // UTF-8, byte by byte.
                ("Cookie: a=\u{c3}\u{a9}; b=\u{c3}; c=\u{a9}\r\n", "\u{e9}|-|-|-"),
                ("Cookie: a =1; B=2; =3; c\r\n", "-|-|-|-"),
            ] {
                let mut raw = Raw::connect(server.local_addr());
                raw.send(latin_1(&upgrade_with(headers)));
                assert_eq!(raw.head().status, 101, "{headers:?}");
                assert_eq!(raw.text(), expected, "{headers:?}");
            }
        }
    });
}

/// Speaks the first subprotocol that is offered, as the documentation shows it; tells all.
fn obliging() -> Callbacks<String> {
    Callbacks::with_upgrade(|request| {
        let accept = Accept::new(request.subprotocols().collect::<Vec<_>>().join(" "));
        match request.subprotocols().next() {
            Some(name) => accept.subprotocol(name),
            None => accept,
        }
    })
    .on_connect(|ws| {
        let chosen = ws.subprotocol().map(str::to_owned);
        format!("{:?} of {}", chosen, ws.session()).into()
    })
}

#[test]
fn a_subprotocol_is_offered_if_it_can_be_answered_whatever_stands_beside_it() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let server = start(shard_count, |builder| builder.websocket("/", obliging()));
            for (offered, chosen, all) in [
                ("v2, v1", Some("v2"), "v2 v1"),
                ("\u{e9}, v1,\u{ff}\u{e9},v0", Some("v1"), "v1 v0"),
                ("\u{e9}", None, ""),
                ("\u{e9}\r\nSec-WebSocket-Protocol: v1", Some("v1"), "v1"),
                // What no browser can offer, but programs do.
                ("YWJjZA==", Some("YWJjZA=="), "YWJjZA=="),
                ("v1, Pj4/Pz8+Zm9v/w==", Some("v1"), "v1 Pj4/Pz8+Zm9v/w=="),
                ("urn:x@[1](2)<3>{4}?;5", Some("urn:x@[1](2)<3>{4}?;5"), "urn:x@[1](2)<3>{4}?;5"),
                ("a b, \tv1\t", Some("v1"), "v1"),
                ("\"v1\", \"v, 2\", v\\3, v4", Some("v4"), "v4"),
                (",, ,", None, ""),
                ("\u{c3}\u{a9}, v1", Some("v1"), "v1"),
            ] {
                let mut raw = Raw::connect(server.local_addr());
                let header = format!("Sec-WebSocket-Protocol: {offered}\r\n");
                raw.send(latin_1(&upgrade_with(&header)));
                let answer = raw.head();
                assert_eq!(answer.status, 101, "{offered:?}");
                assert_eq!(answer.header("Sec-WebSocket-Protocol"), chosen, "{offered:?}");
                assert_eq!(raw.text(), format!("{chosen:?} of {all}"));
            }
        }
    });
}

/// Nobody gets trusted by it: the walk ends where it always has.
#[test]
fn an_entry_of_a_proxy_that_is_no_text_hides_none_on_its_right() {
    within(LIMIT, || {
        let mirror = || Callbacks::<()>::new().on_connect(|ws| ws.client_ip().to_string().into());
        let server = start(1, |builder| {
            builder.trust_proxies(["127.0.0.1", "10.0.0.0/8"]).websocket("/", mirror())
        });
        for (header, expected) in [
            ("X-Forwarded-For: \u{e9}, 192.0.2.1", "192.0.2.1"),
            ("X-Forwarded-For: 6.6.6.6, \u{e9}, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("X-Forwarded-For: 192.0.2.1, \u{e9}", "127.0.0.1"),
            ("X-Forwarded-For: 192.0.2.1, \u{e9}, 10.0.0.2", "10.0.0.2"),
            ("Forwarded: for=\u{e9}, for=192.0.2.1", "192.0.2.1"),
            ("Forwarded: \u{e9}=\"\u{ff}, for=192.0.2.1", "192.0.2.1"),
            ("Forwarded: for=192.0.2.1, for=\u{e9}", "127.0.0.1"),
            ("Forwarded: for=192.0.2.1;by=\u{e9}", "127.0.0.1"),
        ] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(latin_1(&upgrade_with(&format!("{header}\r\n"))));
            assert_eq!(raw.head().status, 101, "{header:?}");
            assert_eq!(raw.text(), expected, "{header:?}");
        }
    });
}
