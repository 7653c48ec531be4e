//! [`ErasedHandler`]: handlers, whatever the type of their sessions.
//!
//! Knows how each call of a handler is made. Must not know who makes it, nor who catches its
//! panics: that is `application`'s.

use crate::handler::{
    Context, Decision, Handler, Reach, Reply, Request, Upgrade, WebSocket, typed,
};
use crate::message::{Chunk, Close, Message};
use crate::protocol::Lane;
use crate::shard::dispatch::scope::{HandlerScope, Intake};

/// A [`Handler`] whose session's type is forgotten, so that all endpoints look alike to a shard.
pub(crate) trait ErasedHandler: Send + Sync {
    fn upgrade(&self, request: &Request<'_>) -> Decision;
    fn connect(&self, reach: &mut dyn Reach, context: &mut Context<'_>) -> Reply<'static>;
    /// A whole message: for an endpoint that wants pieces, one that is the first and the last.
    fn message<'m>(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        message: Message<'m>,
    ) -> Reply<'m>;
    /// A run of such messages, see [`HandlerScope::run`].
    fn run(
        &self,
        scope: &mut HandlerScope<'_>,
        context: &mut Context<'_>,
        lane: Lane,
        intake: &mut Intake<'_>,
    );
    fn receives_chunks(&self) -> bool;
    fn chunk<'m>(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        chunk: Chunk<'m>,
    ) -> Reply<'m>;
    fn drain(&self, reach: &mut dyn Reach, context: &mut Context<'_>);
    fn close(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        close: &Close,
    ) -> Reply<'static>;
}

/// A handler, and the function that decides about upgrades to its endpoint.
pub(crate) struct Served<H, F> {
    pub(crate) handler: H,
    pub(crate) on_upgrade: F,
}

impl<H, F> ErasedHandler for Served<H, F>
where
    H: Handler,
    F: Fn(&Request<'_>) -> Upgrade<H::Session> + Send + Sync,
{
    fn upgrade(&self, request: &Request<'_>) -> Decision {
        (self.on_upgrade)(request).erase()
    }

    fn connect(&self, reach: &mut dyn Reach, context: &mut Context<'_>) -> Reply<'static> {
        self.handler.on_connect(&mut context.socket(reach))
    }

    fn message<'m>(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        message: Message<'m>,
    ) -> Reply<'m> {
        hand_over(&self.handler, &mut context.socket(reach), message)
    }

    fn run(
        &self,
        scope: &mut HandlerScope<'_>,
        context: &mut Context<'_>,
        lane: Lane,
        intake: &mut Intake<'_>,
    ) {
        let dependencies = context.dependencies;
        let session = typed(context.session);
        scope.run(lane, intake, |scope, message| {
            hand_over(&self.handler, &mut WebSocket::new(dependencies, scope, session), message)
        });
    }

    fn receives_chunks(&self) -> bool {
        self.handler.receives_chunks()
    }

    fn chunk<'m>(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        chunk: Chunk<'m>,
    ) -> Reply<'m> {
        self.handler.on_chunk(&mut context.socket(reach), chunk)
    }

    fn drain(&self, reach: &mut dyn Reach, context: &mut Context<'_>) {
        self.handler.on_drain(&mut context.socket(reach));
    }

    fn close(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        close: &Close,
    ) -> Reply<'static> {
        self.handler.on_close(&mut context.socket(reach), close)
    }
}

/// Hands a whole message to the handler, the way that it wants them.
#[inline]
fn hand_over<'m, H: Handler>(
    handler: &H,
    ws: &mut WebSocket<'_, H::Session>,
    message: Message<'m>,
) -> Reply<'m> {
    // A constant to the compiler, for a handler that has the default.
    if handler.receives_chunks() {
        handler.on_chunk(ws, Chunk::new(message, true, true))
    } else {
        handler.on_message(ws, message)
    }
}
