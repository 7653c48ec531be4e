//! What `send_to_async`, `broadcast_async` and `publish_async` tell is what happened.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "what the tests share is public to each of them")]

mod common;
#[path = "told/counts.rs"]
mod counts;
#[path = "told/courier.rs"]
mod courier;
#[path = "told/ending.rs"]
mod ending;
#[path = "told/overloaded.rs"]
mod overloaded;
#[path = "common/raw.rs"]
mod raw;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self};
use std::time::Duration;

use common::{SHARD_COUNTS, eventually, start, within};
use courier::{BIG, Office};
use peregrine::{BroadcastDelivery, Callbacks, ConnectionId, Delivery, Limits, SendError};
use pollster::block_on;

/// How long a test may take in all, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether a future is still open.
fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn ok_is_told_when_the_client_can_get_it() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let mut clients = office.clients(shards);
            let ids: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
            for sender in 0..clients.len() {
                for (target, id) in ids.iter().enumerate() {
                    clients[sender].0.send(format!("to {id} 5"));
                    assert_eq!(block_on(office.delivery()), Ok(()));
                    assert_eq!(clients[target].0.bytes(), b".....");
                    assert_eq!(block_on(hub.send_to_async(*id, "from outside")), Ok(()));
                    assert_eq!(clients[target].0.text(), "from outside");
                }
            }
            assert_eq!(hub.dropped_count(), 0);
        }
    });
}

#[test]
fn messages_that_are_told_of_keep_their_place_among_others() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let mut clients = office.clients(shards);
            let (_, own) = clients[0];
            let target = clients[shards].1;
            clients[0].0.send(format!(
                "say a;to {own} 1;say b;all 2;say c;pub everybody 3;to {own} 20000;say d;\
                 to {target} 4;all 5;to {target} 6"
            ));
            let own = &mut clients[0].0;
            assert_eq!((own.text(), own.bytes().len()), ("a".to_owned(), 1));
            assert_eq!((own.text(), own.bytes().len()), ("b".to_owned(), 2));
            assert_eq!((own.text(), own.bytes().len()), ("c".to_owned(), 3));
            assert_eq!((own.bytes().len(), own.text()), (20_000, "d".to_owned()));
            assert_eq!(own.bytes().len(), 5);
            let other = &mut clients[shards].0;
            assert_eq!([0; 5].map(|_| other.bytes().len()), [2, 3, 4, 5, 6]);

            // From outside: what is told of, what is not, and what is for many.
            let kept: Vec<Delivery> = (0..300)
                .map(|at: usize| {
                    hub.send_to(target, format!("{at} first")).expect("room");
                    let delivery = hub.send_to_async(target, format!("{at} second"));
                    drop(hub.publish_async("everybody", format!("{at} third")));
                    hub.broadcast("/", format!("{at} last")).expect("room");
                    delivery
                })
                .collect();
            for at in 0..300 {
                for which in ["first", "second", "third", "last"] {
                    assert_eq!(other.text(), format!("{at} {which}"));
                }
            }
            assert!(kept.into_iter().all(|delivery| block_on(delivery) == Ok(())));
        }
    });
}

#[test]
fn the_futures_need_no_particular_runtime_nor_thread() {
    fn is_free<T: Send + Unpin + 'static>() {}
    is_free::<Delivery>();
    is_free::<BroadcastDelivery>();
    within(LIMIT, || {
        let office = Office::open(2, Limits::default());
        let hub = office.running.hub();
        let clients = office.clients(2);
        let (_, id) = clients[0];
        let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let tokio = tokio.expect("a runtime");
        for _ in 0..200 {
            assert_eq!(block_on(hub.send_to_async(id, "pollster")), Ok(()));
            assert_eq!(common::executor::block_on(hub.send_to_async(id, "by hand")), Ok(()));
            assert_eq!(tokio.block_on(hub.send_to_async(id, "tokio")), Ok(()));
            let report = tokio.block_on(async {
                let in_time = tokio::time::timeout(LIMIT, hub.broadcast_async("/", "tokio, too"));
                in_time.await.expect("in time").expect("room")
            });
            assert_eq!(report.reached_count, clients.len());
            // Polled here, and awaited elsewhere.
            let mut moving = hub.send_to_async(id, "moving");
            let is_told = !is_pending(&mut moving);
            let told =
                thread::spawn(move || (!is_told).then(|| common::executor::block_on(moving)));
            assert_ne!(told.join().expect("no panic"), Some(Err(SendError::Gone)));
        }
    });
}

/// An id of the same server that no connection has had.
fn never_there(id: ConnectionId) -> ConnectionId {
    let text = id.to_string();
    let (front, last) = text.split_at(text.len() - 1);
    let other = if last == "f" { "e" } else { "f" };
    format!("{front}{other}").parse().expect("an id")
}

#[test]
fn gone_is_told_of_ids_that_never_were_or_have_left() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let other = start(1, |app| {
                let greeting = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into());
                app.websocket("/", greeting)
            });
            let mut stranger = common::Client::connect(other.local_addr(), "/");
            let hub = office.running.hub();
            let mut clients = office.clients(shards);
            let mut ids: Vec<ConnectionId> = vec![stranger.text().parse().expect("an id")];
            ids.extend(clients.iter().map(|(_, id)| never_there(*id)));
            // All but one leave.
            let (mut stayer, _) = clients.remove(0);
            ids.extend(clients.drain(..).map(|(_, id)| id));
            eventually(|| hub.connection_counts().iter().sum::<usize>() == 1);
            for id in ids {
                assert_eq!(block_on(hub.send_to_async(id, "hello")), Err(SendError::Gone));
                stayer.send(format!("to {id} 5"));
                assert_eq!(block_on(office.delivery()), Err(SendError::Gone));
            }
        }
    });
}

