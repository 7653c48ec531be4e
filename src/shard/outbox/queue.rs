//! [`Queue`]: the segments of an outbox while something is queued, and what has begun to leave.
//!
//! Knows bytes, and as much of frames as it needs to drop whole ones. Must not know connections.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::error::SendError;
use crate::hub::ticket::Ticket;
use crate::protocol::frame::{self, Header};
use crate::transport::{Output, Transport};

/// How many segments go into one write.
pub(super) const SEGMENTS_PER_WRITE: usize = 32;

/// What a segment costs beside its bytes, which have an allocation of their own and may have a
/// ticket with a future.
pub(super) const SEGMENT_BYTES: usize = 192;

/// From this size on, frames that others share are referred to instead of copied, in bytes. What is
/// smaller would keep a larger buffer alive for long.
pub(in crate::shard) const REFER_BYTES: usize = 16 << 10;

/// How much is copied together into one segment, in bytes: what is written or dropped of it gives
/// no memory back before all of it is.
pub(super) const TAIL_BYTES: usize = 64 << 10;

/// Each segment holds whole frames; only the first may have been written in part.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) segments: VecDeque<Segment>,
    /// The segment after all others: small frames are copied together here.
    pub(super) tail: Vec<u8>,
    /// Invariant: the sum of what is left of all segments.
    pub(super) bytes: usize,
    /// How much of it, from the front, does not count against what is queued behind it.
    pub(super) exempt_bytes: usize,
    pub(super) begun: Begun,
    /// How much, from the front, the transport holds: see [`Transport::held_bytes`].
    pub(super) held_bytes: usize,
}

/// A message that was dropped. Its ticket is settled by the caller, who first counts it: the sender
/// may look at the counter at once.
#[derive(Debug)]
#[must_use = "it is to be counted, then settled"]
pub(in crate::shard) struct Dropped(Option<Ticket>);

impl Dropped {
    pub(in crate::shard) fn settle(self) {
        if let Some(ticket) = self.0 {
            ticket.settle(Err(SendError::Overloaded));
        }
    }
}

/// What nothing may come before or between: what is left of a frame that has begun to leave, or of
/// the HTTP before the first frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Begun {
    pub(super) bytes: usize,
    /// Whether a message ends with it.
    pub(super) ends_message: bool,
}

impl Begun {
    /// So many bytes that are no frames.
    pub(in crate::shard) fn http(bytes: usize) -> Self {
        Self { bytes, ends_message: false }
    }

    /// What is left of the frame that a message ends with.
    pub(in crate::shard) fn message(bytes: usize) -> Self {
        Self { bytes, ends_message: true }
    }

    /// What has begun when `written` bytes of `frames` have left, which begin with what had begun
    /// before.
    pub(in crate::shard) fn after(self, frames: &[u8], written: usize) -> Self {
        let Self { bytes: mut end, mut ends_message } = self;
        while end < written {
            let Some(frame) = frame_bytes(&frames[end..]) else { break };
            ends_message = frame::ends_message(&frames[end..]);
            end += frame;
        }
        if end > written { Self { bytes: end - written, ends_message } } else { Self::default() }
    }

    /// How many bytes of it are left.
    pub(in crate::shard) fn bytes(self) -> usize {
        self.bytes
    }

    /// What is left of it after so many bytes.
    pub(super) fn past(self, bytes: usize) -> Self {
        match self.bytes.checked_sub(bytes) {
            Some(left @ 1..) => Self { bytes: left, ..self },
            _ => Self::default(),
        }
    }
}

/// Frames that leave one after another.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) frames: Bytes,
    /// Settled when the last byte has left; a segment that has one is a single message.
    pub(super) ticket: Option<Ticket>,
}

impl From<Bytes> for Segment {
    fn from(frames: Bytes) -> Self {
        Self { frames, ticket: None }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Flushed {
    Empty,
    Blocked,
    Broken,
}

impl Queue {
    #[cfg(feature = "testing")]
    pub(super) fn check_invariants(&self) {
        let lengths = self.segments.iter().map(|segment| segment.frames.len());
        assert_eq!(self.bytes, lengths.clone().sum::<usize>() + self.tail.len(), "{self:?}");
        assert!(lengths.clone().all(|length| length > 0), "an empty segment: {self:?}");
        assert!(self.begun_bytes() <= self.bytes, "more has begun than there is: {self:?}");
        assert!(self.exempt_bytes <= self.bytes, "more is exempt than there is: {self:?}");
        let (at, begun) = self.begun_end();
        for (index, segment) in self.segments.iter().enumerate().skip(at) {
            let is_begun = index == at && begun > 0;
            if segment.ticket.is_some() && !is_begun {
                let length = frame_bytes(&segment.frames);
                assert_eq!(length, Some(segment.frames.len()), "a ticket for one frame: {self:?}");
            }
        }
    }

    /// What the segments themselves take, beyond those of one write.
    #[inline]
    pub(super) fn overhead_bytes(&self) -> usize {
        self.segments.len().saturating_sub(SEGMENTS_PER_WRITE) * SEGMENT_BYTES
    }

    /// Queues whole frames.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "the call alone costs a tenth of queueing shared frames"
    )]
    pub(super) fn push(&mut self, frames: Bytes) {
        if frames.len() < REFER_BYTES {
            self.push_slice(&frames);
        } else {
            self.bytes += frames.len();
            self.end_tail();
            self.segments.push_back(frames.into());
        }
    }

