//! Publications on their way from one sender to every member of an audience on this shard. A
//! broadcast is a publication to the topic of everybody.
//!
//! Publications are appended to a **log**, encoded once, neighbours to the same audience in one
//! buffer. If some members take another encoding, a run of neighbours is kept in both forms. Each
//! connection remembers how far in the log it is; *catching up* gives it references to what is for
//! it and it has not got. A direct send to a connection, and a change of its memberships, first
//! lets it catch up: so sends and publications keep their order, and a subscription counts from its
//! own place in that order. Otherwise a **pass** looks at all members once a turn, in slices; what
//! all have got is dropped.
//!
//! Knows the log and where the pass stands; must not know how frames reach a connection.

pub(in crate::shard) mod audience;

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::hub::ticket::Tally;
use crate::hub::{ConnectionId, Slot};
use crate::protocol::parcel::Encoding;
use crate::shard::fanout::audience::{AudienceIndex, Audiences, Place, Position};

/// From this size on a frame is not copied into the shared buffer but referred to, in bytes.
const REFER_BYTES: usize = 4 << 10;
/// How much one run gathers, in bytes: what fits is copied together, for one write.
const RUN_BYTES: usize = 64 << 10;
/// How much the log may hold before publications are refused, in bytes.
const LOG_BYTES: usize = 64 << 20;
/// How many runs the log may hold before nothing is read any more that might add to it: each is
/// due to every member, and until they have got them, others wait.
const LOG_RUN_COUNT: usize = 128;

/// What each publication counts for beside its frame, in bytes: at worst it is a run of its own.
const ENTRY_BYTES: usize = size_of::<Run>() + size_of::<Position>();

/// Neighbouring publications to one audience: frames to be delivered together.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Run {
    audience: AudienceIndex,
    pub(in crate::shard) except: Option<ConnectionId>,
    /// All of it in the plain form.
    plain: Bytes,
    /// The same for members that take another encoding, if any message of it differs there.
    twin: Option<Box<Bytes>>,
    pub(in crate::shard) message_count: u32,
    /// Who counts the deliveries; such a run is one publication.
    pub(in crate::shard) tally: Option<Tally>,
}

impl Run {
    /// The frames for a member that takes this encoding.
    #[inline]
    pub(in crate::shard) fn frames(&self, encoding: Encoding) -> &Bytes {
        match &self.twin {
            Some(twin) if !encoding.is_plain() => twin,
            _ => &self.plain,
        }
    }

    /// What it counts for in the log, in bytes.
    fn weight(&self) -> usize {
        let twin_bytes = self.twin.as_ref().map_or(0, |twin| twin.len());
        self.plain.len() + twin_bytes + ENTRY_BYTES * self.message_count as usize
    }
}

#[derive(Debug)]
pub(in crate::shard) struct Fanout {
    pub(in crate::shard) audiences: Audiences,
    runs: VecDeque<Run>,
    /// The position of the first run.
    first: Position,
    /// The run that is still growing: it comes after all others.
    open: Option<OpenRun>,
    buffer: BytesMut,
    /// The growing run in its second form; empty as long as none of its messages differs there.
    twin_buffer: BytesMut,
    bytes: usize,
    pass: Pass,
}

#[derive(Debug)]
struct OpenRun {
    audience: AudienceIndex,
    except: Option<ConnectionId>,
    message_count: u32,
}

/// A visit to all members who may not have got the log up to some position.
#[derive(Debug, Default)]
struct Pass {
    /// The audiences still to visit, the current one last.
    audiences: Vec<AudienceIndex>,
    end: Position,
    /// The next place of the current audience.
    next: Place,
}

