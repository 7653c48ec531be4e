//! What travels: [`Message`] and everything that can be sent as one, [`Close`] and its
//! [`CloseCode`].
//!
//! Knows RFC 6455's two kinds of message and its close codes. Must not know frames or connections.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// One whole message, borrowed (RFC 6455 section 5.6).
///
/// What a handler receives points into the shard's receive buffer: nothing was copied or allocated
/// for it. It is `Copy`, two words and a tag.
///
/// ```
/// use peregrine::Message;
///
/// let message = Message::Text("hello");
/// assert_eq!(message.as_text(), Some("hello"));
/// assert_eq!(message.as_bytes(), b"hello");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message<'m> {
    /// A text message: valid UTF-8, checked before any handler sees it.
    Text(&'m str),
    /// A binary message.
    Binary(&'m [u8]),
}

impl<'m> Message<'m> {
    /// The text, if this is a text message.
    #[must_use]
    pub fn as_text(&self) -> Option<&'m str> {
        match *self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The bytes of a binary message; `None` for a text message.
    #[must_use]
    pub fn as_binary(&self) -> Option<&'m [u8]> {
        match *self {
            Self::Text(_) => None,
            Self::Binary(bytes) => Some(bytes),
        }
    }

    /// The payload, whichever kind it is.
    #[must_use]
    pub fn as_bytes(&self) -> &'m [u8] {
        match *self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload read as JSON; text and binary are treated alike. What the value borrows, it
    /// borrows from the payload.
    ///
    /// ```
    /// use peregrine::Message;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Move<'m> {
    ///     piece: &'m str,
    ///     to: (u8, u8),
    /// }
    ///
    /// let message = Message::Text(r#"{ "piece": "rook", "to": [0, 7] }"#);
    /// let step: Move<'_> = message.json()?;
    /// assert_eq!((step.piece, step.to), ("rook", (0, 7)));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is not JSON, or not what `T` wants. Its text may quote what the client has sent.
    #[cfg(feature = "serde")]
    pub fn json<T: serde::Deserialize<'m>>(&self) -> Result<T, serde_json::Error> {
        match *self {
            Self::Text(text) => serde_json::from_str(text),
            Self::Binary(bytes) => serde_json::from_slice(bytes),
        }
    }

    /// The length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty. An empty message is a message: it is delivered like any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is a text message.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// A piece of a message, for handlers that want messages while they arrive
/// ([`Handler::receives_chunks`](crate::Handler::receives_chunks)).
///
/// The pieces of a message, put together in the order in which they come, are its payload. Each
/// message has one piece that is the first and one that is the last; if it came at once, they are
/// the same. Where it is cut is up to the network and the shard's receive buffer, not to the
/// client's frames, and tells nothing; a piece is empty only if nothing else is left to end its
/// message with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunk<'m> {
    message: Message<'m>,
    is_first: bool,
    is_last: bool,
}

impl<'m> Chunk<'m> {
    pub(crate) fn new(message: Message<'m>, is_first: bool, is_last: bool) -> Self {
        Self { message, is_first, is_last }
    }

    /// The piece. All pieces of a message are of one kind; those of a text are cut between
    /// characters, so that each is valid UTF-8.
    #[must_use]
    pub fn message(&self) -> Message<'m> {
        self.message
    }

    /// The piece, if it is one of a text message.
    #[must_use]
    pub fn as_text(&self) -> Option<&'m str> {
        self.message.as_text()
    }

    /// The bytes of the piece, whichever kind its message is.
    #[must_use]
    pub fn as_bytes(&self) -> &'m [u8] {
        self.message.as_bytes()
    }

    /// Whether a message begins with this piece.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether a message ends with this piece.
    ///
    /// A message whose connection ends before never gets there: what it was to become is thrown
    /// away in [`on_close`](crate::Handler::on_close), or with the session.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

impl<'m> From<&'m str> for Message<'m> {
    fn from(text: &'m str) -> Self {
        Self::Text(text)
    }
}

impl<'m> From<&'m [u8]> for Message<'m> {
    fn from(bytes: &'m [u8]) -> Self {
        Self::Binary(bytes)
    }
}

