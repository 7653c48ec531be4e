//! The one place where application code is called: handlers, and the destructors of sessions.
//!
//! A panic in any of them is caught here and ends that connection with 1011.
//!
//! Knows handlers, sessions, replies, and the shard's state. Must not know events, the phases or
//! `EventLoop`.

pub(in crate::shard) mod erased;
mod later;
pub(in crate::shard) mod pool;
pub(in crate::shard) mod scope;
pub(in crate::shard) mod service;
pub(in crate::shard) mod tasks;

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::handler::{Context, Decision, Reach, Reply, Request};
use crate::http::{Head, Origins};
use crate::hub::{EndpointIndex, Slot};
use crate::message::{Chunk, Close, Message};
use crate::panics::discard;
use crate::protocol::MessageMode;
use crate::routing::Params;
use crate::shard::dispatch::erased::ErasedHandler;
use crate::shard::dispatch::scope::{HandlerScope, Intake, RunEnd};
use crate::shard::dispatch::service::{ServedEndpoint, Service};
use crate::shard::dispatch::tasks::Tasks;
use crate::shard::state::Shard;

/// The handlers, and the sessions of this shard's connections.
pub(in crate::shard) struct Application {
    pub(in crate::shard) service: Arc<Service>,
    /// By slot.
    sessions: Vec<Option<Box<dyn Any>>>,
    pub(in crate::shard) tasks: Tasks,
}

impl Application {
    /// What a connection takes here whose session has no size.
    pub(in crate::shard) const SESSION_BYTES: usize = size_of::<Option<Box<dyn Any>>>();

    pub(in crate::shard) fn new(service: Arc<Service>) -> Self {
        Self { service, sessions: Vec::new(), tasks: Tasks::default() }
    }

    /// Asks the endpoint about an upgrade, its function only if what the endpoint requires is
    /// there. Returns `None` if that panicked.
    pub(in crate::shard) fn upgrade(
        &self,
        endpoint: EndpointIndex,
        head: &Head<'_>,
        (peer, client): (SocketAddr, IpAddr),
        params: &Params,
    ) -> Option<Decision> {
        let ServedEndpoint { handler, dependencies, checks, .. } =
            &self.service.endpoints[usize::from(endpoint)];
        let request = &Request::new(*head, peer, client, params, dependencies);
        // How a parameter is parsed is the application's, too.
        let decided = catch_unwind(AssertUnwindSafe(|| {
            let refused = checks.iter().find_map(|check| check.refuse(request));
            refused.map_or_else(|| handler.upgrade(request), Decision::Reject)
        }));
        decided.map_err(discard).ok()
    }

    /// Keeps the session of a connection whose upgrade is granted.
    pub(in crate::shard) fn keep_session(&mut self, slot: Slot, session: Box<dyn Any>) {
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        debug_assert!(self.sessions[slot].is_none(), "the slot was reaped with its session");
        self.sessions[slot] = Some(session);
    }

    pub(in crate::shard) fn connect(&mut self, shard: &mut Shard, slot: Slot) {
        self.call(shard, slot, |handler, reach, context| handler.connect(reach, context));
    }

    pub(in crate::shard) fn message(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        message: Message<'_>,
    ) {
        self.call(shard, slot, |handler, reach, context| handler.message(reach, context, message));
    }

    /// Hands out the messages that lie in the input of a connection that is open and dormant; see
    /// [`HandlerScope::run`]. The fast cork is opened, with this limit if it is known. A panic ends
    /// the connection.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the call alone costs a twentieth of a short echo")]
    pub(in crate::shard) fn run(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        endpoint: EndpointIndex,
        cork_limit: Option<usize>,
        intake: &mut Intake<'_>,
    ) {
        debug_assert!({
            let connection = shard.connection(slot);
            connection.is_open() && connection.is_dormant()
        });
        let Some(session) = self.sessions[slot].as_deref_mut() else {
            debug_assert!(false, "an open connection has a session");
            intake.bytes = &mut [];
            return;
        };
        let ServedEndpoint { handler, dependencies, endpoint_limits, .. } =
            &self.service.endpoints[usize::from(endpoint)];
        shard.open_fast_cork(cork_limit.unwrap_or(endpoint_limits.cork_bytes));
        let mut scope = HandlerScope { shard, slot };
        let mut context = Context { dependencies, session };
        let run = AssertUnwindSafe(|| {
            handler.run(&mut scope, &mut context, endpoint_limits.lane, intake)
        });
        if let Err(panic) = catch_unwind(run) {
            intake.end = RunEnd::Reply(Reply::none());
            shard.close_fast_cork();
            discard(panic);
            shard.fail(slot);
        }
    }

