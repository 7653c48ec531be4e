//! The little HTTP that a WebSocket server speaks: a request's [`Head`] as parsed, a [`Response`]
//! as given by the embedder, and its encoding (RFC 9110, RFC 9112).
//!
//! Knows text. Must not know which paths exist, nor where the bytes come from.

pub(crate) mod forwarded;
pub(crate) mod host;
pub(crate) mod network;
mod origin;
pub(crate) mod proxy;

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

pub(crate) use self::origin::Origins;
use crate::error::{HeaderError, ParamError, Refusal};

/// How much of the name of a refused header is told, in characters.
const REPORTED_CHARS: usize = 64;

/// A request's head, borrowed from the bytes that it was parsed from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'r> {
    pub(crate) method: &'r str,
    /// That of a target in absolute form, well-formed: `https://host:port/path`.
    pub(crate) authority: Option<&'r str>,
    /// As sent, still percent-encoded.
    pub(crate) path: &'r str,
    /// What stands behind the `?`.
    pub(crate) query: &'r str,
    /// The minor version: 1 for HTTP/1.1.
    pub(crate) version: u8,
    pub(crate) headers: &'r [httparse::Header<'r>],
}

impl<'r> Head<'r> {
    /// The values of all headers of that name, in order. It is found soonest if it is spelled as
    /// clients spell it.
    pub(crate) fn all<'n>(
        &self,
        name: &'n str,
    ) -> impl DoubleEndedIterator<Item = &'r [u8]> + Clone + use<'r, 'n> {
        self.headers
            .iter()
            .filter(move |header| is_same(header.name, name))
            .map(|header| header.value)
    }

    /// The first header of that name.
    pub(crate) fn first(&self, name: &str) -> Option<&'r [u8]> {
        self.all(name).next()
    }

    /// The value of a header that must stand exactly once; `None` if missing or repeated.
    pub(crate) fn only(&self, name: &str) -> Option<&'r [u8]> {
        let mut values = self.all(name);
        let value = values.next()?;
        values.next().is_none().then(|| value.trim_ascii())
    }

    /// Whether a comma-separated header holds the token, in any case (RFC 9110 section 5.6.1).
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| holds_token(value, token))
    }

    /// The host that the request is for, with its port if one is named: that of the target, or
    /// else `Host` (RFC 9112 section 3.2.2).
    pub(crate) fn host(&self) -> Option<&'r str> {
        self.authority.or_else(|| str::from_utf8(self.only("Host")?).ok())
    }

    /// The elements of a list that is made of texts: each is decoded for itself, so that one that
    /// is no UTF-8 hides no other.
    pub(crate) fn parts(
        &self,
        name: &'static str,
        separator: u8,
    ) -> impl Iterator<Item = &'r str> + Clone + use<'r> {
        self.all(name)
            .flat_map(move |value| value.split(move |&byte| byte == separator))
            .filter_map(|part| str::from_utf8(part.trim_ascii()).ok())
    }

    /// The subprotocols that the client offers, in its order of preference. Each of them may be
    /// answered as it is: it holds nothing that could end the header, or begin another element.
    ///
    /// RFC 6455 section 4.1 wants tokens. Programs also offer Base64, which may end with `=`, and
    /// fail unless the answer is just that. A client that offers tokens is answered with a token.
    pub(crate) fn subprotocols(&self) -> impl Iterator<Item = &'r str> + Clone + use<'r> {
        let is_offered_byte = |b: u8| b.is_ascii_graphic() && !b"\"\\,".contains(&b);
        self.parts("Sec-WebSocket-Protocol", b',')
            .filter(move |name| !name.is_empty() && name.bytes().all(is_offered_byte))
    }

    /// Whether the connection stays open after the response (RFC 9112 section 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        match self.version {
            0 => false,
            _ => !self.has_token("Connection", "close"),
        }
    }

    /// Whether a body follows the head (RFC 9112 section 6).
    pub(crate) fn has_body(&self) -> bool {
        self.first("Transfer-Encoding").is_some()
            || self.all("Content-Length").any(|value| value.trim_ascii() != b"0")
    }
}

