//! [`Hub`]: the handle with which any thread reaches the connections of a server.
//!
//! Knows ids, messages and mailboxes: it encodes a message once and puts it into each mailbox
//! concerned. Must not know what a shard does with an envelope.

use std::collections::HashMap;
use std::sync::Arc;

use super::delivery::{BroadcastDelivery, Delivery};
use super::envelope::{Audience, EndpointIndex, Envelope, Publication};
use super::id::{ConnectionId, Node};
use super::injector::Injector;
use super::mailbox::Mailbox;
use super::outlet::Outlet;
use super::shared::{Origin, ShardLink, Shared};
use super::shutdown::{Progress, ShutdownPlan};
use super::ticket::{Tally, Ticket};
use super::topics::topic_name;
use crate::error::SendError;
use crate::message::{AsMessage, Close, CloseCode, ClosedBy, Message};
use crate::protocol::frame;
use crate::protocol::parcel::Parcel;

/// The handle with which any thread reaches the connections of a server.
///
/// It comes from [`Server::hub`](crate::Server::hub),
/// [`RunningServer::hub`](crate::RunningServer::hub) or [`WebSocket::hub`](crate::WebSocket::hub);
/// clones are cheap, and it may outlive the server.
///
/// No call blocks. `Ok` means that the message was accepted for delivery: it is in the mailbox of
/// every shard that it has to reach, and arrives exactly once at each connection that is still open
/// then. `Err` means that nothing was accepted.
///
/// **Order.** If one call has returned before another one begins, every connection sees the effect
/// of the first one first, whichever threads and handlers make the two; more at
/// [`WebSocket`](crate::WebSocket).
///
/// Cost: the message is encoded once (one allocation); then one push and at most one wake-up for
/// each shard concerned.
///
/// ```
/// use peregrine::{Callbacks, Server};
///
/// let server = Server::builder().websocket("/news", Callbacks::<()>::new()).bind("127.0.0.1:0")?;
/// let hub = server.hub();
/// std::thread::spawn(move || hub.broadcast("/news", "extra, extra"));
/// # Ok::<(), peregrine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

impl Hub {
    pub(crate) fn new(
        node: Node,
        mailboxes: Box<[Arc<Mailbox<Envelope>>]>,
        outlets: Box<[Arc<dyn Outlet>]>,
        endpoints: HashMap<String, EndpointIndex>,
    ) -> Self {
        let shards = mailboxes.into_iter().map(ShardLink::new).collect();
        let shutdown = Progress::default();
        Self { shared: Arc::new(Shared { node, shards, outlets, endpoints, shutdown }) }
    }

    /// The injector of each outlet.
    #[cfg_attr(not(test), expect(dead_code, reason = "the first outlet but those of tests"))]
    pub(crate) fn injectors(&self) -> impl Iterator<Item = Injector> {
        (0..self.shared.outlets.len()).map(|outlet| Injector::new(Arc::clone(&self.shared), outlet))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The path of an endpoint, for the log.
    pub(crate) fn path_of(&self, endpoint: EndpointIndex) -> &str {
        let path = self.shared.endpoints.iter().find(|&(_, &index)| index == endpoint);
        path.map_or("?", |(path, _)| path)
    }

    /// Sends a message to one connection.
    ///
    /// # Errors
    /// [`Gone`](SendError::Gone) if the id is not one of this server;
    /// [`Overloaded`](SendError::Overloaded) if the mailbox of the connection's shard is full;
    /// [`ShuttingDown`](SendError::ShuttingDown). A connection that has closed meanwhile is
    /// noticed only on its shard; the message is dropped there, and counted in
    /// [`dropped_count`](Self::dropped_count).
    pub fn send_to(&self, id: ConnectionId, message: impl AsMessage) -> Result<(), SendError> {
        self.send(id, message.as_message(), None)
    }

    /// Like [`send_to`](Self::send_to), and reports what became of the message: `Ok` once the
    /// kernel has taken its last byte on its way to the client.
    ///
    /// The message is sent by the call, not by polling: the future only reports, on any executor.
    /// Its errors are those of `send_to`, and here [`Gone`](SendError::Gone) also means that the
    /// connection ended before it could get the message, [`Overloaded`](SendError::Overloaded)
    /// that its outbox did not take the message or dropped it again, and
    /// [`ShuttingDown`](SendError::ShuttingDown) that the server's grace was over.
    ///
    /// ```
    /// use peregrine::{ConnectionId, Hub, SendError};
    ///
    /// async fn remind(hub: &Hub, id: ConnectionId) -> &'static str {
    ///     match hub.send_to_async(id, "time to go").await {
    ///         Ok(()) => "delivered",
    ///         Err(SendError::Gone) => "has left",
    ///         Err(_) => "try again later",
    ///     }
    /// }
    /// ```
    pub fn send_to_async(&self, id: ConnectionId, message: impl AsMessage) -> Delivery {
        let (delivery, ticket) = Delivery::new();
        match self.send(id, message.as_message(), Some(ticket)) {
            Ok(()) => delivery,
            Err(error) => Delivery::refused(error),
        }
    }

    fn send(
        &self,
        id: ConnectionId,
        message: Message<'_>,
        ticket: Option<Ticket>,
    ) -> Result<(), SendError> {
        let room = self.mailbox(id)?.reserve(frame::encoded_bytes(message))?;
        let parcel = Parcel::new(message);
        room.send(Envelope::Send { to: id.address(), parcel, ticket })
    }

    /// Sends a message to every open connection of the endpoint at `path`, on all shards.
    ///
    /// # Errors
    /// [`NoEndpoint`](SendError::NoEndpoint); [`Overloaded`](SendError::Overloaded) if the mailbox
    /// of any shard is full: then nobody gets it; [`ShuttingDown`](SendError::ShuttingDown).
    pub fn broadcast(&self, path: &str, message: impl AsMessage) -> Result<(), SendError> {
        self.publish_to(self.everyone(path)?, None, message.as_message(), None)
    }

    /// Like [`broadcast`](Self::broadcast), leaving one connection out.
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast).
    pub fn broadcast_except(
        &self,
        path: &str,
        except: ConnectionId,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        self.publish_to(self.everyone(path)?, Some(except), message.as_message(), None)
    }

