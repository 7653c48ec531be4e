//! What a server costs that is besieged: clients whose link is cut, who drip, flood, hoard or only
//! stay. What it spends on them is bounded, in memory and in processor time, and nobody else waits.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(clippy::print_stdout, reason = "what was measured is told to those who look")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "common/alone.rs"]
mod alone;
mod common;
#[path = "siege/floods.rs"]
mod floods;
#[path = "siege/half_open.rs"]
mod half_open;
#[path = "siege/link.rs"]
mod link;
#[path = "siege/process.rs"]
mod process;
#[path = "siege/processor.rs"]
mod processor;
#[path = "common/raw.rs"]
mod raw;
#[path = "siege/slow.rs"]
mod slow;

use std::time::Duration;

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a process has in memory, in bytes.
fn resident_bytes(process: &str) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("pages");
    pages * 4096
}
