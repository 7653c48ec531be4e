//! [`GrantedRequest`]: what an open connection keeps of the request that it was granted for.
//!
//! Knows queries and path parameters. Must not know connections, nor when a request is granted.

use crate::routing::{Params, Query};

/// What the handler may ask for after the upgrade. A connection without any of it keeps none.
#[derive(Debug)]
pub(crate) struct GrantedRequest {
    pub(crate) query: Query,
    pub(crate) params: Params,
    pub(crate) subprotocol: Option<Box<str>>,
}
