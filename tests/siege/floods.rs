//! Clients that send as fast as they can what is cheap to send, and what one message makes many of.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::LIMIT;
use super::process::{Process, SHARD_COUNT, SUM_BYTES};
use crate::common::within;
use crate::raw::{
    BINARY, Bystander, CLOSE, FIN, PING, PONG, Raw, TEXT, close, frame, next_is_served, timed,
};

/// How much processor time a shard may need until others are served while somebody floods: a turn's
/// budget takes milliseconds, and more than ten times that in a debug build.
const PATIENT: Duration = Duration::from_millis(1500);
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

/// The longest that somebody waits for two answers, in processor time of the server: a machine that
/// is busy with something else does not count.
fn longest_wait(process: &Process, bystander: &mut Bystander, time: Duration) -> Duration {
    let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
    while total < time {
        let before = process.spent();
        let ((), took) = timed(|| bystander.is_served());
        longest = longest.max(process.spent() - before);
        total += took;
    }
    longest
}

/// What is sent first, then again and again; the code that ends it, if one does.
type Flood = (&'static str, Vec<u8>, Vec<u8>, Option<u16>);

fn floods() -> [Flood; 8] {
    let thousand = [frame(BINARY ^ FIN, b"x"), frame(0, b"x").repeat(998), frame(FIN, b"x")];
    let nothing = Vec::new;
    [
        ("pings", nothing(), frame(PING, b""), Some(1008)),
        ("large pings", nothing(), frame(PING, &[1; 125]), Some(1008)),
        ("pongs", nothing(), frame(PONG, b""), Some(1008)),
        ("empty fragments", frame(TEXT ^ FIN, b""), frame(0, b""), Some(1008)),
        ("tiny fragments", frame(TEXT ^ FIN, b"x"), frame(0, b"x"), Some(1008)),
        ("messages of tiny fragments", nothing(), thousand.concat(), None),
        ("tiny messages", nothing(), frame(BINARY, b"x"), None),
        ("empty messages", nothing(), frame(TEXT, b""), None),
    ]
}

#[test]
fn whatever_somebody_floods_with_others_are_served_and_memory_stays() {
    within(LIMIT, || {
        let process = Process::start("plain");
        let mut bystander = process.bystander();
        bystander.is_served();
        let before = process.resident_bytes();
        for (what, first, unit, code) in floods() {
            let stop = Arc::new(AtomicBool::new(false));
            let floods: Vec<_> = (0..4)
                .map(|_| Raw::upgraded(process.address, "/echo"))
                .map(|raw| flood(raw, first.clone(), &unit, &stop))
                .collect();
            let longest = longest_wait(&process, &mut bystander, FLOOD);
            let grown = process.resident_bytes().saturating_sub(before);
            println!("{what}: others waited {longest:?} at most, {grown} bytes more");
            assert!(longest < PATIENT, "{what}: somebody waited {longest:?}");
            assert!(grown < 16 << 20, "{what}: {grown} bytes more");
            stop.store(true, Ordering::Relaxed);
            for flood in floods {
                let closed = flood.join().expect("no panic");
                // A reset may overtake the Close frame of who goes on sending.
                let is_right = closed == code || (code.is_some() && closed.is_none());
                assert!(is_right, "{what}: {closed:?}");
            }
        }
        next_is_served(process.address, "/echo");
    });
}

/// One small message of one client makes hundreds of deliveries, to clients who read nothing.
#[test]
fn a_flood_of_broadcasts_to_who_does_not_read_is_bounded_and_nobody_waits() {
    const MEMBER_COUNT: usize = 200;
    const HIGH_WATER_BYTES: usize = 64 << 10;
    for kind in ["close", "drop newest", "drop oldest"] {
        within(LIMIT, move || {
            let process = Process::start(kind);
            let mut bystander = process.bystander();
            let members: Vec<Raw> = (0..MEMBER_COUNT)
                .map(|_| {
                    let mut raw = Raw::connect_narrow(process.address);
                    raw.upgrade("/room");
                    raw
                })
                .collect();
            let before = process.resident_bytes();
            let stop = Arc::new(AtomicBool::new(false));
            // One that reads all that comes, and one that does not.
            let reader = Raw::upgraded(process.address, "/room");
            let reader = flood(reader, Vec::new(), &frame(TEXT, b"go"), &stop);
            let mut writer = Raw::connect_narrow(process.address);
            writer.upgrade("/room");
            let sent = push(&mut writer, &frame(TEXT, b"go").repeat(2000));
            let longest = longest_wait(&process, &mut bystander, FLOOD);
            let grown = process.resident_bytes().saturating_sub(before);
            let dropped = process.dropped_count();
            println!(
                "{kind}: who does not read sent {sent} bytes; others waited {longest:?} at most; \
                 {grown} bytes more; {dropped} dropped"
            );
            assert!(longest < PATIENT, "{kind}: somebody waited {longest:?}");
            // What waits in outboxes (up to the high-water mark whatever the sum), in mailboxes,
            // for mailboxes; and the allocator's own.
            let most = SHARD_COUNT * 3 * SUM_BYTES + MEMBER_COUNT * HIGH_WATER_BYTES;
            assert!(grown < most + most / 2, "{kind}: {grown} bytes more");
            assert!(dropped > 0, "{kind}: the test is too small");
            next_is_served(process.address, "/echo");
            stop.store(true, Ordering::Relaxed);
            drop((process, members, writer));
            reader.join().expect("no panic");
        });
    }
}

/// Clients that subscribe to as many topics as they may, with the longest names.
#[test]
fn topics_cost_what_their_limits_say_and_are_given_back() {
    const CLIENT_COUNT: usize = 20;
    const TOPIC_COUNT: usize = 256;
    within(LIMIT, || {
        let process = Process::start("plain");
        let round = |round: usize| {
            let mut clients: Vec<Raw> =
                (0..CLIENT_COUNT).map(|_| Raw::upgraded(process.address, "/topics")).collect();
            for (at, raw) in clients.iter_mut().enumerate() {
                raw.send(frame(TEXT, format!("{round} {at} ").as_bytes()));
                assert_eq!(raw.text(), TOPIC_COUNT.to_string());
            }
            let held = process.resident_bytes();
            for raw in &mut clients {
                raw.send(close(1000, b""));
                raw.closed();
            }
            held
        };
        let before = process.resident_bytes();
        let first = round(1).saturating_sub(before);
        let most = (2..5).map(round).max().expect("rounds").saturating_sub(before);
        println!("{CLIENT_COUNT} clients, {TOPIC_COUNT} topics each: {first} bytes, then {most}");
        assert!(first < CLIENT_COUNT * TOPIC_COUNT * (2 << 10), "{first} bytes");
        assert!(most < 2 * first, "{first} bytes at first, then {most}");
    });
}
