//! [`Flags`]: independent facts about a connection, one bit of knowledge each; and [`Admission`].
//!
//! Knows names of facts. Must not know what follows from them.

/// What stands on which list, and what the socket is known to do.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(in crate::shard) struct Flags {
    /// The kernel's buffer is full; an event will tell when it is not.
    pub(super) is_blocked: bool,
    /// The outbox rose above its high-water mark and has not fallen to the low one: no input is
    /// handled.
    pub(super) is_pressed: bool,
    /// Its handler's answer comes later: no input is handled until then.
    pub(super) is_waiting: bool,
    /// A message is being sent to it in pieces: others wait.
    pub(super) has_stream: bool,
    /// It stands among those that keep input.
    pub(super) keeps_input: bool,
    /// Such a message will not be finished: no other can follow it.
    pub(super) is_cut_short: bool,
    /// The peer has sent its Close or ended its side while the connection waits: its handler's
    /// answers have until the deadline.
    pub(super) is_answer_due: bool,
    /// The peer has ended its side: the end has to be read.
    pub(super) has_peer_ended: bool,
    // Up to here, what stands in the way of the fast path.
    /// On the ready list.
    pub(super) is_ready: bool,
    /// On the dirty list.
    pub(super) is_dirty: bool,
    /// On the drained list.
    pub(super) is_drained: bool,
    /// The upgrade was granted: what is said from then on are frames.
    pub(super) has_opened: bool,
    pub(super) admission: Admission,
}

impl Flags {
    /// Whether nothing stands in the way of the fast path. One load: they lie side by side.
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
    /// Beyond the server's limit: it has one of the few places over the limit, gets pages, and no
    /// upgrade.
    OverLimit,
    /// The same, because its client's address has too many.
    OverAddressLimit,
    /// It was over the limit and has lost its place to a newer connection; it is dead.
    Evicted,
}

/// Why a connection over the limit yields its place. The first kind does so before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) enum Yielding {
    /// It has said nothing, though there was time.
    Silent,
    /// It has got all that it gets.
    Answered,
}

impl Admission {
    /// Whether it has one of the places over the limit.
    pub(in crate::shard) fn is_over_limit(self) -> bool {
        matches!(self, Self::OverLimit | Self::OverAddressLimit)
    }
}
