//! [`Injector`]: with it an outlet publishes on its own server.
//!
//! Knows which outlet it belongs to. Must not know what the outlet is, nor how a publication
//! reaches its destinations.

use std::sync::Arc;

use super::envelope::Publication;
use super::shared::{Origin, Shared};
use crate::error::SendError;

/// Publishes for one outlet: to all shards and all other outlets, never to that outlet itself. So
/// an outlet cannot hear its own echo.
///
/// The thread that drives the outlet holds it. The outlet itself must not: the server holds the
/// outlet, and the injector holds what all threads of the server share.
#[derive(Debug)]
pub(crate) struct Injector {
    shared: Arc<Shared>,
    outlet: usize,
}

impl Injector {
    pub(super) fn new(shared: Arc<Shared>, outlet: usize) -> Self {
        Self { shared, outlet }
    }

    /// # Errors
    /// As of [`Hub::publish`](super::Hub::publish); then no connection and no outlet gets it.
    #[cfg_attr(not(test), expect(dead_code, reason = "as `Hub::injectors`"))]
    pub(crate) fn publish(&self, publication: Publication) -> Result<(), SendError> {
        let origin = Origin::Outlet(self.outlet);
        self.shared.accept_publication(publication, origin).map(drop)
    }
}
