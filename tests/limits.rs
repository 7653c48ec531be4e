//! Every limit, exactly: what is just allowed passes, what is just beyond does not. Sizes are
//! here, silence and deadlines in `limits/time.rs`, outboxes and mailboxes in `limits/pressure.rs`
//! and `limits/refusal.rs`, what counts by client address in `limits/addresses.rs`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]

#[path = "limits/addresses.rs"]
mod addresses;
#[path = "common/alone.rs"]
mod alone;
mod common;
#[path = "limits/input.rs"]
mod input;
#[path = "limits/pressure.rs"]
mod pressure;
#[path = "common/raw.rs"]
mod raw;
#[path = "limits/refusal.rs"]
mod refusal;
#[path = "limits/surplus.rs"]
mod surplus;
#[path = "limits/time.rs"]
mod time;

use std::time::Duration;

use peregrine::{Callbacks, Error, Limits, RunningServer, Server};

use crate::common::{start, within};
use crate::raw::{BINARY, FIN, PING, PONG, Raw, TEXT, frame, header, next_is_served};

/// How long any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);
/// A deadline that a test can wait for.
const SHORT: Duration = Duration::from_millis(200);

fn echo(limits: Limits) -> RunningServer {
    let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
    start(1, |builder| builder.limits(limits).websocket("/echo", echo))
}

/// The payload in frames of these lengths.
fn fragments(lengths: &[usize]) -> Vec<u8> {
    let last = lengths.len() - 1;
    let fragment = |(at, &length): (usize, &usize)| {
        let opcode = if at == 0 { BINARY ^ FIN } else { 0 };
        let fin = if at == last { FIN } else { 0 };
        frame(opcode | fin, &vec![5; length])
    };
    lengths.iter().enumerate().flat_map(fragment).collect()
}

/// Sends frames of these lengths as one message, and tells what becomes of it: the length of the
/// echo, or the close code.
fn fate(server: &RunningServer, lengths: &[usize]) -> Result<usize, u16> {
    let mut raw = Raw::upgraded(server.local_addr(), "/echo");
    raw.try_send(fragments(lengths));
    let frame = raw.frame().expect("an answer");
    if frame.first == BINARY { Ok(frame.payload.len()) } else { Err(frame.close().0) }
}

#[test]
fn a_message_up_to_its_limit_passes_and_not_a_byte_more() {
    for limit in [1, 125, 126, 1000, 65_535, 65_536, 70_000, 200_000] {
        within(LIMIT, move || {
            let mut limits = Limits::default();
            limits.max_message_bytes = limit;
            let server = echo(limits);
            assert_eq!(fate(&server, &[limit]), Ok(limit));
            assert_eq!(fate(&server, &[limit + 1]), Err(1009));
            assert_eq!(fate(&server, &[limit, 0]), Ok(limit));
            assert_eq!(fate(&server, &[0, limit]), Ok(limit));
            assert_eq!(fate(&server, &[limit / 2, limit - limit / 2]), Ok(limit));
            assert_eq!(fate(&server, &[limit, 1]), Err(1009));
            assert_eq!(fate(&server, &[1, limit]), Err(1009));
            assert_eq!(fate(&server, &[limit / 2, 1, limit - limit / 2]), Err(1009));
            next_is_served_if_it_fits(&server, limit);
        });
    }
}

fn next_is_served_if_it_fits(server: &RunningServer, limit: usize) {
    if limit >= 125 {
        next_is_served(server.local_addr(), "/echo");
    }
}

#[test]
fn a_frame_up_to_its_limit_passes_and_not_a_byte_more() {
    within(LIMIT, || {
        for limit in [1, 125, 126, 1000, 65_536] {
            let mut limits = Limits::default();
            limits.max_frame_bytes = limit;
            let server = echo(limits);
            assert_eq!(fate(&server, &[limit]), Ok(limit));
            assert_eq!(fate(&server, &[limit; 10]), Ok(10 * limit), "the message may be longer");
            assert_eq!(fate(&server, &[limit + 1]), Err(1009));
            assert_eq!(fate(&server, &[1, limit + 1]), Err(1009));
        }
    });
}

#[test]
fn the_default_limits_are_the_documented_ones() {
    within(LIMIT, || {
        let server = echo(Limits::default());
        assert_eq!(fate(&server, &[1 << 20]), Ok(1 << 20));
        assert_eq!(fate(&server, &[(1 << 20) + 1]), Err(1009));
        assert_eq!(fate(&server, &[1 << 19; 2]), Ok(1 << 20));
        assert_eq!(fate(&server, &[1 << 19, (1 << 19) + 1]), Err(1009));
        assert_eq!(fate(&server, &[1; 1024]), Ok(1024));
        assert_eq!(fate(&server, &[1; 1025]), Err(1008));
    });
}

