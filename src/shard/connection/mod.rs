//! [`Connection`]: one connection, as it stands in its slot.
//!
//! Knows everything that belongs to one connection. Must not know other connections, nor the shard:
//! no command here puts it on a list, arms a timer or calls a handler.

pub(in crate::shard) mod flags;
mod input;
#[cfg(feature = "testing")]
mod invariants;
mod lifecycle;
mod membership;
mod output;
pub(in crate::shard) mod phase;
mod progress;
mod request;
pub(in crate::shard) mod stream;

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(in crate::shard) use self::flags::{Admission, Flags, Yielding};
pub(in crate::shard) use self::input::WAITING_BYTES;
pub(in crate::shard) use self::membership::Membership;
pub(in crate::shard) use self::phase::{CloseHandshake, Closing, Heard, Phase};
pub(in crate::shard) use self::stream::Streaming;
use crate::handler::GrantedRequest;
use crate::hub::{Address, EndpointIndex};
use crate::protocol::Protocol;
use crate::protocol::parcel::Encoding;
use crate::shard::outbox::{Flushed, Outbox, Spares};
use crate::transport::{Acknowledged, Input, Output, Transport};

/// A connection's state. What an idle one weighs is asserted in `footprint.rs`.
///
/// It does nothing by itself: the shard asks for facts and gives commands. A file holds each kind:
///
/// * Facts that stay ([`address`](Self::address), [`peer`](Self::peer)), and the admission: here.
/// * The way down the phases (`lifecycle`): [`hear_upgrade`](Self::hear_upgrade),
///   [`open`](Self::open), [`begin_close`](Self::begin_close),
///   [`begin_closing`](Self::begin_closing), [`die`](Self::die), in this order.
/// * What was asked for before the upgrade (`request`): [`granted`](Self::granted),
///   [`client_ip`](Self::client_ip), ..
/// * What only an open connection has: its [`Membership`].
/// * Input (`input`): [`read`](Self::read), then the protocol, then
///   [`keep_input`](Self::keep_input) with the rest.
/// * Output (`output`): the outbox, and what a message in pieces holds back.
/// * Signs of life (here and in `progress`): [`touch`](Self::touch) whenever the peer was heard.
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
    granted: Option<Arc<GrantedRequest>>,
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

    /// Whether it is open and nothing is under way in either direction: what comes next is the
    /// beginning of a frame, which may be handled at once, and answered.
    #[inline]
    pub(in crate::shard) fn is_idle(&self) -> bool {
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

/// The one way of its bytes in and out.
impl Connection {
    #[inline]
    pub(in crate::shard) fn read(&mut self, buffer: &mut [u8]) -> Input {
        let input = self.transport.read(buffer);
        // A read may leave an answer of the transport's own.
        self.flags.is_blocked |= self.transport.has_output();
        input
    }

    /// Writes past the outbox, which is empty.
    #[inline]
    pub(in crate::shard) fn write(&mut self, bytes: &[u8]) -> Output {
        self.transport.write(bytes)
    }

    /// As [`write`](Self::write).
    pub(in crate::shard) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Output {
        self.transport.write_vectored(slices)
    }

    /// Writes what is in the outbox, and then what the transport has of its own.
    #[inline]
    pub(in crate::shard) fn flush(&mut self, spares: &mut Spares) -> Flushed {
        let flushed = self.outbox.write(&mut self.transport, spares);
        self.flags.is_blocked = flushed == Flushed::Blocked;
        flushed
    }

    /// How much of what the last write has left begun to leave: see
    /// [`Transport::held_bytes`](crate::transport::Transport::held_bytes).
    #[inline]
    pub(in crate::shard) fn held_bytes(&self) -> usize {
        self.transport.held_bytes()
    }

    pub(in crate::shard) fn acknowledged(&self) -> Option<Acknowledged> {
        self.transport.acknowledged()
    }

    /// Ends our side, behind all that was written. What the transport has of its own for that may
    /// have to wait.
    pub(in crate::shard) fn finish(&mut self) {
        self.transport.finish();
        self.flags.is_blocked = self.transport.has_output();
    }

    /// Ends our side at once.
    pub(in crate::shard) fn shut_down_write(&mut self) {
        self.transport.shut_down_write();
    }

    /// Ends both sides at once.
    pub(in crate::shard) fn shut_down(&mut self) {
        self.transport.shut_down();
    }
}

/// When the peer was last heard, and how often it was pinged since.
impl Connection {
    /// The peer was heard, or took something.
    #[inline]
    pub(in crate::shard) fn touch(&mut self, now: Instant) {
        self.heard_at = now;
        self.ping_count = 0;
    }

    /// When the peer counts as dead, unless it is heard before. A peer that nobody has pinged all
    /// that time, because the shard was held up, gets the time to answer.
    pub(in crate::shard) fn dead_at(
        &mut self,
        idle_timeout: Duration,
        ping_after: Duration,
        now: Instant,
    ) -> Instant {
        if self.heard_at + idle_timeout <= now && self.ping_count == 0 {
            self.heard_at = now.checked_sub(ping_after).unwrap_or(now);
        }
        self.heard_at + idle_timeout
    }

    /// It was not heard, but takes what is sent to it: it counts as heard, and as pinged.
    pub(in crate::shard) fn touch_pinged(&mut self, now: Instant) {
        (self.heard_at, self.ping_count) = (now, 1);
    }

    /// How far apart its pings are: up to a tenth less, so that pings do not come in herds.
    pub(in crate::shard) fn ping_interval(&self, ping_after: Duration) -> Duration {
        let spread = u32::try_from(self.address.slot() % 64).unwrap_or_default();
        ping_after - ping_after / 640 * spread
    }

    /// When the next ping is due.
    pub(in crate::shard) fn ping_at(&self, interval: Duration) -> Instant {
        self.heard_at + interval * (u32::from(self.ping_count) + 1)
    }

    /// A ping is sent. Returns whether it is the first since the peer was heard.
    #[must_use]
    pub(in crate::shard) fn count_ping(&mut self) -> bool {
        self.ping_count = self.ping_count.saturating_add(1);
        self.ping_count == 1
    }
}
