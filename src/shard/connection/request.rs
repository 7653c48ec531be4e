//! What a connection asked for before its upgrade, and what a trusted proxy said about it.
//!
//! Knows what is kept of a request. Must not know how it is parsed or decided.

use std::net::IpAddr;
use std::sync::Arc;

use super::phase::{Heard, Phase};
use super::{Connection, Details, EndpointIndex};
use crate::handler::GrantedRequest;
use crate::routing::{Params, Query};

impl Connection {
    /// The endpoint that serves it, or is asked to; else the one that stands for none.
    pub(in crate::shard) fn asked(&self) -> EndpointIndex {
        match self.phase {
            Phase::Upgrading { heard: Heard::Upgrade(endpoint) } => endpoint,
            _ => self.endpoint,
        }
    }

    /// The client's address: the peer's, unless trusted proxies told another.
    #[inline]
    pub(in crate::shard) fn client_ip(&self) -> IpAddr {
        let told = self.details.as_ref().and_then(|details| details.client);
        told.unwrap_or_else(|| self.peer.ip().to_canonical())
    }

    /// The part of the granted request that is kept, if there is any.
    pub(in crate::shard) fn granted(&self) -> Option<Arc<GrantedRequest>> {
        self.details.as_ref()?.granted.clone()
    }

    /// A trusted proxy has said, before any request, for whom it speaks; `None`: for itself.
    pub(in crate::shard) fn hear_proxy(&mut self, client: Option<IpAddr>) {
        debug_assert!(matches!(self.phase, Phase::Upgrading { heard: Heard::Nothing }));
        self.phase = Phase::Upgrading { heard: Heard::Proxy };
        self.details =
            client.map(|client| Box::new(Details { client: Some(client), ..Details::default() }));
    }

    /// Trusted proxies have named the client in the upgrade.
    pub(in crate::shard) fn set_client(&mut self, client: IpAddr) {
        self.details().client = Some(client);
    }

    /// Keeps what the handler may ask for later of an upgrade that is granted.
    #[inline]
    pub(in crate::shard) fn keep_request(
        &mut self,
        query: &str,
        params: Params,
        subprotocol: Option<Box<str>>,
    ) {
        if !query.is_empty() || !params.is_empty() || subprotocol.is_some() {
            let granted = GrantedRequest { query: Query::new(query), params, subprotocol };
            self.details().granted = Some(Arc::new(granted));
        }
    }
}
