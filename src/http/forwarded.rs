//! Who the client is behind proxies that speak HTTP: `Forwarded` (RFC 7239) and the older
//! `X-Forwarded-For`.
//!
//! Each proxy appends the address that it got the request from; entries to the left of it cannot be
//! checked. So the list is read from the right, as long as a trusted proxy wrote the entry.
//!
//! Knows the two headers and the trusted networks. Must not know connections, nor what the address
//! is used for.

use std::net::IpAddr;

use super::{Head, is_token};
use crate::error::Refusal;
use crate::http::network::Networks;

/// The client's address: the peer's, unless that is a trusted proxy which tells another.
///
/// # Errors
/// If a trusted proxy sends both headers and they disagree: it writes one of them, and who sent
/// the other is not known.
pub(crate) fn client_ip(
    head: &Head<'_>,
    peer: IpAddr,
    proxies: &Networks,
) -> Result<IpAddr, Refusal> {
    if !proxies.contains(peer) {
        return Ok(peer);
    }
    let walk = |name, parse: fn(&str) -> Option<IpAddr>| {
        head.first(name).is_some().then(|| {
            let mut client = peer;
            // Each entry is decoded for itself: what a hostile client put left of it is not looked
            // at. A comma within quotes leaves an entry with half of a quote, which is none.
            let entries = head.all(name).rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
            for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
                let told = str::from_utf8(entry).ok().and_then(parse);
                let Some(told) = told.filter(|_| proxies.contains(client)) else { break };
                client = told;
            }
            client
        })
    };
    match (walk("Forwarded", parse_element), walk("X-Forwarded-For", parse_node)) {
        (Some(one), Some(other)) if one != other => Err(Refusal::BadRequest(
            "Forwarded and X-Forwarded-For disagree: the proxy must remove what it does not write.",
        )),
        (one, other) => Ok(one.or(other).unwrap_or(peer)),
    }
}

/// The `for` of an element of `Forwarded` (RFC 7239 section 4), such as
/// `for="[2001:db8::1]:4711";proto=https`. `None` if there is none, or anything is malformed.
fn parse_element(element: &str) -> Option<IpAddr> {
    let mut node = None;
    let mut rest = element;
    while !rest.is_empty() {
        if let Some((name, after)) = rest.split_once('=') {
            let (value, after) = split_value(after)?;
            if !is_token(name) {
                return None;
            }
            if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
                return None;
            }
            rest = after.trim_ascii_start();
        }
        rest = match rest.strip_prefix(';') {
            Some(rest) => rest.trim_ascii_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    parse_node(node?)
}

/// Splits off a token or a quoted string (RFC 9110 section 5.6.4), which keeps its escapes: no
/// address has any. Addresses are taken without quotes, too, as some proxies write them.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return is_token(&value.replace(['[', ']', ':'], "-")).then_some((value, rest));
    };
    let mut is_escaped = false;
    let end = quoted.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some((&quoted[..end], &quoted[end + 1..]))
}

