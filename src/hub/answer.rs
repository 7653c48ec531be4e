//! [`Answer`]: the sending side of a future that tells what became of a message.
//!
//! Knows that the application's wakers may panic. Must not know what is told.

use crate::panics::contain;
use crate::sync::oneshot;

/// Tells the future. That wakes its waiter, which is the application's code: what panics
/// there has to harm no shard.
#[derive(Debug)]
pub(crate) struct Answer<T>(Option<oneshot::Sender<T>>);

impl<T> Default for Answer<T> {
    /// To nobody.
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Answer<T> {
    pub(super) fn by(sender: oneshot::Sender<T>) -> Self {
        Self(Some(sender))
    }

    pub(super) fn tell(&mut self, value: T) {
        if let Some(sender) = self.0.take() {
            // Nobody may be waiting any more. A waker's panic is its executor's to report.
            contain(|| drop(sender.send(value)));
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            contain(|| drop(sender));
        }
    }
}