    /// Like [`broadcast`](Self::broadcast), and reports how many connections the message reached,
    /// and how many it could not reach, and why. The message is sent by the call; the future only
    /// tells.
    pub fn broadcast_async(&self, path: &str, message: impl AsMessage) -> BroadcastDelivery {
        match self.everyone(path) {
            Ok(audience) => self.publish_reported(audience, message.as_message()),
            Err(error) => BroadcastDelivery::refused(error),
        }
    }

    /// Makes a connection a subscriber of a topic; see
    /// [`WebSocket::subscribe`](crate::WebSocket::subscribe).
    ///
    /// What is published after this call has returned reaches it, what was published before does
    /// not. A connection that has closed meanwhile, or
    /// has as many topics as it may
    /// ([`Limits::max_topics_per_connection`](crate::Limits::max_topics_per_connection)), is
    /// noticed only on its shard, and logged there.
    ///
    /// # Errors
    /// As of [`send_to`](Self::send_to); [`NameTooLong`](SendError::NameTooLong) if the name has
    /// more than 1024 bytes.
    pub fn subscribe(&self, id: ConnectionId, topic: &str) -> Result<(), SendError> {
        let topic = topic_name(topic)?;
        let room = self.mailbox(id)?.reserve(topic.len())?;
        room.send(Envelope::Subscribe { to: id.address(), topic })
    }

    /// Ends a subscription; nothing happens if there is none. What was published before still
    /// arrives, what is published after this call has returned does not.
    ///
    /// # Errors
    /// As of [`subscribe`](Self::subscribe).
    pub fn unsubscribe(&self, id: ConnectionId, topic: &str) -> Result<(), SendError> {
        let topic = topic_name(topic)?;
        let room = self.mailbox(id)?.reserve(topic.len())?;
        room.send(Envelope::Unsubscribe { to: id.address(), topic })
    }

    /// Sends a message to every subscriber of a topic, on all shards. Topics are the server's: an
    /// endpoint's handler may publish to what another's clients subscribe to.
    ///
    /// # Errors
    /// As of [`broadcast`](Self::broadcast); a topic without subscribers is none.
    pub fn publish(&self, topic: &str, message: impl AsMessage) -> Result<(), SendError> {
        self.publish_to(Audience::Topic(topic_name(topic)?), None, message.as_message(), None)
    }

