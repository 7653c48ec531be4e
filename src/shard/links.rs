//! A shard's ways to the other shards' mailboxes.
//!
//! What a handler has sent and another shard cannot take yet waits here, in order and bounded;
//! until it is gone the shard reads from none of its connections, so that the pressure reaches
//! those who cause it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::Limits;
use crate::error::SendError;
use crate::hub::{Envelope, Hub, Publication};

#[derive(Debug)]
pub(super) struct Links {
    hub: Hub,
    own: usize,
    /// What waits for each shard, in order.
    waiting: Box<[VecDeque<Envelope>]>,
    waiting_count: usize,
    waiting_bytes: usize,
    limit_count: usize,
    limit_bytes: usize,
    is_quiet: bool,
}

impl Links {
    pub(super) fn new(hub: Hub, own: usize, limits: &Limits) -> Self {
        let shard_count = hub.shared().mailboxes.len();
        Self {
            hub,
            own,
            waiting: (0..shard_count).map(|_| VecDeque::new()).collect(),
            waiting_count: 0,
            waiting_bytes: 0,
            // A broadcast needs room for all others at once.
            limit_count: limits.mailbox_count.max(shard_count),
            limit_bytes: limits.mailbox_bytes,
            is_quiet: false,
        }
    }

    /// The server shuts down, and this shard has handed over all that waited: from now on nothing
    /// may wait, for the other shards do not wait for it.
    pub(super) fn quiet(&mut self) {
        debug_assert!(!self.is_blocked(), "something waits");
        if !std::mem::replace(&mut self.is_quiet, true) {
            self.hub.shared().shutdown.add_quiet();
        }
    }

    /// Whether anything waits.
    #[inline]
    pub(super) fn is_blocked(&self) -> bool {
        self.waiting_count > 0
    }

    /// Sends to another shard, or lets the envelope wait.
    pub(super) fn send(&mut self, shard: usize, envelope: Envelope) -> Result<(), SendError> {
        let Some(mailbox) = self.hub.shared().mailboxes.get(shard) else {
            return Err(SendError::Gone);
        };
        if mailbox.is_closed() {
            return Err(SendError::ShuttingDown);
        }
        self.check_room(1, envelope.size())?;
        self.send_or_wait(shard, envelope)
    }

