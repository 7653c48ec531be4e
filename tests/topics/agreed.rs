//! One order on which all members agree: a publication that returned before another began is seen
//! before it, whichever handlers, shards and threads made the two. The same holds for sends to one
//! connection, and for the moment from which a subscription counts.
//!
//! Each test keeps a book under a lock. A deed (a publication, a send, a subscription) is done and
//! written down while the lock is held, so the book is the order. Each member has to get exactly
//! what the book has for it.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread;

use peregrine::{
    BroadcastDelivery, Close, ConnectionId, Handler, Hub, Limits, Message, Reply, RunningServer,
    SendError, WebSocket,
};

use super::LIMIT;
use super::chance::Chance;
use super::clerk::Party;
use super::common::{Client, SHARD_COUNTS, eventually, start, within};

const TOPIC: &str = "news";
const MEMBER_COUNT: usize = 60;

/// Something that was accepted.
#[derive(Clone, Copy)]
enum Deed {
    /// A message to the whole endpoint, perhaps but for one.
    Broadcast(Option<ConnectionId>),
    Publish(Option<ConnectionId>),
    Send(ConnectionId),
    Subscribe(ConnectionId),
    Unsubscribe(ConnectionId),
}

/// Which deeds a test is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Publications,
    Everything,
}

struct Book {
    deeds: Vec<Deed>,
    /// How many deeds were tried; those that were refused are not in the book.
    tried_count: usize,
    ids: Vec<ConnectionId>,
    kind: Kind,
    chance: Chance,
}

impl Book {
    fn new(kind: Kind) -> Arc<Mutex<Self>> {
        let (deeds, ids) = Default::default();
        Arc::new(Mutex::new(Self { deeds, tried_count: 0, ids, kind, chance: Chance::new() }))
    }

    /// The next deed of the handler of `own`, or of a thread.
    fn choose(&mut self, own: Option<ConnectionId>) -> Deed {
        let any = self.ids[self.chance.below(self.ids.len())];
        let except = [None, Some(own.unwrap_or(any))][self.chance.below(2)];
        match self.chance.below(if self.kind == Kind::Publications { 6 } else { 10 }) {
            0..=2 => Deed::Broadcast(except),
            3..=5 => Deed::Publish(except),
            6 | 7 => Deed::Send(any),
            8 => Deed::Subscribe(own.unwrap_or(any)),
            _ => Deed::Unsubscribe(own.unwrap_or(any)),
        }
    }

    /// The text of the next message: its number in the book, and sometimes a lot after it.
    fn text(&mut self) -> String {
        let padding = match self.chance.below(60) {
            0 => 5 << 10,
            1 => 300,
            _ => 0,
        };
        format!("{}{}", self.deeds.len(), "_".repeat(padding))
    }

    fn write(&mut self, deed: Deed, outcome: Result<(), SendError>) {
        self.tried_count += 1;
        match outcome {
            Ok(()) => self.deeds.push(deed),
            Err(SendError::Overloaded) => {}
            Err(error) => panic!("a deed was refused with {error:?}"),
        }
    }

    fn act<S>(&mut self, ws: &WebSocket<'_, S>) {
        let deed = self.choose(Some(ws.id()));
        self.act_so(ws, deed);
    }

    fn act_so<S>(&mut self, ws: &WebSocket<'_, S>, deed: Deed) {
        let text = self.text();
        // What is told is not waited for: only the way of the message is another one.
        let is_told = self.chance.below(4) == 0;
        let outcome = match deed {
            Deed::Broadcast(None) if is_told => answer_of(ws.broadcast_async(text)),
            Deed::Publish(None) if is_told => answer_of(ws.publish_async(TOPIC, text)),
            Deed::Broadcast(None) => ws.broadcast(text),
            Deed::Broadcast(Some(except)) => ws.broadcast_except(except, text),
            Deed::Publish(None) => ws.publish(TOPIC, text),
            Deed::Publish(Some(except)) => ws.publish_except(TOPIC, except, text),
            Deed::Send(id) => ws.send_to(id, text),
            Deed::Subscribe(_) => ws.subscribe(TOPIC),
            Deed::Unsubscribe(_) => {
                ws.unsubscribe(TOPIC);
                Ok(())
            }
        };
        self.write(deed, outcome);
    }

    fn act_by_hub(&mut self, hub: &Hub) {
        let deed = self.choose(None);
        let text = self.text();
        let outcome = match deed {
            Deed::Broadcast(None) => hub.broadcast("/", text),
            Deed::Broadcast(Some(except)) => hub.broadcast_except("/", except, text),
            Deed::Publish(None) => hub.publish(TOPIC, text),
            Deed::Publish(Some(except)) => hub.publish_except(TOPIC, except, text),
            Deed::Send(id) => hub.send_to(id, text),
            Deed::Subscribe(id) => hub.subscribe(id, TOPIC),
            Deed::Unsubscribe(id) => hub.unsubscribe(id, TOPIC),
        };
        self.write(deed, outcome);
    }

