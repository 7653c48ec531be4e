//! Answers that come later: the futures of this shard's connections, at most one each, and the
//! waiting of those who have one.
//!
//! While a connection waits, its input does too: up to a bound it is read, so that pings are
//! answered, and kept. It goes on when the future has resolved, or was dropped because its time is
//! over. The end of the connection cuts no future: the closing timeout does, and that is counted.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::Refusal;
use crate::handler::{Decision, Job, Later, Reply, Upgrade};
use crate::hub::alarm::Alarm;
use crate::message::{Close, CloseCode, ClosedBy};
use crate::panics::discard;
use crate::shard::EventLoop;
use crate::shard::connection::{Farewell, Phase};
use crate::shard::dispatch::Application;
use crate::shard::state::{Shard, Slot};
use crate::transport::Input;

/// How much input is read of a connection that waits, in bytes, before its reading pauses.
pub(in crate::shard) const WAITING_BYTES: usize = 64 << 10;

/// By slot.
#[derive(Default)]
pub(in crate::shard) struct Tasks(HashMap<Slot, Task>);

struct Task {
    alarm: Arc<Alarm>,
    waker: Waker,
    future: Promise,
    /// How much of the input that waits was searched for control frames; `None` before that began.
    skimmed_bytes: Option<usize>,
    /// It waits for the pool, which will be done some time.
    #[cfg(feature = "testing")]
    is_offloaded: bool,
}

/// A future of what a handler is to return.
enum Promise {
    Reply(Pin<Box<dyn Future<Output = Reply<'static>>>>),
    Upgrade(Pin<Box<dyn Future<Output = Upgrade>>>),
}

/// What came of it.
enum Kept {
    Reply(Reply<'static>),
    Upgrade(Upgrade),
}

impl Tasks {
    pub(in crate::shard) fn has(&self, slot: Slot) -> bool {
        self.0.contains_key(&slot)
    }
}

impl Task {
    fn poll(&mut self) -> Poll<Kept> {
        // First hear, then look: what happens from here on rings again.
        self.alarm.hear();
        let mut context = Context::from_waker(&self.waker);
        match &mut self.future {
            Promise::Reply(future) => future.as_mut().poll(&mut context).map(Kept::Reply),
            Promise::Upgrade(future) => future.as_mut().poll(&mut context).map(Kept::Upgrade),
        }
    }
}

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
        later: Later<Upgrade>,
    ) -> Option<Upgrade> {
        self.begin_upgrade(shard, slot, later).or_else(|| self.poll(shard, slot))
    }

