//! Handlers that do anything at any time, and clients that do, too. Whatever the order, each
//! connection that was opened is closed once, and the server stays whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use peregrine::{Callbacks, ConnectionId, Limits, OverflowPolicy, Reply, WebSocket};

use super::{Dice, LIMIT, SHORT};
use crate::common::{start, within};
use crate::raw::{BINARY, FIN, PING, Raw, TEXT, close, frame, get, next_is_served, until, upgrade};

/// How many acts a client performs, and how many clients there are at once and in all.
const ACT_COUNT: usize = 12;
const CLIENT_COUNT: usize = 16;
const ROUND_COUNT: usize = 25;

/// What the handlers of one server share.
struct Stage {
    dice: Mutex<Dice>,
    ids: Mutex<Vec<ConnectionId>>,
    connect_count: AtomicU64,
    close_count: AtomicU64,
}

impl Stage {
    fn new(seed: u64) -> Self {
        Self {
            dice: Mutex::new(Dice(seed)),
            ids: Mutex::default(),
            connect_count: AtomicU64::new(0),
            close_count: AtomicU64::new(0),
        }
    }

    fn roll(&self, limit: usize) -> usize {
        // A handler that panics may do so while it holds nothing.
        self.dice.lock().expect("nobody panics while rolling").below(limit)
    }

    fn anybody(&self) -> Option<ConnectionId> {
        let ids = self.ids.lock().expect("nobody panics while looking");
        (!ids.is_empty()).then(|| ids[self.roll(ids.len())])
    }

