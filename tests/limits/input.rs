//! What a crowd of clients can make a shard keep of their input, all of them together.

use peregrine::{Limits, RunningServer};

use super::{LIMIT, echo};
use crate::common::within;
use crate::raw::{BINARY, CONTINUATION, FIN, PING, PONG, Raw, frame};

const TRY_AGAIN_LATER: u16 = 1013;

/// A server whose shard keeps at most so much.
fn serve(max_shard_input_bytes: usize) -> RunningServer {
    let mut limits = Limits::default();
    limits.max_shard_input_bytes = max_shard_input_bytes;
    echo(limits)
}

/// A client that has begun a message with so many bytes. The error is the code that it was closed
/// with.
fn begin(server: &RunningServer, bytes: usize) -> Result<Raw, u16> {
    let mut raw = Raw::upgraded(server.local_addr(), "/echo");
    grow(&mut raw, BINARY, bytes)?;
    Ok(raw)
}

/// Sends a fragment, and pings: the first pong tells that it was received, the second one that the
/// server has kept it.
fn grow(raw: &mut Raw, opcode: u8, bytes: usize) -> Result<(), u16> {
    raw.try_send(frame(opcode & !FIN, &vec![7; bytes]));
    for _ in 0..2 {
        raw.try_send(frame(PING, b""));
        let answer = raw.frame().expect("an answer");
        if answer.first != PONG {
            return Err(answer.close().0);
        }
    }
    Ok(())
}

fn finish(mut raw: Raw, bytes: usize) {
    raw.send(frame(FIN | CONTINUATION, b""));
    let echo = raw.frame().expect("the echo");
    assert_eq!((echo.first, echo.payload.len()), (BINARY, bytes));
}

#[test]
fn a_crowd_that_begins_messages_and_ends_none_is_held_to_the_sum() {
    within(LIMIT, || {
        let server = serve(1_000_000);
        let mut crowd: Vec<_> =
            (0..6).map(|_| begin(&server, 150_000).expect("there is room")).collect();
        for _ in 0..10 {
            assert_eq!(begin(&server, 150_000).err(), Some(TRY_AGAIN_LATER));
        }
        // Each of the crowd may not grow either, and what is refused is not kept.
        let mut greedy = crowd.pop().expect("one of the crowd");
        assert_eq!(grow(&mut greedy, CONTINUATION, 200_000), Err(TRY_AGAIN_LATER));
        finish(begin(&server, 150_000).expect("its room is free"), 150_000);
        for raw in crowd {
            finish(raw, 150_000);
        }
        drop(begin(&server, 900_000).expect("all room is free"));
    });
}

#[test]
fn small_messages_pass_however_much_others_keep() {
    within(LIMIT, || {
        let server = serve(100_000);
        let crowd: Vec<_> = (0..6).map(|_| begin(&server, 16_000)).collect();
        assert!(crowd.iter().all(Result::is_ok));
        let over = begin(&server, 16_000).expect("everybody may keep that much");
        assert_eq!(begin(&server, 17_000).err(), Some(TRY_AGAIN_LATER));
        finish(over, 16_000);
        // What comes at once is not kept.
        let mut raw = Raw::upgraded(server.local_addr(), "/echo");
        raw.send(frame(BINARY, &[1; 60_000]));
        assert_eq!(raw.frame().expect("the echo").payload.len(), 60_000);
    });
}

#[test]
fn who_asks_and_does_not_read_counts_with_what_waits() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_shard_input_bytes = 20_000;
        limits.outbox_high_water_bytes = 1000;
        limits.outbox_low_water_bytes = 1000;
        let server = echo(limits);
        let mut raw = Raw::connect_narrow(server.local_addr());
        raw.upgrade("/echo");
        // Megabytes of requests: the answers fill the kernel and the outbox, then requests wait.
        let request = frame(BINARY, &[1; 1000]);
        let sent = raw.flood(&request.repeat(100), 64 << 20, std::time::Duration::from_millis(500));
        let mut echo_count = 0;
        let (code, _) = loop {
            let frame = raw.frame().expect("a Close comes before the end");
            if frame.first != BINARY {
                break frame.close();
            }
            assert_eq!(frame.payload.len(), 1000);
            echo_count += 1;
        };
        assert_eq!(code, TRY_AGAIN_LATER);
        assert!(echo_count < sent / request.len(), "{echo_count} of {sent} bytes were answered");
    });
}
