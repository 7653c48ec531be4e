//! A shard's ways to the other shards' mailboxes, and to the outlets beside them.
//!
//! What a handler sends is in the mailbox when its call returns, also if there is no room for it:
//! then it stands in the mailbox's line, and this shard counts it. What a shard has standing in
//! lines is bounded. Until it was taken the shard reads from none of its connections, so that the
//! pressure reaches the connections that cause it.
//!
//! It does not wait here: what another shard or a thread sends meanwhile would overtake it.
//!
//! Knows the hub's links, envelopes and excess. Must not know `Shard`, connections or handlers.

use crate::config::Limits;
use crate::error::SendError;
use crate::hub::{Accepted, Envelope, Excess, Hub, Origin, Publication, ShardLink};

#[derive(Debug)]
pub(in crate::shard) struct Outbound {
    hub: Hub,
    own: usize,
    /// What this shard has sent beyond the room of the others' mailboxes.
    excess: Excess,
    is_quiet: bool,
}

impl Outbound {
    pub(in crate::shard) fn new(hub: Hub, own: usize, limits: &Limits) -> Self {
        let shard_count = hub.shared().shards.len();
        let excess =
            Excess::new(shard_count, limits.max_mailbox_envelopes, limits.max_mailbox_bytes);
        Self { hub, own, excess, is_quiet: false }
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
        !self.excess.is_empty()
    }

    /// Sends to another shard, also if there is no room, within the bounds of that.
    pub(in crate::shard) fn send(
        &mut self,
        shard: usize,
        envelope: Envelope,
    ) -> Result<(), SendError> {
        let shared = self.hub.shared();
        let Some(ShardLink { mailbox, .. }) = shared.shards.get(shard) else {
            return Err(SendError::Gone);
        };
        if mailbox.is_closed() {
            return Err(SendError::ShuttingDown);
        }
        let bytes = envelope.size();
        self.excess.check(1, bytes)?;
        if self.is_quiet {
            let room = mailbox.reserve(bytes).map_err(|_| SendError::ShuttingDown)?;
            return room.send(envelope);
        }
        shared.send_anyway(shard, envelope, &mut self.excess)
    }

    /// Sends a publication to all other shards and to all outlets, or to none. Returns it for this
    /// shard's own connections.
    #[inline]
    pub(in crate::shard) fn publish(
        &mut self,
        publication: Publication,
    ) -> Result<Accepted, SendError> {
        let excess = if self.is_quiet { None } else { Some(&mut self.excess) };
        let origin = Origin::Handler { shard: self.own, excess };
        match self.hub.shared().accept_publication(publication, origin) {
            Err(_) if self.is_quiet => Err(SendError::ShuttingDown),
            accepted => accepted,
        }
    }

    /// Looks whether the other shards have taken what was sent beyond the room.
    pub(in crate::shard) fn look(&mut self) {
        let shards = &self.hub.shared().shards;
        self.excess.remove_taken(|shard| shards[shard].mailbox.has_line());
    }
}

impl Drop for Outbound {
    /// A shard that is gone sends nothing more, whatever has ended it.
    fn drop(&mut self) {
        self.quiet();
    }
}

#[cfg(feature = "testing")]
impl Outbound {
    /// Panics unless the account of what was sent beyond the room is right, and within its bounds.
    pub(in crate::shard) fn check_invariants(&self) {
        self.excess.check_invariants(self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::mailbox;
    use crate::hub::{Address, Audience, Node};
    use crate::message::Message;
    use crate::protocol::parcel::Parcel;
    use crate::sync::Waker;

    #[test]
    fn what_has_no_room_stands_in_line_in_order_until_the_shard_is_quiet() {
        let limits = Limits { max_mailbox_envelopes: 2, ..Limits::default() };
        let polls = [0, 1].map(|_| mio::Poll::new().expect("a poll"));
        let (mailboxes, mut inboxes): (Vec<_>, Vec<_>) = polls
            .iter()
            .map(|poll| Waker::new(poll.registry(), mio::Token(0)).expect("a waker"))
            .map(|waker| mailbox(waker, limits.max_mailbox_envelopes, limits.max_mailbox_bytes))
            .unzip();
        let hub = Hub::new(Node::random(), mailboxes.into(), Box::default(), Default::default());
        let mut outbound = Outbound::new(hub, 0, &limits);
        let send = |outbound: &mut Outbound, generation| {
            outbound.send(1, Envelope::Abort { to: Address::new(0, generation) })
        };
        let mut take = || match inboxes[1].take(Envelope::size) {
            Some(Envelope::Abort { to }) => Some(to),
            _ => None,
        };
        for (generation, is_blocked) in [(0, false), (1, false), (2, true)] {
            assert_eq!(send(&mut outbound, generation), Ok(()));
            assert_eq!(outbound.is_blocked(), is_blocked);
        }
        assert_eq!(take(), Some(Address::new(0, 0)));
        // There is room, but something stands in line for it.
        assert_eq!(send(&mut outbound, 3), Ok(()));
        for generation in 1..4 {
            outbound.look();
            assert!(outbound.is_blocked());
            assert_eq!(take(), Some(Address::new(0, generation)));
        }
        assert_eq!(take(), None);
        outbound.look();
        assert!(!outbound.is_blocked());
        for generation in 4..6 {
            assert_eq!(send(&mut outbound, generation), Ok(()));
        }
        outbound.quiet();
        let publish = |outbound: &mut Outbound| {
            let parcel = Parcel::new(Message::Text("")).into();
            let audience = Audience::Everyone(0);
            outbound.publish(Publication { audience, except: None, parcel, tally: None }).map(drop)
        };
        assert_eq!(send(&mut outbound, 6), Err(SendError::ShuttingDown));
        assert_eq!(publish(&mut outbound), Err(SendError::ShuttingDown));
        assert!(!outbound.is_blocked() && take().is_some());
        assert_eq!(send(&mut outbound, 6), Ok(()), "there is room");
        assert!(take().is_some());
        assert_eq!(publish(&mut outbound), Ok(()), "there is room");
        assert!(!outbound.is_blocked());
    }
}