    /// Queues a message somebody wants to be told of.
    pub(super) fn push_with_ticket(&mut self, frame: Bytes, ticket: Ticket) {
        self.bytes += frame.len();
        self.end_tail();
        let is_small = frame.len() < REFER_BYTES;
        let frames = if is_small { Bytes::copy_from_slice(&frame) } else { frame };
        self.segments.push_back(Segment { frames, ticket: Some(ticket) });
    }

    /// Queues whole frames, which are copied.
    #[inline]
    pub(super) fn push_slice(&mut self, frames: &[u8]) {
        self.bytes += frames.len();
        self.make_tail_room(frames.len());
        self.tail.extend_from_slice(frames);
    }

    /// Ends a tail that would become too long with so many bytes more.
    #[inline]
    pub(super) fn make_tail_room(&mut self, bytes: usize) {
        if self.tail.len() + bytes > TAIL_BYTES {
            self.end_tail();
        }
    }

    /// Makes a segment of the tail.
    #[inline]
    pub(super) fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = Bytes::from(std::mem::take(&mut self.tail));
            self.segments.push_back(tail.into());
        }
    }

    /// Queues a control frame before all that has not begun to leave.
    pub(super) fn push_control(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.end_tail();
        let (mut at, mut end) = self.begun_end();
        if self.begun_bytes() < self.exempt_bytes {
            self.exempt_bytes += frame.len();
        }
        // Control frames keep their order among themselves.
        while let Some(segment) = self.segments.get(at) {
            let rest = &segment.frames[end..];
            let controls = control_bytes(rest);
            end += controls;
            if controls < rest.len() {
                break;
            }
            (at, end) = (at + 1, 0);
        }
        if end > 0 {
            let segment = &mut self.segments[at];
            let rest =
                Segment { frames: segment.frames.split_off(end), ticket: segment.ticket.take() };
            at += 1;
            self.segments.insert(at, rest);
        }
        self.segments.insert(at, frame.into());
    }

    /// How much, from the front, has begun to leave: whole frames, after what is left of the first.
    pub(super) fn begun_bytes(&self) -> usize {
        let Self { begun, held_bytes, .. } = self;
        let mut end = begun.bytes;
        while end < *held_bytes {
            let (at, skip) = self.place_of(end);
            let Some(segment) = self.segments.get(at) else { break };
            end += begun_bytes(&segment.frames[skip..], 0, held_bytes - end);
        }
        end
    }

    /// Where what has begun to leave ends: the segment, and how far in it.
    pub(super) fn begun_end(&self) -> (usize, usize) {
        self.place_of(self.begun_bytes())
    }

    /// Where so many bytes end: the segment, and how far in it.
    pub(super) fn place_of(&self, mut bytes: usize) -> (usize, usize) {
        for (at, segment) in self.segments.iter().enumerate() {
            if bytes < segment.frames.len() {
                return (at, bytes);
            }
            bytes -= segment.frames.len();
        }
        (self.segments.len(), 0)
    }

    /// How many messages are queued, one that has begun to leave included.
    pub(super) fn message_count(&mut self) -> u64 {
        self.end_tail();
        let (at, mut begun) = self.place_of(self.begun.bytes);
        let mut count = u64::from(self.begun.ends_message);
        for segment in self.segments.iter().skip(at) {
            count += count_messages(&segment.frames[std::mem::take(&mut begun)..]);
        }
        count
    }

    /// Drops the oldest data frame that has not begun to leave; `None` if there is none.
    pub(super) fn drop_oldest(&mut self) -> Option<Dropped> {
        let dropped = self.drop_oldest_of_segments();
        if dropped.is_some() {
            return dropped;
        }
        // Only now: a tail that is ended for each message would make a segment of each.
        self.end_tail();
        self.drop_oldest_of_segments()
    }

    fn drop_oldest_of_segments(&mut self) -> Option<Dropped> {
        let (first, mut skip) = self.place_of(self.begun_bytes().max(self.exempt_bytes));
        for at in first..self.segments.len() {
            let segment = &mut self.segments[at];
            if matches!(segment.ticket, Some(Ticket::Piece(_))) {
                // A message would lose its middle.
                skip = 0;
                continue;
            }
            let frames = &mut segment.frames;
            while let Some(frame) = frame_bytes(&frames[skip..]) {
                if is_control(frames[skip]) {
                    skip += frame;
                    continue;
                }
                let mut tail = frames.split_off(skip);
                tail.advance(frame);
                self.bytes -= frame;
                let dropped = Dropped(segment.ticket.take());
                let is_spent = frames.is_empty();
                match (is_spent, tail.is_empty()) {
                    (true, true) => drop(self.segments.remove(at)),
                    (true, false) => *frames = tail,
                    (false, true) => {}
                    (false, false) => self.segments.insert(at + 1, tail.into()),
                }
                return Some(dropped);
            }
            skip = 0;
        }
        None
    }

    /// Hands to the kernel what it takes.
    #[inline]
    pub(super) fn write(&mut self, transport: &mut Transport) -> Flushed {
        if self.bytes == 0 {
            return Flushed::Empty;
        }
        if self.segments.is_empty() {
            // A few small frames: the usual case of a direct send.
            let output = transport.write(&self.tail);
            if output == Output::Bytes(self.tail.len()) {
                return Flushed::Empty;
            }
            self.end_tail();
            let Output::Bytes(written) = output else { return Flushed::Broken };
            self.advance(written);
            self.held_bytes = transport.held_bytes();
            return Flushed::Blocked;
        }
        self.end_tail();
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SEGMENTS_PER_WRITE];
            let count = self.segments.len().min(SEGMENTS_PER_WRITE);
            let mut offered = 0;
            for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                *slice = IoSlice::new(&segment.frames);
                offered += segment.frames.len();
            }
            match transport.write_vectored(&slices[..count]) {
                Output::Bytes(written) => {
                    self.advance(written);
                    if written < offered {
                        self.held_bytes = transport.held_bytes();
                        return Flushed::Blocked;
                    }
                }
                Output::Broken => return Flushed::Broken,
            }
        }
        Flushed::Empty
    }

    /// Removes written bytes from the front.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "the call alone costs a tenth of writing shared frames"
    )]
    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        self.exempt_bytes = self.exempt_bytes.saturating_sub(written);
        while let Some(Segment { frames, ticket }) = self.segments.front_mut() {
            if written < frames.len() {
                self.begun = self.begun.after(frames, written);
                frames.advance(written);
                return;
            }
            written -= frames.len();
            self.begun = self.begun.past(frames.len());
            if let Some(ticket) = ticket.take() {
                ticket.settle(Ok(()));
            }
            self.segments.pop_front();
        }
    }
}

