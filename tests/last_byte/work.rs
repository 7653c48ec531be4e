//! Work that a handler leaves to be done, against every way to end its connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use futures_channel::oneshot;
use peregrine::{Callbacks, Close, CloseCode, ClosedBy, Limits, Reply, ServerBuilder, WebSocket};

use crate::common::{Client, eventually, start, within};
use crate::raw::{CLOSE, Raw, TEXT, close, frame};

const CONNECTION_COUNT: usize = 8;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client sends Close and waits for the server's.
    Close,
    /// The client sends Close, ends its side of TCP and reads on.
    CloseThenFin,
    /// The client sends Close and closes its socket.
    CloseThenDrop,
    Fin,
    Drop,
    Reset,
    ServerClose,
    ServerAbort,
}

const ENDS: [End; 8] = [
    End::Close,
    End::CloseThenFin,
    End::CloseThenDrop,
    End::Fin,
    End::Drop,
    End::Reset,
    End::ServerClose,
    End::ServerAbort,
];

/// Which handler leaves the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    OnMessage,
    OnClose,
}

/// How the handler leaves the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Offload,
    Later,
    OffloadThen,
    LaterThen,
}

const KINDS: [Kind; 4] = [Kind::Offload, Kind::Later, Kind::OffloadThen, Kind::LaterThen];

/// When the client ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Right behind its message, in the same write where that is possible.
    Behind,
    /// When the handler has left its work.
    Meanwhile,
}

/// What work waits for: threads and futures.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    promises: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Gate {
    fn wait(&self) {
        let is_open = self.is_open.lock().expect("a lock");
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).expect("a lock"));
    }

    fn promise(&self) -> oneshot::Receiver<()> {
        let (promise, kept) = oneshot::channel();
        self.promises.lock().expect("a lock").push(promise);
        if *self.is_open.lock().expect("a lock") {
            self.open();
        }
        kept
    }

    fn open(&self) {
        *self.is_open.lock().expect("a lock") = true;
        self.opened.notify_all();
        for promise in self.promises.lock().expect("a lock").drain(..) {
            let _ = promise.send(());
        }
    }
}

/// Leaves work, and counts what was asked for and what was done.
#[derive(Clone, Default)]
struct Saver {
    gate: Arc<Gate>,
    asked_count: Arc<AtomicUsize>,
    done_count: Arc<AtomicUsize>,
}

