//! The current service: its beginning and end, what the handler sends to its own connection until
//! then, and how long it takes.
//!
//! Knows the cork, the outbox behind which it stands, and when it is written. Must not know what a
//! handler is.

use bytes::Bytes;

use crate::clock;
use crate::hub::{EndpointIndex, Slot};
use crate::message::Message;
use crate::shard::limits::EndpointLimits;
use crate::shard::outbox::{REFER_BYTES, count_messages, pongs_first};
use crate::shard::reports::Kind;
use crate::shard::state::Shard;
use crate::shard::stopwatch::STRIDE_MAX;
use crate::transport::Output;

impl Shard {
    /// Begins a connection's service: from here on its own output goes to the cork.
    #[inline]
    pub(in crate::shard) fn enter(&mut self, slot: Slot) {
        self.cork.begin(slot);
        self.stop_watch();
    }

    /// Begins a service that most likely stays on the fast path: nothing stands in the way.
    #[inline]
    pub(in crate::shard) fn enter_fast(&mut self, slot: Slot, endpoint: EndpointIndex) {
        debug_assert!(self.is_quiescent() && self.connections[slot].is_idle());
        self.cork.begin(slot);
        self.begin_fast_service(endpoint);
    }

    /// Ends a connection's service: what its handler sent leaves in one write.
    pub(in crate::shard) fn exit(&mut self, slot: Slot) {
        debug_assert!(self.cork.is_of(slot));
        self.cork.end();
        if self.cork.bytes().is_empty() {
            if !self.cork.fast.content().is_empty() {
                self.write_fast_cork(slot);
            }
            self.cork.fast.close();
        } else {
            self.cork.close_fast();
            self.write_cork(slot);
        }
        self.end_service(slot);
    }

    /// Ends a service that stayed on the fast path.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a thirtieth of a short echo")]
    pub(in crate::shard) fn exit_fast(&mut self, slot: Slot) {
        debug_assert!(self.cork.is_of(slot) && self.cork.bytes().is_empty());
        self.cork.end();
        if !self.cork.fast.content().is_empty() {
            self.write_fast_cork(slot);
        }
        self.cork.fast.close();
        self.end_fast_service();
    }

    /// What the connection's handler is handed next lies in this memory; then in none.
    pub(in crate::shard) fn lend(&mut self, memory: Option<Bytes>) {
        self.cork.lend(memory);
    }

    /// Where HTTP for the current connection is written.
    pub(in crate::shard) fn http_buffer(&mut self) -> &mut Vec<u8> {
        self.cork.buffer()
    }

    /// Begins a run: replies go to the fast cork, up to so many bytes.
    #[inline]
    pub(in crate::shard) fn open_fast_cork(&mut self, limit: usize) {
        self.cork.fast.open(limit);
    }

    /// Whether nothing stands in the way of replies.
    #[inline]
    pub(in crate::shard) fn is_fast_cork_open(&self) -> bool {
        self.cork.fast.is_open()
    }

    /// Appends a reply to the fast cork, if that is open and the reply fits.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a twentieth of a short echo")]
    pub(in crate::shard) fn append_fast(&mut self, reply: Message<'_>) -> bool {
        self.cork.fast.append(reply)
    }

    /// From here on something may stand in the way.
    #[inline]
    pub(in crate::shard) fn close_fast_cork(&mut self) {
        self.cork.close_fast();
    }

    /// Hands the fast cork to the kernel: nothing waits before it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a thirtieth of a short echo")]
    fn write_fast_cork(&mut self, slot: Slot) {
        let content = self.cork.fast.content();
        let output = self.connections[slot].write(content);
        if output != Output::Bytes(content.len()) {
            self.cork.close_fast();
            self.end_cork_write(slot, output);
        }
        self.cork.fast.clear();
    }

    /// How much the fast cork may take of what the current connection's handler sends to it: none
    /// while anything stands in the way, and no more than is left of the cork.
    pub(in crate::shard) fn fast_cork_limit(&self, slot: Slot) -> usize {
        debug_assert!(self.cork.is_of(slot));
        let is_fast = self.connections[slot].is_unobstructed() && self.is_quiescent();
        if is_fast { self.cork_limit(slot).saturating_sub(self.cork.message_bytes()) } else { 0 }
    }

    /// Ends a run: what is in the fast cork leaves, or stands behind what is in the cork.
    pub(in crate::shard) fn end_run(&mut self, slot: Slot) {
        if self.cork.fast.is_rather_full() && self.cork.bytes().is_empty() {
            self.write_fast_cork(slot);
        }
        self.cork.close_fast();
    }

    /// When the cork is written before the service ends, in bytes.
    fn cork_limit(&self, slot: Slot) -> usize {
        EndpointLimits::new(self.limits_of(slot)).cork_bytes
    }

    /// Writes the cork if it is full; whether it was.
    pub(in crate::shard) fn write_full_cork(&mut self, slot: Slot) -> bool {
        let is_full = self.cork.bytes().len() >= self.cork_limit(slot);
        if is_full {
            self.write_cork(slot);
        }
        is_full
    }

