//! The timer wheel: arming and firing are O(1), whatever the number of connections.
//!
//! A connection has one entry that counts, at the nearest of its deadlines or before. Neither
//! activity nor a later deadline touches the wheel: when the entry fires, the connection looks at
//! what is really due and is armed again. An entry that was overtaken by a nearer one is recognised
//! by its tick and ignored.
//!
//! Knows addresses and ticks; must not know what is due.

use std::time::{Duration, Instant};

use crate::hub::Address;

/// The length of a tick. A deadline fires at most this much late.
const TICK_MILLIS: u64 = 16;
const TICK_NANOS: u64 = TICK_MILLIS * 1_000_000;
/// How many ticks the wheel reaches ahead. What is due later is looked at on the way.
const SLOT_COUNT: u64 = 1024;

/// A point in time, in ticks since the wheel was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u64);

impl Tick {
    /// Of what is not armed.
    pub(super) const NEVER: Self = Self(u64::MAX);
}

/// In nanoseconds; the most if that is more than five centuries.
fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

fn since_start(tick: Tick) -> Duration {
    Duration::from_millis(tick.0.saturating_mul(TICK_MILLIS))
}

#[derive(Debug)]
pub(super) struct Wheel {
    start: Instant,
    /// The next tick to fire; all entries are at or after it. While nothing is due it stays behind
    /// the time: then entries are armed to be looked at early, which does no harm.
    next: Tick,
    /// The nearest tick that has entries, and when it is due; kept, because every turn asks.
    due: Option<(Tick, Instant)>,
    slots: Box<[Vec<(Address, Tick)>]>,
    /// One bit a slot that holds entries.
    occupied: [u64; (SLOT_COUNT / 64) as usize],
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            next: Tick(0),
            due: None,
            slots: (0..SLOT_COUNT).map(|_| Vec::new()).collect(),
            occupied: [0; (SLOT_COUNT / 64) as usize],
        }
    }

    /// The first tick that is not before `instant`.
    fn tick_at(&self, instant: Instant) -> Tick {
        Tick(nanos(instant.saturating_duration_since(self.start)).div_ceil(TICK_NANOS))
    }

    /// Arms an entry at `due`, or as far ahead as the wheel reaches, unless it is `armed` before;
    /// tells when it will fire.
    pub(super) fn arm(&mut self, address: Address, armed: Tick, due: Instant) -> Tick {
        let tick = self.tick_at(due).clamp(self.next, Tick(self.next.0 + SLOT_COUNT - 1));
        if armed <= tick {
            return armed;
        }
        let (slot, word, bit) = Self::place(tick);
        self.slots[slot].push((address, tick));
        self.occupied[word] |= bit;
        if self.due.is_none_or(|(nearest, _)| tick < nearest) {
            self.due = Some(self.due_at(tick));
        }
        tick
    }

    fn due_at(&self, tick: Tick) -> (Tick, Instant) {
        (tick, self.start + since_start(tick))
    }

    /// Whether an entry is due.
    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|(_, due_at)| due_at <= now)
    }

    #[allow(clippy::cast_possible_truncation, reason = "slots are few")]
    fn place(tick: Tick) -> (usize, usize, u64) {
        let slot = (tick.0 % SLOT_COUNT) as usize;
        (slot, slot / 64, 1 << (slot % 64))
    }

    /// Moves all entries that are due into `fired`.
    pub(super) fn expire(&mut self, now: Instant, fired: &mut Vec<(Address, Tick)>) {
        // The last tick that is not after now.
        let elapsed = nanos(now.saturating_duration_since(self.start)) / TICK_NANOS;
        while let Some(due) = self.nearest().filter(|due| due.0 <= elapsed) {
            let (slot, word, bit) = Self::place(due);
            fired.append(&mut std::mem::take(&mut self.slots[slot]));
            self.occupied[word] &= !bit;
            self.next = Tick(due.0 + 1);
        }
        self.next = self.next.max(Tick(elapsed + 1));
        self.due = self.nearest().map(|nearest| self.due_at(nearest));
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
                let slot = word as u64 * 64 + u64::from(bits.trailing_zeros());
                let ahead = (slot + SLOT_COUNT - self.next.0 % SLOT_COUNT) % SLOT_COUNT;
                return Some(Tick(self.next.0 + ahead));
            }
        }
        None
    }

    /// Asserts that every entry stands in the slot of its tick, within reach, and that what is kept
    /// beside the slots agrees with them.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self) {
        for (slot, entries) in self.slots.iter().enumerate() {
            let is_occupied = self.occupied[slot / 64] & (1 << (slot % 64)) != 0;
            assert_eq!(is_occupied, !entries.is_empty(), "the bit of slot {slot}");
            for &(address, tick) in entries {
                assert_eq!(Self::place(tick).0, slot, "{address:?} stands in a wrong slot");
                let reach = self.next.0..self.next.0 + SLOT_COUNT;
                assert!(reach.contains(&tick.0), "{address:?} at {tick:?} is out of {reach:?}");
            }
        }
        let nearest = self.slots.iter().flatten().map(|&(_, tick)| tick).min();
        assert_eq!(self.nearest(), nearest);
        assert_eq!(self.due, nearest.map(|nearest| self.due_at(nearest)));
    }

    /// When the nearest entry is due.
    #[inline]
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.map(|(_, due_at)| due_at)
    }
}

#[cfg(feature = "testing")]
impl Wheel {
    /// Whether an entry is there, and when it fires.
    pub(super) fn fires_at(&self, address: Address, tick: Tick) -> Option<Instant> {
        let (slot, ..) = Self::place(tick);
        let is_there = self.slots[slot].contains(&(address, tick));
        is_there.then(|| self.start + since_start(tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant() -> Instant {
        super::super::clock::now()
    }

    #[test]
    fn entries_fire_once_when_due_and_never_before() {
        let start = instant();
        let mut wheel = Wheel::new(start);
        // A naive model: a list of (entry, tick), advanced by uneven steps.
        let mut model = Vec::new();
        let mut seed = 7u64;
        let mut now = start;
        for generation in 0..20_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let delay = Duration::from_millis((seed >> 33) % 30_000);
            let address = Address::new(1, generation);
            model.push((address, wheel.arm(address, Tick::NEVER, now + delay)));
            if generation % 7 == 0 {
                now += Duration::from_millis((seed >> 20) % 400);
                let mut fired = Vec::new();
                wheel.expire(now, &mut fired);
                let is_due = |tick: &Tick| start + since_start(*tick) <= now;
                let mut due: Vec<_> = model.extract_if(.., |(_, tick)| is_due(tick)).collect();
                let key = |(address, tick): &(Address, Tick)| (*tick, address.token());
                fired.sort_by_key(key);
                due.sort_by_key(key);
                assert_eq!(fired, due);
                let nearest = model.iter().map(|(_, tick)| *tick).min();
                assert_eq!(wheel.nearest(), nearest);
                assert_eq!(wheel.next_due(), nearest.map(|tick| start + since_start(tick)));
                assert!(!wheel.is_due(now));
            }
        }
    }

    #[test]
    fn what_is_beyond_its_reach_fires_at_its_reach() {
        let start = instant();
        let mut wheel = Wheel::new(start);
        let tick = wheel.arm(Address::new(0, 0), Tick::NEVER, start + Duration::from_secs(3600));
        assert_eq!(tick, Tick(SLOT_COUNT - 1));
        let mut fired = Vec::new();
        wheel.expire(start + Duration::from_secs(17), &mut fired);
        assert_eq!(fired.len(), 1);
        assert_eq!(wheel.next_due(), None);
    }
}
