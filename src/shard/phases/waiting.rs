//! Connections that wait for an answer: what wakes them, and their input meanwhile, which is read
//! up to a bound so that pings are answered.
//!
//! Knows when a connection that waits is looked at. Must not know what it waits for.

use crate::hub::Slot;
use crate::message::{Close, ClosedBy};
use crate::shard::EventLoop;
use crate::shard::connection::{CloseHandshake, WAITING_BYTES};
use crate::transport::{Input, More};

impl EventLoop {
    /// Somebody has rung for a connection.
    pub(in crate::shard) fn attend(&mut self, slot: Slot) {
        if self.shard.connection(slot).is_dead() {
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

    /// The service of a connection that waits: input is read up to a bound, for the pings in it.
    #[cold]
    pub(in crate::shard) fn receive_while_waiting(&mut self, slot: Slot, buffer: &mut [u8]) {
        let connection = self.shard.connection(slot);
        if connection.has_peer_ended() {
            return self.wait_without_peer(slot);
        }
        let kept_bytes = connection.backlog().len();
        if connection.is_upgrading() || kept_bytes >= WAITING_BYTES {
            return;
        }
        let room = WAITING_BYTES - kept_bytes;
        let buffer = &mut buffer[..room];
        let (input, connection) = self.shard.read(slot, buffer);
        match input {
            Input::Bytes(bytes, more) => {
                connection.keep_more_input(&buffer[..bytes]);
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
                connection.note_peer_end();
                self.wait_without_peer(slot);
            }
        }
    }

    /// The service of a connection that waits and whose peer has ended its side. The peer may read
    /// on.
    fn wait_without_peer(&mut self, slot: Slot) {
        let connection = self.shard.connection(slot);
        if connection.is_upgrading() {
            // Nobody is left who asks.
            self.shard.lose(slot);
        } else if connection.is_open() && self.shard.is_answer_overdue(slot) {
            self.stop_waiting(slot);
        }
    }

    /// The time is over for what a connection waits for; if it leaves, also for the end of a
    /// message in pieces.
    pub(in crate::shard) fn stop_waiting(&mut self, slot: Slot) {
        if self.shard.connection(slot).is_close_pending() {
            self.shard.break_stream(slot);
        }
        self.application.cancel(&mut self.shard, slot);
    }

    /// Answers the pings in input that waits.
    pub(in crate::shard) fn skim(&mut self, slot: Slot) {
        let Some(task) = self.application.tasks.0.get_mut(&slot) else { return };
        let now = self.shard.now();
        let (connection, limits) = self.shard.connection_with_limits(slot);
        if !connection.heeds_peer() {
            return;
        }
        let found = connection.skim(&mut task.skimmed_bytes, &mut self.control, limits, now);
        if !self.control.is_empty() {
            self.send_control(slot);
        }
        match found {
            Ok(has_close) if has_close && self.shard.connection(slot).is_open() => {
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
