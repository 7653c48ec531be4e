//! The wheel against a list that is searched.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::cases;
use crate::clock;
use crate::shard::timers::Wheel;

const TICK: Duration = Duration::from_millis(16);

#[derive(Clone, Debug)]
enum Step {
    /// Arms an entry, perhaps instead of one before, at so many milliseconds from now.
    Arm { entry: usize, millis: u64 },
    /// The entry shall not fire any more.
    Cancel { entry: usize },
    /// So much time passes, then the wheel is asked.
    Pass { millis: u64 },
    /// So much time passes, and nobody asks.
    Idle { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let entry = || 0..8usize;
    let millis = |range: Range<u64>| prop_oneof![4 => range, 1 => Just(16), 1 => Just(16 * 1023)];
    let step = prop_oneof![
        6 => (entry(), millis(0..20_000)).prop_map(|(entry, millis)| Step::Arm { entry, millis }),
        1 => (entry(), millis(60_000..4_000_000))
            .prop_map(|(entry, millis)| Step::Arm { entry, millis }),
        1 => entry().prop_map(|entry| Step::Cancel { entry }),
        4 => millis(0..300).prop_map(|millis| Step::Pass { millis }),
        1 => millis(0..40_000).prop_map(|millis| Step::Pass { millis }),
        1 => millis(0..40_000).prop_map(|millis| Step::Idle { millis }),
    ];
    prop::collection::vec(step, 1..120)
}

/// As a connection uses the wheel: an entry that fires before it is due is armed again.
#[test]
fn an_entry_is_found_due_never_early_and_at_most_one_tick_late() {
    cases::check(64, steps(), |steps| {
        let start = clock::now();
        let (mut wheel, mut now) = (Wheel::new(start), start);
        let mut model: BTreeMap<usize, _> = BTreeMap::new();
        let mut last_ask = start;
        for step in steps {
            match step {
                Step::Arm { entry, millis } => {
                    let due = now + Duration::from_millis(millis);
                    model.insert(entry, due);
                    wheel.arm(entry, due);
                }
                Step::Cancel { entry } => {
                    model.remove(&entry);
                    wheel.disarm(entry);
                }
                Step::Idle { millis } => now += Duration::from_millis(millis),
                Step::Pass { millis } => {
                    now += Duration::from_millis(millis);
                    ask(&mut wheel, now, &mut model);
                    last_ask = now;
                }
            }
            wheel.check_invariants();
            assert_eq!(wheel.is_due(now), wheel.next_due().is_some_and(|due| due <= now));
            // Whoever sleeps until then wakes in time for everybody.
            let nearest = model.values().min();
            let in_time = |due| wheel.next_due().is_some_and(|next| next < due + TICK);
            assert!(nearest.is_none_or(|&due| in_time(due)), "asked {:?} ago", now - last_ask);
        }
    });
}

/// Lets the wheel fire until nothing is due, and compares with the model.
fn ask(wheel: &mut Wheel, now: Instant, model: &mut BTreeMap<usize, Instant>) {
    let mut fired = Vec::new();
    while wheel.is_due(now) {
        wheel.expire(now, &mut fired);
        for entry in fired.drain(..) {
            if model[&entry] <= now {
                model.remove(&entry);
            } else {
                wheel.arm(entry, model[&entry]);
            }
        }
    }
    for (&entry, &due) in &*model {
        assert!(now < due + TICK, "{entry} is late by {:?}", now - due);
        assert!(wheel.fires_at(entry).is_some(), "{entry} was lost");
    }
}
