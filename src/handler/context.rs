//! [`Context`]: what the shard keeps for a handler, and lends it for a call.
//!
//! Knows dependencies and sessions. Must not know what a handler does with them.

use std::any::Any;

use super::Dependencies;

/// What a handler is given besides the reach: of its endpoint, and of the connection.
pub(crate) struct Context<'c> {
    pub(crate) dependencies: &'c Dependencies,
    pub(crate) session: &'c mut dyn Any,
}

/// The session, of the type that its handler gave it.
#[inline]
pub(crate) fn typed<S: 'static>(session: &mut dyn Any) -> &mut S {
    match session.downcast_mut() {
        Some(session) => session,
        None => unreachable!("a session keeps the type that its endpoint gave it"),
    }
}
