//! S7 `send_to_async`, S9 `broadcast_async`: sends that tell what became of the message.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::common::executor::block_on;
use peregrine::{
    BroadcastDelivery, BroadcastReport, ConnectionId, Delivery, Handler, Limits, Message,
    OverflowPolicy, Reply, RunningServer, SendError, WebSocket,
};
use socket2::{Domain, Socket, Type};

use super::common::{Client, PATIENCE, start};
use super::{enough_for, eventually, id_of, on_every_shard_count};

/// What the kernel holds at most for a narrow client: its send buffer has 4 MiB.
const KERNEL_MIB: usize = 6;

/// Runs a future on tokio's executor.
fn block_on_tokio<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// What the future tells now.
fn now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Tells each client its id, and sends what it is asked to. `"ID TEXT"` goes to one, `"all TEXT"`
/// to all; the test gets the future. With `"await "` before it, the handler awaits it itself. A
/// text that is a number is so many MiB.
struct Post {
    deliveries: Sender<Delivery>,
    broadcasts: Sender<BroadcastDelivery>,
}

impl Handler for Post {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let text = message.as_text().expect("text");
        let (text, is_awaited) = match text.strip_prefix("await ") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (to, text) = text.split_once(' ').expect("an address");
        let text = match text.parse::<usize>() {
            Ok(mib) => "x".repeat(mib << 20),
            Err(_) => text.to_owned(),
        };
        if to == "all" {
            let broadcast = ws.broadcast_async(text);
            if is_awaited {
                return Reply::later(async { format!("{:?}", broadcast.await) });
            }
            self.broadcasts.send(broadcast).expect("the test listens");
        } else {
            if to == "closed" {
                ws.close();
            }
            let to = to.parse().unwrap_or(ws.id());
            let delivery = ws.send_to_async(to, text);
            if is_awaited {
                return Reply::later(async { format!("{:?}", delivery.await) });
            }
            self.deliveries.send(delivery).expect("the test listens");
        }
        Reply::none()
    }
}

/// A server, and what its handler gives to the test.
struct Office {
    running: RunningServer,
    deliveries: Receiver<Delivery>,
    broadcasts: Receiver<BroadcastDelivery>,
}

impl Office {
    fn new(shards: usize) -> Self {
        let mut limits = Limits::default();
        limits.max_outbox_bytes = 16 << 20;
        limits.overflow = OverflowPolicy::DropNewest;
        limits.close_timeout = Duration::from_millis(200);
        let (delivery_sender, deliveries) = channel();
        let (broadcast_sender, broadcasts) = channel();
        let post = Post { deliveries: delivery_sender, broadcasts: broadcast_sender };
        let running = start(shards, |app| app.limits(limits).websocket("/web_socket", post));
        Self { running, deliveries, broadcasts }
    }

    fn meet(&self, count: usize) -> (Vec<Client>, Vec<ConnectionId>) {
        let mut clients: Vec<_> =
            (0..count).map(|_| Client::connect(self.address(), "/web_socket")).collect();
        let ids = clients.iter_mut().map(id_of).collect();
        (clients, ids)
    }

    /// A client for which the kernel holds little, and its id.
    fn meet_narrow(&self) -> (Client, ConnectionId) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("an option");
        socket.connect(&self.address().into()).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let url = format!("ws://{}/web_socket", self.address());
        let (client, _) = tungstenite::client(url, socket.into()).expect("an upgrade");
        let mut client = Client(client);
        let id = id_of(&mut client);
        (client, id)
    }

    fn address(&self) -> SocketAddr {
        self.running.local_addr()
    }

    /// The future of what this client asks for.
    fn send_by(&self, client: &mut Client, request: impl Into<String>) -> Delivery {
        client.send(request);
        self.deliveries.recv_timeout(PATIENCE).expect("the handler ran")
    }

    /// The future of what this client tells all.
    fn broadcast_by(&self, client: &mut Client, text: &str) -> BroadcastDelivery {
        client.send(format!("all {text}"));
        self.broadcasts.recv_timeout(PATIENCE).expect("the handler ran")
    }
}

fn report(reached: usize, gone: usize, overloaded: usize) -> BroadcastReport {
    let mut report = BroadcastReport::default();
    report.reached_count = reached;
    report.gone_count = gone;
    report.overloaded_count = overloaded;
    report
}

#[test]
fn s7_an_async_send_is_told_of_on_any_executor() {
    on_every_shard_count(|shards| {
        let office = Office::new(shards);
        let (mut clients, ids) = office.meet(enough_for(shards));
        for (to, id) in ids.iter().enumerate() {
            let delivery = office.send_by(&mut clients[0], format!("{id} by a thread"));
            assert_eq!(block_on(delivery), Ok(()));
            let delivery = office.send_by(&mut clients[0], format!("{id} by tokio"));
            assert_eq!(block_on_tokio(delivery), Ok(()));
            clients[0].send(format!("await {id} by the handler"));
            for expected in ["by a thread", "by tokio", "by the handler"] {
                assert_eq!(clients[to].text(), expected);
            }
            assert_eq!(clients[0].text(), "Ok(())");
        }
    });
}