    /// Polls the future that a connection waits for. A decision about its upgrade is returned;
    /// everything else is done.
    pub(in crate::shard) fn poll(&mut self, shard: &mut Shard, slot: Slot) -> Option<Upgrade> {
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
                Ok(Poll::Ready(Kept::Upgrade(Upgrade(Decision::Later(later))))) => {
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
                        return Some(Upgrade::reject(Refusal::Internal));
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
        if !shard.connections[slot].flags.is_waiting {
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
                    let next =
                        self.visit(shard, slot, |_, reach, context| then.call(reach, context));
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
            shard.begin_close(slot, close, Farewell::Close);
        }
        begun.is_ok()
    }

    /// `None` if it is to be polled.
    fn begin_upgrade(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        later: Later<Upgrade>,
    ) -> Option<Upgrade> {
        let Later { future, job } = later;
        let begun = self.begin(shard, slot, Promise::Upgrade(future), job);
        begun.err().map(|Overloaded| Upgrade::reject(Refusal::PoolFull))
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
        let connection = &mut shard.connections[slot];
        let doorbell = Arc::clone(shard.hub.shared().mailboxes[shard.index].doorbell());
        let alarm = Alarm::new(connection.address, doorbell);
        let waker = Waker::from(Arc::clone(&alarm));
        connection.flags.is_waiting = true;
        let task = Task {
            alarm,
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

#[cfg(feature = "testing")]
impl Tasks {
    /// Whether any connection waits for the pool.
    pub(in crate::shard) fn has_offloaded(&self) -> bool {
        self.0.values().any(|task| task.is_offloaded)
    }
}

/// The pool is full.
struct Overloaded;

impl Shard {
    /// The connection's input goes on, or its end does.
    fn end_waiting(&mut self, slot: Slot) {
        self.connections[slot].flags.is_waiting = false;
        self.go_on_leaving(slot);
        self.make_ready(slot);
    }
}

impl EventLoop {
    /// Somebody has rung for a connection.
    pub(in crate::shard) fn attend(&mut self, slot: Slot) {
        if self.shard.connections[slot].is_dead() {
            return;
        }
        self.shard.enter(slot);
        self.shard.check_stream(slot);
        if let Some(upgrade) = self.application.poll(&mut self.shard, slot) {
            self.go_on_upgrading(slot, upgrade);
        }
        self.shard.exit(slot);
        self.shard.settle(slot);
    }

    /// The turn of a connection that waits: input is read up to a bound, for the pings in it.
    #[cold]
    pub(in crate::shard) fn receive_while_waiting(&mut self, slot: Slot, buffer: &mut [u8]) {
        let connection = &mut self.shard.connections[slot];
        let is_upgrading = matches!(connection.phase, Phase::Upgrading { .. });
        if connection.flags.has_peer_ended {
            return self.wait_without_peer(slot);
        }
        if is_upgrading || connection.backlog.len() >= WAITING_BYTES {
            return;
        }
        let room = WAITING_BYTES - connection.backlog.len();
        let buffer = &mut buffer[..room];
        match connection.transport.read(buffer) {
            Input::Bytes(bytes) => {
                connection.touch(self.shard.now);
                connection.backlog.extend_from_slice(&buffer[..bytes]);
                self.skim(slot);
                self.shard.keep_input(slot);
                if bytes == room {
                    self.shard.make_ready(slot);
                }
            }
            Input::Nothing => {}
            Input::Broken if !connection.is_open() => self.shard.lose(slot),
            // What an open one has said before is still handled; writing finds out what is broken.
            Input::End | Input::Broken => {
                connection.flags.has_peer_ended = true;
                self.wait_without_peer(slot);
            }
        }
    }

    /// The turn of a connection that waits and whose peer has ended its side. The peer may read on.
    fn wait_without_peer(&mut self, slot: Slot) {
        let connection = &self.shard.connections[slot];
        if matches!(connection.phase, Phase::Upgrading { .. }) {
            // Nobody is left who asks.
            self.shard.lose(slot);
        } else if connection.is_open() && self.shard.is_answer_overdue(slot) {
            self.stop_waiting(slot);
        }
    }

    /// The time is over for what a connection waits for; if it leaves, also for the end of a
    /// message in pieces.
    pub(in crate::shard) fn stop_waiting(&mut self, slot: Slot) {
        if matches!(self.shard.connections[slot].phase, Phase::Leaving(_)) {
            self.shard.break_stream(slot);
        }
        self.application.cancel(&mut self.shard, slot);
    }

    /// Answers the pings in input that waits.
    pub(in crate::shard) fn skim(&mut self, slot: Slot) {
        let Some(task) = self.application.tasks.0.get_mut(&slot) else { return };
        let Shard { connections, limits, now, .. } = &mut self.shard;
        let connection = &mut connections[slot];
        match &connection.phase {
            Phase::Upgrading { .. } => return,
            // After its Close, or its fault, nothing that the peer says counts.
            Phase::Leaving(leaving)
                if matches!(
                    leaving.farewell,
                    Farewell::Answer | Farewell::Fail | Farewell::Nothing
                ) =>
            {
                return;
            }
            _ => {}
        }
        let limits = &limits[connection.endpoint];
        let (input, skimmed) = (&mut connection.backlog, &mut task.skimmed_bytes);
        let found = connection.protocol.skim(input, skimmed, &mut self.control, limits, *now);
        if !self.control.is_empty() {
            self.send_control(slot);
        }
        match found {
            Ok(has_close) if has_close && self.shard.connections[slot].is_open() => {
                // The peer waits for an answer to its Close.
                if self.shard.is_answer_overdue(slot) {
                    self.stop_waiting(slot);
                }
            }
            Ok(_) => {}
            Err(violation) => {
                let (code, reason) = violation.close_code();
                let close = Close::new(code, reason, ClosedBy::Server);
                self.shard.begin_close(slot, close, Farewell::Fail);
            }
        }
    }
}
