//! The promise of delivery: exactly once, in each sender's order, or the sender was told.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "what the tests share is public to each of them")]

mod common;

#[path = "delivery/chance.rs"]
mod chance;
#[path = "delivery/churn.rs"]
mod churn;
#[path = "delivery/crowd.rs"]
mod crowd;
#[path = "delivery/ledger.rs"]
mod ledger;
#[path = "delivery/mixed.rs"]
mod mixed;
#[path = "delivery/overload.rs"]
mod overload;
#[path = "delivery/swarm.rs"]
mod swarm;

use std::thread;
use std::time::Duration;

use common::{Client, SHARD_COUNTS, eventually, start, within};
use peregrine::{Callbacks, ConnectionId, Handler, Limits, Message, Reply, WebSocket};

/// How long a test may take in all, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(240);

/// So many clients that every shard has at least one: no shard gets a third connection while
/// another has none.
fn enough_for(shard_count: usize) -> usize {
    2 * shard_count + 1
}

/// Tells each client its id; sends `"- TEXT"` to all others and `"* TEXT"` to all, `"ID TEXT"` to
/// one.
struct Post;

impl Handler for Post {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let text = message.as_text().unwrap_or_default();
        let (to, text) = text.split_once(' ').expect("an address and a text");
        match to {
            "*" => ws.broadcast(text),
            "-" => ws.broadcast_except(ws.id(), text),
            id => ws.send_to(id.parse().expect("an id"), text),
        }
        .expect("room");
        Reply::none()
    }
}

fn meet(running: &peregrine::RunningServer, count: usize) -> (Vec<Client>, Vec<ConnectionId>) {
    let mut clients: Vec<_> =
        (0..count).map(|_| Client::connect(running.local_addr(), "/")).collect();
    let ids = clients.iter_mut().map(|client| client.text().parse().expect("an id")).collect();
    (clients, ids)
}

#[test]
fn broadcast_except_leaves_out_exactly_one() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = start(shards, |app| app.websocket("/", Post));
            let other = start(shards, |app| app.websocket("/", Post));
            let hub = running.hub();
            let (mut clients, ids) = meet(&running, 4 * shards);
            let (_strangers, stranger_ids) = meet(&other, 4 * shards);
            for left_out in 0..clients.len() {
                clients[left_out].send("- to the others");
                hub.broadcast_except("/", ids[left_out], "from outside").expect("room");
                // An id that is not a member leaves out nobody.
                hub.broadcast_except("/", stranger_ids[left_out], "to all").expect("room");
                for (at, client) in clients.iter_mut().enumerate() {
                    let mut texts = vec![client.text()];
                    while texts.last().is_some_and(|text| text != "to all") {
                        texts.push(client.text());
                    }
                    if at != left_out && texts.len() < 3 {
                        // A handler and the hub are two senders: either may be first.
                        texts.push(client.text());
                    }
                    texts.sort_unstable();
                    match at == left_out {
                        true => assert_eq!(texts, ["to all"]),
                        false => assert_eq!(texts, ["from outside", "to all", "to the others"]),
                    }
                }
            }
            assert_eq!(hub.dropped_count(), 0);
        }
    });
}

#[test]
fn a_broadcast_from_on_connect_reaches_oneself_before_the_connect_reply_and_others_once() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let greeting = Callbacks::<()>::new().on_connect(|ws| {
                ws.broadcast("somebody came").expect("room");
                "you came".into()
            });
            let running = start(shards, |app| app.websocket("/", greeting));
            let mut clients: Vec<Client> = Vec::new();
            for _ in 0..enough_for(shards) {
                let mut client = Client::connect(running.local_addr(), "/");
                assert_eq!(client.text(), "somebody came");
                assert_eq!(client.text(), "you came");
                for other in &mut clients {
                    assert_eq!(other.text(), "somebody came");
                }
                clients.push(client);
            }
            running.hub().broadcast("/", "fence").expect("room");
            assert!(clients.iter_mut().all(|client| client.text() == "fence"));
        }
    });
}

