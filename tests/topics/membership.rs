//! Who is a subscriber, from when on and until when.

use std::net::Shutdown;

use peregrine::{Callbacks, Limits, Reply, SendError};
use socket2::SockRef;

use super::LIMIT;
use super::clerk::{Party, enough_for, open};
use super::common::{Client, SHARD_COUNTS, eventually, start, within};

#[test]
fn a_subscription_counts_from_its_own_place_in_a_call() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            for (at, party) in parties.iter_mut().enumerate() {
                // A topic of its own: what others published might still be on its way.
                let orders = "pub t before;sub t;pub t while;unsub t;pub t between;sub t;\
                              pub t again;say direct;pub t last;unsub t;pub t after;say fence";
                party.client.send(orders.replace(" t", &format!(" t{at}")));
                assert_eq!(party.until("fence"), ["while", "again", "direct", "last"]);
            }
        }
    });
}

#[test]
fn what_is_published_before_unsubscribe_arrives_and_what_comes_after_does_not() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            parties[0].order("sub t");
            parties[1].client.send(
                "sub t;pub t one;unsub t;pub t two;sub t;others t three;pub t four;unsub t;\
                 pub t five;all fence",
            );
            assert_eq!(parties[0].until("fence"), ["one", "two", "three", "four", "five"]);
            assert_eq!(parties[1].until("fence"), ["one", "four"]);
            for party in &mut parties[2..] {
                assert_eq!(party.until("fence"), [""; 0]);
            }
            assert_eq!(running.hub().subscriber_count("t"), 1);
        }
    });
}

#[test]
fn subscribing_twice_counts_once_and_unsubscribing_what_is_not_does_nothing() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let hub = running.hub();
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            for party in &mut parties {
                party.order("sub t;sub t;sub other;sub t");
                hub.subscribe(party.id, "t").expect("room");
                party.order("unsub never;unsub other;unsub other");
            }
            assert_eq!(hub.subscriber_count("t"), parties.len());
            assert_eq!(hub.subscriber_count("other"), 0);
            parties[0].client.send("pub t once;pub other never;count t;all fence");
            let count = parties.len().to_string();
            assert_eq!(parties[0].until("fence"), ["once", &count]);
            for party in &mut parties[1..] {
                assert_eq!(party.until("fence"), ["once"]);
                party.order("unsub t");
            }
            parties[0].client.send("count t;unsub t;count t;unsub t;count t");
            assert_eq!([0; 3].map(|_| parties[0].client.text()), ["1", "0", "0"]);
            assert_eq!(hub.subscriber_count("t"), 0);
        }
    });
}

#[test]
fn the_hub_subscribes_and_unsubscribes_in_the_order_of_its_calls() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let hub = running.hub();
            let mut parties = Party::meet(&running, "/", enough_for(shards));
            for round in 0..50 {
                for (at, party) in parties.iter().enumerate() {
                    hub.publish("t", format!("{at} before")).expect("room");
                    hub.subscribe(party.id, "t").expect("room");
                    hub.publish("t", format!("{at} while")).expect("room");
                    hub.unsubscribe(party.id, "t").expect("room");
                    hub.publish("t", format!("{at} after")).expect("room");
                    if round % 2 == 0 {
                        hub.send_to(party.id, "direct").expect("room");
                    }
                }
                hub.broadcast("/", "fence").expect("room");
                for (at, party) in parties.iter_mut().enumerate() {
                    let mut expected = vec![format!("{at} while")];
                    expected.extend((round % 2 == 0).then(|| "direct".to_owned()));
                    assert_eq!(party.until("fence"), expected);
                }
            }
            assert_eq!(hub.subscriber_count("t"), 0);
        }
    });
}

#[test]
fn whoever_leaves_in_whatever_way_is_no_subscriber_any_more() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let hub = running.hub();
            let mut stayer = Party::connect(&running, "/");
            stayer.order("sub t0;sub t1;sub t2");
            for way in ["close", "abort", "panic", "peer", "half", "vanish", "hub", "hub abort"] {
                eventually(|| hub.connection_counts().iter().sum::<usize>() == 1);
                let mut parties = Party::meet(&running, "/", enough_for(shards));
                parties.iter_mut().for_each(|party| party.order("sub t0;sub t1;sub t2;sub own"));
                assert_eq!(hub.subscriber_count("t1"), parties.len() + 1);
                assert_eq!(hub.subscriber_count("own"), parties.len());
                for mut party in parties {
                    match way {
                        "close" | "abort" | "panic" => party.client.send(way),
                        "peer" => party.client.0.close(None).expect("an open connection"),
                        "half" => {
                            let socket = party.client.0.get_ref();
                            socket.shutdown(Shutdown::Write).expect("an open connection");
                        }
                        "hub" => hub.close(party.id).expect("room"),
                        "hub abort" => hub.abort(party.id).expect("room"),
                        _ => SockRef::from(party.client.0.get_ref())
                            .set_linger(Some(std::time::Duration::ZERO))
                            .expect("an option"),
                    }
                }
                eventually(|| hub.subscriber_count("own") == 0);
                eventually(|| ["t0", "t1", "t2"].iter().all(|t| hub.subscriber_count(t) == 1));
                hub.publish("t2", format!("after {way}")).expect("room");
                assert_eq!(stayer.client.text(), format!("after {way}"));
            }
            drop(stayer);
            eventually(|| hub.subscriber_count("t0") + hub.subscriber_count("t2") == 0);
        }
    });
}