    pub(in crate::shard) fn chunk(&mut self, shard: &mut Shard, slot: Slot, chunk: Chunk<'_>) {
        self.call(shard, slot, |handler, reach, context| handler.chunk(reach, context, chunk));
    }

    /// The pages that may open connections to the endpoint.
    pub(in crate::shard) fn origins(&self, endpoint: EndpointIndex) -> &Origins {
        &self.service.endpoints[usize::from(endpoint)].origins
    }

    /// How the endpoint wants its messages.
    pub(in crate::shard) fn mode(&self, endpoint: EndpointIndex) -> MessageMode {
        let handler = &self.service.endpoints[usize::from(endpoint)].handler;
        match catch_unwind(AssertUnwindSafe(|| handler.receives_chunks())) {
            Ok(true) => MessageMode::Pieces,
            Ok(false) => MessageMode::Messages,
            Err(panic) => {
                // It is asked again with the first message: that panic ends the connection.
                discard(panic);
                MessageMode::Messages
            }
        }
    }

    pub(in crate::shard) fn drain(&mut self, shard: &mut Shard, slot: Slot) {
        self.call(shard, slot, |handler, reach, context| {
            handler.drain(reach, context);
            Reply::none()
        });
    }

    pub(in crate::shard) fn close(&mut self, shard: &mut Shard, slot: Slot, close: &Close) {
        self.call(shard, slot, |handler, reach, context| handler.close(reach, context, close));
    }

    /// Runs a handler and sends what it returns.
    #[inline]
    fn call<'m>(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        handle: impl FnOnce(&dyn ErasedHandler, &mut dyn Reach, &mut Context<'_>) -> Reply<'m>,
    ) {
        if let Some(reply) = self.call_handler(shard, slot, handle) {
            self.reply(shard, slot, reply);
        }
    }

    /// Sends what a handler returned, now or later.
    pub(in crate::shard) fn reply(&mut self, shard: &mut Shard, slot: Slot, reply: Reply<'_>) {
        match reply.plain() {
            Some(Some(message)) => shard.reply(slot, message),
            Some(None) => {}
            None => self.finish(shard, slot, reply),
        }
    }

    /// Runs a handler, or what it has left to be run. A panic ends the connection.
    #[inline]
    pub(in crate::shard) fn call_handler<'m>(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        handle: impl FnOnce(&dyn ErasedHandler, &mut dyn Reach, &mut Context<'_>) -> Reply<'m>,
    ) -> Option<Reply<'m>> {
        let endpoint = usize::from(shard.connection(slot).endpoint());
        let ServedEndpoint { handler, dependencies, .. } = &self.service.endpoints[endpoint];
        let Some(session) = self.sessions[slot].as_deref_mut() else {
            debug_assert!(false, "an open connection has a session");
            return None;
        };
        let mut scope = HandlerScope { shard, slot };
        let mut context = Context { dependencies, session };
        match catch_unwind(AssertUnwindSafe(|| handle(&**handler, &mut scope, &mut context))) {
            Ok(reply) => Some(reply),
            Err(panic) => {
                discard(panic);
                shard.fail(slot);
                None
            }
        }
    }

    /// Drops the session of a connection that is gone, and what it waited for.
    pub(in crate::shard) fn forget(&mut self, shard: &mut Shard, slot: Slot) {
        self.drop_task(shard, slot);
        if let Some(session) = self.sessions.get_mut(slot).and_then(Option::take) {
            shard.discard(slot, session);
        }
    }
}

#[cfg(feature = "testing")]
impl Application {
    pub(in crate::shard) fn has_session(&self, slot: Slot) -> bool {
        self.sessions.get(slot).is_some_and(Option::is_some)
    }

    pub(in crate::shard) fn session_count(&self) -> usize {
        self.sessions.iter().flatten().count()
    }
}
