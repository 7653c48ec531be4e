//! The end of all connections: the stages of the server's shutdown, as one shard goes through them.
//!
//! ```text
//! Running (announced) ─► Spreading ─► Quieting ─► Closing
//! ```
//!
//! Knows the plan of the shutdown, stages, and the closing of connections. Must not know how output
//! reaches the kernel, nor other shards' connections.

use std::time::{Duration, Instant};

use crate::error::Refusal;
use crate::hub::{Schedule, ShutdownPlan, Slot};
use crate::message::{Close, ClosedBy};
use crate::shard::EventLoop;
use crate::shard::connection::{CloseHandshake, Closing, Heard, Phase};
use crate::shard::stage::{ShutdownStage, Spread, last_call_until};

impl EventLoop {
    /// Goes on with the server's shutdown.
    #[cold]
    pub(in crate::shard) fn advance_shutdown(&mut self, schedule: Schedule) {
        let now = self.shard.now();
        let has_expired = schedule.ends_at <= now;
        if self.life == ShutdownStage::Running && schedule.accepts_until <= now {
            self.begin_spreading(schedule);
        }
        if matches!(self.life, ShutdownStage::Spreading(_)) {
            if self.listener.is_some() && last_call_until(schedule) <= now {
                self.stop_accepting();
            }
            self.close_due(schedule, now);
            if schedule.spreads_until <= now {
                self.life = ShutdownStage::Quieting;
            } else if self.listener.is_none() && !self.has_members() {
                self.close_kept();
                self.end_spread_if_alone();
            }
        }
        if self.life == ShutdownStage::Quieting {
            self.shard.quiet();
            let shared = self.shard.shared();
            let shard_count = shared.shards.len();
            let are_all_quiet = shared.shutdown.are_all_quiet(shard_count);
            if are_all_quiet || has_expired {
                self.begin_closing_all();
            }
        }
        if self.life == ShutdownStage::Closing && has_expired {
            self.abort_all();
        }
    }

    /// When this shard's shutdown goes on, as far as no event tells.
    #[cold]
    pub(in crate::shard) fn shutdown_due(&self, schedule: Schedule) -> Option<Instant> {
        let shard_count = self.shard.shared().shards.len();
        Some(match &self.life {
            ShutdownStage::Running => schedule.accepts_until,
            ShutdownStage::Spreading(spread) => {
                let next_at = spread.next_at(schedule, self.shard.index(), shard_count);
                let next_at = next_at.unwrap_or(schedule.spreads_until);
                let last_call = self.listener.as_ref().map(|_| last_call_until(schedule));
                last_call.map_or(next_at, |until| until.min(next_at))
            }
            ShutdownStage::Quieting | ShutdownStage::Closing => schedule.ends_at,
        })
    }

    /// Lets nobody in any more; from now on the members only become fewer.
    fn begin_spreading(&mut self, schedule: Schedule) {
        if let Some(listener) = &self.listener
            && let Err(error) = listener.refuse_new_clients()
        {
            log::debug!("the listener closes at once: {error}");
            self.stop_accepting();
        }
        let members = self.shard.members();
        let mut waiting: Vec<_> =
            members.map(|slot| self.shard.connection(slot).address()).collect();
        let count = waiting.len();
        self.shard.shared().shutdown.add_open(count);
        if schedule.spreads_until <= schedule.accepts_until {
            // All will be closed at once, after what is on its way to them.
            waiting.clear();
        }
        waiting.reverse();
        let count = waiting.len();
        self.life = ShutdownStage::Spreading(Spread { waiting, count });
        if self.shard.connection_count() == 0 {
            // Its last one may have ended in the turn in which the others counted them.
            self.shard.shared().wake_all();
        }
    }

    /// Whether anybody of this shard has upgraded and is not closed yet.
    pub(in crate::shard) fn has_members(&self) -> bool {
        self.shard.members().next().is_some()
    }

    /// Ends connections that are kept for another page: the next stage does not wait for them.
    fn close_kept(&mut self) {
        let slots: Vec<Slot> = self.shard.connections().map(|(slot, _)| slot).collect();
        for slot in slots {
            if self.kept(slot).is_none() {
                continue;
            }
            // A request may lie in the kernel, unread: its page is the last.
            self.receive_from_one(slot);
            if let Some(closing) = self.kept(slot) {
                self.shard.begin_closing(slot, closing);
                self.shard.settle(slot);
            }
        }
    }

