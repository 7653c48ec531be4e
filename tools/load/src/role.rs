//! What a thread does with its connections, by mode.

use std::collections::VecDeque;

use crate::link::Link;
use crate::schedule::Schedule;
use crate::shared::{Shared, nanos};
use crate::tally::{Fault, Tally};

/// What a role has at hand.
pub(crate) struct Context<'a> {
    pub(crate) shared: &'a Shared,
    /// Which of the threads this is.
    pub(crate) thread: usize,
    pub(crate) now: u64,
    /// The thread's own: connections `thread`, `thread + thread_count`, .. of all.
    pub(crate) links: &'a mut [Link],
    pub(crate) tally: &'a mut Tally,
    /// Connections that have something to write.
    pub(crate) dirty: &'a mut Vec<usize>,
    /// Connections to be opened, in this order.
    pub(crate) to_open: &'a mut VecDeque<usize>,
}

impl Context<'_> {
    /// A connection is gone to which so many messages should have come.
    pub(crate) fn miss(&mut self, index: usize, count: u64) {
        if count > 0 {
            let name = self.name(index);
            self.tally
                .errors
                .add(Fault::Missing, count, || format!("{name}: {count} messages never came"));
        }
    }

    /// How a connection is called in what is told.
    pub(crate) fn name(&self, index: usize) -> String {
        let thread_count = self.shared.options.thread_count;
        format!("connection {}", self.thread + index * thread_count)
    }

    /// Whether nothing more is to be sent.
    pub(crate) fn is_over(&self) -> bool {
        self.now >= self.tally.window.end || self.shared.is_stopped()
    }

    /// Begins a schedule with the load.
    pub(crate) fn begin(&self, schedule: &mut Schedule) {
        let options = &self.shared.options;
        let warm_up_nanos = nanos(options.warm_up);
        let start = self.tally.window.start - warm_up_nanos;
        schedule.begin(start, warm_up_nanos, options.message_count);
    }

    /// Of `count` messages, how many may be sent with this many left to be sent in the window; the
    /// warm-up is not limited.
    pub(crate) fn grant(&self, count: u64, left: &mut Option<u64>) -> u64 {
        if self.is_over() {
            return 0;
        }
        match left {
            Some(left) if self.now >= self.tally.window.start => {
                let granted = count.min(*left);
                *left -= granted;
                granted
            }
            _ => count,
        }
    }
}

/// `begin` is called first, once the window is known; then the others, in any order.
pub(crate) trait Role: Send {
    /// The load begins. So many connections have been lost since all had been opened.
    fn begin(&mut self, _cx: &mut Context<'_>, _lost_count: usize) {}

    /// The messages before this number can come to a connection.
    fn end(&mut self, cx: &mut Context<'_>, index: usize) -> u64;

    /// So many messages have come to a connection, as they must be.
    fn received(&mut self, _cx: &mut Context<'_>, _index: usize, _count: u64) {}

    /// A connection has reached the stage that it is in.
    fn changed(&mut self, _cx: &mut Context<'_>, _index: usize) {}

    /// The end of each turn. Returns when it has to be called again.
    fn turn(&mut self, cx: &mut Context<'_>) -> Option<u64>;

    /// How many messages are under way.
    fn under_way(&self, cx: &Context<'_>) -> u64;

    /// Whether nothing more will be sent.
    fn is_over(&self) -> bool;

    /// What is under way will not come any more: returns how much of that is this thread's.
    fn give_up(&mut self, cx: &mut Context<'_>) -> u64;
}

/// Connections that hold.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    is_over: bool,
}

impl Role for Hold {
    fn end(&mut self, _cx: &mut Context<'_>, _index: usize) -> u64 {
        0
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        self.is_over = cx.is_over();
        Some(cx.tally.window.end)
    }

    fn under_way(&self, _cx: &Context<'_>) -> u64 {
        0
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn give_up(&mut self, _cx: &mut Context<'_>) -> u64 {
        0
    }
}
