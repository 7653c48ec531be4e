//! [`Watch`]: whose handlers have had the shard, and since when; those that keep it for long are
//! reported.
//!
//! Knows turns and endpoints. Must not know what is done in a turn.

use crate::clock::{self, Moment};
use crate::hub::EndpointIndex;
use crate::shard::reports::Kind;
use crate::shard::state::{Shard, Slot};

/// After how many plain turns of one endpoint, one after another, the clock is looked at, at most:
/// each look costs as much as a tenth of a short echo.
const STRIDE_MAX: u8 = 8;

#[derive(Debug)]
pub(in crate::shard) struct Watch {
    /// When the clock was last looked at.
    since: Moment,
    /// Whose turns they were since.
    endpoint: EndpointIndex,
    /// The endpoint that was asked for an upgrade in this turn.
    asked: Option<EndpointIndex>,
    /// After how many turns it is looked at. It grows as long as they take no time that shows, so
    /// that slow ones are told apart.
    stride: u8,
    turns_left: u8,
}

impl Watch {
    pub(in crate::shard) fn new(endpoint: EndpointIndex) -> Self {
        Self { since: clock::coarse(), endpoint, asked: None, stride: 1, turns_left: 1 }
    }

    /// The handler of this endpoint is asked about an upgrade in this turn.
    pub(in crate::shard) fn ask(&mut self, endpoint: EndpointIndex) {
        self.asked = Some(endpoint);
    }

    /// What went before was no handler's time.
    pub(in crate::shard) fn restart(&mut self) {
        *self = Self::new(self.endpoint);
    }

    /// The next look is after so many turns.
    fn step(&mut self, stride: u8) {
        (self.stride, self.turns_left) = (stride, stride);
    }
}

impl Shard {
    /// A turn of a connection of this endpoint begins, which may be plain.
    #[inline]
    pub(in crate::shard) fn begin_plain_turn(&mut self, endpoint: EndpointIndex) {
        if self.watch.endpoint != endpoint {
            self.end_watch();
            self.watch.endpoint = endpoint;
        }
    }

    /// It was plain.
    #[inline]
    pub(in crate::shard) fn end_plain_turn(&mut self) {
        self.watch.turns_left -= 1;
        if self.watch.turns_left == 0 {
            self.look_at_watch();
        }
    }

    /// A turn of this connection has ended that was not.
    pub(in crate::shard) fn end_careful_turn(&mut self, slot: Slot) {
        // It may have found its endpoint in this turn. A connection whose upgrade was refused has
        // none, but a handler was asked.
        let asked = self.watch.asked.take();
        self.watch.endpoint = asked.unwrap_or_else(|| self.connections[slot].asked());
        self.look_at_watch();
    }

    /// What follows is no plain turn of the same endpoint.
    pub(in crate::shard) fn end_watch(&mut self) {
        if self.watch.turns_left < self.watch.stride {
            self.look_at_watch();
        }
    }

    fn look_at_watch(&mut self) {
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
