//! [`Connection`]: one connection, as it stands in its slot.
//!
//! Knows everything that belongs to one connection. Must not know other connections, nor the shard:
//! no command here puts it on a list, arms a timer or calls a handler.

pub(in crate::shard) mod flags;
mod input;
#[cfg(feature = "testing")]
mod invariants;
mod io;
mod lifecycle;
mod liveness;
mod membership;
mod output;
pub(in crate::shard) mod phase;
mod progress;
mod request;
pub(in crate::shard) mod stream;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub(in crate::shard) use self::flags::{Admission, Flags, Yielding};
pub(in crate::shard) use self::input::WAITING_BYTES;
pub(in crate::shard) use self::membership::Membership;
pub(in crate::shard) use self::phase::{CloseHandshake, Closing, Heard, Phase};
pub(in crate::shard) use self::stream::Streaming;
use crate::hub::{Address, EndpointIndex};
use crate::protocol::Protocol;
use crate::protocol::parcel::Encoding;
use crate::routing::Params;
use crate::shard::outbox::Outbox;
use crate::transport::Transport;

/// A connection's state. What an idle one weighs is asserted in `footprint.rs`.
///
/// It does nothing by itself: the shard asks for facts and gives commands. A file holds each kind:
///
/// * Facts that stay ([`address`](Self::address), [`peer`](Self::peer)), and the admission: here.
/// * The way down the phases (`lifecycle`): [`hear_upgrade`](Self::hear_upgrade),
///   [`open`](Self::open), [`begin_close`](Self::begin_close),
///   [`begin_closing`](Self::begin_closing), [`die`](Self::die), in this order.
/// * What was asked for before the upgrade (`request`): [`query`](Self::query),
///   [`client_ip`](Self::client_ip), ..
/// * What only an open connection has: its [`Membership`].
/// * Input (`input`): [`read`](Self::read), then the protocol, then
///   [`keep_input`](Self::keep_input) with the rest.
/// * Output (`output`): the outbox, and what a message in pieces holds back.
/// * Signs of life (`liveness`, `progress`): [`touch`](Self::touch) whenever the peer was heard.
#[derive(Debug)]
pub(in crate::shard) struct Connection {
    transport: Transport,
    address: Address,
    peer: SocketAddr,
    phase: Phase,
    protocol: Protocol,
    /// What the kernel has not taken yet.
    outbox: Outbox,
    /// Input that was read and not handled yet: the part of a request head, or what a budget or
    /// the outbox's high-water mark left over.
    backlog: Vec<u8>,
    /// `None` while there is nothing of the kind.
    details: Option<Box<Details>>,
    /// Until the upgrade is granted, the one that stands for none.
    endpoint: EndpointIndex,
    heard_at: Instant,
    /// When the phase ends by force: the handshake's deadline, or the closing handshake's.
    deadline: Instant,
    /// How many pings were sent since the peer was last heard.
    ping_count: u8,
    flags: Flags,
}

/// What not every connection has: what is kept of the upgrade and of what a proxy said before it,
/// and a message in pieces.
#[derive(Debug, Default)]
pub(in crate::shard) struct Details {
    query: Box<str>,
    params: Params,
    subprotocol: Option<Box<str>>,
    streaming: Option<Streaming>,
    /// Who trusted proxies say that the client is, if that is not the peer.
    client: Option<IpAddr>,
    /// How much the peer had acknowledged when the shard last asked for it.
    acked_bytes: Option<u64>,
}

/// A fresh connection, and facts that stay.
impl Connection {
    /// A connection that has said nothing and has until the deadline to ask for something.
    #[inline]
    pub(in crate::shard) fn new(
        address: Address,
        transport: Transport,
        peer: SocketAddr,
        no_endpoint: EndpointIndex,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            transport,
            address,
            peer,
            phase: Phase::Upgrading { heard: Heard::Nothing },
            protocol: Protocol::default(),
            outbox: Outbox::default(),
            backlog: Vec::new(),
            details: None,
            endpoint: no_endpoint,
            heard_at: now,
            deadline,
            ping_count: 0,
            flags: Flags::default(),
        }
    }

    #[inline]
    pub(in crate::shard) fn address(&self) -> Address {
        self.address
    }

    pub(in crate::shard) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The form of messages that it takes.
    #[inline]
    pub(in crate::shard) fn encoding(&self) -> Encoding {
        self.protocol.encoding()
    }

    /// The endpoint that serves it; until the upgrade is granted, the one that stands for none.
    #[inline]
    pub(in crate::shard) fn endpoint(&self) -> EndpointIndex {
        self.endpoint
    }

    pub(in crate::shard) fn admission(&self) -> Admission {
        self.flags.admission
    }

    pub(in crate::shard) fn admit(&mut self, admission: Admission) {
        self.flags.admission = admission;
    }

    /// Whether a connection over the limit yields its place to a newer one.
    pub(in crate::shard) fn yields(&self, now: Instant) -> Option<Yielding> {
        let is_old = self.heard_at < now;
        let is_silent = self.backlog.is_empty() && self.outbox.is_empty() && !self.flags.is_ready;
        match self.phase {
            Phase::Upgrading { .. } if is_old && is_silent => Some(Yielding::Silent),
            Phase::Closing(Closing::PeerEnd) => Some(Yielding::Answered),
            _ => None,
        }
    }

    /// Begins with a protocol that is not the usual one.
    #[cfg(any(all(test, feature = "testing"), feature = "__internals"))]
    pub(in crate::shard) fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// What not every connection has; from now on this one does.
    pub(in crate::shard) fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }
}
