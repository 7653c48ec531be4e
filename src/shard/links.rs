//! A shard's ways to the other shards' mailboxes.
//!
//! What a handler sends is in the mailbox when its call returns, also if there is no room for it:
//! then it stands in the mailbox's line, and this shard counts it. What a shard has standing in
//! lines is bounded. Until it was taken the shard reads from none of its connections, so that the
//! pressure reaches those who cause it.
//!
//! It does not wait here: what another shard or a thread sends meanwhile would overtake it.

use std::sync::Arc;

use crate::config::Limits;
use crate::error::SendError;
use crate::hub::{Envelope, Hub, Publication};

#[derive(Debug)]
pub(in crate::shard) struct Links {
    hub: Hub,
    own: usize,
    /// What this shard has sent beyond the room of each mailbox whose line was not empty since.
    excesses: Box<[Excess]>,
    /// The sum of all.
    excess: Excess,
    limit: Excess,
    is_quiet: bool,
}

/// Envelopes for which there was no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Excess {
    count: usize,
    bytes: usize,
}

impl Excess {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Links {
    pub(in crate::shard) fn new(hub: Hub, own: usize, limits: &Limits) -> Self {
        let shard_count = hub.shared().shards.len();
        // A broadcast needs room for all others at once.
        let limit_count = limits.mailbox_count.max(shard_count);
        Self {
            hub,
            own,
            excesses: vec![Excess::default(); shard_count].into(),
            excess: Excess::default(),
            limit: Excess { count: limit_count, bytes: limits.mailbox_bytes },
            is_quiet: false,
        }
    }

    /// The server shuts down: from now on this shard sends nothing for which there is no room.
    pub(in crate::shard) fn quiet(&mut self) {
        if !std::mem::replace(&mut self.is_quiet, true) {
            self.hub.shared().shutdown.add_quiet();
        }
    }

    /// Whether another shard has not taken what was sent beyond the room.
    #[inline]
    pub(in crate::shard) fn is_blocked(&self) -> bool {
        self.excess.count > 0
    }

    /// Sends to another shard, also if there is no room, within the bounds of that.
    pub(in crate::shard) fn send(
        &mut self,
        shard: usize,
        envelope: Envelope,
    ) -> Result<(), SendError> {
        let Some(link) = self.hub.shared().shards.get(shard) else {
            return Err(SendError::Gone);
        };
        if link.mailbox.is_closed() {
            return Err(SendError::ShuttingDown);
        }
        self.check_room(1, envelope.size())?;
        self.send_anyway(shard, envelope)
    }

    /// Sends, with room or without; the bounds allow it.
    fn send_anyway(&mut self, shard: usize, envelope: Envelope) -> Result<(), SendError> {
        let size = envelope.size();
        let mailbox = &self.hub.shared().shards[shard].mailbox;
        match mailbox.reserve(size) {
            Ok(room) => room.send(envelope),
            Err(SendError::Overloaded) if self.is_quiet => Err(SendError::ShuttingDown),
            Err(SendError::Overloaded) => {
                mailbox.send_beyond(envelope)?;
                self.excesses[shard].add(size);
                self.excess.add(size);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a publication to all other shards, or to none.
    pub(in crate::shard) fn publish(&mut self, publication: &Publication) -> Result<(), SendError> {
        let others = self.excesses.len() - 1;
        if self.hub.shared().shards.iter().any(|shard| shard.mailbox.is_closed()) {
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
        // What may be sent beyond the room to all of them may be sent.
        self.check_room(others, publication.frame.len() * others)?;
        let own = self.own;
        for shard in (0..=others).filter(|&shard| shard != own) {
            if self.send_anyway(shard, Envelope::Publish(Arc::clone(&publication))).is_err() {
                // It has ended just now. The others get it, so it was accepted.
                self.hub.shared().shards[shard].counters.count_dropped(1);
            }
        }
        Ok(())
    }

    fn check_room(&self, count: usize, bytes: usize) -> Result<(), SendError> {
        let Self { excess, limit, .. } = self;
        let fits = excess.count + count <= limit.count
            && (excess.count == 0 || excess.bytes + bytes <= limit.bytes);
        if fits { Ok(()) } else { Err(SendError::Overloaded) }
    }

    /// Looks whether the other shards have taken what was sent beyond the room.
    pub(in crate::shard) fn look(&mut self) {
        for (shard, excess) in self.hub.shared().shards.iter().zip(&mut self.excesses) {
            if excess.count > 0 && !shard.mailbox.has_line() {
                let Excess { count, bytes } = std::mem::take(excess);
                self.excess.count -= count;
                self.excess.bytes -= bytes;
            }
        }
    }
}

impl Drop for Links {
    /// A shard that is gone sends nothing more, whatever has ended it.
    fn drop(&mut self) {
        self.quiet();
    }
}

#[cfg(feature = "testing")]
impl Links {
    /// Panics unless the account of what was sent beyond the room is right, and within its bounds.
    pub(in crate::shard) fn check_invariants(&self) {
        let Self { excesses, excess, limit, own, .. } = self;
        let count: usize = excesses.iter().map(|excess| excess.count).sum();
        let bytes: usize = excesses.iter().map(|excess| excess.bytes).sum();
        assert_eq!(*excess, Excess { count, bytes }, "what was sent beyond the room");
        assert!(count <= limit.count, "too much was sent beyond the room");
        assert_eq!(excesses[*own], Excess::default(), "a shard sends nothing to itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::mailbox;
    use crate::hub::{Address, Audience, Node};
    use crate::sync::Waker;

    #[test]
    fn what_has_no_room_stands_in_line_in_order_until_the_shard_is_quiet() {
        let limits = Limits { mailbox_count: 2, ..Limits::default() };
        let polls = [0, 1].map(|_| mio::Poll::new().expect("a poll"));
        let (mailboxes, mut inboxes): (Vec<_>, Vec<_>) = polls
            .iter()
            .map(|poll| Waker::new(poll.registry(), mio::Token(0)).expect("a waker"))
            .map(|waker| mailbox(waker, limits.mailbox_count, limits.mailbox_bytes))
            .unzip();
        let hub = Hub::new(Node::random(), mailboxes.into(), std::collections::HashMap::new());
        let mut links = Links::new(hub, 0, &limits);
        let send = |links: &mut Links, generation| {
            links.send(1, Envelope::Abort { to: Address::new(0, generation) })
        };
        let mut take = || match inboxes[1].take(Envelope::size) {
            Some(Envelope::Abort { to }) => Some(to),
            _ => None,
        };
        for (generation, is_blocked) in [(0, false), (1, false), (2, true)] {
            assert_eq!(send(&mut links, generation), Ok(()));
            assert_eq!(links.is_blocked(), is_blocked);
        }
        assert_eq!(take(), Some(Address::new(0, 0)));
        // There is room, but something stands in line for it.
        assert_eq!(send(&mut links, 3), Ok(()));
        for generation in 1..4 {
            links.look();
            assert!(links.is_blocked());
            assert_eq!(take(), Some(Address::new(0, generation)));
        }
        assert_eq!(take(), None);
        links.look();
        assert!(!links.is_blocked());
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
    }
}
