//! Peers that do not read. What waits for them is bounded, what is dropped is counted, and nobody
//! else waits with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use peregrine::{
    Callbacks, Close, ClosedBy, ConnectionId, Hub, Limits, OverflowPolicy, RunningServer,
};

use super::{LIMIT, SHORT, next};
use crate::alone::{ProcessorClock, this_thread};
use crate::common::{PATIENCE, start, within};
use crate::raw::{
    BINARY, Bystander, CLOSE, Frame, Raw, TEXT, close, frame, header, next_is_served, until,
};

#[test]
fn who_sends_and_never_reads_is_stopped_before_it_costs_much() {
    const MESSAGE_BYTES: usize = 4 << 10;
    within(LIMIT, || {
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let echo = Callbacks::<()>::new().on_message(move |ws, message| {
            seen.fetch_max(ws.buffered_bytes(), Ordering::Relaxed);
            message.into()
        });
        let server = start(1, |builder| builder.websocket("/echo", echo));
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let mut floods: Vec<Raw> = (0..8)
            .map(|_| {
                let mut raw = Raw::connect_narrow(server.local_addr());
                raw.upgrade("/echo");
                raw
            })
            .collect();
        let message = frame(BINARY, &[7; MESSAGE_BYTES]);
        let mut all = Vec::new();
        for raw in &mut floods {
            let sent = raw.flood(&message, 256 << 20, SHORT);
            assert!(
                sent < 64 << 20,
                "the server read {sent} bytes that nobody took the answers to"
            );
            all.push(sent);
            bystander.is_served();
        }
        let limits = Limits::default();
        let bound = limits.outbox_high_water_bytes + (64 << 10) + 2 * MESSAGE_BYTES;
        let most = most.load(Ordering::Relaxed);
        assert!(most <= bound, "{most} bytes waited for one client");
        // Nothing was lost: now they read.
        for (mut raw, sent) in floods.into_iter().zip(all) {
            let mut writer = raw.socket.try_clone().expect("a descriptor");
            let mut rest = message[sent % message.len()..].to_vec();
            rest.extend(close(1000, b""));
            let sending = thread::spawn(move || std::io::Write::write_all(&mut writer, &rest));
            let frames = raw.frames();
            sending.join().expect("the sender").expect("the server reads again");
            let (last, echoes) = frames.split_last().expect("a Close frame");
            assert_eq!(last.close().0, 1000);
            assert_eq!(echoes.len(), sent / message.len() + 1);
            assert!(echoes.iter().all(|echo| echo.payload == [7; MESSAGE_BYTES]));
        }
        next_is_served(server.local_addr(), "/echo");
    });
}

/// News for a client that keeps up and one that does not.
struct News {
    server: RunningServer,
    hub: Hub,
    closes: Receiver<Close>,
    fast: Raw,
    slow: Raw,
    slow_id: ConnectionId,
}

impl News {
    fn new(limits: Limits) -> Self {
        let (told, closes) = mpsc::channel();
        let news = Callbacks::<()>::new()
            .on_connect(|ws| ws.id().to_string().into())
            .on_message(|_, message| message.into())
            .on_close(move |_, close| {
                let _ = told.send(close.clone());
                "goodbye".into()
            });
        let server = start(1, |builder| builder.limits(limits).websocket("/news", news));
        let mut fast = Raw::upgraded(server.local_addr(), "/news");
        fast.text();
        let mut slow = Raw::connect_narrow(server.local_addr());
        slow.upgrade("/news");
        let slow_id = slow.text().parse().expect("an id");
        Self { hub: server.hub(), server, closes, fast, slow, slow_id }
    }

    /// Broadcasts numbered messages in bursts that the fast one can take; it gets them all.
    fn broadcast(&mut self, count: u32, burst: u32, bytes: usize) {
        for start in (0..count).step_by(burst as usize) {
            for number in start..start + burst {
                let mut message = vec![0; bytes];
                message[..4].copy_from_slice(&number.to_be_bytes());
                self.hub.broadcast("/news", message).expect("the mailbox has room");
            }
            for number in start..start + burst {
                assert_eq!(number_of(&self.fast.frame().expect("a message")), number);
            }
        }
        // Two rounds, so that the slow one's turn has come as well.
        for round in ["once", "again"] {
            self.fast.send(frame(TEXT, round.as_bytes()));
            assert_eq!(self.fast.text(), round);
        }
    }