#[test]
fn gone_is_told_of_who_leaves_with_the_message_queued() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let mut senders = office.clients(shards);
            for (sender, _) in &mut senders {
                let (slow, id) = office.slow();
                let mut by_hub = hub.send_to_async(id, vec![0; BIG]);
                sender.send(format!("to {id} {BIG}"));
                // Another sender's: it may have come first, and then the hub's was too much.
                let mut by_handler = office.delivery();
                assert!(is_pending(&mut by_hub) || is_pending(&mut by_handler));
                slow.reset();
                let mut told = [block_on(by_hub), block_on(by_handler)];
                told.sort_by_key(|told| *told == Err(SendError::Gone));
                assert_eq!(told[1], Err(SendError::Gone));
                assert!(told[0].is_err(), "{told:?}");
            }
        }
    });
}

#[test]
fn closed_is_told_of_what_is_sent_to_oneself_after_close() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let (mut client, id) = office.client();
            client.send(format!("to {id} 1;close;to {id} 2;all 3"));
            assert_eq!(client.bytes().len(), 1);
            assert_eq!(client.close_code(), 1000);
            assert_eq!(block_on(office.delivery()), Ok(()));
            assert_eq!(block_on(office.delivery()), Err(SendError::Closed));
            let report = block_on(office.broadcast()).expect("room");
            assert_eq!(report, peregrine::BroadcastReport::default(), "nobody is there any more");
        }
    });
}

#[test]
fn a_large_message_is_told_of_when_its_last_byte_was_taken() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let (mut sender, _) = office.client();
            let (mut slow, id) = office.slow();
            for by_hub in [true, false] {
                let mut delivery = match by_hub {
                    true => hub.send_to_async(id, vec![b'.'; 2 * BIG]),
                    false => {
                        sender.send(format!("to {id} {}", 2 * BIG));
                        office.delivery()
                    }
                };
                // Its header, and each MiB of the first half: the kernel does not hold the rest.
                assert_eq!(slow.take(10).expect("a header")[..2], [0x82, 127]);
                for _ in 0..BIG >> 20 {
                    assert!(is_pending(&mut delivery), "it waits for the client to read");
                    assert!(slow.take(1 << 20).expect("a part").iter().all(|byte| *byte == b'.'));
                }
                assert!(is_pending(&mut delivery), "it waits for the client to read");
                let rest = thread::spawn(move || {
                    slow.take(BIG).expect("the rest");
                    slow
                });
                assert_eq!(block_on(delivery), Ok(()));
                slow = rest.join().expect("no panic");
            }
            assert_eq!(hub.dropped_count(), 0);
        }
    });
}

/// A task that panics when it is woken.
struct Explosive;

impl Wake for Explosive {
    fn wake(self: Arc<Self>) {
        panic!("as it was made to");
    }
}

#[test]
fn a_waker_that_panics_harms_no_shard() {
    within(LIMIT, || {
        let waker = Waker::from(Arc::new(Explosive));
        let mut context = Context::from_waker(&waker);
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let (slow, id) = office.slow();
            let mut delivery = hub.send_to_async(id, vec![0; BIG]);
            let mut broadcast = hub.broadcast_async("/", "to all");
            assert!(Pin::new(&mut delivery).poll(&mut context).is_pending());
            let early = Pin::new(&mut broadcast).poll(&mut context);
            slow.reset();
            assert_eq!(block_on(delivery), Err(SendError::Gone));
            let report = match early {
                Poll::Ready(report) => report.expect("room"),
                Poll::Pending => block_on(broadcast).expect("room"),
            };
            assert_eq!(report.reached_count, 0);
            let (mut client, id) = office.client();
            assert_eq!(block_on(hub.send_to_async(id, "still there")), Ok(()));
            assert_eq!(client.text(), "still there");
            let (slow, id) = office.slow();
            let mut delivery = hub.send_to_async(id, vec![0; BIG]);
            assert!(Pin::new(&mut delivery).poll(&mut context).is_pending());
            let Office { running, .. } = office;
            running.shutdown(Duration::ZERO).expect("no shard has panicked");
            assert_eq!(block_on(delivery), Err(SendError::ShuttingDown));
            drop(slow);
        }
    });
}

#[test]
fn futures_that_nobody_waits_for_change_nothing() {
    const COUNT: usize = 600;
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, Limits::default());
            let hub = office.running.hub();
            let mut clients = office.clients(shards);
            let target = clients[shards].1;
            let mut late = Vec::new();
            for at in 0..COUNT {
                let mut delivery = hub.send_to_async(target, format!("{at}"));
                let broadcast = hub.publish_async("everybody", format!("{at} to all"));
                match at % 4 {
                    0 => drop(delivery),
                    1 => {
                        let _ = is_pending(&mut delivery);
                    }
                    2 => late.push((delivery, broadcast)),
                    _ => assert_eq!(block_on(delivery), Ok(())),
                }
            }
            for (at, (client, _)) in clients.iter_mut().enumerate() {
                for message in 0..COUNT {
                    if at == shards {
                        assert_eq!(client.text(), format!("{message}"));
                    }
                    assert_eq!(client.text(), format!("{message} to all"));
                }
            }
            drop(late);
            assert_eq!(hub.dropped_count(), 0);
        }
    });
}
