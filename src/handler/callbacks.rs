//! [`Callbacks`]: a handler made of closures.
//!
//! Knows the [`Handler`] trait. Must not know how or where a handler is called.

use std::fmt;

use super::{Handler, IntoUpgrade, Reply, Request, Upgrade, WebSocket};
use crate::message::{Chunk, Close, Message};

pub(crate) type OnUpgrade<S> = dyn Fn(&Request<'_>) -> Upgrade<S> + Send + Sync;
type OnConnect<S> = dyn Fn(&mut WebSocket<'_, S>) -> Reply<'static> + Send + Sync;
type OnMessage<S> = dyn for<'m> Fn(&mut WebSocket<'_, S>, Message<'m>) -> Reply<'m> + Send + Sync;
type OnChunk<S> = dyn for<'m> Fn(&mut WebSocket<'_, S>, Chunk<'m>) -> Reply<'m> + Send + Sync;
type OnDrain<S> = dyn Fn(&mut WebSocket<'_, S>) + Send + Sync;
type OnClose<S> = dyn Fn(&mut WebSocket<'_, S>, &Close) -> Reply<'static> + Send + Sync;

/// A handler made of closures, for a program that needs no type of its own for it.
///
/// What is not given behaves as the trait's default. The closures return [`Reply`]; `.into()`
/// makes one of a string, bytes, a message, `()` or an `Option`.
///
/// Write the closures where they are passed: one that was put into a variable before is not
/// general enough in its lifetimes to the compiler. What is longer becomes a function,
/// `fn on_message<'m>(ws: &mut WebSocket<'_, S>, message: Message<'m>) -> Reply<'m>`. The session's
/// type is named once, in `Callbacks::<S>::new()`; or it is what
/// [`with_upgrade`](Self::with_upgrade) makes.
///
/// ```
/// use peregrine::{Callbacks, Server};
///
/// let greeter = Callbacks::<u32>::new()
///     .on_connect(|_ws| "welcome".into())
///     .on_message(|ws, message| {
///         *ws.session_mut() += 1;
///         format!("{}: {}", ws.session(), message.as_text().unwrap_or("bytes")).into()
///     })
///     .on_close(|_ws, _close| "goodbye".into());
/// let server = Server::builder().websocket("/greet", greeter).bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
#[must_use = "closures are called only by a server that they are given to"]
pub struct Callbacks<S> {
    on_upgrade: Box<OnUpgrade<S>>,
    closures: Closures<S>,
}

/// The closures behind a [`Callbacks`] that a connection needs after its upgrade.
pub(crate) struct Closures<S> {
    on_connect: Option<Box<OnConnect<S>>>,
    on_message: Option<Box<OnMessage<S>>>,
    on_chunk: Option<Box<OnChunk<S>>>,
    on_drain: Option<Box<OnDrain<S>>>,
    on_close: Option<Box<OnClose<S>>>,
}

impl<S> fmt::Debug for Callbacks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Closures { on_connect, on_message, on_chunk, on_drain, on_close } = &self.closures;
        f.debug_struct("Callbacks")
            .field("on_connect", &on_connect.is_some())
            .field("on_message", &on_message.is_some())
            .field("on_chunk", &on_chunk.is_some())
            .field("on_drain", &on_drain.is_some())
            .field("on_close", &on_close.is_some())
            .finish_non_exhaustive()
    }
}

impl<S: Default + 'static> Default for Callbacks<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Default + 'static> Callbacks<S> {
    /// No closures yet: accepts all upgrades and answers nothing. Each connection begins with the
    /// default session.
    pub fn new() -> Self {
        Self::with_upgrade(|_request| Upgrade::accept(S::default()))
    }
}

impl<S: 'static> Callbacks<S> {
    /// Begins with the function that decides about upgrades, and makes the sessions. See
    /// [`Endpoint::with_upgrade`](crate::Endpoint::with_upgrade).
    ///
    /// ```
    /// use peregrine::{Accept, Callbacks, Response, Server};
    ///
    /// let members = Callbacks::with_upgrade(|request| match request.query("name") {
    ///     Some(name) => Ok(Accept::new(name.to_owned())),
    ///     None => Err(Response::new(401)),
    /// })
    /// .on_connect(|ws| format!("Welcome, {}", ws.session()).into());
    /// let server = Server::builder().websocket("/members", members).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn with_upgrade<U: IntoUpgrade<Session = S>>(
        on_upgrade: impl Fn(&Request<'_>) -> U + Send + Sync + 'static,
    ) -> Self {
        let closures = Closures {
            on_connect: None,
            on_message: None,
            on_chunk: None,
            on_drain: None,
            on_close: None,
        };
        Self { on_upgrade: Box::new(move |request| on_upgrade(request).into_upgrade()), closures }
    }

    pub(crate) fn into_parts(self) -> (Box<OnUpgrade<S>>, Closures<S>) {
        (self.on_upgrade, self.closures)
    }

    /// See [`Handler::on_connect`].
    pub fn on_connect(
        mut self,
        call: impl Fn(&mut WebSocket<'_, S>) -> Reply<'static> + Send + Sync + 'static,
    ) -> Self {
        self.closures.on_connect = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_message`].
    pub fn on_message<F>(mut self, call: F) -> Self
    where
        F: for<'m> Fn(&mut WebSocket<'_, S>, Message<'m>) -> Reply<'m> + Send + Sync + 'static,
    {
        self.closures.on_message = Some(Box::new(call));
        self
    }

    /// Asks for messages in pieces, while they arrive: then `on_message` is never called. See
    /// [`Handler::receives_chunks`].
    pub fn on_chunk<F>(mut self, call: F) -> Self
    where
        F: for<'m> Fn(&mut WebSocket<'_, S>, Chunk<'m>) -> Reply<'m> + Send + Sync + 'static,
    {
        self.closures.on_chunk = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_drain`].
    pub fn on_drain(
        mut self,
        call: impl Fn(&mut WebSocket<'_, S>) + Send + Sync + 'static,
    ) -> Self {
        self.closures.on_drain = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_close`].
    pub fn on_close(
        mut self,
        call: impl Fn(&mut WebSocket<'_, S>, &Close) -> Reply<'static> + Send + Sync + 'static,
    ) -> Self {
        self.closures.on_close = Some(Box::new(call));
        self
    }
}

impl<S: 'static> Handler for Closures<S> {
    type Session = S;

    fn on_connect(&self, ws: &mut WebSocket<'_, S>) -> Reply<'static> {
        self.on_connect.as_ref().map_or(Reply::none(), |call| call(ws))
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, S>, message: Message<'m>) -> Reply<'m> {
        self.on_message.as_ref().map_or(Reply::none(), |call| call(ws, message))
    }

    fn receives_chunks(&self) -> bool {
        self.on_chunk.is_some()
    }

    fn on_chunk<'m>(&self, ws: &mut WebSocket<'_, S>, chunk: Chunk<'m>) -> Reply<'m> {
        self.on_chunk.as_ref().map_or(Reply::none(), |call| call(ws, chunk))
    }

    fn on_drain(&self, ws: &mut WebSocket<'_, S>) {
        if let Some(call) = &self.on_drain {
            call(ws);
        }
    }

    fn on_close(&self, ws: &mut WebSocket<'_, S>, close: &Close) -> Reply<'static> {
        self.on_close.as_ref().map_or(Reply::none(), |call| call(ws, close))
    }
}
