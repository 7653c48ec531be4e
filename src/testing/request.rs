//! [`TestRequest`] and what is answered to it.
//!
//! Knows the text of requests and answers. Must not know the server, frames or time.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use crate::http::check_header;

/// The most headers that an answer may have.
const HEADER_COUNT: usize = 128;
/// The example of RFC 6455 section 1.3: every test client asks with the same key.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request for an upgrade; a path, which may have a query, is one.
///
/// It carries what RFC 6455 section 4.1 asks for, and `Host: localhost`.
///
/// ```
/// use peregrine::testing::TestRequest;
///
/// let request = TestRequest::new("/chat?room=7")
///     .header("Origin", "https://app.example.com")
///     .header("Sec-WebSocket-Protocol", "v2, v1");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct TestRequest {
    path: String,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    pub(super) peer: Option<SocketAddr>,
}

impl TestRequest {
    /// A request for this path.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), headers: Vec::new(), peer: None }
    }

    /// Adds a header; `Host` replaces the one that it has. If the name is not a token, or the value
    /// holds a control character, the request cannot be [sent](super::TestServer::connect).
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The address that the server takes for the peer's. Default: 127.0.0.1, with a port of its
    /// own for each connection.
    pub fn peer_addr(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The bytes of the request. If its parts would make another request of it, [`Refused`] says
    /// so.
    pub(super) fn encode(&self) -> Result<String, Refused> {
        if self.path.contains(char::is_control) {
            return Err(Refused::unsent("the path holds a control character".to_owned()));
        }
        for (name, value) in &self.headers {
            check_header(name, value, &[]).map_err(|error| Refused::unsent(error.to_string()))?;
        }
        let mut text = format!(
            "GET {} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n",
            self.path
        );
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        Ok(text)
    }
}

impl<P: Into<String>> From<P> for TestRequest {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

/// An upgrade that was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The status; 0 if the connection ended without an answer, none came in time, or the request
    /// was not sent, because a line break or the like in it would have made another request of it.
    pub status: u16,
    /// The headers, names and values as sent.
    pub headers: Vec<(String, String)>,
    /// The body; what is not UTF-8 is replaced. If the request was not sent, why not.
    pub body: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 if self.body.is_empty() => f.write_str("no answer came"),
            0 => write!(f, "the request was not sent: {}", self.body),
            status => write!(f, "refused with {status}: {}", self.body),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub(super) fn unanswered() -> Self {
        Self::unsent(String::new())
    }

    fn unsent(why: String) -> Self {
        Self { status: 0, headers: Vec::new(), body: why }
    }
}

/// The answer to a request, and the length of its head. A body is as long as what has come.
pub(super) type Answer = Refused;

/// Reads an answer; `None` while its head is incomplete.
pub(super) fn read_answer(bytes: &[u8]) -> Option<(Answer, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return None,
        Err(error) => panic!("the server does not speak HTTP: {error}"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> = response
        .headers
        .iter()
        .map(|header| (header.name.to_owned(), text(header.value)))
        .collect();
    let status = response.code.unwrap_or_default();
    if status == 101 {
        let accept = find(&headers, "Sec-WebSocket-Accept");
        assert_eq!(accept, Some(ACCEPT), "the server proves that it has read the key");
    }
    Some((Answer { status, headers, body: text(&bytes[head_bytes..]) }, head_bytes))
}

/// The first header of that name, in any case.
pub(super) fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let named = headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
    named.map(|(_, value)| &**value)
}