    /// The numbers of the messages that are for a member.
    fn due(&self, id: ConnectionId) -> Vec<usize> {
        let mut is_subscriber = true;
        let is_for = |(number, deed): (usize, &Deed)| {
            let is_for = match *deed {
                Deed::Broadcast(except) => except != Some(id),
                Deed::Publish(except) => is_subscriber && except != Some(id),
                Deed::Send(to) => to == id,
                Deed::Subscribe(who) | Deed::Unsubscribe(who) => {
                    if who == id {
                        is_subscriber = matches!(deed, Deed::Subscribe(_));
                    }
                    false
                }
            };
            is_for.then_some(number)
        };
        self.deeds.iter().enumerate().filter_map(is_for).collect()
    }
}

/// What an `_async` call says at once: only a refusal is known by then.
fn answer_of(mut delivery: BroadcastDelivery) -> Result<(), SendError> {
    match Pin::new(&mut delivery).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
    }
}

fn open_book(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().expect("no handler panics")
}

/// Does as many deeds as a message says, each of them in the lock; the last one also by the hub, or
/// later.
struct Scribe(Arc<Mutex<Book>>);

impl Handler for Scribe {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        ws.subscribe(TOPIC).expect("one topic");
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let count: usize = message.as_text().and_then(|text| text.parse().ok()).expect("a count");
        for _ in 1..count {
            open_book(&self.0).act(ws);
        }
        let (book, hub) = (Arc::clone(&self.0), ws.hub());
        let how = open_book(&book).chance.below(4);
        match how {
            0 => Reply::later(async move {
                open_book(&book).act_by_hub(&hub);
                Reply::none()
            }),
            1 => ws.later_then(ready(()), move |ws, ()| {
                open_book(&book).act(ws);
                Reply::none()
            }),
            2 => {
                open_book(&book).act_by_hub(&hub);
                Reply::none()
            }
            _ => {
                open_book(&book).act(ws);
                Reply::none()
            }
        }
    }
}

/// Publishes when it comes and when it goes.
struct Guest(Arc<Mutex<Book>>);

impl Handler for Guest {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        open_book(&self.0).act_so(ws, Deed::Publish(None));
        Reply::none()
    }

    fn on_close(&self, ws: &mut WebSocket<'_, ()>, _: &Close) -> Reply<'static> {
        open_book(&self.0).act_so(ws, Deed::Publish(None));
        Reply::none()
    }
}

struct Meeting {
    running: RunningServer,
    book: Arc<Mutex<Book>>,
    parties: Vec<Party>,
}

impl Meeting {
    fn new(shards: usize, kind: Kind, mut limits: Limits) -> Self {
        let book = Book::new(kind);
        // Nobody reads before all is done.
        (limits.outbox_high_water_bytes, limits.max_outbox_bytes) = (16 << 20, 64 << 20);
        let running = start(shards, |app| {
            let (scribe, guest) = (Scribe(Arc::clone(&book)), Guest(Arc::clone(&book)));
            app.limits(limits).websocket("/", scribe).websocket("/guests", guest)
        });
        let parties = Party::meet(&running, "/", MEMBER_COUNT);
        open_book(&book).ids = parties.iter().map(|party| party.id).collect();
        Self { running, book, parties }
    }

    /// Each member says so often that its handler is to do so many deeds; meanwhile threads do as
    /// many, and guests come and go.
    fn hold(&mut self, times: usize, deeds: usize, threads: usize, guests: usize) {
        let (hub, book, address) = (&self.running.hub(), &self.book, self.running.local_addr());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..times * deeds {
                        open_book(book).act_by_hub(hub);
                    }
                });
            }
            scope.spawn(move || {
                for _ in 0..guests {
                    drop(Client::connect(address, "/guests"));
                }
            });
            for _ in 0..times {
                for party in &mut self.parties {
                    party.client.send(deeds.to_string());
                }
            }
        });
        let total = times * deeds * (MEMBER_COUNT + threads) + 2 * guests;
        eventually(|| open_book(book).tried_count == total);
    }

    /// Every member has got what is for it, in the order of the book.
    fn check(mut self) -> usize {
        let hub = self.running.hub();
        eventually(|| hub.broadcast("/", "fence").is_ok());
        let book = open_book(&self.book);
        let mut confused_count = 0;
        for party in &mut self.parties {
            let texts = party.until("fence");
            let number = |text: &String| text.trim_end_matches('_').parse().expect("a number");
            let got: Vec<usize> = texts.iter().map(number).collect();
            confused_count += usize::from(!got.is_sorted());
            let due = book.due(party.id);
            if got != due && got.is_sorted() {
                let differ = got.iter().zip(&due).position(|(got, due)| got != due);
                panic!(
                    "{} got {} of {}, another one at {differ:?}",
                    party.id,
                    got.len(),
                    due.len()
                );
            }
        }
        assert_eq!(confused_count, 0, "members of {MEMBER_COUNT} that saw another order");
        assert_eq!(hub.dropped_count(), 0);
        book.tried_count - book.deeds.len()
    }
}

