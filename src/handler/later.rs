//! [`Later`]: a value that a handler does not have yet.
//!
//! Knows futures and closures; must not know who polls or runs them.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;

use futures_channel::oneshot;

/// Blocking work, to be run by a thread of the pool.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A future of a value, which stays on its shard; and the work that it waits for, if that is to be
/// done by the pool.
pub(crate) struct Later<T> {
    pub(crate) future: Pin<Box<dyn Future<Output = T>>>,
    pub(crate) job: Option<Job>,
}

/// What becomes of a job whose value nobody awaits any more when a thread takes the job up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unawaited {
    /// The job runs all the same: it may save something.
    Run,
    /// The job is dropped: it only answers a question.
    Skip,
}

impl<T: 'static> Later<T> {
    pub(crate) fn new<F>(future: F) -> Self
    where
        F: Future<Output: Into<T>> + 'static,
    {
        Self { future: Box::pin(async move { future.await.into() }), job: None }
    }

    /// What `finish` makes, on the shard, of what `work` returns in the pool.
    pub(crate) fn offload<R: Send + 'static>(
        work: impl FnOnce() -> R + Send + 'static,
        finish: impl FnOnce(R) -> T + 'static,
        unawaited: Unawaited,
    ) -> Self {
        let (sender, receiver) = oneshot::channel::<Result<R, Box<dyn Any + Send>>>();
        let job = move || {
            if unawaited == Unawaited::Run || !sender.is_canceled() {
                // Only the value is dropped if nobody awaits it.
                let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
            }
        };
        let future = async move {
            match receiver.await {
                Ok(Ok(value)) => finish(value),
                // A panic is the handler's, wherever it happened.
                Ok(Err(panic)) => resume_unwind(panic),
                Err(_) => panic!("the pool has dropped its work"),
            }
        };
        Self { future: Box::pin(future), job: Some(Box::new(job)) }
    }
}

impl<T> fmt::Debug for Later<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").field("is_offloaded", &self.job.is_some()).finish_non_exhaustive()
    }
}
