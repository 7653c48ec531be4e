//! [`Phase`]: where in its life a connection is, and what it waits for there.
//!
//! Knows the stages of RFC 6455's closing handshake. Must not know who moves a connection on.

use std::time::Instant;

use super::membership::Membership;
use crate::hub::EndpointIndex;
use crate::message::{Close, CloseCode};

/// Where in its life a connection is. It only ever moves down this list.
#[derive(Debug)]
pub(in crate::shard) enum Phase {
    /// HTTP.
    Upgrading { heard: Heard },
    /// Messages flow. It is a member of its endpoint.
    Open(Membership),
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
            Self::Upgrading { .. } | Self::Open(_) | Self::Closing(_) => true,
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
    close: Close,
    close_handshake: CloseHandshake,
    /// `on_close` was called.
    is_reported: bool,
    /// `on_close` panicked.
    has_panicked: bool,
    /// How long an answer that comes later is waited for; set when that begins, anew for that of
    /// `on_close`.
    answer_due: Option<Instant>,
}

impl PendingClose {
    pub(super) fn new(close: Close, close_handshake: CloseHandshake) -> Self {
        Self { close, close_handshake, is_reported: false, has_panicked: false, answer_due: None }
    }

    pub(in crate::shard) fn close(&self) -> &Close {
        &self.close
    }

    pub(in crate::shard) fn close_handshake(&self) -> CloseHandshake {
        self.close_handshake
    }

    /// How long an answer that comes later is waited for, if that has begun.
    pub(in crate::shard) fn answer_due(&self) -> Option<Instant> {
        self.answer_due
    }

    /// What the Close frame says that is sent, if one is.
    pub(in crate::shard) fn close_frame(&self) -> Option<(CloseCode, &str)> {
        let (code, reason) = (self.close.code(), self.close.reason());
        match self.close_handshake {
            CloseHandshake::Close | CloseHandshake::Fail => Some(match code {
                _ if self.has_panicked => (CloseCode::INTERNAL_ERROR, "handler panicked"),
                code if code.is_sendable() => (code, reason),
                _ => (CloseCode::NORMAL, reason),
            }),
            CloseHandshake::Answer => Some((code, reason)),
            CloseHandshake::Message | CloseHandshake::Nothing => None,
        }
    }

    /// `on_close` is called now. Returns whether it was not called before. What it leaves to be
    /// done has its own time.
    #[must_use]
    pub(in crate::shard) fn begin_report(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.is_reported, true);
        if is_first {
            self.answer_due = None;
        }
        is_first
    }

    /// A handler has panicked; that counts if it was `on_close`.
    pub(in crate::shard) fn note_panic(&mut self) {
        self.has_panicked |= self.is_reported;
    }

    /// An answer is waited for until then.
    pub(in crate::shard) fn await_answer(&mut self, due: Instant) {
        self.answer_due = Some(due);
    }

    /// The peer's Close frame is awaited no longer, if it was.
    pub(in crate::shard) fn stop_listening(&mut self) {
        if self.close_handshake == CloseHandshake::Close {
            self.close_handshake = CloseHandshake::Fail;
        }
    }

    /// Nothing can be sent any more.
    pub(in crate::shard) fn cut_off(&mut self) {
        self.close_handshake = CloseHandshake::Nothing;
    }
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

impl CloseHandshake {
    /// What is waited for when all has been said.
    pub(in crate::shard) fn closing(self) -> Closing {
        match self {
            Self::Close => Closing::PeerClose,
            Self::Fail | Self::Answer => Closing::OutboxThenEnd,
            // The peer's side has ended.
            Self::Message | Self::Nothing => Closing::Outbox,
        }
    }
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
