//! The one place where application code is called: handlers, and the destructors of sessions.
//!
//! A panic in any of them is caught here and ends that connection with 1011.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::connection::Farewell;
use super::state::{Shard, Slot};
use crate::error::{Refusal, SendError};
use crate::handler::{Endpoint, Reach, Reply, Request, Upgrade};
use crate::http::{self, Body, Origins, Response};
use crate::hub::{ConnectionId, EndpointIndex, Hub};
use crate::message::{Close, CloseCode, ClosedBy, Message};
use crate::network::Networks;
use crate::routing::Routes;

/// Everything that a server serves; the same for all shards.
#[derive(Default)]
pub(crate) struct Service {
    pub(crate) endpoints: Vec<Box<dyn Endpoint>>,
    pub(crate) routes: Routes,
    pub(crate) pages: Vec<Page>,
    pub(crate) origins: Origins,
    /// The proxies that are believed.
    pub(crate) proxies: Networks,
}

/// A page, encoded once.
pub(crate) struct Page {
    keep_alive: Bytes,
    close: Bytes,
    pub(crate) body: Bytes,
}

impl Page {
    pub(crate) fn new(response: &Response) -> Self {
        Self {
            keep_alive: response.encode(http::Connection::KeepAlive, Body::Omitted),
            close: response.encode(http::Connection::Close, Body::Omitted),
            body: response.whole_body(),
        }
    }

    pub(crate) fn head(&self, after: http::Connection) -> Bytes {
        match after {
            http::Connection::KeepAlive => self.keep_alive.clone(),
            http::Connection::Close => self.close.clone(),
        }
    }
}

/// The handlers, and the sessions of this shard's connections.
pub(super) struct Application {
    pub(super) service: Arc<Service>,
    /// By slot.
    sessions: Vec<Option<Box<dyn Any>>>,
}

impl Application {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service, sessions: Vec::new() }
    }

    /// Asks the endpoint about an upgrade, and keeps the session if it accepts.
    pub(super) fn upgrade(
        &mut self,
        slot: Slot,
        endpoint: EndpointIndex,
        request: &Request<'_>,
    ) -> Upgrade {
        let handler = &*self.service.endpoints[usize::from(endpoint)];
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        // The session is kept outside of the call, so that two panics never meet.
        let decided = catch_unwind(AssertUnwindSafe(|| handler.session()));
        let decided = decided.and_then(|session| {
            let session = self.sessions[slot].insert(session);
            catch_unwind(AssertUnwindSafe(|| handler.upgrade(request, &mut **session)))
        });
        match decided {
            Ok(upgrade) => upgrade,
            Err(panic) => {
                discard(panic);
                log::error!("on_upgrade panicked; the request is refused");
                Upgrade::reject(Refusal::Internal)
            }
        }
    }

    /// Replaces the session that the endpoint made by the one that the upgrade was granted with.
    pub(super) fn replace_session(
        &mut self,
        slot: Slot,
        session: Box<dyn Any>,
    ) -> Result<(), Refusal> {
        match &mut self.sessions[slot] {
            Some(made) if (**made).type_id() == (*session).type_id() => {
                discard(std::mem::replace(made, session));
                Ok(())
            }
            _ => {
                discard(session);
                log::error!("Upgrade::session got another type than the handler's Session");
                Err(Refusal::Internal)
            }
        }
    }

    pub(super) fn connect(&mut self, shard: &mut Shard, slot: Slot) {
        self.call(shard, slot, |handler, reach, session| handler.connect(reach, session));
    }

    #[inline]
    pub(super) fn message(&mut self, shard: &mut Shard, slot: Slot, message: Message<'_>) {
        self.call(shard, slot, |handler, reach, session| handler.message(reach, session, message));
    }

    pub(super) fn drain(&mut self, shard: &mut Shard, slot: Slot) {
        self.call(shard, slot, |handler, reach, session| {
            handler.drain(reach, session);
            Reply::none()
        });
    }

    pub(super) fn close(&mut self, shard: &mut Shard, slot: Slot, close: &Close) -> Outcome {
        self.call(shard, slot, |handler, reach, session| handler.close(reach, session, close))
    }

    /// Runs a handler and sends what it returns. A panic ends the connection.
    #[inline]
    fn call<'m>(
        &mut self,
        shard: &mut Shard,
        slot: Slot,
        handle: impl FnOnce(&dyn Endpoint, &mut dyn Reach, &mut dyn Any) -> Reply<'m>,
    ) -> Outcome {
        let endpoint = usize::from(shard.connections[slot].endpoint);
        let handler = &*self.service.endpoints[endpoint];
        let Some(session) = self.sessions[slot].as_deref_mut() else {
            debug_assert!(false, "an open connection has a session");
            return Outcome::Returned;
        };
        let mut visit = Visit { shard, slot };
        let outcome = catch_unwind(AssertUnwindSafe(|| handle(handler, &mut visit, session)));
        match outcome {
            Ok(reply) => {
                if let Some(message) = reply.message() {
                    shard.reply(slot, message);
                }
                if reply.owns_payload() {
                    discard(reply);
                }
                Outcome::Returned
            }
            Err(panic) => {
                discard(panic);
                log::error!("a handler panicked; its connection {} is closed", shard.id(slot));
                let close = Close::new(
                    CloseCode::INTERNAL_ERROR,
                    "handler panicked",
                    ClosedBy::Application,
                );
                shard.begin_close(slot, close, Farewell::Close);
                Outcome::Panicked
            }
        }
    }

    /// Drops the session of a connection that is gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot).and_then(Option::take) {
            discard(session);
        }
    }
}

