//! [`Shard`]: the connections of one thread, and everything that may be done to them while a
//! handler runs: queueing, never calling another handler, never freeing.
//!
//! Knows outboxes, audiences and the ways to other shards. Must not know how events arrive, nor
//! what a handler is.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::connection::{Closing, Connection, Farewell, Leaving, Phase};
use super::fanout::{Log, Pass};
use super::links::Links;
use super::outbox::{Flushed, begun_after};
use super::timers::{Tick, Wheel};
use super::transport::Output;
use crate::config::{Limits, Overflow};
use crate::error::SendError;
use crate::hub::{Address, ConnectionId, EndpointIndex, Envelope, Hub};
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::protocol::frame;

/// The index of a connection in the slab.
pub(super) type Slot = usize;

/// When the own replies of one turn are handed to the kernel before the turn ends, in bytes.
const SCRATCH_BYTES: usize = 64 << 10;
/// From this size on a shared segment is referred to instead of copied, in bytes.
const REFER_BYTES: usize = 16 << 10;
/// What a new chunk for encoded frames holds, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: usize,
    pub(super) limits: Limits,
    pub(super) hub: Hub,
    pub(super) now: Instant,
    pub(super) connections: Slab<Connection>,
    pub(super) generation: u64,
    pub(super) links: Links,
    pub(super) wheel: Wheel,
    log: Log,
    pass: Pass,
    /// The open connections of each endpoint.
    members: Box<[Vec<Slot>]>,
    /// Whose turn it is; its own output goes to `scratch`.
    current: Option<Slot>,
    /// Output of the current connection, after what is in its outbox.
    pub(super) scratch: Vec<u8>,
    /// Where frames for others are encoded.
    chunk: BytesMut,
    /// The sum of all outboxes.
    queued_bytes: usize,
    /// Input is waiting, or may be.
    pub(super) ready: Vec<Address>,
    /// Output is waiting that the kernel might take.
    pub(super) dirty: Vec<Slot>,
    /// `on_close` is to be called.
    pub(super) leaving: Vec<Slot>,
    /// `on_drain` is to be called.
    pub(super) drained: Vec<Address>,
    /// To be freed at the end of the turn.
    pub(super) dead: Vec<Slot>,
}

/// What is to be sent: still to be encoded, or encoded and shared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outgoing<'o> {
    Message(Message<'o>),
    Frames(&'o Bytes),
}

impl Outgoing<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => frame::encoded_bytes(*message),
            Self::Frames(frames) => frames.len(),
        }
    }
}

impl Shard {
    pub(super) fn new(
        index: usize,
        endpoint_count: usize,
        limits: Limits,
        hub: Hub,
        now: Instant,
    ) -> Self {
        Self {
            index,
            links: Links::new(hub.clone(), index, &limits),
            limits,
            hub,
            now,
            connections: Slab::new(),
            generation: 0,
            wheel: Wheel::new(now),
            log: Log::default(),
            pass: Pass::default(),
            members: (0..endpoint_count).map(|_| Vec::new()).collect(),
            current: None,
            scratch: Vec::with_capacity(SCRATCH_BYTES),
            chunk: BytesMut::new(),
            queued_bytes: 0,
            ready: Vec::new(),
            dirty: Vec::new(),
            leaving: Vec::new(),
            drained: Vec::new(),
            dead: Vec::new(),
        }
    }

    // Getters.

    /// The slot of a connection that is still there.
    #[inline]
    pub(super) fn find(&self, address: Address) -> Option<Slot> {
        let slot = address.slot();
        let connection = self.connections.get(slot)?;
        (connection.address == address).then_some(slot)
    }

    pub(super) fn id(&self, slot: Slot) -> ConnectionId {
        let address = self.connections[slot].address;
        ConnectionId::new(self.hub.shared().node, self.index, address)
    }

    /// Whether a broadcast waits for members.
    pub(super) fn has_fanout(&self) -> bool {
        !self.log.is_empty()
    }

    /// Whether the log takes more broadcasts.
    pub(super) fn has_log_room(&self) -> bool {
        self.log.has_room()
    }

    /// What waits for this connection, scratch included.
    pub(super) fn buffered_bytes(&self, slot: Slot) -> usize {
        let own = if self.current == Some(slot) { self.scratch.len() } else { 0 };
        self.connections[slot].outbox.bytes() + own
    }

    // Lists.

