//! The parts, each in a process of its own: callgrind counts within [`counted`] and nowhere else,
//! so neither what is made for a run nor looking at what came of it is in the figure.

use std::hint::black_box;

use super::callgrind;
use super::operations::{Operation, Part, parts};

/// How many items are handled, about, while callgrind counts.
const ITEM_COUNT: usize = 20_000;
/// What makes the process this module's.
pub(crate) const ORDER: &str = "--part";

/// Too large for a processor that is emulated.
const TOO_LARGE: [&str; 3] = ["timers/100000", "publish/everyone/10000", "publish/topic/10000"];

/// The parts that have a budget.
pub(crate) fn budgeted() -> Vec<Part> {
    parts().into_iter().filter(|part| !TOO_LARGE.contains(&part.name.as_str())).collect()
}

/// What is counted.
#[inline(never)]
fn counted(operation: &mut dyn Operation) {
    black_box(operation).run();
}

fn run_count(part: &Part) -> usize {
    (ITEM_COUNT / part.item_count).clamp(8, 200)
}

/// Runs the part of that name; in a process of its own.
pub(crate) fn run(name: &str) {
    let part = parts().into_iter().find(|part| part.name == name).expect("a part of that name");
    let mut operation = (part.make)();
    // What is allocated at first is.
    for _ in 0..3 {
        operation.prepare();
        black_box(&mut *operation).run();
        operation.check();
    }
    for _ in 0..run_count(&part) {
        operation.prepare();
        counted(&mut *operation);
        operation.check();
    }
}

/// How many instructions an item costs.
pub(crate) fn measure(part: &Part) -> f64 {
    let options = ["--toggle-collect=*part*counted*"];
    let (mut command, profile) = callgrind::command(&part.name, &options, &[ORDER, &part.name]);
    let status = command.status().expect("valgrind starts");
    assert!(status.success(), "{}: {status}", part.name);
    let total: u64 = callgrind::totals(&profile).iter().sum();
    total as f64 / (run_count(part) * part.item_count) as f64
}
