//! Phase 2: connections are read, their protocol fed, their handlers run; each within a budget of
//! bytes and messages, after which it waits on the ready list for the next turn.
//!
//! A connection is read as soon as its event is taken up, without a list. Only if connections are
//! left from the last turn do all go through the ready list. Most services take the fast path: that
//! of an open connection with nothing under way, on a quiescent shard, whose handler only replies.
//!
//! Knows connections' phases, the protocol's events and budgets. Must not know how output reaches
//! the kernel, nor what a frame looks like.

use mio::Events;

use crate::hub::{Address, Slot};
use crate::message::{Close, CloseCode, ClosedBy};
use crate::protocol::{Doubt, Event};
use crate::shard::connection::{CloseHandshake, Closing, Phase};
use crate::shard::dispatch::scope::{Intake, RunEnd};
use crate::shard::outbox::cork::CORK_BYTES;
use crate::shard::{EventLoop, SocketEvent};
use crate::transport::{Input, More};

/// The most requests answered in one service.
const REQUEST_BUDGET: usize = 64;

/// How often a connection is read outside of the phase, at most.
const LAST_READ_COUNT: usize = 16;

/// Why handling input stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Stop {
    /// It is used up, or the rest is the beginning of something: more has to come.
    Starved,
    /// A budget was used up, or the outbox is too full: the rest waits.
    Paused,
    /// A handler's answer comes later: the rest waits for it.
    Waiting,
}

impl EventLoop {
    pub(in crate::shard) fn receive(&mut self, events: &Events) {
        self.shard.look_at_shards();
        #[cfg(feature = "testing")]
        let told = std::mem::take(&mut self.told);
        if !self.shard.has_ready() {
            self.receive_from_heard(events);
            #[cfg(feature = "testing")]
            self.receive_from_heard(told);
        } else {
            self.dispatch_events(events);
            #[cfg(feature = "testing")]
            self.dispatch_events(told);
            self.receive_from_ready();
        }
        self.shard.stop_watch();
        self.run_pending_closes();
    }

    /// The ready list is empty: each connection with an event is served at once.
    #[inline(never)]
    fn receive_from_heard(&mut self, news: impl IntoIterator<Item: SocketEvent>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut may_use_fast_path = self.may_use_fast_path();
        for news in news {
            if may_use_fast_path
                && news.is_input()
                && let Some(slot) = self.shard.find_idle(Address::from_token(news.token().0))
            {
                may_use_fast_path = self.receive_fast(slot, &mut buffer);
            } else if let Some(slot) = self.dispatch_event(&news) {
                may_use_fast_path = self.receive_slow(slot, &mut buffer);
            }
        }
        self.buffer = buffer;
    }

    /// Serves the connections of the ready list.
    fn receive_from_ready(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let ready = self.shard.take_ready();
        let mut may_use_fast_path = self.may_use_fast_path();
        let mut done_count = 0;
        for &address in &ready {
            if !may_use_fast_path && !self.may_receive() {
                break;
            }
            done_count += 1;
            if let Some(slot) = self.shard.find(address) {
                let connection = self.shard.connection_mut(slot);
                connection.unmark_ready();
                may_use_fast_path = if may_use_fast_path && connection.is_idle() {
                    self.receive_fast(slot, &mut buffer)
                } else {
                    self.receive_slow(slot, &mut buffer)
                };
            }
        }
        self.shard.put_back_ready(ready, done_count);
        self.buffer = buffer;
    }

