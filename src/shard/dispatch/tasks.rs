//! [`Tasks`]: the futures that connections of a shard wait for, at most one each.
//!
//! Knows futures and how they are woken. Must not know what follows from their answers.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::handler::{Decision, Reply};
use crate::hub::Slot;
use crate::hub::waker::ConnectionWaker;

/// By slot.
#[derive(Default)]
pub(in crate::shard) struct Tasks(pub(in crate::shard) HashMap<Slot, Task>);

pub(in crate::shard) struct Task {
    pub(in crate::shard) connection_waker: Arc<ConnectionWaker>,
    pub(in crate::shard) waker: Waker,
    pub(in crate::shard) future: Promise,
    /// How much of the input that waits was searched for control frames; `None` before that began.
    pub(in crate::shard) skimmed_bytes: Option<usize>,
    /// It waits for the pool, which will be done some time.
    #[cfg(feature = "testing")]
    pub(in crate::shard) is_offloaded: bool,
}

/// A future of what a handler is to return.
pub(in crate::shard) enum Promise {
    Reply(Pin<Box<dyn Future<Output = Reply<'static>>>>),
    Upgrade(Pin<Box<dyn Future<Output = Decision>>>),
}

/// What came of it.
pub(in crate::shard) enum Kept {
    Reply(Reply<'static>),
    Upgrade(Decision),
}

impl Tasks {
    pub(in crate::shard) fn has(&self, slot: Slot) -> bool {
        self.0.contains_key(&slot)
    }
}

impl Task {
    pub(in crate::shard) fn poll(&mut self) -> Poll<Kept> {
        // First hear, then look: what happens from here on rings again.
        self.connection_waker.rearm();
        let mut context = Context::from_waker(&self.waker);
        match &mut self.future {
            Promise::Reply(future) => future.as_mut().poll(&mut context).map(Kept::Reply),
            Promise::Upgrade(future) => future.as_mut().poll(&mut context).map(Kept::Upgrade),
        }
    }
}

#[cfg(feature = "testing")]
impl Tasks {
    /// Whether any connection waits for the pool.
    pub(in crate::shard) fn has_offloaded(&self) -> bool {
        self.0.values().any(|task| task.is_offloaded)
    }
}

/// The pool is full.
pub(in crate::shard) struct Overloaded;
