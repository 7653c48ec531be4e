//! The phases of a turn, and what belongs to them: all of them are methods of
//! [`EventLoop`](super::EventLoop), which calls them in their order.
//!
//! Knows when something is done. Must not know how it is done: that is `state`'s and `dispatch`'s.

pub(in crate::shard) mod accept;
mod close;
mod placement;
mod receive;
pub(in crate::shard) mod shutdown;
mod upgrade;
