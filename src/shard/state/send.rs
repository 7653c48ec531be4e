//! Messages to one connection: the current one, or any other of the server.
//!
//! Knows the order in which they follow what was published. Must not know how output reaches the
//! kernel: that is `output`'s.

use super::Shard;
use crate::error::SendError;
use crate::hub::ticket::Ticket;
use crate::hub::{Address, ConnectionId, Envelope, Slot};
use crate::message::Message;
use crate::protocol::frame;
use crate::shard::outbox::cork::CORK_BYTES;
use crate::shard::outbox::outgoing::Outgoing;

impl Shard {
    /// Sends to the connection whose handler runs.
    #[inline]
    pub(in crate::shard) fn send_own(
        &mut self,
        slot: Slot,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        if self.cork.fast.append(message) {
            return Ok(());
        }
        self.cork.close_fast();
        if !self.connections[slot].is_open() {
            return Err(SendError::Closed);
        }
        self.catch_up(slot);
        if !self.connections[slot].is_open() {
            return Err(SendError::Overloaded);
        }
        self.push_own(slot, message)
    }

    /// Sends what the handler returned; allowed also once it has asked to close.
    #[inline]
    pub(in crate::shard) fn reply(&mut self, slot: Slot, message: Message<'_>) {
        if !self.connections[slot].is_open() {
            // The last words: one message, whatever the bounds.
            let connection = &self.connections[slot];
            if !connection.may_send() {
                self.count_dropped(1);
            } else {
                self.say_last(slot, message);
            }
            return;
        }
        self.catch_up(slot);
        let is_plain = self.connections[slot].encoding().is_plain();
        let is_long = message.len() >= CORK_BYTES && is_plain;
        let sent =
            if is_long { self.reply_long(slot, message) } else { self.push_own(slot, message) };
        if sent.is_err() {
            // There is nobody to tell but the counter.
            self.count_dropped(1);
        }
    }

    /// Appends the last words of a handler, whatever the bounds, in the form that its connection
    /// takes.
    #[cold]
    fn say_last(&mut self, slot: Slot, message: Message<'_>) {
        let connection = &self.connections[slot];
        let (has_stream, encoding) = (connection.has_stream(), connection.encoding());
        let twin = Outgoing::Message(message).encode(encoding);
        let outgoing = twin.as_ref().map_or(Outgoing::Message(message), Outgoing::Frames);
        match outgoing.encoded() {
            _ if has_stream => self.hold(slot, outgoing, None),
            Ok(frames) => self.cork.append_slice(frames),
            Err(message) => frame::encode(self.cork.buffer(), message),
        }
    }

    /// Sends to any connection of the server, for the handler of another.
    pub(in crate::shard) fn send_to(
        &mut self,
        id: ConnectionId,
        message: Message<'_>,
        mut ticket: Option<Ticket>,
    ) -> Result<(), SendError> {
        if id.node() != self.hub.shared().node {
            return Err(SendError::Gone);
        }
        let to = id.address();
        if id.shard() == self.index && ticket.is_none() {
            return self.send_here(to, Outgoing::Message(message), &mut None);
        }
        let parcel = self.encoder.encode(message);
        if id.shard() == self.index {
            return self.send_here(to, Outgoing::Parcel(&parcel), &mut ticket);
        }
        self.outbound.send(id.shard(), Envelope::Send { to, parcel, ticket })
    }

    /// Sends to a connection of this shard. The ticket is taken if the message is accepted, else it
    /// is left to the caller.
    pub(in crate::shard) fn send_here(
        &mut self,
        to: Address,
        outgoing: Outgoing<'_>,
        ticket: &mut Option<Ticket>,
    ) -> Result<(), SendError> {
        match self.find(to) {
            Some(slot) if self.connections[slot].is_open() => {
                self.catch_up(slot);
                if self.connections[slot].is_open() {
                    return self.push(slot, outgoing, ticket);
                }
                // What was published before has overflowed its outbox: it gets nothing after that.
                Err(SendError::Overloaded)
            }
            Some(slot) if self.cork.is_of(slot) => Err(SendError::Closed),
            _ => Err(SendError::Gone),
        }
    }
}