/// Whether two texts are the same but for the case of letters. Mostly they are the same in that,
/// too, or differ in length.
pub(crate) fn is_same(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> bool {
    let (one, other) = (one.as_ref(), other.as_ref());
    one.len() == other.len() && (one == other || one.eq_ignore_ascii_case(other))
}

/// Whether a comma-separated value holds the token, in any case (RFC 9110 section 5.6.1).
pub(crate) fn holds_token(value: &[u8], token: &str) -> bool {
    // Nearly always it stands alone.
    is_same(value, token)
        || value.split(|&byte| byte == b',').any(|part| is_same(part.trim_ascii(), token))
}

/// A whole HTTP response: a fixed page served beside the endpoints, or the refusal of an upgrade.
///
/// `Content-Length` and `Connection` are written by the server.
///
/// ```
/// use peregrine::{Response, Server};
///
/// let server = Server::builder()
///     .get("/", Response::html("<h1>Welcome</h1>"))
///     .get("/health", "ok")
///     .bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Bytes,
}

impl Response {
    /// An empty response with this status. A status that cannot end an exchange, below 200 or above
    /// 599, is replaced by 500.
    ///
    /// ```
    /// use peregrine::Response;
    ///
    /// assert_eq!(Response::new(404).status(), 404);
    /// assert_eq!(Response::new(100).status(), 500);
    /// ```
    #[must_use]
    pub fn new(status: u16) -> Self {
        let status = if (200..600).contains(&status) { status } else { 500 };
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Status 200 with plain text.
    #[must_use]
    pub fn text(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200).with_text(body)
    }

    /// Status 200 with an HTML page.
    #[must_use]
    pub fn html(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200).with("Content-Type", "text/html; charset=utf-8").body(owned(body.into()))
    }

    /// Status 200 with JSON text.
    #[must_use]
    pub fn json(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200).with("Content-Type", "application/json").body(owned(body.into()))
    }

    /// Adds a header. Nothing that stands in `name` or `value` can add another one: a value may
    /// come from a client.
    ///
    /// ```
    /// use peregrine::{HeaderError, Response};
    ///
    /// let page = Response::html("<h1>Welcome</h1>").header("Cache-Control", "no-store")?;
    /// let refused = page.header("X-Name", "a\r\nSet-Cookie: stolen=1");
    /// assert_eq!(refused, Err(HeaderError::Value("X-Name".into())));
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the name is not a token, or the value holds a control character; if the header is
    /// `Content-Length`, `Transfer-Encoding` or `Connection`, which the server writes.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, HeaderError> {
        let (name, value) = (name.into(), value.into());
        check_header(&name, &value, &FRAMING)?;
        self.push_header(name, value);
        Ok(self)
    }

    /// Adds a header of this crate's own.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.push_header(name.into(), value.into());
        self
    }

    /// Adds a header that has been [checked](check_header).
    pub(crate) fn push_header(&mut self, name: Cow<'static, str>, value: Cow<'static, str>) {
        debug_assert_eq!(check_header(&name, &value, &FRAMING), Ok(()));
        self.headers.push((name, value));
    }

    /// Sets the body; the content type is the caller's to set.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Sets the body to plain text, and the content type with it.
    #[must_use]
    pub fn with_text(mut self, body: impl Into<Cow<'static, str>>) -> Self {
        self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        self.with("Content-Type", "text/plain; charset=utf-8").body(owned(body.into()))
    }

    /// The same, with a status that does not mean success.
    pub(crate) fn refusing(mut self) -> Self {
        if self.status < 300 {
            self.status = 403;
        }
        self
    }

    /// The body; shared, not copied.
    pub(crate) fn whole_body(&self) -> Bytes {
        if self.may_have_body() { self.body.clone() } else { Bytes::new() }
    }

    fn may_have_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    /// The bytes of this response. `HEAD` leaves the body out (RFC 9110 section 9.3.2).
    pub(crate) fn encode(&self, after: Connection, body: Body) -> Bytes {
        let mut text = String::with_capacity(256);
        let reason = reason(self.status);
        let length = self.body.len();
        // Writing to a string cannot fail.
        let _ = write!(text, "HTTP/1.1 {} {reason}\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        // A 204 or 304 has no body, and must not name a length of one (RFC 9110 section 8.6).
        if self.may_have_body() {
            let _ = write!(text, "Content-Length: {length}\r\n");
        }
        text.push_str(match after {
            Connection::KeepAlive => "Connection: keep-alive",
            Connection::Close => "Connection: close",
        });
        // Who offers an upgrade says so there, too (RFC 9110 section 7.8).
        let is_offer = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        text.push_str(if is_offer { ", Upgrade\r\n\r\n" } else { "\r\n\r\n" });
        let mut bytes = text.into_bytes();
        if body == Body::Whole && self.may_have_body() {
            bytes.extend_from_slice(&self.body);
        }
        bytes.into()
    }
}

