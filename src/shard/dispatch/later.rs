//! Answers that come later: a handler's future is begun, polled, and its answer sent; or it is cut.
//!
//! While a connection waits, its input does too. It goes on when the future has resolved, or was
//! dropped because its time is over. The end of the connection cuts no future: the closing timeout
//! does, and that is counted.
//!
//! Knows what follows from an answer. Must not know when a connection is looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::Application;
use super::tasks::{Kept, Overloaded, Promise, Task};
use crate::error::Refusal;
use crate::handler::{Decision, Job, Later, Reply};
use crate::hub::Slot;
use crate::message::{Close, CloseCode, ClosedBy};
use crate::panics::discard;
use crate::shard::connection::CloseHandshake;
use crate::shard::state::Shard;

impl Application {
    /// Sends a reply that owns what it sends, or comes later.
    pub(in crate::shard) fn finish(&mut self, shard: &mut Shard, slot: Slot, reply: Reply<'_>) {
        if self.deliver(shard, slot, reply) {
            let upgrade = self.poll(shard, slot);
            debug_assert!(upgrade.is_none(), "a handler's answer is no upgrade");
        }
    }

    /// Asks for an upgrade that is decided later; the decision, if it is known at once.
    pub(in crate::shard) fn await_upgrade(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        later: Later<Decision>,
    ) -> Option<Decision> {
        self.begin_upgrade(shard, slot, later).or_else(|| self.poll(shard, slot))
    }

    /// Polls the future that a connection waits for. A decision about its upgrade is returned;
    /// everything else is done.
    pub(in crate::shard) fn poll(&mut self, shard: &mut Shard, slot: Slot) -> Option<Decision> {
        loop {
            let task = self.tasks.0.get_mut(&slot)?;
            let polled = catch_unwind(AssertUnwindSafe(|| task.poll()));
            let is_upgrade = matches!(task.future, Promise::Upgrade(_));
            if matches!(polled, Ok(Poll::Pending)) {
                return None;
            }
            self.end(shard, slot);
            match polled {
                Ok(Poll::Pending) => return None,
                Ok(Poll::Ready(Kept::Upgrade(Decision::Later(later)))) => {
                    if let Some(upgrade) = self.begin_upgrade(shard, slot, *later) {
                        return Some(upgrade);
                    }
                }
                Ok(Poll::Ready(Kept::Upgrade(upgrade))) => return Some(upgrade),
                Ok(Poll::Ready(Kept::Reply(reply))) => {
                    if !self.deliver(shard, slot, reply) {
                        return None;
                    }
                }
                Err(panic) => {
                    discard(panic);
                    if is_upgrade {
                        shard.report_upgrade_panic(slot);
                        return Some(Decision::refuse(Refusal::Internal));
                    }
                    shard.fail(slot);
                    return None;
                }
            }
        }
    }

    /// Drops the future that a connection waits for, if it does; its input goes on. A reply that is
    /// cut is counted.
    pub(in crate::shard) fn cancel(&mut self, shard: &mut Shard, slot: Slot) {
        if !shard.connection(slot).is_waiting() {
            return;
        }
        let task = self.tasks.0.get(&slot);
        if task.is_some_and(|task| matches!(task.future, Promise::Reply(_))) {
            shard.count_cancelled();
            shard.report_cancelled(slot);
        }
        self.end(shard, slot);
    }

    /// Sends a reply; whether it is one that comes later, which is to be polled.
    fn deliver(&mut self, shard: &mut Shard, slot: Slot, mut reply: Reply<'_>) -> bool {
        let later = loop {
            match reply.into_then().map_err(Reply::into_later) {
                Ok(then) => {
                    let next = self
                        .call_handler(shard, slot, |_, reach, context| then.call(reach, context));
                    let Some(next) = next else { return false };
                    reply = next;
                }
                Err(Ok(later)) => break later,
                Err(Err(reply)) => {
                    if let Some(message) = reply.message() {
                        shard.reply(slot, message);
                    }
                    shard.discard(slot, reply);
                    return false;
                }
            }
        };
        let Later { future, job } = later;
        let begun = self.begin(shard, slot, Promise::Reply(future), job);
        if begun.is_err() {
            let reason = "too much work is waiting";
            shard.count_cancelled();
            let close = Close::new(CloseCode::TRY_AGAIN_LATER, reason, ClosedBy::Server);
            shard.begin_close(slot, close, CloseHandshake::Close);
        }
        begun.is_ok()
    }

    /// `None` if it is to be polled.
    fn begin_upgrade(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        later: Later<Decision>,
    ) -> Option<Decision> {
        let Later { future, job } = later;
        let begun = self.begin(shard, slot, Promise::Upgrade(future), job);
        begun.err().map(|Overloaded| Decision::refuse(Refusal::PoolFull))
    }

    fn begin(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        future: Promise,
        job: Option<Job>,
    ) -> Result<(), Overloaded> {
        debug_assert!(!self.tasks.0.contains_key(&slot), "a connection waits for one thing");
        #[cfg(feature = "testing")]
        let is_offloaded = job.is_some();
        if let Some(job) = job
            && let Err(job) = self.service.pool.submit(job)
        {
            shard.report_full_pool(slot);
            // One by one: two panics must not meet.
            shard.discard(slot, job);
            shard.discard(slot, future);
            return Err(Overloaded);
        }
        let connection_waker = shard.waker_of(slot);
        let waker = Waker::from(Arc::clone(&connection_waker));
        shard.begin_waiting(slot);
        let task = Task {
            connection_waker,
            waker,
            future,
            skimmed_bytes: None,
            #[cfg(feature = "testing")]
            is_offloaded,
        };
        self.tasks.0.insert(slot, task);
        Ok(())
    }

    fn end(&mut self, shard: &mut Shard, slot: Slot) {
        self.drop_task(shard, slot);
        shard.end_waiting(slot);
    }

    /// Drops the future of a connection that is gone.
    pub(in crate::shard) fn drop_task(&mut self, shard: &mut Shard, slot: Slot) {
        // Mostly nobody waits, and nothing has to be hashed to know it.
        if !self.tasks.0.is_empty()
            && let Some(task) = self.tasks.0.remove(&slot)
        {
            shard.discard(slot, task);
        }
    }
}