/// Sends to its own connection by all ways at once, as its client says.
struct Mixer;

impl Handler for Mixer {
    type Session = ();

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let (hub, own) = (ws.hub(), ws.id());
        match message.as_text().expect("an order") {
            "say" => {
                ws.send("1").expect("room");
                hub.send_to(own, "2").expect("room");
                ws.broadcast("3").expect("room");
                hub.broadcast("/", "4").expect("room");
                drop(hub.send_to_async(own, "5"));
                ws.send_to(own, "6").expect("room");
                ws.send("7").expect("room");
                "8".into()
            }
            "stream" => {
                ws.send("1").expect("room");
                let mut stream = ws.stream::<str>().expect("one stream");
                ws.send("3").expect("room");
                stream.write("2 in ").and_then(|()| stream.write("pieces")).expect("credit");
                stream.finish().expect("credit");
                ws.broadcast("4").expect("room");
                "5".into()
            }
            "close" => {
                hub.close_with(own, 4000, "by the hub").expect("room");
                ws.broadcast("to the others").expect("room");
                assert_eq!(ws.send("too late"), Err(SendError::Closed));
                "last words".into()
            }
            "abort" => {
                hub.abort(own).expect("room");
                ws.broadcast("to the others").expect("room");
                "nobody reads this".into()
            }
            _ => Reply::none(),
        }
    }
}

#[test]
fn a_handlers_calls_by_its_connection_and_by_the_hub_have_one_order() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = start(shards, |app| app.websocket("/", Mixer));
            let connect = || Client::connect(running.local_addr(), "/");
            let mut client = connect();
            for _ in 0..3 {
                client.send("say");
                for number in 1..=8 {
                    assert_eq!(client.text(), number.to_string());
                }
                client.send("stream");
                for text in ["1", "2 in pieces", "3", "4", "5"] {
                    assert_eq!(client.text(), text);
                }
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}

#[test]
fn a_connection_that_the_hub_ends_while_its_handler_runs_gets_no_more_and_the_others_go_on() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let running = start(shards, |app| app.websocket("/", Mixer));
            let connect = || Client::connect(running.local_addr(), "/");
            let mut other = connect();
            let mut client = connect();
            client.send("close");
            assert_eq!(client.text(), "last words");
            assert_eq!(client.close_code(), 4000);
            assert_eq!(other.text(), "to the others");
            let mut client = connect();
            client.send("abort");
            assert!(client.0.read().is_err(), "it is dropped without a word");
            assert_eq!(other.text(), "to the others");
        }
    });
}

#[test]
fn what_handlers_of_several_shards_publish_under_a_lock_is_seen_in_that_order_by_all() {
    within(LIMIT, || {
        for shards in [2, 3] {
            let mut meeting = Meeting::new(shards, Kind::Publications, Limits::default());
            meeting.hold(4, 2, 0, 0);
            assert_eq!(meeting.check(), 0, "there is room");
        }
    });
}

#[test]
fn publications_sends_and_subscriptions_of_handlers_futures_and_threads_have_one_order() {
    within(LIMIT, || {
        for shards in [1, 2, 3] {
            let mut meeting = Meeting::new(shards, Kind::Everything, Limits::default());
            meeting.hold(6, 5, 2, 60);
            assert_eq!(meeting.check(), 0, "there is room");
        }
    });
}

#[test]
fn what_was_accepted_keeps_its_order_when_mailboxes_are_full() {
    within(LIMIT, || {
        for (shards, envelopes, bytes) in
            [(2, 1, 1 << 20), (2, 4, 100), (3, 2, 1 << 20), (3, 20, 1 << 20)]
        {
            let mut limits = Limits::default();
            (limits.max_mailbox_envelopes, limits.max_mailbox_bytes) = (envelopes, bytes);
            let mut meeting = Meeting::new(shards, Kind::Everything, limits);
            meeting.hold(3, 15, 2, 0);
            let refused_count = meeting.check();
            eprintln!("{shards} shards, {envelopes}, {bytes}: {refused_count} refused");
        }
    });
}