/// Two clients on two shards of a server.
fn far_apart(running: &peregrine::RunningServer) -> [(Client, ConnectionId); 2] {
    // No shard gets a third connection while another has none.
    let (clients, ids) = meet(running, 3);
    let mut pairs: Vec<_> = clients.into_iter().zip(ids).collect();
    let first = pairs.remove(0);
    let at = pairs.iter().position(|(_, id)| id.shard() != first.1.shard());
    [first, pairs.remove(at.expect("one on the other shard"))]
}

#[test]
fn no_wake_up_is_lost_when_two_shards_play_ping_pong() {
    const ROUNDS: usize = 10_000;
    within(LIMIT, || {
        let running = start(2, |app| app.websocket("/", Post));
        let [(mut ping, ping_id), (mut pong, pong_id)] = far_apart(&running);
        thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    ping.send(format!("{pong_id} {round}"));
                    assert_eq!(ping.text(), format!("{round} came"));
                }
            });
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    assert_eq!(pong.text(), round.to_string());
                    pong.send(format!("{ping_id} {round} came"));
                }
            });
        });
        assert_eq!(running.hub().dropped_count(), 0);
    });
}

#[test]
fn no_wake_up_is_lost_when_threads_wake_shards_that_fall_asleep() {
    const ROUNDS: usize = 12_000;
    within(LIMIT, || {
        let running = start(4, |app| app.websocket("/", Post));
        let (clients, ids) = meet(&running, enough_for(4));
        thread::scope(|scope| {
            for (mut client, id) in clients.into_iter().zip(ids) {
                let hub = running.hub();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        hub.send_to(id, "first").expect("room");
                        // The second comes a little later in each round, so that it meets the
                        // shard at every step of taking the first and falling asleep.
                        (0..round % 1000).for_each(|_| std::hint::spin_loop());
                        hub.send_to(id, "second").expect("room");
                        assert_eq!([client.text(), client.text()], ["first", "second"]);
                    }
                });
            }
        });
        assert_eq!(running.hub().dropped_count(), 0);
    });
}

/// A megabyte that only this sender's message has.
fn megabyte(sender: u8, sequence: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..=250u8).cycle().map(|byte| byte ^ (sender << 4) ^ sequence).take(1 << 20).collect();
    bytes[..2].copy_from_slice(&[sender, sequence]);
    bytes
}

#[test]
fn large_messages_to_many_arrive_whole() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_outbox_bytes = 16 << 20;
        // A message comes back to all as bytes: from the lane, or put together by the engine.
        let repeat = Callbacks::<()>::new().on_connect(|ws| ws.id().to_string().into()).on_message(
            |ws, message| {
                ws.broadcast(message).expect("room");
                Reply::none()
            },
        );
        let running = start(2, |app| app.limits(limits).websocket("/", repeat));
        let (mut clients, ids) = meet(&running, 50);
        let sent = [0, 1].map(|sender| [0, 1, 2].map(|sequence| megabyte(sender, sequence)));
        thread::scope(|scope| {
            let (hub, sent) = (running.hub(), &sent);
            scope.spawn(move || {
                sent[0].iter().for_each(|bytes| hub.broadcast("/", bytes).expect("room"));
            });
            sent[1].iter().for_each(|bytes| clients[0].send_bytes(bytes.clone()));
        });
        for (client, id) in clients.iter_mut().zip(ids) {
            let mut missing = sent.each_ref().map(|of_sender| of_sender.iter());
            for _ in 0..6 {
                let bytes = client.bytes();
                let expected = missing[usize::from(bytes[0])].next().expect("nothing twice");
                assert!(bytes == *expected, "{id} got it whole and in order");
            }
            running.hub().send_to(id, "fence").expect("room");
            assert_eq!(client.text(), "fence", "and nothing twice");
        }
        assert_eq!(running.hub().dropped_count(), 0);
    });
}
