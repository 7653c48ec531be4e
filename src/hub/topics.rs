//! What the shards tell of their topics: how many subscribers each has.
//!
//! Each shard writes its own table and any thread reads all of them, so the locks are held for a
//! moment and hardly ever waited for. No message passes through here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::error::SendError;
use crate::sync::Mutex;

/// The longest name of a topic, in bytes: names are kept once a shard, and travel with messages.
pub(crate) const TOPIC_BYTES_MAX: usize = 1024;

/// How many subscribers each topic has on one shard.
#[derive(Debug, Default)]
pub(crate) struct SubscriberCounts(Mutex<HashMap<Arc<str>, usize>>);

impl SubscriberCounts {
    /// Notes how many there are now.
    pub(crate) fn set(&self, topic: &Arc<str>, count: usize) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            counts.remove(topic);
        } else if let Some(known) = counts.get_mut(topic) {
            *known = count;
        } else {
            counts.insert(Arc::clone(topic), count);
        }
    }

    /// How many topics have subscribers.
    #[cfg(feature = "testing")]
    pub(crate) fn topic_count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn of(&self, topic: &str) -> usize {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(topic).copied().unwrap_or_default()
    }
}

/// The name of a topic, as it travels.
pub(crate) fn topic_name(topic: &str) -> Result<Arc<str>, SendError> {
    if topic.len() > TOPIC_BYTES_MAX { Err(SendError::NameTooLong) } else { Ok(topic.into()) }
}
