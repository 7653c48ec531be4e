//! [`ConnectionWaker`]: with it any thread asks a shard to look at one connection again.
//!
//! A wake-up must never be refused, so it does not compete with messages for room in a mailbox. It
//! needs no bound of its own: a waker that has notified the shard does not notify it again before
//! the shard has rearmed it, so at most one notification of each waker is under way.
//!
//! **Rearming.** The shard clears `is_woken`, *then* looks. Both sides use read-modify-writes of
//! one atomic. A notification that finds it clear reaches the shard; one that comes before the
//! clearing needs not: the look that follows sees what it was for.
//!
//! Knows one connection's address. Must not know why it is looked at.

use std::sync::Arc;
use std::task::Wake;

use super::doorbell::Doorbell;
use super::id::Address;
use crate::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct ConnectionWaker {
    address: Address,
    doorbell: Arc<Doorbell>,
    is_woken: AtomicBool,
}

impl ConnectionWaker {
    pub(crate) fn new(address: Address, doorbell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self { address, doorbell, is_woken: AtomicBool::new(false) })
    }

    /// Has the shard look at the connection, unless a notification is under way.
    pub(crate) fn notify(&self) {
        // Release: the shard, which clears it, sees what was done before the call.
        if !self.is_woken.swap(true, Ordering::Release) {
            self.doorbell.wake_connection(self.address);
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Acquire)
    }

    /// The shard is about to look: from here on the waker notifies it again.
    pub(crate) fn rearm(&self) {
        // Acquire: see `notify`.
        self.is_woken.swap(false, Ordering::Acquire);
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