    /// What the slow one reads up to the answer to its question.
    fn caught_up(&mut self) -> Vec<u32> {
        self.slow.send(frame(TEXT, b"end?"));
        let mut numbers = Vec::new();
        loop {
            let frame = self.slow.frame().expect("an answer");
            if frame.first == TEXT {
                assert_eq!(frame.payload, b"end?");
                return numbers;
            }
            numbers.push(number_of(&frame));
        }
    }
}

fn number_of(frame: &Frame) -> u32 {
    assert_eq!(frame.first, BINARY, "not a message of news");
    u32::from_be_bytes(*frame.payload.first_chunk().expect("a number"))
}

fn narrow(overflow: OverflowPolicy) -> Limits {
    let mut limits = Limits::default();
    limits.max_outbox_bytes = 64 << 10;
    limits.outbox_high_water_bytes = 32 << 10;
    limits.outbox_low_water_bytes = 8 << 10;
    limits.overflow = overflow;
    limits.close_timeout = PATIENCE;
    limits
}

/// Count, burst and size of the messages of a test: alone and in runs, large and small.
const LOADS: [(u32, u32, usize); 3] = [(1000, 1, 16 << 10), (12_000, 16, 1000), (8000, 1, 1400)];

#[test]
fn what_a_slow_consumer_misses_is_counted_exactly() {
    for overflow in [OverflowPolicy::DropNewest, OverflowPolicy::DropOldest] {
        for (count, burst, bytes) in LOADS {
            within(LIMIT, move || {
                let mut news = News::new(narrow(overflow));
                news.broadcast(count, burst, bytes);
                let numbers = news.caught_up();
                let what = format!("{overflow:?}, {count} messages of {bytes} bytes");
                assert!(numbers.is_sorted_by(|a, b| a < b), "{what}: in order, none twice");
                let dropped = news.hub.dropped_count();
                assert!(dropped > 0, "{what}: the test is too small");
                assert_eq!(numbers.len() as u64 + dropped, u64::from(count), "{what}");
                match overflow {
                    OverflowPolicy::DropNewest => assert_eq!(numbers[0], 0, "{what}"),
                    _ => assert_eq!(numbers.last(), Some(&(count - 1)), "{what}"),
                }
                next_is_open(&mut news);
            });
        }
    }
}

/// The slow one is still a member in full standing.
fn next_is_open(news: &mut News) {
    news.hub.send_to(news.slow_id, [0, 0, 0, 42]).expect("it is open");
    assert_eq!(news.slow.frame().map(|frame| number_of(&frame)), Some(42));
}

#[test]
fn a_slow_consumer_is_closed_with_1013_and_what_waited_for_it_arrives() {
    for (count, burst, bytes) in LOADS {
        within(LIMIT, move || {
            let mut news = News::new(narrow(OverflowPolicy::Close));
            news.broadcast(count, burst, bytes);
            let told = next(&news.closes);
            assert_eq!((told.code(), told.by()), (1013.into(), ClosedBy::Server));
            let mut numbers = Vec::new();
            let last = loop {
                match news.slow.frame().expect("all, then the last words") {
                    last if last.first == TEXT => break news.slow.frame().expect("a Close frame"),
                    frame => numbers.push(number_of(&frame)),
                }
            };
            assert_eq!(last.close().0, 1013);
            news.slow.send(close(1013, b""));
            news.slow.ended();
            let are_all_there = numbers.iter().copied().eq((0..).take(numbers.len()));
            assert!(are_all_there, "a client that misses nothing, or is gone");
            assert!(news.hub.dropped_count() > 0);
            assert!(news.hub.send_to(news.slow_id, "too late").is_ok(), "only its shard knows");
            news.fast.send(frame(TEXT, b"still there"));
            assert_eq!(news.fast.text(), "still there");
        });
    }
}