    /// Anything that a handler can do; a few of them in a row.
    fn act(&self, ws: &mut WebSocket<'_, u64>) -> Reply<'static> {
        *ws.session_mut() += 1;
        // Every result is right here: it is only to be survived.
        for _ in 0..self.roll(4) {
            let size = [0, 10, 200, 5000, 20_000, 100_000][self.roll(6)];
            let anybody = self.anybody().unwrap_or_else(|| ws.id());
            let own = ws.id();
            let _ = match self.roll(40) {
                0..=6 => ws.send(vec![1; size]),
                7..=10 => ws.send_to(anybody, vec![2; size]),
                11..=13 => ws.send_to(own, vec![3; size]),
                14..=17 => ws.broadcast(vec![4; size.min(20_000)]),
                18 => ws.broadcast_except(own, "to the others"),
                19..=20 => ws.hub().send_to(anybody, vec![5; size]),
                21..=22 => ws.hub().broadcast("/chaos", vec![6; size.min(20_000)]),
                23 => ws.hub().close_with(anybody, 4002, "by the hub"),
                24 => ws.hub().abort(anybody),
                25 => ws.hub().close(own),
                26 => {
                    ws.close();
                    Ok(())
                }
                27 => {
                    ws.close_with(4003, "by the handler");
                    Ok(())
                }
                28 => {
                    ws.abort();
                    Ok(())
                }
                29 if self.roll(3) == 0 => panic!("on purpose"),
                _ => Ok(()),
            };
        }
        match self.roll(4) {
            0 => Reply::none(),
            1 => "a text".into(),
            2 => vec![7; 20_000].into(),
            _ => vec![8; 100].into(),
        }
    }
}

fn handler(stage: &Arc<Stage>) -> Callbacks<u64> {
    let [connect, message, drain, end] = [(); 4].map(|()| Arc::clone(stage));
    Callbacks::new()
        .on_connect(move |ws| {
            connect.connect_count.fetch_add(1, Ordering::Relaxed);
            connect.ids.lock().expect("nobody panics here").push(ws.id());
            connect.act(ws)
        })
        .on_message(move |ws, _| message.act(ws))
        .on_drain(move |ws| drop(drain.act(ws)))
        .on_close(move |ws, _| {
            end.close_count.fetch_add(1, Ordering::Relaxed);
            end.act(ws)
        })
}

/// Anything that a client can do, in any order, and then it goes in any way.
pub fn misbehave(raw: &mut Raw, dice: &mut Dice) {
    raw.socket.set_read_timeout(Some(SHORT / 10)).expect("a time limit");
    raw.socket.set_write_timeout(Some(SHORT / 10)).expect("a time limit");
    if dice.below(4) == 0 {
        raw.try_send(get("/big").repeat(dice.below(3)));
    }
    raw.try_send(upgrade("/chaos"));
    for _ in 0..dice.below(ACT_COUNT) {
        match dice.below(14) {
            0..=3 => raw.try_send(frame(TEXT, b"go")),
            4 => raw.try_send(frame(TEXT, b"go").repeat(50)),
            5 => raw.try_send(frame(BINARY, &vec![1; 1 + dice.below(200_000)])),
            6 => raw
                .try_send([frame(TEXT ^ FIN, b"a"), frame(PING, b"b"), frame(FIN, b"c")].concat()),
            7 => raw.try_send(frame(PING, b"?").repeat(20)),
            8 => raw.try_send(close(1000, b"bye")),
            9 if dice.below(3) == 0 => raw.try_send(dice.bytes(20)),
            10 if dice.below(3) == 0 => {
                let _ = raw.socket.shutdown(std::net::Shutdown::Write);
            }
            _ => raw.skim(),
        }
    }
}

fn limits(overflow: OverflowPolicy) -> Limits {
    let mut limits = Limits::default();
    limits.overflow = overflow;
    limits.max_outbox_bytes = 128 << 10;
    limits.outbox_high_water_bytes = 32 << 10;
    limits.outbox_low_water_bytes = 4 << 10;
    limits.max_shard_outbox_bytes = 1 << 20;
    limits.max_mailbox_envelopes = 64;
    limits.max_mailbox_bytes = 1 << 20;
    limits.ping_after = SHORT / 4;
    limits.idle_timeout = SHORT;
    limits.close_timeout = SHORT / 2;
    limits.handshake_timeout = SHORT * 5;
    limits
}

fn run(seed: u64, shard_count: usize, overflow: OverflowPolicy) {
    let stage = Arc::new(Stage::new(seed));
    let handler = handler(&stage);
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let server = start(shard_count, |builder| {
        let page = peregrine::Response::new(200).body(vec![7; 1 << 20]);
        builder
            .limits(limits(overflow))
            .websocket("/chaos", handler)
            .websocket("/echo", echo)
            .get("/big", page)
    });
    let (address, hub) = (server.local_addr(), server.hub());
    let clients: Vec<_> = (0..CLIENT_COUNT)
        .map(|client| {
            thread::spawn(move || {
                let mut dice = Dice(seed.wrapping_mul(1000) + client as u64);
                for _ in 0..ROUND_COUNT {
                    let mut raw = match dice.below(2) {
                        0 => Raw::connect(address),
                        _ => Raw::connect_narrow(address),
                    };
                    misbehave(&mut raw, &mut dice);
                    if dice.below(3) == 0 {
                        raw.reset();
                    }
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    next_is_served(address, "/echo");
    until("all are gone", || hub.connection_counts().iter().all(|&count| count == 0));
    // Some are open when it ends.
    let _open: Vec<_> = (0..10)
        .map(|_| {
            let mut raw = Raw::connect(address);
            raw.send([upgrade("/chaos").into_bytes(), frame(TEXT, b"go")].concat());
            raw
        })
        .collect();
    next_is_served(address, "/echo");
    server.shutdown(SHORT).expect("no shard panicked");
    let connects = stage.connect_count.load(Ordering::Relaxed);
    assert!(connects > 100, "the test is too small: {connects}");
    assert_eq!(stage.close_count.load(Ordering::Relaxed), connects, "on_close, once for each");
}

/// `CHAOS_SEED=7 cargo test --test hostile chaos` runs another play.
#[test]
fn whatever_handlers_and_clients_do_each_connection_is_closed_once() {
    let chosen = std::env::var("CHAOS_SEED").ok().and_then(|text| text.parse().ok());
    let mut seed: u64 = chosen.unwrap_or(1) * 100;
    for overflow in [OverflowPolicy::Close, OverflowPolicy::DropNewest, OverflowPolicy::DropOldest]
    {
        for shard_count in [1, 2] {
            seed += 1;
            println!("seed {seed}, {shard_count} shards, {overflow:?}");
            within(LIMIT, move || run(seed, shard_count, overflow));
        }
    }
}
