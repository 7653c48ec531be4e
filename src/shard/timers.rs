//! The timer wheel: arming, disarming and firing are O(1), whatever the number of connections, and
//! allocate nothing.
//!
//! A connection has one entry, at the nearest of its deadlines or before; the entries of one tick
//! are a list through the table of all. Neither activity nor a later deadline touches the wheel:
//! when the entry fires, the connection looks at what is really due and is armed again.
//!
//! Knows slots and ticks; must not know what is due.

use std::time::{Duration, Instant};

use crate::hub::{SLOT_COUNT_MAX, Slot};

/// The length of a tick. A deadline fires at most this much late.
const TICK_MILLIS: u64 = 16;
const TICK_NANOS: u64 = TICK_MILLIS * 1_000_000;
/// How many ticks the wheel reaches ahead. What is due later is looked at on the way.
const REACH: u64 = 1024;
/// Where a list ends.
const NOBODY: u32 = u32::MAX;
const _: () = assert!(SLOT_COUNT_MAX <= NOBODY as usize);

/// A point in time, in ticks since the wheel was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u64);

/// One connection's.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When it fires.
    tick: Tick,
    /// Its neighbours among those that fire with it.
    before: u32,
    after: u32,
}

impl Entry {
    const DISARMED: Self = Self { tick: Tick(u64::MAX), before: NOBODY, after: NOBODY };

    fn is_armed(&self) -> bool {
        self.tick != Self::DISARMED.tick
    }
}

/// In nanoseconds; the most if that is more than five centuries.
fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

fn since_start(tick: Tick) -> Duration {
    Duration::from_millis(tick.0.saturating_mul(TICK_MILLIS))
}

#[derive(Debug)]
pub(in crate::shard) struct Wheel {
    start: Instant,
    /// The next tick to fire; all entries are at or after it. While nothing is due it stays behind
    /// the time: then entries are armed to be looked at early, which does no harm.
    next: Tick,
    /// When the nearest entry is due; kept, because every turn asks. It may be that of one that was
    /// disarmed since: to find the next is not worth more than to wake once in vain.
    due_at: Option<Instant>,
    /// By the connection's slot.
    entries: Vec<Entry>,
    /// The first of those that fire at a tick, by its place.
    firsts: Box<[u32]>,
    /// One bit a place that has any.
    occupied: [u64; (REACH / 64) as usize],
}

impl Wheel {
    /// What an armed connection takes.
    pub(in crate::shard) const ENTRY_BYTES: usize = size_of::<Entry>();

    pub(in crate::shard) fn new(now: Instant) -> Self {
        Self {
            start: now,
            next: Tick(0),
            due_at: None,
            entries: Vec::new(),
            firsts: (0..REACH).map(|_| NOBODY).collect(),
            occupied: [0; (REACH / 64) as usize],
        }
    }

    /// The first tick that is not before `instant`.
    fn tick_at(&self, instant: Instant) -> Tick {
        Tick(nanos(instant.saturating_duration_since(self.start)).div_ceil(TICK_NANOS))
    }

