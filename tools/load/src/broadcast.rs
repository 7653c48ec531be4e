//! What the first connection says must reach all, it included, in the same order.

use std::collections::VecDeque;
use std::mem::take;
use std::ops::Range;

use crate::link::Stage;
use crate::role::{Context, Role};
use crate::schedule::Schedule;
use crate::shared::Shared;

/// The thread and the index of the connection that speaks.
const SPEAKER: (usize, usize) = (0, 0);

#[derive(Debug)]
pub(crate) struct Broadcast {
    /// None: this thread does not have the connection that speaks.
    speaker: Option<Speaker>,
    /// The broadcasts that this thread knows of: the number of the first, when each was sent, and
    /// how many of our members have got it and were not yet told to the floor.
    first: u64,
    times: VecDeque<u64>,
    counts: VecDeque<u64>,
    /// Where `counts` is not zero.
    counted: Range<usize>,
    is_over: bool,
}

#[derive(Debug)]
struct Speaker {
    in_flight_count: u64,
    left: Option<u64>,
    schedule: Option<Schedule>,
}

impl Broadcast {
    pub(crate) fn new(shared: &Shared, thread: usize) -> Self {
        let options = &shared.options;
        let speaker = (thread == SPEAKER.0).then(|| Speaker {
            in_flight_count: options.in_flight_count.map_or(u64::MAX, |count| count as u64),
            left: options.message_count,
            schedule: options.rate_per_second.map(|rate| Schedule::new(rate, 1, 0..1)),
        });
        Self {
            speaker,
            first: 0,
            times: VecDeque::new(),
            counts: VecDeque::new(),
            counted: 0..0,
            is_over: false,
        }
    }

    /// Learns of the broadcasts that have been said since.
    fn learn(&mut self, cx: &Context<'_>) -> u64 {
        let known = self.first + self.times.len() as u64;
        if cx.shared.floor.spoken() > known {
            cx.shared.floor.learn(known, &mut self.times);
            self.counts.resize(self.times.len(), 0);
        }
        self.first + self.times.len() as u64
    }

    /// Tells the floor what our members have got, and forgets what is over.
    fn tell(&mut self, cx: &Context<'_>) {
        let counted = take(&mut self.counted);
        if counted.is_empty() {
            return;
        }
        let number = self.first + counted.start as u64;
        let counts = self.counts.range_mut(counted).map(take);
        let (first, is_news) = cx.shared.floor.deliver(number, counts);
        let over_count = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        self.times.drain(..over_count.min(self.times.len()));
        self.counts.drain(..over_count.min(self.counts.len()));
        self.first = first;
        if is_news && self.speaker.is_none() {
            cx.shared.wake(SPEAKER.0);
        }
    }

    /// Says what is due, or what may be in flight. Returns when there is more to do.
    fn speak(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        let (window, speaker) = (cx.tally.window, self.speaker.as_mut()?);
        if cx.links[SPEAKER.1].stage != Stage::Open || cx.shared.is_stopped() {
            return None;
        }
        let floor = &cx.shared.floor;
        let room = speaker.in_flight_count - floor.under_way().min(speaker.in_flight_count);
        let mut said_count = 0;
        let next = match &mut speaker.schedule {
            None => {
                said_count = cx.grant(room, &mut speaker.left);
                (0..said_count).for_each(|_| floor.speak(cx.now));
                (speaker.left != Some(0)).then_some(window.end)
            }
            Some(schedule) => {
                let until = cx.now.min(window.end - 1);
                while said_count < room
                    && let Some((_, due)) = schedule.take(until)
                {
                    cx.tally.lateness.saturating_record((cx.now - due).max(1));
                    floor.speak(due);
                    said_count += 1;
                }
                let next = schedule.next_due().map(|due| due.min(window.end));
                // What is due and has no room waits for deliveries.
                next.map(|due| if said_count == room { due.max(window.end) } else { due })
            }
        };
        if said_count > 0 {
            cx.links[SPEAKER.1].queued += said_count;
            cx.tally.sent_count += said_count;
            cx.dirty.push(SPEAKER.1);
        }
        next.filter(|_| cx.now < window.end)
    }
}

impl Role for Broadcast {
    fn begin(&mut self, cx: &mut Context<'_>, lost_count: usize) {
        for _ in 0..lost_count {
            cx.shared.floor.leave(0);
        }
        if let Some(Speaker { schedule: Some(schedule), .. }) = &mut self.speaker {
            cx.begin(schedule);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, _index: usize) -> u64 {
        self.learn(cx)
    }

    fn received(&mut self, cx: &mut Context<'_>, index: usize, count: u64) {
        let end = cx.links[index].incoming.number - self.first;
        let (begin, end) = (usize::try_from(end - count), usize::try_from(end));
        let (begin, end) = (begin.unwrap_or_default(), end.unwrap_or_default());
        self.counted = match self.counted.is_empty() {
            true => begin..end,
            false => self.counted.start.min(begin)..self.counted.end.max(end),
        };
        self.counts.range_mut(begin..end).for_each(|count| *count += 1);
        // Those that were sent at one time are counted at once.
        let mut times = self.times.range(begin..end).copied();
        let Some(mut sent) = times.next() else { return };
        let mut alike_count = 1;
        for time in times {
            if time != sent {
                cx.tally.received(sent, cx.now, alike_count);
                (sent, alike_count) = (time, 0);
            }
            alike_count += 1;
        }
        cx.tally.received(sent, cx.now, alike_count);
    }

    fn changed(&mut self, cx: &mut Context<'_>, index: usize) {
        if cx.links[index].stage == Stage::Absent {
            self.tell(cx);
            let missing_count = cx.shared.floor.leave(cx.links[index].incoming.number);
            cx.miss(index, missing_count);
            cx.shared.wake(SPEAKER.0);
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        self.tell(cx);
        let next = self.speak(cx);
        if self.speaker.is_some() && next.is_none() {
            cx.shared.floor.close();
        }
        self.is_over = cx.shared.floor.is_closed();
        next
    }

    fn under_way(&self, cx: &Context<'_>) -> u64 {
        cx.shared.floor.under_way()
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn give_up(&mut self, cx: &mut Context<'_>) -> u64 {
        let spoken = cx.shared.floor.spoken();
        let links = cx.links.iter().filter(|link| link.stage == Stage::Open);
        links.map(|link| spoken - link.incoming.number).sum()
    }
}
