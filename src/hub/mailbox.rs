//! A shard's inbox: bounded in envelopes and in bytes, lock-free while it has room, and it wakes
//! its shard once per burst.
//!
//! **Permit first.** A sender reserves room in a counter before it sends. A broadcast reserves in
//! all mailboxes and then sends, or sends to none. The channel itself is never found full.
//!
//! **The line.** A shard whose handlers have to send something for which there is no room appends
//! it to the line, a queue behind a lock ([`Mailbox::send_beyond`]). Each shard bounds what it
//! sends so (see `Outbound`), and reads no input meanwhile. While the line is not empty, nobody
//! gets room in the channel.
//!
//! **Order.** Channel and line are one queue: if a send has returned before another one begins, the
//! inbox takes the first one first.
//! - *Channel, then channel*, or *line, then line*: each of them is a queue.
//! - *Line, then channel*: the second sender got room, so it found [`LINE`] clear. The first one
//!   had set it, and only the inbox clears it, when it has taken all that was in the line.
//! - *Channel, then line*: the inbox empties the channel before it looks at the line. What comes
//!   into the channel between these two looks is counted, while the line is locked, and is taken
//!   before the line. The first envelope is among them, for it was in the channel before the second
//!   sender had the lock.
//!
//! **Closing.** [`Mailbox::close`] ends reservations, not deliveries: what was promised before is
//! counted, and the shard takes until the count is zero.
//!
//! **Waking.** A sender pushes, then wakes the shard: see [`Doorbell`].
//!
//! Knows envelopes by their size in bytes, room and wake-ups. Must not know what is in an envelope,
//! nor count anything else.

use std::collections::VecDeque;
use std::ops::DerefMut;
use std::sync::{Arc, PoisonError};

use super::doorbell::Doorbell;
use super::id::Address;
use crate::error::SendError;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::channel::{self, Receiver, Sender};
use crate::sync::{Mutex, Waker, thread};

/// The counter's layout: reserved bytes (38 bits), reserved envelopes (23), line, ended, closed.
const COUNT_ONE: u64 = 1 << 38;
const BYTES_MASK: u64 = COUNT_ONE - 1;
/// The line is not empty, or the inbox has not taken all that was in it. It is set and cleared
/// while the line is locked.
const LINE: u64 = 1 << 61;
/// Nobody takes envelopes any more; it is closed, too.
const ENDED: u64 = 1 << 62;
/// Nothing new is taken.
const CLOSED: u64 = 1 << 63;

/// The sending side, shared by all threads.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    sender: Sender<T>,
    /// What shards have sent for which there was no room.
    line: Mutex<VecDeque<T>>,
    doorbell: Arc<Doorbell>,
    reserved: AtomicU64,
    limit_count: u64,
    limit_bytes: u64,
}

/// The receiving side, owned by the shard.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    receiver: Receiver<T>,
    /// What was in the line when the inbox last looked.
    line: VecDeque<T>,
    /// How many envelopes of the channel come before it.
    ahead_count: usize,
    woken: Receiver<Address>,
    mailbox: Arc<Mailbox<T>>,
}

/// Permit for one envelope. Dropped unused, it gives the room back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'m, T> {
    mailbox: &'m Mailbox<T>,
    cost: u64,
}

#[inline]
fn cost(bytes: usize) -> u64 {
    COUNT_ONE | (bytes as u64).min(BYTES_MASK)
}

/// What is reserved, as of the counter.
#[inline]
fn held(reserved: u64) -> u64 {
    reserved & !(CLOSED | ENDED | LINE)
}

/// Nothing panics while the line is locked.
fn lock<T>(line: &Mutex<VecDeque<T>>) -> impl DerefMut<Target = VecDeque<T>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mailbox and its inbox.
pub(crate) fn mailbox<T>(
    waker: Waker,
    limit_count: usize,
    limit_bytes: usize,
) -> (Arc<Mailbox<T>>, Inbox<T>) {
    let (sender, receiver) = channel::bounded(limit_count);
    let (doorbell, heard) = Doorbell::new(waker);
    let mailbox = Arc::new(Mailbox {
        sender,
        line: Mutex::default(),
        doorbell,
        reserved: AtomicU64::new(0),
        limit_count: limit_count as u64,
        limit_bytes: (limit_bytes as u64).min(BYTES_MASK),
    });
    let (line, ahead_count) = Default::default();
    let inbox = Inbox { receiver, line, ahead_count, woken: heard, mailbox: Arc::clone(&mailbox) };
    (mailbox, inbox)
}

