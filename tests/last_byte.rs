//! True to the last byte: work that a handler leaves is done however the connection ends, what was
//! reported as delivered arrives, and only a peer that is gone counts as gone.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "last_byte/alive.rs"]
mod alive;
mod common;
#[path = "last_byte/handshake.rs"]
mod handshake;
#[path = "last_byte/large.rs"]
mod large;
#[path = "last_byte/pages.rs"]
mod pages;
#[path = "common/raw.rs"]
mod raw;
#[path = "last_byte/work.rs"]
mod work;
