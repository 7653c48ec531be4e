//! [`Streaming`]: a message that is sent to a connection in pieces, as the connection keeps it.
//!
//! Knows its credit and what is held back behind it. Must not know when it ends.

use std::sync::Arc;

use crate::hub::credit::Credit;
use crate::shard::outbox::Outbox;

/// A message that is on its way in pieces.
#[derive(Debug)]
pub(in crate::shard) struct Streaming {
    pub(in crate::shard) credit: Arc<Credit>,
    /// Its first piece was queued.
    pub(in crate::shard) has_begun: bool,
    /// What waits for its end.
    pub(in crate::shard) held: Outbox,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.credit.end();
    }
}
