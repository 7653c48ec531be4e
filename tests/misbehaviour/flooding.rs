//! Handlers that send without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine::{Callbacks, Limits, Reply, SendError};

use super::LIMIT;
use crate::common::{Client, SHARD_COUNTS, start, within};
use crate::raw::{Bystander, Raw, TEXT, frame};

#[test]
fn ten_thousand_sends_of_each_kind_in_one_call_are_delivered_or_refused() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let handler = Callbacks::<()>::new().on_message(|ws, _| {
                let mut accepted = [0; 3];
                ws.subscribe("flood").expect("room for one");
                for _ in 0..10_000 {
                    accepted[0] += u32::from(ws.broadcast("all").is_ok());
                    accepted[1] += u32::from(ws.publish("flood", "topic").is_ok());
                    accepted[2] += u32::from(ws.send_to(ws.id(), "self").is_ok());
                }
                format!("{accepted:?}").into()
            });
            let mut limits = Limits::default();
            limits.max_outbox_bytes = 8 << 20;
            let server = start(shards, |app| app.limits(limits).websocket("/", handler));
            let mut client = Client::connect(server.local_addr(), "/");
            client.send("go");
            let mut counts = [0_u32; 3];
            let told = loop {
                match client.text().as_str() {
                    "all" => counts[0] += 1,
                    "topic" => counts[1] += 1,
                    "self" => counts[2] += 1,
                    told => break told.to_owned(),
                }
            };
            assert_eq!(told, format!("{counts:?}"), "{shards} shards");
            assert!(counts.iter().all(|&count| count > 0));
        }
    });
}

#[test]
fn a_handler_that_sends_until_it_is_refused_is_refused_and_others_are_served() {
    within(LIMIT, || {
        let handler = Callbacks::<()>::new().on_message(|ws, message| {
            if message.as_text() == Some("flood") {
                let mut error = None;
                // Without end, if nothing stopped it.
                while error.is_none() {
                    error = ws.broadcast([7; 1000]).err();
                }
                assert_eq!(error, Some(SendError::Overloaded));
                for topic in 0.. {
                    if ws.subscribe(&topic.to_string()).is_err() {
                        break;
                    }
                }
                while ws.send([7; 1000]).is_ok() {}
                return Reply::none();
            }
            message.into()
        });
        let mut limits = Limits::default();
        limits.overflow = peregrine::OverflowPolicy::DropNewest;
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let server =
            start(1, |app| app.limits(limits).websocket("/", handler).websocket("/echo", echo));
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let mut flood = Raw::connect_narrow(server.local_addr());
        flood.upgrade("/");
        for _ in 0..3 {
            flood.send(frame(TEXT, b"flood"));
            bystander.is_served();
        }
        assert!(server.hub().dropped_count() > 0, "the outbox is smaller than the log");
    });
}

#[test]
fn two_shards_that_flood_each_other_do_not_lock_each_other() {
    within(LIMIT, || {
        let handler = Callbacks::<u64>::new().on_message(|ws, message| {
            let Some(other) = message.as_text().and_then(|text| text.parse().ok()) else {
                return message.into();
            };
            for _ in 0..2000 {
                *ws.session_mut() += u64::from(ws.send_to(other, [1; 500]).is_ok());
                let _ = ws.broadcast([2; 500]);
            }
            Reply::none()
        });
        let mut limits = Limits::default();
        limits.max_mailbox_envelopes = 8;
        limits.overflow = peregrine::OverflowPolicy::DropNewest;
        let greeter = handler.on_connect(|ws| ws.id().to_string().into());
        let server = start(2, |app| app.limits(limits).websocket("/", greeter));
        let hub = server.hub();
        let mut clients: Vec<(Raw, String)> = Vec::new();
        while clients.len() < 2 || hub.connection_counts().contains(&0) {
            let mut raw = Raw::upgraded(server.local_addr(), "/");
            let id = raw.text();
            clients.push((raw, id));
        }
        let ids: Vec<_> = clients.iter().map(|(_, id)| id.clone()).collect();
        for _ in 0..20 {
            for (at, (raw, _)) in clients.iter_mut().enumerate() {
                raw.send(frame(TEXT, ids[(at + 1) % ids.len()].as_bytes()));
            }
        }
        for (raw, _) in &mut clients {
            raw.send(frame(TEXT, b"over"));
        }
        // Both shards still read, and answer after all that they were asked before.
        std::thread::scope(|scope| {
            for (raw, _) in &mut clients {
                scope.spawn(|| while raw.frame().expect("no end").payload != b"over" {});
            }
        });
    });
}

#[test]
fn a_handler_that_sends_whenever_it_has_drained_goes_on_for_ever_and_stops_nobody() {
    within(LIMIT, || {
        let rounds = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&rounds);
        let handler = Callbacks::<()>::new()
            .on_message(|ws, _| {
                ws.send([1; 100_000]).expect("an empty outbox takes all");
                Reply::none()
            })
            .on_drain(move |ws| {
                counted.fetch_add(1, Ordering::Relaxed);
                ws.send([1; 100_000]).expect("an empty outbox takes all");
            });
        let echo = Callbacks::<()>::new().on_message(|_, message| message.into());
        let server = start(1, |app| app.websocket("/", handler).websocket("/echo", echo));
        let mut bystander = Bystander::connect(server.local_addr(), "/echo");
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        raw.send(frame(TEXT, b"go"));
        let mut frames = 0;
        while rounds.load(Ordering::Relaxed) < 200 {
            assert_eq!(raw.frame().expect("more").payload.len(), 100_000);
            frames += 1;
            if frames % 20 == 0 {
                bystander.is_served();
            }
        }
        drop(raw);
        bystander.is_served();
    });
}

#[test]
fn handlers_that_broadcast_at_every_end_do_not_keep_the_server_from_stopping() {
    within(LIMIT, || {
        let handler = Callbacks::<()>::new().on_close(|ws, _| {
            for _ in 0..100 {
                let _ = (ws.broadcast("one less"), ws.send("too late"));
            }
            "gone".into()
        });
        let server = start(2, |app| app.websocket("/", handler));
        let clients: Vec<_> = (0..100).map(|_| Raw::upgraded(server.local_addr(), "/")).collect();
        let report = std::thread::spawn(move || server.shutdown(Duration::from_secs(20)));
        for mut raw in clients {
            while let Some(frame) = raw.frame() {
                if frame.first == crate::raw::CLOSE {
                    raw.try_send(crate::raw::close(1001, b""));
                }
            }
        }
        let report = report.join().expect("no panic").expect("no shard panicked");
        assert_eq!((report.open_count, report.aborted_count), (100, 0));
    });
}
