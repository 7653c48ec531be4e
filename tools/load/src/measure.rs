//! What the main thread does: it starts the others, tells them when to begin and when to close,
//! and looks at the clock, the server and the threads at the right times.

use std::io::{self, Write};
use std::mem::take;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::Poll;

use crate::broadcast::Broadcast;
use crate::echo::Echo;
use crate::options::Mode;
use crate::process::{Perf, Usage, resident_bytes, thread_times};
use crate::role::{Hold, Role};
use crate::shared::{Shared, nanos};
use crate::tally::{Live, Tally, Window, add, histogram};
use crate::visit::Visit;
use crate::worker::{Notice, Worker};

/// How often the progress is told. The threads show theirs just before.
const SECOND: Duration = Duration::from_secs(1);
const SHOWN_AFTER: Duration = Duration::from_millis(30);
/// How often an interrupt is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A look at the server and at our threads.
#[derive(Clone, Debug)]
struct Look {
    at: u64,
    server: Option<Usage>,
    /// By thread: how long it was on a processor, and waited for one, in nanoseconds.
    threads: Vec<(u64, u64)>,
}

/// What a run has measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    pub(crate) latencies: Histogram<u64>,
    /// How long opening all connections took.
    pub(crate) opening: Duration,
    /// From the beginning of the window to the last message in it, or to its end.
    pub(crate) window: Duration,
    /// How much of that lies between the looks; what each thread and the server did meanwhile.
    pub(crate) looked: Duration,
    pub(crate) threads: Vec<(u64, u64)>,
    pub(crate) server: Option<Usage>,
    /// In user mode, and in the kernel.
    pub(crate) instructions: Option<(u64, u64)>,
    pub(crate) memory: Memory,
    pub(crate) is_interrupted: bool,
}

/// The server's memory: before the connections, with them, at the end of the load; in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) before: Option<u64>,
    pub(crate) open: Option<u64>,
    pub(crate) end: Option<u64>,
}

struct Watch<'a> {
    shared: &'a Shared,
    notices: Receiver<Notice>,
    thread_ids: &'a [AtomicI32],
    /// When the progress is told next.
    next: u64,
    opened_count: u64,
    notice_count: usize,
    /// All within the window.
    latencies: Histogram<u64>,
}

pub(crate) fn run(shared: &Shared, polls: Vec<Poll>) -> io::Result<Measured> {
    let memory_before = shared.options.pid.and_then(resident_bytes);
    if let (Some(pid), None) = (shared.options.pid, memory_before) {
        return Err(io::Error::other(format!("--pid {pid}: there is no such process to look at")));
    }
    let thread_ids: Vec<_> = polls.iter().map(|_| AtomicI32::new(0)).collect();
    let (sender, notices) = mpsc::channel();
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (thread, poll) in polls.into_iter().enumerate() {
            let worker = Worker::new(shared, thread, poll, role(shared, thread), sender.clone())?;
            let id = &thread_ids[thread];
            workers.push(scope.spawn(|| {
                id.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
                worker.run()
            }));
        }
        drop(sender);
        let mut watch = Watch {
            shared,
            notices,
            thread_ids: &thread_ids,
            next: nanos(SECOND + SHOWN_AFTER),
            opened_count: 0,
            notice_count: 0,
            latencies: histogram(),
        };
        let mut measured = watch.measure(memory_before);
        shared.close();
        for worker in workers {
            let tally = worker.join().map_err(|_| io::Error::other("a thread has panicked"))??;
            measured.tally.merge(tally);
        }
        measured.finish_window(shared);
        Ok(measured)
    })
}

fn role(shared: &Shared, thread: usize) -> Box<dyn Role> {
    let options = &shared.options;
    match options.mode {
        Mode::Echo => Box::new(Echo::new(shared, thread)),
        Mode::Broadcast => Box::new(Broadcast::new(shared, thread)),
        Mode::Idle | Mode::Stall => Box::new(Hold::default()),
        Mode::Visit => {
            let own = (thread..options.connection_count).step_by(options.thread_count);
            Box::new(Visit::new(shared, thread, own.len()))
        }
    }
}

