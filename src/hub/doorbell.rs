//! [`Doorbell`]: wakes a shard, once per burst, and tells it which connections to look at.
//!
//! **Waking.** A sender pushes, then sets `armed`; the sender that finds it clear wakes the shard,
//! which clears it, *then* takes. Both are read-modify-writes of one atomic, so they are ordered:
//! if the sender's comes first, the shard's clear sees it and with it the pushed envelope; if it
//! comes second, it finds `armed` clear and wakes. No wake-up is lost.
//!
//! Knows addresses. Must not know envelopes.

use std::sync::Arc;

use super::id::Address;
use crate::sync::Waker;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::channel::{self, Receiver, Sender};

#[derive(Debug)]
pub(crate) struct Doorbell {
    /// The connections that want to be looked at. Unbounded, because each connection
    /// waker stands in it at most once: see [`ConnectionWaker`](super::waker::ConnectionWaker).
    woken: Sender<Address>,
    armed: AtomicBool,
    waker: Waker,
}

impl Doorbell {
    /// The doorbell, and where the shard finds the connections to be looked at.
    pub(super) fn new(waker: Waker) -> (Arc<Self>, Receiver<Address>) {
        let (woken, heard) = channel::unbounded();
        (Arc::new(Self { woken, armed: AtomicBool::new(false), waker }), heard)
    }

    /// Asks the shard to look at a connection. This is never refused.
    pub(super) fn wake_connection(&self, address: Address) {
        // It fails only when the shard has ended.
        let _ = self.woken.send(address);
        self.wake();
    }

    /// Wakes the shard, unless a wake-up is on its way.
    pub(super) fn wake(&self) {
        // Release: the shard, which clears it, sees what was pushed before.
        if self.armed.swap(true, Ordering::Release) {
            return;
        }
        if let Err(error) = self.waker.wake() {
            // The eventfd's counter is full or the shard is gone; either way it is awake or never.
            log::error!("a shard could not be woken: {error}");
        }
    }

    /// As of [`Inbox::is_armed`](super::mailbox::Inbox::is_armed).
    #[cfg(feature = "testing")]
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// As of [`Inbox::disarm`](super::mailbox::Inbox::disarm).
    #[inline]
    pub(super) fn disarm(&self) -> bool {
        // A cheap look first. Relaxed: a sender whose arming it misses wakes the shard for another
        // turn, and who was woken sees what came before.
        self.armed.load(Ordering::Relaxed)
            // Acquire: see `wake`.
            && self.armed.swap(false, Ordering::Acquire)
    }
}
