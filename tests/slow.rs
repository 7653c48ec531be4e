//! Handlers that keep their shard for too long are reported in the log. One test at a time, for a
//! process has one log.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::thread;
use std::time::Duration;

use common::gate::gate;
use common::{Client, reports, start, within};
use log::LevelFilter;
use peregrine::{Callbacks, Endpoint, Reply, ServerBuilder};

/// Does what it is told for so many milliseconds: on the shard, or elsewhere.
fn worker() -> Callbacks<()> {
    Callbacks::new().on_message(|_ws, message| {
        let mut words = message.as_text().unwrap_or_default().split(' ');
        let (place, time) = (words.next(), words.next().and_then(|word| word.parse().ok()));
        let work = move || {
            thread::sleep(Duration::from_millis(time.unwrap_or(0)));
            "done"
        };
        match place {
            Some("pool") => Reply::offload(work),
            Some("future") => Reply::later(async move { work() }),
            _ => work().into(),
        }
    })
}

/// A worker that may keep its shard for so many milliseconds.
fn limited(milliseconds: u64) -> Endpoint {
    let limit = Duration::from_millis(milliseconds);
    Endpoint::new(worker()).adjust_limits(move |limits| limits.slow_handler_after = limit)
}

#[test]
fn a_handler_that_keeps_its_shard_is_reported_with_its_endpoint_and_no_other() {
    let _turn = reports::listen_alone(LevelFilter::Warn);
    within(Duration::from_secs(60), || {
        // A busy machine may keep a quick handler waiting, but not for so long.
        let quick = Endpoint::new(worker()).adjust_limits(|l| l.slow_handler_after = Duration::MAX);
        let server = start(1, |builder| {
            let builder = builder.websocket("/quick", quick);
            builder.websocket("/shard", limited(400)).websocket("/future", limited(400))
        });
        let connect = |path: &str| Client::connect(server.local_addr(), path);
        let mut quick = connect("/quick");
        let mut ask = |client: &mut Client, text: &str| {
            client.send(text);
            assert_eq!(client.text(), "done");
            // What is reported is reported by the next answer.
            quick.send("shard 0");
            assert_eq!(quick.text(), "done");
            reports::take()
        };
        for place in ["shard", "future"] {
            let mut slow = connect(&format!("/{place}"));
            assert_eq!(ask(&mut slow, "shard 0"), [""; 0]);
            assert_eq!(ask(&mut slow, "pool 500"), [""; 0]);
            let reports = ask(&mut slow, &format!("{place} 500"));
            assert_eq!(reports.len(), 1, "{reports:?}");
            let report = &reports[0];
            let begin = format!("WARN the handler of /{place} kept shard 0 for ");
            let rest = report.strip_prefix(&begin).expect(report);
            let time = rest.strip_suffix(" ms: the others had to wait").expect(report);
            assert!(time.parse::<u32>().is_ok_and(|time| time >= 490), "{report}");
        }
    });
}

#[test]
fn of_several_endpoints_in_one_turn_of_the_loop_the_slow_one_is_reported() {
    let _turn = reports::listen_alone(LevelFilter::Warn);
    within(Duration::from_secs(60), || {
        // Before it, after it, and so many that the clock is looked at among them.
        const BEFORE: [usize; 4] = [0, 1, 10, 20];
        let (gate, arrived, open) = gate();
        let server = start(1, |builder| {
            let builder = builder.websocket("/gate", gate).websocket("/quick", limited(400));
            // Only its first case is reported at once.
            let add =
                |builder: ServerBuilder, at| builder.websocket(format!("/slow-{at}"), limited(400));
            BEFORE.into_iter().fold(builder, add)
        });
        let connect = |path: &str| Client::connect(server.local_addr(), path);
        let mut gate = connect("/gate");
        let mut quick: Vec<Client> = (0..20).map(|_| connect("/quick")).collect();
        for before in BEFORE {
            let mut slow = connect(&format!("/slow-{before}"));
            gate.send("");
            arrived.recv().expect("the shard waits at the gate");
            quick[..before].iter_mut().for_each(|client| client.send("shard 0"));
            slow.send("shard 500");
            quick[before..].iter_mut().for_each(|client| client.send("shard 0"));
            open.send(()).expect("the shard waits at the gate");
            for client in quick.iter_mut().chain([&mut slow]) {
                assert_eq!(client.text(), "done");
            }
            // What is reported is reported by the next answer.
            quick[0].send("shard 0");
            assert_eq!(quick[0].text(), "done");
            let reports = reports::take();
            assert_eq!(reports.len(), 1, "{reports:?}");
            let expected = format!("WARN the handler of /slow-{before} kept shard 0 for ");
            assert!(reports[0].starts_with(&expected), "{reports:?}");
        }
    });
}

/// Each keeps its shard for a fifth of what it may; so many have their turns one after another.
#[test]
fn handlers_none_of_which_keeps_its_shard_for_long_are_not_reported() {
    let _turn = reports::listen_alone(LevelFilter::Warn);
    within(Duration::from_secs(60), || {
        let (gate, arrived, open) = gate();
        let server =
            start(1, |builder| builder.websocket("/gate", gate).websocket("/quick", limited(500)));
        let mut gate = Client::connect(server.local_addr(), "/gate");
        let mut quick: Vec<Client> =
            (0..16).map(|_| Client::connect(server.local_addr(), "/quick")).collect();
        gate.send("");
        arrived.recv().expect("the shard waits at the gate");
        quick.iter_mut().for_each(|client| client.send("shard 100"));
        open.send(()).expect("the shard waits at the gate");
        for client in &mut quick {
            assert_eq!(client.text(), "done");
        }
        // What is reported is reported by the next answer.
        quick[0].send("shard 0");
        assert_eq!(quick[0].text(), "done");
        assert_eq!(reports::take(), [""; 0]);
    });
}
