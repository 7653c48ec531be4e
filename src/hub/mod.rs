//! Reaching connections from anywhere: [`ConnectionId`]s, mailboxes, wake-ups, the [`Hub`].
//!
//! Knows addresses and encoded frames. Must not know what a connection is.

mod answer;
mod counters;
pub(crate) mod credit;
mod delivery;
mod doorbell;
mod envelope;
mod excess;
mod handle;
mod id;
pub(crate) mod injector;
pub(crate) mod mailbox;
mod outlet;
mod shared;
mod shutdown;
mod stream;
pub(crate) mod ticket;
mod topics;
pub(crate) mod waker;

pub use self::delivery::{BroadcastDelivery, Delivery};
pub(crate) use self::envelope::{Audience, EndpointIndex, Envelope, Publication};
pub(crate) use self::excess::Excess;
pub use self::handle::Hub;
pub(crate) use self::id::{Address, Node, SHARD_COUNT_MAX, SLOT_COUNT_MAX, Slot};
pub use self::id::{ConnectionId, ParseIdError};
pub(crate) use self::outlet::Outlet;
pub(crate) use self::shared::{Accepted, Origin, ShardLink, Shared};
pub(crate) use self::shutdown::Schedule;
pub use self::shutdown::{ShutdownPlan, ShutdownReport};
pub use self::stream::{MessageWriter, Piece};
pub use self::ticket::BroadcastReport;
pub(crate) use self::topics::{TOPIC_BYTES_MAX, topic_name};

#[cfg(test)]
mod tests;