    pub(super) fn make_ready(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if !std::mem::replace(&mut connection.flags.is_ready, true) {
            self.ready.push(connection.address);
        }
    }

    pub(super) fn make_dirty(&mut self, slot: Slot) {
        let flags = &mut self.connections[slot].flags;
        if !flags.is_blocked && !std::mem::replace(&mut flags.is_dirty, true) {
            self.dirty.push(slot);
        }
    }

    pub(super) fn kill(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        debug_assert!(!matches!(connection.phase, Phase::Open | Phase::Leaving(_)));
        if !connection.is_dead() {
            connection.phase = Phase::Dead;
            self.queued_bytes -= connection.outbox.bytes();
            connection.outbox.clear();
            self.dead.push(slot);
        }
    }

    /// Arms the timer for this instant, unless it fires before.
    pub(super) fn arm(&mut self, slot: Slot, due: Instant) {
        let connection = &mut self.connections[slot];
        connection.armed = self.wheel.arm(connection.address, due);
    }

    pub(super) fn is_armed(&self, slot: Slot, tick: Tick) -> bool {
        self.connections[slot].armed == tick
    }

    pub(super) fn count_dropped(&self, count: u64) {
        let mailbox = &self.hub.shared().mailboxes[self.index];
        mailbox.dropped_count.fetch_add(count, Ordering::Relaxed);
    }

    // Membership.

    pub(super) fn join(&mut self, slot: Slot, endpoint: EndpointIndex) {
        let members = &mut self.members[usize::from(endpoint)];
        let connection = &mut self.connections[slot];
        connection.endpoint = endpoint;
        connection.member = members.len();
        connection.position = self.log.end();
        members.push(slot);
    }

