//! Connections that come and go: connect, upgrade, close.

use std::collections::VecDeque;

use crate::echo::share;
use crate::link::Stage;
use crate::role::{Context, Role};
use crate::schedule::Schedule;
use crate::shared::Shared;

#[derive(Debug)]
pub(crate) struct Visit {
    /// Visits that may still begin in the window.
    left: Option<u64>,
    schedule: Option<Schedule>,
    /// Connections that are not there; and visits that are due, for which there is none.
    free: Vec<usize>,
    waiting: VecDeque<u64>,
    /// By connection: when its visit was due, until it is over.
    since: Vec<Option<u64>>,
    under_way: u64,
    is_over: bool,
}

impl Visit {
    pub(crate) fn new(shared: &Shared, thread: usize, link_count: usize) -> Self {
        let options = &shared.options;
        let thread_count = options.thread_count;
        let schedule = |rate| Schedule::new(rate, thread_count, thread..thread + 1);
        Self {
            left: options.message_count.map(|count| share(count, thread, thread_count)),
            schedule: options.rate_per_second.map(schedule),
            free: (0..link_count).rev().collect(),
            waiting: VecDeque::new(),
            since: vec![None; link_count],
            under_way: 0,
            is_over: false,
        }
    }

    /// Begins the visits that are due, as far as there are connections for them.
    fn begin_visits(&mut self, cx: &mut Context<'_>) {
        if self.schedule.is_none() {
            let count = cx.grant(self.free.len() as u64, &mut self.left);
            self.waiting.extend((0..count).map(|_| cx.now));
        }
        while let Some(index) = self.free.pop_if(|_| !self.waiting.is_empty()) {
            self.since[index] = self.waiting.pop_front();
            self.under_way += 1;
            cx.tally.sent_count += 1;
            cx.to_open.push_back(index);
        }
    }
}

impl Role for Visit {
    fn begin(&mut self, cx: &mut Context<'_>, _lost_count: usize) {
        if let Some(schedule) = &mut self.schedule {
            cx.begin(schedule);
        }
    }

    fn end(&mut self, _cx: &mut Context<'_>, _index: usize) -> u64 {
        0
    }

    fn changed(&mut self, cx: &mut Context<'_>, index: usize) {
        match cx.links[index].stage {
            Stage::Open => {
                cx.links[index].close(Some(1000), cx.now);
                cx.dirty.push(index);
            }
            // The server has answered the Close.
            Stage::Ending => {
                if let Some(since) = self.since[index].take() {
                    cx.tally.received(since, cx.now, 1);
                    self.under_way -= 1;
                }
            }
            Stage::Absent => {
                // It has failed if it is not over; that has been counted.
                self.under_way -= u64::from(self.since[index].take().is_some());
                self.free.push(index);
            }
            _ => {}
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        let window_end = cx.tally.window.end;
        let mut next = (self.left != Some(0)).then_some(window_end);
        if let Some(schedule) = &mut self.schedule {
            let until = cx.now.min(window_end - 1);
            while let Some((_, due)) = schedule.take(until) {
                cx.tally.lateness.saturating_record((cx.now - due).max(1));
                self.waiting.push_back(due);
            }
            next = schedule.next_due().map(|due| due.min(window_end));
        }
        if cx.shared.is_stopped() {
            self.waiting.clear();
        }
        self.begin_visits(cx);
        self.is_over = cx.is_over() || next.is_none();
        next
    }

    fn under_way(&self, _cx: &Context<'_>) -> u64 {
        self.under_way + self.waiting.len() as u64
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn give_up(&mut self, _cx: &mut Context<'_>) -> u64 {
        self.under_way + self.waiting.len() as u64
    }
}