impl Fanout {
    pub(in crate::shard) fn new(endpoint_count: usize) -> Self {
        Self {
            audiences: Audiences::new(endpoint_count),
            runs: VecDeque::new(),
            first: 0,
            open: None,
            buffer: BytesMut::new(),
            twin_buffer: BytesMut::new(),
            bytes: 0,
            pass: Pass::default(),
        }
    }

    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.open.is_none()
    }

    /// Whether more publications may be appended.
    pub(in crate::shard) fn has_room(&self) -> bool {
        self.bytes < LOG_BYTES
    }

    /// Whether what was published should be delivered before more is asked for.
    #[inline]
    pub(in crate::shard) fn is_behind(&self) -> bool {
        !self.has_room() || self.runs.len() >= LOG_RUN_COUNT
    }

    /// Appends one message for all members of an audience but one, in its plain form and, if some
    /// of them are to get that, in its second form.
    pub(in crate::shard) fn append(
        &mut self,
        audience: AudienceIndex,
        except: Option<ConnectionId>,
        frame: &Bytes,
        twin: Option<&Bytes>,
        tally: Option<Tally>,
    ) {
        if frame.len() >= REFER_BYTES || tally.is_some() {
            self.close_run();
            let (plain, twin) = (frame.clone(), twin.cloned().map(Box::new));
            let run = Run { audience, except, plain, twin, message_count: 1, tally };
            self.bytes += run.weight();
            self.push(run);
            return;
        }
        self.bytes += frame.len() + ENTRY_BYTES;
        match &mut self.open {
            Some(open)
                if open.audience == audience
                    && open.except == except
                    && self.buffer.len() + frame.len() <= RUN_BYTES =>
            {
                open.message_count += 1;
            }
            _ => {
                self.close_run();
                self.open = Some(OpenRun { audience, except, message_count: 1 });
            }
        }
        if twin.is_some() || !self.twin_buffer.is_empty() {
            self.gather_twin(twin.unwrap_or(frame));
        }
        self.buffer.put_slice(frame);
    }

    /// Adds a message to the second form of the growing run, before it is added to the first.
    #[cold]
    fn gather_twin(&mut self, frame: &[u8]) {
        let before = self.twin_buffer.len();
        if self.twin_buffer.is_empty() {
            // The messages so far have one form only.
            self.twin_buffer.put_slice(&self.buffer);
        }
        self.twin_buffer.put_slice(frame);
        self.bytes += self.twin_buffer.len() - before;
    }

    /// Ends the growing run, so that it can be referred to.
    fn close_run(&mut self) {
        if let Some(OpenRun { audience, except, message_count }) = self.open.take() {
            let plain = self.buffer.split().freeze();
            let twin = if self.twin_buffer.is_empty() { None } else { self.take_twin() };
            self.push(Run { audience, except, plain, twin, message_count, tally: None });
        }
    }

    /// The second form of the growing run, which ends.
    #[cold]
    fn take_twin(&mut self) -> Option<Box<Bytes>> {
        Some(Box::new(self.twin_buffer.split().freeze()))
    }

    fn push(&mut self, run: Run) {
        self.audiences.note(run.audience, self.first + self.runs.len() as u64);
        self.runs.push_back(run);
    }

    /// The position after all that was appended. A new member begins here.
    #[inline]
    pub(in crate::shard) fn end(&mut self) -> Position {
        if self.open.is_some() {
            self.close_run();
        }
        self.first + self.runs.len() as u64
    }

    /// The run at a position that is due to somebody.
    #[inline]
    pub(in crate::shard) fn run(&self, position: Position) -> Option<&Run> {
        let at = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.runs.get(at)
    }

    /// The next member to visit, at the cost of some budget; `None` when it is used up or nothing
    /// is left to do.
    pub(in crate::shard) fn next_member(&mut self, budget: &mut usize) -> Option<Slot> {
        loop {
            if let Some(&index) = self.pass.audiences.last() {
                while let Ok(member) = self.audiences.member(index, self.pass.next) {
                    *budget = budget.checked_sub(1)?;
                    self.pass.next += 1;
                    if member.is_some() {
                        return member;
                    }
                }
            }
            if !self.next_audience() {
                return None;
            }
        }
    }

    /// Goes on to the next audience to visit. Returns whether there is one.
    #[inline(never)]
    fn next_audience(&mut self) -> bool {
        if self.pass.audiences.pop().is_some() && self.pass.audiences.is_empty() {
            self.drop_before(self.pass.end);
        }
        self.pass.next = 0;
        if self.pass.audiences.is_empty() && !self.is_empty() {
            self.begin_pass();
        }
        !self.pass.audiences.is_empty()
    }

    /// Begins to visit all whom the log addresses by now.
    fn begin_pass(&mut self) {
        self.pass.end = self.end();
        let audiences = &mut self.pass.audiences;
        for run in &self.runs {
            audiences.push(run.audience);
        }
        audiences.sort_unstable();
        audiences.dedup();
    }

    /// Drops the runs before `end`: all members have got them.
    fn drop_before(&mut self, end: Position) {
        while self.first < end {
            let Some(run) = self.runs.pop_front() else { break };
            self.bytes -= run.weight();
            self.first += 1;
            self.audiences.forget_oldest(run.audience);
        }
    }

    /// Asserts that the log, what it weighs, and what the audiences have pending agree.
    #[cfg(feature = "testing")]
    pub(in crate::shard) fn check_invariants(&self) {
        self.audiences.check_invariants();
        assert_eq!(self.audiences.pending_count(), self.runs.len(), "each run is pending once");
        let mut due = Vec::new();
        let open_count = self.open.as_ref().map_or(0, |open| open.message_count as usize);
        let mut bytes = self.buffer.len() + self.twin_buffer.len() + ENTRY_BYTES * open_count;
        for (position, run) in (self.first..).zip(&self.runs) {
            due.clear();
            self.audiences.due(run.audience, position, &mut due);
            assert_eq!(due.first(), Some(&position), "{run:?} is pending");
            assert!(run.message_count > 0 && !run.plain.is_empty(), "an empty run: {run:?}");
            let twin_bytes = run.twin.as_ref().map(|twin| twin.len());
            assert!(twin_bytes.is_none_or(|bytes| 0 < bytes && bytes < run.plain.len()), "{run:?}");
            bytes += run.plain.len() + twin_bytes.unwrap_or(0);
            bytes += ENTRY_BYTES * run.message_count as usize;
        }
        assert_eq!(self.bytes, bytes, "what the log weighs");
        assert!(self.twin_buffer.len() <= self.buffer.len(), "the second form is the shorter one");
        assert_eq!(self.open.is_none(), self.buffer.is_empty(), "only what grows is in the buffer");
        if let Some(open) = &self.open {
            let member_count = self.audiences.member_count(open.audience);
            assert!(member_count > 0, "who leaves catches up first, which ends the run");
        }
        let end = self.first + self.runs.len() as u64;
        assert!(self.pass.audiences.is_empty() || self.pass.end <= end, "a pass beyond the log");
    }
}

