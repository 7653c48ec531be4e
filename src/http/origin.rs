//! Which web pages may open WebSockets here. A browser lets any page connect anywhere, with the
//! user's cookies; the `Origin` header names the page's site (RFC 6454, RFC 6455 section 10.2).
//!
//! Knows origins and hosts as text; must not know endpoints.

use super::host::{Host, default_port, split_port};
use super::{Head, Response};
use crate::error::Error;

/// How much of a refused origin is told back, in characters.
const REPORTED_CHARS: usize = 200;

/// The origins from which an upgrade may come. A request without `Origin` is not a browser's, and
/// passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origins {
    /// The server's own host, as the [request](Head::host) names it.
    #[default]
    Own,
    /// The server's own host, and these; as they were given.
    Listed(Vec<String>),
    /// All.
    Any,
}

impl Origins {
    /// Adds an origin to the server's own host. What is wrong with it is for
    /// [`validate`](Self::validate) to say.
    pub(crate) fn allow(&mut self, origin: String) {
        match self {
            Self::Own => *self = Self::Listed(vec![origin]),
            Self::Listed(listed) => listed.push(origin),
            Self::Any => {}
        }
    }

    /// Refuses a listed origin that no browser would ever send.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Self::Listed(listed) = self else { return Ok(()) };
        for origin in listed {
            if let Err(problem) = check_listed(origin) {
                return Err(Error::Origin { origin: origin.clone(), problem });
            }
        }
        Ok(())
    }

    /// Whether an upgrade may come from where it says; if not, the answer, which tells the
    /// developer what to write if it should.
    pub(crate) fn check(&self, head: &Head<'_>) -> Result<(), Response> {
        let mut given = head.all("Origin");
        let (Some(text), false) = (given.next(), *self == Self::Any) else { return Ok(()) };
        if given.next().is_some() {
            return Err(refuse("There is more than one Origin header."));
        }
        let text = str::from_utf8(text).ok().map(str::trim_ascii);
        let Some((text, origin)) = text.and_then(|text| Some((text, Origin::parse(text)?))) else {
            return Err(refuse("The Origin header is malformed."));
        };
        if origin.is_own(head) || self.lists(&origin) {
            return Ok(());
        }
        let told: String = to_list(text).chars().take(REPORTED_CHARS).collect();
        Err(refuse(format!(
            "Pages of {told} may not open WebSockets here. If they should, the server has to be \
             built with .allow_origin(\"{told}\")"
        )))
    }

    fn lists(&self, origin: &Origin<'_>) -> bool {
        let Self::Listed(listed) = self else { return false };
        listed.iter().filter_map(|listed| Origin::parse(listed)).any(|listed| origin.is(&listed))
    }
}

fn refuse(text: impl Into<std::borrow::Cow<'static, str>>) -> Response {
    Response::new(403).with_text(text)
}

/// An origin that was sent, as it can be [allowed](Origins::allow).
fn to_list(origin: &str) -> String {
    let origin = without_slash(origin);
    match origin.split_once("://") {
        Some((scheme, authority)) => format!("{}://{authority}", page_scheme(scheme)),
        None if is_null(origin) => "null".to_owned(),
        None => format!("https://{origin}"),
    }
}

/// What is wrong with an origin that the embedder lists.
fn check_listed(origin: &str) -> Result<(), &'static str> {
    let scheme = origin.split_once("://").map_or("", |(scheme, _)| scheme);
    match Origin::parse(origin) {
        Some(Origin::Page { .. }) if page_scheme(scheme) != scheme => {
            Err("a page's origin begins with http:// or https://")
        }
        Some(Origin::Page { .. } | Origin::Null) => Ok(()),
        _ if origin.contains('*') => Err("it has a wildcard; there is .any_origin()"),
        _ => Err("it is not of the form https://host or https://host:port"),
    }
}

/// An origin (RFC 6454 section 6.2), or what a program writes in its place that is no browser.
///
/// A browser writes `null`, or a scheme and a host, and a port unless it is the scheme's own.
/// Whatever else is understood here cannot come from a page. That is why it may be generous.
#[derive(Clone, Copy, Debug)]
enum Origin<'t> {
    /// A page that has no origin to speak of: a sandboxed frame, a redirect across origins.
    Null,
    /// `port` is the scheme's own if none is named.
    Page { scheme: &'t str, host: Host<'t>, port: Option<u16> },
    /// A host without a scheme: no browser's.
    Bare { host: Host<'t>, port: Option<u16> },
}