    /// Arms a connection at `due`, or as far ahead as the wheel reaches, unless it is armed before.
    pub(in crate::shard) fn arm(&mut self, slot: Slot, due: Instant) {
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, Entry::DISARMED);
        }
        let tick = self.tick_at(due).clamp(self.next, Tick(self.next.0 + REACH - 1));
        if self.entries[slot].tick <= tick {
            return;
        }
        self.disarm(slot);
        let (place, word, bit) = Self::place(tick);
        #[allow(clippy::cast_possible_truncation, reason = "asserted above: slots are few")]
        let after = std::mem::replace(&mut self.firsts[place], slot as u32);
        if after != NOBODY {
            self.entries[after as usize].before = self.firsts[place];
        }
        self.entries[slot] = Entry { tick, before: NOBODY, after };
        self.occupied[word] |= bit;
        let due_at = self.start + since_start(tick);
        self.due_at = Some(self.due_at.map_or(due_at, |nearest| nearest.min(due_at)));
    }

    /// Ends what a connection was armed for, if it was.
    pub(in crate::shard) fn disarm(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.is_armed()) else {
            return;
        };
        let Entry { tick, before, after } = std::mem::replace(entry, Entry::DISARMED);
        if after != NOBODY {
            self.entries[after as usize].before = before;
        }
        if before != NOBODY {
            self.entries[before as usize].after = after;
            return;
        }
        let (place, word, bit) = Self::place(tick);
        self.firsts[place] = after;
        if after == NOBODY {
            self.occupied[word] &= !bit;
        }
    }

    /// Sees to it that something is due at this instant, or before, though no connection's entry
    /// is. It holds until entries [expire](Self::expire).
    pub(in crate::shard) fn look_at(&mut self, due: Instant) {
        self.due_at = Some(self.due_at.map_or(due, |nearest| nearest.min(due)));
    }

    /// Whether an entry is due.
    #[inline]
    pub(in crate::shard) fn is_due(&self, now: Instant) -> bool {
        self.due_at.is_some_and(|due_at| due_at <= now)
    }

    #[allow(clippy::cast_possible_truncation, reason = "places are few")]
    fn place(tick: Tick) -> (usize, usize, u64) {
        let place = (tick.0 % REACH) as usize;
        (place, place / 64, 1 << (place % 64))
    }

    /// Disarms all that are due, and tells who they are.
    pub(in crate::shard) fn expire(&mut self, now: Instant, fired: &mut Vec<Slot>) {
        // The last tick that is not after now.
        let elapsed = nanos(now.saturating_duration_since(self.start)) / TICK_NANOS;
        while let Some(due) = self.nearest().filter(|due| due.0 <= elapsed) {
            let (place, word, bit) = Self::place(due);
            let mut next = std::mem::replace(&mut self.firsts[place], NOBODY);
            self.occupied[word] &= !bit;
            while next != NOBODY {
                let slot = next as usize;
                next = std::mem::replace(&mut self.entries[slot], Entry::DISARMED).after;
                fired.push(slot);
            }
            self.next = Tick(due.0 + 1);
        }
        self.next = self.next.max(Tick(elapsed + 1));
        self.due_at = self.nearest().map(|nearest| self.start + since_start(nearest));
    }

    /// The nearest tick that has entries.
    fn nearest(&self) -> Option<Tick> {
        let (_, first_word, _) = Self::place(self.next);
        let word_count = self.occupied.len();
        // The first word is looked at twice: from `next` on, and at last before it.
        for step in 0..=word_count {
            let word = (first_word + step) % word_count;
            let from_next = u64::MAX << (self.next.0 % 64);
            let mask = match step {
                0 => from_next,
                _ if step == word_count => !from_next,
                _ => u64::MAX,
            };
            let bits = self.occupied[word] & mask;
            if bits != 0 {
                let place = word as u64 * 64 + u64::from(bits.trailing_zeros());
                let ahead = (place + REACH - self.next.0 % REACH) % REACH;
                return Some(Tick(self.next.0 + ahead));
            }
        }
        None
    }

    /// Asserts that every entry stands in the list of its tick, within reach, and that what is kept
    /// beside the lists agrees with them.
    #[cfg(any(test, feature = "testing"))]
    pub(in crate::shard) fn check_invariants(&self) {
        let mut count = 0;
        for (place, &first) in self.firsts.iter().enumerate() {
            let is_occupied = self.occupied[place / 64] & (1 << (place % 64)) != 0;
            assert_eq!(is_occupied, first != NOBODY, "the bit of place {place}");
            let (mut before, mut at) = (NOBODY, first);
            while at != NOBODY {
                let entry = self.entries[at as usize];
                assert_eq!(entry.before, before, "the neighbours of {at}");
                assert_eq!(Self::place(entry.tick).0, place, "{at} stands in a wrong list");
                let reach = self.next.0..self.next.0 + REACH;
                assert!(reach.contains(&entry.tick.0), "{entry:?} is out of {reach:?}");
                (before, at) = (at, entry.after);
                count += 1;
            }
        }
        let armed = self.entries.iter().filter(|entry| entry.is_armed());
        assert_eq!(armed.clone().count(), count, "all that are armed stand in a list");
        let nearest = armed.map(|entry| entry.tick).min();
        assert_eq!(self.nearest(), nearest);
        let nearest = nearest.map(|tick| self.start + since_start(tick));
        assert!(nearest.is_none_or(|nearest| self.due_at.is_some_and(|due_at| due_at <= nearest)));
    }

    /// When the nearest entry is due.
    #[inline]
    pub(in crate::shard) fn next_due(&self) -> Option<Instant> {
        self.due_at
    }
}

