//! Where everything that threads share comes from: atomics, locks, channels, wakers. One module, so
//! that all of it can be exchanged at once.
//!
//! Normally it is the standard library's, crossbeam's, futures' and mio's. Under `--cfg loom` it is
//! [loom](https://docs.rs/loom)'s, which runs a model of a few threads in every order, and with
//! every stale value that the orderings allow. Four things loom does not know; small queues and
//! flags behind its locks stand in for them, in `model.rs`: crossbeam's channels, the oneshot of
//! futures, `OnceLock`, and mio's waker. So the models are about what this crate builds around
//! them, not about these four.
//!
//! `Arc` is exchanged, for a [`TrackedArc`], only where something depends on the order in which
//! references go: in [`Tally`](crate::hub::delivery::Tally).
//!
//! Loom shows stale reads, lost wake-ups and lost updates; it cannot show that a store is seen
//! before one that precedes it in its own thread's relaxed order (no load buffering), so that each
//! ordering has its reason written beside it as well.

#[cfg(loom)]
mod model;

#[cfg(not(loom))]
mod real {
    pub(crate) use std::sync::{Arc as TrackedArc, Mutex, OnceLock, atomic};
    pub(crate) use std::thread;

    pub(crate) use crossbeam_channel as channel;
    pub(crate) use futures_channel::oneshot;
    pub(crate) use mio::Waker;
}

#[cfg(loom)]
pub(crate) use self::model::*;
#[cfg(not(loom))]
pub(crate) use self::real::*;