impl<'t> Origin<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let text = without_slash(text);
        if is_null(text) {
            return Some(Self::Null);
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            let (host, port) = split_port(text)?;
            // `data:` and the like are no hosts.
            let is_bare = !host.is_empty() && !text.ends_with(':');
            return is_bare.then_some(Self::Bare { host, port });
        };
        let is_scheme_byte = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
            return None;
        }
        let (host, port) = split_port(authority)?;
        let scheme = page_scheme(scheme);
        Some(Self::Page { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    /// Whether it is the host that the request was sent to. The scheme is not compared: a proxy
    /// may have taken the encryption off; a missing port means the same in both.
    fn is_own(&self, head: &Head<'_>) -> bool {
        let Some((own_host, own_port)) = head.host().and_then(split_port) else { return false };
        match self {
            Self::Null => false,
            Self::Page { scheme, host, port } => {
                !host.is_empty()
                    && *host == own_host
                    && *port == own_port.or_else(|| default_port(scheme))
            }
            Self::Bare { host, port } => *host == own_host && *port == own_port,
        }
    }

    /// Whether it is one that is listed. Without a scheme, it is one of the same host and port.
    fn is(&self, listed: &Self) -> bool {
        match (self, listed) {
            (Self::Null, Self::Null) => true,
            (
                Self::Page { scheme, host, port },
                Self::Page { scheme: listed_scheme, host: listed_host, port: listed_port },
            ) => {
                scheme.eq_ignore_ascii_case(listed_scheme)
                    && host == listed_host
                    && port == listed_port
            }
            (
                Self::Bare { host, port },
                Self::Page { scheme, host: listed_host, port: listed_port },
            ) => host == listed_host && port.or_else(|| default_port(scheme)) == *listed_port,
            _ => false,
        }
    }
}

/// One slash at the end is no path: programs that have a URL at hand leave it there. The two behind
/// a scheme stay.
fn without_slash(text: &str) -> &str {
    let shorter = text.strip_suffix('/').filter(|shorter| !shorter.ends_with(":/"));
    shorter.unwrap_or(text)
}

/// Browsers write it in lower case. In another one it must not pass for a host.
fn is_null(text: &str) -> bool {
    text.eq_ignore_ascii_case("null")
}

/// The scheme of the pages at a URL of this scheme: programs write the one that they connect to.
fn page_scheme(scheme: &str) -> &str {
    let schemes = [("ws", "http"), ("wss", "https")];
    let found = schemes.iter().find(|(socket, _)| scheme.eq_ignore_ascii_case(socket));
    found.map_or(scheme, |&(_, page)| page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of an upgrade with these headers; 101 if the origin passes.
    fn status(origins: &Origins, headers: &[(&str, &str)]) -> u16 {
        let headers: Vec<_> = headers
            .iter()
            .map(|&(name, value)| httparse::Header { name, value: value.as_bytes() })
            .collect();
        let head = head(None, &headers);
        origins.check(&head).map_or_else(|refusal| refusal.status(), |()| 101)
    }

    fn head<'h>(authority: Option<&'h str>, headers: &'h [httparse::Header<'h>]) -> Head<'h> {
        Head { method: "GET", authority, path: "/", query: "", version: 1, headers }
    }

    #[test]
    fn the_targets_authority_goes_before_the_host_header() {
        let headers = [("Host", "b"), ("Origin", "http://a")];
        let headers =
            headers.map(|(name, value)| httparse::Header { name, value: value.as_bytes() });
        for (authority, expected) in [(None, false), (Some("a"), true), (Some("b"), false)] {
            let passes = Origins::Own.check(&head(authority, &headers)).is_ok();
            assert_eq!(passes, expected, "{authority:?}");
        }
    }

    fn listed(origin: &str) -> Origins {
        let mut origins = Origins::default();
        origins.allow(origin.to_owned());
        origins
    }

    #[test]
    fn the_own_host_passes_in_every_way_to_write_it() {
        for (origin, host) in [
            ("http://example.com", "example.com"),
            ("https://example.com", "example.com"),
            ("https://example.com", "example.com:443"),
            ("https://example.com:443", "example.com"),
            ("http://example.com:80", "example.com"),
            ("HTTP://EXAMPLE.com", "Example.COM"),
            ("http://example.com:8080", "example.com:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[::1]", "[0:0:0:0:0:0:0:1]"),
            ("capacitor://localhost", "localhost"),
            ("https://example.com", "example.com:"),
            ("https://example.com:", "example.com"),
            ("https://example.com/", "example.com"),
            ("wss://example.com:443/", "example.com"),
            ("example.com", "example.com"),
            ("example.com:8080/", "Example.com:8080"),
            ("[::1]", "[::1]:"),
        ] {
            assert_eq!(
                status(&Origins::Own, &[("ORIGIN", origin), ("Host", host)]),
                101,
                "{origin}"
            );
        }
    }

    #[test]
    fn any_other_origin_is_refused_also_the_nearly_right() {
        for (origin, host) in [
            ("https://evil.example", "example.com"),
            ("https://example.com.evil.example", "example.com"),
            ("https://notexample.com", "example.com"),
            ("https://sub.example.com", "example.com"),
            ("https://example.com:8443", "example.com"),
            ("https://example.com", "example.com:80"),
            ("http://example.com", "example.com:443"),
            ("https://example.com@evil.example", "example.com"),
            ("https://evil.example/example.com", "example.com"),
            ("https://example.com//", "example.com"),
            ("https://example.com:/:", "example.com"),
            ("https://example.com:+443", "example.com"),
            ("https://example.com:99999", "example.com"),
            ("https://a, https://example.com", "example.com"),
            ("//example.com", "example.com"),
            ("example.com/page", "example.com"),
            ("user@example.com", "example.com"),
            ("example.com:", "example.com"),
            ("example.com", "example.com:80"),
            ("example.com:443", "example.com"),
            ("://example.com", "example.com"),
            ("http://[::2]", "[::1]"),
            ("http://[::1", "[::1"),
            ("file://", ""),
            ("null", "null"),
            ("Null/", "null"),
            ("data:", "data"),
            ("about:blank", "about"),
            ("", ""),
            ("/", ""),
            ("h\u{e9}ttp://\u{e9}", "\u{e9}"),
        ] {
            assert_eq!(
                status(&Origins::Own, &[("Origin", origin), ("Host", host)]),
                403,
                "{origin}"
            );
        }
    }

    #[test]
    fn who_sends_no_origin_is_no_browser_and_who_sends_two_is_none_either() {
        let own = ("Origin", "http://a");
        assert_eq!(status(&Origins::Own, &[("Host", "a")]), 101);
        assert_eq!(status(&Origins::Own, &[own, ("Host", "a")]), 101);
        assert_eq!(status(&Origins::Own, &[own, own, ("Host", "a")]), 403);
        assert_eq!(status(&Origins::Own, &[own]), 403);
        assert_eq!(status(&Origins::Own, &[own, ("Host", "a"), ("Host", "a")]), 403);
        assert_eq!(status(&Origins::Any, &[own, ("Origin", "null"), ("Host", "b")]), 101);
    }

    #[test]
    fn a_listed_origin_passes_and_so_does_the_own_host() {
        for (allowed, origin, expected) in [
            ("https://app.example", "https://app.example", 101),
            ("https://APP.example:443", "https://app.example", 101),
            ("https://app.example", "https://app.example:443", 101),
            ("https://app.example", "http://app.example", 403),
            ("https://app.example", "https://app.example:8443", 403),
            ("https://app.example", "https://own", 101),
            ("https://app.example", "null", 403),
            ("null", "null", 101),
            ("file://", "file://", 101),
            ("chrome-extension://abc", "chrome-extension://abc", 101),
            ("chrome-extension://abc", "moz-extension://abc", 403),
            ("https://app.example/", "https://app.example", 101),
            ("https://app.example", "https://app.example/", 101),
            ("https://app.example", "wss://app.example", 101),
            ("https://app.example", "ws://app.example", 403),
            ("https://app.example", "app.example", 101),
            ("https://app.example", "app.example:80", 403),
            ("http://app.example:81", "app.example:81", 101),
            ("http://app.example:81", "app.example", 403),
            ("file://", "file:///", 101),
            ("null", "app.example", 403),
        ] {
            let headers = [("Origin", origin), ("Host", "own")];
            assert_eq!(status(&listed(allowed), &headers), expected, "{allowed} {origin}");
        }
    }

    #[test]
    fn a_listed_origin_that_no_browser_sends_is_an_error() {
        for origin in [
            "",
            "app.example",
            "https://app.example//",
            "https://app.example/path",
            "app.example:443",
            "/",
            "https://*.example",
            "*",
            "wss://app.example",
            "WS://app.example/",
            "https://user@app.example",
            "https://\u{e9}.example",
            "https://app.example:http",
        ] {
            assert!(matches!(listed(origin).validate(), Err(Error::Origin { .. })), "{origin:?}");
        }
        for origin in ["https://app.example", "http://[::1]:3000", "null", "file://", "tauri://a"] {
            assert!(listed(origin).validate().is_ok(), "{origin:?}");
        }
    }
}
