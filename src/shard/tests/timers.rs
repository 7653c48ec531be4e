//! The wheel against a list that is searched.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use crate::cases;
use crate::hub::Address;
use crate::shard::clock;
use crate::shard::timers::{Tick, Wheel};

const TICK: Duration = Duration::from_millis(16);

#[derive(Clone, Debug)]
enum Step {
    /// Arms an entry, perhaps another time, at so many milliseconds from now.
    Arm { entry: u64, millis: u64 },
    /// The entry shall not fire any more.
    Cancel { entry: u64 },
    /// So much time passes, then the wheel is asked.
    Pass { millis: u64 },
    /// So much time passes, and nobody asks.
    Idle { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let entry = || 0..8u64;
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

/// As a connection uses the wheel: an entry that fires before it is due is armed again, one that
/// was overtaken is ignored.
#[test]
fn an_entry_is_found_due_at_most_one_tick_late() {
    cases::check(64, steps(), |steps| {
        let start = clock::now();
        let (mut wheel, mut now) = (Wheel::new(start), start);
        let mut model: BTreeMap<u64, _> = BTreeMap::new();
        let mut armed: BTreeMap<u64, Tick> = BTreeMap::new();
        let mut last_ask = start;
        for step in steps {
            match step {
                Step::Arm { entry, millis } => {
                    let due = now + Duration::from_millis(millis);
                    model.insert(entry, due);
                    arm(&mut wheel, &mut armed, entry, due);
                }
                Step::Cancel { entry } => {
                    model.remove(&entry);
                    armed.remove(&entry);
                }
                Step::Idle { millis } => now += Duration::from_millis(millis),
                Step::Pass { millis } => {
                    now += Duration::from_millis(millis);
                    ask(&mut wheel, now, &mut model, &mut armed);
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

fn arm(wheel: &mut Wheel, armed: &mut BTreeMap<u64, Tick>, entry: u64, due: std::time::Instant) {
    let armed = armed.entry(entry).or_insert(Tick::NEVER);
    *armed = wheel.arm(Address::new(1, entry), *armed, due);
}

/// Lets the wheel fire until nothing is due, and compares with the model.
fn ask(
    wheel: &mut Wheel,
    now: std::time::Instant,
    model: &mut BTreeMap<u64, std::time::Instant>,
    armed: &mut BTreeMap<u64, Tick>,
) {
    let mut fired = Vec::new();
    while wheel.is_due(now) {
        wheel.expire(now, &mut fired);
        for (address, tick) in fired.drain(..) {
            let entry = (0..8).find(|&entry| Address::new(1, entry) == address);
            let entry = entry.expect("an entry that was armed");
            if armed.get(&entry) != Some(&tick) {
                continue;
            }
            armed.remove(&entry);
            if model[&entry] <= now {
                model.remove(&entry);
            } else {
                arm(wheel, armed, entry, model[&entry]);
            }
        }
    }
    for (entry, &due) in &*model {
        assert!(now < due + TICK, "{entry} is late by {:?}", now - due);
        assert!(armed.contains_key(entry), "{entry} was lost");
    }
}
