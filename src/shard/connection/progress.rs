//! Whether a peer that is not heard still takes what is sent to it. Before a shard gives up a
//! connection for want of a sign, it asks the kernel, and only then: one system call.
//!
//! A peer makes progress if it has acknowledged more bytes since it was last asked about. That is
//! remembered for those peers only that were asked about. Of another peer it counts as progress,
//! once, that its kernel has acknowledged anything of late while something is outstanding.
//!
//! Knows what the transport says. Must not know what follows from it.

use std::time::Duration;

use super::Connection;

impl Connection {
    /// Whether the peer has taken anything of what waits for it, since the last call or, at the
    /// first call, `within` that time. A peer for which nothing waits makes no progress.
    #[cold]
    pub(in crate::shard) fn makes_progress(&mut self, within: Duration) -> bool {
        let Some(acknowledged) = self.acknowledged() else { return false };
        if !acknowledged.is_outstanding && !self.has_output() {
            return false;
        }
        match self.details().acked_bytes.replace(acknowledged.bytes) {
            Some(before) => acknowledged.bytes > before,
            None => acknowledged.last_ago < within,
        }
    }

    /// Forgets what was noted about the peer, and notes anew how far it has come, if output waits
    /// that the kernel has not taken: so that the next question has an exact answer.
    pub(in crate::shard) fn note_progress(&mut self) {
        if self.has_output() {
            let acknowledged = self.acknowledged();
            self.details().acked_bytes = acknowledged.map(|acknowledged| acknowledged.bytes);
        } else if let Some(details) = &mut self.details {
            details.acked_bytes = None;
        }
    }
}