    /// What was sent so far is HTTP, what follows are frames: no control frame may go before it.
    pub(in crate::shard) fn end_http(&mut self, slot: Slot) {
        debug_assert!(self.cork.is_of(slot));
        if self.connections[slot].has_output() {
            self.spill(slot);
            let outbox = self.connections[slot].outbox_mut();
            outbox.seal(outbox.output_bytes());
        } else {
            self.cork.end_http();
        }
    }

    /// Appends shared bytes to what the current connection gets.
    pub(in crate::shard) fn append(&mut self, slot: Slot, bytes: Bytes) {
        debug_assert!(self.cork.is_of(slot));
        if bytes.len() < REFER_BYTES {
            self.cork.append_slice(&bytes);
        } else {
            self.spill(slot);
            self.enqueue(slot, bytes, None);
        }
    }

    /// Queues a control frame; before all data that waits and has not begun to leave.
    pub(in crate::shard) fn push_control(&mut self, slot: Slot, frame: &[u8]) {
        if self.cork.is_of(slot) && !self.connections[slot].has_output() {
            // Before it, what was sent in this service leaves at once.
            self.cork.append_slice(frame);
            return;
        }
        self.queue(slot, |outbox| outbox.push_control(Bytes::copy_from_slice(frame)));
    }

    /// How much of the cork is HTTP: all of it, as long as the connection has not opened.
    pub(super) fn cork_http_bytes(&self, slot: Slot) -> usize {
        if self.connections[slot].has_opened() {
            self.cork.http_bytes()
        } else {
            self.cork.bytes().len()
        }
    }

    /// Moves the cork to the outbox, so that something can be queued after it.
    pub(in crate::shard) fn spill(&mut self, slot: Slot) {
        if self.cork.bytes().is_empty() {
            return;
        }
        if self.connections[slot].is_dead() {
            self.discard_cork(slot);
            return;
        }
        let http_bytes = self.cork_http_bytes(slot);
        let Self { connections, cork, spares, .. } = self;
        let outbox = connections[slot].outbox_mut();
        let (http, frames) = cork.bytes().split_at(http_bytes);
        if !http.is_empty() {
            outbox.seal(outbox.output_bytes() + http.len());
        }
        let before = outbox.bytes();
        outbox.borrow_queue(spares);
        outbox.push_slice(http);
        outbox.push_slice(&pongs_first(frames));
        let added = outbox.bytes() - before;
        cork.clear();
        self.account_queued(slot, added);
    }

    /// Forgets what was sent to a connection in its service: it cannot be delivered. What is HTTP
    /// is not a message, and not counted.
    pub(in crate::shard) fn discard_cork(&mut self, slot: Slot) {
        if self.connections[slot].has_opened() {
            self.count_dropped(count_messages(&self.cork.bytes()[self.cork.http_bytes()..]));
        }
        self.cork.clear();
    }
}

/// Handlers that keep the shard for long are reported: the clock is read around their services.
impl Shard {
    /// A service of a connection of this endpoint begins, which may stay on the fast path.
    #[inline]
    pub(in crate::shard) fn begin_fast_service(&mut self, endpoint: EndpointIndex) {
        if self.watch.endpoint != endpoint {
            self.stop_watch();
            self.watch.endpoint = endpoint;
        }
    }

    /// It stayed there.
    #[inline]
    pub(in crate::shard) fn end_fast_service(&mut self) {
        self.watch.services_left -= 1;
        if self.watch.services_left == 0 {
            self.read_stopwatch();
        }
    }

    /// The handler of this endpoint is asked about an upgrade in this service.
    pub(in crate::shard) fn note_asked(&mut self, endpoint: EndpointIndex) {
        self.watch.ask(endpoint);
    }

    /// A service of this connection has ended that did not.
    pub(in crate::shard) fn end_service(&mut self, slot: Slot) {
        // It may have found its endpoint in this turn. A connection whose upgrade was refused has
        // none, but a handler was asked.
        let asked = self.watch.asked.take();
        self.watch.endpoint = asked.unwrap_or_else(|| self.connections[slot].asked());
        self.read_stopwatch();
    }

    /// What follows is no service on the fast path of the same endpoint.
    pub(in crate::shard) fn stop_watch(&mut self) {
        if self.watch.services_left < self.watch.stride {
            self.read_stopwatch();
        }
    }

    fn read_stopwatch(&mut self) {
        let now = clock::coarse();
        if now == self.watch.since {
            self.watch.step(STRIDE_MAX.min(2 * self.watch.stride));
            return;
        }
        self.watch.step(1);
        let held = now.since(std::mem::replace(&mut self.watch.since, now));
        let endpoint = self.watch.endpoint;
        // Without an endpoint no handler had the shard: its thread did not run.
        if held > self.limits[endpoint].slow_handler_after && endpoint != self.limits.no_endpoint()
        {
            // In the middle of a turn: nothing is allocated unless somebody listens.
            let (path, shard, millis) = (self.hub.path_of(endpoint), self.index, held.as_millis());
            let case = format_args!(
                "the handler of {path} kept shard {shard} for {millis} ms: the others had to wait"
            );
            if let Some(due) = self.reports.add(self.now, Kind::Slow(endpoint), case) {
                self.wheel.look_at(due);
            }
        }
    }
}
