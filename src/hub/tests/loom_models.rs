//! Models: a few threads and one promise each, run in every order that loom finds worth trying, up
//! to a number of preemptions. What loom does itself is a part of each promise: nobody waits for
//! ever, nothing that it counts is leaked.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p peregrine-tests --release --lib \
//!     --target-dir target/loom loom
//! ```
//!
//! `LOOM_MAX_PREEMPTIONS` (3) raises how much is tried; `LOOM_LOG=trace LOOM_LOCATION=1` tells what
//! a failing order does.

mod mailbox;
mod order;
mod shutdown;
mod stream;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hub::mailbox::{Inbox, Mailbox, mailbox};
use crate::sync::Waker;

/// Runs a model in every order, and tells how many there were.
fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    let order_count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&order_count);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    eprintln!("{name}: {} orders", order_count.load(Ordering::Relaxed));
}

/// A shard's side: its inbox, and where it sleeps.
struct Shard<T> {
    inbox: Inbox<T>,
    waker: Waker,
}

/// A shard and the mailbox to it. What each envelope weighs is told by `size`.
fn shard<T>(limit_count: usize, limit_bytes: usize) -> (Arc<Mailbox<T>>, Shard<T>) {
    let waker = Waker::alone();
    let (mailbox, inbox) = mailbox(waker.clone(), limit_count, limit_bytes);
    (mailbox, Shard { inbox, waker })
}

impl<T> Shard<T> {
    /// A turn as the event loop's: sleeps, clears `armed`, *then* takes what is there.
    fn turn(&mut self, size: impl Fn(&T) -> usize) -> Vec<T> {
        self.waker.sleep();
        self.take_mail(size)
    }

    fn take_mail(&mut self, size: impl Fn(&T) -> usize) -> Vec<T> {
        if !self.inbox.disarm() {
            return Vec::new();
        }
        std::iter::from_fn(|| self.inbox.take(&size)).collect()
    }
}
