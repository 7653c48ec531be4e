//! Pipes in memory on their way from the shard that accepted them to another one, for the test kit.
//!
//! Knows which descriptor stands for which pipe. Must not know the shards.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::memory::ServerEnd;

thread_local! {
    /// Pipes on their way between two shards, which are on one thread then. What travels is a
    /// descriptor that stands for them.
    static DEPOSITED: RefCell<HashMap<RawFd, ServerEnd>> = RefCell::default();
}

/// Gives a pipe a descriptor to travel under.
pub(crate) fn deposit(end: ServerEnd) -> OwnedFd {
    let descriptor = match File::open("/dev/null") {
        Ok(file) => OwnedFd::from(file),
        Err(error) => panic!("the test kit needs a descriptor: {error}"),
    };
    let before = DEPOSITED.with_borrow_mut(|ends| ends.insert(descriptor.as_raw_fd(), end));
    drop(before);
    descriptor
}

/// The pipe that travelled under this descriptor; `Err` if it is a socket of its own.
pub(crate) fn collect(descriptor: OwnedFd) -> Result<ServerEnd, OwnedFd> {
    DEPOSITED.with_borrow_mut(|ends| ends.remove(&descriptor.as_raw_fd())).ok_or(descriptor)
}
