//! [`Arrivals`]: connections in memory that wait to be accepted, and what may go wrong with that.
//!
//! Knows connections as things that come. Must not know who drives the shard.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use rustix::io::Errno;

use super::memory::ServerEnd;

/// The connections that wait to be accepted. The listener and the test share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(Rc<RefCell<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(ServerEnd, SocketAddr)>,
    /// What the next attempts to accept fail with.
    failures: VecDeque<Errno>,
    has_readiness: bool,
}

impl Arrivals {
    pub(crate) fn push(&self, end: ServerEnd, peer: SocketAddr) {
        let mut queue = self.0.borrow_mut();
        queue.waiting.push_back((end, peer));
        queue.has_readiness = true;
    }

    /// The next attempt to accept fails: the process has no descriptor left.
    pub(crate) fn exhaust(&self) {
        self.0.borrow_mut().failures.push_back(Errno::MFILE);
    }

    /// The next attempt to accept fails: that one has gone again.
    pub(crate) fn abort_one(&self) {
        self.0.borrow_mut().failures.push_back(Errno::CONNABORTED);
    }

    /// The listener is closed: connections that wait are lost.
    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut self.0.borrow_mut().waiting);
        drop(waiting);
    }

    /// Whether somebody has come since the last call.
    pub(crate) fn take_readiness(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().has_readiness)
    }

    /// Whether somebody waits of whom the listener was told.
    pub(crate) fn has_waiting(&self) -> bool {
        let queue = self.0.borrow();
        !queue.waiting.is_empty() && !queue.has_readiness
    }

    pub(in crate::transport) fn accept(&self) -> io::Result<(ServerEnd, SocketAddr)> {
        let mut queue = self.0.borrow_mut();
        if let Some(failure) = queue.failures.pop_front() {
            return Err(failure.into());
        }
        Ok(queue.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?)
    }
}