    fn leave(&mut self, slot: Slot) {
        // What was broadcast before is still delivered.
        self.catch_up(slot);
        let connection = &self.connections[slot];
        if !connection.is_open() {
            // Catching up overflowed its outbox: it has left meanwhile.
            return;
        }
        let (endpoint, member) = (usize::from(connection.endpoint), connection.member);
        // The last member moves to the freed place, which a pass may have visited already: so it
        // catches up now. That may make it leave, too; then another one is last.
        while let Some(&last) = self.members[endpoint].last()
            && last != slot
        {
            self.catch_up(last);
            if self.members[endpoint].last() == Some(&last) {
                self.connections[last].member = member;
                break;
            }
        }
        let left = self.members[endpoint].swap_remove(member);
        debug_assert_eq!(left, slot, "a member stands where it says");
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Slot> {
        self.members.iter().flatten().copied()
    }

    // Sending.

    /// Sends to the connection whose handler runs.
    #[inline]
    pub(super) fn send_own(&mut self, slot: Slot, message: Message<'_>) -> Result<(), SendError> {
        if !self.connections[slot].is_open() {
            return Err(SendError::Closed);
        }
        self.catch_up(slot);
        self.push(slot, Outgoing::Message(message))
    }

    /// Sends what the handler returned; allowed also once it has asked to close.
    #[inline]
    pub(super) fn reply(&mut self, slot: Slot, message: Message<'_>) {
        self.catch_up(slot);
        if self.push(slot, Outgoing::Message(message)).is_err() {
            // There is nobody to tell but the counter.
            self.count_dropped(1);
        }
    }

    /// Sends to any connection of the server, for the handler of another.
    pub(super) fn send_to(
        &mut self,
        id: ConnectionId,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        if id.node() != self.hub.shared().node {
            return Err(SendError::Gone);
        }
        if id.shard() != self.index {
            let frame = self.encode(message);
            return self.links.send(id.shard(), Envelope::Send { to: id.address(), frame });
        }
        self.send_here(id.address(), Outgoing::Message(message))
    }

    /// Sends to a connection of this shard.
    pub(super) fn send_here(
        &mut self,
        to: Address,
        outgoing: Outgoing<'_>,
    ) -> Result<(), SendError> {
        let slot = self.find(to).ok_or(SendError::Gone)?;
        if !self.connections[slot].is_open() {
            let is_own = self.current == Some(slot);
            return Err(if is_own { SendError::Closed } else { SendError::Gone });
        }
        self.catch_up(slot);
        self.push(slot, outgoing)
    }

    /// Broadcasts to an endpoint on all shards, for a handler.
    pub(super) fn broadcast(
        &mut self,
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        if !self.log.has_room() {
            return Err(SendError::Overloaded);
        }
        let frame = self.encode(message);
        self.links.broadcast(endpoint, except, &frame)?;
        self.broadcast_here(endpoint, except, frame);
        Ok(())
    }

    /// Broadcasts to an endpoint on this shard.
    pub(super) fn broadcast_here(
        &mut self,
        endpoint: EndpointIndex,
        except: Option<ConnectionId>,
        frame: Bytes,
    ) {
        // Whoever is excepted lives here, or does not matter here.
        let except = except.filter(|id| id.shard() == self.index);
        if !self.members[usize::from(endpoint)].is_empty() {
            self.log.append(endpoint, except, frame);
        }
    }

    /// Encodes a message for others.
    fn encode(&mut self, message: Message<'_>) -> Bytes {
        let bytes = frame::encoded_bytes(message);
        if self.chunk.capacity() - self.chunk.len() < bytes {
            self.chunk.reserve(bytes.max(CHUNK_BYTES));
        }
        frame::encode(&mut self.chunk, message);
        self.chunk.split().freeze()
    }

    /// Gives a member what was broadcast and it has not seen yet.
    #[inline]
    fn catch_up(&mut self, slot: Slot) {
        if !self.log.is_empty() && self.connections[slot].is_open() {
            self.catch_up_slowly(slot);
        }
    }

    fn catch_up_slowly(&mut self, slot: Slot) {
        let end = self.log.end();
        let endpoint = self.connections[slot].endpoint;
        let id = self.id(slot);
        // What a member of a quiet endpoint has missed of the busy ones is long gone.
        let start =
            std::mem::replace(&mut self.connections[slot].position, end).max(self.log.start());
        for position in start..end {
            let Some(run) = self.log.run(position) else { continue };
            if run.endpoint != endpoint || run.except == Some(id) {
                continue;
            }
            let (frames, message_count) = (run.frames.clone(), run.message_count);
            if self.push(slot, Outgoing::Frames(&frames)).is_err() {
                self.count_dropped(u64::from(message_count));
                if !self.connections[slot].is_open() {
                    return;
                }
            }
        }
    }

    /// Visits members who have broadcasts to catch up with, at most `budget` of them.
    pub(super) fn fan_out(&mut self, budget: usize) {
        for _ in 0..budget {
            let members = &self.members;
            let member_count = |endpoint: EndpointIndex| members[usize::from(endpoint)].len();
            let Some((endpoint, at)) = self.pass.next(&mut self.log, member_count) else { return };
            let slot = self.members[usize::from(endpoint)][at];
            self.deliver(slot);
        }
    }

    /// Lets one member catch up and hands what it got to the kernel.
    fn deliver(&mut self, slot: Slot) {
        let connection = &self.connections[slot];
        let is_idle = connection.outbox.is_empty() && !connection.flags.is_blocked;
        if !is_idle {
            self.catch_up(slot);
            return;
        }
        // It borrows the scratch, as the connection whose turn it is does.
        debug_assert!(self.current.is_none() && self.scratch.is_empty());
        let end = self.log.end();
        let position = self.connections[slot].position;
        let id = self.id(slot);
        let is_single = position + 1 == end;
        match self.log.run(position) {
            Some(run) if is_single && run.endpoint == self.connections[slot].endpoint => {
                self.connections[slot].position = end;
                if run.except != Some(id) {
                    let frames = run.frames.clone();
                    self.write_through(slot, &frames);
                }
            }
            _ => {
                self.catch_up(slot);
            }
        }
    }

    /// Appends to what a connection gets, within its bounds.
    ///
    /// # Errors
    /// `Overloaded` when it does not fit; the overflow policy has acted then.
    fn push(&mut self, slot: Slot, outgoing: Outgoing<'_>) -> Result<(), SendError> {
        let bytes = outgoing.bytes();
        if !self.fits(slot, bytes) {
            self.overflow(slot, bytes)?;
        }
        if self.current == Some(slot) {
            match outgoing {
                Outgoing::Message(message) => frame::encode(&mut self.scratch, message),
                Outgoing::Frames(frames) if frames.len() < REFER_BYTES => {
                    self.scratch.extend_from_slice(frames);
                }
                Outgoing::Frames(frames) => {
                    self.spill();
                    self.enqueue(slot, frames.clone());
                }
            }
        } else {
            let frames = match outgoing {
                Outgoing::Message(message) => self.encode(message),
                Outgoing::Frames(frames) => frames.clone(),
            };
            self.enqueue(slot, frames);
        }
        Ok(())
    }

    #[inline]
    fn fits(&self, slot: Slot, bytes: usize) -> bool {
        let queued = self.buffered_bytes(slot);
        queued == 0
            || (queued + bytes <= self.limits.outbox_bytes
                && self.queued_bytes + bytes <= self.limits.shard_outbox_bytes)
    }

    /// The outbox cannot take so many bytes more: acts as the policy says.
    #[cold]
    fn overflow(&mut self, slot: Slot, bytes: usize) -> Result<(), SendError> {
        match self.limits.overflow {
            Overflow::Close => {
                let close =
                    Close::new(CloseCode::TRY_AGAIN_LATER, "reads too slowly", ClosedBy::Server);
                self.begin_close(slot, close, Farewell::Close);
            }
            Overflow::DropNewest => {}
            Overflow::DropOldest => {
                if self.current == Some(slot) {
                    self.spill();
                }
                while !self.fits(slot, bytes) {
                    let before = self.connections[slot].outbox.bytes();
                    if !self.connections[slot].outbox.drop_oldest() {
                        return Err(SendError::Overloaded);
                    }
                    self.queued_bytes -= before - self.connections[slot].outbox.bytes();
                    self.count_dropped(1);
                }
                return Ok(());
            }
        }
        Err(SendError::Overloaded)
    }

    fn enqueue(&mut self, slot: Slot, frames: Bytes) {
        self.queued_bytes += frames.len();
        let connection = &mut self.connections[slot];
        connection.outbox.push(frames);
        self.press(slot);
        self.make_dirty(slot);
    }

    /// Queues a control frame; before all data that has not begun to leave.
    pub(super) fn push_control(&mut self, slot: Slot, frame: &[u8]) {
        let connection = &mut self.connections[slot];
        if self.current == Some(slot) && connection.outbox.is_empty() {
            self.scratch.extend_from_slice(frame);
            return;
        }
        self.queued_bytes += frame.len();
        connection.outbox.push_control(Bytes::copy_from_slice(frame));
        self.press(slot);
        self.make_dirty(slot);
    }

    /// Notes that the outbox is above its high-water mark, if it is.
    fn press(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if connection.outbox.bytes() > self.limits.outbox_high_water_bytes {
            connection.flags.is_pressed = true;
        }
    }

    // The current connection.

    /// Begins a connection's turn: from here on its own output goes to the scratch.
    pub(super) fn enter(&mut self, slot: Slot) {
        debug_assert!(self.current.is_none() && self.scratch.is_empty());
        self.current = Some(slot);
    }

    /// Ends a connection's turn: what its handler sent leaves in one write.
    #[inline]
    pub(super) fn exit(&mut self, slot: Slot) {
        debug_assert_eq!(self.current, Some(slot));
        self.current = None;
        if !self.scratch.is_empty() {
            self.write_scratch(slot);
        }
    }

    /// Whether the current connection should be handed no more input for now. Writes early when a
    /// lot has gathered.
    #[inline]
    pub(super) fn is_pressed(&mut self, slot: Slot) -> bool {
        if self.scratch.len() >= SCRATCH_BYTES {
            self.write_scratch(slot);
        }
        self.connections[slot].flags.is_pressed
    }

    fn write_scratch(&mut self, slot: Slot) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let connection = &self.connections[slot];
        if connection.is_dead() {
            debug_assert!(connection.outbox.is_empty());
        } else if connection.outbox.is_empty() && !connection.flags.is_blocked {
            self.write_now(slot, &scratch, Bytes::copy_from_slice);
        } else {
            self.enqueue(slot, Bytes::copy_from_slice(&scratch));
        }
        scratch.clear();
        self.scratch = scratch;
    }

