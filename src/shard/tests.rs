//! The small parts of a shard against plain models of them.

#[cfg(feature = "testing")]
mod outbox;
#[cfg(feature = "testing")]
#[cfg(any())]
mod publish;
mod timers;
