//! What a connection receives: reading, what is kept from one service to the next, waiting.
//!
//! Knows bytes and the protocol that takes them. Must not know who handles what comes of them.

use std::time::Instant;

use super::Connection;
use super::phase::{CloseHandshake, Closing, Phase};
use crate::config::Limits;
use crate::error::Violation;
use crate::protocol::{Doubt, Event, Protocol};

/// How much input is read of a connection that waits, in bytes, before its reading pauses.
pub(in crate::shard) const WAITING_BYTES: usize = 64 << 10;

/// Facts.
impl Connection {
    /// Whether it stands on the ready list.
    #[inline]
    pub(in crate::shard) fn is_ready(&self) -> bool {
        self.flags.is_ready
    }

    /// Whether its handler's answer comes later: no input is handled until then.
    #[inline]
    pub(in crate::shard) fn is_waiting(&self) -> bool {
        self.flags.is_waiting
    }

    /// Whether the peer waits for the handler's answer to end the connection.
    pub(in crate::shard) fn is_answer_due(&self) -> bool {
        self.flags.is_answer_due
    }

    /// Whether the peer has ended its side: the end has to be read.
    pub(in crate::shard) fn has_peer_ended(&self) -> bool {
        self.flags.has_peer_ended
    }

    /// Whether the protocol holds nothing: what comes next is the beginning of a frame.
    #[inline]
    pub(in crate::shard) fn is_dormant(&self) -> bool {
        self.protocol.is_dormant()
    }

    /// Whether frames of the peer still count: neither its Close nor its fault has come.
    pub(in crate::shard) fn heeds_peer(&self) -> bool {
        match &self.phase {
            Phase::Upgrading { .. } => false,
            Phase::PendingClose(pending) => {
                matches!(pending.close_handshake(), CloseHandshake::Close | CloseHandshake::Message)
            }
            _ => true,
        }
    }

    /// Input that was read and not handled yet.
    #[inline]
    pub(in crate::shard) fn backlog(&self) -> &[u8] {
        &self.backlog
    }

    /// How much input it keeps, in bytes.
    #[inline]
    pub(in crate::shard) fn kept_input_bytes(&self) -> usize {
        self.backlog.len() + self.protocol.kept_bytes()
    }

    /// Whether what it keeps is counted.
    #[inline]
    pub(in crate::shard) fn keeps_input(&self) -> bool {
        self.flags.keeps_input
    }
}

/// Commands.
impl Connection {
    /// It is to stand on the ready list. Returns whether it did not yet.
    #[must_use]
    pub(in crate::shard) fn mark_ready(&mut self) -> bool {
        !std::mem::replace(&mut self.flags.is_ready, true)
    }

    /// It stands on the ready list no longer.
    #[inline]
    pub(in crate::shard) fn unmark_ready(&mut self) {
        self.flags.is_ready = false;
    }

    pub(in crate::shard) fn set_waiting(&mut self, is_waiting: bool) {
        self.flags.is_waiting = is_waiting;
    }

    #[inline]
    pub(in crate::shard) fn note_peer_end(&mut self) {
        self.flags.has_peer_ended = true;
    }

    pub(in crate::shard) fn note_kept_input(&mut self, keeps_input: bool) {
        self.flags.keeps_input = keeps_input;
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

    /// Takes input that was kept out of the connection.
    pub(in crate::shard) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.backlog)
    }

    /// Keeps input that was not handled, instead of what was kept before.
    pub(in crate::shard) fn keep_input(&mut self, input: &[u8]) {
        self.backlog = input.to_vec();
    }

    /// Keeps input that follows what was kept before.
    pub(in crate::shard) fn keep_more_input(&mut self, input: &[u8]) {
        self.backlog.extend_from_slice(input);
    }

    /// Forgets what was read and not handled.
    pub(in crate::shard) fn clear_backlog(&mut self) {
        self.backlog = Vec::new();
    }

    /// Forgets all that was received and not handed out: the protocol begins anew.
    pub(in crate::shard) fn clear_input(&mut self) {
        self.clear_backlog();
        self.protocol = Protocol::default();
    }

    /// As [`Protocol::receive_doubtful`].
    pub(in crate::shard) fn receive_doubtful<'b>(
        &mut self,
        doubt: Doubt<'b>,
        input: &mut &'b mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Option<Event<'b>> {
        self.protocol.receive_doubtful(doubt, input, control, limits, now)
    }

    /// After our Close frame: discards the next frame, unless it is the peer's Close or breaks the
    /// protocol (RFC 6455 section 5.5.1). Returns whether it does: then the output is all that is
    /// waited for.
    pub(in crate::shard) fn discard_frame(
        &mut self,
        input: &mut &mut [u8],
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> bool {
        let Err(doubt) = self.protocol.receive_whole(input, limits) else { return false };
        let event = self.protocol.receive_doubtful(doubt, input, control, limits, now);
        control.clear();
        let is_over = matches!(event, Some(Event::Close(..) | Event::Violation(_)));
        if is_over {
            self.continue_closing(Closing::OutboxThenEnd);
        }
        is_over
    }

    /// As [`Protocol::skim`], of what is kept.
    pub(in crate::shard) fn skim(
        &mut self,
        skimmed: &mut Option<usize>,
        control: &mut Vec<u8>,
        limits: &Limits,
        now: Instant,
    ) -> Result<bool, Violation> {
        self.protocol.skim(&mut self.backlog, skimmed, control, limits, now)
    }
}