/// The length of the whole frame that begins here; `None` at the end, or if what stands here is
/// not a frame but the HTTP that came before the first one.
pub(super) fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = Header::parse(bytes)?;
    let payload = usize::try_from(header.payload_bytes).ok()?;
    Header::length(bytes[1]).checked_add(payload).filter(|&length| length <= bytes.len())
}

/// How much of these frames has begun to leave if the transport holds so many bytes of them, and so
/// many, which need not be frames, have begun to leave in any case: whole frames after those.
pub(in crate::shard) fn begun_bytes(frames: &[u8], begun_bytes: usize, held_bytes: usize) -> usize {
    let mut end = begun_bytes;
    while end < held_bytes.min(frames.len()) {
        let Some(frame) = frame_bytes(&frames[end..]) else { return frames.len() };
        end += frame;
    }
    end
}

/// The frames that stand here.
pub(super) fn each_frame(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    std::iter::from_fn(move || {
        let (frame, rest) = bytes.split_at(frame_bytes(bytes)?);
        bytes = rest;
        Some(frame)
    })
}

/// How long the control frames are that these frames begin with.
pub(super) fn control_bytes(frames: &[u8]) -> usize {
    each_frame(frames).take_while(|frame| is_control(frame[0])).map(<[u8]>::len).sum()
}

/// Frames that have to wait, the pongs among them before the others: they do not wait for data, and
/// keep their order with those that come later.
pub(in crate::shard) fn pongs_first(frames: &[u8]) -> Cow<'_, [u8]> {
    let is_pong = |frame: &&[u8]| frame::is_pong(frame);
    if !each_frame(frames).any(|frame| is_pong(&frame)) {
        return Cow::Borrowed(frames);
    }
    let (pongs, others): (Vec<_>, Vec<_>) = each_frame(frames).partition(is_pong);
    Cow::Owned([pongs, others].concat().concat())
}

/// How many messages end in whole frames.
pub(in crate::shard) fn count_messages(frames: &[u8]) -> u64 {
    each_frame(frames).filter(|frame| frame::ends_message(frame)).count() as u64
}

pub(super) fn is_control(first: u8) -> bool {
    first & 0x08 != 0
}