impl<T> Mailbox<T> {
    /// Reserves room for an envelope that carries so many bytes.
    ///
    /// # Errors
    /// `Overloaded` when there is none, `ShuttingDown` when the mailbox is closed.
    #[inline]
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Permit<'_, T>, SendError> {
        self.reserve_unless(CLOSED, bytes)
    }

    /// Like [`reserve`](Self::reserve), also when the mailbox is closed: for the rest of what was
    /// begun before, as long as the shard lives.
    pub(crate) fn reserve_for_rest(&self, bytes: usize) -> Result<Permit<'_, T>, SendError> {
        self.reserve_unless(ENDED, bytes)
    }

    #[inline]
    fn reserve_unless(&self, end: u64, bytes: usize) -> Result<Permit<'_, T>, SendError> {
        let cost = cost(bytes);
        let reserve = |now: u64| {
            let held = held(now);
            let fits = held / COUNT_ONE < self.limit_count
                && (held == 0 || (held & BYTES_MASK) + (cost & BYTES_MASK) <= self.limit_bytes);
            (now & (end | LINE) == 0 && fits).then_some(now + cost)
        };
        // Acquire: a sender that sees what `take` gave back sees the channel's free slot, too.
        match self.reserved.fetch_update(Ordering::Acquire, Ordering::Relaxed, reserve) {
            Ok(_) => Ok(Permit { mailbox: self, cost }),
            Err(now) if now & end != 0 => Err(SendError::ShuttingDown),
            Err(_) => Err(SendError::Overloaded),
        }
    }

    // The line.

    /// Sends an envelope for which there is no room, for a shard. Nobody else gets room before the
    /// inbox has taken it.
    ///
    /// # Errors
    /// `ShuttingDown` when the mailbox is closed.
    pub(crate) fn send_beyond(&self, envelope: T) -> Result<(), SendError> {
        let mut line = lock(&self.line);
        // Relaxed: the lock orders it with the inbox's clearing, and a reservation that comes after
        // it is told by the same atomic.
        let stand = |now: u64| (now & CLOSED == 0).then_some(now | LINE);
        if self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, stand).is_err() {
            return Err(SendError::ShuttingDown);
        }
        line.push_back(envelope);
        drop(line);
        self.wake();
        Ok(())
    }

    /// Whether the inbox has not taken all that was sent beyond the room.
    #[inline]
    pub(crate) fn has_line(&self) -> bool {
        // Relaxed: a shard that is told too late looks again.
        self.reserved.load(Ordering::Relaxed) & LINE != 0
    }

    // Closing.

    /// Ends reservations for good.
    pub(crate) fn close(&self) {
        // Relaxed: it is the same atomic that reservations change, so each comes before or after
        // it. Whatever came before is found in the count.
        self.reserved.fetch_or(CLOSED, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Relaxed: the answer may come too late in any case; a reservation tells for sure.
        self.reserved.load(Ordering::Relaxed) & CLOSED != 0
    }

    // Waking.

    /// What wakes the shard.
    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Wakes the shard, unless a wake-up is on its way.
    #[inline]
    pub(crate) fn wake(&self) {
        self.doorbell.wake();
    }
}