impl From<u16> for Response {
    /// As [`Response::new`].
    fn from(status: u16) -> Self {
        Self::new(status)
    }
}

impl From<ParamError> for Response {
    /// Status 400, with the error's text.
    fn from(error: ParamError) -> Self {
        Self::new(400).with_text(error.to_string())
    }
}

impl From<&'static str> for Response {
    fn from(text: &'static str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Response {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let (status, text) = refusal.status();
        let response = Self::new(status).with_text(text);
        match refusal {
            Refusal::UpgradeRequired => {
                response.with("Upgrade", "websocket").with("Sec-WebSocket-Version", "13")
            }
            Refusal::MethodNotAllowed => response.with("Allow", "GET, HEAD"),
            Refusal::Unavailable
            | Refusal::Undecided
            | Refusal::PoolFull
            | Refusal::TooManyConnections
            | Refusal::TooManyUpgrades => response.with("Retry-After", "1"),
            _ => response,
        }
    }
}

/// Whether the connection serves another request after this response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    KeepAlive,
    Close,
}

/// Whether the body is sent, or only described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Whole,
    Omitted,
}

fn owned(text: Cow<'static, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    }
}

/// The headers by which a response is told from the next one (RFC 9112 section 6): a second one
/// that says otherwise would let a proxy see another response than the client.
pub(crate) const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "connection"];
/// The headers that decide about an upgrade (RFC 6455 section 4.2.2): a second one would make the
/// client fail the connection.
pub(crate) const HANDSHAKE: [&str; 4] =
    ["upgrade", "sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions"];

/// Refuses a header that could smuggle another one (RFC 9110 sections 5.1 and 5.5), or that is
/// `written` by the server.
pub(crate) fn check_header(name: &str, value: &str, written: &[&str]) -> Result<(), HeaderError> {
    let is_value_byte = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7F);
    let blame = if !is_token(name) {
        HeaderError::Name
    } else if !value.bytes().all(is_value_byte) {
        HeaderError::Value
    } else if written.iter().any(|header| name.eq_ignore_ascii_case(header)) {
        HeaderError::Reserved
    } else {
        return Ok(());
    };
    Err(blame(name.chars().take(REPORTED_CHARS).collect()))
}

/// Whether the text is a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        // A reason phrase is optional, and clients ignore it (RFC 9112 section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_describes_the_body_that_it_omits() {
        let page = Response::text("hello");
        let whole = page.encode(Connection::KeepAlive, Body::Whole);
        let head = page.encode(Connection::KeepAlive, Body::Omitted);
        assert!(whole.ends_with(b"\r\n\r\nhello"));
        assert_eq!(&whole[..head.len()], &head[..]);
    }

    #[test]
    fn a_header_that_could_smuggle_another_one_is_refused_with_blame() {
        let name = |text: &str| HeaderError::Name(text.to_owned());
        let value = |name: &str| HeaderError::Value(name.to_owned());
        for (given, text, expected) in [
            ("", "a", name("")),
            ("a b", "a", name("a b")),
            ("a:", "a", name("a:")),
            ("a\r\nb", "\n", name("a\r\nb")),
            ("\u{e9}", "a", name("\u{e9}")),
            ("X-Name", "a\r\nSet-Cookie: stolen=1", value("X-Name")),
            ("X-Name", "\0", value("X-Name")),
            ("X-Name", "\u{7f}", value("X-Name")),
            ("Content-length", "7", HeaderError::Reserved("Content-length".to_owned())),
        ] {
            let refused = Response::new(200).header(given.to_owned(), text.to_owned());
            assert_eq!(refused, Err(expected));
        }
        let long = Response::new(200).header("\u{e9}".repeat(1000), "a");
        assert_eq!(long, Err(name(&"\u{e9}".repeat(REPORTED_CHARS))));
        for text in ["", "a\tb", " \u{e9}\u{85} "] {
            assert!(Response::new(200).header("X-Name", text).is_ok(), "{text:?}");
        }
    }
}
