//! Broadcasts under way: one connection has the floor, and each broadcast is over when all members
//! have it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A broadcast under way.
#[derive(Clone, Copy, Debug)]
struct Broadcast {
    /// When it was sent, or due.
    sent: u64,
    /// How many members have not got it.
    missing_count: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the first of them: all before are over.
    first: u64,
    broadcasts: VecDeque<Broadcast>,
    member_count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Floor {
    state: Mutex<State>,
    /// How many have been said.
    spoken: AtomicU64,
    /// No more will be said.
    is_closed: AtomicBool,
}

impl Floor {
    pub(crate) fn set_member_count(&self, count: u64) {
        self.state().member_count = count;
    }

    /// Announces a broadcast, before it is sent.
    pub(crate) fn speak(&self, sent: u64) {
        let mut state = self.state();
        let missing_count = state.member_count;
        state.broadcasts.push_back(Broadcast { sent, missing_count });
        self.spoken.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn spoken(&self) -> u64 {
        self.spoken.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// How many are under way.
    pub(crate) fn under_way(&self) -> u64 {
        self.state().broadcasts.len() as u64
    }

    /// Appends when the broadcasts from `number` on were sent.
    pub(crate) fn learn(&self, number: u64, times: &mut VecDeque<u64>) {
        let state = self.state();
        let skipped = usize::try_from(number - state.first).unwrap_or(usize::MAX);
        times.extend(state.broadcasts.iter().skip(skipped).map(|broadcast| broadcast.sent));
    }

    /// So many members have got the broadcasts from `number` on. Returns how many are over, and
    /// whether that are more now.
    pub(crate) fn deliver(&self, number: u64, counts: impl Iterator<Item = u64>) -> (u64, bool) {
        let mut state = self.state();
        let before = state.first;
        for (number, count) in (number..).zip(counts).filter(|(_, count)| *count > 0) {
            let at = usize::try_from(number - before).unwrap_or(usize::MAX);
            state.broadcasts[at].missing_count -= count;
        }
        let first = state.settle();
        (first, first > before)
    }

    /// A member is gone that had all before `number`. Returns how many it has missed.
    pub(crate) fn leave(&self, number: u64) -> u64 {
        let mut state = self.state();
        state.member_count -= 1;
        let at = usize::try_from(number - state.first).unwrap_or(usize::MAX);
        let mut missed_count = 0;
        for broadcast in state.broadcasts.iter_mut().skip(at) {
            broadcast.missing_count -= 1;
            missed_count += 1;
        }
        state.settle();
        missed_count
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settle(&mut self) -> u64 {
        while self.broadcasts.front().is_some_and(|broadcast| broadcast.missing_count == 0) {
            self.broadcasts.pop_front();
            self.first += 1;
        }
        self.first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::Floor;

    #[test]
    fn a_broadcast_is_over_when_all_members_have_it_or_are_gone() {
        let floor = Floor::default();
        floor.set_member_count(3);
        for sent in [10, 20, 30] {
            floor.speak(sent);
        }
        assert_eq!(floor.deliver(0, [2, 1, 0].into_iter()), (0, false));
        assert_eq!(floor.deliver(0, [1, 1].into_iter()), (1, true));
        let mut times = VecDeque::new();
        floor.learn(2, &mut times);
        assert_eq!(times, [30]);
        // It had broadcasts 0 and 1 not yet 2.
        assert_eq!(floor.leave(2), 1);
        assert_eq!(floor.deliver(0, [0, 1, 2].into_iter()), (3, true));
        assert_eq!(floor.under_way(), 0);
        floor.speak(40);
        assert_eq!((floor.spoken(), floor.under_way()), (4, 1));
        assert_eq!(floor.deliver(3, [2].into_iter()), (4, true));
    }
}