impl<T> Permit<'_, T> {
    /// Sends the envelope. A shard whose thread has ended takes nothing.
    ///
    /// # Errors
    /// `ShuttingDown` if the shard is gone.
    #[inline]
    pub(crate) fn send(self, envelope: T) -> Result<(), SendError> {
        let mailbox = self.mailbox;
        match mailbox.sender.try_send(envelope) {
            Ok(()) => {
                // The inbox gives the room back when the envelope is taken.
                std::mem::forget(self);
                mailbox.wake();
                Ok(())
            }
            Err(error) => {
                debug_assert!(error.is_disconnected(), "room was reserved in a full channel");
                Err(SendError::ShuttingDown)
            }
        }
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        // Relaxed: it frees no slot of the channel; and what `take` has released stays so, through
        // any read-modify-write.
        self.mailbox.reserved.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

impl<T> Inbox<T> {
    /// Whether somebody has sent since the last [`disarm`](Self::disarm).
    #[cfg(feature = "testing")]
    pub(crate) fn is_armed(&self) -> bool {
        self.mailbox.doorbell.is_armed()
    }

    /// Panics if something is there of which the shard was not told; `has_mail`: it knows anyway.
    /// No other thread may be using the mailbox.
    #[cfg(feature = "testing")]
    pub(crate) fn check_notified(&self, has_mail: bool) {
        let held = held(self.mailbox.reserved.load(Ordering::Acquire));
        assert_eq!(held / COUNT_ONE, self.receiver.len() as u64, "room is given back");
        assert!(held >= COUNT_ONE || held == 0, "bytes are given back");
        let is_empty = self.is_settled() && self.woken.is_empty();
        assert!(is_empty || has_mail || self.is_armed(), "a wake-up is lost");
    }

    /// Call before [`take`](Self::take): from here on, a sender wakes again. `false` if nobody
    /// has sent since the last call.
    #[inline]
    pub(crate) fn disarm(&self) -> bool {
        self.mailbox.doorbell.disarm()
    }

    /// The next envelope; `size` tells how many bytes were reserved for it.
    #[inline]
    pub(crate) fn take(&mut self, size: impl FnOnce(&T) -> usize) -> Option<T> {
        loop {
            if !self.line.is_empty() && !self.is_channel_first() {
                return self.line.pop_front();
            }
            if let Ok(envelope) = self.receiver.try_recv() {
                // Release: after the slot in the channel has become free; see `reserve`.
                self.mailbox.reserved.fetch_sub(cost(size(&envelope)), Ordering::Release);
                return Some(envelope);
            }
            if !self.mailbox.has_line() || !self.fetch_line() {
                return None;
            }
        }
    }

    /// Whether the next envelope of the channel comes before the line.
    #[cold]
    fn is_channel_first(&mut self) -> bool {
        let is_first = self.ahead_count > 0;
        self.ahead_count -= usize::from(is_first);
        is_first
    }

    /// The channel was found empty: gets what is in the line, and counts what has come into the
    /// channel since. Whether there was a line.
    #[cold]
    fn fetch_line(&mut self) -> bool {
        let mut line = lock(&self.mailbox.line);
        if line.is_empty() {
            // Relaxed: a sender that finds it clear gets a permit, and what it sends comes after
            // all this.
            self.mailbox.reserved.fetch_and(!LINE, Ordering::Relaxed);
            return false;
        }
        std::mem::swap(&mut self.line, &mut *line);
        self.ahead_count = self.receiver.len();
        true
    }

    /// How many envelopes are there: all whose sending has returned, perhaps more.
    pub(crate) fn count(&self) -> usize {
        let line_count = if self.mailbox.has_line() { lock(&self.mailbox.line).len() } else { 0 };
        self.line.len() + line_count + self.receiver.len()
    }

    /// The next envelope of all that were promised; `None` once there is nothing more of them.
    pub(crate) fn take_promised(&mut self, size: impl Fn(&T) -> usize) -> Option<T> {
        loop {
            let envelope = self.take(&size);
            if envelope.is_some() || self.is_settled() {
                return envelope;
            }
            // Some thread is between its reservation and its send.
            thread::yield_now();
        }
    }

    /// How many connections want to be looked at.
    pub(crate) fn woken_count(&self) -> usize {
        self.woken.len()
    }

    /// The next connection that wants to be looked at.
    pub(crate) fn take_woken(&self) -> Option<Address> {
        self.woken.try_recv().ok()
    }

    /// Whether nothing is in the mailbox, nor promised to it. If a send has returned before this is
    /// asked, and its envelope was not taken, it is not settled.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        // Relaxed: it is asked by the shard itself, which alone makes the count smaller by what was
        // sent; and once the mailbox is closed, its own closing has shown it all that was promised.
        self.mailbox.reserved.load(Ordering::Relaxed) & !(CLOSED | ENDED) < COUNT_ONE
    }

    /// Nobody takes any more: what is there is lost, and no more comes.
    pub(crate) fn end(&mut self, size: impl Fn(&T) -> usize, mut lose: impl FnMut(T)) {
        // Relaxed: as `Mailbox::close`.
        self.mailbox.reserved.fetch_or(CLOSED | ENDED, Ordering::Relaxed);
        while let Some(envelope) = self.take_promised(&size) {
            lose(envelope);
        }
    }

    pub(crate) fn mailbox(&self) -> &Mailbox<T> {
        &self.mailbox
    }

    /// Asserts that all that is in the channel has its room reserved, within the bounds.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        // In this order: what is sent between the two looks was reserved before.
        let sent_count = self.receiver.len() as u64;
        let held = held(self.mailbox.reserved.load(Ordering::Acquire));
        let (held_count, held_bytes) = (held / COUNT_ONE, held & BYTES_MASK);
        let Mailbox { limit_count, limit_bytes, .. } = *self.mailbox;
        assert!(sent_count <= held_count, "{sent_count} envelopes, {held_count} promised");
        assert!(held_count <= limit_count, "{held_count} promised of {limit_count}");
        let is_within = held_bytes <= limit_bytes || held_count == 1;
        assert!(is_within, "{held_bytes} bytes promised of {limit_bytes}");
    }
}

