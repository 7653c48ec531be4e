//! One connection, as it stands in its slot.

pub(in crate::shard) mod flags;
pub(in crate::shard) mod phase;
pub(in crate::shard) mod stream;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub(in crate::shard) use self::flags::{Admission, Flags, Yielding};
pub(in crate::shard) use self::phase::{Closing, Farewell, Heard, Leaving, Phase};
pub(in crate::shard) use self::stream::Streaming;
use crate::hub::{Address, EndpointIndex};
use crate::protocol::Protocol;
use crate::protocol::parcel::Encoding;
use crate::routing::Params;
use crate::shard::fanout::audience::Position;
use crate::shard::fanout::audience::{AudienceIndex, Place};
use crate::shard::outbox::Outbox;
use crate::transport::Transport;

/// A connection's state. What an idle one weighs is asserted in `footprint.rs`.
#[derive(Debug)]
pub(in crate::shard) struct Connection {
    pub(in crate::shard) transport: Transport,
    pub(in crate::shard) address: Address,
    pub(in crate::shard) peer: SocketAddr,
    pub(in crate::shard) phase: Phase,
    pub(in crate::shard) protocol: Protocol,
    /// What the kernel has not taken yet.
    pub(in crate::shard) outbox: Outbox,
    /// Input that was read and not handled yet: the part of a request head, or what a budget or
    /// the outbox's high-water mark left over.
    pub(in crate::shard) backlog: Vec<u8>,
    /// `None` while there is nothing of the kind.
    pub(in crate::shard) details: Option<Box<Details>>,
    /// Until the upgrade is granted, the one that stands for none.
    pub(in crate::shard) endpoint: EndpointIndex,
    /// Its place among all connections of its endpoint on this shard.
    pub(in crate::shard) place: Place,
    /// How far in the log of publications it is.
    pub(in crate::shard) position: Position,
    pub(in crate::shard) heard_at: Instant,
    /// When the phase ends by force: the handshake's deadline, or the closing handshake's.
    pub(in crate::shard) deadline: Instant,
    /// How many pings were sent since the peer was last heard.
    pub(in crate::shard) ping_count: u8,
    pub(in crate::shard) flags: Flags,
}

/// What not every connection has: what is kept of the upgrade and of what a proxy said before it,
/// and its subscriptions.
#[derive(Debug, Default)]
pub(in crate::shard) struct Details {
    pub(in crate::shard) query: Box<str>,
    pub(in crate::shard) params: Params,
    pub(in crate::shard) subprotocol: Option<Box<str>>,
    /// The topics that it subscribes to, and its place among their members; in the order of the
    /// topics.
    pub(in crate::shard) subscriptions: Vec<(AudienceIndex, Place)>,
    pub(in crate::shard) streaming: Option<Streaming>,
    /// Who trusted proxies say that the client is, if that is not the peer.
    pub(in crate::shard) client: Option<IpAddr>,
    /// How much the peer had acknowledged when the shard last asked for it.
    pub(in crate::shard) acked_bytes: Option<u64>,
}

impl Connection {
    pub(in crate::shard) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether it is open and nothing is under way in either direction: what comes next is the
    /// beginning of a frame, which may be handled at once, and answered in the plain form, which is
    /// encoded in place.
    #[inline]
    pub(in crate::shard) fn is_at_ease(&self) -> bool {
        self.is_open()
            && self.flags.are_clear()
            && self.encoding().is_plain()
            && self.protocol.is_dormant()
            && self.backlog.is_empty()
            && self.outbox.is_empty()
    }

    /// The form of messages that it takes.
    #[inline]
    pub(in crate::shard) fn encoding(&self) -> Encoding {
        self.protocol.encoding()
    }

    /// The endpoint that serves it, or is asked to; else the one that stands for none.
    pub(in crate::shard) fn asked(&self) -> EndpointIndex {
        match self.phase {
            Phase::Upgrading { heard: Heard::Upgrade(endpoint) } => endpoint,
            _ => self.endpoint,
        }
    }

    pub(in crate::shard) fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }

    /// Whether a connection in surplus yields its place to a newer one.
    pub(in crate::shard) fn yields(&self, now: Instant) -> Option<Yielding> {
        let is_old = self.heard_at < now;
        let is_silent = self.backlog.is_empty() && self.outbox.is_empty() && !self.flags.is_ready;
        match self.phase {
            Phase::Upgrading { .. } if is_old && is_silent => Some(Yielding::Silent),
            Phase::Closing(Closing::PeerEnd) => Some(Yielding::Answered),
            _ => None,
        }
    }

    /// The client's address: the peer's, unless trusted proxies told another.
    pub(in crate::shard) fn client_ip(&self) -> IpAddr {
        let told = self.details.as_ref().and_then(|details| details.client);
        told.unwrap_or_else(|| self.peer.ip().to_canonical())
    }

    /// Moves input that was kept to the front of the buffer; how much it was. An idle connection
    /// holds no memory for it.
    #[inline]
    pub(in crate::shard) fn take_backlog(&mut self, buffer: &mut [u8]) -> usize {
        if self.backlog.is_empty() {
            return 0;
        }
        let backlog = std::mem::take(&mut self.backlog);
        buffer[..backlog.len()].copy_from_slice(&backlog);
        backlog.len()
    }

    /// What not every connection has; from now on this one does.
    pub(in crate::shard) fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// The topics that it subscribes to.
    #[inline]
    pub(in crate::shard) fn subscriptions(&self) -> &[(AudienceIndex, Place)] {
        self.details.as_ref().map_or(&[], |details| &details.subscriptions)
    }

    /// The peer was heard, or took something.
    #[inline]
    pub(in crate::shard) fn touch(&mut self, now: Instant) {
        self.heard_at = now;
        self.ping_count = 0;
    }
}

impl Connection {
    /// Where the next message is queued: what waits for the end of one in pieces, or the outbox.
    pub(in crate::shard) fn back(&mut self) -> &mut Outbox {
        let Self { details, outbox, .. } = self;
        match details.as_mut().and_then(|details| details.streaming.as_mut()) {
            Some(streaming) => &mut streaming.held,
            None => outbox,
        }
    }

    pub(in crate::shard) fn streaming(&self) -> Option<&Streaming> {
        self.details.as_ref()?.streaming.as_ref()
    }

    pub(in crate::shard) fn streaming_mut(&mut self) -> Option<&mut Streaming> {
        self.details.as_mut()?.streaming.as_mut()
    }

    pub(in crate::shard) fn take_streaming(&mut self) -> Option<Streaming> {
        self.flags.has_stream = false;
        self.details.as_mut()?.streaming.take()
    }
}

#[cfg(feature = "testing")]
impl Connection {
    /// Panics unless a message in pieces and what waits for it are as they always are.
    pub(in crate::shard) fn check_stream_invariants(&self) {
        assert_eq!(self.flags.has_stream, self.streaming().is_some(), "the flag of a stream");
        if let Some(streaming) = self.streaming() {
            streaming.held.check_invariants();
        }
    }

    /// Whether nobody was told that its message in pieces was abandoned.
    pub(in crate::shard) fn has_unheard_stream(&self) -> bool {
        self.streaming().is_some_and(|streaming| streaming.credit.is_unheard())
    }
}
