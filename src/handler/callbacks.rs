//! [`Callbacks`]: a handler made of closures.
//!
//! Knows the [`Handler`] trait. Must not know how or where a handler is called.

use std::fmt;

use super::{Handler, Reply, Request, Upgrade, WebSocket};
use crate::message::{Chunk, Close, Message};

type OnUpgrade<S> = dyn Fn(&Request<'_>, &mut S) -> Upgrade + Send + Sync;
type OnConnect<S> = dyn Fn(&mut WebSocket<'_, S>) -> Reply<'static> + Send + Sync;
type OnMessage<S> = dyn for<'m> Fn(&mut WebSocket<'_, S>, Message<'m>) -> Reply<'m> + Send + Sync;
type OnChunk<S> = dyn for<'m> Fn(&mut WebSocket<'_, S>, Chunk<'m>) -> Reply<'m> + Send + Sync;
type OnDrain<S> = dyn Fn(&mut WebSocket<'_, S>) + Send + Sync;
type OnClose<S> = dyn Fn(&mut WebSocket<'_, S>, &Close) -> Reply<'static> + Send + Sync;

/// A [`Handler`] made of closures, for those who want no type of their own.
///
/// What is not given behaves as the trait's default. The closures return [`Reply`]; `.into()`
/// makes one of a string, bytes, a message, `()` or an `Option`.
///
/// Write the closures where they are passed: one that was put into a variable before is not
/// general enough in its lifetimes to the compiler. What is longer becomes a function,
/// `fn on_message<'m>(ws: &mut WebSocket<'_, S>, message: Message<'m>) -> Reply<'m>`. The session's
/// type is named once, in `Callbacks::<S>::new()`; it has to be `Default`.
///
/// ```
/// use peregrine::{Callbacks, Server};
///
/// let greeter = Callbacks::<u32>::new()
///     .on_connect(|_ws| "welcome".into())
///     .on_message(|ws, message| {
///         *ws.session() += 1;
///         format!("{}: {}", ws.session(), message.as_text().unwrap_or("bytes")).into()
///     })
///     .on_close(|_ws, _close| "goodbye".into());
/// let server = Server::builder().websocket("/greet", greeter).bind("127.0.0.1:0")?;
/// # Ok::<(), peregrine::Error>(())
/// ```
pub struct Callbacks<S> {
    on_upgrade: Option<Box<OnUpgrade<S>>>,
    on_connect: Option<Box<OnConnect<S>>>,
    on_message: Option<Box<OnMessage<S>>>,
    on_chunk: Option<Box<OnChunk<S>>>,
    on_drain: Option<Box<OnDrain<S>>>,
    on_close: Option<Box<OnClose<S>>>,
}

impl<S> fmt::Debug for Callbacks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("on_upgrade", &self.on_upgrade.is_some())
            .field("on_connect", &self.on_connect.is_some())
            .field("on_message", &self.on_message.is_some())
            .field("on_chunk", &self.on_chunk.is_some())
            .field("on_drain", &self.on_drain.is_some())
            .field("on_close", &self.on_close.is_some())
            .finish()
    }
}

impl<S> Default for Callbacks<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Callbacks<S> {
    /// No closures yet: accepts everyone and says nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            on_upgrade: None,
            on_connect: None,
            on_message: None,
            on_chunk: None,
            on_drain: None,
            on_close: None,
        }
    }

    /// Decides about an upgrade; see [`Handler::on_upgrade`].
    #[must_use]
    pub fn on_upgrade(
        mut self,
        call: impl Fn(&Request<'_>, &mut S) -> Upgrade + Send + Sync + 'static,
    ) -> Self {
        self.on_upgrade = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_connect`].
    #[must_use]
    pub fn on_connect(
        mut self,
        call: impl Fn(&mut WebSocket<'_, S>) -> Reply<'static> + Send + Sync + 'static,
    ) -> Self {
        self.on_connect = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_message`].
    #[must_use]
    pub fn on_message<F>(mut self, call: F) -> Self
    where
        F: for<'m> Fn(&mut WebSocket<'_, S>, Message<'m>) -> Reply<'m> + Send + Sync + 'static,
    {
        self.on_message = Some(Box::new(call));
        self
    }

    /// Asks for messages in pieces, while they arrive: then `on_message` is never called. See
    /// [`Handler::receives_chunks`].
    #[must_use]
    pub fn on_chunk<F>(mut self, call: F) -> Self
    where
        F: for<'m> Fn(&mut WebSocket<'_, S>, Chunk<'m>) -> Reply<'m> + Send + Sync + 'static,
    {
        self.on_chunk = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_drain`].
    #[must_use]
    pub fn on_drain(
        mut self,
        call: impl Fn(&mut WebSocket<'_, S>) + Send + Sync + 'static,
    ) -> Self {
        self.on_drain = Some(Box::new(call));
        self
    }

    /// See [`Handler::on_close`].
    #[must_use]
    pub fn on_close(
        mut self,
        call: impl Fn(&mut WebSocket<'_, S>, &Close) -> Reply<'static> + Send + Sync + 'static,
    ) -> Self {
        self.on_close = Some(Box::new(call));
        self
    }
}

impl<S: Default + 'static> Handler for Callbacks<S> {
    type Session = S;

    fn on_upgrade(&self, request: &Request<'_>, session: &mut S) -> Upgrade {
        self.on_upgrade.as_ref().map_or_else(Upgrade::accept, |call| call(request, session))
    }

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
