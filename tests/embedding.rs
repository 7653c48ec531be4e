//! What a server does to the process that embeds it, and that process to the server: the port, the
//! shards' threads, the limit of descriptors, the log.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "common/alone.rs"]
mod alone;
mod common;
#[path = "embedding/port.rs"]
mod port;
#[path = "common/process.rs"]
mod process;
#[path = "common/raw.rs"]
mod raw;
#[path = "embedding/start.rs"]
mod start_and_stop;
#[path = "embedding/threads.rs"]
mod threads;

use std::time::Duration;

use peregrine::Callbacks;

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);

fn echo() -> Callbacks<()> {
    Callbacks::new().on_message(|_, message| message.into())
}
