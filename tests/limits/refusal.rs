//! What is refused: `Err` means that nothing was accepted, `Ok` that it arrives. The books balance.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use peregrine::{
    Callbacks, ClosedBy, ConnectionId, Hub, Limits, OverflowPolicy, RunningServer, SendError,
};

use super::LIMIT;
use crate::common::{PATIENCE, start, within};
use crate::raw::{BINARY, Raw, TEXT, frame, witnessed_echo};

fn small_outbox(overflow: OverflowPolicy) -> Limits {
    let mut limits = Limits::default();
    limits.max_outbox_bytes = 100_000;
    limits.overflow = overflow;
    limits
}

/// Sends numbered kilobytes to itself until it is refused; then tells how many were accepted, and
/// what became of one more.
fn filler(told: Sender<(u32, SendError)>) -> Callbacks<()> {
    Callbacks::new().on_message(move |ws, message| {
        if message.as_text() != Some("fill") {
            return message.into();
        }
        let mut accepted = 0u32;
        let refusal = loop {
            let mut payload = [0; 1000];
            payload[..4].copy_from_slice(&accepted.to_be_bytes());
            match ws.send(payload) {
                Ok(()) => accepted += 1,
                Err(refusal) => break refusal,
            }
        };
        told.send((accepted, refusal)).expect("the test listens");
        ().into()
    })
}

#[test]
fn a_send_to_a_full_outbox_is_refused_and_what_was_accepted_arrives() {
    within(LIMIT, || {
        let (told, tallies) = mpsc::channel();
        let limits = small_outbox(OverflowPolicy::DropNewest);
        let server = start(1, |builder| builder.limits(limits).websocket("/", filler(told)));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        for _ in 0..3 {
            raw.send(frame(TEXT, b"fill"));
            let (accepted, refusal) = tallies.recv_timeout(PATIENCE).expect("a tally");
            assert_eq!((accepted, refusal), (100_000 / 1004, SendError::Overloaded));
            for number in 0..accepted {
                let payload = raw.frame().expect("a message").payload;
                assert_eq!(payload[..4], number.to_be_bytes());
            }
            raw.send(frame(TEXT, b"nothing between"));
            assert_eq!(raw.text(), "nothing between");
        }
        assert_eq!(server.hub().dropped_count(), 0, "who is told is not counted");
    });
}

#[test]
fn overflow_close_closes_with_1013_after_what_was_accepted() {
    within(LIMIT, || {
        let (told, tallies) = mpsc::channel();
        let limits = small_outbox(OverflowPolicy::Close);
        let server = start(1, |builder| builder.limits(limits).websocket("/", filler(told)));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        raw.send(frame(TEXT, b"fill"));
        let (accepted, refusal) = tallies.recv_timeout(PATIENCE).expect("a tally");
        assert_eq!((accepted, refusal), (100_000 / 1004, SendError::Overloaded));
        for number in 0..accepted {
            assert_eq!(raw.frame().expect("a message").payload[..4], number.to_be_bytes());
        }
        assert_eq!(raw.closed().0, 1013);
    });
}

#[test]
fn drop_oldest_accepts_the_newest_and_counts_what_it_drops() {
    within(LIMIT, || {
        let sender = Callbacks::<()>::new().on_message(|ws, message| {
            if message.as_text() == Some("fill") {
                for number in 0..1000u32 {
                    let mut payload = [0; 1000];
                    payload[..4].copy_from_slice(&number.to_be_bytes());
                    assert_eq!(ws.send(payload), Ok(()));
                }
            }
            message.into()
        });
        let limits = small_outbox(OverflowPolicy::DropOldest);
        let server = start(1, |builder| builder.limits(limits).websocket("/", sender));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        raw.send(frame(TEXT, b"fill"));
        let mut numbers = Vec::new();
        while let Some(message) = raw.frame().filter(|frame| frame.first == BINARY) {
            numbers.push(u32::from_be_bytes(*message.payload.first_chunk().expect("a number")));
        }
        let first = 1000 - u32::try_from(numbers.len()).expect("few");
        assert_eq!(numbers, (first..1000).collect::<Vec<_>>(), "the latest, without a gap");
        assert!(numbers.len() >= 98, "as many as fit: {}", numbers.len());
        assert_eq!(server.hub().dropped_count(), u64::from(first));
    });
}

