//! The loop never spins: what a server that waits costs in processor time. The server is a process
//! of its own.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::LIMIT;
use super::process::{DESCRIPTOR_COUNT, Process};
use crate::common::within;
use crate::raw::{BINARY, Raw, TEXT, close, frame, until, upgrade};

/// How long is measured, and how much of it the server may have a processor for.
const WATCH: Duration = Duration::from_secs(3);
const MOST: Duration = Duration::from_millis(500);
impl Process {
    /// Watches it for a while.
    fn is_at_rest(&self, what: &str) {
        let before = self.spent();
        // Not a wait for anything: this is what is measured.
        thread::park_timeout(WATCH);
        let spent = self.spent() - before;
        println!("{what}: {spent:?} of {WATCH:?}");
        assert!(spent <= MOST, "{what} costs {spent:?} of {WATCH:?}");
    }
}

#[test]
fn a_thousand_idle_connections_cost_no_processor_time() {
    within(LIMIT, || {
        let process = Process::start("plain");
        let mut bystander = process.bystander();
        let crowd: Vec<Raw> = (0..1000).map(|_| Raw::upgraded(process.address, "/")).collect();
        bystander.is_served();
        process.is_at_rest("a thousand idle connections");
        drop(crowd);
        bystander.is_served();
    });
}

#[test]
fn who_does_not_read_costs_no_processor_time() {
    within(LIMIT, || {
        let process = Process::start("plain");
        let mut bystander = process.bystander();
        let floods: Vec<Raw> = (0..8)
            .map(|_| {
                let mut raw = Raw::connect_narrow(process.address);
                raw.upgrade("/");
                raw.flood(&frame(BINARY, &[7; 4096]), 64 << 20, Duration::from_millis(200));
                raw
            })
            .collect();
        bystander.is_served();
        process.is_at_rest("eight that do not read");
        bystander.is_served();
        drop(floods);
    });
}

/// Their handlers' answers do not come, and they have ended in every way that there is.
#[test]
fn a_thousand_that_have_ended_and_whose_work_is_not_done_cost_no_processor_time() {
    within(LIMIT, || {
        let process = Process::start("patient");
        let mut bystander = process.bystander();
        let mut crowd: Vec<Raw> = (0..1000).map(|_| Raw::upgraded(process.address, "/")).collect();
        for (at, raw) in crowd.iter_mut().enumerate() {
            let rest = match at / 5 % 3 {
                0 => Vec::new(),
                1 => close(1001, b""),
                _ => frame(BINARY, &vec![7; 200_000]),
            };
            raw.send(frame(TEXT, b"wait"));
            raw.socket.set_write_timeout(Some(Duration::from_millis(20))).expect("a time limit");
            raw.try_send(rest);
        }
        bystander.is_served();
        let mut kept = Vec::new();
        for (at, raw) in crowd.into_iter().enumerate() {
            match at % 5 {
                0 => {
                    raw.half_close();
                    kept.push(raw);
                }
                1 => raw.reset(),
                2 => drop(raw),
                _ => kept.push(raw),
            }
        }
        bystander.is_served();
        process.is_at_rest("a thousand whose work is not done");
        println!("resident: {} KiB", process.resident_bytes() >> 10);
        bystander.is_served();
        drop(kept);
    });
}

/// The server process is out of descriptors; the clients' is not.
#[test]
fn a_listener_that_rests_costs_no_processor_time_and_accepts_again() {
    within(LIMIT, || {
        let process = Process::start("few descriptors");
        let mut bystander = process.bystander();
        let mut crowd: Vec<TcpStream> = (0..200)
            .map(|_| TcpStream::connect(process.address).expect("room in the kernel"))
            .collect();
        bystander.is_served();
        let open = || std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it runs");
        until("all descriptors are in use", || open().count() as u64 >= DESCRIPTOR_COUNT);
        process.is_at_rest("a listener that rests");
        bystander.is_served();
        // Those who wait are let in as others leave, and at last whoever comes.
        let mut last = Raw::over(crowd.pop().expect("a crowd"));
        last.limit_time();
        drop(crowd);
        last.upgrade("/");
        last.text();
        process.client();
        bystander.is_served();
    });
}

/// Nobody has said how many there may be: the descriptors do, and some are left.
#[test]
fn the_descriptors_tell_how_many_connections_there_may_be() {
    within(LIMIT, || {
        let process = Process::start("as many as may be");
        let allowed = usize::try_from(4 * DESCRIPTOR_COUNT - 64).expect("few");
        let mut crowd: Vec<Raw> =
            (0..allowed + 30).map(|_| Raw::connect(process.address)).collect();
        crowd.iter_mut().for_each(|raw| raw.send(upgrade("/echo")));
        let statuses: Vec<_> = crowd
            .iter_mut()
            .map(|raw| {
                let answer = raw.head();
                assert!(answer.status == 101 || answer.header("Retry-After").is_some());
                answer.status
            })
            .collect();
        let count = |wanted| statuses.iter().filter(|&&status| status == wanted).count();
        assert_eq!((count(101), count(503)), (allowed, 30));
    });
}

/// One shard is kept by its handler, another one has more for it than its mailbox takes.
#[test]
fn a_shard_that_waits_for_another_costs_little_processor_time() {
    within(LIMIT, || {
        let process = Process::start("small mailbox");
        let (mut blocking, blocked) = process.client();
        let mut shouting = loop {
            let (client, shard) = process.client();
            if shard != blocked {
                break client;
            }
        };
        blocking.send("block");
        shouting.send("shout");
        // All that fits has been sent by now, and the rest waits.
        thread::park_timeout(Duration::from_millis(500));
        process.is_at_rest("a shard that waits for another");
        for _ in 0..2 {
            assert_eq!(shouting.text(), "hear, hear");
        }
    });
}
