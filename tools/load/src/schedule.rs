//! When messages are due in an open loop: at equal distances, to the connections in turn.

/// The due times of one thread's share. Connection (or visit) `first + step * i` of all `cycle` is
/// the thread's own number `i`.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// When message 0 of all is due, in nanoseconds of the run's clock.
    start: u64,
    interval_nanos: f64,
    /// How many connections take turns, of all threads.
    cycle: u64,
    first: u64,
    step: u64,
    own_count: u64,
    /// All from this message of all on are not sent.
    end: u64,
    /// The next one: which time round, and to which of our own.
    round: u64,
    own: u64,
}

impl Schedule {
    pub(crate) fn new(
        rate_per_second: f64,
        cycle: usize,
        own: impl Iterator<Item = usize>,
    ) -> Self {
        let own: Vec<u64> = own.map(|number| number as u64).collect();
        Self {
            start: 0,
            interval_nanos: 1e9 / rate_per_second,
            cycle: cycle as u64,
            first: own.first().copied().unwrap_or_default(),
            step: own.get(1).map_or(1, |second| second - own[0]),
            own_count: own.len() as u64,
            end: u64::MAX,
            round: 0,
            own: 0,
        }
    }

    /// Begins; only so many are sent after `warm_up_nanos`, if any number is given.
    pub(crate) fn begin(&mut self, start: u64, warm_up_nanos: u64, count: Option<u64>) {
        self.start = start;
        if let Some(count) = count {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let warm_up_count = (warm_up_nanos as f64 / self.interval_nanos).ceil() as u64;
            self.end = warm_up_count.saturating_add(count);
        }
    }

    /// When the message of a round to our own connection is due.
    pub(crate) fn due(&self, round: u64, own: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let offset = (self.number(round, own) as f64 * self.interval_nanos) as u64;
        self.start + offset
    }

    fn number(&self, round: u64, own: u64) -> u64 {
        round * self.cycle + self.first + own * self.step
    }

    /// When the next one is due; None: there is none.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let is_over = self.own_count == 0 || self.number(self.round, self.own) >= self.end;
        (!is_over).then(|| self.due(self.round, self.own))
    }

    /// Takes the next one if it is due by now: to which of our own, and when it was due.
    pub(crate) fn take(&mut self, now: u64) -> Option<(usize, u64)> {
        let due = self.next_due().filter(|due| *due <= now)?;
        let own = usize::try_from(self.own).ok()?;
        self.own += 1;
        if self.own == self.own_count {
            self.own = 0;
            self.round += 1;
        }
        Some((own, due))
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    /// All that the threads send by a time: when it was due, and to which connection.
    fn all(thread_count: usize, now: u64) -> Vec<(u64, usize)> {
        let mut all = Vec::new();
        for thread in 0..thread_count {
            let mut own = (thread..10).step_by(thread_count);
            let mut schedule = Schedule::new(1e6, 10, own.clone());
            schedule.begin(500, 3_500, Some(100));
            while let Some((index, due)) = schedule.take(now) {
                all.push((due, own.clone().nth(index).expect("one of its own")));
            }
            assert!(schedule.next_due().is_none_or(|due| due > now));
            assert!(own.next().is_some());
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn messages_are_due_at_equal_distances_to_the_connections_in_turn() {
        for thread_count in [1, 2, 3, 10] {
            assert_eq!(all(thread_count, 499), []);
            let expected: Vec<_> = (0..8).map(|at| (500 + at as u64 * 1000, at)).collect();
            assert_eq!(all(thread_count, 7_999), expected);
            // Four are due during the warm-up, and 100 after it.
            let expected: Vec<_> = (0..104).map(|at| (500 + at as u64 * 1000, at % 10)).collect();
            assert_eq!(all(thread_count, u64::MAX), expected);
        }
    }

    #[test]
    fn the_due_time_of_a_message_follows_from_its_number() {
        let mut schedule = Schedule::new(3.0, 7, (1..7).step_by(2));
        schedule.begin(10, 0, None);
        let mut rounds = [0; 3];
        for _ in 0..1000 {
            let (own, due) = schedule.take(u64::MAX).expect("it never ends");
            assert_eq!(due, schedule.due(rounds[own], own as u64));
            rounds[own] += 1;
        }
    }
}
