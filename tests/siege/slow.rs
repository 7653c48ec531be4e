//! Clients that drip: heads, frames, and pages that they do not read.

use std::thread;
use std::time::Duration;

use peregrine::{ClosedBy, Limits, Response};

use super::{LIMIT, resident_bytes};
use crate::alone::alone;
use crate::common::{PATIENCE, start, within};
use crate::raw::{
    BINARY, Bystander, CLOSE, Raw, get, header, next_is_served, timed, until, upgrade,
    witnessed_echo,
};

const DEADLINE: Duration = Duration::from_secs(1);
/// The most that the server may be late.
const MARGIN: Duration = Duration::from_secs(4);
const CROWD_COUNT: usize = 300;

#[test]
fn hundreds_of_slow_heads_end_at_their_deadline_and_nobody_waits_for_them() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.handshake_timeout = DEADLINE;
        // For so long the server waits for the ends of those who got their answer.
        limits.close_timeout = MARGIN / 2;
        let (echo, closes) = witnessed_echo();
        let server = start(1, |builder| builder.limits(limits).websocket("/echo", echo));
        let (address, hub) = (server.local_addr(), server.hub());
        let mut bystander = Bystander::connect(address, "/echo");
        let mut crowd: Vec<Raw> = (0..CROWD_COUNT).map(|_| Raw::connect(address)).collect();
        let request = upgrade("/echo");
        let ((), took) = timed(|| {
            // One byte each now and then; the whole would take far longer than the deadline.
            for at in 0.. {
                let byte = &request.as_bytes()[at % 100..][..1];
                crowd.iter_mut().for_each(|raw| raw.try_send(byte));
                bystander.is_served();
                next_is_served(address, "/echo");
                if hub.connection_counts() == [1] {
                    return;
                }
                thread::park_timeout(DEADLINE / 50);
            }
        });
        assert!(took <= DEADLINE + MARGIN, "they are there after {took:?}");
        // Who had sent nothing since it was told sees the answer; else a reset may overtake it.
        let told_count = crowd.iter_mut().filter_map(|raw| {
            let said = raw.all();
            assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"));
            (!said.is_empty()).then_some(())
        });
        assert!(told_count.count() > 0, "nobody was told");
        let ended = closes.try_iter().filter(|close| close.by() != ClosedBy::Peer).count();
        assert_eq!(ended, 0, "who had upgraded went on");
    });
}

/// Any byte is a sign of life; what it costs is what an idle connection costs, and nothing of what
/// it announces.
#[test]
fn frames_that_drip_cost_what_has_arrived_and_end_with_the_dripping() {
    alone("slow::frames_that_drip_cost_what_has_arrived_and_end_with_the_dripping", LIMIT, || {
        let mut limits = Limits::default();
        limits.ping_after = DEADLINE / 4;
        limits.idle_timeout = DEADLINE;
        limits.close_timeout = DEADLINE / 4;
        let (echo, closes) = witnessed_echo();
        let patient = peregrine::Callbacks::<()>::new().on_message(|_, message| message.into());
        let server = start(1, |builder| {
            let builder = builder.websocket(
                "/drip",
                peregrine::Endpoint::new(echo)
                    .adjust_limits(move |of_endpoint| *of_endpoint = limits),
            );
            builder.websocket("/echo", patient)
        });
        let (address, hub) = (server.local_addr(), server.hub());
        let mut bystander = Bystander::connect(address, "/echo");
        let before = resident_bytes("self");
        let mut crowd: Vec<Raw> = (0..CROWD_COUNT)
            .map(|_| {
                let mut raw = Raw::upgraded(address, "/drip");
                raw.send(header(BINARY, 1 << 20));
                raw
            })
            .collect();
        // Longer than it takes to be dead.
        let ((), took) = timed(|| {
            for _ in 0..30 {
                thread::park_timeout(DEADLINE / 10);
                crowd.iter_mut().for_each(|raw| raw.send([7; 100]));
                bystander.is_served();
            }
        });
        assert!(took > DEADLINE * 2 && closes.try_recv().is_err(), "nobody has left");
        assert_eq!(hub.connection_counts(), [CROWD_COUNT + 1]);
        let grown = resident_bytes("self").saturating_sub(before);
        println!("{CROWD_COUNT} frames of 1 MiB announced, 3 kB of each sent: {grown} bytes more");
        assert!(grown < CROWD_COUNT * (64 << 10), "{grown} bytes more");
        for _ in 0..CROWD_COUNT {
            let told = closes.recv_timeout(PATIENCE).expect("on_close is called");
            assert_eq!((told.code(), told.by()), (1001.into(), ClosedBy::Server));
        }
        until("they are gone", || hub.connection_counts() == [1]);
        assert!(crowd[0].frames().iter().any(|frame| frame.first == CLOSE));
        bystander.is_served();
    });
}

#[test]
fn who_asks_for_a_page_and_does_not_read_it_is_dropped() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.handshake_timeout = DEADLINE;
        limits.close_timeout = DEADLINE;
        let page = Response::new(200).body(vec![7; 16 << 20]);
        let server = start(1, |builder| builder.limits(limits).get("/big", page).get("/", "small"));
        let hub = server.hub();
        let ((), took) = timed(|| {
            let crowd: Vec<Raw> = [1, 50]
                .into_iter()
                .cycle()
                .take(20)
                .map(|count| {
                    let mut raw = Raw::connect_narrow(server.local_addr());
                    raw.send(get("/big").repeat(count));
                    raw
                })
                .collect();
            until("they have come", || hub.connection_counts() == [20]);
            until("they are gone", || hub.connection_counts() == [0]);
            drop(crowd);
        });
        // Both deadlines, one after the other.
        assert!(took <= DEADLINE * 2 + MARGIN, "dropped only after {took:?}");
    });
}