#[test]
fn whoever_closes_is_no_subscriber_within_the_same_call_and_cannot_become_one() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let handler = Callbacks::<()>::new()
                .on_message(|ws, _message| {
                    ws.subscribe("t").expect("room");
                    ws.publish("t", "before").expect("room");
                    ws.close();
                    assert_eq!(ws.subscriber_count("t"), 0);
                    assert_eq!(ws.subscribe("t"), Err(SendError::Closed));
                    ws.unsubscribe("t");
                    ws.publish("t", "after").expect("it is for others");
                    assert_eq!(ws.subscriber_count("t"), 0);
                    Reply::none()
                })
                .on_close(|ws, _close| {
                    assert_eq!(ws.subscribe("t"), Err(SendError::Closed));
                    "closed".into()
                });
            let running = start(shards, |app| app.websocket("/", handler));
            let mut client = Client::connect(running.local_addr(), "/");
            client.send("go");
            assert_eq!([client.text(), client.text()], ["before", "closed"]);
            assert_eq!(client.close_code(), 1000);
        }
    });
}

#[test]
fn a_subscription_within_on_connect_counts_and_ids_that_left_cannot_subscribe() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let handler = Callbacks::<()>::new().on_connect(|ws| {
                ws.subscribe("t").expect("room");
                ws.publish("t", "somebody came").expect("room");
                ws.id().to_string().into()
            });
            let running = start(shards, |app| app.websocket("/", handler));
            let hub = running.hub();
            let mut first = Client::connect(running.local_addr(), "/");
            assert_eq!(first.text(), "somebody came");
            let mut second = Client::connect(running.local_addr(), "/");
            assert_eq!(second.text(), "somebody came");
            assert_eq!(first.text().len(), 36);
            assert_eq!(first.text(), "somebody came");
            let id = second.text().parse().expect("an id");
            drop(second);
            eventually(|| hub.subscriber_count("t") == 1);
            hub.subscribe(id, "t").expect("it is noticed on the shard");
            hub.unsubscribe(id, "t").expect("it is noticed on the shard");
            hub.publish("t", "to one").expect("room");
            assert_eq!(first.text(), "to one");
            assert_eq!(hub.subscriber_count("t"), 1);
        }
    });
}

#[test]
fn a_connection_has_no_more_topics_than_it_may_and_names_no_longer_than_they_may_be() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let mut limits = Limits::default();
            limits.max_topics_per_connection = 3;
            let running = open(shards, |app| app.limits(limits));
            let hub = running.hub();
            let mut party = Party::connect(&running, "/");
            let (longest, too_long) = ("n".repeat(1024), "n".repeat(1025));
            party.order(&format!("sub a;sub b;sub {longest};sub a"));
            party.client.send("sub c;sub b;unsub a;sub c;sub a");
            assert_eq!([party.client.text(), party.client.text()], ["TooManyTopics"; 2]);
            hub.subscribe(party.id, "d").expect("it is noticed on the shard");
            // The hub's subscription is done, or refused, when what it sends next arrives.
            hub.send_to(party.id, "fence").expect("room");
            assert_eq!(party.client.text(), "fence");
            let counts = ["a", "b", "c", "d", &longest].map(|topic| hub.subscriber_count(topic));
            assert_eq!(counts, [0, 1, 1, 0, 1]);

            party.client.send(format!("unsub b;sub {too_long};pub {too_long} x"));
            assert_eq!([party.client.text(), party.client.text()], ["NameTooLong"; 2]);
            assert_eq!(hub.subscribe(party.id, &too_long), Err(SendError::NameTooLong));
            assert_eq!(hub.unsubscribe(party.id, &too_long), Err(SendError::NameTooLong));
            assert_eq!(hub.publish(&too_long, "x"), Err(SendError::NameTooLong));
            assert_eq!(hub.subscriber_count(&too_long), 0);
            party.order(&format!("unsub {too_long}"));
            hub.publish(&longest, "it is a name").expect("room");
            assert_eq!(party.client.text(), "it is a name");
        }
    });
}

#[test]
fn any_text_is_a_name_and_names_are_compared_exactly() {
    within(LIMIT, || {
        let names = ["", "a", "A", "a ", "ä", "a\u{308}", "/", "news", "news/", "\0", "*"];
        for shards in SHARD_COUNTS {
            let handler = Callbacks::<()>::new().on_connect(move |ws| {
                let at: usize = ws.query("at").and_then(|at| at.parse().ok()).expect("a number");
                ws.subscribe(names[at]).expect("room");
                "here".into()
            });
            let running = start(shards, |app| app.websocket("/", handler));
            let hub = running.hub();
            let connect = |at| {
                let mut client = Client::connect(running.local_addr(), &format!("/?at={at}"));
                assert_eq!(client.text(), "here");
                client
            };
            let mut clients: Vec<_> = (0..names.len()).map(connect).collect();
            for name in names {
                assert_eq!(hub.subscriber_count(name), 1, "{name:?}");
                hub.publish(name, name).expect("room");
            }
            hub.broadcast("/", "fence").expect("room");
            for (client, name) in clients.iter_mut().zip(names) {
                assert_eq!([client.text(), client.text()], [name, "fence"]);
            }
        }
    });
}
