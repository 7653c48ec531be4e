//! No test: the last program of `cargo test`, because its name is the last. It lists the tests that
//! were skipped in this run, because this machine lacks something; see `common/skipped.rs`.

#[path = "common/skipped.rs"]
mod skipped;

use std::fs;
use std::io::{self, Write};

fn main() -> io::Result<()> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let list = fs::read_to_string(skipped::folder().join(skipped::run())).unwrap_or_default();
    // With what was left by runs that failed.
    let _ = fs::remove_dir_all(skipped::folder());
    let mut out = io::stderr();
    if list.is_empty() {
        return writeln!(out, "\nNo test was skipped.");
    }
    writeln!(out, "\nSkipped, for this machine lacks something:")?;
    list.lines().try_for_each(|line| writeln!(out, "- {line}"))
}
