//! [`ErasedHandler`]: handlers, whatever the type of their sessions.
//!
//! Knows how each call of a handler is made. Must not know who makes it, nor who catches its
//! panics: that is `application`'s.

use std::any::Any;

use crate::handler::{Context, Handler, Reach, Reply, Request, Upgrade, WebSocket, typed};
use crate::message::{Chunk, Close, Message};
use crate::protocol::Lane;
use crate::shard::dispatch::scope::{HandlerScope, Intake};

/// A [`Handler`] whose session's type is forgotten, so that all endpoints look alike to a shard.
pub(crate) trait ErasedHandler: Send + Sync {
    fn session(&self) -> Box<dyn Any>;
    fn upgrade(&self, request: &Request<'_>, session: &mut dyn Any) -> Upgrade;
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

impl<H: Handler> ErasedHandler for H {
    fn session(&self) -> Box<dyn Any> {
        Box::new(H::Session::default())
    }

    fn upgrade(&self, request: &Request<'_>, session: &mut dyn Any) -> Upgrade {
        self.on_upgrade(request, typed(session))
    }

    fn connect(&self, reach: &mut dyn Reach, context: &mut Context<'_>) -> Reply<'static> {
        self.on_connect(&mut context.socket(reach))
    }

    fn message<'m>(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        message: Message<'m>,
    ) -> Reply<'m> {
        hand_over(self, &mut context.socket(reach), message)
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
            hand_over(self, &mut WebSocket::new(dependencies, scope, session), message)
        });
    }

    fn receives_chunks(&self) -> bool {
        Handler::receives_chunks(self)
    }

    fn chunk<'m>(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        chunk: Chunk<'m>,
    ) -> Reply<'m> {
        self.on_chunk(&mut context.socket(reach), chunk)
    }

    fn drain(&self, reach: &mut dyn Reach, context: &mut Context<'_>) {
        self.on_drain(&mut context.socket(reach));
    }

    fn close(
        &self,
        reach: &mut dyn Reach,
        context: &mut Context<'_>,
        close: &Close,
    ) -> Reply<'static> {
        self.on_close(&mut context.socket(reach), close)
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
