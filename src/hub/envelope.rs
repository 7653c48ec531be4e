//! [`Envelope`]: what travels between shards, and whom a [`Publication`] addresses.
//!
//! Knows addresses, parcels and the tickets that travel with them. Must not know mailboxes,
//! nor who sends and who takes.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use super::id::{Address, ConnectionId};
use super::ticket::{Tally, Ticket};
use crate::message::Close;
use crate::protocol::frame;
use crate::protocol::parcel::{Parcel, SharedParcel};

/// Which endpoint of the server, in the order in which they were added.
pub(crate) type EndpointIndex = u16;

/// All whom a publication addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The topic of everybody: all connections of an endpoint.
    Everyone(EndpointIndex),
    /// The subscribers of a topic.
    Topic(Arc<str>),
}

/// One message for many, on its way; all shards share it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) audience: Audience,
    pub(crate) except: Option<ConnectionId>,
    pub(crate) parcel: SharedParcel,
    /// Who counts the deliveries, if anybody wants to know.
    pub(crate) tally: Option<Tally>,
}

/// What travels between shards. Messages are encoded by the sender, once; a second form is made by
/// the shards.
#[derive(Debug)]
pub(crate) enum Envelope {
    Send {
        to: Address,
        parcel: Parcel,
        ticket: Option<Ticket>,
    },
    Publish(Arc<Publication>),
    /// A part of a message; its ticket is a piece's.
    Piece {
        to: Address,
        frame: Bytes,
        ticket: Ticket,
    },
    Subscribe {
        to: Address,
        topic: Arc<str>,
    },
    Unsubscribe {
        to: Address,
        topic: Arc<str>,
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
    /// The bytes that it keeps alive, as reserved in the mailbox. The second form of a publication
    /// may come later, from another shard. It does not count here, and is shorter than the first:
    /// so a mailbox keeps less than twice of what it counts alive.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Send { parcel, .. } => parcel.len(),
            Self::Piece { frame, .. } => frame.len(),
            Self::Publish(publication) => publication.parcel.plain().len(),
            Self::Subscribe { topic, .. } | Self::Unsubscribe { topic, .. } => topic.len(),
            Self::Close { .. } | Self::Abort { .. } | Self::Adopt { .. } => 0,
        }
    }

    /// How many messages are lost with it.
    pub(crate) fn message_count(&self) -> u64 {
        match self {
            Self::Send { .. } | Self::Publish(_) => 1,
            Self::Piece { frame, .. } => u64::from(frame::ends_message(frame)),
            _ => 0,
        }
    }
}
