//! What always holds for a connection between two turns, whatever the shard around it is.
//!
//! Knows all fields. Must not know lists, timers and handlers: their owners check these.

use super::{Connection, Phase, WAITING_BYTES};

impl Connection {
    /// # Panics
    /// If something does not hold. Between two turns only.
    pub(in crate::shard) fn check_invariants(&self) {
        self.outbox.check_invariants();
        self.check_stream();
        self.check_output();
        self.check_input();
    }

    /// Whether it stands on the ready, the dirty and the drained list.
    pub(in crate::shard) fn marks(&self) -> [bool; 3] {
        [self.flags.is_ready, self.flags.is_dirty, self.flags.is_drained]
    }

    /// Whether nobody was told that its message in pieces was abandoned.
    pub(in crate::shard) fn has_unheard_stream(&self) -> bool {
        self.streaming().is_some_and(|streaming| streaming.credit.is_unheard())
    }

    /// A message in pieces and what waits for it are as they always are.
    fn check_stream(&self) {
        assert_eq!(self.flags.has_stream, self.streaming().is_some(), "the flag of a stream");
        if let Some(streaming) = self.streaming() {
            streaming.held.check_invariants();
        }
    }

    /// Output moves, or somebody will tell that it can.
    fn check_output(&self) {
        let Self { flags, outbox, .. } = self;
        let slot = self.address.slot();
        let moves = flags.is_dirty || flags.is_blocked;
        assert!(moves || !self.transport.has_output(), "the transport of {slot} is stuck");
        assert!(outbox.is_empty() || moves, "output of {slot} that nobody flushes");
        assert!(!flags.is_pressed || moves || flags.has_stream, "{slot} is pressed by nothing");
        let has_settled = !matches!(self.phase, Phase::Closing(closing) if closing.is_due());
        assert!(has_settled || !outbox.is_empty(), "{slot} has got all and is not let go");
    }

    /// Input is looked at, or something is under way after which it will be.
    fn check_input(&self) {
        let Self { flags, backlog, transport, .. } = self;
        let slot = self.address.slot();
        let is_kept = flags.is_pressed || flags.is_ready;
        let is_upgrading = self.is_upgrading();
        let is_partial = is_upgrading || backlog.is_empty();
        assert!(is_partial || is_kept || flags.is_waiting, "input of {slot} is forgotten");
        // When the waiting is over, it is read on.
        let is_not_read = is_upgrading || flags.has_peer_ended || backlog.len() >= WAITING_BYTES;
        let is_waited_for = flags.is_waiting && is_not_read;
        let is_looked_at = is_kept || is_waited_for || transport.is_at_rest(flags.is_blocked);
        assert!(is_looked_at, "{slot} is not asked for what it has: {self:?}");
    }
}
