//! The threads for work that blocks, shared by all shards, bounded in number and in what waits.
//!
//! They start with the first job, so that a server which offloads nothing has none, and end when
//! the server has ended and their last job is done.
//!
//! Knows closures; must not know whom they are for.

use std::sync::OnceLock;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use super::clock;
use super::reports::{Kind, Reports};
use crate::handler::Job;
use crate::panics::contain;

pub(crate) struct Pool {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    thread_count: usize,
    /// How many threads could be started; set by the first job.
    started_count: OnceLock<usize>,
}

impl Pool {
    pub(crate) fn new(thread_count: usize, queue_count: usize) -> Self {
        let (jobs, queue) = crossbeam_channel::bounded(queue_count);
        Self { jobs, queue, thread_count, started_count: OnceLock::new() }
    }

    /// Queues a job; `Err` when the queue is full.
    pub(super) fn submit(&self, job: Job) -> Result<(), Job> {
        let started_count = *self.started_count.get_or_init(|| self.start());
        if started_count == 0 {
            return Err(job);
        }
        self.jobs.try_send(job).map_err(|refused| refused.into_inner())
    }

    fn start(&self) -> usize {
        let start = |index: usize| {
            let queue = self.queue.clone();
            let work = move || {
                let mut reports = Reports::default();
                for job in queue {
                    // What the work itself does is caught by whoever made the job.
                    if contain(job) {
                        let (kind, now) = (Kind::OffloadPanicked, clock::now());
                        let case = format_args!("what offloaded work returned panicked in drop");
                        // The next panic writes the summary that is due by then.
                        let _ = reports.add(now, kind, case);
                        reports.summarise(now);
                    }
                }
                reports.finish(clock::now());
            };
            thread::Builder::new().name(format!("peregrine-pool-{index}")).spawn(work)
        };
        let mut started_count = 0;
        for index in 0..self.thread_count {
            match start(index) {
                Ok(_detached) => started_count += 1,
                Err(error) => log::error!("a thread of the pool could not be started: {error}"),
            }
        }
        started_count
    }
}
