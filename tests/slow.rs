//! Handlers that keep their shard for too long are reported in the log. One test alone in its
//! process, for a process has one log.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::thread;
use std::time::Duration;

use common::{Client, reports, start, within};
use peregrine::{Callbacks, Endpoint, Reply};

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

#[test]
fn a_handler_that_keeps_its_shard_is_reported_with_its_endpoint_and_no_other() {
    reports::listen();
    within(Duration::from_secs(60), || {
        // A busy machine may keep a quick handler waiting, but not for so long.
        let quick = Endpoint::new(worker()).adjust_limits(|l| l.slow_handler = Duration::MAX);
        let slow = Endpoint::new(worker())
            .adjust_limits(|limits| limits.slow_handler = Duration::from_millis(400));
        let server =
            start(1, |builder| builder.websocket("/quick", quick).websocket("/slow", slow));
        let mut quick = Client::connect(server.local_addr(), "/quick");
        let mut slow = Client::connect(server.local_addr(), "/slow");
        let mut ask = |client: &mut Client, text: &str| {
            client.send(text);
            assert_eq!(client.text(), "done");
            // What is reported is reported by the next answer.
            quick.send("shard 0");
            assert_eq!(quick.text(), "done");
            reports::take()
        };
        assert_eq!(ask(&mut slow, "shard 0"), [""; 0]);
        assert_eq!(ask(&mut slow, "pool 500"), [""; 0]);
        for place in ["shard", "future"] {
            let reports = ask(&mut slow, &format!("{place} 500"));
            assert_eq!(reports.len(), 1, "{reports:?}");
            assert!(reports[0].starts_with("WARN the handler of /slow kept shard 0 for "));
        }
    });
}