    /// How a connection ends that is kept for another page, if this is one.
    fn kept(&self, slot: Slot) -> Option<Closing> {
        match self.shard.connection(slot).phase() {
            Phase::Upgrading { heard: Heard::Served } => Some(Closing::Outbox),
            Phase::Upgrading { heard: Heard::Answered } => Some(Closing::OutboxThenEnd),
            _ => None,
        }
    }

    /// With nobody left anywhere, the next stage begins; for all shards, because a connection that
    /// comes to one that still lets somebody in may be placed here.
    fn end_spread_if_alone(&self) {
        let shared = self.shard.shared();
        if shared.connection_count() == 0 {
            shared.begin_shutdown(ShutdownPlan::within(Duration::MAX));
        }
    }

    fn close_due(&mut self, schedule: Schedule, now: Instant) {
        let shard_count = self.shard.shared().shards.len();
        while let ShutdownStage::Spreading(spread) = &mut self.life
            && let Some(next_at) = spread.next_at(schedule, self.shard.index(), shard_count)
            && next_at <= now
            && let Some(address) = spread.waiting.pop()
        {
            if let Some(slot) = self.shard.find(address) {
                self.begin_last_close(slot);
            }
        }
        self.run_pending_closes();
    }

    fn begin_last_close(&mut self, slot: Slot) {
        let Some(schedule) = self.shard.schedule() else { return };
        let close = Close::new(schedule.code, "server is shutting down", ClosedBy::Server);
        self.shard.begin_close(slot, close, CloseHandshake::Close);
    }

    /// Nothing more will come from other shards than what is in the mailbox: delivers that, then
    /// closes every connection.
    fn begin_closing_all(&mut self) {
        self.shard.close_mailbox();
        self.adopt_handed_over();
        self.life = ShutdownStage::Closing;
        let members: Vec<Slot> = self.shard.members().collect();
        for slot in members {
            self.begin_last_close(slot);
        }
        self.run_pending_closes();
        self.turn_away_upgrading();
    }

    /// A connection that has begun a request is refused; one that has not is closed.
    fn turn_away_upgrading(&mut self) {
        let slots: Vec<Slot> = self.shard.connections().map(|(slot, _)| slot).collect();
        for slot in slots {
            if !self.shard.connection(slot).is_upgrading() {
                continue;
            }
            if self.shard.connection(slot).is_waiting() {
                self.application.cancel(&mut self.shard, slot);
                self.turn_away(slot, Refusal::Unavailable);
                continue;
            }
            // A request may lie in the kernel, unread: closing would answer it with a reset.
            self.receive_from_one(slot);
            let connection = self.shard.connection(slot);
            if !connection.is_upgrading() {
                continue;
            }
            if !connection.backlog().is_empty() {
                self.turn_away(slot, Refusal::Unavailable);
                continue;
            }
            // So would closing a connection whose request is still on its way.
            let closing = self.kept(slot).unwrap_or(Closing::OutboxThenEnd);
            self.shard.begin_closing(slot, closing);
            self.shard.settle(slot);
        }
    }

    /// The grace is over: drops what is left.
    fn abort_all(&mut self) {
        let slots: Vec<Slot> = self.shard.connections().map(|(slot, _)| slot).collect();
        // What they wait for does not come any more: they still get a Close frame.
        self.stop_all_waiting(&slots);
        let mut aborted_count = 0;
        for &slot in &slots {
            let connection = self.shard.connection(slot);
            if connection.is_dead() {
                continue;
            }
            // Who lingers has been told everything.
            let lingers = matches!(connection.phase(), Phase::Closing(Closing::PeerEnd));
            aborted_count += usize::from(!lingers);
            self.shard.lose(slot);
        }
        self.run_pending_closes();
        // `on_close` has been called for all by now: what it has left to be done is cut, too.
        self.stop_all_waiting(&slots);
        self.shard.shared().shutdown.add_aborted(aborted_count);
    }

    /// Cuts what those wait for who leave; then they go on.
    fn stop_all_waiting(&mut self, slots: &[Slot]) {
        for &slot in slots {
            let connection = self.shard.connection(slot);
            if connection.is_close_pending() && connection.is_waiting() {
                self.stop_waiting(slot);
            }
        }
        self.run_pending_closes();
    }
}
