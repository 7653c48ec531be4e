//! [`Alarm`]: with it any thread asks a shard to look at one connection again.
//!
//! A wake-up must never be refused, so it does not compete with messages for a mailbox's room. It
//! needs no bound of its own: an alarm that was rung and not heard yet does not ring again, so at
//! most as many rings are on their way as there are alarms.
//!
//! **Hearing.** The shard clears `is_ringing`, *then* looks. Both sides use read-modify-writes of
//! one atomic, so whoever rings either finds it clear, and rings, or comes before the clearing:
//! then the look that follows sees what the ringing was about.
//!
//! Knows one connection's address. Must not know why it is looked at.

use std::sync::Arc;
use std::task::Wake;

use super::doorbell::Doorbell;
use super::id::Address;
use crate::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Alarm {
    address: Address,
    doorbell: Arc<Doorbell>,
    is_ringing: AtomicBool,
}

impl Alarm {
    pub(crate) fn new(address: Address, doorbell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self { address, doorbell, is_ringing: AtomicBool::new(false) })
    }

    pub(crate) fn ring(&self) {
        // Release: whoever clears it sees what it was rung for.
        if !self.is_ringing.swap(true, Ordering::Release) {
            self.doorbell.ring(self.address);
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn is_ringing(&self) -> bool {
        self.is_ringing.load(Ordering::Acquire)
    }

    /// The shard is about to look: from here on it rings again.
    pub(crate) fn hear(&self) {
        // Acquire: see `ring`.
        self.is_ringing.swap(false, Ordering::Acquire);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
