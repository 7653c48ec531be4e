//! [`LimitTable`]: which limits count for a connection.
//! [`EndpointLimits`]: what each service asks of them.

use std::ops::Index;
use std::sync::Arc;

use crate::config::Limits;
use crate::hub::EndpointIndex;
use crate::protocol::Lane;
use crate::shard::outbox::cork::CORK_BYTES;

/// The limits of every endpoint, then those of the server, which count for connections that belong
/// to no endpoint yet. What counts for the server alone is the same in all.
#[derive(Clone, Debug)]
pub(crate) struct LimitTable(Arc<[Limits]>);

/// What follows from an endpoint's limits, for each service of each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointLimits {
    pub(in crate::shard) lane: Lane,
    /// When the cork is written before the service ends, in bytes: nobody is refused for output
    /// that was not offered to the kernel.
    pub(in crate::shard) cork_bytes: usize,
}

impl EndpointLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        let cork_bytes = CORK_BYTES.min(limits.outbox_high_water_bytes).max(1);
        Self { lane: Lane::new(limits), cork_bytes }
    }
}

impl LimitTable {
    /// From those of the endpoints, in order, and of the server.
    pub(crate) fn new(endpoints: Vec<Limits>, server: Limits) -> Self {
        let mut all = endpoints;
        all.push(server);
        all.iter_mut().for_each(Limits::tame);
        Self(all.into())
    }

    pub(crate) fn endpoint_count(&self) -> usize {
        self.0.len() - 1
    }

    /// The index of connections that belong to no endpoint yet.
    pub(crate) fn no_endpoint(&self) -> EndpointIndex {
        EndpointIndex::try_from(self.endpoint_count()).unwrap_or(EndpointIndex::MAX)
    }

    pub(crate) fn server(&self) -> &Limits {
        &self.0[self.endpoint_count()]
    }
}

impl Index<EndpointIndex> for LimitTable {
    type Output = Limits;

    #[inline]
    fn index(&self, endpoint: EndpointIndex) -> &Limits {
        &self.0[usize::from(endpoint)]
    }
}