#[cfg(any(test, feature = "testing"))]
impl Wheel {
    /// When a connection's entry fires, if it has one.
    pub(in crate::shard) fn fires_at(&self, slot: Slot) -> Option<Instant> {
        let entry = self.entries.get(slot).filter(|entry| entry.is_armed())?;
        Some(self.start + since_start(entry.tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant() -> Instant {
        crate::clock::now()
    }

    #[test]
    fn entries_fire_once_when_due_and_never_before() {
        let start = instant();
        let mut wheel = Wheel::new(start);
        // A naive model: a list of (entry, when it fires), advanced by uneven steps.
        let mut model = Vec::new();
        let mut seed = 7u64;
        let mut now = start;
        for slot in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let delay = Duration::from_millis((seed >> 33) % 30_000);
            wheel.arm(slot, now + delay);
            model.push((slot, wheel.fires_at(slot).expect("it is armed")));
            if slot % 7 == 0 {
                now += Duration::from_millis((seed >> 20) % 400);
                let mut fired = Vec::new();
                wheel.expire(now, &mut fired);
                let is_due = |at: Instant| at <= now;
                let due = model.extract_if(.., |(_, at)| is_due(*at));
                let mut due: Vec<_> = due.map(|(slot, _)| slot).collect();
                fired.sort_unstable();
                due.sort_unstable();
                assert_eq!(fired, due);
                assert_eq!(wheel.next_due(), model.iter().map(|(_, at)| *at).min());
                assert!(!wheel.is_due(now));
            }
        }
    }

    #[test]
    fn what_is_beyond_its_reach_fires_at_its_reach() {
        let start = instant();
        let mut wheel = Wheel::new(start);
        wheel.arm(0, start + Duration::from_secs(3600));
        assert_eq!(wheel.fires_at(0), Some(start + since_start(Tick(REACH - 1))));
        let mut fired = Vec::new();
        wheel.expire(start + Duration::from_secs(17), &mut fired);
        assert_eq!(fired, [0]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn who_is_disarmed_does_not_fire_and_its_neighbours_do() {
        let start = instant();
        let due = start + since_start(Tick(1));
        for gone in 0..3 {
            let mut wheel = Wheel::new(start);
            (0..3).for_each(|slot| wheel.arm(slot, due));
            wheel.disarm(gone);
            wheel.disarm(gone);
            wheel.disarm(77);
            wheel.check_invariants();
            let mut fired = Vec::new();
            wheel.expire(due, &mut fired);
            assert!(fired.len() == 2 && !fired.contains(&gone));
        }
        let mut wheel = Wheel::new(start);
        wheel.arm(0, due);
        wheel.arm(1, due + since_start(Tick(1)));
        wheel.disarm(0);
        wheel.expire(due, &mut Vec::new());
        assert_eq!(
            wheel.next_due(),
            Some(due + since_start(Tick(1))),
            "nobody wakes twice for who is gone"
        );
    }
}