    /// Writes shared frames to a connection with an empty outbox.
    fn write_through(&mut self, slot: Slot, frames: &Bytes) {
        self.write_now(slot, frames, |rest| frames.slice_ref(rest));
    }

    /// Writes to a connection with an empty outbox; `keep` makes a segment of what is left over.
    #[inline]
    fn write_now(&mut self, slot: Slot, bytes: &[u8], keep: impl FnOnce(&[u8]) -> Bytes) {
        let connection = &mut self.connections[slot];
        match connection.transport.write(bytes) {
            Output::Bytes(written) if written == bytes.len() => {}
            Output::Bytes(written) => {
                let begun = begun_after(bytes, 0, written);
                connection.outbox.push_rest(keep(&bytes[written..]), begun);
                connection.flags.is_blocked = true;
                self.queued_bytes += bytes.len() - written;
                self.press(slot);
            }
            Output::Broken => self.lose(slot),
        }
    }

    /// Moves the scratch to the outbox, so that something shared can be queued after it.
    fn spill(&mut self) {
        if let Some(slot) = self.current
            && !self.scratch.is_empty()
        {
            let frames = Bytes::copy_from_slice(&self.scratch);
            self.scratch.clear();
            self.enqueue(slot, frames);
        }
    }

    /// Queues shared bytes of the current connection after what it has so far.
    pub(super) fn append(&mut self, slot: Slot, bytes: Bytes) {
        debug_assert_eq!(self.current, Some(slot));
        if bytes.len() < REFER_BYTES {
            self.scratch.extend_from_slice(&bytes);
        } else {
            self.spill();
            self.enqueue(slot, bytes);
        }
    }