impl Watch<'_> {
    fn measure(&mut self, memory_before: Option<u64>) -> Measured {
        let shared = self.shared;
        let pid = shared.options.pid;
        self.wait(u64::MAX);
        let opening = Duration::from_nanos(shared.clock.now());
        let memory_open = pid.and_then(resident_bytes);
        shared.floor.set_member_count(self.opened_count);
        let has_begun =
            !shared.is_stopped() && (self.opened_count > 0 || shared.options.mode == Mode::Visit);
        let (before, after, instructions) =
            if has_begun { self.measure_load() } else { (self.look(), self.look(), None) };
        let difference = |(after, before): (&(u64, u64), &(u64, u64))| {
            (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1))
        };
        Measured {
            tally: Tally::default(),
            latencies: std::mem::replace(&mut self.latencies, histogram()),
            opening,
            window: Duration::ZERO,
            looked: Duration::from_nanos(after.at - before.at),
            threads: after.threads.iter().zip(&before.threads).map(difference).collect(),
            server: after.server.zip(before.server).map(|(after, before)| after.since(before)),
            instructions,
            memory: Memory {
                before: memory_before,
                open: memory_open,
                end: pid.and_then(resident_bytes),
            },
            is_interrupted: shared.is_stopped(),
        }
    }

    /// A look at the beginning of the window, and one at its end.
    fn measure_load(&mut self) -> (Look, Look, Option<(u64, u64)>) {
        let shared = self.shared;
        self.notice_count = 0;
        // Without a warm-up the window begins with the load.
        let mut perf = None;
        let mut before = None;
        if shared.options.warm_up.is_zero() {
            perf = self.count_instructions();
            before = Some(self.look());
        }
        let begin = shared.clock.now();
        self.next = begin + nanos(SECOND + SHOWN_AFTER);
        shared.begin(begin);
        let window = shared.window().unwrap_or(Window { start: begin, end: begin });
        let before = before.unwrap_or_else(|| {
            self.wait(window.start);
            perf = self.count_instructions();
            self.look()
        });
        self.wait(window.end);
        let after = self.look();
        let instructions = perf.and_then(Perf::end);
        self.wait(u64::MAX);
        self.collect();
        (before, after, instructions)
    }

    fn count_instructions(&self) -> Option<Perf> {
        self.shared.options.pid.and_then(Perf::start)
    }

    /// Waits until a time, or until all threads have reported. Tells the progress meanwhile.
    fn wait(&mut self, until: u64) {
        let thread_count = self.thread_ids.len();
        let mut was_stopped = self.shared.is_stopped();
        while self.notice_count < thread_count {
            let now = self.shared.clock.now();
            if now >= until {
                return;
            }
            if self.shared.is_stopped() && !was_stopped {
                was_stopped = true;
                self.shared.wake_all();
                if self.shared.window().is_none() {
                    return;
                }
            }
            if now >= self.next {
                self.next += nanos(SECOND);
                self.tell();
            }
            let pause = Duration::from_nanos(until.min(self.next).saturating_sub(now)).min(LOOK);
            match self.notices.recv_timeout(pause) {
                Ok(notice) => {
                    self.notice_count += 1;
                    if let Notice::Opened(count) = notice {
                        self.opened_count += count;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&self) -> Look {
        let times = |id: &AtomicI32| thread_times(id.load(Ordering::Relaxed)).unwrap_or_default();
        Look {
            at: self.shared.clock.now(),
            server: self.shared.options.pid.and_then(Usage::of),
            threads: self.thread_ids.iter().map(times).collect(),
        }
    }

    /// Adds up what the threads have handed over. Returns it, without what came before.
    fn collect(&mut self) -> Histogram<u64> {
        let mut live = self.shared.live();
        let (measured, early) = (take(&mut live.measured), take(&mut live.early));
        drop(live);
        let mut recent = histogram();
        for latencies in &measured {
            add(&mut self.latencies, latencies);
        }
        for mut latencies in measured.into_iter().chain(early) {
            add(&mut recent, &latencies);
            latencies.reset();
            self.shared.live().empty.push(latencies);
        }
        recent
    }

    fn tell(&mut self) {
        let latencies = self.collect();
        let Live { error_count, opened_count, .. } = *self.shared.live();
        if self.shared.options.is_quiet {
            return;
        }
        let line = match self.shared.began() {
            None => format!("opening: {opened_count} connections, {error_count} errors"),
            Some(began) => {
                let seconds = self.shared.clock.now().saturating_sub(began) / nanos(SECOND);
                let (rate, p99) = (latencies.len(), latencies.value_at_quantile(0.99) / 1000);
                format!("{seconds:5} s {rate:9}/s   p99 {p99:8} µs   {error_count} errors")
            }
        };
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

impl Measured {
    /// How long was measured follows from when the last message came.
    fn finish_window(&mut self, shared: &Shared) {
        let Some(window) = shared.window() else {
            self.window = Duration::ZERO;
            return;
        };
        let is_cut = window.end == u64::MAX || self.is_interrupted;
        self.window = match self.tally.last_received {
            _ if !is_cut => Duration::from_nanos(window.end - window.start),
            0 => self.looked,
            last => Duration::from_nanos(last - window.start),
        };
    }
}
