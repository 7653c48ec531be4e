//! The promises of topics: every subscriber, on every shard, exactly once, and nobody else.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "what the tests share is public to each of them")]

mod common;
#[path = "common/raw.rs"]
mod raw;

#[path = "topics/agreed.rs"]
mod agreed;
#[path = "delivery/chance.rs"]
mod chance;
#[path = "topics/churn.rs"]
mod churn;
#[path = "topics/clerk.rs"]
mod clerk;
#[path = "topics/crowd.rs"]
mod crowd;
#[path = "topics/membership.rs"]
mod membership;
#[path = "topics/order.rs"]
mod order;
#[path = "topics/own_mail.rs"]
mod own_mail;
#[path = "topics/slow.rs"]
mod slow;

use std::time::Duration;

use clerk::{Clerk, Party, enough_for, open};
use common::{SHARD_COUNTS, start, within};

/// How long a test may take in all, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(120);

/// Every other party subscribes.
fn half_subscribes(parties: &mut [Party], topic: &str) {
    for party in parties.iter_mut().step_by(2) {
        party.order(&format!("sub {topic}"));
    }
}

#[test]
fn a_handlers_publish_reaches_every_subscriber_once_and_nobody_else() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            half_subscribes(&mut parties, "news");
            for sender in 0..parties.len() {
                // The one who publishes need not be a subscriber; then it does not get it.
                parties[sender].client.send("pub news to all;others news to others;all fence");
                for (at, party) in parties.iter_mut().enumerate() {
                    let expected: &[&str] = match (at % 2 == 0, at == sender) {
                        (false, _) => &[],
                        (true, true) => &["to all"],
                        (true, false) => &["to all", "to others"],
                    };
                    assert_eq!(party.until("fence"), expected, "{shards} shards, {sender} to {at}");
                }
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}

#[test]
fn the_hubs_publish_reaches_every_subscriber_once_and_nobody_else() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let stranger = Party::connect(&open(1, |app| app), "/").id;
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            half_subscribes(&mut parties, "news");
            let hub = running.hub();
            for left_out in 0..parties.len() {
                hub.publish("news", "to all").expect("room");
                hub.publish_except("news", parties[left_out].id, "to others").expect("room");
                // Who is not a subscriber is not missed.
                hub.publish_except("news", stranger, "to all again").expect("room");
                hub.publish("nobody's", "to nobody").expect("room");
                hub.broadcast("/", "fence").expect("room");
                for (at, party) in parties.iter_mut().enumerate() {
                    let expected: &[&str] = match (at % 2 == 0, at == left_out) {
                        (false, _) => &[],
                        (true, true) => &["to all", "to all again"],
                        (true, false) => &["to all", "to others", "to all again"],
                    };
                    assert_eq!(party.until("fence"), expected, "{shards} shards, but {left_out}");
                }
            }
            assert_eq!(hub.dropped_count(), 0);
        }
    });
}

#[test]
fn a_topic_is_shared_by_the_clients_of_several_endpoints() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app.websocket("/other", Clerk));
            let mut here = Party::meet(&running, "/", enough_for(shards));
            let mut there: Vec<_> =
                (0..here.len()).map(|_| Party::connect(&running, "/other")).collect();
            half_subscribes(&mut here, "news");
            half_subscribes(&mut there, "news");
            here[1].client.send("pub news from here");
            // What follows comes from others, so it has to wait for that.
            assert_eq!(here[0].client.text(), "from here");
            assert_eq!(there[0].client.text(), "from here");
            there[1].client.send("pub news from there");
            assert_eq!(here[0].client.text(), "from there");
            assert_eq!(there[0].client.text(), "from there");
            running.hub().publish("news", "from outside").expect("room");
            for path in ["/", "/other"] {
                running.hub().broadcast(path, "fence").expect("room");
            }
            for parties in [&mut here, &mut there] {
                for (at, party) in parties.iter_mut().enumerate() {
                    let mut got = party.until("fence");
                    // That a message has come does not mean that its call has returned: there is
                    // no order among them.
                    got.sort_unstable();
                    let expected: &[&str] = match at {
                        0 => &["from outside"],
                        _ if at % 2 == 0 => &["from here", "from outside", "from there"],
                        _ => &[],
                    };
                    assert_eq!(got, expected, "{shards} shards, {at}");
                }
            }
            assert_eq!(running.hub().subscriber_count("news"), 2 * here.len().div_ceil(2));
        }
    });
}

#[test]
fn messages_of_every_size_arrive_whole_and_in_order() {
    // Around what is copied, referred to and gathered, and far above what a kernel takes at once.
    const SIZES: [usize; 12] = [
        0,
        1,
        125,
        126,
        4090,
        4096,
        (16 << 10) - 5,
        16 << 10,
        (64 << 10) - 1,
        64 << 10,
        300_000,
        700_000,
    ];
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = start(shards, |app| {
                let mut limits = peregrine::Limits::default();
                limits.max_outbox_bytes = 64 << 20;
                app.limits(limits).websocket("/", Clerk)
            });
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            half_subscribes(&mut parties, "news");
            let texts: Vec<String> = (0..3 * SIZES.len())
                .map(|at| char::from(b'a' + u8::try_from(at % 26).expect("a letter")).to_string())
                .zip(SIZES.into_iter().cycle())
                .map(|(letter, size)| letter.repeat(size))
                .collect();
            for text in &texts {
                parties[1].client.send(format!("pub news {text}"));
                parties[1].client.send(format!("pub nobody's {text}"));
            }
            parties[1].client.send("all fence");
            for (at, party) in parties.iter_mut().enumerate() {
                let got = party.until("fence");
                let expected = if at % 2 == 0 { &texts[..] } else { &[] };
                assert!(got == expected, "{shards} shards: {at} got all, whole");
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}