    /// Hands an outbox to the kernel.
    pub(super) fn flush(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.flags.is_dirty = false;
        if connection.is_dead() {
            return;
        }
        let before = connection.outbox.bytes();
        let flushed = connection.outbox.write(&mut connection.transport);
        let after = connection.outbox.bytes();
        self.queued_bytes -= before - after;
        if after < before {
            connection.touch(self.now);
        }
        connection.flags.is_blocked = flushed == Flushed::Blocked;
        if connection.flags.is_pressed && after <= self.limits.outbox_low_water_bytes {
            connection.flags.is_pressed = false;
            let address = connection.address;
            if connection.is_open() {
                self.drained.push(address);
            }
            self.make_ready(slot);
        }
        match flushed {
            Flushed::Empty => self.settle(slot),
            Flushed::Blocked => {}
            Flushed::Broken => self.lose(slot),
        }
    }

    // Ending.

    /// Decides that an open connection ends. It leaves its endpoint at once; `on_close` is called
    /// later. The first decision stands.
    pub(super) fn begin_close(&mut self, slot: Slot, close: Close, farewell: Farewell) {
        if !self.connections[slot].is_open() {
            return;
        }
        self.leave(slot);
        // Catching up may itself have decided.
        let connection = &mut self.connections[slot];
        if connection.is_open() {
            connection.phase = Phase::Leaving(Box::new(Leaving { close, farewell }));
            self.leaving.push(slot);
        }
    }

    /// Drops on the application's wish.
    pub(super) fn abort(&mut self, slot: Slot) {
        if let Phase::Leaving(leaving) = &mut self.connections[slot].phase {
            leaving.farewell = Farewell::Nothing;
            return;
        }
        let close = Close::new(CloseCode::ABNORMAL, "aborted", ClosedBy::Application);
        self.begin_close(slot, close, Farewell::Nothing);
    }

    /// The connection is broken: nothing can be read or written any more.
    pub(super) fn lose(&mut self, slot: Slot) {
        match &mut self.connections[slot].phase {
            Phase::Open => {
                let close = Close::new(CloseCode::ABNORMAL, "connection lost", ClosedBy::Peer);
                self.begin_close(slot, close, Farewell::Nothing);
            }
            Phase::Leaving(leaving) => leaving.farewell = Farewell::Nothing,
            Phase::Upgrading { .. } | Phase::Closing(_) => self.kill(slot),
            Phase::Dead => {}
        }
    }

    /// Everything was said: waits for `closing`, at most for the time of the closing handshake.
    pub(super) fn begin_closing(&mut self, slot: Slot, closing: Closing) {
        let deadline = self.now + self.limits.closing;
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing(closing);
        connection.deadline = deadline;
        self.arm(slot, deadline);
    }

    /// Goes on with closing when everything queued has been handed over.
    pub(super) fn settle(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot];
        if !connection.outbox.is_empty() {
            return;
        }
        match connection.phase {
            Phase::Closing(Closing::Outbox) => self.kill(slot),
            Phase::Closing(Closing::OutboxThenEnd) => {
                connection.transport.shut_down_write();
                connection.phase = Phase::Closing(Closing::PeerEnd);
            }
            _ => {}
        }
    }
}
