//! [`Reach`]: what a handler can do to its connection, and by it to others.
//!
//! Knows messages and the hub's tickets. Must not know who implements it, nor what a handler sees.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::GrantedRequest;
use crate::error::SendError;
use crate::hub::credit::Credit;
use crate::hub::{BroadcastDelivery, ConnectionId, Delivery, Hub};
use crate::message::{CloseCode, Message};

/// What a handler's calls act upon. The shard implements it; handlers see it as
/// [`WebSocket`](super::WebSocket).
pub(crate) trait Reach {
    fn id(&self) -> ConnectionId;
    fn send(&mut self, message: Message<'_>) -> Result<(), SendError>;
    fn send_to(&mut self, id: ConnectionId, message: Message<'_>) -> Result<(), SendError>;
    fn send_to_async(&mut self, id: ConnectionId, message: Message<'_>) -> Delivery;
    /// To the subscribers of a topic, or to everybody of the endpoint.
    fn publish(
        &mut self,
        topic: Option<&str>,
        except: Option<ConnectionId>,
        message: Message<'_>,
    ) -> Result<(), SendError>;
    fn publish_async(&mut self, topic: Option<&str>, message: Message<'_>) -> BroadcastDelivery;
    fn subscribe(&mut self, topic: &str) -> Result<(), SendError>;
    fn unsubscribe(&mut self, topic: &str);
    fn stream(&mut self) -> Result<Arc<Credit>, SendError>;
    fn close(&mut self, code: CloseCode, reason: &str);
    fn abort(&mut self);
    fn buffered_bytes(&self) -> usize;
    fn has_backpressure(&self) -> bool;
    /// `None` if nothing of the request had to be kept.
    fn granted(&self) -> Option<Arc<GrantedRequest>>;
    fn peer_addr(&self) -> SocketAddr;
    fn client_ip(&self) -> IpAddr;
    fn hub(&self) -> &Hub;
}
