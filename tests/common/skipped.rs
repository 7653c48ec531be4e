//! Tests that are skipped, because this machine lacks something. Each says so when it runs;
//! `what_was_skipped`, the last test program, says all of it again.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

/// Names the run of `cargo test`, for processes that a test program starts.
const RUN: &str = "PEREGRINE_TEST_RUN";

/// One file for each run of `cargo test`.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("skipped")
}

/// The process id of cargo, which is the parent of each test program.
pub fn run() -> String {
    let parent = || rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    env::var(RUN).unwrap_or_else(|_| parent().to_string())
}

/// Makes a process that is started once more from this program part of the same run.
pub fn share_run(child: &mut Command) -> &mut Command {
    child.env(RUN, run())
}

/// Says that something is skipped, and why.
pub fn skip(what: &str, why: &str) {
    // Not by `eprintln`: the test runner would keep it to itself.
    writeln!(io::stderr(), "skipped {what}: {why}").expect("a place to say so");
    fs::create_dir_all(folder()).expect("a folder");
    let file = OpenOptions::new().create(true).append(true).open(folder().join(run()));
    file.and_then(|mut file| writeln!(file, "{what}: {why}")).expect("a place to note it");
}