impl<T> Drop for Inbox<T> {
    /// What is there is dropped, and with it the tickets that it carries. The channel itself would
    /// keep it for as long as somebody holds a sender.
    fn drop(&mut self) {
        // Relaxed: as `Mailbox::close`.
        self.mailbox.reserved.fetch_or(CLOSED | ENDED, Ordering::Relaxed);
        let mut line = lock(&self.mailbox.line);
        self.mailbox.reserved.fetch_and(!LINE, Ordering::Relaxed);
        let left = std::mem::take(&mut *line);
        drop(line);
        // Now: the futures that it wakes may do anything.
        drop(left);
        while !self.is_settled() {
            match self.receiver.try_recv() {
                Ok(_) => drop(self.mailbox.reserved.fetch_sub(COUNT_ONE, Ordering::Relaxed)),
                // Some thread is between its reservation and its send.
                Err(_) => thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_mailbox(count: usize, bytes: usize) -> (mio::Poll, Arc<Mailbox<usize>>, Inbox<usize>) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (mailbox, inbox) = mailbox(waker, count, bytes);
        (poll, mailbox, inbox)
    }

    fn send(mailbox: &Mailbox<usize>, bytes: usize) -> Result<(), SendError> {
        mailbox.reserve(bytes)?.send(bytes)
    }

    #[test]
    fn it_is_bounded_in_envelopes_and_in_bytes() {
        let (_poll, mailbox, mut inbox) = test_mailbox(3, 100);
        for _ in 0..3 {
            assert_eq!(send(&mailbox, 1), Ok(()));
        }
        assert_eq!(send(&mailbox, 1), Err(SendError::Overloaded));
        assert_eq!(inbox.take(|&bytes| bytes), Some(1));
        assert_eq!(send(&mailbox, 99), Err(SendError::Overloaded));
        assert_eq!(send(&mailbox, 98), Ok(()));
        while inbox.take(|&bytes| bytes).is_some() {}
        assert!(inbox.is_settled());
        assert_eq!(send(&mailbox, 1000), Ok(()), "an empty mailbox takes any message");
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let (_poll, mailbox, inbox) = test_mailbox(1, 100);
        drop(mailbox.reserve(5));
        assert!(inbox.is_settled());
        assert_eq!(send(&mailbox, 5), Ok(()));
    }

    #[test]
    fn closing_ends_reservations_and_not_deliveries() {
        let (_poll, mailbox, mut inbox) = test_mailbox(8, 100);
        let promised = mailbox.reserve(7).expect("room");
        mailbox.close();
        drop(mailbox.reserve_for_rest(1).expect("room for what was begun"));
        assert_eq!(send(&mailbox, 1), Err(SendError::ShuttingDown));
        assert!(!inbox.is_settled());
        assert_eq!(promised.send(7), Ok(()));
        assert_eq!(inbox.take(|&bytes| bytes), Some(7));
        assert!(inbox.is_settled() && mailbox.is_closed());
    }

    /// One that tells whether it has been dropped.
    type Shared = Arc<()>;

    /// A mailbox with three envelopes in it, and a fourth one in line.
    fn with_four() -> (Arc<Mailbox<Shared>>, Inbox<Shared>, Shared) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (mailbox, inbox) = mailbox(waker, 8, 100);
        let envelope = Shared::new(());
        for _ in 0..3 {
            let room = mailbox.reserve(5).expect("room");
            assert_eq!(room.send(Arc::clone(&envelope)), Ok(()));
        }
        assert_eq!(mailbox.send_beyond(Arc::clone(&envelope)), Ok(()));
        (mailbox, inbox, envelope)
    }

    #[test]
    fn what_is_in_it_when_its_shard_ends_is_dropped() {
        let (mailbox, inbox, envelope) = with_four();
        drop(inbox);
        assert_eq!(Arc::strong_count(&envelope), 1);
        assert_eq!(mailbox.reserve(1).err(), Some(SendError::ShuttingDown));
        assert_eq!(mailbox.reserve_for_rest(1).err(), Some(SendError::ShuttingDown));
    }

    #[test]
    fn what_is_in_it_at_the_end_is_handed_over_as_lost_and_no_more_comes() {
        let (mailbox, mut inbox, envelope) = with_four();
        let mut lost_count = 0;
        inbox.end(|_| 5, |_| lost_count += 1);
        assert_eq!((lost_count, Arc::strong_count(&envelope)), (4, 1));
        assert_eq!(mailbox.reserve_for_rest(1).err(), Some(SendError::ShuttingDown));
    }

    #[test]
    fn a_burst_wakes_once() {
        let (mut poll, mailbox, inbox) = test_mailbox(8, 100);
        let mut events = mio::Events::with_capacity(8);
        assert!(!inbox.disarm());
        for _ in 0..5 {
            assert_eq!(send(&mailbox, 1), Ok(()));
        }
        poll.poll(&mut events, None).expect("a wake-up");
        assert_eq!(events.iter().count(), 1);
        assert!(inbox.disarm() && !inbox.disarm());
        assert_eq!(send(&mailbox, 1), Ok(()));
        poll.poll(&mut events, None).expect("a second wake-up");
    }
}
