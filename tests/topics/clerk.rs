//! A handler that does what its client says, and clients that are told apart by what they get.

use std::collections::BTreeSet;

use peregrine::{
    ConnectionId, Handler, Message, Reply, RunningServer, SendError, ServerBuilder, WebSocket,
};

use super::common::{Client, start};

/// Tells each client its id; then does in one call all that a message says, in order:
///
/// `sub TOPIC`, `unsub TOPIC`, `pub TOPIC TEXT`, `others TOPIC TEXT` (all but itself),
/// `to ID TEXT`, `all TEXT` (the endpoint), `say TEXT` (itself), `count TOPIC`, `close`, `abort`,
/// `panic`; separated by `;`. What was refused is said to the client.
pub struct Clerk;

impl Handler for Clerk {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let orders = message.as_text().expect("orders are text");
        for order in orders.split(';') {
            if let Err(error) = obey(ws, order) {
                let _ = ws.send(format!("{error:?}"));
            }
        }
        Reply::none()
    }
}

fn obey(ws: &WebSocket<'_, ()>, order: &str) -> Result<(), SendError> {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match verb {
        "sub" => ws.subscribe(name)?,
        "unsub" => ws.unsubscribe(name),
        "pub" => ws.publish(name, text)?,
        "others" => ws.publish_except(name, ws.id(), text)?,
        "to" => ws.send_to(name.parse().expect("an id"), text)?,
        "all" => ws.broadcast(rest)?,
        "say" => ws.send(rest)?,
        "count" => ws.send(ws.subscriber_count(name).to_string())?,
        "close" => ws.close(),
        "abort" => ws.abort(),
        "panic" => panic!("as it was told to"),
        _ => panic!("{order:?} is no order"),
    }
    Ok(())
}

/// A server with a clerk at `/`.
pub fn open(shards: usize, build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> RunningServer {
    start(shards, |app| build(app.websocket("/", Clerk)))
}

/// A client and its id.
pub struct Party {
    pub client: Client,
    pub id: ConnectionId,
}

impl Party {
    pub fn connect(running: &RunningServer, path: &str) -> Self {
        let mut client = Client::connect(running.local_addr(), path);
        let id = client.text().parse().expect("an id comes first");
        Self { client, id }
    }

    /// So many, on all shards.
    pub fn meet(running: &RunningServer, path: &str, count: usize) -> Vec<Self> {
        let parties: Vec<_> = (0..count).map(|_| Self::connect(running, path)).collect();
        let shards: BTreeSet<_> = parties.iter().map(|party| party.id.shard()).collect();
        assert_eq!(shards.len(), running.hub().connection_counts().len(), "one on each shard");
        parties
    }

    /// Says something and waits until it has been done.
    pub fn order(&mut self, orders: &str) {
        self.client.send(format!("{orders};say done"));
        assert_eq!(self.client.text(), "done", "{orders}");
    }

    /// What comes up to the fence.
    pub fn until(&mut self, fence: &str) -> Vec<String> {
        let texts = std::iter::from_fn(|| Some(self.client.text()).filter(|text| text != fence));
        texts.collect()
    }
}

/// So many parties that each shard has one: no shard gets a third connection while another has
/// none.
pub fn enough_for(shard_count: usize) -> usize {
    3 * shard_count + 1
}
