//! Limits that differ by endpoint.

use std::time::Duration;

use peregrine::{Callbacks, Endpoint, Error, Limits, OverflowPolicy, Router, Server};

use crate::common::{Client, SHARD_COUNTS, start, within};
use crate::raw::Raw;
use crate::{LIMIT, bound, named};

const PING: u8 = 0x89;

/// Answers with the length of what it got.
fn lengths() -> Callbacks<()> {
    Callbacks::new().on_message(|_, message| message.len().to_string().into())
}

fn max_message_bytes(bytes: usize) -> impl FnOnce(&mut Limits) + Send + 'static {
    move |limits| {
        limits.max_message_bytes = bytes;
        limits.max_frame_bytes = bytes;
    }
}

#[test]
fn limits_are_inherited_and_adjusted_on_the_way() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let mut limits = Limits::default();
            max_message_bytes(100)(&mut limits);
            let own =
                Endpoint::new(lengths()).adjust_limits(|limits| limits.max_message_bytes += 1);
            let wide = Router::new()
                .mount("/", Router::new().websocket("/inner", lengths()).websocket("/own", own))
                .adjust_limits(max_message_bytes(100_000))
                .adjust_limits(|limits| limits.max_message_bytes -= 1_000);
            let running = start(shard_count, |builder| {
                builder.limits(limits).mount("/wide", wide).websocket("/plain", lengths())
            });
            for (path, most) in
                [("/plain", 100), ("/wide/inner", 99_000), ("/wide/own", 99_001), ("/plain", 100)]
            {
                let mut client = Client::connect(running.local_addr(), path);
                client.send_bytes(vec![7; most]);
                assert_eq!(client.text(), most.to_string(), "{path}");
                client.send_bytes(vec![7; most + 1]);
                assert_eq!(client.close_code(), 1009, "{path}");
            }
        }
    });
}

#[test]
fn the_outbox_is_bounded_by_its_endpoint() {
    within(LIMIT, || {
        const COUNT: usize = 100;
        // Sends to itself more than a narrow outbox takes, and tells how much was refused.
        let talkative = || {
            Callbacks::<()>::new().on_message(|ws, _| {
                let refused = (0..COUNT).filter(|_| ws.send([7; 1000].as_slice()).is_err()).count();
                format!("{refused} {}", ws.has_backpressure()).into()
            })
        };
        for shard_count in SHARD_COUNTS {
            let narrow = Endpoint::new(talkative()).adjust_limits(|limits| {
                limits.outbox_low_water_bytes = 1_000;
                limits.outbox_high_water_bytes = 2_000;
                limits.max_outbox_bytes = 10_100;
                limits.overflow = OverflowPolicy::DropNewest;
            });
            let running = start(shard_count, |builder| {
                builder.websocket("/narrow", narrow).websocket("/wide", talkative())
            });
            // A message of 1000 bytes is a frame of 1004.
            for (path, refused) in [("/narrow", COUNT - 10), ("/wide", 0)] {
                let mut client = Client::connect(running.local_addr(), path);
                client.send("talk");
                for _ in refused..COUNT {
                    assert_eq!(client.bytes().len(), 1000);
                }
                assert_eq!(client.text(), format!("{refused} true"), "{path}");
            }
        }
    });
}

#[test]
fn a_silent_peer_is_pinged_when_its_endpoint_says() {
    within(LIMIT, || {
        for shard_count in SHARD_COUNTS {
            let quick = Endpoint::new(named("quick")).adjust_limits(|limits| {
                limits.ping_after = Duration::from_millis(50);
                limits.idle_timeout = Duration::from_millis(250);
                limits.close_timeout = Duration::from_millis(50);
            });
            let running = start(shard_count, |builder| {
                builder.websocket("/quick", quick).websocket("/slow", named("slow"))
            });
            let mut slow = Raw::upgraded(running.local_addr(), "/slow");
            let mut quick = Raw::upgraded(running.local_addr(), "/quick");
            assert_eq!((slow.text().as_str(), quick.text().as_str()), ("slow", "quick"));
            // It does not answer.
            let frames = quick.frames();
            let (last, pings) = frames.split_last().expect("a Close frame");
            assert!(!pings.is_empty() && pings.iter().all(|frame| frame.first == PING));
            assert_eq!(last.close().0, 1001);
            // The other has heard nothing meanwhile.
            slow.send(crate::raw::close(1000, b""));
            assert_eq!(slow.closed().0, 1000);
        }
    });
}

#[test]
fn limits_of_an_endpoint_that_contradict_are_an_error_of_bind() {
    type Adjust = fn(&mut Limits);
    let broken: [Adjust; 15] = [
        |limits| limits.max_message_bytes = 0,
        |limits| limits.outbox_low_water_bytes = limits.outbox_high_water_bytes + 1,
        |limits| limits.idle_timeout = limits.ping_after,
        // What counts for the server alone.
        |limits| limits.max_head_bytes -= 1,
        |limits| limits.max_headers += 1,
        |limits| limits.handshake_timeout *= 2,
        |limits| limits.max_connections = Some(7),
        |limits| limits.max_connections_per_ip = Some(7),
        |limits| limits.max_upgrades_per_second_per_ip = Some(7),
        |limits| limits.max_shard_outbox_bytes += 1,
        |limits| limits.max_shard_input_bytes += 1,
        |limits| limits.max_mailbox_envelopes += 1,
        |limits| limits.max_mailbox_bytes += 1,
        |limits| limits.max_offload_threads = Some(7),
        |limits| limits.max_queued_jobs += 1,
    ];
    for adjust in broken {
        let endpoint = Endpoint::new(named("")).adjust_limits(adjust);
        let servers = [
            Server::builder().mount("/a", Router::new().websocket("/b", endpoint)),
            Server::builder()
                .mount("/a", Router::new().websocket("/b", named("")).adjust_limits(adjust)),
        ];
        for server in servers {
            match bound(server) {
                Err(Error::EndpointLimits { path, rule }) => {
                    assert_eq!(path, "/a/b");
                    assert!(!rule.is_empty());
                }
                other => panic!("bad limits were expected, not {other:?}"),
            }
        }
    }
}