#[test]
fn what_is_too_big_is_refused_before_it_arrives() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_message_bytes = 1000;
        let server = echo(limits);
        let cases = [
            ("a frame", header(TEXT, 1001)),
            ("a first fragment", header(TEXT ^ FIN, 1001)),
            ("a later fragment", [frame(TEXT ^ FIN, b"x"), header(0, 1001)].concat()),
            (
                "the sum of fragments",
                [fragments(&[600, 1])[..608].to_vec(), header(0, 401)].concat(),
            ),
        ];
        for (name, bytes) in cases {
            let mut raw = Raw::upgraded(server.local_addr(), "/echo");
            raw.send(bytes);
            assert_eq!(raw.closed().0, 1009, "{name}");
        }
        next_is_served(server.local_addr(), "/echo");
    });
}

#[test]
fn as_many_fragments_as_the_limit_pass_and_not_one_more() {
    within(LIMIT, || {
        for limit in [1u8, 2, 8] {
            let mut limits = Limits::default();
            limits.max_fragments = u32::from(limit);
            let server = echo(limits);
            let count = usize::from(limit);
            assert_eq!(fate(&server, &vec![1; count]), Ok(count));
            assert_eq!(fate(&server, &vec![1; count + 1]), Err(1008), "{count} are the limit");
            // Each message has a count of its own, and control frames have none.
            let mut raw = Raw::upgraded(server.local_addr(), "/echo");
            for _ in 0..3 {
                raw.send(fragments(&vec![1; count]));
                raw.send([frame(PING, b""), frame(PING, b"")].concat());
                assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(count));
                assert!(raw.frame().is_some_and(|frame| frame.first == PONG));
                assert!(raw.frame().is_some_and(|frame| frame.first == PONG));
            }
        }
    });
}

#[test]
fn as_many_frames_without_data_as_the_budget_pass_in_a_second_and_not_one_more() {
    within(LIMIT, || {
        for limit in [1u8, 2, 9] {
            let mut limits = Limits::default();
            limits.max_empty_frames_per_second = u32::from(limit);
            let server = echo(limits);
            let count = usize::from(limit);
            for more in [0, 1] {
                // In one packet, and so in one second.
                let mut raw = Raw::upgraded(server.local_addr(), "/echo");
                raw.send([frame(PING, b"").repeat(count + more), frame(TEXT, b"hi")].concat());
                for _ in 0..count {
                    assert_eq!(raw.frame().map(|frame| frame.first), Some(PONG));
                }
                // The ping that was too many may be answered; it is the last.
                let mut rest = raw.frame().expect("an answer");
                if more == 1 && rest.first == PONG {
                    rest = raw.frame().expect("a Close frame");
                }
                match more {
                    0 => assert_eq!(rest.payload, b"hi"),
                    _ => assert_eq!(rest.close().0, 1008),
                }
            }
        }
    });
}

#[test]
fn limits_that_contradict_one_another_are_refused_at_the_start() {
    type Change = (&'static str, fn(&mut Limits));
    let changes: [Change; 12] = [
        ("no messages", |limits| limits.max_message_bytes = 0),
        ("no frames", |limits| limits.max_frame_bytes = 0),
        ("no headers", |limits| limits.max_headers = 0),
        ("too many headers", |limits| limits.max_headers = 129),
        ("the low mark above the high", |limits| limits.outbox_low_water_bytes = 65 << 10),
        ("the high mark above the limit", |limits| limits.outbox_high_water_bytes = 2 << 20),
        ("an outbox above the sum", |limits| limits.max_shard_outbox_bytes = 1),
        ("no mail", |limits| limits.max_mailbox_envelopes = 0),
        ("pings after death", |limits| limits.ping_after = limits.idle_timeout),
        ("nobody", |limits| limits.max_connections = Some(0)),
        ("nobody from anywhere", |limits| limits.max_connections_per_ip = Some(0)),
        ("never", |limits| limits.max_upgrades_per_second_per_ip = Some(0)),
    ];
    for (name, change) in changes {
        let mut limits = Limits::default();
        change(&mut limits);
        let refused = Server::builder().limits(limits).bind("127.0.0.1:0");
        assert!(matches!(refused, Err(Error::Limits(_))), "{name}: {refused:?}");
    }
}