    /// Sends, or lets the envelope wait; there is room for that.
    fn send_or_wait(&mut self, shard: usize, envelope: Envelope) -> Result<(), SendError> {
        if self.waiting[shard].is_empty() {
            match self.hub.shared().mailboxes[shard].reserve(envelope.size()) {
                Ok(room) => return room.send(envelope),
                Err(SendError::Overloaded) if self.is_quiet => return Err(SendError::ShuttingDown),
                Err(SendError::Overloaded) => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting_count += 1;
        self.waiting_bytes += envelope.size();
        self.waiting[shard].push_back(envelope);
        Ok(())
    }

    /// Sends a publication to all other shards, or to none.
    pub(super) fn publish(&mut self, publication: &Publication) -> Result<(), SendError> {
        let others = self.waiting.len() - 1;
        if self.hub.shared().mailboxes.iter().any(|mailbox| mailbox.is_closed()) {
            return Err(SendError::ShuttingDown);
        }
        if others == 0 {
            return Ok(());
        }
        let publication = Arc::new(publication.clone());
        if self.is_quiet {
            let published = self.hub.shared().publish(&publication, Some(self.own));
            return published.map_err(|_| SendError::ShuttingDown);
        }
        // Room for all to wait is room for all.
        self.check_room(others, publication.frame.len() * others)?;
        let own = self.own;
        for shard in (0..=others).filter(|&shard| shard != own) {
            if self.send_or_wait(shard, Envelope::Publish(Arc::clone(&publication))).is_err() {
                // It has ended just now. The others get it, so it was accepted.
                self.hub.shared().mailboxes[shard].count_dropped(1);
            }
        }
        Ok(())
    }

    fn check_room(&self, count: usize, bytes: usize) -> Result<(), SendError> {
        let fits = self.waiting_count + count <= self.limit_count
            && (self.waiting_count == 0 || self.waiting_bytes + bytes <= self.limit_bytes);
        if fits { Ok(()) } else { Err(SendError::Overloaded) }
    }

    /// Gives up what waits; how many envelopes that were.
    pub(super) fn give_up(&mut self) -> u64 {
        (self.waiting_count, self.waiting_bytes) = (0, 0);
        self.waiting.iter_mut().map(|queue| queue.drain(..).count() as u64).sum()
    }

    /// Moves on what the mailboxes can take now; tells how many envelopes had to be given up
    /// because their shard is gone.
    pub(super) fn flush(&mut self) -> u64 {
        let mut lost_count = 0;
        let Self { hub, waiting, waiting_count, waiting_bytes, .. } = self;
        for (mailbox, queue) in hub.shared().mailboxes.iter().zip(waiting) {
            while let Some(envelope) = queue.front() {
                let size = envelope.size();
                let room = match mailbox.reserve(size) {
                    Ok(room) => Some(room),
                    Err(SendError::Overloaded) => break,
                    Err(_) => None,
                };
                let Some(envelope) = queue.pop_front() else { break };
                *waiting_count -= 1;
                *waiting_bytes -= size;
                let sent = room.is_some_and(|room| room.send(envelope).is_ok());
                lost_count += u64::from(!sent);
            }
        }
        lost_count
    }
}

impl Drop for Links {
    /// A shard that is gone sends nothing more, whatever has ended it.
    fn drop(&mut self) {
        let lost_count = self.give_up();
        self.hub.shared().mailboxes[self.own].count_dropped(lost_count);
        self.quiet();
    }
}

#[cfg(feature = "testing")]
impl Links {
    /// Panics unless the account of what waits is right, and within its bounds.
    pub(super) fn check_invariants(&self) {
        let waiting = || self.waiting.iter().flatten();
        assert_eq!(self.waiting_count, waiting().count(), "how many wait for other shards");
        let sum: usize = waiting().map(Envelope::size).sum();
        assert_eq!(self.waiting_bytes, sum, "how much waits for other shards");
        assert!(self.waiting_count <= self.limit_count, "too many wait for other shards");
        assert!(self.waiting[self.own].is_empty(), "a shard does not wait for itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::mailbox;
    use crate::hub::{Address, Audience, Node};
    use crate::sync::Waker;

    #[test]
    fn what_cannot_go_at_once_waits_in_order_until_the_shard_is_quiet() {
        let limits = Limits { mailbox_count: 2, ..Limits::default() };
        let polls = [0, 1].map(|_| mio::Poll::new().expect("a poll"));
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = polls
            .iter()
            .map(|poll| Waker::new(poll.registry(), mio::Token(0)).expect("a waker"))
            .map(|waker| mailbox(waker, limits.mailbox_count, limits.mailbox_bytes))
            .unzip();
        let hub = Hub::new(Node::random(), mailboxes.into(), std::collections::HashMap::new());
        let mut links = Links::new(hub, 0, &limits);
        let send = |links: &mut Links, generation| {
            links.send(1, Envelope::Abort { to: Address::new(0, generation) })
        };
        let take = || match inboxes[1].take(Envelope::size) {
            Some(Envelope::Abort { to }) => Some(to),
            _ => None,
        };
        for (generation, is_blocked) in [(0, false), (1, false), (2, true)] {
            assert_eq!(send(&mut links, generation), Ok(()));
            assert_eq!(links.is_blocked(), is_blocked);
        }
        assert_eq!(take(), Some(Address::new(0, 0)));
        // There is room, but somebody waits for it.
        assert_eq!(send(&mut links, 3), Ok(()));
        for generation in 1..4 {
            assert_eq!(links.flush(), 0);
            assert_eq!(take(), Some(Address::new(0, generation)));
        }
        for generation in 4..6 {
            assert_eq!(send(&mut links, generation), Ok(()));
        }
        links.quiet();
        let publication = Publication {
            audience: Audience::Everyone(0),
            except: None,
            frame: bytes::Bytes::new(),
            tally: None,
        };
        assert_eq!(send(&mut links, 6), Err(SendError::ShuttingDown));
        assert_eq!(links.publish(&publication), Err(SendError::ShuttingDown));
        assert!(!links.is_blocked() && take().is_some());
        assert_eq!(send(&mut links, 6), Ok(()), "there is room");
        assert!(take().is_some());
        assert_eq!(links.publish(&publication), Ok(()), "there is room");
        assert!(!links.is_blocked());
        assert_eq!(links.give_up(), 0);
    }
}