#[cfg(feature = "testing")]
impl Fanout {
    /// Whether the log reaches as far as this.
    pub(in crate::shard) fn reaches(&self, position: Position) -> bool {
        position <= self.first + self.runs.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_many_runs_is_behind_before_it_is_full_and_until_all_have_got_it() {
        let mut fanout = Fanout::new(1);
        let everyone = Audiences::everyone(0);
        for slot in 0..3 {
            fanout.audiences.join(everyone, slot, Encoding::Plain);
        }
        // Small ones are gathered: that costs each member one run.
        for _ in 0..10 * LOG_RUN_COUNT {
            fanout.append(everyone, None, &Bytes::from_static(b"small"), None, None);
            assert!(!fanout.is_behind());
        }
        let large = Bytes::from(vec![7; REFER_BYTES]);
        while !fanout.is_behind() {
            fanout.append(everyone, None, &large, None, None);
        }
        assert!(fanout.runs.len() == LOG_RUN_COUNT && fanout.has_room());
        let (mut budget, mut visits) = (usize::MAX, Vec::new());
        while let Some(slot) = fanout.next_member(&mut budget) {
            assert!(fanout.is_behind());
            visits.push(slot);
        }
        assert_eq!(visits, [0, 1, 2]);
        assert!(fanout.is_empty() && !fanout.is_behind());
    }
}