#[test]
fn a_slow_consumer_that_stays_slow_is_dropped_after_the_deadline() {
    within(LIMIT, || {
        let mut limits = narrow(OverflowPolicy::Close);
        limits.close_timeout = SHORT;
        let mut news = News::new(limits);
        news.broadcast(1000, 1, 16 << 10);
        assert_eq!(next(&news.closes).code(), 1013);
        until("it is dropped", || news.hub.connection_counts() == [1]);
        let frames = news.slow.frames();
        assert!(
            frames.iter().all(|frame| frame.first != CLOSE),
            "it had no room for a Close frame"
        );
        let mut late = Raw::upgraded(news.server.local_addr(), "/news");
        late.text();
        news.hub.broadcast("/news", [0, 0, 0, 1]).expect("room");
        assert_eq!(late.frame().map(|frame| number_of(&frame)), Some(1));
    });
}

#[test]
fn what_is_still_queued_for_a_connection_that_goes_is_counted() {
    for is_aborted in [true, false] {
        within(LIMIT, move || {
            let mut limits = Limits::default();
            limits.max_outbox_bytes = 64 << 20;
            let mut news = News::new(limits);
            for _ in 0..32 {
                news.hub.send_to(news.slow_id, vec![0; 1 << 20]).expect("the mailbox has room");
                news.fast.send(frame(TEXT, b"taken?"));
                assert_eq!(news.fast.text(), "taken?");
            }
            assert_eq!(news.hub.dropped_count(), 0);
            if is_aborted {
                news.hub.abort(news.slow_id).expect("it is open");
            } else {
                news.slow.reset();
            }
            next(&news.closes);
            until("it is gone", || news.hub.connection_counts() == [1]);
            let dropped = news.hub.dropped_count();
            assert!(dropped >= 16, "aborted: {is_aborted}; only {dropped} of 32 MiB are counted");
        });
    }
}

#[test]
fn a_client_that_is_stuck_costs_no_processor_time() {
    within(LIMIT, || {
        let (told, threads) = mpsc::channel();
        let echo = Callbacks::<()>::new().on_message(move |_, message| {
            let _ = told.send(this_thread());
            message.into()
        });
        let page = peregrine::Response::new(200).body(vec![7; 16 << 20]);
        let server = start(1, |builder| builder.websocket("/echo", echo).get("/big", page));
        let address = server.local_addr();
        let mut bystander = Bystander::connect(address, "/echo");
        bystander.is_served();
        let clock = ProcessorClock::new(threads.recv().expect("it was served"));
        let message = frame(BINARY, &[7; 4096]);
        let flooded = || {
            let mut raw = Raw::connect_narrow(address);
            raw.upgrade("/echo");
            raw.flood(&message, 64 << 20, SHORT);
            raw
        };
        let stuck: [(&str, &dyn Fn() -> Raw); 8] = [
            ("silent", &|| Raw::connect(address)),
            ("in the middle of a head", &|| {
                let mut raw = Raw::connect(address);
                raw.send("GET / HTTP/1.1\r\n");
                raw
            }),
            ("in the middle of a frame", &|| {
                let mut raw = Raw::upgraded(address, "/echo");
                raw.send(header(BINARY, 1000));
                raw
            }),
            ("flooding", &flooded),
            ("flooding, and has ended its side", &|| {
                let raw = flooded();
                raw.half_close();
                raw
            }),
            ("not reading a page", &|| {
                let mut raw = Raw::connect_narrow(address);
                raw.send([crate::raw::get("/big"), crate::raw::get("/big")].concat());
                raw
            }),
            ("not reading a page, and has ended its side", &|| {
                let mut raw = Raw::connect_narrow(address);
                raw.send(crate::raw::get("/big"));
                raw.half_close();
                raw
            }),
            ("refused, and stays", &|| {
                let mut raw = Raw::upgraded(address, "/echo");
                raw.send([0xFF; 8]);
                raw
            }),
        ];
        for (what, make) in stuck {
            let _raw = make();
            bystander.is_served();
            let before = clock.now();
            // Not a wait for anything: this is what is measured.
            thread::park_timeout(SHORT);
            let spent = clock.now() - before;
            assert!(spent < SHORT / 4, "one that is {what} costs {spent:?} in {SHORT:?}");
            bystander.is_served();
        }
    });
}
