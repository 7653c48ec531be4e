//! What operations may cost, in instructions of user space, counted by callgrind and compared with
//! the committed `table.txt`.
//!
//! ```text
//! cargo bench --features __internals --bench budget              # all
//! cargo bench --features __internals --bench budget -- lane visit # whose name holds a word
//! cargo bench --features __internals --bench budget -- --write    # writes figures to the table
//! ```
//!
//! It fails if an operation costs more than the table allows: a change that costs more changes the
//! table, in the same commit, and says why in the last column. It also fails if one costs so much
//! less that the table would not notice most of it being lost again.
//!
//! Rows are of two kinds: parts (those of `benches/parts`, in [`part`]), and the whole server with
//! clients in another process ([`served`]). A figure is of one item: a message, a delivery, a timer
//! that fires, a visit; of the large echo, one MiB. The profiles stay in `target/tmp/budget`, those
//! of the server by mark, the second of which is of interest:
//!
//! ```text
//! callgrind_annotate --auto=no --threshold=100 target/tmp/budget/server-visit-1.2
//! ```
//!
//! Figures are those of the profile `bench` as it stands: `CARGO_INCREMENTAL` and `RUSTFLAGS`
//! change what is inlined.
//!
//! Why not gungraun (formerly iai-callgrind): its limits are numbers in the source or percentages
//! of a run that is not committed, and it measures a command from start to end, where the rows of
//! the server are differences of what passed between marks while clients talked to it. It would
//! also have to be installed beside valgrind, in exactly the version of the library.

#![allow(clippy::expect_used, reason = "a measurement that fails stops")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]
#![allow(clippy::print_stdout, reason = "figures are its output")]

mod callgrind;
mod client;
#[path = "../parts/inputs.rs"]
mod inputs;
#[path = "../parts/operations.rs"]
mod operations;
mod part;
mod served;
mod table;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::table::{Row, TO_SAY, Table, Verdict};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/budget/table.txt");

/// What new rows of parts allow, in percent.
const PART_TOLERANCE: f64 = 2.;

/// A row to be measured: name, tolerance of a new one, how.
type Measurement = (String, f64, Box<dyn Fn(&str) -> f64>);

fn measurements() -> Vec<Measurement> {
    let mut all: Vec<Measurement> = Vec::new();
    for part in part::budgeted() {
        all.push((part.name.clone(), PART_TOLERANCE, Box::new(move |_| part::measure(&part))));
    }
    for (name, tolerance, measure) in served::ALL {
        all.push((name.to_owned(), tolerance, Box::new(measure)));
    }
    all
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [part::ORDER, name] => part::run(name),
        [served::ORDER] => served::serve(),
        _ => return compare(&arguments),
    }
    ExitCode::SUCCESS
}

/// Measures what was asked for and compares it with the table, or writes it there.
fn compare(arguments: &[String]) -> ExitCode {
    let (orders, words): (Vec<_>, Vec<_>) =
        arguments.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let write = match orders[..] {
        [] => false,
        ["--write"] => true,
        _ => return fail(&[format!("unknown: {}", orders.join(" "))]),
    };
    if cfg!(feature = "testing") {
        return fail(&[
            "the feature `testing` costs at every read and write: without it".to_owned()
        ]);
    }
    let facts = match callgrind::facts() {
        Ok(facts) => facts,
        Err(error) => return fail(&[error]),
    };
    raise_descriptor_limit();
    let text = std::fs::read_to_string(TABLE).expect("the table");
    let mut table = Table::parse(&text).unwrap_or_else(|error| panic!("{TABLE}: {error}"));
    let all = measurements();
    let is_known = |name: &str| all.iter().any(|(known, ..)| known == name);
    let is_meant = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut faults: Vec<String> = table
        .rows()
        .filter(|row| !is_known(&row.name))
        .map(|row| format!("{} is in the table and is no operation", row.name))
        .collect();
    let mut measured_count = 0;
    for (name, tolerance, measure) in all.iter().filter(|(name, ..)| is_meant(name)) {
        let cost = measure(name);
        measured_count += 1;
        faults.extend(report(&table, name, cost, *tolerance));
        if write {
            table.set(name, cost, *tolerance);
        }
    }
    if write {
        table.retain(is_known);
        facts.iter().for_each(|(what, which)| table.set_fact(what, which));
        std::fs::write(TABLE, table.to_string()).expect("the table can be written");
        return ExitCode::SUCCESS;
    }
    if measured_count == 0 {
        faults.push(format!("no operation is called {}", words.join(" or ")));
    }
    if faults.is_empty() {
        return ExitCode::SUCCESS;
    }
    faults.extend(table.differences(&facts));
    faults.push(format!("the profiles are in {}", callgrind::profiles().display()));
    fail(&faults)
}

fn fail(faults: &[String]) -> ExitCode {
    eprintln!("\nagainst {TABLE}:");
    for fault in faults {
        eprintln!("  {fault}");
    }
    ExitCode::FAILURE
}

/// Prints a figure beside the table's; what is wrong with it, if anything.
fn report(table: &Table, name: &str, cost: f64, tolerance: f64) -> Option<String> {
    let Some(row) = table.row(name) else {
        println!("{name:34}{cost:>12.1}");
        let why = TO_SAY.to_owned();
        let row = Row { name: name.to_owned(), cost, tolerance, why };
        return Some(format!("there is no row for this; it would be:\n{row}"));
    };
    let change = row.change(cost);
    println!("{name:34}{cost:>12.1}  table {:>12.1}  {change:+.2} %", row.cost);
    let now = Row { cost, why: TO_SAY.to_owned(), ..row.clone() };
    match row.judge(cost) {
        Verdict::Fine => None,
        Verdict::TooDear => {
            let advice = "If that is worth it, change the row and say why:";
            Some(format!("{name} costs {change:.1} % more. {advice}\n{now}"))
        }
        Verdict::Stale => {
            let advice = "So that this is not lost again, change the row and say why:";
            Some(format!("{name} costs {:.1} % less. {advice}\n{now}", -change))
        }
    }
}

/// As many descriptors as this process may have: a thousand clients need them.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the max");
}
