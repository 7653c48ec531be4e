//! [`WebSocket`]: a connection, as its handler sees it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::error::SendError;
use crate::hub::{ConnectionId, Hub};
use crate::message::{AsMessage, CloseCode, Message};
use crate::routing::Query;

/// What a handler's calls act upon. The shard implements it; handlers see it as [`WebSocket`].
pub(crate) trait Reach {
    fn id(&self) -> ConnectionId;
    fn send(&mut self, message: Message<'_>) -> Result<(), SendError>;
    fn send_to(&mut self, id: ConnectionId, message: Message<'_>) -> Result<(), SendError>;
    fn broadcast(
        &mut self,
        except: Option<ConnectionId>,
        message: Message<'_>,
    ) -> Result<(), SendError>;
    fn close(&mut self, code: CloseCode, reason: &str);
    fn abort(&mut self);
    fn buffered_bytes(&self) -> usize;
    fn has_backpressure(&self) -> bool;
    fn query(&self) -> &str;
    fn subprotocol(&self) -> Option<&str>;
    fn peer_addr(&self) -> SocketAddr;
    fn client_ip(&self) -> IpAddr;
    fn hub(&self) -> &Hub;
}

/// A connection during a call of its handler.
///
/// It only queues effects: no handler is ever called inside a handler, and nothing is written to a
/// socket before the handler has returned. `Ok` from a send means accepted for delivery, in order;
/// `Err` means not accepted, and says why.
///
/// **Order.** What one call of a handler sends to its own connection ([`send`](Self::send),
/// [`send_to`](Self::send_to) its own id, [`broadcast`](Self::broadcast), the return value) arrives
/// in program order. What a connection's handler sends to another connection, by `send_to` or
/// `broadcast`, arrives there in the order sent.
///
/// `S` is the handler's [`Session`](crate::Handler::Session).
pub struct WebSocket<'w, S> {
    reach: &'w mut dyn Reach,
    session: &'w mut S,
}

impl<S> fmt::Debug for WebSocket<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl<'w, S> WebSocket<'w, S> {
    #[inline]
    pub(crate) fn new(reach: &'w mut dyn Reach, session: &'w mut S) -> Self {
        Self { reach, session }
    }

    /// The id of this connection: its address for [`send_to`](Self::send_to) from anywhere.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.reach.id()
    }

    /// The application's state for this connection.
    pub fn session(&mut self) -> &mut S {
        self.session
    }

    /// Sends a message to this connection.
    ///
    /// # Errors
    /// [`Overloaded`](SendError::Overloaded) if the outbox cannot take it: the client reads too
    /// slowly, and the [`Overflow`](crate::Overflow) policy acts;
    /// [`Closed`](SendError::Closed) after [`close`](Self::close).
    pub fn send(&mut self, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.send(message.as_message())
    }

    /// Sends a value as JSON to this connection, in a text message.
    ///
    /// ```
    /// use peregrine::{Callbacks, Reply};
    ///
    /// let counter = Callbacks::<u32>::new().on_message(|ws, _| {
    ///     *ws.session() += 1;
    ///     let count = *ws.session();
    ///     match ws.send_json(&count) {
    ///         Ok(()) => Reply::none(),
    ///         Err(error) => error.to_string().into(),
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    ///
    /// # Panics
    /// If the value cannot be told in JSON: its `Serialize` fails, or a map has keys that are not
    /// text.
    #[cfg(feature = "serde")]
    pub fn send_json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SendError> {
        self.send(crate::message::to_json(value))
    }

    /// Sends a message to any connection of this server, itself included.
    ///
    /// On the same shard the message goes straight into the target's outbox. To another shard it
    /// goes through a mailbox; what does not fit there waits, bounded, and this shard reads no
    /// input until it does.
    ///
    /// # Errors
    /// [`Gone`](SendError::Gone) if the connection is known to have closed;
    /// [`Overloaded`](SendError::Overloaded) if the target's outbox or the way to it is full;
    /// [`Closed`](SendError::Closed) to itself after [`close`](Self::close);
    /// [`ShuttingDown`](SendError::ShuttingDown).
    pub fn send_to(&mut self, id: ConnectionId, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.send_to(id, message.as_message())
    }

    /// Sends a message to every open connection of this endpoint on all shards, this one
    /// included.
    ///
    /// Cost: the message is encoded once, whatever the number of members.
    ///
    /// # Errors
    /// [`Overloaded`](SendError::Overloaded) if a shard cannot take it: then nobody gets it;
    /// [`ShuttingDown`](SendError::ShuttingDown).
    pub fn broadcast(&mut self, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.broadcast(None, message.as_message())
    }

    /// Like [`broadcast`](Self::broadcast), leaving one connection out, usually this one.
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast).
    pub fn broadcast_except(
        &mut self,
        except: ConnectionId,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        self.reach.broadcast(Some(except), message.as_message())
    }

    /// Closes this connection with code 1000; see [`close_with`](Self::close_with).
    pub fn close(&mut self) {
        self.close_with(CloseCode::NORMAL, "");
    }

    /// Closes this connection (RFC 6455 section 7.1.2).
    ///
    /// It leaves the endpoint at once: no later broadcast or send reaches it. What was queued
    /// before and this call's return value are still delivered, then what
    /// [`on_close`](crate::Handler::on_close) returns, then a Close frame. The rest of the closing
    /// handshake has [`Limits::closing`](crate::Limits::closing) to happen. A second call has no
    /// effect.
    ///
    /// The reason is cut to [`Close::REASON_LIMIT_BYTES`](crate::Close::REASON_LIMIT_BYTES). A code
    /// that [must not be sent](CloseCode::is_sendable) is sent as 1000.
    pub fn close_with(&mut self, code: impl Into<CloseCode>, reason: &str) {
        self.reach.close(code.into(), reason);
    }

    /// Drops this connection once the handler has returned: no Close frame, nothing queued is
    /// delivered. `on_close` is still called: with code 1006, or with what [`close`](Self::close)
    /// was called with before.
    pub fn abort(&mut self) {
        self.reach.abort();
    }

    /// The first value of a query parameter of the upgrade request, percent-decoded, `+` as
    /// space.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_params().first(name)
    }

    /// All query parameters of the upgrade request, in order.
    #[must_use]
    pub fn query_params(&self) -> Query<'_> {
        Query::new(self.reach.query())
    }

    /// The subprotocol that [`on_upgrade`](crate::Handler::on_upgrade) chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.reach.subprotocol()
    }

    /// The address of the peer's socket: the client's, or that of the last proxy before the server.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.reach.peer_addr()
    }

    /// The client's address; see [`Request::client_ip`](crate::Request::client_ip).
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.reach.client_ip()
    }

    /// How many bytes wait to be taken by the kernel for this connection.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.reach.buffered_bytes()
    }

    /// Whether the outbox is above its high-water mark: a considerate handler sends no more until
    /// [`on_drain`](crate::Handler::on_drain).
    #[must_use]
    pub fn has_backpressure(&self) -> bool {
        self.reach.has_backpressure()
    }

    /// A handle that reaches all connections and can be given to other threads. What is sent
    /// through it is not ordered with what is sent through this `WebSocket`.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.reach.hub().clone()
    }
}
