//! [`Reply`]: what a handler returns. [`Then`]: what it does when a value has come.
//!
//! Knows messages, and values that come later. Must not know who sends, polls or calls them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::later::{Later, Unawaited};
use super::{Context, Reach};
use crate::message::Message;

/// What a handler's return value sends to its own connection: nothing, a text, or bytes; now or
/// [later](Reply::later).
///
/// It is made from what is at hand by `.into()`: `&str` and `String` become text; byte slices,
/// vectors and [`Bytes`] become binary; a [`Message`] is sent back as what it is, without a copy;
/// `()` and `None` send nothing. An empty string is not nothing: it sends an empty message.
///
/// It may borrow from the message that it answers (`'m`), not from the `WebSocket` or its session:
/// what stands there is cloned into it.
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
    // Borrowed or owned, each a kind of its own: what is borrowed is recognised at one look.
    Text(&'m str),
    Binary(&'m [u8]),
    OwnText(String),
    OwnBinary(Vec<u8>),
    Shared(Bytes),
    Later(Box<Later<Reply<'static>>>),
    Then(Then),
}

/// What a handler does with a value that has come, with its connection at hand.
pub(crate) struct Then(pub(super) Box<Continuation>);

type Continuation = dyn FnOnce(&mut dyn Reach, &mut Context<'_>) -> Reply<'static>;

impl Then {
    pub(crate) fn call(self, reach: &mut dyn Reach, context: &mut Context<'_>) -> Reply<'static> {
        (self.0)(reach, context)
    }
}

impl fmt::Debug for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Then").finish_non_exhaustive()
    }
}

impl<'m> Reply<'m> {
    /// Sends nothing.
    pub const fn none() -> Self {
        Self(Kind::None)
    }

    /// Sends a text message.
    pub fn text(text: impl Into<Cow<'m, str>>) -> Self {
        Self(match text.into() {
            Cow::Borrowed(text) => Kind::Text(text),
            Cow::Owned(text) => Kind::OwnText(text),
        })
    }

    /// Sends a binary message.
    pub fn binary(bytes: impl Into<Cow<'m, [u8]>>) -> Self {
        Self(match bytes.into() {
            Cow::Borrowed(bytes) => Kind::Binary(bytes),
            Cow::Owned(bytes) => Kind::OwnBinary(bytes),
        })
    }

    /// Answers when the future has resolved, with what it resolves to.
    ///
    /// The future is polled on the connection's own shard, so it may hold what is not `Send`; it
    /// may be woken from any thread. It cannot borrow the message or the `WebSocket`: copy what it
    /// needs, and take a [`Hub`](crate::Hub) along.
    ///
    /// A shard is no thread of a runtime. A future that needs the context of one (tokio's timers,
    /// sockets and `spawn` do, and panic without it) needs
    /// [`ServerBuilder::on_shard_thread`](crate::ServerBuilder::on_shard_thread), once for the
    /// whole server; the second example shows it. Channels, and handles of tasks that were spawned
    /// elsewhere, need nothing.
    ///
    /// Until the future resolves, this connection's next message waits its turn, and so does the
    /// peer's Close; pings are answered, and what others send to the connection is delivered. All
    /// other connections go on. A panic in the future closes its connection with 1011.
    ///
    /// **The end of the connection.** However the connection ends (a Close of either side, the end
    /// or a reset of TCP, [`abort`](crate::WebSocket::abort)), the future is polled to its end.
    /// From that moment on it has [`Limits::close_timeout`](crate::Limits::close_timeout); in a
    /// shutdown it has what is left of the grace. Messages that came behind it and before the end
    /// of TCP are handled after it, within the same time. If nothing can be sent any more, the
    /// answer is dropped and counted in [`Hub::dropped_count`](crate::Hub::dropped_count). A future
    /// that takes longer is dropped; that is logged, and counted in
    /// [`Hub::cancelled_count`](crate::Hub::cancelled_count).
    ///
    /// Cost: a few small allocations.
    ///
    /// ```
    /// use peregrine::{Callbacks, Reply, Server};
    ///
    /// async fn look_up(name: String) -> String {
    ///     format!("{name} is known")
    /// }
    ///
    /// let directory = Callbacks::<()>::new().on_message(|_ws, message| {
    ///     let name = message.as_text().unwrap_or_default().to_owned();
    ///     Reply::later(look_up(name))
    /// });
    /// let server = Server::builder().websocket("/names", directory).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use peregrine::{Callbacks, Reply, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let tokio = runtime.handle().clone();
    /// let slow = Callbacks::<()>::new().on_message(|_ws, _message| {
    ///     Reply::later(async {
    ///         tokio::time::sleep(Duration::from_secs(1)).await;
    ///         "a second later"
    ///     })
    /// });
    /// let server = Server::builder()
    ///     .on_shard_thread(move |shard| {
    ///         let _context = tokio.enter();
    ///         shard.run()
    ///     })
    ///     .websocket("/slow", slow)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn later<F>(future: F) -> Self
    where
        F: Future<Output: Into<Reply<'static>>> + 'static,
    {
        Self(Kind::Later(Box::new(Later::new(future))))
    }

    /// Answers with what the closure returns, which a thread of the server's pool runs: for work
    /// that blocks or takes long. The connection waits as for [`later`](Self::later).
    ///
    /// The pool is bounded ([`Limits::max_offload_threads`](crate::Limits::max_offload_threads),
    /// [`Limits::max_queued_jobs`](crate::Limits::max_queued_jobs)): when it is full, the
    /// connection is closed with 1013, and the work counts in
    /// [`Hub::cancelled_count`](crate::Hub::cancelled_count).
    ///
    /// **The end of the connection.** Work that the pool has accepted is always begun and runs to
    /// its end, however its connection ends and however long it takes, as long as the process
    /// lives. Only its answer has a time limit, as that of [`later`](Self::later): an answer that
    /// comes after it is dropped, and counted in `Hub::cancelled_count`.
    ///
    /// ```
    /// use peregrine::{Callbacks, Reply, Server};
    ///
    /// let files = Callbacks::<()>::new().on_message(|_ws, message| {
    ///     let path = message.as_text().unwrap_or_default().to_owned();
    ///     Reply::offload(move || std::fs::read(path).ok())
    /// });
    /// let server = Server::builder().websocket("/files", files).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn offload<R>(work: impl FnOnce() -> R + Send + 'static) -> Self
    where
        R: Into<Reply<'static>> + Send + 'static,
    {
        let later = Later::offload(work, R::into, Unawaited::Run);
        Self(Kind::Later(Box::new(later)))
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
    /// If the value cannot be written as JSON: its `Serialize` fails, or a map has keys that are
    /// not text.
    #[cfg(feature = "serde")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Reply<'static> {
        Reply::text(crate::message::to_json(value))
    }

    /// Answers with what `finish` makes, on the shard, of what the work returned in the pool.
    pub(super) fn offload_then<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
        finish: impl FnOnce(T) -> Reply<'static> + 'static,
    ) -> Reply<'static> {
        Reply(Kind::Later(Box::new(Later::offload(work, finish, Unawaited::Run))))
    }

    /// Whether it sends nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.0, Kind::None)
    }

    /// The message that it sends, if it owns nothing and is no promise: then that is all of it.
    #[inline]
    pub(crate) fn plain(&self) -> Option<Option<Message<'m>>> {
        match self.0 {
            Kind::None => Some(None),
            Kind::Text(text) => Some(Some(Message::Text(text))),
            Kind::Binary(bytes) => Some(Some(Message::Binary(bytes))),
            _ => None,
        }
    }

    /// An answer that is still to be made, on the connection's shard.
    pub(super) fn then(then: Then) -> Self {
        Self(Kind::Then(then))
    }

    /// What is still to be called, if it is that.
    pub(crate) fn into_then(self) -> Result<Then, Self> {
        match self.0 {
            Kind::Then(then) => Ok(then),
            kind => Err(Self(kind)),
        }
    }

    /// The answer that comes later, if it is one.
    pub(crate) fn into_later(self) -> Result<Later<Reply<'static>>, Self> {
        match self.0 {
            Kind::Later(later) => Ok(*later),
            kind => Err(Self(kind)),
        }
    }

    /// The message that it sends at once.
    #[inline]
    pub(crate) fn message(&self) -> Option<Message<'_>> {
        match &self.0 {
            Kind::None | Kind::Later(_) | Kind::Then(_) => None,
            Kind::Text(text) => Some(Message::Text(text)),
            Kind::Binary(bytes) => Some(Message::Binary(bytes)),
            Kind::OwnText(text) => Some(Message::Text(text)),
            Kind::OwnBinary(bytes) => Some(Message::Binary(bytes)),
            Kind::Shared(bytes) => Some(Message::Binary(bytes)),
        }
    }
}

/// A value to be sent as JSON, in a text message: for [offloaded](Reply::offload) work, whose
/// result changes threads, as a [`Reply`] may not.
///
/// ```
/// use peregrine::{Callbacks, Json, Reply};
///
/// #[derive(serde::Serialize)]
/// struct Size {
///     bytes: u64,
/// }
///
/// let sizes = Callbacks::<()>::new().on_message(|_ws, message| {
///     let path = message.as_text().unwrap_or_default().to_owned();
///     Reply::offload(move || {
///         let found = std::fs::metadata(path).ok()?;
///         Some(Json(Size { bytes: found.len() }))
///     })
/// });
/// ```
///
/// It becomes a reply as [`Reply::json`] does, and panics as that does.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

#[cfg(feature = "serde")]
impl<T: serde::Serialize> From<Json<T>> for Reply<'_> {
    fn from(Json(value): Json<T>) -> Self {
        Self::text(crate::message::to_json(&value))
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
            Message::Text(text) => Self(Kind::Text(text)),
            Message::Binary(bytes) => Self(Kind::Binary(bytes)),
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
