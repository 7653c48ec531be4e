//! [`Request`]: what the function sees that decides about an upgrade.
//!
//! Knows a parsed request, routing's params and dependencies. Must not know sockets, shards, or
//! what is decided.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::Dependencies;
use crate::error::ParamError;
use crate::http::Head;
use crate::routing::{Params, Query};

/// The HTTP request that asks for an upgrade, as the function sees it that decides about it
/// ([`Endpoint::with_upgrade`](crate::Endpoint::with_upgrade)). It has been checked: it is a valid
/// upgrade (RFC 6455 section 4.2.1) to this endpoint.
#[derive(Clone, Debug)]
pub struct Request<'r> {
    head: Head<'r>,
    query: OnceCell<Query>,
    peer: SocketAddr,
    client: IpAddr,
    params: &'r Params,
    dependencies: &'r Dependencies,
}

impl<'r> Request<'r> {
    pub(crate) fn new(
        head: Head<'r>,
        peer: SocketAddr,
        client: IpAddr,
        params: &'r Params,
        dependencies: &'r Dependencies,
    ) -> Self {
        Self { head, query: OnceCell::new(), peer, client, params, dependencies }
    }

    /// The method; always `GET`.
    #[must_use]
    pub fn method(&self) -> &'r str {
        self.head.method
    }

    /// The path, as sent: still percent-encoded, without the query.
    #[must_use]
    pub fn path(&self) -> &'r str {
        self.head.path
    }

    /// The first value of a query parameter, percent-decoded, `+` as space.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query_params().get(name)
    }

    /// All query parameters, in order.
    ///
    /// Cost: the first call decodes the query.
    #[must_use]
    pub fn query_params(&self) -> &Query {
        self.query.get_or_init(|| Query::new(self.head.query))
    }

    /// The first value of a query parameter, parsed.
    ///
    /// # Errors
    /// As of [`WebSocket::query_as`](crate::WebSocket::query_as).
    pub fn query_as<T: FromStr>(&self, name: &str) -> Result<T, ParamError> {
        ParamError::parse(self.query(name))
    }

    /// The value of a path parameter; see [`WebSocket::param`](crate::WebSocket::param).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'r str> {
        self.params.find(name)
    }

    /// The value of a path parameter, parsed.
    ///
    /// # Errors
    /// As of [`WebSocket::param_as`](crate::WebSocket::param_as).
    pub fn param_as<T: FromStr>(&self, name: &str) -> Result<T, ParamError> {
        ParamError::parse(self.param(name))
    }

    /// The nearest value of this type; see [`WebSocket::dependency`](crate::WebSocket::dependency).
    ///
    /// # Panics
    /// If there is none, with the type's name.
    #[must_use]
    pub fn dependency<T: Send + Sync + 'static>(&self) -> &'r T {
        self.dependencies.expect()
    }

    /// Like [`dependency`](Self::dependency); `None` if there is none.
    #[must_use]
    pub fn find_dependency<T: Send + Sync + 'static>(&self) -> Option<&'r T> {
        self.dependencies.find()
    }

    /// The first value of a header, its name in any case; `None` also if it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'r str> {
        self.head.first(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// All headers, in order, as name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'r str, &'r [u8])> + use<'r> {
        self.head.headers.iter().map(|header| (header.name, header.value))
    }

    /// The host that the request is for, with its port if one is named, such as
    /// `example.com:8080`. It comes from the request's target if that is in absolute form
    /// (`GET https://example.com/chat`), else from the `Host` header (RFC 9112 section 3.2.2).
    /// Returns `None` if that is not UTF-8.
    #[must_use]
    pub fn host(&self) -> Option<&'r str> {
        self.head.host()
    }

    /// The value of a cookie (RFC 6265 section 5.4), as sent. Returns the first one of that name.
    /// A cookie that is not UTF-8 is left out; the others count.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'r str> {
        let mut pairs = self.head.parts("Cookie", b';').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The subprotocols that the client offers, in its order of preference
    /// (RFC 6455 section 4.1). Each of them can be the [answer](crate::Accept::subprotocol).
    ///
    /// An offer is a name of visible ASCII characters without comma, quotation mark and backslash.
    /// The RFC allows tokens only, and browsers offer nothing else. Other clients also offer
    /// Base64 with its padding (`YWJjZA==`). What is no such name is left out; the others count.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'r str> + Clone + use<'r> {
        self.head.subprotocols()
    }

    /// The address of the peer's socket: the client's, or that of the last proxy before the server.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address: the peer's, or what
    /// [trusted proxies](crate::ServerBuilder::trust_proxies) say. An IPv4 address is returned as
    /// one, also if the socket serves both versions.
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.client
    }
}
