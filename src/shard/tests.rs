//! The small parts of a shard against plain models of them.

#[cfg(feature = "testing")]
mod behind;
#[cfg(feature = "testing")]
mod outbox;
#[cfg(feature = "testing")]
mod parcel;
#[cfg(feature = "testing")]
mod publish;
mod timers;
#[cfg(feature = "testing")]
mod waking;
