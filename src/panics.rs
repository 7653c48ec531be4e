//! Panics of code that is not ours end where they happen.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may panic. Returns whether it did, which the caller reports. What the panic carries is
/// dropped; what panics then in its turn is leaked, for it might go on so for ever.
pub(crate) fn contain(run: impl FnOnce()) -> bool {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return false };
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(worse);
    }
    true
}

/// Drops a value whose destructor may panic. Returns whether it did, which the caller reports.
pub(crate) fn discard<T>(value: T) -> bool {
    contain(|| drop(value))
}
