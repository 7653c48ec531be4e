//! Hosts with their ports, as they stand in `Host`, in the target of a request and in origins
//! (RFC 3986 section 3.2).
//!
//! Knows texts. Must not know where they come from.

use std::net::Ipv6Addr;

/// The host of an authority.
#[derive(Clone, Copy, Debug)]
pub(super) enum Host<'t> {
    /// A name or an IPv4 address. Empty for files (`file://`).
    Name(&'t str),
    V6(Ipv6Addr),
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(name), Self::Name(other)) => name.eq_ignore_ascii_case(other),
            (Self::V6(address), Self::V6(other)) => address == other,
            _ => false,
        }
    }
}

impl Host<'_> {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Name(""))
    }
}

/// Splits `host` or `host:port`. Returns `None` if there is anything else, such as a path or a
/// user, or a name with letters that no domain has.
///
/// An empty port is the same as none (RFC 3986 section 6.2.3).
pub(super) fn split_port(authority: &str) -> Option<(Host<'_>, Option<u16>)> {
    let is_domain =
        |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    split(authority, is_domain)
}

/// Whether the text is the authority of an HTTP URL: a host that is not empty, with a port or
/// without, and no user (RFC 9110 sections 4.2.1 and 4.2.4).
pub(crate) fn is_authority(text: &str) -> bool {
    split(text, is_registered_name).is_some_and(|(host, _)| !host.is_empty())
}

fn split(authority: &str, is_name: fn(&str) -> bool) -> Option<(Host<'_>, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (Host::V6(address.parse().ok()?), port)
        }
        None => {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (Host::Name(is_name(name).then_some(name)?), port)
        }
    };
    let digits = match port.strip_prefix(':') {
        Some("") => return Some((host, None)),
        Some(digits) => digits,
        None => return port.is_empty().then_some((host, None)),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, Some(digits.parse().ok().filter(|_| is_number)?)))
}

/// A `reg-name` (RFC 3986 section 3.2.2).
fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let is_fine = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

/// The port that a scheme has if none is named.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    let ports = [("https", 443), ("http", 80), ("wss", 443), ("ws", 80)];
    ports.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)).map(|&(_, port)| port)
}