impl Saver {
    fn leave(&self, kind: Kind, ws: &WebSocket<'_, ()>) -> Reply<'static> {
        self.asked_count.fetch_add(1, Ordering::SeqCst);
        let Self { gate, done_count, .. } = self.clone();
        let done = move || {
            done_count.fetch_add(1, Ordering::SeqCst);
            "saved"
        };
        match kind {
            Kind::Offload => Reply::offload(move || {
                gate.wait();
                done()
            }),
            Kind::OffloadThen => ws.offload_then(move || gate.wait(), move |_ws, ()| done()),
            Kind::Later => {
                let kept = gate.promise();
                Reply::later(async move {
                    let _ = kept.await;
                    done()
                })
            }
            Kind::LaterThen => {
                let kept = gate.promise();
                ws.later_then(kept, move |_ws, _| done())
            }
        }
    }

    fn handler(&self, kind: Kind, place: Place) -> (Callbacks<()>, mpsc::Receiver<Close>) {
        let (closed, closes) = mpsc::channel();
        let (on_message, on_close) = (self.clone(), self.clone());
        let handler = Callbacks::new()
            .on_connect(|ws| ws.id().to_string().into())
            .on_message(move |ws, message| match place {
                Place::OnMessage => on_message.leave(kind, ws),
                Place::OnClose => message.as_text().map(str::to_owned).into(),
            })
            .on_close(move |ws, close| {
                let _ = closed.send(close.clone());
                match place {
                    Place::OnMessage => Reply::none(),
                    Place::OnClose => on_close.leave(kind, ws),
                }
            });
        (handler, closes)
    }
}

/// Sends a message and ends the connection behind it, as far as the client does that. Returns the
/// client if it stays.
fn end(how: End, mut client: Raw, message: Vec<u8>) -> Option<Raw> {
    match how {
        End::Close | End::CloseThenFin | End::CloseThenDrop => {
            client.send([message, close(1001, b"")].concat());
        }
        End::Fin | End::Drop | End::Reset | End::ServerClose | End::ServerAbort => {
            client.send(message);
        }
    }
    match how {
        End::CloseThenDrop | End::Drop => return None,
        End::Reset => {
            client.reset();
            return None;
        }
        End::CloseThenFin | End::Fin => client.half_close(),
        End::Close | End::ServerClose | End::ServerAbort => {}
    }
    Some(client)
}

fn with_echo(builder: ServerBuilder) -> ServerBuilder {
    let echo = Callbacks::<()>::new().on_message(|_ws, message| message.into());
    builder.websocket("/echo", echo)
}

fn all_of_it_is_done(shard_count: usize, how: End, kind: Kind, place: Place, moment: Moment) {
    let context = format!("{how:?}, {kind:?} in {place:?}, {moment:?}, {shard_count} shards");
    let saver = Saver::default();
    let (handler, closes) = saver.handler(kind, place);
    let server = start(shard_count, |builder| with_echo(builder).websocket("/", handler));
    let hub = server.hub();
    let mut others: Vec<_> =
        (0..2 * shard_count + 1).map(|_| Client::connect(server.local_addr(), "/echo")).collect();
    let mut clients = Vec::new();
    for _ in 0..CONNECTION_COUNT {
        let mut client = Raw::upgraded(server.local_addr(), "/");
        let id = client.text().parse().expect("an id");
        let asked_before = saver.asked_count.load(Ordering::SeqCst);
        let mut message = frame(TEXT, b"save");
        // A reset may overtake a message: TCP delivers it to nobody then.
        let is_by_server = matches!(how, End::ServerClose | End::ServerAbort);
        if moment == Moment::Meanwhile || how == End::Reset || is_by_server {
            client.send(std::mem::take(&mut message));
            match place {
                Place::OnMessage => {
                    eventually(|| saver.asked_count.load(Ordering::SeqCst) > asked_before);
                }
                Place::OnClose => assert_eq!(client.text(), "save", "{context}"),
            }
        }
        match how {
            End::ServerClose => hub.close(id).expect("it is open"),
            End::ServerAbort => hub.abort(id).expect("it is open"),
            _ => {}
        }
        clients.extend(end(how, client, message));
    }
    // The shards serve other clients afterwards, so they have noticed the ends.
    for other in &mut others {
        other.send("still here");
        assert_eq!(other.text(), "still here", "{context}");
    }
    saver.gate.open();
    for mut client in clients {
        if how == End::ServerClose {
            while client.frame().expect("a Close frame").first != CLOSE {}
            client.send(close(1000, b""));
        }
        client.skim();
    }
    eventually(|| hub.connection_counts().iter().sum::<usize>() == others.len());
    let asked_count = saver.asked_count.load(Ordering::SeqCst);
    assert_eq!(asked_count, CONNECTION_COUNT, "{context}: all were asked for");
    assert_eq!(saver.done_count.load(Ordering::SeqCst), asked_count, "{context}: all were done");
    assert_eq!(closes.try_iter().count(), CONNECTION_COUNT, "{context}: on_close once for each");
    assert_eq!(hub.cancelled_count(), 0, "{context}");
}

fn each_end(how: &'static [End], place: Place) {
    within(Duration::from_secs(60), move || {
        for &how in how {
            for kind in KINDS {
                for moment in [Moment::Behind, Moment::Meanwhile] {
                    all_of_it_is_done(
                        1 + usize::from(kind == Kind::Later),
                        how,
                        kind,
                        place,
                        moment,
                    );
                }
            }
        }
    });
}

#[test]
fn what_on_message_leaves_is_done_however_the_connection_ends() {
    each_end(&ENDS, Place::OnMessage);
}

#[test]
fn what_on_close_leaves_is_done_however_the_connection_ends() {
    each_end(&ENDS, Place::OnClose);
}

#[test]
fn messages_behind_one_that_waits_are_handled_in_order_when_the_client_ends_its_side() {
    within(Duration::from_secs(60), || {
        for how in [End::CloseThenFin, End::CloseThenDrop, End::Fin, End::Drop] {
            let gate = Arc::new(Gate::default());
            let (noted, notes) = mpsc::channel();
            let (opened, closed) = (Arc::clone(&gate), noted.clone());
            let handler = Callbacks::<()>::new()
                .on_message(move |_ws, message| {
                    let (noted, kept) = (noted.clone(), opened.promise());
                    let text = message.as_text().unwrap_or_default().to_owned();
                    Reply::later(async move {
                        let _ = kept.await;
                        let _ = noted.send(text);
                    })
                })
                .on_close(move |_ws, _close| {
                    let _ = closed.send("closed".to_owned());
                    Reply::none()
                });
            let server = start(1, |builder| with_echo(builder).websocket("/", handler));
            let client = Raw::upgraded(server.local_addr(), "/");
            let messages = [&b"one"[..], b"two", b"three"].map(|text| frame(TEXT, text));
            let client = end(how, client, messages.concat());
            crate::raw::next_is_served(server.local_addr(), "/echo");
            gate.open();
            let noted: Vec<_> = notes.iter().take(4).collect();
            assert_eq!(noted, ["one", "two", "three", "closed"], "{how:?}");
            drop(client);
        }
    });
}

#[test]
fn what_takes_longer_than_the_closing_time_is_cut_logged_and_counted() {
    within(Duration::from_secs(60), || {
        for (how, kind) in [
            (End::CloseThenFin, Kind::Later),
            (End::Fin, Kind::LaterThen),
            (End::Drop, Kind::OffloadThen),
            (End::ServerAbort, Kind::Later),
        ] {
            let saver = Saver::default();
            let (handler, _closes) = saver.handler(kind, Place::OnMessage);
            let server = start(1, |builder| {
                let mut limits = Limits::default();
                limits.close_timeout = Duration::from_millis(200);
                builder.limits(limits).websocket("/", handler)
            });
            let hub = server.hub();
            let mut client = Raw::upgraded(server.local_addr(), "/");
            let id = client.text().parse().expect("an id");
            client.send(frame(TEXT, b"save"));
            eventually(|| saver.asked_count.load(Ordering::SeqCst) == 1);
            if how == End::ServerAbort {
                hub.abort(id).expect("it is open");
            }
            let client = end(how, client, Vec::new());
            eventually(|| hub.connection_counts() == [0]);
            assert_eq!(hub.cancelled_count(), 1, "{how:?}, {kind:?}");
            assert_eq!(saver.done_count.load(Ordering::SeqCst), 0, "{how:?}, {kind:?}");
            saver.gate.open();
            drop(client);
        }
    });
}

#[test]
fn a_job_that_was_accepted_is_begun_also_when_its_connection_was_given_up() {
    within(Duration::from_secs(60), || {
        let saver = Saver::default();
        let (handler, _closes) = saver.handler(Kind::Offload, Place::OnMessage);
        let server = start(1, |builder| {
            let mut limits = Limits::default();
            limits.close_timeout = Duration::from_millis(100);
            // The first job keeps the others waiting.
            limits.max_offload_threads = Some(1);
            builder.limits(limits).websocket("/", handler)
        });
        let hub = server.hub();
        for count in 1..=5 {
            let client = Raw::upgraded(server.local_addr(), "/");
            drop(end(End::Drop, client, frame(TEXT, b"save")));
            eventually(|| saver.asked_count.load(Ordering::SeqCst) == count);
        }
        eventually(|| hub.connection_counts() == [0]);
        assert_eq!(hub.cancelled_count(), 5);
        saver.gate.open();
        eventually(|| saver.done_count.load(Ordering::SeqCst) == 5);
    });
}

#[test]
fn on_close_is_told_of_the_end_as_before() {
    within(Duration::from_secs(60), || {
        for (how, code, by) in [
            (End::CloseThenDrop, CloseCode::GOING_AWAY, ClosedBy::Peer),
            (End::Fin, CloseCode::ABNORMAL, ClosedBy::Peer),
            (End::Reset, CloseCode::ABNORMAL, ClosedBy::Peer),
            (End::ServerAbort, CloseCode::ABNORMAL, ClosedBy::Application),
        ] {
            let saver = Saver::default();
            let (handler, closes) = saver.handler(Kind::Later, Place::OnMessage);
            let server = start(1, |builder| with_echo(builder).websocket("/", handler));
            let mut client = Raw::upgraded(server.local_addr(), "/");
            let id = client.text().parse().expect("an id");
            client.send(frame(TEXT, b"save"));
            eventually(|| saver.asked_count.load(Ordering::SeqCst) == 1);
            if how == End::ServerAbort {
                server.hub().abort(id).expect("it is open");
            }
            let client = end(how, client, Vec::new());
            crate::raw::next_is_served(server.local_addr(), "/echo");
            saver.gate.open();
            let close = closes.recv().expect("on_close is called");
            assert_eq!((close.code(), close.by()), (code, by), "{how:?}");
            drop(client);
        }
    });
}

#[test]
fn a_shutdown_waits_for_accepted_jobs_also_for_those_whose_connections_are_gone() {
    within(Duration::from_secs(60), || {
        for (grace, is_long) in
            [(Duration::from_secs(40), true), (Duration::from_millis(300), false)]
        {
            let saver = Saver::default();
            let (handler, _closes) = saver.handler(Kind::Offload, Place::OnMessage);
            let server = start(1, |builder| {
                let mut limits = Limits::default();
                limits.close_timeout = Duration::from_millis(100);
                builder.limits(limits).websocket("/", handler)
            });
            let hub = server.hub();
            let client = Raw::upgraded(server.local_addr(), "/");
            drop(end(End::Drop, client, frame(TEXT, b"save")));
            eventually(|| hub.cancelled_count() == 1 && hub.connection_counts() == [0]);
            let stopping = std::thread::spawn(move || server.shutdown(grace).map(drop));
            if is_long {
                // The shards have ended: nothing is accepted for sending any more.
                eventually(|| hub.broadcast("/", "") == Err(peregrine::SendError::ShuttingDown));
                assert!(!stopping.is_finished(), "the job is not done");
                saver.gate.open();
            }
            stopping.join().expect("no panic").expect("it stops");
            let done_count = saver.done_count.load(Ordering::SeqCst);
            assert_eq!(done_count, usize::from(is_long), "grace {grace:?}");
            saver.gate.open();
        }
    });
}

/// The answers find nobody: the first one makes the client's kernel reset the connection.
#[test]
fn messages_behind_one_that_waits_are_handled_although_the_answers_find_nobody() {
    within(Duration::from_secs(60), || {
        for how in [End::CloseThenDrop, End::Drop] {
            let (noted, notes) = mpsc::channel();
            let closed = noted.clone();
            let handler = Callbacks::<()>::new()
                .on_message(move |_ws, message| {
                    let noted = noted.clone();
                    let text = message.as_text().unwrap_or_default().to_owned();
                    Reply::offload(move || {
                        std::thread::sleep(Duration::from_millis(20));
                        let _ = noted.send(text);
                        "saved"
                    })
                })
                .on_close(move |_ws, _close| {
                    let _ = closed.send("closed".to_owned());
                    Reply::none()
                });
            let server = start(1, |builder| with_echo(builder).websocket("/", handler));
            let client = Raw::upgraded(server.local_addr(), "/");
            let messages = [&b"one"[..], b"two", b"three", b"four"].map(|text| frame(TEXT, text));
            drop(end(how, client, messages.concat()));
            let noted: Vec<_> = notes.iter().take_while(|note| note != "closed").collect();
            assert_eq!(noted, ["one", "two", "three", "four"], "{how:?}");
        }
    });
}

/// `on_drain` tells of room again. A connection that has lost its output has none, though its
/// handler's work goes on.
#[test]
fn on_drain_is_not_called_again_and_again_when_nothing_can_be_sent_any_more() {
    within(Duration::from_secs(60), || {
        let drained_count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&drained_count);
        let handler = Callbacks::<()>::new()
            .on_message(|ws, message| {
                if message.as_text() == Some("first") {
                    // The answer makes the client's kernel reset the connection.
                    return Reply::offload(|| {
                        std::thread::sleep(Duration::from_millis(50));
                        "answer"
                    });
                }
                let _ = ws.send(vec![7; 200_000]);
                Reply::later(std::future::pending::<()>())
            })
            .on_drain(move |ws| {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = ws.send(vec![7; 200_000]);
            });
        let mut limits = Limits::default();
        limits.close_timeout = Duration::from_millis(600);
        let server = start(1, |builder| builder.limits(limits).websocket("/", handler));
        let hub = server.hub();
        let client = Raw::upgraded(server.local_addr(), "/");
        let messages = [&b"first"[..], b"first", b"second"].map(|text| frame(TEXT, text));
        drop(end(End::Drop, client, messages.concat()));
        eventually(|| hub.connection_counts() == [0]);
        assert_eq!(hub.cancelled_count(), 1, "the last message was handled");
        let drained_count = drained_count.load(Ordering::SeqCst);
        assert!(drained_count <= 2, "on_drain was called {drained_count} times");
    });
}
