//! What other shards and threads send to this shard: it is **taken over** from the mailbox into
//! outboxes, the log of publications and the lists of members. No handler is called, nothing is
//! freed, and nothing is handed to the kernel.
//!
//! The loop takes over a budget of envelopes once a turn. Besides, a handler's call that others may
//! see (in `dispatch::scope`) first takes over what has arrived. That gives the order that
//! `WebSocket` promises: **what returned before a call began comes before it, for every connection
//! on every shard.** The reasons, for a call P that returned before a call Q began:
//!
//! - *Q is a handler's, on the shard itself*: P's envelope is in this shard's mailbox, for P has
//!   returned. [`Inbox::is_settled`](crate::hub::mailbox::Inbox::is_settled) reads one counter,
//!   which P has raised before it returned and which only this shard lowers, when it takes P's
//!   envelope. So one atomic load tells that there is nothing to take over.
//! - *Q is a handler's on another shard, or a thread's*: Q's envelope follows P's through the same
//!   mailbox, which is a queue also while it is full (see [`mailbox`](crate::hub::mailbox)). If P
//!   is a handler's of this very shard, P was done before P returned, without an envelope.
//!
//! A handler takes over as many envelopes as there are when it looks, which is at most what the
//! mailbox holds. What arrives meanwhile was not sent before the call. Each envelope is taken once,
//! so that a handler that publishes in a loop does no work that its shard would not have to do.
//!
//! The wake-ups are left alone: `armed` stays set, and the loop looks at the mailbox in its phase,
//! also if it finds it empty then. So a burst still costs its senders one wake-up.
//!
//! Where the order ends: while the log is full, publications stay in the mailbox. Then a handler's
//! own publication is refused (`Overloaded`), so that it overtakes nothing; its sends and
//! subscriptions are not. And what a handler says to its own connection only (`send`, the reply)
//! takes nothing over: an echo would pay for it.
//!
//! Knows envelopes and what they do to connections. Must not know when the loop calls it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::error::SendError;
use crate::hub::{Address, Envelope};
use crate::shard::connection::CloseHandshake;
use crate::shard::outbox::outgoing::Outgoing;
use crate::shard::reports::Kind;
use crate::shard::state::Shard;

impl Shard {
    /// Takes over what has arrived, so that what follows comes after it.
    #[inline]
    pub(in crate::shard) fn take_over(&mut self) {
        if !self.inbox.is_settled() {
            self.take_over_arrived();
        }
    }

    #[cold]
    fn take_over_arrived(&mut self) {
        for _ in 0..self.inbox.count() {
            if !self.fanout.has_room() {
                return;
            }
            let Some(envelope) = self.inbox.take(Envelope::size) else { return };
            self.open(envelope);
        }
    }

    /// No connection is left: what is still in the mailbox, the rest of messages in pieces, came
    /// too late. It is lost.
    pub(in crate::shard) fn lose_mail(&mut self) {
        let counters = &self.hub.shared().shards[self.index].counters;
        self.inbox.end(Envelope::size, |envelope| {
            counters.count_dropped(envelope.message_count());
            // After it was counted: this settles its ticket.
            drop(envelope);
        });
    }

    /// Does what an envelope asks for; perhaps while a handler runs, and perhaps to its connection.
    pub(in crate::shard) fn open(&mut self, envelope: Envelope) {
        match envelope {
            Envelope::Send { to, parcel, mut ticket } => {
                let is_open = self.find(to).is_some_and(|slot| self.connections[slot].is_open());
                let sent = if is_open {
                    self.send_here(to, Outgoing::Parcel(&parcel), &mut ticket)
                } else {
                    Err(SendError::Gone)
                };
                if sent.is_err() {
                    self.count_dropped(1);
                }
                // After it was counted: the sender may look at the counter at once.
                if let Some(ticket) = ticket {
                    debug_assert!(sent.is_err(), "an accepted message keeps its ticket");
                    ticket.settle(sent);
                }
            }
            Envelope::Piece { to, frame, ticket } => self.push_piece(to, frame, ticket),
            Envelope::Publish(publication) => self.publish_here(&publication),
            Envelope::Subscribe { to, topic } => {
                if let Some(slot) = self.find(to)
                    && self.subscribe(slot, &topic) == Err(SendError::TooManyTopics)
                {
                    let kind = Kind::TooManyTopics(self.connections[slot].endpoint());
                    let (id, path) = (self.id(slot), self.path_for(slot));
                    self.report(
                        kind,
                        format_args!("connection {id} to {path} has too many topics for {topic:?}"),
                    );
                }
            }
            Envelope::Unsubscribe { to, topic } => {
                if let Some(slot) = self.find(to) {
                    self.unsubscribe(slot, &topic);
                }
            }
            Envelope::Close { to, close } => {
                if let Some(slot) = self.find(to) {
                    self.begin_close(slot, *close, CloseHandshake::Close);
                }
            }
            Envelope::Abort { to } => {
                if let Some(slot) = self.find(to) {
                    self.abort(slot);
                }
            }
            Envelope::Adopt { socket, peer } => self.handed_over.push_back((socket, peer)),
        }
    }
}

/// The loop's phase with the mailbox.
impl Shard {
    /// How many connections are to be looked at again.
    pub(in crate::shard) fn woken_count(&self) -> usize {
        self.inbox.woken_count()
    }

    /// Takes one of them, which may be gone.
    pub(in crate::shard) fn take_woken(&self) -> Option<Address> {
        self.inbox.take_woken()
    }

    /// Takes over at most so many envelopes; whether those are all.
    pub(in crate::shard) fn take_envelopes(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            if self.fanout.is_behind() {
                // The fan-out comes first; the mailbox fills, and its senders are told.
                return false;
            }
            let Some(envelope) = self.inbox.take(Envelope::size) else { return true };
            self.open(envelope);
        }
        false
    }

    /// Takes a socket that another shard has accepted for this one.
    pub(in crate::shard) fn take_handed_over(&mut self) -> Option<(OwnedFd, SocketAddr)> {
        self.handed_over.pop_front()
    }

    /// The mailbox takes nothing more; takes over what it has promised to take.
    pub(in crate::shard) fn close_mailbox(&mut self) {
        self.inbox.mailbox().close();
        while let Some(envelope) = self.inbox.take_promised(Envelope::size) {
            self.open(envelope);
        }
    }

    /// Counts a connection that is about to come to this shard.
    pub(in crate::shard) fn count_connection(&self) {
        self.link().counters.add_connection();
    }

    /// It has not come, or is gone.
    pub(in crate::shard) fn uncount_connection(&self) {
        self.link().counters.remove_connection();
    }
}
