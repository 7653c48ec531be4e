//! [`LimitTable`]: which limits count for a connection.

use std::ops::Index;
use std::sync::Arc;

use crate::config::Limits;
use crate::hub::EndpointIndex;

/// The limits of every endpoint, then those of the server, which count for connections that belong
/// to no endpoint yet. What counts for the server alone is the same in all.
#[derive(Clone, Debug)]
pub(crate) struct LimitTable(Arc<[Limits]>);

impl LimitTable {
    /// From those of the endpoints, in order, and of the server.
    pub(crate) fn new(mut endpoints: Vec<Limits>, server: Limits) -> Self {
        endpoints.push(server);
        endpoints.iter_mut().for_each(Limits::tame);
        Self(endpoints.into())
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
