//! [`WebSocket`]: a connection, as its handler sees it.
//!
//! Knows [`Reach`], the context, messages and the hub's futures. Must not know shards, frames or
//! sockets.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use super::context::typed;
use super::{Context, Dependencies, GrantedRequest, Reach, Reply, Then};
use crate::error::{ParamError, SendError};
use crate::hub::{BroadcastDelivery, ConnectionId, Delivery, Hub, MessageWriter, Piece};
use crate::message::{AsMessage, CloseCode};
use crate::routing::Query;

/// A connection during a call of its handler.
///
/// It only queues effects: no handler is ever called inside a handler, and nothing is written to a
/// socket before the handler has returned. `Ok` from a send means accepted for delivery, in order;
/// `Err` means not accepted, and says why.
///
/// **Order.** If one call has returned before another one begins, every connection on every shard
/// sees the effect of the first one first. This holds for [`send_to`](Self::send_to),
/// [`broadcast`](Self::broadcast), [`publish`](Self::publish), their `_except` and `_async` kinds,
/// [`subscribe`](Self::subscribe), [`unsubscribe`](Self::unsubscribe), [`stream`](Self::stream) and
/// the ways to close, whether a handler makes the call or any thread by the [`Hub`]. So numbers
/// that handlers take and publish while they hold a lock arrive in ascending order at every member.
/// Two calls at the same time have no order: members on different shards may see them differently.
/// That a client has received a message does not mean that the call has returned which sent it.
///
/// What one call of a handler sends to its own connection (`send_to` its own id, `broadcast` and so
/// on, [`send`](Self::send), the return value) arrives in program order. But `send` and the return
/// value do not wait for others: what they say may arrive before a message that somebody else had
/// sent before. Where that matters, send to [`id`](Self::id) by `send_to`.
///
/// The `_async` kinds send at once, and in the same order; their futures only report what became of
/// it. While 64 MiB of publications are on their way on a shard, `publish` is refused there, and
/// the other calls of its handlers are not ordered with what has arrived meanwhile.
///
/// `S` is the handler's [`Session`](crate::Handler::Session).
pub struct WebSocket<'w, S> {
    dependencies: &'w Dependencies,
    /// Borrowed for one call only. No call runs code of the application, so none meets another.
    reach: RefCell<&'w mut dyn Reach>,
    session: &'w mut S,
    /// Taken from the shard when it is first asked for.
    granted: OnceCell<Option<Arc<GrantedRequest>>>,
}

impl<S> fmt::Debug for WebSocket<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl<'w, S> WebSocket<'w, S> {
    #[inline]
    pub(crate) fn new(
        dependencies: &'w Dependencies,
        reach: &'w mut dyn Reach,
        session: &'w mut S,
    ) -> Self {
        Self { dependencies, reach: RefCell::new(reach), session, granted: OnceCell::new() }
    }

