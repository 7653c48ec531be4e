//! [`Phase`]: where in its life a connection is, and what it waits for there.
//!
//! Knows the stages of RFC 6455's closing handshake. Must not know who moves a connection on.

use std::time::Instant;

use crate::hub::EndpointIndex;
use crate::message::Close;

/// Where in its life a connection is. It only ever moves down this list.
#[derive(Debug)]
pub(in crate::shard) enum Phase {
    /// HTTP.
    Upgrading { heard: Heard },
    /// Messages flow. It is a member of its endpoint.
    Open,
    /// The end is decided, and not everything said: `on_close` has not been called, or a handler's
    /// answer comes later. It is a member of nothing.
    PendingClose(Box<PendingClose>),
    /// All has been said; what is queued is being delivered.
    Closing(Closing),
    /// To be reaped at the end of the turn.
    Dead,
}

impl Phase {
    /// Whether anything can still be sent.
    pub(in crate::shard) fn may_send(&self) -> bool {
        match self {
            Self::PendingClose(pending) => pending.close_handshake != CloseHandshake::Nothing,
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
pub(in crate::shard) struct PendingClose {
    pub(in crate::shard) close: Close,
    pub(in crate::shard) close_handshake: CloseHandshake,
    /// `on_close` was called.
    pub(in crate::shard) is_reported: bool,
    /// `on_close` panicked.
    pub(in crate::shard) has_panicked: bool,
    /// How long an answer that comes later is waited for; set when that begins, anew for that of
    /// `on_close`.
    pub(in crate::shard) answer_due: Option<Instant>,
}

/// What can still be sent to a connection that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum CloseHandshake {
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
