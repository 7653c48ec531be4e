//! A handler that sends as its clients say, and hands out the futures; clients that read nothing.

use std::sync::mpsc::{Receiver, Sender, channel};

use peregrine::{
    BroadcastDelivery, ConnectionId, Delivery, Handler, Limits, Message, OverflowPolicy, Reply,
    RunningServer, ServerBuilder, WebSocket,
};

use super::common::{Client, PATIENCE, start};
use super::raw::Raw;

/// More than a kernel takes for a client that reads nothing, in bytes.
pub const BIG: usize = 8 << 20;

/// Tells each client its id. In one call it does all that a message says, in order: `to ID SIZE`,
/// `all SIZE`, `pub TOPIC SIZE`, `sub TOPIC`, `say TEXT`, `close`; separated by `;`. What it sends
/// is binary and of that size; the futures go to the test.
pub struct Courier {
    deliveries: Sender<Delivery>,
    broadcasts: Sender<BroadcastDelivery>,
}

impl Handler for Courier {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.subscribe("everybody").expect("room");
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        for order in message.as_text().expect("orders are text").split(';') {
            let words: Vec<_> = order.split(' ').collect();
            match words[..] {
                ["to", id, size] => {
                    let delivery = ws.send_to_async(id.parse().expect("an id"), payload(size));
                    self.deliveries.send(delivery).expect("the test waits");
                }
                ["all", size] => {
                    self.broadcasts.send(ws.broadcast_async(payload(size))).expect("the test waits")
                }
                ["pub", topic, size] => {
                    let delivery = ws.publish_async(topic, payload(size));
                    self.broadcasts.send(delivery).expect("the test waits");
                }
                ["say", text] => ws.send(text).expect("room"),
                ["close"] => ws.close(),
                _ => panic!("{order:?} is no order"),
            }
        }
        Reply::none()
    }
}

fn payload(size: &str) -> Vec<u8> {
    vec![b'.'; size.parse().expect("a size")]
}

/// A server with a courier at `/`, and what its handlers hand out.
pub struct Office {
    pub running: RunningServer,
    pub deliveries: Receiver<Delivery>,
    pub broadcasts: Receiver<BroadcastDelivery>,
}

impl Office {
    pub fn open(shards: usize, limits: Limits) -> Self {
        Self::build(shards, |app| app.limits(limits))
    }

    pub fn build(shards: usize, build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let (deliveries, broadcasts) = (channel(), channel());
        let courier = Courier { deliveries: deliveries.0, broadcasts: broadcasts.0 };
        let running = start(shards, |app| build(app.websocket("/", courier)));
        Self { running, deliveries: deliveries.1, broadcasts: broadcasts.1 }
    }

    /// The next future that a handler made.
    pub fn delivery(&self) -> Delivery {
        self.deliveries.recv_timeout(PATIENCE).expect("a handler sends")
    }

    pub fn broadcast(&self) -> BroadcastDelivery {
        self.broadcasts.recv_timeout(PATIENCE).expect("a handler sends")
    }

    pub fn client(&self) -> (Client, ConnectionId) {
        let mut client = Client::connect(self.running.local_addr(), "/");
        let id = client.text().parse().expect("an id");
        (client, id)
    }

    /// So many clients that each shard has one, and others.
    pub fn clients(&self, shards: usize) -> Vec<(Client, ConnectionId)> {
        (0..2 * shards + 1).map(|_| self.client()).collect()
    }

    /// A client that reads nothing, and for which the kernel holds little.
    pub fn slow(&self) -> (Raw, ConnectionId) {
        let mut slow = Raw::connect_narrow(self.running.local_addr());
        slow.upgrade("/");
        let id = slow.text().parse().expect("an id");
        (slow, id)
    }
}

pub fn limits(overflow: OverflowPolicy) -> Limits {
    let mut limits = Limits::default();
    limits.overflow = overflow;
    limits
}
