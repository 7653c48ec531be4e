//! Phase 3: ready connections are read, their protocol fed, their handlers run; each within a
//! budget of bytes and messages, after which it waits for the next turn.

use super::EventLoop;
use super::connection::{Closing, Connection, Farewell, Phase};
use super::state::Slot;
use super::transport::Input;
use crate::message::{Close, CloseCode, ClosedBy};
use crate::protocol::{Doubt, Event};

/// The most requests answered for one connection in a turn.
const REQUEST_BUDGET: usize = 64;

/// Why handling input stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is used up, or the rest is the beginning of something: more has to come.
    Starved,
    /// A budget was used up, or the outbox is too full: the rest waits.
    Paused,
    /// A handler's answer comes later: the rest waits for it.
    Waiting,
}

impl EventLoop {
    pub(super) fn receive(&mut self) {
        if self.shard.links.is_blocked() {
            let lost_count = self.shard.links.flush();
            self.shard.count_dropped(lost_count);
        }
        if self.shard.ready.is_empty() || !self.may_receive() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut ready = std::mem::take(&mut self.shard.ready);
        let mut done_count = 0;
        for &address in &ready {
            done_count += 1;
            if let Some(slot) = self.shard.find(address) {
                self.receive_from(slot, &mut buffer);
            }
            if self.shard.is_held_up() {
                break;
            }
        }
        // Those whose turn did not come, then those that became ready meanwhile.
        ready.drain(..done_count);
        ready.append(&mut self.shard.ready);
        self.shard.ready = ready;
        self.buffer = buffer;
        self.close_leaving();
    }

