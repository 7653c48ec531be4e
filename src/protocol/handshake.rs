//! The opening handshake (RFC 6455 section 4.2), without input or output: the bytes of a request's
//! head go in, what it asks for comes out; and the text of the answer.
//!
//! Knows HTTP's grammar through httparse, and what an upgrade must carry. Must not know which
//! paths are served, nor who decides.

use std::mem::MaybeUninit;

use data_encoding::BASE64;
use httparse::{Error as ParseError, Status};
use sha1::{Digest, Sha1};

use crate::config::{HEADER_COUNT_MAX, Limits};
use crate::error::Refusal;
use crate::http::{Head, holds_token, host, is_same};

/// What a key is hashed with (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The Base64 of a SHA-1 digest, in bytes.
const ACCEPT_BYTES: usize = 28;

/// The room for a head's headers, on the caller's stack.
pub(crate) type HeaderSlots<'b> = [MaybeUninit<httparse::Header<'b>>; HEADER_COUNT_MAX];

/// Parses a request's head. `Ok(None)` while it is incomplete; else the head and its length, which
/// the bytes of the first frames may follow.
pub(crate) fn parse<'r, 'b>(
    bytes: &'b [u8],
    room: &'r mut HeaderSlots<'b>,
    limits: &Limits,
) -> Result<Option<(Head<'r>, usize)>, Refusal>
where
    'b: 'r,
{
    let mut request = httparse::Request::new(&mut []);
    let room = &mut room[..limits.max_headers.min(HEADER_COUNT_MAX)];
    let parsed = request.parse_with_uninit_headers(bytes, room);
    let length = match parsed {
        Ok(Status::Complete(length)) if length <= limits.max_head_bytes => length,
        Ok(Status::Complete(_)) => return Err(Refusal::HeadTooLarge),
        Ok(Status::Partial) if bytes.len() < limits.max_head_bytes => return Ok(None),
        Ok(Status::Partial) | Err(ParseError::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(ParseError::Version) => {
            return Err(Refusal::BadRequest("Only HTTP/1.1 is spoken here."));
        }
        Err(_) => return Err(Refusal::BadRequest("This is not an HTTP/1.1 request.")),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::BadRequest("The request line is incomplete."));
    };
    let (authority, path, query) = split_target(target);
    let head = Head { method, authority, path, query, version, headers: request.headers };
    check_host(&head)?;
    Ok(Some((head, length)))
}

/// The schemes that a target in absolute form may have.
const SCHEMES: [&str; 4] = ["http://", "https://", "ws://", "wss://"];

/// Authority, path and query of a request target. Servers accept the origin form, `/path`, which
/// has no authority, and the absolute form, `http://host/path` (RFC 9112 section 3.2).
fn split_target(target: &str) -> (Option<&str>, &str, &str) {
    let (before, query) = target.split_once('?').unwrap_or((target, ""));
    if before.starts_with('/') {
        return (None, before, query);
    }
    let absolute = SCHEMES.iter().find_map(|scheme| {
        let (start, rest) = before.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(absolute) = absolute else { return (None, before, query) };
    let (authority, path) = absolute.split_at(absolute.find('/').unwrap_or(absolute.len()));
    (Some(authority), if path.is_empty() { "/" } else { path }, query)
}

/// HTTP/1.1 requires exactly one Host, also if the target's authority counts in its place
/// (RFC 9112 section 3.2).
fn check_host(head: &Head<'_>) -> Result<(), Refusal> {
    let hosts = head.all("Host").count();
    if hosts > 1 || (head.version == 1 && hosts == 0) {
        return Err(Refusal::BadRequest("There must be exactly one Host header."));
    }
    if head.authority.is_some_and(|authority| !host::is_authority(authority)) {
        return Err(Refusal::BadRequest("The host in the request's target is malformed."));
    }
    Ok(())
}

/// Whether the request asks for a WebSocket at all; only then is [`check_upgrade`] worth calling.
pub(crate) fn is_upgrade(head: &Head<'_>) -> bool {
    head.has_token("Upgrade", "websocket")
}

/// Checks that the head is a valid upgrade (section 4.2.1); the key on success.
pub(crate) fn check_upgrade<'r>(head: &Head<'r>) -> Result<&'r [u8], Refusal> {
    if !matches!(head.method, "GET" | "HEAD") {
        return Err(Refusal::MethodNotAllowed);
    }
    let upgrade = UpgradeHeaders::of(head);
    // HEAD asks what GET would get without an upgrade (RFC 9110 section 9.3.2).
    if head.method == "HEAD" || !upgrade.is_to_websocket {
        return Err(Refusal::UpgradeRequired);
    }
    if head.version != 1 {
        return Err(Refusal::BadRequest("An upgrade needs HTTP/1.1."));
    }
    if !upgrade.is_for_connection {
        return Err(Refusal::BadRequest("The Connection header must hold \"Upgrade\"."));
    }
    if upgrade.has_body {
        return Err(Refusal::BadRequest("An upgrade has no body."));
    }
    if upgrade.version != Only::Once(b"13") {
        return Err(Refusal::UpgradeRequired);
    }
    match upgrade.key {
        Only::Once(key) if is_key(key) => Ok(key),
        _ => Err(Refusal::BadRequest("Sec-WebSocket-Key must be 16 bytes in Base64, once.")),
    }
}

/// What the headers of a request say about an upgrade, found in one pass over them.
#[derive(Default)]
struct UpgradeHeaders<'r> {
    is_to_websocket: bool,
    is_for_connection: bool,
    has_body: bool,
    version: Only<'r>,
    key: Only<'r>,
}

