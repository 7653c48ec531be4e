//! Handlers that panic, block, flood or leak: each is isolated, reported and bounded. What a panic
//! in each callback does to its connection is in `hostile/panics.rs`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "misbehaviour/blocking.rs"]
mod blocking;
mod common;
#[path = "misbehaviour/flooding.rs"]
mod flooding;
#[path = "misbehaviour/leaking.rs"]
mod leaking;
#[path = "misbehaviour/panicking.rs"]
mod panicking;
#[path = "common/raw.rs"]
mod raw;

use std::time::Duration;

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);