/// An address, with a port or without (RFC 7239 section 6). `unknown` and hidden names are none.
fn parse_node(text: &str) -> Option<IpAddr> {
    // Without brackets: only X-Forwarded-For has IPv6 so.
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => {
            let (address, port) = text.split_at(text.find(':')?);
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    let is_port = port.strip_prefix(':').is_some_and(is_token);
    (port.is_empty() || is_port).then(|| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    /// Whom the server at 10.0.0.0/8 sees, who was reached by `peer` with these headers.
    fn client(peer: &str, headers: &[(&str, &str)]) -> Result<String, Refusal> {
        let headers: Vec<_> = headers
            .iter()
            .map(|&(name, value)| httparse::Header { name, value: value.as_bytes() })
            .collect();
        let (method, path, query) = ("GET", "/", "");
        let head = Head { method, authority: None, path, query, version: 1, headers: &headers };
        let proxies = ["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
        let proxies = Networks::parse(&proxies).expect("networks");
        let client = client_ip(&head, peer.parse().expect("an address"), &proxies)?;
        Ok(client.to_string())
    }

    fn told(name: &str, value: &str) -> String {
        client(PROXY, &[(name, value)]).expect("one header")
    }

    #[test]
    fn who_is_no_trusted_proxy_is_not_listened_to() {
        for name in ["X-Forwarded-For", "Forwarded"] {
            let headers = [(name, "1.1.1.1"), (name, "for=1.1.1.1"), (name, "10.0.0.2")];
            assert_eq!(client("192.0.2.1", &headers), Ok("192.0.2.1".to_owned()));
        }
        let both = [("Forwarded", "for=1.1.1.1"), ("X-Forwarded-For", "2.2.2.2")];
        assert_eq!(client("192.0.2.1", &both), Ok("192.0.2.1".to_owned()));
        assert_eq!(client(PROXY, &[]), Ok(PROXY.to_owned()));
    }

    #[test]
    fn the_walk_ends_at_the_first_who_is_not_trusted() {
        for (value, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1, 10.0.0.2,10.0.0.3", "192.0.2.1"),
            ("10.0.0.9, 192.0.2.1", "192.0.2.1"),
            ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::1, fd00::1", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, ::ffff:192.0.2.1", "192.0.2.1"),
            (" ,192.0.2.1 ,, ", "192.0.2.1"),
            ("", PROXY),
            (",", PROXY),
        ] {
            assert_eq!(told("x-forwarded-for", value), expected, "{value:?}");
        }
        let lines = ["6.6.6.6", "192.0.2.1, 10.0.0.2", "10.0.0.3"];
        let lines = lines.map(|value| ("X-Forwarded-For", value));
        assert_eq!(client(PROXY, &lines), Ok("192.0.2.1".to_owned()));
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_proxy_that_wrote_it() {
        for value in [
            "unknown",
            "_hidden",
            "192.0.2.1 x",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:8 0",
            "[::1",
            "[::1]x",
            "[1.1.1.1]",
            "::1]",
            "\"192.0.2.1\"",
            "for=192.0.2.1",
            "192.0.2.1;",
            "\u{e9}",
            "1.1.1.1\u{a0}",
            "fe80::1%eth0",
            "0x7f.1",
            "127.1",
            "01.1.1.1",
        ] {
            assert_eq!(told("X-Forwarded-For", value), PROXY, "{value:?}");
            assert_eq!(told("X-Forwarded-For", &format!("6.6.6.6, {value}, 10.0.0.2")), "10.0.0.2");
            assert_eq!(told("X-Forwarded-For", &format!("{value}, 192.0.2.1")), "192.0.2.1");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_writes_it() {
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1\"", "192.0.2.1"),
            ("FOR=\"192.0.2.1:47011\"", "192.0.2.1"),
            ("for=\"192.0.2.1:_hidden\"", "192.0.2.1"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=[2001:db8::1]", "2001:db8::1"),
            ("for=192.0.2.1;proto=http;by=203.0.113.43", "192.0.2.1"),
            ("proto=http; host=\"a;b=\\\"c\" ;for=192.0.2.1;", "192.0.2.1"),
            ("for=6.6.6.6, for=192.0.2.1", "192.0.2.1"),
            ("for=6.6.6.6, for=192.0.2.1, for=10.0.0.2;by=x", "192.0.2.1"),
            ("for=\"6.6.6.6, for=192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(told("Forwarded", value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_malformed_element_of_forwarded_tells_nothing() {
        for value in [
            "for",
            "for=",
            "=192.0.2.1",
            "by=192.0.2.1",
            "192.0.2.1",
            "for=unknown",
            "for=_a",
            "for=192.0.2.1;for=192.0.2.1",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1 proto=http",
            "for=192.0.2.1;x",
            "for=192.0.2.1;x=\\\"",
            "for=\"192.0.2.\\1\"",
            "\u{e9}=1;for=1.1.1.1",
        ] {
            assert_eq!(told("Forwarded", value), PROXY, "{value:?}");
        }
    }

    /// A proxy that passes on what the client says, in quotes, lets it place a comma.
    #[test]
    fn nothing_can_be_smuggled_through_the_quotes() {
        for host in [
            "x, for=6.6.6.6",
            "x, for=6.6.6.6, y",
            "x, for=6.6.6.6;a=",
            "x, for=6.6.6.6;a=\\\"b",
            "\\\", for=6.6.6.6;a=\\\"",
            "x, for=6.6.6.6;",
            "x, for=6.6.6.6;a=b;",
        ] {
            for end in ["", ";proto=https", ";proto=\"https\"", ";a=\"\"", ";a=\";b=\""] {
                let value = format!("for=192.0.2.1;host=\"{host}\"{end}");
                let client = told("Forwarded", &value);
                assert!(client == PROXY || client == "192.0.2.1", "{value:?}: {client}");
            }
        }
    }

    #[test]
    fn two_headers_must_agree() {
        let both = |forwarded, other| {
            client(PROXY, &[("Forwarded", forwarded), ("X-Forwarded-For", other)])
        };
        assert_eq!(both("for=192.0.2.1", "6.6.6.6, 192.0.2.1"), Ok("192.0.2.1".to_owned()));
        for (forwarded, other) in
            [("for=6.6.6.6", "192.0.2.1"), ("for=unknown", "192.0.2.1"), ("for=6.6.6.6", "")]
        {
            assert!(matches!(both(forwarded, other), Err(Refusal::BadRequest(_))), "{forwarded}");
        }
    }
}