/// A header that must stand exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Only<'r> {
    #[default]
    Missing,
    Once(&'r [u8]),
    Repeated,
}

impl<'r> Only<'r> {
    fn add(&mut self, value: &'r [u8]) {
        *self = match self {
            Self::Missing => Self::Once(value.trim_ascii()),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }
}

impl<'r> UpgradeHeaders<'r> {
    fn of(head: &Head<'r>) -> Self {
        let mut found = Self::default();
        for &httparse::Header { name, value } in head.headers {
            // The lengths tell nearly all of them apart.
            match name.len() {
                7 if is_same(name, "Upgrade") => {
                    found.is_to_websocket |= holds_token(value, "websocket");
                }
                10 if is_same(name, "Connection") => {
                    found.is_for_connection |= holds_token(value, "Upgrade");
                }
                14 if is_same(name, "Content-Length") => {
                    found.has_body |= value.trim_ascii() != b"0";
                }
                17 if is_same(name, "Sec-WebSocket-Key") => found.key.add(value),
                17 if is_same(name, "Transfer-Encoding") => found.has_body = true,
                21 if is_same(name, "Sec-WebSocket-Version") => found.version.add(value),
                _ => {}
            }
        }
        found
    }
}

/// Whether the key is the Base64 of 16 bytes: 22 digits and two paddings (section 4.1).
///
/// The last digit holds two bits of the sixteenth byte. What the other four are is not looked at:
/// that section's own example sets them, and so do clients that draw 22 digits.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk::<2>().map(|(d, p)| (d, p.as_slice())) else {
        return false;
    };
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22
        // All of them, so that they are looked at together.
        && digits.iter().fold(true, |are_digits, &byte| are_digits & is_digit(byte))
}

/// Appends the answer that completes the handshake (section 4.2.2).
pub(crate) fn accept<'h>(
    out: &mut Vec<u8>,
    key: &[u8],
    subprotocol: Option<&'h str>,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut text = [0; ACCEPT_BYTES];
    BASE64.encode_mut(&digest, &mut text);
    out.extend_from_slice(&text);
    out.extend_from_slice(b"\r\n");
    let subprotocol = subprotocol.map(|name| ("Sec-WebSocket-Protocol", name));
    for (name, value) in subprotocol.into_iter().chain(headers) {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /chat?a=1 HTTP/1.1\r\nHost: example.com\r\n\
        Connection: keep-alive, UPGRADE\r\nUpgrade: h2c, WebSocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn check(request: &str) -> Result<Option<usize>, Refusal> {
        let mut room: HeaderSlots<'_> = [MaybeUninit::uninit(); HEADER_COUNT_MAX];
        match parse(request.as_bytes(), &mut room, &Limits::default())? {
            Some((head, length)) => check_upgrade(&head).map(|_| Some(length)),
            None => Ok(None),
        }
    }

    #[test]
    fn a_request_is_complete_exactly_at_its_last_byte() {
        for cut in 0..REQUEST.len() {
            assert_eq!(check(&REQUEST[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(check(REQUEST), Ok(Some(REQUEST.len())));
        assert_eq!(check(&format!("{REQUEST}~")), Ok(Some(REQUEST.len())));
    }

    #[test]
    fn a_head_that_never_ends_is_too_large() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(16 << 10));
        assert_eq!(check(&long), Err(Refusal::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(65));
        assert_eq!(check(&many), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn the_absolute_form_is_split_into_authority_path_and_query() {
        for (target, expected) in [
            ("http://example.com/chat?x=1", (Some("example.com"), "/chat", "x=1")),
            ("HTTPS://example.com", (Some("example.com"), "/", "")),
            ("wsS://example.com:/", (Some("example.com:"), "/", "")),
            ("ws://example.com?next=/b", (Some("example.com"), "/", "next=/b")),
            ("ws://a@b//c", (Some("a@b"), "//c", "")),
            ("wss:///c", (Some(""), "/c", "")),
            ("/http://x?a?b", (None, "/http://x", "a?b")),
            ("httpx://a/b", (None, "httpx://a/b", "")),
            ("*", (None, "*", "")),
            ("\u{e9}://", (None, "\u{e9}://", "")),
        ] {
            assert_eq!(split_target(target), expected, "{target}");
        }
    }

    #[test]
    fn the_answer_is_the_one_of_the_rfc() {
        let mut out = Vec::new();
        accept(&mut out, b"dGhlIHNhbXBsZSBub25jZQ==", Some("chat"), [("X-A", "b")].into_iter());
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(text.ends_with("\r\nSec-WebSocket-Protocol: chat\r\nX-A: b\r\n\r\n"));
    }
}
