//! [`Stopwatch`]: which endpoint's handlers have had the shard, and since when.
//!
//! Knows the coarse clock and endpoints. Must not know what is done in that time.

use crate::clock::{self, Moment};
use crate::hub::EndpointIndex;

/// After how many services of one endpoint on the fast path, one after another, the clock is looked
/// at, at most: each look costs as much as a tenth of a short echo.
pub(in crate::shard) const STRIDE_MAX: u8 = 8;

#[derive(Debug)]
pub(in crate::shard) struct Stopwatch {
    /// When the clock was last looked at.
    pub(in crate::shard) since: Moment,
    /// Whose services they were since.
    pub(in crate::shard) endpoint: EndpointIndex,
    /// The endpoint that was asked for an upgrade in this service.
    pub(in crate::shard) asked: Option<EndpointIndex>,
    /// After how many services it is looked at. It grows as long as they take no time that shows,
    /// so that slow ones are told apart.
    pub(in crate::shard) stride: u8,
    pub(in crate::shard) services_left: u8,
}

impl Stopwatch {
    pub(in crate::shard) fn new(endpoint: EndpointIndex) -> Self {
        Self { since: clock::coarse(), endpoint, asked: None, stride: 1, services_left: 1 }
    }

    /// The handler of this endpoint is asked about an upgrade in this service.
    pub(in crate::shard) fn ask(&mut self, endpoint: EndpointIndex) {
        self.asked = Some(endpoint);
    }

    /// What went before was no handler's time.
    pub(in crate::shard) fn restart(&mut self) {
        *self = Self::new(self.endpoint);
    }

    /// The next look is after so many services.
    pub(in crate::shard) fn step(&mut self, stride: u8) {
        (self.stride, self.services_left) = (stride, stride);
    }
}
