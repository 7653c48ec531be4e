//! [`ShardThread`]: what an application does around all that runs on a shard's thread.
//!
//! Knows closures within closures. Must not know what a shard does.

use std::any::Any;
use std::fmt;
#[cfg(feature = "testing")]
use std::panic::resume_unwind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A shard's thread before its work has begun: the argument of the closure that was given to
/// [`ServerBuilder::on_shard_thread`](crate::ServerBuilder::on_shard_thread).
#[must_use = "the shard serves nobody until its thread runs"]
pub struct ShardThread<'t> {
    shard: usize,
    rest: &'t mut dyn FnMut(),
}

impl fmt::Debug for ShardThread<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardThread").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl ShardThread<'_> {
    /// The index of the shard, counted from 0.
    #[must_use]
    pub const fn shard(&self) -> usize {
        self.shard
    }

    /// Serves until the server has shut down. Handlers, futures and sessions of the shard are
    /// called and dropped in here and nowhere else. The closure returns what this returns.
    pub fn run(self) -> ShardEnded {
        (self.rest)();
        ShardEnded(())
    }
}

/// The proof that a closure has called [`ShardThread::run`].
#[derive(Debug)]
#[must_use = "the closure returns it"]
pub struct ShardEnded(());

type Around = dyn Fn(ShardThread<'_>) -> ShardEnded + Send + Sync;

/// The closures around a shard's thread, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct OnShardThread(Vec<Arc<Around>>);

impl fmt::Debug for OnShardThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnShardThread").field(&self.0.len()).finish()
    }
}

/// What became of something that was run within the closures.
pub(crate) struct Outcome<T> {
    /// What it returned; `None` if it was not run, or has panicked.
    pub(crate) value: Option<T>,
    /// What a panic carried, whether a closure's or its own.
    pub(crate) panic: Option<Box<dyn Any + Send>>,
}

impl OnShardThread {
    pub(super) fn add(
        &mut self,
        around: impl Fn(ShardThread<'_>) -> ShardEnded + Send + Sync + 'static,
    ) {
        self.0.push(Arc::new(around));
    }

    /// Runs something within all closures, on this thread.
    pub(crate) fn contain<T>(&self, shard: usize, run: impl FnOnce() -> T) -> Outcome<T> {
        let (mut run, mut value) = (Some(run), None);
        let mut rest = || {
            if let Some(run) = run.take() {
                value = Some(run());
            }
        };
        let nested = catch_unwind(AssertUnwindSafe(|| nest(&self.0, shard, &mut rest)));
        Outcome { value, panic: nested.err() }
    }

    /// Runs something within all closures, on this thread. A panic goes on to the caller.
    #[cfg(feature = "testing")]
    pub(crate) fn run<T>(&self, shard: usize, run: impl FnOnce() -> T) -> T {
        if self.0.is_empty() {
            return run();
        }
        match self.contain(shard, run) {
            Outcome { panic: Some(panic), .. } => resume_unwind(panic),
            Outcome { value: Some(value), .. } => value,
            Outcome { value: None, panic: None } => panic!("a closure has not run its shard"),
        }
    }
}

fn nest(around: &[Arc<Around>], shard: usize, rest: &mut dyn FnMut()) {
    match around.split_first() {
        None => rest(),
        Some((outermost, inner)) => {
            let rest = &mut || nest(inner, shard, rest);
            let ShardEnded(()) = outermost(ShardThread { shard, rest });
        }
    }
}