    /// Gives one connection a turn, outside of the phase.
    pub(super) fn receive_from_one(&mut self, slot: Slot) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.receive_from(slot, &mut buffer);
        self.buffer = buffer;
    }

    /// One connection's turn.
    fn receive_from(&mut self, slot: Slot, buffer: &mut [u8]) {
        let connection = &mut self.shard.connections[slot];
        connection.flags.is_ready = false;
        if connection.flags.is_pressed || connection.is_dead() {
            // When the outbox drains, it is made ready again.
            return;
        }
        if connection.flags.is_waiting {
            return self.receive_while_waiting(slot, buffer);
        }
        let kept = connection.take_backlog(buffer);
        let room = buffer.len() - kept;
        debug_assert!(room > 0, "the backlog is smaller than the buffer");
        let input = connection.transport.read(&mut buffer[kept..]);
        let read = match input {
            Input::Bytes(bytes) => {
                connection.touch(self.shard.now);
                bytes
            }
            Input::Nothing | Input::End | Input::Broken => 0,
        };
        let may_hold_more = read == room || connection.flags.has_peer_ended;
        let is_fresh = kept == 0 && matches!(connection.phase, Phase::Upgrading { .. });
        if is_fresh && input == Input::Nothing && !may_hold_more {
            // Its request is still to come.
            return;
        }

        self.shard.enter(slot);
        let (rest, stop) = self.handle_input(slot, &mut buffer[..kept + read]);
        if stop == Stop::Starved
            && rest.is_empty()
            && !may_hold_more
            && self.shard.connections[slot].is_open()
            && matches!(input, Input::Bytes(_))
        {
            // What nearly always happens.
            self.shard.keep_input(slot);
            self.shard.exit(slot);
            return;
        }
        self.end_turn(slot, rest, stop, input);
        let is_over = matches!(input, Input::End | Input::Broken) && stop == Stop::Starved;
        if !is_over && (stop == Stop::Paused || may_hold_more) {
            self.shard.make_ready(slot);
        }
    }

    /// The end of a connection's turn, if there is more to it than writing.
    #[cold]
    fn end_turn(&mut self, slot: Slot, rest: &[u8], stop: Stop, input: Input) {
        self.shard.connections[slot].backlog = rest.to_vec();
        if stop == Stop::Waiting {
            self.skim(slot);
            if matches!(input, Input::End | Input::Broken) {
                self.shard.connections[slot].flags.has_peer_ended = true;
                self.shard.make_ready(slot);
            }
        }
        if stop == Stop::Starved && matches!(input, Input::End | Input::Broken) {
            self.end_of_input(slot, input);
        }
        self.close_if_leaving(slot);
        self.shard.exit(slot);
        self.shard.settle(slot);
    }

    /// Handles input as the phase demands, which may change on the way.
    fn handle_input<'b>(&mut self, slot: Slot, mut input: &'b mut [u8]) -> (&'b mut [u8], Stop) {
        let mut request_budget = REQUEST_BUDGET;
        loop {
            if self.shard.connections[slot].flags.is_waiting {
                return (input, Stop::Waiting);
            }
            match self.shard.connections[slot].phase {
                Phase::Upgrading { .. } => {
                    // Pages are not refused by the outbox's bounds: who does not read them may not
                    // ask for more.
                    if self.shard.scratch.len() >= self.shard.scratch_limit(slot) {
                        self.shard.write_scratch(slot);
                        // That may have been its end.
                        continue;
                    }
                    if self.shard.connections[slot].flags.is_pressed || request_budget == 0 {
                        return (input, Stop::Paused);
                    }
                    request_budget -= 1;
                    match self.upgrade(slot, input) {
                        Some(used) => input = &mut input[used..],
                        None if self.shard.connections[slot].flags.is_waiting => {
                            return (input, Stop::Waiting);
                        }
                        None => return (input, Stop::Starved),
                    }
                }
                Phase::Open => match self.handle_frames(slot, input) {
                    (rest, None) => input = rest,
                    (rest, Some(stop)) => return (rest, stop),
                },
                Phase::Leaving(_) => self.close_if_leaving(slot),
                Phase::Closing(Closing::PeerClose) => match self.await_close(slot, input) {
                    (rest, None) => input = rest,
                    (rest, Some(stop)) => return (rest, stop),
                },
                Phase::Closing(_) | Phase::Dead => input = &mut [],
            }
            if input.is_empty() && !matches!(self.shard.connections[slot].phase, Phase::Leaving(_))
            {
                return (input, Stop::Starved);
            }
        }
    }

    /// Handles frames of an open connection, until it is not, or a budget is used up.
    #[inline]
    fn handle_frames<'b>(
        &mut self,
        slot: Slot,
        mut input: &'b mut [u8],
    ) -> (&'b mut [u8], Option<Stop>) {
        let scratch_limit = self.shard.scratch_limit(slot);
        for _ in 0..self.budgets.frame_count {
            if input.is_empty() {
                return (input, Some(Stop::Starved));
            }
            let super::Shard { connections, limits, .. } = &mut self.shard;
            let connection = &mut connections[slot];
            let limits = &limits[connection.endpoint];
            match connection.protocol.receive_whole(&mut input, limits) {
                Ok(message) => self.application.message(&mut self.shard, slot, message),
                Err(doubt) => self.handle_doubtful(slot, doubt, &mut input),
            }
            if self.shard.scratch.len() >= scratch_limit {
                self.shard.write_scratch(slot);
            }
            let connection = &self.shard.connections[slot];
            if !connection.is_open() {
                return (input, None);
            }
            if connection.flags.is_waiting {
                return (input, Some(Stop::Waiting));
            }
            if connection.flags.is_pressed || self.shard.is_held_up() {
                return (input, Some(Stop::Paused));
            }
        }
        (input, Some(Stop::Paused))
    }

    /// Handles what did not come as one whole frame.
    #[cold]
    fn handle_doubtful<'b>(&mut self, slot: Slot, doubt: Doubt<'b>, input: &mut &'b mut [u8]) {
        let super::Shard { connections, limits, now, .. } = &mut self.shard;
        let connection = &mut connections[slot];
        let (protocol, limits) = (&mut connection.protocol, &limits[connection.endpoint]);
        let event = protocol.receive_doubtful(doubt, input, &mut self.control, limits, *now);
        if !self.control.is_empty() {
            self.send_control(slot);
        }
        match event {
            Some(Event::Message(message)) => {
                self.application.message(&mut self.shard, slot, message.as_message());
            }
            Some(Event::Piece(piece)) => {
                self.application.fragment(&mut self.shard, slot, piece.as_fragment());
            }
            Some(Event::Close(code, reason)) => {
                let close = Close::new(code, reason, ClosedBy::Peer);
                self.shard.begin_close(slot, close, Farewell::Answer);
            }
            Some(Event::Violation(violation)) => {
                let (code, reason) = violation.close_code();
                let close = Close::new(code, reason, ClosedBy::Server);
                self.shard.begin_close(slot, close, Farewell::Fail);
            }
            None => {}
        }
    }

    /// After our Close frame: everything but the peer's is discarded (RFC 6455 section 5.5.1),
    /// until it comes, or a budget is used up.
    fn await_close<'b>(
        &mut self,
        slot: Slot,
        mut input: &'b mut [u8],
    ) -> (&'b mut [u8], Option<Stop>) {
        let super::Shard { connections, limits, now, .. } = &mut self.shard;
        let Connection { protocol, phase, endpoint, .. } = &mut connections[slot];
        let limits = &limits[*endpoint];
        for _ in 0..self.budgets.frame_count {
            if input.is_empty() {
                return (input, Some(Stop::Starved));
            }
            let Err(doubt) = protocol.receive_whole(&mut input, limits) else { continue };
            let event =
                protocol.receive_doubtful(doubt, &mut input, &mut self.control, limits, *now);
            self.control.clear();
            *phase = match event {
                Some(Event::Message(_) | Event::Piece(_)) | None => continue,
                Some(Event::Close(..)) => Phase::Closing(Closing::Outbox),
                Some(Event::Violation(_)) => Phase::Closing(Closing::OutboxThenEnd),
            };
            return (input, None);
        }
        (input, Some(Stop::Paused))
    }

    pub(super) fn send_control(&mut self, slot: Slot) {
        let mut control = std::mem::take(&mut self.control);
        self.shard.push_control(slot, &control);
        control.clear();
        self.control = control;
    }

    /// The peer's side has ended.
    fn end_of_input(&mut self, slot: Slot, input: Input) {
        let may_write = input == Input::End;
        let owes_output = self.shard.buffered_bytes(slot) > 0;
        let connection = &mut self.shard.connections[slot];
        match connection.phase {
            Phase::Open => {
                let farewell = if may_write { Farewell::Message } else { Farewell::Nothing };
                let close = Close::new(CloseCode::ABNORMAL, "", ClosedBy::Peer);
                self.shard.begin_close(slot, close, farewell);
            }
            Phase::Closing(Closing::PeerClose | Closing::OutboxThenEnd) if may_write => {
                connection.phase = Phase::Closing(Closing::Outbox);
            }
            Phase::Upgrading { .. } if may_write && owes_output => {
                self.shard.begin_closing(slot, Closing::Outbox);
            }
            Phase::Closing(Closing::Outbox) if may_write => {}
            _ => self.shard.lose(slot),
        }
    }
}
