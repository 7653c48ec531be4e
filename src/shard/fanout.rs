//! Broadcasts on their way from one sender to every member of an audience on this shard.
//!
//! Broadcasts are appended to a **log**, encoded once, neighbours to the same audience in one
//! buffer. Each member remembers how far in the log it is; *catching up* gives it references to
//! what it has not seen. Whoever sends to a member directly lets it catch up first, so that sends
//! and broadcasts keep their order whatever way they take. Otherwise a **pass** visits all members
//! once a turn, in slices; what all have seen is dropped.
//!
//! Knows the log and where the pass stands; must not know how frames reach a connection.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::hub::{ConnectionId, EndpointIndex};

/// From this size on a frame is not copied into the shared buffer but referred to, in bytes.
const REFER_BYTES: usize = 4 << 10;
/// How much one run gathers, in bytes: what fits is copied together, for one write.
const RUN_BYTES: usize = 64 << 10;
/// How much the log may hold before broadcasts are refused, in bytes.
const LOG_BYTES: usize = 64 << 20;

/// What each broadcast counts for beside its frame, in bytes: at worst it is a run of its own.
const ENTRY_BYTES: usize = size_of::<Run>();

/// Neighbouring broadcasts to one audience: frames to be delivered together.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) endpoint: EndpointIndex,
    pub(super) except: Option<ConnectionId>,
    pub(super) frames: Bytes,
    pub(super) message_count: u32,
}

/// How far in the log a member is.
pub(super) type Position = u64;

#[derive(Debug, Default)]
pub(super) struct Log {
    runs: VecDeque<Run>,
    /// The position of the first run.
    first: Position,
    /// The run that is still growing: it comes after all others.
    open: Option<OpenRun>,
    buffer: BytesMut,
    bytes: usize,
}

#[derive(Debug)]
struct OpenRun {
    endpoint: EndpointIndex,
    except: Option<ConnectionId>,
    message_count: u32,
}

impl Log {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.open.is_none()
    }

    /// Whether more broadcasts may be appended.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < LOG_BYTES
    }

    /// Appends one frame for all members of the endpoint but one.
    pub(super) fn append(
        &mut self,
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        frame: Bytes,
    ) {
        self.bytes += frame.len() + ENTRY_BYTES;
        if frame.len() >= REFER_BYTES {
            self.close_run();
            self.runs.push_back(Run { endpoint, except, frames: frame, message_count: 1 });
            return;
        }
        match &mut self.open {
            Some(open)
                if open.endpoint == endpoint
                    && open.except == except
                    && self.buffer.len() + frame.len() <= RUN_BYTES =>
            {
                open.message_count += 1;
            }
            _ => {
                self.close_run();
                self.open = Some(OpenRun { endpoint, except, message_count: 1 });
            }
        }
        self.buffer.put_slice(&frame);
    }

    /// Ends the growing run, so that it can be referred to.
    fn close_run(&mut self) {
        if let Some(OpenRun { endpoint, except, message_count }) = self.open.take() {
            let frames = self.buffer.split().freeze();
            self.runs.push_back(Run { endpoint, except, frames, message_count });
        }
    }

    /// The position after all that was appended. A new member begins here.
    #[inline]
    pub(super) fn end(&mut self) -> Position {
        if self.open.is_some() {
            self.close_run();
        }
        self.first + self.runs.len() as u64
    }

    /// The position of the first run that some member may not have seen.
    pub(super) fn start(&self) -> Position {
        self.first
    }

    /// The run at a position.
    #[inline]
    pub(super) fn run(&self, position: Position) -> Option<&Run> {
        let at = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.runs.get(at)
    }

    /// The endpoints that runs before `end` address, each once.
    fn audiences(&self, end: Position) -> Vec<EndpointIndex> {
        let count = usize::try_from(end - self.first).unwrap_or(usize::MAX);
        let mut endpoints: Vec<_> = self.runs.iter().take(count).map(|run| run.endpoint).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    }

    /// Drops the runs before `end`: all members have seen them.
    fn drop_before(&mut self, end: Position) {
        while self.first < end {
            let Some(run) = self.runs.pop_front() else { break };
            self.bytes -= run.frames.len() + ENTRY_BYTES * run.message_count as usize;
            self.first += 1;
        }
    }
}

/// A visit to all members who have not seen the log up to some position.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// The audiences still to visit, the current one last.
    audiences: Vec<EndpointIndex>,
    end: Position,
    /// The index of the next member of the current audience.
    pub(super) next: usize,
}

impl Pass {
    /// The audience to visit, from the member at [`next`](Self::next) on; `None` when there is
    /// nothing to do. Begins a new pass when the last one is over.
    pub(super) fn audience(
        &mut self,
        log: &mut Log,
        member_count: impl Fn(EndpointIndex) -> usize,
    ) -> Option<EndpointIndex> {
        loop {
            if let Some(&endpoint) = self.audiences.last() {
                if self.next < member_count(endpoint) {
                    return Some(endpoint);
                }
                self.audiences.pop();
                self.next = 0;
                if self.audiences.is_empty() {
                    log.drop_before(self.end);
                }
            } else {
                if log.is_empty() {
                    return None;
                }
                self.end = log.end();
                self.audiences = log.audiences(self.end);
            }
        }
    }
}