    /// The id of this connection: its address for [`send_to`](Self::send_to) from anywhere.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.reach.borrow().id()
    }

    /// The application's state for this connection.
    ///
    /// ```
    /// use peregrine::{Callbacks, Reply};
    ///
    /// let rooms = Callbacks::<String>::new()
    ///     .on_connect(|ws| {
    ///         *ws.session_mut() = ws.query("topic").unwrap_or("lobby").to_owned();
    ///         ws.subscribe(ws.session()).err().map(|error| error.to_string()).into()
    ///     })
    ///     .on_message(|ws, message| match ws.publish(ws.session(), message) {
    ///         Ok(()) => Reply::none(),
    ///         Err(error) => error.to_string().into(),
    ///     });
    /// ```
    #[must_use]
    pub fn session(&self) -> &S {
        self.session
    }

    /// The application's state for this connection, to be changed.
    ///
    /// ```
    /// use peregrine::Callbacks;
    ///
    /// let counting = Callbacks::<u64>::new().on_message(|ws, _message| {
    ///     *ws.session_mut() += 1;
    ///     format!("message {}", ws.session()).into()
    /// });
    /// ```
    pub fn session_mut(&mut self) -> &mut S {
        self.session
    }

    /// Sends a message to this connection.
    ///
    /// # Errors
    /// [`Overloaded`](SendError::Overloaded) if the outbox cannot take it: the client reads too
    /// slowly, and the [`OverflowPolicy`](crate::OverflowPolicy) acts;
    /// [`Closed`](SendError::Closed) after [`close`](Self::close), also if others have closed it by
    /// [`Hub::close`] during this call, and in `on_close`.
    pub fn send(&self, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.borrow_mut().send(message.as_message())
    }

    /// Sends a value as JSON to this connection, in a text message.
    ///
    /// ```
    /// use peregrine::{Callbacks, Reply};
    ///
    /// let counter = Callbacks::<u32>::new().on_message(|ws, _| {
    ///     *ws.session_mut() += 1;
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
    /// If the value cannot be written as JSON: its `Serialize` fails, or a map has keys that are
    /// not text.
    #[cfg(feature = "serde")]
    pub fn send_json<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<(), SendError> {
        self.send(crate::message::to_json(value))
    }

    /// Sends a message to any connection of this server, itself included.
    ///
    /// On the same shard the message goes straight into the target's outbox. To another shard it
    /// goes through a mailbox; what does not fit there stands in line for it, bounded, and this
    /// shard reads no input until that was taken.
    ///
    /// # Errors
    /// [`Gone`](SendError::Gone) if the connection is known to have closed;
    /// [`Overloaded`](SendError::Overloaded) if the target's outbox or the way to it is full;
    /// [`Closed`](SendError::Closed) to itself after [`close`](Self::close);
    /// [`ShuttingDown`](SendError::ShuttingDown).
    pub fn send_to(&self, id: ConnectionId, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.borrow_mut().send_to(id, message.as_message())
    }

    /// Sends a message to every open connection of this endpoint on all shards, this one
    /// included. All of them see it after every message whose [`broadcast`](Self::broadcast),
    /// [`publish`](Self::publish) or [`send_to`](Self::send_to) has returned before this call; see
    /// "Order" [above](Self).
    ///
    /// Cost: the message is encoded once, whatever the number of members. What other shards and
    /// threads have sent to this shard meanwhile is taken over first; one load of an atomic if
    /// there is nothing.
    ///
    /// # Errors
    /// [`Overloaded`](SendError::Overloaded) if a shard cannot take it: then nobody gets it;
    /// [`ShuttingDown`](SendError::ShuttingDown).
    pub fn broadcast(&self, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.borrow_mut().publish(None, None, message.as_message())
    }

    /// Like [`broadcast`](Self::broadcast), leaving one connection out, usually this one.
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast).
    pub fn broadcast_except(
        &self,
        except: ConnectionId,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        self.reach.borrow_mut().publish(None, Some(except), message.as_message())
    }

    /// Like [`send_to`](Self::send_to), and reports what became of the message; see
    /// [`Hub::send_to_async`]. A handler awaits it by [`Reply::later`](crate::Reply::later), or
    /// gives it to somebody else.
    pub fn send_to_async(&self, id: ConnectionId, message: impl AsMessage) -> Delivery {
        self.reach.borrow_mut().send_to_async(id, message.as_message())
    }

    /// Like [`broadcast`](Self::broadcast), and reports how many connections the message reached;
    /// see [`Hub::broadcast_async`].
    pub fn broadcast_async(&self, message: impl AsMessage) -> BroadcastDelivery {
        self.reach.borrow_mut().publish_async(None, message.as_message())
    }

    /// Makes this connection a subscriber of a topic; nothing happens if it is one.
    ///
    /// A topic is a name, and exists while anybody subscribes to it. It is the server's: handlers
    /// of several endpoints may share one. What is published from now on reaches this connection,
    /// what was published before does not, whichever shard or thread has published it: calls that
    /// have returned before this one came before. It ends by [`unsubscribe`](Self::unsubscribe), or
    /// with the connection.
    ///
    /// Cost: a look-up by name, which is kept once a shard.
    ///
    /// # Errors
    /// [`TooManyTopics`](SendError::TooManyTopics) if it has as many as it may;
    /// [`NameTooLong`](SendError::NameTooLong) if the name has more than 1024 bytes;
    /// [`Closed`](SendError::Closed) after [`close`](Self::close).
    ///
    /// ```
    /// use peregrine::{Callbacks, Message, Server};
    ///
    /// let rooms = Callbacks::<()>::new()
    ///     .on_connect(|ws| {
    ///         let room = ws.query("room").unwrap_or("lobby");
    ///         match ws.subscribe(room) {
    ///             Ok(()) => format!("{} are here", ws.subscriber_count(room)).into(),
    ///             Err(error) => error.to_string().into(),
    ///         }
    ///     })
    ///     .on_message(|ws, message| {
    ///         let room = ws.query("room").unwrap_or("lobby");
    ///         ws.publish(room, message).err().map(|error| error.to_string()).into()
    ///     });
    /// let server = Server::builder().websocket("/rooms", rooms).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn subscribe(&self, topic: &str) -> Result<(), SendError> {
        self.reach.borrow_mut().subscribe(topic)
    }

    /// Ends a subscription; nothing happens if there is none. What was published before, also
    /// earlier in this call, still arrives; what is published after this call has returned does
    /// not.
    pub fn unsubscribe(&self, topic: &str) {
        self.reach.borrow_mut().unsubscribe(topic);
    }

    /// Sends a message to every subscriber of a topic on all shards, this connection included if
    /// it is one; it need not be. [`publish_except`](Self::publish_except) leaves it out. Its order
    /// is that of a [`broadcast`](Self::broadcast).
    ///
    /// Cost: the message is encoded once, whatever the number of subscribers.
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast); [`NameTooLong`](SendError::NameTooLong) if the name
    /// has more than 1024 bytes. A topic without subscribers is no error.
    pub fn publish(&self, topic: &str, message: impl AsMessage) -> Result<(), SendError> {
        self.reach.borrow_mut().publish(Some(topic), None, message.as_message())
    }

    /// Like [`publish`](Self::publish), leaving one connection out, usually this one.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn publish_except(
        &self,
        topic: &str,
        except: ConnectionId,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        self.reach.borrow_mut().publish(Some(topic), Some(except), message.as_message())
    }

    /// Like [`publish`](Self::publish), and reports how many subscribers the message reached; see
    /// [`Hub::broadcast_async`].
    pub fn publish_async(&self, topic: &str, message: impl AsMessage) -> BroadcastDelivery {
        self.reach.borrow_mut().publish_async(Some(topic), message.as_message())
    }

    /// How many connections subscribe to a topic, on all shards.
    #[must_use]
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.reach.borrow().hub().subscriber_count(topic)
    }

    /// Begins a message to this connection that is sent in pieces: `stream::<str>()` a text,
    /// `stream::<[u8]>()` a binary one. What was sent before arrives before it, what is sent from
    /// now on waits for its end; control frames pass. See [`MessageWriter`].
    ///
    /// When the connection closes meanwhile, also if the client ends its side of TCP behind its
    /// Close and reads on, the message may still be finished, for at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout), or the grace when the server shuts
    /// down;
    /// `on_close` is called after that. So a stream that is kept in the session cannot be finished
    /// by `on_close`. And code that awaits a message to this connection behind the stream has
    /// to finish the stream first.
    ///
    /// # Errors
    /// [`Overloaded`](SendError::Overloaded) while another one is not finished;
    /// [`Closed`](SendError::Closed) after [`close`](Self::close).
    pub fn stream<T: Piece + ?Sized>(&self) -> Result<MessageWriter<T>, SendError> {
        let credit = self.reach.borrow_mut().stream()?;
        Ok(MessageWriter::new(self.hub(), self.id(), credit))
    }

    /// Answers when the future has resolved, with what `then` makes of its value. It is
    /// [`Reply::later`] for a handler that needs the connection or its session again: `then` is
    /// called as a handler is, and its connection waits in the same way. `then` is called also if
    /// the connection ends before; only after
    /// [`Limits::close_timeout`](crate::Limits::close_timeout) it is not, which is counted in
    /// [`Hub::cancelled_count`](crate::Hub::cancelled_count). A future that needs the context of a
    /// runtime (tokio's timers and sockets) needs
    /// [`ServerBuilder::on_shard_thread`](crate::ServerBuilder::on_shard_thread).
    ///
    /// ```
    /// use peregrine::{Callbacks, Server};
    ///
    /// async fn look_up(token: String) -> Option<String> {
    ///     (token == "secret").then(|| "Alice".to_owned())
    /// }
    ///
    /// let members = Callbacks::<Option<String>>::new().on_message(|ws, message| {
    ///     let token = message.as_text().unwrap_or_default().to_owned();
    ///     ws.later_then(look_up(token), |ws, user| {
    ///         *ws.session_mut() = user;
    ///         match ws.session() {
    ///             Some(user) => format!("Welcome, {user}"),
    ///             None => {
    ///                 ws.close_with(4001, "unknown");
    ///                 "Who are you?".to_owned()
    ///             }
    ///         }
    ///     })
    /// });
    /// let server = Server::builder().websocket("/members", members).bind("127.0.0.1:0")?;
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    pub fn later_then<F, R>(
        &self,
        future: F,
        then: impl FnOnce(&mut WebSocket<'_, S>, F::Output) -> R + 'static,
    ) -> Reply<'static>
    where
        F: Future + 'static,
        R: Into<Reply<'static>>,
        S: 'static,
    {
        Reply::later(async move {
            let value = future.await;
            continued(move |ws: &mut WebSocket<'_, S>| then(ws, value).into())
        })
    }

    /// Lets a thread of the server's pool run the work, and answers with what `then` makes of its
    /// value: [`Reply::offload`] for a handler that needs the connection or its session again, as
    /// [`later_then`](Self::later_then).
    pub fn offload_then<T, R>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(&mut WebSocket<'_, S>, T) -> R + 'static,
    ) -> Reply<'static>
    where
        T: Send + 'static,
        R: Into<Reply<'static>>,
        S: 'static,
    {
        Reply::offload_then(work, move |value| {
            continued(move |ws: &mut WebSocket<'_, S>| then(ws, value).into())
        })
    }

    /// Closes this connection with code 1000; see [`close_with`](Self::close_with).
    pub fn close(&self) {
        self.close_with(CloseCode::NORMAL, "");
    }

    /// Closes this connection (RFC 6455 section 7.1.2).
    ///
    /// It leaves the endpoint and its topics at once: no later broadcast or send reaches it. What
    /// was queued before and this call's return value are still delivered, also one that comes
    /// [later](crate::Reply::later); then what [`on_close`](crate::Handler::on_close) returns, then
    /// a Close frame. The rest of the closing handshake has
    /// [`Limits::close_timeout`](crate::Limits::close_timeout) to happen, and so has an answer that
    /// comes later before it. A second call has no effect.
    ///
    /// The reason is cut to [`Close::REASON_LIMIT_BYTES`](crate::Close::REASON_LIMIT_BYTES). A code
    /// that [must not be sent](CloseCode::is_sendable) is sent as 1000.
    pub fn close_with(&self, code: impl Into<CloseCode>, reason: &str) {
        self.reach.borrow_mut().close(code.into(), reason);
    }

    /// Drops this connection once the handler has returned: no Close frame, nothing queued is
    /// delivered. `on_close` is still called: with code 1006, or with what [`close`](Self::close)
    /// was called with before. What handlers have left to be done goes on, as at
    /// [any end](Reply::later).
    pub fn abort(&self) {
        self.reach.borrow_mut().abort();
    }

    /// The first value of a query parameter of the upgrade request, percent-decoded, `+` as space.
    ///
    /// ```
    /// use peregrine::Callbacks;
    ///
    /// let greeter = Callbacks::<()>::new().on_connect(|ws| match ws.query("name") {
    ///     Some("gordon") => "Welcome back".into(),
    ///     name => format!("Welcome, {}", name.unwrap_or("guest")).into(),
    /// });
    /// ```
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.granted()?.query.get(name)
    }

    /// All query parameters of the upgrade request, in order.
    #[must_use]
    pub fn query_params(&self) -> &Query {
        self.granted().map_or(Query::EMPTY, |granted| &granted.query)
    }

    /// The first value of a query parameter, as [`query`](Self::query) gives it, parsed. An
    /// [`Endpoint`](crate::Endpoint::required_query) can refuse requests without it.
    ///
    /// # Errors
    /// [`ParamError::Missing`] if the query has no such parameter; [`ParamError::Malformed`] if its
    /// first value is no `T`.
    ///
    /// ```
    /// use peregrine::{Callbacks, ParamError};
    ///
    /// let pages = Callbacks::<()>::new().on_message(|ws, _message| {
    ///     match ws.query_as::<u32>("page") {
    ///         Ok(page) => format!("page {page}").into(),
    ///         Err(ParamError::Missing) => "the first page".into(),
    ///         Err(ParamError::Malformed) => "the page is not a number".into(),
    ///     }
    /// });
    /// ```
    pub fn query_as<T: FromStr>(&self, name: &str) -> Result<T, ParamError> {
        ParamError::parse(self.query(name))
    }

    /// The value of a path parameter, percent-decoded: `"7"` of `room` for an endpoint at
    /// `/rooms/{room}` that was asked for as `/rooms/7`. Returns `None` if the path of this
    /// endpoint has no such parameter. What is not UTF-8 is replaced by U+FFFD.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.granted()?.params.find(name)
    }

    /// The value of a path parameter, parsed. An
    /// [`Endpoint`](crate::Endpoint::required_param) can refuse requests in which it is malformed.
    ///
    /// # Errors
    /// [`ParamError::Missing`] if the path of this endpoint has no such parameter;
    /// [`ParamError::Malformed`] if its value is no `T`.
    pub fn param_as<T: FromStr>(&self, name: &str) -> Result<T, ParamError> {
        ParamError::parse(self.param(name))
    }

    fn granted(&self) -> Option<&GrantedRequest> {
        self.granted.get_or_init(|| self.reach.borrow().granted()).as_deref()
    }

    /// The value of this type that was given to the endpoint, to a router around it, or to the
    /// server; the nearest one counts. It does not borrow this `WebSocket`.
    ///
    /// ```
    /// use peregrine::{Handler, Message, Reply, Router, WebSocket};
    ///
    /// struct Motto(String);
    /// struct Wise;
    ///
    /// impl Handler for Wise {
    ///     type Session = ();
    ///
    ///     fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, _: Message<'m>) -> Reply<'m> {
    ///         match ws.send(&ws.dependency::<Motto>().0) {
    ///             Ok(()) => Reply::none(),
    ///             Err(error) => error.to_string().into(),
    ///         }
    ///     }
    /// }
    ///
    /// let router = Router::new()
    ///     .dependency(Motto("Festina lente.".to_owned()))
    ///     .requires::<Motto>()
    ///     .websocket("/wise", Wise);
    /// ```
    ///
    /// # Panics
    /// If there is none, with the type's name. The endpoint, its router or the server may say
    /// [`requires`](crate::Endpoint::requires): then it is `bind` that fails.
    #[must_use]
    pub fn dependency<T: Send + Sync + 'static>(&self) -> &'w T {
        self.dependencies.expect()
    }

    /// Like [`dependency`](Self::dependency); `None` if there is none.
    #[must_use]
    pub fn find_dependency<T: Send + Sync + 'static>(&self) -> Option<&'w T> {
        self.dependencies.find()
    }

    /// The subprotocol that [the upgrade](crate::Accept::subprotocols) chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.granted()?.subprotocol.as_deref()
    }

    /// The address of the peer's socket: the client's, or that of the last proxy before the server.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.reach.borrow().peer_addr()
    }

    /// The client's address; see [`Request::client_ip`](crate::Request::client_ip).
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.reach.borrow().client_ip()
    }

    /// How many bytes wait to be taken by the kernel for this connection.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.reach.borrow().buffered_bytes()
    }

    /// Whether the outbox is above its high-water mark: a considerate handler sends no more until
    /// [`on_drain`](crate::Handler::on_drain).
    #[must_use]
    pub fn has_backpressure(&self) -> bool {
        self.reach.borrow().has_backpressure()
    }

    /// A handle that reaches all connections and can be given to other threads. Its calls are
    /// ordered with those of this `WebSocket` ("Order" [above](Self)), but for [`send`](Self::send)
    /// and the return value: they may arrive before what was sent to this connection through it.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.reach.borrow().hub().clone()
    }
}

impl Context<'_> {
    /// The connection, to a handler whose sessions are of this type.
    #[inline]
    pub(crate) fn socket<'w, S: 'static>(
        &'w mut self,
        reach: &'w mut dyn Reach,
    ) -> WebSocket<'w, S> {
        WebSocket::new(self.dependencies, reach, typed(self.session))
    }
}

/// An answer that is made with the connection at hand.
fn continued<S: 'static>(
    then: impl FnOnce(&mut WebSocket<'_, S>) -> Reply<'static> + 'static,
) -> Reply<'static> {
    Reply::then(Then(Box::new(move |reach, context| then(&mut context.socket(reach)))))
}