#[test]
fn a_send_to_anothers_full_outbox_is_refused_to_the_sender() {
    within(LIMIT, || {
        let target = Arc::new(Mutex::new(None::<ConnectionId>));
        let noted = Arc::clone(&target);
        let (told, tallies) = mpsc::channel();
        let handler = Callbacks::<()>::new()
            .on_connect(move |ws| {
                noted.lock().expect("no panic").get_or_insert(ws.id());
                ().into()
            })
            .on_message(move |ws, _| {
                let id = target.lock().expect("no panic").expect("the first has come");
                let payload = vec![9; 30_000];
                let results: Vec<_> = (0..5).map(|_| ws.send_to(id, &payload)).collect();
                told.send(results).expect("the test listens");
                ().into()
            });
        let limits = small_outbox(OverflowPolicy::DropNewest);
        let server = start(1, |builder| builder.limits(limits).websocket("/", handler));
        let mut target = Raw::upgraded(server.local_addr(), "/");
        let mut sender = Raw::upgraded(server.local_addr(), "/");
        for _ in 0..3 {
            sender.send(frame(TEXT, b"go"));
            let results = tallies.recv_timeout(PATIENCE).expect("a tally");
            let full = Err(SendError::Overloaded);
            assert_eq!(results, [Ok(()), Ok(()), Ok(()), full, full]);
            for _ in 0..3 {
                assert_eq!(target.frame().map(|frame| frame.payload.len()), Some(30_000));
            }
        }
        assert_eq!(server.hub().dropped_count(), 0);
    });
}

#[test]
fn all_outboxes_of_a_shard_together_are_bounded() {
    within(LIMIT, || {
        let ids = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&ids);
        let (told, tallies) = mpsc::channel();
        let handler = Callbacks::<()>::new()
            .on_connect(move |ws| {
                noted.lock().expect("no panic").push(ws.id());
                ().into()
            })
            .on_message(move |ws, _| {
                let targets = ids.lock().expect("no panic")[..3].to_vec();
                for _ in 0..2 {
                    let send = |&id: &ConnectionId| ws.send_to(id, vec![9; 30_000]);
                    told.send(targets.iter().map(send).collect::<Vec<_>>()).expect("it listens");
                }
                ().into()
            });
        let mut limits = small_outbox(OverflowPolicy::DropNewest);
        limits.max_shard_outbox_bytes = 100_000;
        limits.outbox_high_water_bytes = 20_000;
        limits.outbox_low_water_bytes = 0;
        let server = start(1, |builder| builder.limits(limits).websocket("/", handler));
        let mut targets: Vec<_> = (0..3).map(|_| Raw::upgraded(server.local_addr(), "/")).collect();
        let mut sender = Raw::upgraded(server.local_addr(), "/");
        sender.send(frame(TEXT, b"go"));
        assert_eq!(tallies.recv_timeout(PATIENCE), Ok(vec![Ok(()); 3]), "empty ones take all");
        let full = Err(SendError::Overloaded);
        assert_eq!(tallies.recv_timeout(PATIENCE), Ok(vec![full; 3]), "90 of 100 kB are taken");
        for target in &mut targets {
            assert_eq!(target.frame().map(|frame| frame.payload.len()), Some(30_000));
        }
    });
}

/// A server whose shards can be stopped: a message `stop` waits for the gate to open.
struct Gated {
    server: RunningServer,
    hub: Hub,
    gate: Sender<()>,
    stopped: Receiver<()>,
}

