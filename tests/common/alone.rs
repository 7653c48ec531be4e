//! Tests of what belongs to the process (descriptors, memory, the log, processor time): each in
//! a process of its own, which is this program once more.

#![allow(clippy::print_stdout, reason = "what the other process has measured is passed on")]
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "skipped.rs"]
pub mod skipped;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use crate::common::within;

const CHILD: &str = "PEREGRINE_TEST_PROCESS";

/// Runs the test of this name, its modules included, in a process of its own.
pub fn alone(name: &str, limit: Duration, test: impl FnOnce() + Send + 'static) {
    if std::env::var_os(CHILD).is_some() {
        return within(limit, test);
    }
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    skipped::share_run(&mut child);
    let child = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output();
    let child = child.expect("a process");
    let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    // For those who look; and for everybody.
    print!("{said}");
    for line in said.lines().filter(|line| line.starts_with("skipped")) {
        writeln!(io::stderr(), "{name} is {line}").expect("a place to say so");
    }
}

/// The kernel's number of the thread that asks.
pub fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Tells the time on a processor that a thread of this process has had.
pub struct ProcessorClock(File);

impl ProcessorClock {
    pub fn new(thread: i32) -> Self {
        let path = format!("/proc/self/task/{thread}/schedstat");
        Self(File::open(path).expect("a Linux with schedstat"))
    }

    pub fn now(&self) -> Duration {
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0).expect("a line");
        let text = str::from_utf8(&text[..length]).expect("numbers");
        let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
        Duration::from_nanos(nanos.expect("a number"))
    }
}