    /// Like [`publish`](Self::publish), leaving one connection out.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn publish_except(
        &self,
        topic: &str,
        except: ConnectionId,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        let audience = Audience::Topic(topic_name(topic)?);
        self.publish_to(audience, Some(except), message.as_message(), None)
    }

    /// Like [`publish`](Self::publish), and reports how many subscribers the message reached, as
    /// [`broadcast_async`](Self::broadcast_async).
    pub fn publish_async(&self, topic: &str, message: impl AsMessage) -> BroadcastDelivery {
        match topic_name(topic) {
            Ok(topic) => self.publish_reported(Audience::Topic(topic), message.as_message()),
            Err(error) => BroadcastDelivery::refused(error),
        }
    }

    /// How many connections subscribe to a topic, on all shards.
    #[must_use]
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.shared.subscriber_count(topic)
    }

    fn everyone(&self, path: &str) -> Result<Audience, SendError> {
        let endpoint = self.shared.endpoints.get(path).ok_or(SendError::NoEndpoint)?;
        Ok(Audience::Everyone(*endpoint))
    }

    fn publish_to(
        &self,
        audience: Audience,
        except: Option<ConnectionId>,
        message: Message<'_>,
        tally: Option<Tally>,
    ) -> Result<(), SendError> {
        let parcel = Parcel::new(message).into();
        let publication = Publication { audience, except, parcel, tally };
        self.shared.accept_publication(publication, Origin::Hub).map(drop)
    }

    fn publish_reported(&self, audience: Audience, message: Message<'_>) -> BroadcastDelivery {
        let (delivery, tally) = BroadcastDelivery::new();
        match self.publish_to(audience, None, message, Some(tally)) {
            Ok(()) => delivery,
            Err(error) => BroadcastDelivery::refused(error),
        }
    }

    /// Closes a connection with code 1000. What was sent to it before is delivered first.
    ///
    /// # Errors
    /// As of [`send_to`](Self::send_to).
    pub fn close(&self, id: ConnectionId) -> Result<(), SendError> {
        self.close_with(id, CloseCode::NORMAL, "")
    }

    /// Closes a connection with this code and reason; see
    /// [`WebSocket::close_with`](crate::WebSocket::close_with).
    ///
    /// # Errors
    /// As of [`send_to`](Self::send_to).
    pub fn close_with(
        &self,
        id: ConnectionId,
        code: impl Into<CloseCode>,
        reason: &str,
    ) -> Result<(), SendError> {
        let close = Box::new(Close::new(code, reason.to_owned(), ClosedBy::Application));
        self.mailbox(id)?.reserve(0)?.send(Envelope::Close { to: id.address(), close })
    }

    /// Drops a connection at once: no Close frame, nothing queued is delivered. `on_close` is
    /// called, and what handlers have left to be done goes on, as at
    /// [any end](crate::Reply::later).
    ///
    /// # Errors
    /// As of [`send_to`](Self::send_to).
    pub fn abort(&self, id: ConnectionId) -> Result<(), SendError> {
        self.mailbox(id)?.reserve(0)?.send(Envelope::Abort { to: id.address() })
    }

    /// How many connections each shard has, in the order of
    /// [`ConnectionId::shard`](ConnectionId::shard); those that are still upgrading included.
    #[must_use]
    pub fn connection_counts(&self) -> Vec<usize> {
        self.shared.shards.iter().map(|shard| shard.counters.connection_count()).collect()
    }

    /// How many accepted messages were dropped so far: for connections that were gone by then, or
    /// by an [`OverflowPolicy`](crate::OverflowPolicy). A broadcast counts once for each connection
    /// that it missed.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.shared.shards.iter().map(|shard| shard.counters.dropped_count()).sum()
    }

    /// How much work that handlers left to be done was cut so far: futures of
    /// [`Reply::later`](crate::Reply::later) that were not polled to their end, and offloaded work
    /// whose value came too late for its handler, because
    /// [`Limits::close_timeout`](crate::Limits::close_timeout) or the grace of the shutdown was
    /// over; and work that the full pool did not accept. Each is logged.
    #[must_use]
    pub fn cancelled_count(&self) -> u64 {
        self.shared.shards.iter().map(|shard| shard.counters.cancelled_count()).sum()
    }

    /// Begins to shut the server down, from any thread or handler, and returns at once. The plan is
    /// a grace (a `Duration`) or a [`ShutdownPlan`]. When it is done, [`Server::run`] returns, and
    /// [`RunningServer::join`], with the report.
    ///
    /// A second call, while it is going on, can only make it faster: no stage of it ends later than
    /// either plan says, its code is the first one's. So `Duration::ZERO` ends it at once.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use peregrine::{Callbacks, Server};
    ///
    /// let stopper = Callbacks::<()>::new().on_message(|ws, _message| {
    ///     ws.hub().shutdown(Duration::from_secs(10));
    ///     "the server shuts down".into()
    /// });
    /// let server = Server::builder().websocket("/stop", stopper).bind("127.0.0.1:0")?;
    /// # server.hub().shutdown(Duration::ZERO);
    /// server.run()?; // until somebody says so
    /// # Ok::<(), peregrine::Error>(())
    /// ```
    ///
    /// [`Server::run`]: crate::Server::run
    /// [`RunningServer::join`]: crate::RunningServer::join
    pub fn shutdown(&self, plan: impl Into<ShutdownPlan>) {
        self.shared.begin_shutdown(plan.into());
    }

    pub(super) fn mailbox(&self, id: ConnectionId) -> Result<&Mailbox<Envelope>, SendError> {
        if id.node() != self.shared.node {
            return Err(SendError::Gone);
        }
        let shard = self.shared.shards.get(id.shard()).ok_or(SendError::Gone)?;
        Ok(&shard.mailbox)
    }
}
