//! Clients that send as fast as they can what is cheap to send, and what one message makes many of.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peregrine::{Callbacks, Limits, Overflow};

use super::{LIMIT, resident_bytes};
use crate::alone::alone;
use crate::common::start;
use crate::raw::{
    BINARY, Bystander, CLOSE, FIN, PING, PONG, Raw, TEXT, frame, next_is_served, timed, until,
};

/// How long others may wait while somebody floods: a turn's budget takes milliseconds.
const PATIENT: Duration = Duration::from_secs(2);
/// How long is flooded.
const FLOOD: Duration = Duration::from_millis(500);

/// Sends the same again and again until it is told to stop or cannot any more, and reads what comes
/// meanwhile, if it reads: the code that it was closed with, if it was.
fn flood(
    mut raw: Raw,
    start: Vec<u8>,
    unit: &[u8],
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Option<u16>> {
    let (stop, bytes) = (Arc::clone(stop), unit.repeat((16 << 10) / unit.len()));
    let mut writer = raw.socket.try_clone().expect("a descriptor");
    let reading = thread::spawn(move || {
        let mut last = None;
        while let Some(frame) = raw.frame() {
            last = Some(frame);
        }
        last.filter(|frame| frame.first == CLOSE).map(|frame| frame.close().0)
    });
    thread::spawn(move || {
        let mut more = writer.write_all(&start);
        while more.is_ok() && !stop.load(Ordering::Relaxed) {
            more = writer.write_all(&bytes);
        }
        let _ = writer.shutdown(std::net::Shutdown::Write);
        reading.join().expect("the reader")
    })
}

/// Sends the same again and again, and reads nothing, until nothing is taken for a while, or it is
/// closed: how many bytes were taken.
fn push(raw: &mut Raw, bytes: &[u8]) -> usize {
    raw.socket.set_write_timeout(Some(FLOOD)).expect("a time limit");
    let mut sent = 0;
    while let Ok(count) = raw.socket.write(bytes) {
        sent += count;
    }
    sent
}

/// The longest that a bystander waits, in so much time.
fn longest_wait(bystander: &mut Bystander, time: Duration) -> Duration {
    let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
    while total < time {
        let ((), took) = timed(|| bystander.is_served());
        (longest, total) = (longest.max(took), total + took);
    }
    longest
}

#[test]
fn whatever_somebody_floods_with_others_are_served_and_memory_stays() {
    let name = "floods::whatever_somebody_floods_with_others_are_served_and_memory_stays";
    alone(name, LIMIT, || {
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let server = start(1, |builder| builder.websocket("/echo", echo));
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let thousand = [frame(BINARY ^ FIN, b"x"), frame(0, b"x").repeat(998), frame(FIN, b"x")];
        let nothing = Vec::new;
        // What is sent first, then again and again; the close code, if there is one.
        let floods: [(&str, Vec<u8>, Vec<u8>, Option<u16>); 8] = [
            ("pings", nothing(), frame(PING, b""), Some(1008)),
            ("large pings", nothing(), frame(PING, &[1; 125]), Some(1008)),
            ("pongs", nothing(), frame(PONG, b""), Some(1008)),
            ("empty fragments", frame(TEXT ^ FIN, b""), frame(0, b""), Some(1008)),
            ("tiny fragments", frame(TEXT ^ FIN, b"x"), frame(0, b"x"), Some(1008)),
            ("messages of tiny fragments", nothing(), thousand.concat(), None),
            ("tiny messages", nothing(), frame(BINARY, b"x"), None),
            ("empty messages", nothing(), frame(TEXT, b""), None),
        ];
        // What is allocated once.
        bystander.is_served();
        let before = resident_bytes();
        for (what, first, unit, code) in floods {
            let stop = Arc::new(AtomicBool::new(false));
            let floods: Vec<_> = (0..3)
                .map(|_| Raw::upgraded(server.local_addr(), "/echo"))
                .map(|raw| flood(raw, first.clone(), &unit, &stop))
                .collect();
            let longest = longest_wait(&mut bystander, FLOOD);
            let grown = resident_bytes().saturating_sub(before);
            println!("{what}: others waited {longest:?} at most, {grown} bytes more");
            assert!(longest < PATIENT, "{what}: somebody waited {longest:?}");
            assert!(grown < 16 << 20, "{what}: {grown} bytes more");
            stop.store(true, Ordering::Relaxed);
            for flood in floods {
                let closed = flood.join().expect("no panic");
                // A reset may overtake the Close frame of who goes on sending.
                assert!(
                    closed == code || (code.is_some() && closed.is_none()),
                    "{what}: {closed:?}"
                );
            }
            until("they are gone", || server.hub().connection_counts() == [1]);
        }
        next_is_served(server.local_addr(), "/echo");
    });
}

/// One small message of one client makes hundreds of deliveries, to clients who read nothing.
#[test]
fn a_flood_of_broadcasts_to_who_does_not_read_is_bounded_and_nobody_waits() {
    let name = "floods::a_flood_of_broadcasts_to_who_does_not_read_is_bounded_and_nobody_waits";
    alone(name, LIMIT, || {
        for overflow in [Overflow::Close, Overflow::DropNewest, Overflow::DropOldest] {
            for shard_count in [1, 2] {
                amplify(overflow, shard_count);
            }
        }
    });
}

const MEMBER_COUNT: usize = 200;
const BROADCAST_BYTES: usize = 8 << 10;

fn amplify(overflow: Overflow, shard_count: usize) {
    let mut limits = Limits::default();
    limits.overflow = overflow;
    limits.shard_outbox_bytes = 8 << 20;
    limits.mailbox_bytes = 8 << 20;
    limits.closing = FLOOD;
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let room = Callbacks::<()>::new().on_message(move |ws, _| {
        if ws.broadcast(vec![7; BROADCAST_BYTES]).is_err() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        ().into()
    });
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    let server = start(shard_count, |builder| {
        builder.limits(limits).websocket("/room", room).websocket("/echo", echo)
    });
    let address = server.local_addr();
    let mut bystander = Bystander::connect(address, "/echo");
    let members: Vec<Raw> = (0..MEMBER_COUNT)
        .map(|_| {
            let mut raw = Raw::connect_narrow(address);
            raw.upgrade("/room");
            raw
        })
        .collect();
    let before = resident_bytes();
    let stop = Arc::new(AtomicBool::new(false));
    // One that reads all that comes, and one that does not.
    let reader = flood(Raw::upgraded(address, "/room"), Vec::new(), &frame(TEXT, b"go"), &stop);
    let mut writer = Raw::connect_narrow(address);
    writer.upgrade("/room");
    let sent = push(&mut writer, &frame(TEXT, b"go").repeat(2000));
    let longest = longest_wait(&mut bystander, FLOOD * 2);
    let grown = resident_bytes().saturating_sub(before);
    stop.store(true, Ordering::Relaxed);
    println!(
        "{overflow:?}, {shard_count} shards: who does not read sent {sent} bytes; others waited \
         {longest:?} at most; {grown} bytes more; {} refused, {} dropped",
        refused.load(Ordering::Relaxed),
        server.hub().dropped_count()
    );
    assert!(longest < PATIENT, "somebody waited {longest:?}");
    // What waits for the members is shared by them; the log of publications is beside it.
    let bound = shard_count * ((8 << 20) + (64 << 20));
    assert!(grown < bound, "{grown} bytes more");
    drop((members, writer));
    reader.join().expect("no panic");
    next_is_served(address, "/echo");
    assert!(server.hub().dropped_count() > 0, "the test is too small");
}

/// Clients that subscribe to as many topics as they may, with the longest names.
#[test]
fn topics_cost_what_their_limits_say_and_are_given_back() {
    const CLIENT_COUNT: usize = 20;
    const TOPIC_COUNT: usize = 256;
    alone("floods::topics_cost_what_their_limits_say_and_are_given_back", LIMIT, || {
        let handler = Callbacks::<()>::new().on_message(|ws, message| {
            let name = message.as_text().unwrap_or_default();
            let subscribe = |at: usize| ws.subscribe(&format!("{name}{at:01000}"));
            (0..TOPIC_COUNT + 10).map(subscribe).filter(Result::is_ok).count().to_string().into()
        });
        let server = start(1, |builder| builder.websocket("/", handler));
        let hub = server.hub();
        let round = |round: usize| {
            let clients: Vec<Raw> = (0..CLIENT_COUNT)
                .map(|at| {
                    let mut raw = Raw::upgraded(server.local_addr(), "/");
                    raw.send(frame(TEXT, format!("{round} {at} ").as_bytes()));
                    assert_eq!(raw.text(), TOPIC_COUNT.to_string());
                    raw
                })
                .collect();
            let held = resident_bytes();
            drop(clients);
            until("they are gone", || hub.connection_counts() == [0]);
            held
        };
        let before = resident_bytes();
        let first = round(1).saturating_sub(before);
        let most = (2..4).map(round).max().expect("rounds").saturating_sub(before);
        println!(
            "{CLIENT_COUNT} clients with {TOPIC_COUNT} topics each: {first} bytes, then {most}"
        );
        assert!(first < CLIENT_COUNT * TOPIC_COUNT * (2 << 10), "{first} bytes");
        assert!(most < first + first / 4, "{first} bytes at first, then {most}");
    });
}
