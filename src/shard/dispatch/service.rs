//! [`Service`]: what a server serves; the same for all shards.
//!
//! Knows handlers, pages, routes and quotas by their names. Must not know connections.

use bytes::Bytes;

use super::erased::ErasedHandler;
use super::pool::Pool;
use crate::handler::{Check, Dependencies};
use crate::http::network::Networks;
use crate::http::{self, Body, Origins, Response};
use crate::routing::Routes;
use crate::shard::limits::EndpointLimits;
use crate::shard::quota::clients::ClientLimits;
use crate::shard::quota::connections::ConnectionQuota;

/// Everything that a server serves; the same for all shards.
pub(crate) struct Service {
    pub(crate) pool: Pool,
    pub(crate) endpoints: Vec<ServedEndpoint>,
    pub(crate) routes: Routes,
    pub(crate) pages: Vec<Page>,
    /// Which page tells that the server is ready, and what it says when the server is not.
    pub(crate) unready: Option<(usize, Page)>,
    /// The proxies that are believed.
    pub(crate) proxies: Networks,
    pub(crate) quota: ConnectionQuota,
    /// `None` if nothing is limited by client address.
    pub(crate) client_limits: Option<ClientLimits>,
}

/// A handler, with what it is given and what is demanded of requests for it.
pub(crate) struct ServedEndpoint {
    pub(crate) handler: Box<dyn ErasedHandler>,
    pub(crate) dependencies: Dependencies,
    pub(crate) endpoint_limits: EndpointLimits,
    pub(crate) checks: Vec<Check>,
    pub(crate) origins: Origins,
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
