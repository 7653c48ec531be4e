//! [`Server`]: what is served where is gathered ([`ServerBuilder`], [`Router`], [`Endpoint`]), the
//! address is bound, one thread a shard is started, and all of it is shut down.
//!
//! Knows threads, processors and the operating system's limits. Must not know frames.

mod builder;
mod descriptors;
mod endpoint;
mod gather;
mod parts;
mod router;
mod running;
mod settings;
mod thread;

pub use self::builder::ServerBuilder;
#[cfg(feature = "testing")]
pub(crate) use self::builder::Shards;
pub use self::endpoint::Endpoint;
#[cfg(feature = "testing")]
pub(crate) use self::parts::Parts;
pub use self::router::Router;
pub use self::running::{RunningServer, Server};
pub(crate) use self::thread::OnShardThread;
pub use self::thread::{ShardEnded, ShardThread};

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
