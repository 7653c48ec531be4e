//! `ws://host:port/path?query`, and nothing more of RFC 3986.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// How long an address of a host that has several is tried.
const TRIAL: Duration = Duration::from_secs(3);

/// Where the server is, and what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Url {
    /// A name or an address; an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// The path and the query, as they go into the request.
    pub(crate) target: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text}: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("a URL like ws://127.0.0.1:8080/echo is needed");
        };
        match scheme.to_ascii_lowercase().as_str() {
            "ws" => {}
            "wss" => return wrong("no TLS here: ask the server behind it, with ws://"),
            _ => return wrong("the scheme must be ws://"),
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("blanks and what is not ASCII must be percent-encoded");
        }
        if rest.contains('#') {
            return wrong("a WebSocket URL has no fragment (RFC 6455 section 3)");
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return wrong("no user names");
        }
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let Some((host, port)) = rest.split_once(']') else { return wrong("`]` is missing") };
            (host, port.strip_prefix(':').unwrap_or(port))
        } else {
            authority.split_once(':').unwrap_or((authority, ""))
        };
        if host.is_empty() {
            return wrong("no host");
        }
        let port = match port {
            "" => 80,
            port => match port.parse() {
                Ok(0) | Err(_) => return wrong("the port must be a number from 1 to 65535"),
                Ok(port) => port,
            },
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), port, target: format!("{slash}{target}") })
    }
}

impl Url {
    /// What the request's `Host` says.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if *port == 80 { host } else { format!("{host}:{port}") }
    }

    /// The server's address; of several, the first at which somebody listens. It must be of the
    /// same family as the addresses that the connections come from.
    pub(crate) fn resolve(&self, from: &[IpAddr]) -> io::Result<SocketAddr> {
        let fits = |address: &SocketAddr| from.iter().all(|ip| ip.is_ipv4() == address.is_ipv4());
        let found: Vec<_> =
            (self.host.as_str(), self.port).to_socket_addrs()?.filter(fits).collect();
        match found[..] {
            [] => Err(io::Error::other(format!("{} has no address that fits", self.host))),
            [address] => Ok(address),
            _ => {
                let listens =
                    |address: &&SocketAddr| TcpStream::connect_timeout(address, TRIAL).is_ok();
                Ok(*found.iter().find(listens).unwrap_or(&found[0]))
            }
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, host, port, target) in [
            ("ws://127.0.0.1:8080/echo", "127.0.0.1", 8080, "/echo"),
            ("ws://example.com", "example.com", 80, "/"),
            ("WS://example.com:1/a/b?c=d&e=%20", "example.com", 1, "/a/b?c=d&e=%20"),
            ("ws://example.com?c=/d", "example.com", 80, "/?c=/d"),
            ("ws://[::1]:9000/x", "::1", 9000, "/x"),
            ("ws://[::1]", "::1", 80, "/"),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((url.host.as_str(), url.port, url.target.as_str()), (host, port, target));
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        let url: Url = "ws://[::1]:9000/x".parse().expect("a URL");
        assert_eq!(url.authority(), "[::1]:9000");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (text, word) in [
            ("127.0.0.1:8080", "ws://"),
            ("http://a", "scheme"),
            ("wss://a", "TLS"),
            ("ws:///echo", "host"),
            ("ws://:80/", "host"),
            ("ws://a:b/", "port"),
            ("ws://a:0/", "port"),
            ("ws://a:65536", "port"),
            ("ws://[::1/", "]"),
            ("ws://me@a/", "user"),
            ("ws://a/#b", "fragment"),
            ("ws://a/ b", "blanks"),
            ("ws://a/é", "ASCII"),
        ] {
            let error = text.parse::<Url>().expect_err(text);
            assert!(error.contains(word) && error.starts_with(text), "{error}");
        }
    }
}
