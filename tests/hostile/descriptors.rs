//! File descriptors and memory: what happens when there are none, and that they are given back.
//! Both belong to the process, so these are tests in processes of their own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::thread;

use peregrine::{Callbacks, Limits, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Dice, LIMIT, SHORT, chaos, short_limits};
use crate::alone::{ProcessorClock, alone, this_thread};
use crate::common::start;
use crate::raw::{Bystander, Raw, TEXT, frame, next_is_served, until, upgrade};

/// All that the process may have open.
const DESCRIPTOR_COUNT: u64 = 64;

#[test]
fn out_of_descriptors_the_listener_rests_and_goes_on_when_some_are_free() {
    alone(
        "descriptors::out_of_descriptors_the_listener_rests_and_goes_on_when_some_are_free",
        LIMIT,
        || {
            let mut limits = Limits::default();
            limits.max_connections = Some(10_000);
            let (told, shards) = std::sync::mpsc::channel();
            let echo = Callbacks::<()>::new().on_message(move |_, message| {
                let _ = told.send(this_thread());
                message.into()
            });
            let server = start(1, |builder| builder.limits(limits).websocket("/echo", echo));
            let address = server.local_addr();
            let mut bystander = Bystander::connect(address, "/echo");
            bystander.is_served();
            // What measures must not need a descriptor when there are none.
            let clock = ProcessorClock::new(shards.recv().expect("it was served"));
            let rest = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTOR_COUNT), ..rest })
                .expect("a limit may be lowered");

            let mut spares: Vec<File> =
                (0..5).map(|_| File::open("/dev/null").expect("one")).collect();
            let mut crowd: Vec<TcpStream> = Vec::new();
            while let Ok(socket) = TcpStream::connect(address) {
                crowd.push(socket);
                bystander.is_served();
            }
            // Each of these leaves the server none for its own side.
            while let Some(spare) = spares.pop() {
                drop(spare);
                crowd.extend(TcpStream::connect(address));
            }
            bystander.is_served();
            let waiting = crowd.len() + 1 - server.hub().connection_counts()[0];
            assert!(waiting > 0, "the server has a descriptor for each");
            let before = clock.now();
            // Not a wait for anything: this is what is measured.
            thread::park_timeout(SHORT);
            let spent = clock.now() - before;
            assert!(spent < SHORT / 4, "waiting for descriptors costs {spent:?} in {SHORT:?}");
            bystander.is_served();

            // The last to come were not accepted; now they are.
            let mut last = Raw::over(crowd.pop().expect("a crowd"));
            last.limit_time();
            crowd.drain(..10);
            last.send([upgrade("/echo").into_bytes(), frame(TEXT, b"at last")].concat());
            assert_eq!(last.head().status, 101);
            assert_eq!(last.text(), "at last");
            bystander.is_served();
        },
    );
}

fn open_descriptors() -> usize {
    // The listing itself has one open.
    fs::read_dir("/proc/self/fd").expect("a Linux with /proc").count() - 1
}

#[test]
fn every_descriptor_is_given_back() {
    alone("descriptors::every_descriptor_is_given_back", LIMIT, || {
        let before = open_descriptors();
        let handler = Callbacks::<()>::new().on_message(|_, message| message.into());
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let page = Response::new(200).body(vec![7; 1 << 20]);
        let server = start(4, |builder| {
            let builder = builder.limits(short_limits()).websocket("/chaos", handler);
            builder.websocket("/echo", echo).get("/big", page)
        });
        let hub = server.hub();
        let serving = open_descriptors();
        for round in 0..10 {
            for client in 0..30 {
                let mut dice = Dice(round * 30 + client);
                let mut raw = Raw::connect_narrow(server.local_addr());
                chaos::misbehave(&mut raw, &mut dice);
                if dice.below(2) == 0 {
                    raw.reset();
                }
            }
            next_is_served(server.local_addr(), "/echo");
            until("all are gone", || hub.connection_counts().iter().all(|&count| count == 0));
            until("all are closed", || open_descriptors() == serving);
        }
        let _open = Raw::upgraded(server.local_addr(), "/echo");
        drop((server, hub));
        assert_eq!(open_descriptors(), before + 1, "only the client's own is left");
    });
}

/// What the process has in memory, in bytes.
fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("a Linux with /proc");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse().ok()).expect("a size");
    kib << 10
}

#[test]
fn memory_does_not_grow_with_those_who_come_and_go() {
    alone("descriptors::memory_does_not_grow_with_those_who_come_and_go", LIMIT, || {
        let echo = Callbacks::<Vec<u8>>::new().on_message(|ws, message| {
            ws.session_mut().extend_from_slice(message.as_bytes());
            message.into()
        });
        let server = start(1, |builder| builder.limits(short_limits()).websocket("/echo", echo));
        let hub = server.hub();
        let message = frame(TEXT, &[b'x'; 10_000]);
        let come_and_go = |count: usize| {
            for number in 0..count {
                let mut raw = Raw::upgraded(server.local_addr(), "/echo");
                raw.send(&message[..message.len() - number % 2]);
                if number % 2 == 0 {
                    raw.text();
                }
            }
            until("all are gone", || hub.connection_counts() == [0]);
        };
        come_and_go(2000);
        let before = resident_bytes();
        come_and_go(8000);
        let growth = resident_bytes().saturating_sub(before);
        assert!(growth < 4 << 20, "{growth} bytes more after 8000 connections");
    });
}
