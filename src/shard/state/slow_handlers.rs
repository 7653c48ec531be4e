//! Handlers that keep the shard for long are reported: the clock is read around their
//! services.
//!
//! Knows services, connections and their endpoints. Must not know what is done in a service.

use crate::clock;
use crate::hub::{EndpointIndex, Slot};
use crate::shard::reports::Kind;
use crate::shard::state::Shard;
use crate::shard::stopwatch::STRIDE_MAX;

impl Shard {
    /// A service of a connection of this endpoint begins, most likely on the fast path.
    #[inline]
    pub(in crate::shard) fn begin_fast_service(&mut self, endpoint: EndpointIndex) {
        if self.watch.endpoint != endpoint {
            self.stop_watch();
            self.watch.endpoint = endpoint;
        }
    }

    /// It stayed on the fast path.
    #[inline]
    pub(in crate::shard) fn end_fast_service(&mut self) {
        self.watch.turns_left -= 1;
        if self.watch.turns_left == 0 {
            self.read_stopwatch();
        }
    }

    /// The handler of this endpoint is asked about an upgrade in this service.
    pub(in crate::shard) fn note_asked(&mut self, endpoint: EndpointIndex) {
        self.watch.ask(endpoint);
    }

    /// A service of this connection has ended that left the fast path.
    pub(in crate::shard) fn end_service(&mut self, slot: Slot) {
        // It may have found its endpoint in this service. A connection whose upgrade was refused
        // has none, but a handler was asked.
        let asked = self.watch.asked.take();
        self.watch.endpoint = asked.unwrap_or_else(|| self.connections[slot].asked());
        self.read_stopwatch();
    }

    /// What follows is no service on the fast path of the same endpoint.
    pub(in crate::shard) fn stop_watch(&mut self) {
        if self.watch.turns_left < self.watch.stride {
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
        if held > self.limits[endpoint].slow_handler && endpoint != self.limits.no_endpoint() {
            // In the middle of a service: nothing is allocated unless somebody listens.
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