#[test]
fn s7_an_async_send_completes_once_the_kernel_has_the_last_byte() {
    on_every_shard_count(|shards| {
        let office = Office::new(shards);
        let (mut clients, ids) = office.meet(enough_for(shards));
        let (mut slow, slow_id) = office.meet_narrow();
        let large = 2 * KERNEL_MIB;
        for client in &mut clients {
            let mut delivery = office.send_by(client, format!("{slow_id} {large}"));
            // Others are served meanwhile; this one cannot be while its client does not read.
            for id in &ids {
                assert_eq!(block_on(office.send_by(client, format!("{id} small"))), Ok(()));
            }
            assert_eq!(now(&mut delivery), Poll::Pending);
            assert_eq!(slow.text().len(), large << 20);
            assert_eq!(block_on(delivery), Ok(()));
        }
    });
}

#[test]
fn s7_an_async_send_tells_why_the_message_was_not_delivered() {
    on_every_shard_count(|shards| {
        let office = Office::new(shards);
        let (mut clients, ids) = office.meet(enough_for(shards));
        let sender = &mut clients[0];

        // Who has left, and who leaves while the message waits for it.
        let (left, gone_id) = office.meet(1);
        drop(left);
        eventually(|| office.running.hub().connection_counts().iter().sum::<usize>() == ids.len());
        let delivery = office.send_by(sender, format!("{} too late", gone_id[0]));
        assert_eq!(block_on(delivery), Err(SendError::Gone));
        let (slow, slow_id) = office.meet_narrow();
        let waiting = office.send_by(sender, format!("{slow_id} {}", 2 * KERNEL_MIB));
        drop(slow);
        assert_eq!(block_on(waiting), Err(SendError::Gone));

        // Who does not read: one message is always taken, however large, but no second one.
        let (slow, slow_id) = office.meet_narrow();
        let first = office.send_by(sender, format!("{slow_id} 30"));
        let second = office.send_by(sender, format!("{slow_id} 30"));
        assert_eq!(block_on(second), Err(SendError::Overloaded));

        // Oneself, after `close`.
        let (mut leaving, _) = office.meet(1);
        let delivery = office.send_by(&mut leaving[0], "closed to myself");
        assert_eq!(block_on(delivery), Err(SendError::Closed));
        assert_eq!(leaving[0].close_code(), 1000);

        // The end of the server.
        office.running.shutdown(Duration::from_millis(200)).expect("an end");
        assert_eq!(block_on(first), Err(SendError::ShuttingDown));
        drop(slow);
    });
}

#[test]
fn s7_the_message_is_on_its_way_whatever_becomes_of_the_future() {
    on_every_shard_count(|shards| {
        let office = Office::new(shards);
        let (mut clients, ids) = office.meet(enough_for(shards));
        for (to, id) in ids.iter().enumerate() {
            for number in 0..50 {
                let delivery = office.send_by(&mut clients[0], format!("{id} number {number}"));
                match number % 2 {
                    0 => drop(delivery),
                    _ => assert_eq!(block_on(delivery), Ok(())),
                }
            }
            for number in 0..50 {
                assert_eq!(clients[to].text(), format!("number {number}"));
            }
        }
    });
}

#[test]
fn s9_an_async_broadcast_counts_whom_it_reached() {
    on_every_shard_count(|shards| {
        let office = Office::new(shards);
        let (mut clients, _) = office.meet(enough_for(shards));
        let everybody = report(clients.len(), 0, 0);
        assert_eq!(block_on(office.broadcast_by(&mut clients[0], "by a thread")), Ok(everybody));
        let broadcast = office.broadcast_by(&mut clients[1], "by tokio");
        assert_eq!(block_on_tokio(broadcast), Ok(everybody));
        clients[2].send("await all by the handler");
        for client in &mut clients {
            for expected in ["by a thread", "by tokio", "by the handler"] {
                assert_eq!(client.text(), expected, "each exactly once, the sender included");
            }
        }
        assert_eq!(clients[2].text(), format!("{:?}", Ok::<_, SendError>(everybody)));
    });
}

#[test]
fn s9_an_async_broadcast_counts_whom_it_did_not_reach_and_why() {
    on_every_shard_count(|shards| {
        let office = Office::new(shards);
        let (mut clients, _) = office.meet(enough_for(shards));
        // One has more to read than its outbox holds, one has room left and will leave.
        let (_slow, slow_id) = office.meet_narrow();
        let (leaving, leaving_id) = office.meet_narrow();
        // What comes behind a message larger than the outbox has the whole limit, 16 MiB.
        let fillers = [(1 << 20) - 40, 12].map(|bytes| "x".repeat(bytes));
        let too_much: Vec<_> = ["30", "15", &fillers[0], &fillers[1]]
            .into_iter()
            .map(|what| office.send_by(&mut clients[0], format!("{slow_id} {what}")))
            .collect();
        let enough = office.send_by(&mut clients[0], format!("{leaving_id} {}", 2 * KERNEL_MIB));
        let mut broadcast = office.broadcast_by(&mut clients[0], "to all");
        for client in &mut clients {
            assert_eq!(client.text(), "to all");
        }
        assert_eq!(now(&mut broadcast), Poll::Pending, "one is still open");
        drop(leaving);
        assert_eq!(block_on(broadcast), Ok(report(clients.len(), 1, 1)));
        assert_eq!(block_on(enough), Err(SendError::Gone));
        drop(too_much);
    });
}
