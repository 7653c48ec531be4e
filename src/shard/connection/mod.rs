//! One connection, as it stands in its slot.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::hub::{Address, EndpointIndex};
use crate::message::Close;
use crate::protocol::Protocol;
use crate::routing::Params;
use crate::shard::fanout::Position;
use crate::shard::fanout::audience::{AudienceIndex, Place};
use crate::shard::outbox::Outbox;
use crate::shard::state::streaming::Streaming;
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

/// What stands on which list, and what the socket is known to do.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(in crate::shard) struct Flags {
    /// The kernel's buffer is full; an event will tell when it is not.
    pub(in crate::shard) is_blocked: bool,
    /// The outbox rose above its high-water mark and has not fallen to the low one: no input is
    /// handled.
    pub(in crate::shard) is_pressed: bool,
    /// Its handler's answer comes later: no input is handled until then.
    pub(in crate::shard) is_waiting: bool,
    /// A message is being sent to it in pieces: others wait.
    pub(in crate::shard) has_stream: bool,
    /// It stands among those that keep input.
    pub(in crate::shard) keeps_input: bool,
    /// Such a message will not be finished: no other can follow it.
    pub(in crate::shard) is_cut_short: bool,
    /// The peer has sent its Close or ended its side while the connection waits: its handler's
    /// answers have until the deadline.
    pub(in crate::shard) is_answer_due: bool,
    /// The peer has ended its side: the end has to be read.
    pub(in crate::shard) has_peer_ended: bool,
    // Up to here, what stands in the way of a plain turn.
    /// On the ready list.
    pub(in crate::shard) is_ready: bool,
    /// On the dirty list.
    pub(in crate::shard) is_dirty: bool,
    /// On the drained list.
    pub(in crate::shard) is_drained: bool,
    /// The upgrade was granted: what is said from then on are frames.
    pub(in crate::shard) has_opened: bool,
    pub(in crate::shard) admission: Admission,
}

impl Flags {
    /// Whether nothing stands in the way of a plain turn. One load: they lie side by side.
    #[inline]
    pub(in crate::shard) fn are_clear(self) -> bool {
        let flags = [
            self.is_blocked,
            self.is_pressed,
            self.is_waiting,
            self.has_stream,
            self.keeps_input,
            self.is_cut_short,
            self.is_answer_due,
            self.has_peer_ended,
        ];
        u64::from_ne_bytes(flags.map(u8::from)) == 0
    }
}

/// As what a connection was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum Admission {
    /// It has one of the server's places.
    #[default]
    Placed,
    /// And is counted for its client's address, which is known for good.
    Counted,
    /// Beyond the server's limit: it has one of the few places of the surplus, gets pages, and no
    /// upgrade.
    Surplus,
    /// The same, because its client's address has too many.
    SurplusOfAddress,
    /// It was in surplus and has lost its place to a newer connection; it is dead.
    Evicted,
}

/// Why a connection in surplus yields its place. The first kind does so before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) enum Yielding {
    /// It has said nothing, though there was time.
    Silent,
    /// It has got all that it gets.
    Answered,
}

impl Admission {
    /// Whether it has one of the places of the surplus.
    pub(in crate::shard) fn is_surplus(self) -> bool {
        matches!(self, Self::Surplus | Self::SurplusOfAddress)
    }
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

/// Where in its life a connection is. It only ever moves down this list.
#[derive(Debug)]
pub(in crate::shard) enum Phase {
    /// HTTP.
    Upgrading { heard: Heard },
    /// Messages flow. It is a member of its endpoint.
    Open,
    /// The end is decided, and not everything said: `on_close` has not been called, or a handler's
    /// answer comes later. It is a member of nothing.
    Leaving(Box<Leaving>),
    /// All has been said; what is queued is being delivered.
    Closing(Closing),
    /// To be reaped at the end of the turn.
    Dead,
}

impl Phase {
    /// Whether anything can still be sent.
    pub(in crate::shard) fn may_send(&self) -> bool {
        match self {
            Self::Leaving(leaving) => leaving.farewell != Farewell::Nothing,
            Self::Upgrading { .. } | Self::Open | Self::Closing(_) => true,
            Self::Dead => false,
        }
    }
}

/// What was heard before the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Heard {
    /// Nothing whole: a trusted proxy may say first for whom it speaks.
    Nothing,
    /// For whom the proxy speaks.
    Proxy,
    /// A request for a page, of whose response the kernel has not taken everything.
    Answered,
    /// The same, and the kernel has taken everything: the connection is between two requests.
    Served,
    /// The first byte of the next request.
    Next,
    /// A valid upgrade to this endpoint, which has not been decided.
    Upgrade(EndpointIndex),
}

/// Why a connection leaves, and how far it can still be talked to.
#[derive(Debug)]
pub(in crate::shard) struct Leaving {
    pub(in crate::shard) close: Close,
    pub(in crate::shard) farewell: Farewell,
    /// `on_close` was called.
    pub(in crate::shard) was_told: bool,
    /// `on_close` panicked.
    pub(in crate::shard) has_panicked: bool,
    /// How long an answer that comes later is waited for; set when that begins, anew for that of
    /// `on_close`.
    pub(in crate::shard) answer_due: Option<Instant>,
}

/// What can still be sent to a connection that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Farewell {
    /// A Close frame, and the peer's answer is awaited.
    Close,
    /// A Close frame; the peer broke the protocol, so nothing that it says is listened to.
    Fail,
    /// The answer to the peer's Close frame.
    Answer,
    /// The peer ended its side without a Close frame. It may still read.
    Message,
    /// Nothing: the connection is broken or aborted.
    Nothing,
}

/// What a closing connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Closing {
    /// The peer's Close frame, then the outbox.
    PeerClose,
    /// The outbox to be empty; then the socket is closed. Only if the peer's side has ended.
    Outbox,
    /// The outbox to be empty; then our side is ended, and input is discarded until the peer's
    /// ends (RFC 6455 section 7.1.1). To close a socket before would reset the connection as soon
    /// as the peer sends anything more, and throw away what the kernels still hold.
    OutboxThenEnd,
    /// The peer's end. Our side has ended.
    PeerEnd,
}

#[cfg(feature = "testing")]
impl Closing {
    /// Whether nothing but the outbox is waited for.
    pub(in crate::shard) fn is_due(self) -> bool {
        matches!(self, Self::Outbox | Self::OutboxThenEnd)
    }
}

impl Connection {
    pub(in crate::shard) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether it is open and nothing is under way in either direction: what comes next is the
    /// beginning of a frame, which may be handled at once, and answered.
    #[inline]
    pub(in crate::shard) fn is_at_ease(&self) -> bool {
        self.is_open()
            && self.flags.are_clear()
            && self.protocol.is_dormant()
            && self.backlog.is_empty()
            && self.outbox.is_empty()
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