    /// Serves one connection, outside of the phase.
    pub(in crate::shard) fn receive_from_one(&mut self, slot: Slot) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..LAST_READ_COUNT {
            self.shard.connection_mut(slot).unmark_ready();
            self.receive_checked(slot, &mut buffer);
            if !self.shard.take_back_ready(slot) {
                self.buffer = buffer;
                return;
            }
        }
        self.shard.make_ready(slot);
        self.buffer = buffer;
    }

    /// Whether idle connections may take the fast path: handlers may be called, and nothing was
    /// published that has to go before their replies. Only a service off the fast path changes it.
    fn may_use_fast_path(&self) -> bool {
        self.may_receive() && self.shard.is_quiescent()
    }

    /// The service of an idle connection on a quiescent shard, most likely on the fast path. Tells
    /// whether the next one may be on it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a twentieth of a short echo")]
    fn receive_fast(&mut self, slot: Slot, buffer: &mut [u8]) -> bool {
        let (input, connection) = self.shard.read(slot, buffer);
        let Input::Bytes(read, more) = input else {
            self.receive_nothing(slot, input);
            return self.may_use_fast_path();
        };
        let endpoint = connection.endpoint();
        self.shard.enter_fast(slot, endpoint);
        let mut intake = Intake::new(&mut buffer[..read], self.budgets.frame_count);
        self.application.run(&mut self.shard, slot, endpoint, None, &mut intake);
        if intake.is_done() && more == More::No {
            // Nothing is left to drop.
            std::mem::forget(intake);
            self.shard.exit_fast(slot);
            return true;
        }
        self.go_on(slot, intake, input, more);
        self.may_use_fast_path()
    }

    /// A service off the fast path, if handlers may be called; whether the next one may be on it.
    #[cold]
    fn receive_slow(&mut self, slot: Slot, buffer: &mut [u8]) -> bool {
        if self.may_receive() {
            self.receive_checked(slot, buffer);
        } else {
            self.shard.make_ready(slot);
        }
        self.may_use_fast_path()
    }

    /// The service of an idle connection without input.
    #[cold]
    fn receive_nothing(&mut self, slot: Slot, input: Input) {
        self.shard.enter(slot);
        let intake = Intake::new(&mut [], self.budgets.frame_count);
        self.go_on(slot, intake, input, input.more());
    }

    /// The service of one that is not open, or of which something is kept, or that has to wait.
    #[cold]
    fn receive_checked(&mut self, slot: Slot, buffer: &mut [u8]) {
        let connection = self.shard.connection_mut(slot);
        match connection.phase() {
            Phase::Dead => return,
            // Also while the outbox is full: the peer may read only when it has sent everything.
            Phase::Closing(Closing::PeerClose) => {}
            Phase::Closing(_) => return self.discard_input(slot, buffer),
            // When the outbox drains, it is made ready again.
            _ if connection.is_pressed() => return,
            _ => {}
        }
        if connection.is_waiting() {
            return self.receive_while_waiting(slot, buffer);
        }
        let kept = connection.take_backlog(buffer);
        debug_assert!(kept < buffer.len(), "the backlog is smaller than the buffer");
        let (input, connection) = self.shard.read(slot, &mut buffer[kept..]);
        let read = match input {
            Input::Bytes(bytes, _) => bytes,
            Input::Nothing(_) | Input::End | Input::Broken => 0,
        };
        // The end of the peer's side has to be read, too.
        let more = if connection.has_peer_ended() { More::Maybe } else { input.more() };
        self.shard.enter(slot);
        let intake = Intake::new(&mut buffer[..kept + read], self.budgets.frame_count);
        self.go_on(slot, intake, input, more);
    }

    /// The service of one that gets nothing more: of what the peer sends, only its end counts.
    #[cold]
    fn discard_input(&mut self, slot: Slot, buffer: &mut [u8]) {
        let connection = self.shard.connection_mut(slot);
        match connection.read(buffer) {
            Input::Bytes(_, more) => {
                if more == More::Maybe || connection.has_peer_ended() {
                    self.shard.make_ready(slot);
                }
            }
            Input::Nothing(More::Maybe) => self.shard.make_ready(slot),
            Input::Nothing(More::No) => {}
            // Both sides have ended.
            _ if matches!(connection.phase(), Phase::Closing(Closing::PeerEnd)) => {
                self.shard.release_slot(slot);
            }
            input => {
                self.end_of_input(slot, input);
                self.shard.settle(slot);
            }
        }
    }

    /// The rest of a connection's service, once it has left the fast path.
    #[cold]
    fn go_on(&mut self, slot: Slot, mut intake: Intake<'_>, input: Input, more: More) {
        let stop = self.handle_input(slot, &mut intake);
        self.end_turn(slot, intake.bytes, stop, input);
        let is_over = input.is_end() && stop == Stop::Starved;
        if !is_over && (stop == Stop::Paused || more == More::Maybe) {
            self.shard.make_ready(slot);
        }
    }

    /// The end of a connection's service, if there is more to it than writing.
    #[cold]
    fn end_turn(&mut self, slot: Slot, rest: &[u8], stop: Stop, input: Input) {
        self.shard.connection_mut(slot).keep_input(rest);
        if stop == Stop::Waiting {
            self.skim(slot);
            if input.is_end() {
                self.shard.connection_mut(slot).note_peer_end();
                self.shard.make_ready(slot);
            }
        }
        if stop == Stop::Starved && input.is_end() {
            self.end_of_input(slot, input);
        }
        self.close_if_pending(slot);
        self.shard.exit(slot);
        self.shard.settle(slot);
    }

    /// Handles input as the phase demands, which may change on the way, until it is used up or
    /// something stops it; first what the last run has left.
    #[cold]
    fn handle_input(&mut self, slot: Slot, intake: &mut Intake<'_>) -> Stop {
        if let Some(stop) = self.end_run(slot, intake) {
            return stop;
        }
        let mut request_budget = REQUEST_BUDGET;
        loop {
            let connection = self.shard.connection(slot);
            let stop = match connection.phase() {
                _ if connection.is_waiting() => Some(Stop::Waiting),
                Phase::Upgrading { .. } => self.handle_request(slot, intake, &mut request_budget),
                Phase::Open(_) => self.handle_frames(slot, intake),
                Phase::PendingClose(_) => {
                    self.close_if_pending(slot);
                    continue;
                }
                Phase::Closing(Closing::PeerClose) => self.await_close(slot, intake),
                Phase::Closing(_) | Phase::Dead => {
                    intake.bytes = &mut [];
                    None
                }
            };
            if let Some(stop) = stop {
                return stop;
            }
            let is_close_pending = self.shard.connection(slot).is_close_pending();
            if intake.bytes.is_empty() && !is_close_pending {
                return Stop::Starved;
            }
        }
    }

    /// Handles one request.
    fn handle_request(
        &mut self,
        slot: Slot,
        intake: &mut Intake<'_>,
        budget: &mut usize,
    ) -> Option<Stop> {
        // Pages are not refused by the outbox's bounds: who does not read them may not ask for
        // more.
        if self.shard.write_full_cork(slot) {
            // That may have been its end.
            return None;
        }
        if self.shard.connection(slot).is_pressed() || *budget == 0 {
            return Some(Stop::Paused);
        }
        *budget -= 1;
        match self.upgrade(slot, intake.bytes) {
            Some(used) => {
                intake.bytes = &mut std::mem::take(&mut intake.bytes)[used..];
                None
            }
            None if self.shard.connection(slot).is_waiting() => Some(Stop::Waiting),
            None => Some(Stop::Starved),
        }
    }

    /// Handles frames of an open connection, until it is not, or the budget is used up.
    fn handle_frames(&mut self, slot: Slot, intake: &mut Intake<'_>) -> Option<Stop> {
        while intake.budget > 0 {
            if intake.bytes.is_empty() {
                return Some(Stop::Starved);
            }
            let connection = self.shard.connection(slot);
            if connection.is_dormant() {
                let endpoint = connection.endpoint();
                let limit = self.shard.fast_cork_limit(slot);
                self.application.run(&mut self.shard, slot, endpoint, Some(limit), intake);
            } else {
                intake.budget -= 1;
                intake.end = RunEnd::Doubt(Doubt::Frame);
            }
            let stop = self.end_run(slot, intake);
            if stop.is_some() || !self.shard.connection(slot).is_open() {
                return stop;
            }
        }
        Some(Stop::Paused)
    }

    /// Does what a run left to be done; why handling has to stop then, if it has.
    fn end_run(&mut self, slot: Slot, intake: &mut Intake<'_>) -> Option<Stop> {
        self.shard.end_run(slot);
        match std::mem::replace(&mut intake.end, RunEnd::Plain) {
            RunEnd::Plain => return None,
            RunEnd::Reply(reply) => self.application.reply(&mut self.shard, slot, reply),
            // What was said before it may have found the connection broken.
            RunEnd::Doubt(_) if !self.shard.connection(slot).is_open() => return None,
            RunEnd::Doubt(doubt) => self.handle_doubtful(slot, doubt, &mut intake.bytes),
        }
        self.shard.write_full_cork(slot);
        let connection = self.shard.connection(slot);
        if !connection.is_open() {
            None
        } else if connection.is_waiting() {
            Some(Stop::Waiting)
        } else if connection.is_pressed() || self.shard.is_congested() {
            Some(Stop::Paused)
        } else {
            None
        }
    }

    /// Handles what did not come as one whole frame.
    #[cold]
    fn handle_doubtful<'b>(&mut self, slot: Slot, doubt: Doubt<'b>, input: &mut &'b mut [u8]) {
        let now = self.shard.now();
        let (connection, limits) = self.shard.connection_with_limits(slot);
        let event = connection.receive_doubtful(doubt, input, &mut self.control, limits, now);
        if !self.control.is_empty() {
            self.send_control(slot);
        }
        match event {
            Some(Event::Message(message)) => {
                let is_long = message.as_message().len() >= CORK_BYTES;
                self.shard.lend(message.memory().filter(|_| is_long).cloned());
                self.application.message(&mut self.shard, slot, message.as_message());
                self.shard.lend(None);
            }
            Some(Event::Piece(piece)) => {
                self.application.chunk(&mut self.shard, slot, piece.as_chunk());
            }
            Some(Event::Close(code, reason)) => {
                let close = Close::new(code, reason, ClosedBy::Peer);
                self.shard.begin_close(slot, close, CloseHandshake::Answer);
            }
            Some(Event::Violation(violation)) => {
                let (code, reason) = violation.close_code();
                let close = Close::new(code, reason, ClosedBy::Server);
                self.shard.begin_close(slot, close, CloseHandshake::Fail);
            }
            None => {}
        }
    }

    /// After our Close frame: everything but the peer's is discarded (RFC 6455 section 5.5.1),
    /// until it comes, or a budget is used up.
    fn await_close(&mut self, slot: Slot, intake: &mut Intake<'_>) -> Option<Stop> {
        let now = self.shard.now();
        let (connection, limits) = self.shard.connection_with_limits(slot);
        let input = &mut intake.bytes;
        while intake.budget > 0 {
            if input.is_empty() {
                return Some(Stop::Starved);
            }
            intake.budget -= 1;
            if connection.discard_frame(input, &mut self.control, limits, now) {
                return None;
            }
        }
        Some(Stop::Paused)
    }

    pub(in crate::shard) fn send_control(&mut self, slot: Slot) {
        let mut control = std::mem::take(&mut self.control);
        self.shard.push_control(slot, &control);
        control.clear();
        self.control = control;
    }

    /// The peer's side has ended.
    fn end_of_input(&mut self, slot: Slot, input: Input) {
        let may_write = input == Input::End;
        let owes_output = self.shard.buffered_bytes(slot) > 0;
        let connection = self.shard.connection_mut(slot);
        match connection.phase() {
            Phase::Open(_) if may_write => {
                let close = Close::new(CloseCode::ABNORMAL, "", ClosedBy::Peer);
                self.shard.begin_close(slot, close, CloseHandshake::Message);
            }
            Phase::Closing(Closing::PeerClose | Closing::OutboxThenEnd) if may_write => {
                connection.continue_closing(Closing::Outbox);
            }
            Phase::Upgrading { .. } if may_write && owes_output => {
                self.shard.begin_closing(slot, Closing::Outbox);
            }
            Phase::Closing(Closing::Outbox) if may_write => {}
            _ => self.shard.lose(slot),
        }
    }
}
