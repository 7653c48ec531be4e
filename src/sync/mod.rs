//! Where what threads share comes from: atomics, locks, channels, wakers. One module, so that all
//! of it can be exchanged at once. Only the queue of the pool and the table of clients' addresses
//! do without: neither orders anything beside itself.
//!
//! Normally it is the standard library's, crossbeam's, futures' and mio's. In tests with
//! `--cfg loom` it is [loom](https://docs.rs/loom)'s, which runs a model of a few threads in every
//! order, and with every stale value that the orderings allow. Three things loom does not know;
//! in `model.rs`, small queues and flags behind its locks stand in for them: crossbeam's channels,
//! the oneshot of futures, and mio's waker. So the models are about what this crate builds around
//! them, not about these three.
//!
//! `Arc` is exchanged, for a [`TrackedArc`], only where something depends on the order in which
//! references go: in [`Tally`](crate::hub::ticket::Tally).
//!
//! Loom shows stale reads, lost updates and lost wake-ups. It runs read-modify-writes in the order
//! of their threads' steps, which hardware need not: an ordering that matters only there
//! (`Progress::add_quiet`) rests on the reason that stands beside it.
//!
//! Knows the libraries behind its names. Must not know who shares what.

#[cfg(all(test, loom))]
mod model;

#[cfg(not(all(test, loom)))]
mod real {
    pub(crate) use std::sync::{Arc as TrackedArc, Mutex, atomic};
    pub(crate) use std::thread;

    pub(crate) use crossbeam_channel as channel;
    pub(crate) use futures_channel::oneshot;
    pub(crate) use mio::Waker;
}

#[cfg(all(test, loom))]
pub(crate) use self::model::*;
#[cfg(not(all(test, loom)))]
pub(crate) use self::real::*;
