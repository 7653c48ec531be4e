//! [`HandlerScope`]: a shard while the handler of one of its connections runs: what the handler may
//! reach of it, and the run: the messages of one connection's service, one after another.
//!
//! Knows messages and the current connection. Must not know what a handler is, nor who catches its
//! panics: that is `application`'s.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::error::SendError;
use crate::handler::{GrantedRequest, Reach, Reply};
use crate::hub::credit::Credit;
use crate::hub::{Audience, BroadcastDelivery, ConnectionId, Delivery, Hub, Slot};
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::protocol::{Doubt, Lane};
use crate::shard::connection::CloseHandshake;
use crate::shard::state::Shard;

/// Input that is handled in one service.
pub(crate) struct Intake<'b> {
    /// What is left of it.
    pub(in crate::shard) bytes: &'b mut [u8],
    /// How many frames may still be handled.
    pub(in crate::shard) budget: usize,
    /// How the last run of whole messages ended.
    pub(in crate::shard) end: RunEnd<'b>,
}

/// How a run of whole messages ended.
pub(crate) enum RunEnd<'b> {
    /// The input is used up, or the budget is. Nothing else has changed.
    Plain,
    /// The last handler's reply, perhaps none, is still to be sent: the handler did more than to
    /// reply at once, or the fast cork is full.
    Reply(Reply<'b>),
    /// What comes next is not for the lane.
    Doubt(Doubt<'b>),
}

impl<'b> Intake<'b> {
    #[inline]
    pub(in crate::shard) fn new(bytes: &'b mut [u8], budget: usize) -> Self {
        Self { bytes, budget, end: RunEnd::Plain }
    }

    /// Whether the last run has left nothing to be done.
    #[inline]
    pub(in crate::shard) fn is_done(&self) -> bool {
        matches!(self.end, RunEnd::Plain) && self.bytes.is_empty()
    }
}

/// A shard during a call of the handler of the connection in `slot`.
pub(crate) struct HandlerScope<'s> {
    pub(in crate::shard) shard: &'s mut Shard,
    pub(in crate::shard) slot: Slot,
}

impl HandlerScope<'_> {
    /// Hands out the messages that lie in the input, one after another, as long as nothing comes
    /// of it but replies that fit into the fast cork.
    ///
    /// Each handler has a loop of its own, of which it is a part: it is not called, nor is its
    /// reply looked at, by way of memory.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the handler is to be part of the loop")]
    pub(in crate::shard) fn run<'b>(
        &mut self,
        lane: Lane,
        intake: &mut Intake<'b>,
        mut handle: impl FnMut(&mut Self, Message<'b>) -> Reply<'b>,
    ) {
        debug_assert!(matches!(intake.end, RunEnd::Plain));
        let mut budget = intake.budget;
        while budget > 0 && !intake.bytes.is_empty() {
            budget -= 1;
            let taken;
            // Kept where a panic leaves it: the peer's Close may be in it.
            (taken, intake.bytes) = lane.take(std::mem::take(&mut intake.bytes));
            let message = match taken {
                Ok(message) => message,
                Err(doubt) => {
                    intake.end = RunEnd::Doubt(doubt);
                    break;
                }
            };
            let reply = handle(self, message);
            match reply.plain() {
                Some(Some(answer)) if self.shard.append_fast(answer) => {}
                Some(None) if self.shard.is_fast_cork_open() => {}
                _ => {
                    intake.end = RunEnd::Reply(reply);
                    break;
                }
            }
            // It owns nothing; to find that out once more is not free.
            std::mem::forget(reply);
        }
        intake.budget = budget;
    }

    /// What is done to the shard may change whatever the current connection's run relies on. It
    /// comes after what has arrived from others.
    fn act(&mut self) -> (&mut Shard, Slot) {
        self.shard.close_fast_cork();
        self.shard.take_over();
        (self.shard, self.slot)
    }

    fn audience(&self, topic: Option<&str>) -> Result<Audience, SendError> {
        match topic {
            Some(topic) => self.shard.topic(topic).map(Audience::Topic),
            None => Ok(Audience::Everyone(self.shard.connection(self.slot).endpoint())),
        }
    }
}

impl Reach for HandlerScope<'_> {
    fn id(&self) -> ConnectionId {
        self.shard.id(self.slot)
    }

    fn send(&mut self, message: Message<'_>) -> Result<(), SendError> {
        self.shard.send_own(self.slot, message)
    }

    fn send_to(&mut self, id: ConnectionId, message: Message<'_>) -> Result<(), SendError> {
        self.act().0.send_to(id, message, None)
    }

    fn send_to_async(&mut self, id: ConnectionId, message: Message<'_>) -> Delivery {
        let (delivery, ticket) = Delivery::new();
        match self.act().0.send_to(id, message, Some(ticket)) {
            Ok(()) => delivery,
            Err(error) => Delivery::refused(error),
        }
    }

    fn publish(
        &mut self,
        topic: Option<&str>,
        except: Option<ConnectionId>,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        let audience = self.audience(topic)?;
        self.act().0.publish(audience, except, message, None)
    }

    fn publish_async(&mut self, topic: Option<&str>, message: Message<'_>) -> BroadcastDelivery {
        let (delivery, tally) = BroadcastDelivery::new();
        let published = self
            .audience(topic)
            .and_then(|audience| self.act().0.publish(audience, None, message, Some(tally)));
        match published {
            Ok(()) => delivery,
            Err(error) => BroadcastDelivery::refused(error),
        }
    }

    fn subscribe(&mut self, topic: &str) -> Result<(), SendError> {
        let (shard, slot) = self.act();
        shard.subscribe(slot, topic)
    }

    fn unsubscribe(&mut self, topic: &str) {
        let (shard, slot) = self.act();
        shard.unsubscribe(slot, topic);
    }

    fn stream(&mut self) -> Result<Arc<Credit>, SendError> {
        let (shard, slot) = self.act();
        shard.begin_stream(slot)
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        let close = Close::new(code, reason.to_owned(), ClosedBy::Application);
        let (shard, slot) = self.act();
        shard.begin_close(slot, close, CloseHandshake::Close);
    }

    fn abort(&mut self) {
        let (shard, slot) = self.act();
        shard.abort(slot);
    }

    fn buffered_bytes(&self) -> usize {
        self.shard.buffered_bytes(self.slot)
    }

    fn has_backpressure(&self) -> bool {
        self.buffered_bytes() > self.shard.limits_of(self.slot).outbox_high_water_bytes
    }

    fn granted(&self) -> Option<Arc<GrantedRequest>> {
        self.shard.connection(self.slot).granted()
    }

    fn peer_addr(&self) -> SocketAddr {
        self.shard.connection(self.slot).peer()
    }

    fn client_ip(&self) -> IpAddr {
        self.shard.connection(self.slot).client_ip()
    }

    fn hub(&self) -> &Hub {
        self.shard.hub()
    }
}
