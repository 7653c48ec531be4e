//! The API that applications are written against: [`Handler`], [`WebSocket`], [`Reply`],
//! [`Request`], [`Upgrade`], [`Callbacks`].
//!
//! Knows messages and what can be asked of a connection. Must not know sockets, shards or
//! tungstenite: the shard reaches handlers through [`Endpoint`], handlers reach the shard through
//! [`Reach`].

mod callbacks;
mod reply;
mod request;
mod websocket;

use std::any::Any;

pub use self::callbacks::Callbacks;
pub use self::reply::Reply;
pub(crate) use self::request::{Acceptance, Decision};
pub use self::request::{Request, Upgrade};
pub(crate) use self::websocket::Reach;
pub use self::websocket::WebSocket;
use crate::message::{Close, Message};

/// An application's behaviour at one endpoint.
///
/// One value serves all connections on all shards, so it is `Sync`; what belongs to one connection
/// lives in its [`Session`](Self::Session), which never leaves its shard and needs no lock.
///
/// For one connection the calls come one after another, on one thread: `on_upgrade`, then, if that
/// accepted, `on_connect`, any number of `on_message` and `on_drain`, and exactly one `on_close`. A
/// call should return soon: the other connections of the shard wait. A panic closes its own
/// connection with 1011 and nothing else.
///
/// ```
/// use peregrine::{Handler, Message, Reply, WebSocket};
///
/// struct Counter;
///
/// impl Handler for Counter {
///     type Session = u64;
///
///     fn on_message<'m>(&self, ws: &mut WebSocket<'_, u64>, _: Message<'m>) -> Reply<'m> {
///         *ws.session() += 1;
///         format!("that was message {}", ws.session()).into()
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The application's state for one connection, made when the upgrade is asked for.
    type Session: Default + 'static;

    /// A valid upgrade was requested: accept or reject it. Accepts by default.
    fn on_upgrade(&self, request: &Request<'_>, session: &mut Self::Session) -> Upgrade {
        let _ = (request, session);
        Upgrade::accept()
    }

    /// The connection is open and a member of its endpoint. What is returned is sent to it.
    fn on_connect(&self, ws: &mut WebSocket<'_, Self::Session>) -> Reply<'static> {
        let _ = ws;
        Reply::none()
    }

    /// A whole message came. What is returned answers it. Ignores it by default.
    fn on_message<'m>(
        &self,
        ws: &mut WebSocket<'_, Self::Session>,
        message: Message<'m>,
    ) -> Reply<'m> {
        let _ = (ws, message);
        Reply::none()
    }

    /// What waited for this client was above the high-water mark, as
    /// [`has_backpressure`](WebSocket::has_backpressure) tells, and has fallen to the low-water
    /// mark: time to go on sending.
    fn on_drain(&self, ws: &mut WebSocket<'_, Self::Session>) {
        let _ = ws;
    }

    /// The connection ends; called exactly once for every `on_connect`, whoever closes and however.
    ///
    /// The connection has left its endpoint: no broadcast reaches it any more. What is returned is
    /// sent before the server's Close frame, if the connection can still carry it.
    fn on_close(&self, ws: &mut WebSocket<'_, Self::Session>, close: &Close) -> Reply<'static> {
        let _ = (ws, close);
        Reply::none()
    }
}

/// A [`Handler`] whose session's type is forgotten, so that all endpoints look alike to a shard.
pub(crate) trait Endpoint: Send + Sync {
    fn session(&self) -> Box<dyn Any>;
    fn upgrade(&self, request: &Request<'_>, session: &mut dyn Any) -> Upgrade;
    fn connect(&self, reach: &mut dyn Reach, session: &mut dyn Any) -> Reply<'static>;
    fn message<'m>(
        &self,
        reach: &mut dyn Reach,
        session: &mut dyn Any,
        message: Message<'m>,
    ) -> Reply<'m>;
    fn drain(&self, reach: &mut dyn Reach, session: &mut dyn Any);
    fn close(&self, reach: &mut dyn Reach, session: &mut dyn Any, close: &Close) -> Reply<'static>;
}

#[inline]
fn typed<S: 'static>(session: &mut dyn Any) -> &mut S {
    match session.downcast_mut() {
        Some(session) => session,
        None => unreachable!("a session keeps the type that its endpoint gave it"),
    }
}

impl<H: Handler> Endpoint for H {
    fn session(&self) -> Box<dyn Any> {
        Box::new(H::Session::default())
    }

    fn upgrade(&self, request: &Request<'_>, session: &mut dyn Any) -> Upgrade {
        self.on_upgrade(request, typed(session))
    }

    fn connect(&self, reach: &mut dyn Reach, session: &mut dyn Any) -> Reply<'static> {
        self.on_connect(&mut WebSocket::new(reach, typed(session)))
    }

    fn message<'m>(
        &self,
        reach: &mut dyn Reach,
        session: &mut dyn Any,
        message: Message<'m>,
    ) -> Reply<'m> {
        self.on_message(&mut WebSocket::new(reach, typed(session)), message)
    }

    fn drain(&self, reach: &mut dyn Reach, session: &mut dyn Any) {
        self.on_drain(&mut WebSocket::new(reach, typed(session)));
    }

    fn close(&self, reach: &mut dyn Reach, session: &mut dyn Any, close: &Close) -> Reply<'static> {
        self.on_close(&mut WebSocket::new(reach, typed(session)), close)
    }
}
