//! Counts the instructions that a server's thread executes in user space for a message, a delivery,
//! a visit, as the processor counts them, where `perf stat` may not count: step by step.
//!
//! ```text
//! cargo run --release -p peregrine-peers --bin steps            # all, in two to three minutes
//! cargo run --release -p peregrine-peers --bin steps -- visit   # rows whose name holds a word
//! ```
//!
//! Why not callgrind, as `benches/budget` does: it knows no instructions for SHA-1, so that an
//! upgrade costs 2800 more with it, and `rep movsb`, which to a processor is one instruction
//! whatever it copies, is one for each byte to it (or, forbidden, a loop of vector moves).
//!
//! How: the thread is traced (`ptrace`), and stands whenever it is about to sleep, before the
//! system call is made. Then the clients send all of a round; then it is led, one instruction
//! after another, to where it is about to sleep again; then the clients receive and compare. So its
//! turns find a round's messages together, and nothing is counted but what it does with them, its
//! turns' own cost included: being attached to, and waiting for clients, happen outside the count.
//! An instruction that repeats itself stops at each iteration, where it was: that counts once.
//!
//! A round takes much longer so than it would alone, but not to the server: while it is led, its
//! clocks stand. The kernel's own code for reading them (vDSO, 47 instructions each time), which
//! callgrind does not see, counts.
//!
//! A run of all rows goes to `benches/results/steps.json`, each round as a sample.

#![allow(clippy::print_stdout, reason = "figures are its output")]

mod clients;
mod loads;
mod served;
mod trace;

#[path = "../../../../parts/inputs.rs"]
#[allow(dead_code, reason = "benches/parts has use for all of it")]
#[allow(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod inputs;
#[path = "../report/machine.rs"]
#[allow(dead_code, reason = "the report has use for all of it")]
mod machine;
#[path = "../report/results.rs"]
#[allow(dead_code, reason = "the report has use for all of it")]
mod results;
#[path = "../report/units.rs"]
#[allow(dead_code, reason = "the report has use for all of it")]
mod units;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::inputs::Kind;
use self::loads::Load;
use self::machine::Machine;
use self::results::{Results, Sample, Spread};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A row: its name, the goal (PERFORMANCE.md), what is done, and how often: not counted and not
/// traced, then counted.
struct Row {
    name: &'static str,
    goal: f64,
    load: Load,
    warm_up_count: usize,
    round_count: usize,
}

/// A step takes some 25 µs on a virtual machine: rounds are as small as they may be.
const ROWS: [Row; 9] = [
    row("echo/binary/64/1", 350.0, echo(Kind::Binary, 64, 100, 1), 20, 3),
    row("echo/binary/64/32", 170.0, echo(Kind::Binary, 64, 100, 32), 10, 1),
    row("echo/ascii/64/32", 220.0, echo(Kind::Ascii, 64, 100, 32), 10, 1),
    row("echo/binary/16384/1", 2000.0, echo(Kind::Binary, 16 << 10, 20, 1), 20, 2),
    row("echo/binary/1048576/1", 192_000.0, echo(Kind::Binary, 1 << 20, 1, 1), 20, 2),
    row("broadcast/1000/1", 250.0, Load::Broadcast { members: 1000, speakers: 1 }, 10, 2),
    row("broadcast/1000/16", 60.0, Load::Broadcast { members: 1000, speakers: 16 }, 10, 1),
    row("visit/1", 10_000.0, Load::Visit { visitors: 1 }, 10, 10),
    row("visit/50", 10_000.0, Load::Visit { visitors: 50 }, 10, 2),
];

const fn row(
    name: &'static str,
    goal: f64,
    load: Load,
    warm_up_count: usize,
    round_count: usize,
) -> Row {
    Row { name, goal, load, warm_up_count, round_count }
}

const fn echo(kind: Kind, payload_bytes: usize, clients: usize, in_flight: usize) -> Load {
    Load::Echo { kind, payload_bytes, clients, in_flight }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [served::ORDER] => served::serve(),
        ref words => count(words),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("steps: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts the rows whose names hold one of the words; keeps the figures if that is all.
fn count(words: &[&str]) -> Result<()> {
    let is_meant =
        |row: &&Row| words.is_empty() || words.iter().any(|word| row.name.contains(word));
    let rows: Vec<_> = ROWS.iter().filter(is_meant).collect();
    if rows.is_empty() {
        let names = ROWS.map(|row| row.name).join(", ");
        return Err(format!("no row is called {}, only {names}", words.join(" or ")).into());
    }
    raise_descriptor_limit()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut results = Results::new("steps", false, Machine::observe(&root));
    share_one_processor()?;
    results.commands.push("cargo run --release -p peregrine-peers --bin steps".to_owned());
    results.notes.push(
        "Instructions of user space, counted step by step; each round is a sample, in which the \
         server finds all messages at once."
            .to_owned(),
    );
    println!("{:24}{:>14}{:>10}   least to greatest round", "row", "instructions", "goal");
    for row in &rows {
        let counts = row.load.count(row.warm_up_count, row.round_count);
        let counts = counts.map_err(|error| format!("{}: {error}", row.name))?;
        println!("{}", line(row, &counts));
        results.samples.extend(counts.into_iter().enumerate().map(|(round, count)| Sample {
            case: row.name.to_owned(),
            server: "peregrine".to_owned(),
            round,
            values: BTreeMap::from([
                ("goal".to_owned(), row.goal),
                ("instructions".to_owned(), count),
            ]),
            error: None,
        }));
    }
    if rows.len() == ROWS.len() {
        results.save(&root.join("benches/results"))?;
    }
    Ok(())
}

/// A row of the table, of what each round gave.
fn line(row: &Row, counts: &[f64]) -> String {
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let ends = Spread::of(counts.to_vec());
    let ends =
        ends.map_or(String::new(), |ends| format!("{:.1} to {:.1}", ends.least, ends.greatest));
    let verdict = if mean <= row.goal { "" } else { "   missed" };
    format!("{:24}{mean:>14.1}{:>10}   {ends}{verdict}", row.name, units::whole(row.goal))
}

/// As many descriptors as this process and the server may have: a thousand clients need them.
fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// This process and the server it starts run in turns: on one processor, handing over is quickest.
fn share_one_processor() -> Result<()> {
    let mut processors = CpuSet::new();
    processors.set(rustix::thread::sched_getcpu())?;
    Ok(sched_setaffinity(Pid::from_raw(0), &processors)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_mean_the_goal_and_the_ends() {
        let row = row("visit/1", 10_000.0, Load::Visit { visitors: 1 }, 1, 2);
        let reached = line(&row, &[9000.0, 9001.0]);
        assert!(reached.contains(" 9000.5 ") && reached.ends_with("9000.0 to 9001.0"), "{reached}");
        let missed = line(&row, &[10_001.0]);
        assert!(missed.contains(" 10 000 ") && missed.ends_with("missed"), "{missed}");
    }

    #[test]
    fn a_word_that_no_row_holds_is_an_error() {
        let error = count(&["nothing"]).expect_err("an error").to_string();
        assert!(error.contains("echo/binary/64/1"), "{error}");
    }
}