impl Gated {
    fn new(shard_count: usize, limits: Limits) -> Self {
        let (gate, closed_gate) = mpsc::channel();
        let (tell, stopped) = mpsc::channel();
        let closed_gate = Mutex::new(closed_gate);
        let handler = Callbacks::<()>::new()
            .on_connect(|ws| ws.id().to_string().into())
            .on_message(move |_, message| {
                if message.as_text() == Some("stop") {
                    tell.send(()).expect("the test listens");
                    let gate = closed_gate.lock().expect("no panic");
                    gate.recv_timeout(PATIENCE).expect("the test opens the gate");
                }
                message.into()
            });
        let server = start(shard_count, |builder| builder.limits(limits).websocket("/", handler));
        Self { hub: server.hub(), server, gate, stopped }
    }

    fn connect(&self) -> (Raw, ConnectionId) {
        let mut raw = Raw::upgraded(self.server.local_addr(), "/");
        let id = raw.text().parse().expect("an id");
        (raw, id)
    }

    /// Stops the shard of this connection.
    fn stop(&self, raw: &mut Raw) {
        raw.send(frame(TEXT, b"stop"));
        self.stopped.recv_timeout(PATIENCE).expect("the shard stops");
    }

    fn go_on(&self, raw: &mut Raw) {
        self.gate.send(()).expect("the shard waits");
        assert_eq!(raw.text(), "stop");
    }
}

#[test]
fn a_full_mailbox_refuses_and_what_it_took_arrives() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_mailbox_envelopes = 7;
        let gated = Gated::new(1, limits);
        let (mut raw, id) = gated.connect();
        for _ in 0..3 {
            gated.stop(&mut raw);
            for number in 0..7u8 {
                assert_eq!(gated.hub.send_to(id, [number]), Ok(()));
            }
            assert_eq!(gated.hub.send_to(id, [7]), Err(SendError::Overloaded));
            assert_eq!(gated.hub.broadcast("/", [7]), Err(SendError::Overloaded));
            assert_eq!(gated.hub.close(id), Err(SendError::Overloaded));
            gated.go_on(&mut raw);
            for number in 0..7 {
                assert_eq!(raw.frame().map(|frame| frame.payload), Some(vec![number]));
            }
            raw.send(frame(BINARY, b"nothing between"));
            assert_eq!(raw.frame().map(|f| f.payload), Some(b"nothing between".to_vec()));
        }
        assert_eq!(gated.hub.dropped_count(), 0);
    });
}

#[test]
fn a_mailbox_is_bounded_in_bytes_but_takes_any_message_when_empty() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_mailbox_bytes = 10_000;
        let gated = Gated::new(1, limits);
        let (mut raw, id) = gated.connect();
        gated.stop(&mut raw);
        assert_eq!(gated.hub.send_to(id, vec![0; 50_000]), Ok(()), "it is empty");
        assert_eq!(gated.hub.send_to(id, []), Err(SendError::Overloaded));
        gated.go_on(&mut raw);
        assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(50_000));
        gated.stop(&mut raw);
        let full = vec![0; 996];
        for _ in 0..10 {
            assert_eq!(gated.hub.send_to(id, &full), Ok(()), "ten of 1000 bytes with their header");
        }
        assert_eq!(gated.hub.send_to(id, []), Err(SendError::Overloaded));
        gated.go_on(&mut raw);
        for _ in 0..10 {
            assert_eq!(raw.frame().map(|frame| frame.payload.len()), Some(996));
        }
    });
}

