//! Connections that wait for an answer: what wakes them, and their input meanwhile, which is read
//! up to a bound so that pings are answered.
//!
//! Knows when a connection that waits is looked at. Must not know what it waits for.

use crate::hub::Slot;
use crate::message::{Close, ClosedBy};
use crate::shard::EventLoop;
use crate::shard::connection::{CloseHandshake, Phase};
use crate::shard::dispatch::tasks::WAITING_BYTES;
use crate::shard::state::Shard;
use crate::transport::{Input, More};

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
        match connection.read(buffer) {
            Input::Bytes(bytes, more) => {
                connection.touch(self.shard.now);
                connection.backlog.extend_from_slice(&buffer[..bytes]);
                self.skim(slot);
                self.shard.keep_input(slot);
                if more == More::Maybe {
                    self.shard.make_ready(slot);
                }
            }
            Input::Nothing(More::Maybe) => self.shard.make_ready(slot),
            Input::Nothing(More::No) => {}
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
        if matches!(self.shard.connections[slot].phase, Phase::PendingClose(_)) {
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
            Phase::PendingClose(pending)
                if matches!(
                    pending.close_handshake,
                    CloseHandshake::Answer | CloseHandshake::Fail | CloseHandshake::Nothing
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
                self.shard.begin_close(slot, close, CloseHandshake::Fail);
            }
        }
    }
}
