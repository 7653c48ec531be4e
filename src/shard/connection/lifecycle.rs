//! The way of a connection down its phases: facts about where it is, and the commands that move it.
//!
//! Knows [`Phase`] and which change is legal. Must not know what a change entails in the shard.

use std::time::Instant;

use super::phase::{CloseHandshake, Closing, Heard, PendingClose, Phase};
use super::{Connection, EndpointIndex, Membership};
use crate::config::Limits;
use crate::message::Close;
use crate::protocol::MessageMode;

/// Facts.
impl Connection {
    #[inline]
    pub(in crate::shard) fn phase(&self) -> &Phase {
        &self.phase
    }

    #[inline]
    pub(in crate::shard) fn is_upgrading(&self) -> bool {
        matches!(self.phase, Phase::Upgrading { .. })
    }

    #[inline]
    pub(in crate::shard) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    #[inline]
    pub(in crate::shard) fn is_close_pending(&self) -> bool {
        matches!(self.phase, Phase::PendingClose(_))
    }

    #[inline]
    pub(in crate::shard) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    #[inline]
    pub(in crate::shard) fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }

    /// Whether the upgrade was granted: what is sent from then on are frames.
    pub(in crate::shard) fn has_opened(&self) -> bool {
        self.flags.has_opened
    }

    /// What an open connection is a member of; `None` if it is not open.
    #[inline]
    pub(in crate::shard) fn membership(&self) -> Option<&Membership> {
        match &self.phase {
            Phase::Open(membership) => Some(membership),
            _ => None,
        }
    }

    #[inline]
    pub(in crate::shard) fn membership_mut(&mut self) -> Option<&mut Membership> {
        match &mut self.phase {
            Phase::Open(membership) => Some(membership),
            _ => None,
        }
    }

    /// The end that is decided and not reached.
    pub(in crate::shard) fn pending_close(&self) -> Option<&PendingClose> {
        match &self.phase {
            Phase::PendingClose(pending) => Some(pending),
            _ => None,
        }
    }

    pub(in crate::shard) fn pending_close_mut(&mut self) -> Option<&mut PendingClose> {
        match &mut self.phase {
            Phase::PendingClose(pending) => Some(pending),
            _ => None,
        }
    }

    /// When the phase ends by force.
    pub(in crate::shard) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The shard arms the timer.
    pub(in crate::shard) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

/// Commands: the handshake.
impl Connection {
    /// A request has begun. Returns whether it is the next one after a response; the time of the
    /// first one began with the connection.
    #[must_use]
    pub(in crate::shard) fn begin_request(&mut self) -> bool {
        match &mut self.phase {
            Phase::Upgrading { heard: heard @ (Heard::Answered | Heard::Served) } => {
                *heard = Heard::Next;
                true
            }
            _ => false,
        }
    }

    /// A page answers the request; the connection stays for another.
    pub(in crate::shard) fn end_request(&mut self) {
        debug_assert!(self.is_upgrading());
        self.phase = Phase::Upgrading { heard: Heard::Answered };
    }

    /// The kernel has taken the whole response: the connection may be silent now.
    pub(in crate::shard) fn begin_keep_alive(&mut self) {
        debug_assert!(self.is_upgrading());
        self.phase = Phase::Upgrading { heard: Heard::Served };
    }

    /// A valid upgrade to this endpoint has come, and is not decided.
    pub(in crate::shard) fn hear_upgrade(&mut self, endpoint: EndpointIndex) {
        debug_assert!(self.is_upgrading());
        self.phase = Phase::Upgrading { heard: Heard::Upgrade(endpoint) };
    }

    /// The upgrade is granted: messages flow.
    pub(in crate::shard) fn open(
        &mut self,
        endpoint: EndpointIndex,
        membership: Membership,
        mode: MessageMode,
        now: Instant,
    ) {
        debug_assert!(self.is_upgrading());
        self.phase = Phase::Open(membership);
        self.endpoint = endpoint;
        self.protocol.hand_out(mode);
        self.flags.has_opened = true;
        self.touch(now);
    }
}

/// Commands: the end.
impl Connection {
    /// The end of an open connection is decided. Returns what it was a member of, which is to be
    /// ended; `None` if it is not open.
    #[inline]
    #[must_use]
    pub(in crate::shard) fn begin_close(
        &mut self,
        close: Close,
        close_handshake: CloseHandshake,
    ) -> Option<Membership> {
        if !self.is_open() {
            return None;
        }
        let pending = Phase::PendingClose(Box::new(PendingClose::new(close, close_handshake)));
        match std::mem::replace(&mut self.phase, pending) {
            Phase::Open(membership) => Some(membership),
            _ => None,
        }
    }

    /// Writes the Close frame that the pending end asks for, if it asks for one.
    pub(in crate::shard) fn write_close(&mut self, out: &mut Vec<u8>, limits: &Limits) {
        let Self { phase, protocol, .. } = self;
        if let Phase::PendingClose(pending) = phase
            && let Some((code, reason)) = pending.close_frame()
        {
            protocol.close(code, reason, out, limits);
        }
    }

    /// All has been said; `closing` is waited for.
    pub(in crate::shard) fn begin_closing(&mut self, closing: Closing) {
        debug_assert!(!self.is_open() && !self.is_dead(), "the end of {:?}", self.phase);
        self.phase = Phase::Closing(closing);
    }

    /// Something has come that was waited for: `closing` is what is waited for next.
    pub(in crate::shard) fn continue_closing(&mut self, closing: Closing) {
        debug_assert!(self.is_closing());
        self.phase = Phase::Closing(closing);
    }

    /// It is freed at the end of the turn.
    pub(in crate::shard) fn die(&mut self) {
        debug_assert!(self.is_upgrading() || self.is_closing());
        self.phase = Phase::Dead;
    }

    /// The peer waits for the handler's answer to end the connection. Returns whether it did so
    /// before.
    #[must_use]
    pub(in crate::shard) fn demand_answer(&mut self) -> bool {
        std::mem::replace(&mut self.flags.is_answer_due, true)
    }
}