#[test]
fn a_broadcast_that_one_shard_cannot_take_reaches_nobody() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.max_mailbox_envelopes = 4;
        let gated = Gated::new(2, limits);
        let mut connections: Vec<_> = (0..16).map(|_| gated.connect()).collect();
        let at = |shard| move |(_, id): &(Raw, ConnectionId)| id.shard() == shard;
        let first = connections.iter().position(at(0)).expect("connections spread");
        let (mut stopped, stopped_id) = connections.swap_remove(first);
        gated.stop(&mut stopped);
        for number in 0..4u8 {
            assert_eq!(gated.hub.send_to(stopped_id, [number]), Ok(()));
        }
        assert_eq!(gated.hub.broadcast("/", "to all"), Err(SendError::Overloaded));
        // The other shard goes on, and its members get no message that not all get.
        let second = connections.iter().position(at(1)).expect("connections spread");
        let (other, other_id) = &mut connections[second];
        assert_eq!(gated.hub.send_to(*other_id, "to you"), Ok(()));
        assert_eq!(other.text(), "to you");
        gated.go_on(&mut stopped);
        for number in 0..4 {
            assert_eq!(stopped.frame().map(|frame| frame.payload), Some(vec![number]));
        }
        assert_eq!(gated.hub.broadcast("/", "to all"), Ok(()));
        assert_eq!(stopped.text(), "to all");
        for (raw, _) in &mut connections {
            assert_eq!(raw.text(), "to all");
        }
    });
}

#[test]
fn messages_to_who_is_gone_are_counted() {
    within(LIMIT, || {
        let gated = Gated::new(2, Limits::default());
        let (raw, gone) = gated.connect();
        drop(raw);
        crate::raw::until("it is gone", || gated.hub.connection_counts() == [0, 0]);
        for _ in 0..10 {
            assert_eq!(gated.hub.send_to(gone, "hello?"), Ok(()), "only its shard knows");
        }
        crate::raw::until("all are counted", || gated.hub.dropped_count() == 10);
        // Another one in the same slot is not taken for it.
        let mut others: Vec<_> = (0..4).map(|_| gated.connect()).collect();
        assert_eq!(gated.hub.send_to(gone, "hello?"), Ok(()));
        crate::raw::until("it is counted", || gated.hub.dropped_count() == 11);
        assert_eq!(gated.hub.broadcast("/", "only this"), Ok(()));
        for (raw, _) in &mut others {
            assert_eq!(raw.text(), "only this");
        }
        let stranger = Gated::new(1, Limits::default());
        let (_raw, foreign) = stranger.connect();
        assert_eq!(gated.hub.send_to(foreign, "hello?"), Err(SendError::Gone));
        assert_eq!(gated.hub.broadcast("/nothing", ""), Err(SendError::NoEndpoint));
    });
}

#[test]
fn who_is_closing_can_be_sent_nothing_more() {
    within(LIMIT, || {
        let (told, tallies) = mpsc::channel();
        let handler = Callbacks::<()>::new()
            .on_message(move |ws, _| {
                let own = ws.id();
                ws.send("before").expect("room");
                ws.close_with(4000, "over");
                ws.close_with(4001, "a second call has no effect");
                let results = [ws.send("after"), ws.send_to(own, "after"), ws.broadcast("after")];
                told.send(results).expect("the test listens");
                "returned".into()
            })
            .on_close(|_, close| {
                assert_eq!((close.code(), close.by()), (4000.into(), ClosedBy::Application));
                "goodbye".into()
            });
        let (echo, _closes) = witnessed_echo();
        let server = start(1, |builder| builder.websocket("/", handler).websocket("/echo", echo));
        let mut raw = Raw::upgraded(server.local_addr(), "/");
        let mut other = Raw::upgraded(server.local_addr(), "/");
        raw.send(frame(TEXT, b"go"));
        let closed = Err(SendError::Closed);
        assert_eq!(tallies.recv_timeout(PATIENCE), Ok([closed, closed, Ok(())]));
        assert_eq!([raw.text(), raw.text(), raw.text()], ["before", "returned", "goodbye"]);
        assert_eq!(raw.closed(), (4000, "over".to_owned()));
        assert_eq!(other.text(), "after", "the broadcast reaches the others");
    });
}