/// Whatever can be sent as a message: strings become text, bytes become binary.
///
/// Every `send` takes it, so that a `&str`, a `String`, a `Vec<u8>`, a [`Bytes`] or the
/// [`Message`] at hand can be passed as it is. The payload is copied once, into the encoded frame.
///
/// ```
/// use peregrine::{AsMessage, Message};
///
/// assert_eq!("hi".as_message(), Message::Text("hi"));
/// assert_eq!(format!("{}!", "hi").as_message(), Message::Text("hi!"));
/// assert_eq!([1u8, 2].as_message(), Message::Binary(&[1, 2]));
/// ```
pub trait AsMessage {
    /// This value, seen as a message.
    fn as_message(&self) -> Message<'_>;
}

impl AsMessage for Message<'_> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        *self
    }
}

impl AsMessage for str {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Text(self)
    }
}

impl AsMessage for String {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Text(self)
    }
}

impl AsMessage for Cow<'_, str> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Text(self)
    }
}

impl AsMessage for [u8] {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Binary(self)
    }
}

impl<const N: usize> AsMessage for [u8; N] {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Binary(self)
    }
}

impl AsMessage for Vec<u8> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Binary(self)
    }
}

impl AsMessage for Bytes {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Binary(self)
    }
}

impl<T: AsMessage + ?Sized> AsMessage for &T {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        (**self).as_message()
    }
}

/// The JSON text of a value.
///
/// # Panics
/// If it cannot be written as JSON.
#[cfg(feature = "serde")]
pub(crate) fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    match serde_json::to_string(value) {
        Ok(text) => text,
        Err(error) => panic!("the value cannot be written as JSON: {error}"),
    }
}

/// A close code of RFC 6455 section 7.4.
///
/// ```
/// use peregrine::CloseCode;
///
/// assert_eq!(CloseCode::NORMAL, 1000);
/// assert!(CloseCode::from(4001).is_sendable());
/// assert!(!CloseCode::ABNORMAL.is_sendable());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection has been fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: an endpoint goes away (the server shuts down, the browser leaves the page).
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that the endpoint does not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: the Close frame carried no code. Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a Close frame. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: a policy was violated.
    pub const POLICY: Self = Self(1008);
    /// 1009: a message was too big.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: the server met something unexpected, such as a panic in a handler.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: try again later; the peer reads too slowly, or the server is overloaded.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Whether the code may stand in a Close frame (RFC 6455 sections 7.4.1 and 7.4.2). 1014 came
    /// later and is a gateway's; few clients know it.
    #[must_use]
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1013 | 3000..=4999)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl PartialEq<u16> for CloseCode {
    fn eq(&self, other: &u16) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// The peer: it sent a Close frame, or it vanished (then the code is 1006).
    Peer,
    /// The application: a handler or a [`Hub`](crate::Hub) asked for it, or a handler panicked.
    Application,
    /// The server: a limit, a deadline, a violation of the protocol, or its shutdown.
    Server,
}

/// How and why a connection ended: the argument of [`Handler::on_close`](crate::Handler::on_close).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    reason: Cow<'static, str>,
    by: ClosedBy,
}

impl Close {
    /// The most bytes a reason can have: a control frame holds 125, the code takes two
    /// (RFC 6455 section 5.5).
    pub const REASON_LIMIT_BYTES: usize = 123;

    pub(crate) fn new(
        code: impl Into<CloseCode>,
        reason: impl Into<Cow<'static, str>>,
        by: ClosedBy,
    ) -> Self {
        let mut reason = reason.into();
        let limit = reason.floor_char_boundary(Self::REASON_LIMIT_BYTES);
        if limit < reason.len() {
            reason.to_mut().truncate(limit);
        }
        Self { code: code.into(), reason, by }
    }

    /// The close code: the peer's if it closed, else the one that the server sends. 1005 stands for
    /// a Close frame without a code, 1006 for an end without a Close frame.
    #[must_use]
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason that goes with the code; often empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Who ended the connection.
    #[must_use]
    pub fn by(&self) -> ClosedBy {
        self.by
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            ClosedBy::Peer => "the peer",
            ClosedBy::Application => "the application",
            ClosedBy::Server => "the server",
        };
        write!(f, "closed by {by} with {}", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_at_a_character_boundary() {
        let close = Close::new(1000, "é".repeat(100), ClosedBy::Server);
        assert_eq!(close.reason().len(), 122);
    }

    #[test]
    fn codes_that_only_stand_for_something_are_not_sendable() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(!CloseCode::from(code).is_sendable(), "{code}");
        }
        for code in [1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999] {
            assert!(CloseCode::from(code).is_sendable(), "{code}");
        }
    }
}
