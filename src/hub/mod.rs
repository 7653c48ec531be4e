//! Reaching connections from anywhere: [`ConnectionId`]s, mailboxes, wake-ups, the [`Hub`].
//!
//! Knows addresses and encoded frames. Must not know what a connection is.

mod id;
pub(crate) mod mailbox;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

pub(crate) use self::id::{Address, Node, SHARD_COUNT_MAX, SLOT_COUNT_MAX};
pub use self::id::{ConnectionId, ParseIdError};
use self::mailbox::Mailbox;
use crate::error::SendError;
use crate::message::{AsMessage, Close, CloseCode, ClosedBy};
use crate::protocol::frame;

/// Which endpoint of the server, in the order in which they were added.
pub(crate) type EndpointIndex = u16;

/// What travels between shards. Frames are encoded by the sender, once.
#[derive(Debug)]
pub(crate) enum Envelope {
    Send {
        to: Address,
        frame: Bytes,
    },
    Broadcast {
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        frame: Bytes,
    },
    Close {
        to: Address,
        close: Box<Close>,
    },
    Abort {
        to: Address,
    },
    /// A socket that another shard accepted.
    Adopt {
        socket: OwnedFd,
        peer: SocketAddr,
    },
}

impl Envelope {
    /// The bytes that it keeps alive, as reserved in the mailbox.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Send { frame, .. } | Self::Broadcast { frame, .. } => frame.len(),
            Self::Close { .. } | Self::Abort { .. } | Self::Adopt { .. } => 0,
        }
    }
}

/// What all threads of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) mailboxes: Box<[Arc<Mailbox<Envelope>>]>,
    pub(crate) endpoints: HashMap<String, EndpointIndex>,
    pub(crate) shutdown: Shutdown,
}

/// How far a shutdown has come.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// Set when it begins: the end of its grace.
    deadline: OnceLock<Instant>,
    /// How many shards have handed over all that their handlers had sent to other shards. Once it
    /// is all of them, nothing more can arrive anywhere.
    pub(crate) quiet_count: AtomicUsize,
    /// How many connections were dropped at the deadline.
    pub(crate) aborted_count: AtomicUsize,
    /// How many connections were open when the closing began.
    pub(crate) open_count: AtomicUsize,
}

impl Shutdown {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }
}

impl Shared {
    /// Begins the shutdown; the first call decides the deadline.
    pub(crate) fn begin_shutdown(&self, deadline: Instant) {
        self.shutdown.deadline.get_or_init(|| deadline);
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    /// Sends an encoded broadcast to every shard, or to none; `own` is left out.
    pub(crate) fn broadcast(
        &self,
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        frame: &Bytes,
    ) -> Result<(), SendError> {
        let rooms: Result<Vec<_>, _> =
            self.mailboxes.iter().map(|mailbox| mailbox.reserve(frame.len())).collect();
        for room in rooms? {
            room.send(Envelope::Broadcast { endpoint, except, frame: frame.clone() })?;
        }
        Ok(())
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.mailboxes.iter().map(|m| m.connection_count.load(Ordering::Relaxed)).sum()
    }
}

/// The handle with which any thread reaches the connections of a server.
///
/// It comes from [`Server::hub`](crate::Server::hub), [`Running::hub`](crate::Running::hub) or
/// [`WebSocket::hub`](crate::WebSocket::hub); clones are cheap, and it may outlive the server.
///
/// No call blocks. `Ok` means that the message was accepted for delivery: it is in the mailbox of
/// every shard that it has to reach, and arrives exactly once at each connection that is still open
/// then. `Err` means that nothing was accepted. What one thread sends to one connection arrives in
/// the order sent, whether by [`send_to`](Self::send_to) or by [`broadcast`](Self::broadcast).
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
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
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
        let mailbox = self.mailbox(id)?;
        let message = message.as_message();
        let room = mailbox.reserve(frame::encoded_bytes(message))?;
        room.send(Envelope::Send { to: id.address(), frame: frame::encode_whole(message) })
    }

    /// Sends a message to every open connection of the endpoint at `path`, on all shards.
    ///
    /// # Errors
    /// [`NoEndpoint`](SendError::NoEndpoint); [`Overloaded`](SendError::Overloaded) if the mailbox
    /// of any shard is full: then nobody gets it; [`ShuttingDown`](SendError::ShuttingDown).
    pub fn broadcast(&self, path: &str, message: impl AsMessage) -> Result<(), SendError> {
        self.broadcast_to(path, None, message)
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
        self.broadcast_to(path, Some(except), message)
    }

    fn broadcast_to(
        &self,
        path: &str,
        except: Option<ConnectionId>,
        message: impl AsMessage,
    ) -> Result<(), SendError> {
        let endpoint = *self.shared.endpoints.get(path).ok_or(SendError::NoEndpoint)?;
        let frame = frame::encode_whole(message.as_message());
        self.shared.broadcast(endpoint, except, &frame)
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

    /// Drops a connection at once: no Close frame, nothing queued is delivered.
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
        let count = |m: &Arc<Mailbox<Envelope>>| m.connection_count.load(Ordering::Relaxed);
        self.shared.mailboxes.iter().map(count).collect()
    }

    /// How many accepted messages were dropped so far: for connections that were gone by then, or
    /// by an [`Overflow`](crate::Overflow) policy. A broadcast counts once for each connection that
    /// it missed.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.shared.mailboxes.iter().map(|m| m.dropped_count.load(Ordering::Relaxed)).sum()
    }

    fn mailbox(&self, id: ConnectionId) -> Result<&Mailbox<Envelope>, SendError> {
        if id.node() != self.shared.node {
            return Err(SendError::Gone);
        }
        self.shared.mailboxes.get(id.shard()).map(AsRef::as_ref).ok_or(SendError::Gone)
    }
}
