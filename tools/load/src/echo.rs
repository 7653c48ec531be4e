//! What is sent must come back.

use std::collections::VecDeque;

use crate::link::Stage;
use crate::role::{Context, Role};
use crate::schedule::Schedule;
use crate::shared::Shared;

/// Messages of one connection that were sent at one time.
#[derive(Clone, Copy, Debug)]
struct Batch {
    sent: u64,
    count: u64,
}

#[derive(Debug)]
pub(crate) struct Echo {
    in_flight_count: u64,
    /// Messages that may still be sent in the window.
    left: Option<u64>,
    pace: Pace,
    /// By connection: the number of its first message.
    first_numbers: Vec<u64>,
    under_way: u64,
    is_over: bool,
}

#[derive(Debug)]
enum Pace {
    /// An answer asks for the next message. By connection: what is under way.
    Closed(Vec<VecDeque<Batch>>),
    /// By connection: the number of the first message that is not due.
    Open(Schedule, Vec<u64>),
}

impl Echo {
    /// For the connections of a thread, by their numbers among all.
    pub(crate) fn new(shared: &Shared, thread: usize) -> Self {
        let options = &shared.options;
        let thread_count = options.thread_count;
        let own = (thread..options.connection_count).step_by(thread_count);
        let first_numbers: Vec<u64> = own.clone().map(|number| number as u64).collect();
        let pace = match options.rate_per_second {
            None => Pace::Closed(vec![VecDeque::new(); first_numbers.len()]),
            Some(rate) => {
                let schedule = Schedule::new(rate, options.connection_count, own);
                Pace::Open(schedule, first_numbers.clone())
            }
        };
        Self {
            in_flight_count: options.in_flight_count.map_or(u64::MAX, |count| count as u64),
            left: options.message_count.map(|count| share(count, thread, thread_count)),
            pace,
            first_numbers,
            under_way: 0,
            is_over: false,
        }
    }

    /// Sends what a closed loop asks for, or of an open one what is due, as far as may be.
    fn send(&mut self, cx: &mut Context<'_>, index: usize, asked_count: u64) {
        let link = &mut cx.links[index];
        if link.stage != Stage::Open {
            return;
        }
        let count = match &mut self.pace {
            Pace::Closed(batches) => {
                let count = cx.grant(asked_count, &mut self.left);
                let batches = &mut batches[index];
                match batches.back_mut() {
                    Some(batch) if batch.sent == cx.now => batch.count += count,
                    _ if count == 0 => {}
                    _ => batches.push_back(Batch { sent: cx.now, count }),
                }
                count
            }
            Pace::Open(_, due) => {
                let room = self.in_flight_count - (link.queued - link.incoming.number);
                room.min(due[index] - link.queued)
            }
        };
        if count > 0 {
            cx.links[index].queued += count;
            cx.tally.sent_count += count;
            self.under_way += count;
            cx.dirty.push(index);
        }
    }

    fn take_due(&mut self, until: u64) -> Option<(usize, u64)> {
        let Pace::Open(schedule, due) = &mut self.pace else { return None };
        let taken = schedule.take(until)?;
        due[taken.0] += 1;
        Some(taken)
    }
}

impl Role for Echo {
    fn begin(&mut self, cx: &mut Context<'_>, _lost_count: usize) {
        match &mut self.pace {
            Pace::Open(schedule, _) => cx.begin(schedule),
            // Few messages are shared by all connections.
            Pace::Closed(_) => {
                let left = self.left.unwrap_or(u64::MAX);
                let count = left.div_ceil(cx.links.len() as u64).min(self.in_flight_count);
                (0..cx.links.len()).for_each(|index| self.send(cx, index, count));
            }
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, index: usize) -> u64 {
        cx.links[index].written()
    }

    fn received(&mut self, cx: &mut Context<'_>, index: usize, count: u64) {
        self.under_way -= count;
        match &mut self.pace {
            Pace::Closed(batches) => {
                let batches = &mut batches[index];
                let mut left = count;
                while let Some(batch) = batches.front_mut().filter(|_| left > 0) {
                    let taken = left.min(batch.count);
                    cx.tally.received(batch.sent, cx.now, taken);
                    left -= taken;
                    batch.count -= taken;
                    if batch.count == 0 {
                        batches.pop_front();
                    }
                }
            }
            Pace::Open(schedule, _) => {
                let end = cx.links[index].incoming.number - self.first_numbers[index];
                for round in end - count..end {
                    cx.tally.received(schedule.due(round, index as u64), cx.now, 1);
                }
            }
        }
        self.send(cx, index, count);
    }

    fn changed(&mut self, cx: &mut Context<'_>, index: usize) {
        if cx.links[index].stage == Stage::Absent {
            let link = &cx.links[index];
            let missing_count = link.queued - link.incoming.number;
            self.under_way -= missing_count;
            cx.miss(index, missing_count);
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        let window_end = cx.tally.window.end;
        if !cx.shared.is_stopped() {
            while let Some((index, due)) = self.take_due(cx.now.min(window_end - 1)) {
                cx.tally.lateness.saturating_record((cx.now - due).max(1));
                self.send(cx, index, 0);
            }
        }
        let next = match &self.pace {
            Pace::Closed(_) => (self.left != Some(0)).then_some(window_end),
            Pace::Open(schedule, _) => schedule.next_due().map(|due| due.min(window_end)),
        };
        self.is_over = cx.is_over() || next.is_none();
        next
    }

    fn under_way(&self, _cx: &Context<'_>) -> u64 {
        self.under_way
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn give_up(&mut self, _cx: &mut Context<'_>) -> u64 {
        self.under_way
    }
}

/// A thread's share of what all do.
pub(crate) fn share(count: u64, thread: usize, thread_count: usize) -> u64 {
    let (thread, thread_count) = (thread as u64, thread_count as u64);
    count / thread_count + u64::from(thread < count % thread_count)
}
