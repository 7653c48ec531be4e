//! Panics of code that is not ours end where they happen.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may panic. If it does, that is reported, and what the panic carries is dropped; what
/// panics then in its turn is leaked, for it might go on so for ever.
pub(crate) fn contain(what: &str, run: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return };
    log::error!("{what} panicked");
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(worse);
    }
}

/// Drops a value whose destructor may panic.
pub(crate) fn discard<T>(value: T) {
    contain("a destructor", || drop(value));
}