/// How a call of a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Returned,
    Panicked,
}

/// Drops a value whose destructor may panic, and may do so with something as bad: that is leaked.
pub(super) fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        log::error!("a destructor panicked");
        std::mem::forget(panic);
    }
}

/// A shard during a call of the handler of the connection in `slot`.
struct Visit<'s> {
    shard: &'s mut Shard,
    slot: Slot,
}

impl Reach for Visit<'_> {
    fn id(&self) -> ConnectionId {
        self.shard.id(self.slot)
    }

    fn send(&mut self, message: Message<'_>) -> Result<(), SendError> {
        self.shard.send_own(self.slot, message)
    }

    fn send_to(&mut self, id: ConnectionId, message: Message<'_>) -> Result<(), SendError> {
        self.shard.send_to(id, message)
    }

    fn broadcast(
        &mut self,
        except: Option<ConnectionId>,
        message: Message<'_>,
    ) -> Result<(), SendError> {
        let endpoint = self.shard.connections[self.slot].endpoint;
        self.shard.broadcast(endpoint, except, message)
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        let close = Close::new(code, reason.to_owned(), ClosedBy::Application);
        self.shard.begin_close(self.slot, close, Farewell::Close);
    }

    fn abort(&mut self) {
        self.shard.abort(self.slot);
    }

    fn buffered_bytes(&self) -> usize {
        self.shard.buffered_bytes(self.slot)
    }

    fn has_backpressure(&self) -> bool {
        self.buffered_bytes() > self.shard.limits.outbox_high_water_bytes
    }

    fn query(&self) -> &str {
        self.shard.connections[self.slot].details.as_ref().map_or("", |details| &details.query)
    }

    fn subprotocol(&self) -> Option<&str> {
        self.shard.connections[self.slot].details.as_ref()?.subprotocol.as_deref()
    }

    fn peer_addr(&self) -> SocketAddr {
        self.shard.connections[self.slot].peer
    }

    fn client_ip(&self) -> IpAddr {
        self.shard.connections[self.slot].client_ip()
    }

    fn hub(&self) -> &Hub {
        &self.shard.hub
    }
}
