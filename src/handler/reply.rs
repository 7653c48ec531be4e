//! [`Reply`]: what a handler returns.

use std::borrow::Cow;

use bytes::Bytes;

use crate::message::Message;

/// What a handler's return value sends to its own connection: nothing, a text, or bytes.
///
/// It is made from what is at hand by `.into()`: `&str` and `String` become text; byte slices,
/// vectors and [`Bytes`] become binary; a [`Message`] is sent back as what it is, without a copy;
/// `()` and `None` send nothing. An empty string is not nothing: it sends an empty message.
///
/// ```
/// use peregrine::{Message, Reply};
///
/// let echo: Reply<'_> = Message::Text("hello").into();
/// let formatted: Reply<'_> = format!("{} apples", 3).into();
/// let maybe: Reply<'_> = None::<&str>.into();
/// assert!(!echo.is_none() && !formatted.is_none() && maybe.is_none());
/// ```
#[derive(Debug, Default)]
#[must_use = "a reply is sent only by returning it from the handler"]
pub struct Reply<'m>(Kind<'m>);

#[derive(Debug, Default)]
enum Kind<'m> {
    #[default]
    None,
    Text(Cow<'m, str>),
    Binary(Cow<'m, [u8]>),
    Shared(Bytes),
}

impl<'m> Reply<'m> {
    /// Sends nothing.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// Sends a text message.
    pub fn text(text: impl Into<Cow<'m, str>>) -> Self {
        Self(Kind::Text(text.into()))
    }

    /// Sends a binary message.
    pub fn binary(bytes: impl Into<Cow<'m, [u8]>>) -> Self {
        Self(Kind::Binary(bytes.into()))
    }

    /// Sends a value as JSON, in a text message.
    ///
    /// ```
    /// use peregrine::{Callbacks, Reply};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Welcome {
    ///     id: String,
    /// }
    ///
    /// let welcome = Callbacks::<()>::new()
    ///     .on_connect(|ws| Reply::json(&Welcome { id: ws.id().to_string() }));
    /// ```
    ///
    /// # Panics
    /// If the value cannot be told in JSON: its `Serialize` fails, or a map has keys that are not
    /// text.
    #[cfg(feature = "serde")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Reply<'static> {
        Reply::text(crate::message::to_json(value))
    }

    /// Whether it sends nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.0, Kind::None)
    }

    /// Whether dropping it runs a destructor of the payload's.
    #[inline]
    pub(crate) fn owns_payload(&self) -> bool {
        match &self.0 {
            Kind::None | Kind::Text(Cow::Borrowed(_)) | Kind::Binary(Cow::Borrowed(_)) => false,
            Kind::Text(Cow::Owned(_)) | Kind::Binary(Cow::Owned(_)) | Kind::Shared(_) => true,
        }
    }

    /// The message that it sends.
    #[inline]
    pub(crate) fn message(&self) -> Option<Message<'_>> {
        match &self.0 {
            Kind::None => None,
            Kind::Text(text) => Some(Message::Text(text)),
            Kind::Binary(bytes) => Some(Message::Binary(bytes)),
            Kind::Shared(bytes) => Some(Message::Binary(bytes)),
        }
    }
}

impl From<()> for Reply<'_> {
    fn from((): ()) -> Self {
        Self::none()
    }
}

impl<'m> From<Message<'m>> for Reply<'m> {
    #[inline]
    fn from(message: Message<'m>) -> Self {
        match message {
            Message::Text(text) => Self(Kind::Text(Cow::Borrowed(text))),
            Message::Binary(bytes) => Self(Kind::Binary(Cow::Borrowed(bytes))),
        }
    }
}

impl<'m> From<&'m str> for Reply<'m> {
    fn from(text: &'m str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Reply<'_> {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl<'m> From<Cow<'m, str>> for Reply<'m> {
    fn from(text: Cow<'m, str>) -> Self {
        Self::text(text)
    }
}

impl<'m> From<&'m [u8]> for Reply<'m> {
    fn from(bytes: &'m [u8]) -> Self {
        Self::binary(bytes)
    }
}

impl<'m, const N: usize> From<&'m [u8; N]> for Reply<'m> {
    fn from(bytes: &'m [u8; N]) -> Self {
        Self::binary(&bytes[..])
    }
}

impl From<Vec<u8>> for Reply<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<Bytes> for Reply<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Shared(bytes))
    }
}

impl<'m, T: Into<Self>> From<Option<T>> for Reply<'m> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::none(), Into::into)
    }
}
