//! The counters, while mailboxes are full and shards are stopped.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{Client, start, until};
use crate::config::{Limits, OverflowPolicy};
use crate::error::SendError;
use crate::handler::{Callbacks, Reply};
use crate::hub::{Delivery, Hub};
use crate::message::Message;

/// Notes what the counter of dropped messages is when a delivery's sender is notified, on the
/// shard's own thread.
struct Notified {
    hub: Hub,
    dropped_count: AtomicU64,
}

impl Wake for Notified {
    fn wake(self: Arc<Self>) {
        self.dropped_count.store(self.hub.dropped_count(), Ordering::Relaxed);
    }
}

/// A message whose sender waits for its fate.
struct Awaited {
    delivery: Delivery,
    notified: Arc<Notified>,
}

impl Awaited {
    fn new(hub: &Hub, delivery: Delivery) -> Self {
        let notified = Notified { hub: hub.clone(), dropped_count: AtomicU64::new(0) };
        Self { delivery, notified: Arc::new(notified) }
    }

    fn poll(&mut self) -> Poll<Result<(), SendError>> {
        let waker = Waker::from(Arc::clone(&self.notified));
        Future::poll(Pin::new(&mut self.delivery), &mut Context::from_waker(&waker))
    }
}

/// How many of these messages were dropped with this error. Panics unless each of them was counted
/// before its sender was notified.
fn dropped_count(awaited: Vec<Awaited>, error: SendError) -> usize {
    let mut counts: Vec<u64> = Vec::new();
    for mut message in awaited {
        let mut fate = Poll::Pending;
        until("the fate is known", || {
            fate = message.poll();
            fate.is_ready()
        });
        if fate == Poll::Ready(Err(error)) {
            counts.push(message.notified.dropped_count.load(Ordering::Relaxed));
        }
    }
    counts.sort_unstable();
    for (before_count, &count) in counts.iter().enumerate() {
        assert!(count > before_count as u64, "notified before it was counted: {counts:?}");
    }
    counts.len()
}

#[test]
fn they_are_read_while_mailboxes_are_full_and_shards_are_stopped_and_add_up() {
    for shard_count in [1, 2, 4] {
        const CLIENT_COUNT: usize = 6;
        let (stopped, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let gates = (Arc::clone(&stopped), Arc::clone(&go_on));
        let all = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into()).on_message(
            move |_, message| {
                if message == Message::Text("never") {
                    return Reply::later(std::future::pending::<()>());
                }
                gates.0.wait();
                gates.1.wait();
                Reply::none()
            },
        );
        let limits = Limits {
            max_mailbox_envelopes: 8,
            close_timeout: Duration::from_millis(20),
            slow_handler_after: Duration::from_secs(100),
            ..Limits::default()
        };
        let running = start(shard_count, |builder| builder.limits(limits).websocket("/all", all));
        let hub = running.hub();
        let connect = |_| Client::connect(running.local_addr(), "/all");
        let mut clients: Vec<Client> = (0..CLIENT_COUNT).map(connect).collect();
        let connection_count = || hub.connection_counts().iter().sum::<usize>();
        assert_eq!(
            (hub.connection_counts().len(), connection_count()),
            (shard_count, CLIENT_COUNT)
        );

        // Work that is cancelled: the client goes away while its handler's answer is awaited.
        let mut leaving = clients.remove(0);
        leaving.send("never");
        drop(leaving);
        until("the work is cancelled", || hub.cancelled_count() == 1);
        until("the connection has ended", || connection_count() == CLIENT_COUNT - 1);

        // One shard is stopped, and its mailbox becomes full. It has a connection that is aborted
        // before all else in the mailbox.
        let victim = clients[0].id;
        clients[0].send("stop");
        stopped.wait();
        assert_eq!(hub.abort(victim), Ok(()));
        let mut awaited = Vec::new();
        loop {
            let delivery = hub.send_to_async(victim, "too late");
            let mut message = Awaited::new(&hub, delivery);
            match message.poll() {
                Poll::Pending => awaited.push(message),
                Poll::Ready(fate) => {
                    assert_eq!(fate, Err(SendError::Overloaded));
                    break;
                }
            }
        }
        assert_eq!(hub.send_to(victim, "too much"), Err(SendError::Overloaded));
        assert_eq!(awaited.len(), 7);
        let counts = (connection_count(), hub.dropped_count(), hub.cancelled_count());
        assert_eq!(counts, (CLIENT_COUNT - 1, 0, 1), "read while the shard is stopped");

        go_on.wait();
        assert_eq!(dropped_count(awaited, SendError::Gone), 7);
        until("the connection has ended", || connection_count() == CLIENT_COUNT - 2);
        assert_eq!((hub.dropped_count(), hub.cancelled_count()), (7, 1));
        drop(running);
        assert_eq!((connection_count(), hub.dropped_count(), hub.cancelled_count()), (0, 7, 1));
    }
}

#[test]
fn a_message_that_others_displace_is_counted_before_its_sender_is_notified() {
    let all = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into());
    let limits = Limits { overflow: OverflowPolicy::DropOldest, ..Limits::default() };
    let running = start(1, |builder| builder.limits(limits).websocket("/all", all));
    let hub = running.hub();
    // It does not read.
    let client = Client::connect(running.local_addr(), "/all");
    let text = "x".repeat(256 << 10);
    let mut awaited = Vec::new();
    until("the outbox is full", || {
        let mut message = Awaited::new(&hub, hub.send_to_async(client.id, &*text));
        if message.poll().is_pending() {
            awaited.push(message);
        }
        hub.dropped_count() >= 10
    });
    drop(client);
    assert!(dropped_count(awaited, SendError::Overloaded) >= 10);
}
