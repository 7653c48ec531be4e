//! [`Outlet`]: a destination of publications beside the shards, such as a bridge to other nodes.
//!
//! Knows publications. Must not know shards and mailboxes, nor where a publication comes from.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::Arc;

use super::envelope::Publication;
use crate::error::SendError;

/// A destination of publications beside the shards. It gets each accepted publication exactly once,
/// but none of those that it has [injected](super::injector::Injector) itself.
///
/// There are two steps, as with a mailbox: [`reserve`](Self::reserve), then either
/// [`send`](Self::send) or [`release`](Self::release). A publication goes to all destinations or to
/// none, so one that finds no room here is refused to its sender, and no connection gets it.
///
/// Any thread calls these, shards among them, and several at once: none may block, and none may
/// publish. Publications come in the order that the hub promises: if one call has returned before
/// another one begins, the first publication comes first.
///
/// It is `RefUnwindSafe` because a `Hub` is, and holds it.
pub(crate) trait Outlet: fmt::Debug + Send + Sync + RefUnwindSafe {
    /// Reserves room for one publication, whose frame has so many bytes.
    ///
    /// # Errors
    /// The error that the publication's sender gets: `Overloaded` if there is no room.
    fn reserve(&self, bytes: usize) -> Result<(), SendError>;

    /// Takes a publication for which room was reserved. It may count deliveries by the tally; the
    /// sender is notified when the last reference to the publication is gone.
    fn send(&self, publication: Arc<Publication>);

    /// Takes room back that was reserved: another destination has refused the publication.
    fn release(&self, bytes: usize);
}

/// Permit for one publication in an outlet. Dropped unused, it gives the room back.
#[derive(Debug)]
#[must_use]
pub(super) struct OutletPermit<'o> {
    outlet: &'o dyn Outlet,
    bytes: usize,
}

impl<'o> OutletPermit<'o> {
    pub(super) fn reserve(outlet: &'o dyn Outlet, bytes: usize) -> Result<Self, SendError> {
        outlet.reserve(bytes)?;
        Ok(Self { outlet, bytes })
    }

    pub(super) fn send(self, publication: Arc<Publication>) {
        let outlet = self.outlet;
        // The outlet gives the room back when it is done with the publication.
        std::mem::forget(self);
        outlet.send(publication);
    }
}

impl Drop for OutletPermit<'_> {
    fn drop(&mut self) {
        self.outlet.release(self.bytes);
    }
}
