//! The threads for work that blocks, shared by all shards, bounded in number and in what waits.
//!
//! A thread starts when a job comes and there are as many jobs as threads, so a server that
//! offloads nothing has none, and no job waits while another thread could be started. Threads stay
//! until the server has ended and their last job is done, for which [`PoolEnd`] can be waited.
//!
//! Knows closures; must not know whom they are for.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::clock;
use crate::handler::Job;
use crate::panics::contain;
use crate::shard::reports::{Kind, Reports};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct Pool {
    jobs: Sender<(Job, Alive)>,
    queue: Receiver<(Job, Alive)>,
    alive: Alive,
    thread_count: usize,
    /// The most jobs at a time: one for each thread, and those that may wait.
    job_count_max: usize,
    /// How many jobs wait or are being run. It guards nothing but itself: jobs go through the
    /// channel.
    job_count: Arc<AtomicUsize>,
    threads: Mutex<Threads>,
}

/// Held by the pool and by each job until it is done. Nothing is ever sent.
type Alive = Sender<Infallible>;

/// The end of a pool that nobody submits to any more, and of all its jobs.
#[derive(Debug)]
pub(crate) struct PoolEnd(Receiver<Infallible>);

impl PoolEnd {
    /// Blocks the calling thread until the pool has ended, at most for this time. Returns whether
    /// it has.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        matches!(self.0.recv_timeout(time), Err(RecvTimeoutError::Disconnected))
    }
}

#[derive(Default)]
struct Threads {
    started_count: usize,
    /// A thread could not be started, and that was reported.
    has_failed: bool,
}

impl Pool {
    pub(crate) fn new(thread_count: usize, queue_count: usize) -> (Self, PoolEnd) {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let (alive, end) = crossbeam_channel::bounded(0);
        let pool = Self {
            jobs,
            queue,
            alive,
            thread_count,
            job_count_max: thread_count.saturating_add(queue_count),
            job_count: Arc::new(AtomicUsize::new(0)),
            threads: Mutex::new(Threads::default()),
        };
        (pool, PoolEnd(end))
    }

    /// Queues a job; `Err` when as many wait as may, or no thread can be started.
    pub(in crate::shard) fn submit(&self, job: Job) -> Result<(), Job> {
        let one_more = |count| (count < self.job_count_max).then_some(count + 1);
        let before = self.job_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if before.is_err() {
            return Err(job);
        }
        if !self.has_thread() {
            self.job_count.fetch_sub(1, Ordering::Relaxed);
            return Err(job);
        }
        // It cannot fail: this end of the channel keeps the other one.
        let sent = self.jobs.send((job, self.alive.clone()));
        sent.map_err(|refused| refused.into_inner().0)
    }

    /// Starts a thread if there are fewer than jobs and than there may be. Returns whether there
    /// is any thread.
    fn has_thread(&self) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted under the lock: with each job that is counted comes one look here, so the last
        // look of several shards' misses no job.
        let job_count = self.job_count.load(Ordering::Relaxed);
        if threads.started_count < self.thread_count.min(job_count) {
            match self.start(threads.started_count) {
                Ok(()) => threads.started_count += 1,
                Err(error) if !threads.has_failed => {
                    threads.has_failed = true;
                    log::error!(
                        "a thread for offloaded work could not be started: {error}; it is tried \
                         again, and not reported again"
                    );
                }
                Err(_) => {}
            }
        }
        threads.started_count > 0
    }

    fn start(&self, index: usize) -> io::Result<()> {
        let (queue, job_count) = (self.queue.clone(), Arc::clone(&self.job_count));
        let work = move || {
            let mut reports = Reports::default();
            for (job, alive) in queue {
                // What the work itself does is caught by the maker of the job.
                if contain(job) {
                    let (kind, now) = (Kind::OffloadPanicked, clock::now());
                    let case = format_args!("what offloaded work returned panicked in drop");
                    // The next panic writes the summary that is due by then.
                    let _ = reports.add(now, kind, case);
                    reports.summarise(now);
                }
                job_count.fetch_sub(1, Ordering::Relaxed);
                drop(alive);
            }
            reports.finish(clock::now());
        };
        thread::Builder::new().name(format!("peregrine-pool-{index}")).spawn(work).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A pool of so many threads, and jobs for it that say that they have begun, then wait.
    struct Scene {
        pool: Pool,
        begun: mpsc::Receiver<()>,
        tell: mpsc::Sender<()>,
        open: Option<Sender<()>>,
        gate: Receiver<()>,
    }

    impl Scene {
        fn new(thread_count: usize, queue_count: usize) -> Self {
            let (tell, begun) = mpsc::channel();
            let (open, gate) = crossbeam_channel::unbounded();
            let (pool, _) = Pool::new(thread_count, queue_count);
            Self { pool, begun, tell, open: Some(open), gate }
        }

        fn submit(&self) -> bool {
            let (tell, gate) = (self.tell.clone(), self.gate.clone());
            let job = move || {
                // The test may be over.
                let _ = tell.send(());
                let _ = gate.recv();
            };
            self.pool.submit(Box::new(job)).is_ok()
        }

        fn await_begun(&self, count: usize) {
            (0..count).for_each(|_| self.begun.recv_timeout(PATIENCE).expect("it begins"));
        }

        fn started_count(&self) -> usize {
            self.pool.threads.lock().expect("no panic").started_count
        }
    }

    #[test]
    fn each_job_has_a_thread_at_once_as_long_as_there_may_be_more() {
        let scene = Scene::new(3, 2);
        assert_eq!(scene.started_count(), 0);
        for count in 1..=3 {
            assert!(scene.submit());
            scene.await_begun(1);
            assert_eq!(scene.started_count(), count);
        }
        assert!(scene.submit() && scene.submit(), "two may wait");
        assert!(!scene.submit(), "and no third");
        assert_eq!(scene.started_count(), 3);
    }

    #[test]
    fn a_thread_that_is_free_takes_the_next_job_and_none_is_started_for_it() {
        let mut scene = Scene::new(8, 0);
        scene.open = None;
        for _ in 0..100 {
            assert!(scene.submit());
            scene.await_begun(1);
            while scene.pool.job_count.load(Ordering::Relaxed) > 0 {
                thread::yield_now();
            }
        }
        assert_eq!(scene.started_count(), 1);
    }

    #[test]
    fn jobs_that_come_together_are_as_many_as_may_be_however_slowly_threads_start() {
        let scene = Scene::new(4, 6);
        assert_eq!((0..20).filter(|_| scene.submit()).count(), 10);
        scene.await_begun(4);
        assert_eq!(scene.started_count(), 4);
    }
}
