//! Outlets that record what they get, inject publications of their own, and refuse.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::{Client, start, until};
use crate::config::Limits;
use crate::error::SendError;
use crate::handler::{Callbacks, Reply, WebSocket};
use crate::hub::injector::Injector;
use crate::hub::{Audience, BroadcastDelivery, ConnectionId, Hub, Outlet, Publication};
use crate::message::Message;
use crate::protocol::parcel::Parcel;
use crate::server::RunningServer;

const SHARD_COUNTS: [usize; 3] = [1, 2, 4];
const PATH: &str = "/all";
/// All clients subscribe to it.
const TOPIC: &str = "news";
const CLIENT_COUNT: usize = 6;
const HUB_THREAD_COUNT: usize = 3;
/// How many publications each origin makes.
const EACH_COUNT: usize = 120;

/// How many of them a handler makes in one call: some find no room in a mailbox, and go beyond it.
const BURST_COUNT: usize = 12;

/// Records the text of each publication.
#[derive(Debug, Default)]
struct Recorder {
    texts: Mutex<Vec<String>>,
    /// How many publications have room reserved and were not sent yet.
    reserved_count: AtomicUsize,
    is_full: AtomicBool,
}

impl Outlet for Recorder {
    fn reserve(&self, _bytes: usize) -> Result<(), SendError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(SendError::Overloaded);
        }
        self.reserved_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn send(&self, publication: Arc<Publication>) {
        assert!(self.reserved_count.fetch_sub(1, Ordering::Relaxed) > 0, "room was not reserved");
        lock(&self.texts).push(text_of(&publication));
    }

    fn release(&self, _bytes: usize) {
        assert!(self.reserved_count.fetch_sub(1, Ordering::Relaxed) > 0, "room was not reserved");
    }
}

impl Recorder {
    fn take_texts(&self) -> Vec<String> {
        assert_eq!(self.reserved_count.load(Ordering::Relaxed), 0, "room is not given back");
        std::mem::take(&mut lock(&self.texts))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A short text message as a publication carries it.
fn publication(text: &str, audience: Audience, except: Option<ConnectionId>) -> Publication {
    let parcel = Parcel::new(Message::Text(text)).into();
    Publication { audience, except, parcel, tally: None }
}

/// The text that [`publication`] has encoded: after a header of two bytes.
fn text_of(publication: &Publication) -> String {
    String::from_utf8(publication.parcel.plain().frame()[2..].to_vec()).expect("a text")
}

/// How an origin publishes its message of this number.
#[derive(Clone, Copy)]
enum Way {
    Topic,
    Endpoint,
    TopicExcept,
    EndpointExcept,
    TopicNotified,
    EndpointNotified,
}

impl Way {
    fn of(number: usize) -> Self {
        use Way::*;
        let ways = [Topic, Endpoint, TopicExcept, EndpointExcept, TopicNotified, EndpointNotified];
        ways[number % ways.len()]
    }

    fn excepts(self) -> bool {
        matches!(self, Self::TopicExcept | Self::EndpointExcept)
    }
}

/// What was published.
#[derive(Debug, Default)]
struct Book {
    /// The texts that were accepted, and which connection each was not for.
    accepted: Mutex<BTreeMap<String, Option<ConnectionId>>>,
    /// How many publications of handlers were refused.
    refused_count: AtomicUsize,
    deliveries: Mutex<Vec<BroadcastDelivery>>,
}

impl Book {
    fn note(&self, text: String, except: Option<ConnectionId>, sent: Result<(), SendError>) {
        match sent {
            Ok(()) => assert!(lock(&self.accepted).insert(text, except).is_none()),
            Err(error) => {
                assert_eq!(error, SendError::Overloaded);
                self.refused_count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Keeps a delivery until the end, if it was not refused.
    fn keep(&self, mut delivery: BroadcastDelivery) -> Result<(), SendError> {
        let now = Pin::new(&mut delivery).poll(&mut Context::from_waker(Waker::noop()));
        match now {
            Poll::Pending => lock(&self.deliveries).push(delivery),
            Poll::Ready(report) => assert_eq!(report?.reached_count, CLIENT_COUNT),
        }
        Ok(())
    }

    fn handled_count(&self) -> usize {
        lock(&self.accepted).len() + self.refused_count.load(Ordering::Relaxed)
    }
}

/// Publishes as many texts as a client asks its handler for, from this one on.
fn publish_burst(ws: &WebSocket<'_, ()>, book: &Book, first: &str) {
    let (origin, number) = (origin_of(first), number_of(first));
    for number in number..number + BURST_COUNT {
        publish_for_client(ws, book, &format!("{origin} {number}"));
    }
}

fn publish_for_client(ws: &WebSocket<'_, ()>, book: &Book, text: &str) {
    let way = Way::of(number_of(text));
    let except = way.excepts().then(|| ws.id());
    let sent = match (way, except) {
        (Way::Topic, _) => ws.publish(TOPIC, text),
        (Way::Endpoint, _) => ws.broadcast(text),
        (Way::TopicExcept, Some(except)) => ws.publish_except(TOPIC, except, text),
        (Way::EndpointExcept, Some(except)) => ws.broadcast_except(except, text),
        (Way::TopicNotified, _) => book.keep(ws.publish_async(TOPIC, text)),
        (_, _) => book.keep(ws.broadcast_async(text)),
    };
    book.note(text.to_owned(), except, sent);
}

/// Publishes by the hub until it is accepted.
fn publish_by_hub(hub: &Hub, book: &Book, text: &str, other: ConnectionId) {
    let way = Way::of(number_of(text));
    let except = way.excepts().then_some(other);
    let publish = || match way {
        Way::Topic => hub.publish(TOPIC, text),
        Way::Endpoint => hub.broadcast(PATH, text),
        Way::TopicExcept => hub.publish_except(TOPIC, other, text),
        Way::EndpointExcept => hub.broadcast_except(PATH, other, text),
        Way::TopicNotified => book.keep(hub.publish_async(TOPIC, text)),
        Way::EndpointNotified => book.keep(hub.broadcast_async(PATH, text)),
    };
    while let Err(error) = publish() {
        assert_eq!(error, SendError::Overloaded);
        thread::yield_now();
    }
    book.note(text.to_owned(), except, Ok(()));
}

/// Publishes for an outlet until it is accepted.
fn inject(injector: &Injector, book: &Book, everyone: &Audience, text: &str, other: ConnectionId) {
    let way = Way::of(number_of(text));
    let except = way.excepts().then_some(other);
    let audience = match way {
        Way::Topic | Way::TopicExcept | Way::TopicNotified => Audience::Topic(TOPIC.into()),
        _ => everyone.clone(),
    };
    while let Err(error) = injector.publish(publication(text, audience.clone(), except)) {
        assert_eq!(error, SendError::Overloaded);
        thread::yield_now();
    }
    book.note(text.to_owned(), except, Ok(()));
}

/// Texts are an origin and a number.
fn origin_of(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

fn number_of(text: &str) -> usize {
    let (_, number) = text.split_once(' ').expect("an origin and a number");
    number.parse().expect("a number")
}

/// Panics unless the texts are these, each once, and those of one origin in order.
fn check_texts(whose: &str, mut texts: Vec<String>, expected: impl Iterator<Item = String>) {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for text in &texts {
        let (origin, number) = (origin_of(text), number_of(text));
        let before = last.insert(origin, number);
        assert!(before < Some(number), "{whose}: {text:?} comes after {before:?}");
    }
    let mut expected: Vec<String> = expected.collect();
    texts.sort_unstable();
    expected.sort_unstable();
    assert_eq!(texts, expected, "{whose}");
}

/// A server with outlets, and clients that get what is published.
fn serve(
    shard_count: usize,
    limits: Limits,
    outlets: &[Arc<Recorder>],
    book: &Arc<Book>,
) -> (RunningServer, Vec<Client>) {
    let book = Arc::clone(book);
    let all = Callbacks::<()>::new()
        .on_connect(|ws| {
            ws.subscribe(TOPIC).expect("a subscription");
            ws.id().to_string().into()
        })
        .on_message(move |ws, message| {
            if let Message::Text(text) = message {
                publish_burst(ws, &book, text);
            }
            Reply::none()
        });
    let running = start(shard_count, |builder| {
        let builder = builder.limits(limits).websocket(PATH, all);
        outlets.iter().fold(builder, |builder, outlet| builder.outlet(Arc::clone(outlet) as _))
    });
    let connect = |_| Client::connect(running.local_addr(), PATH);
    let clients = (0..CLIENT_COUNT).map(connect).collect();
    until("all clients are there", || running.hub().subscriber_count(TOPIC) == CLIENT_COUNT);
    (running, clients)
}

fn everyone(hub: &Hub) -> Audience {
    Audience::Everyone(hub.shared().endpoints[PATH])
}

/// All origins publish at the same time.
fn publish_from_everywhere(hub: &Hub, book: &Book, clients: &mut [Client]) {
    let other = clients[0].id;
    let texts = |origin: String| (0..EACH_COUNT).map(move |number| format!("{origin} {number}"));
    thread::scope(|scope| {
        for (index, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                client.send_all(texts(format!("client{index}")).step_by(BURST_COUNT));
            });
        }
        for index in 0..HUB_THREAD_COUNT {
            scope.spawn(move || {
                let texts = texts(format!("hub{index}"));
                texts.for_each(|text| publish_by_hub(hub, book, &text, other));
            });
        }
        for (index, injector) in hub.injectors().enumerate() {
            scope.spawn(move || {
                let (texts, everyone) = (texts(format!("outlet{index}")), everyone(hub));
                texts.for_each(|text| inject(&injector, book, &everyone, &text, other));
            });
        }
    });
}

#[test]
fn each_destination_gets_each_publication_once_in_order_and_an_outlet_none_of_its_own() {
    for shard_count in SHARD_COUNTS {
        let (outlets, book) = ([0, 1].map(|_| Arc::default()), Arc::default());
        // Small mailboxes: the hub and the outlets find no room now and then.
        let limits =
            Limits { max_mailbox_envelopes: 16, max_outbox_bytes: 8 << 20, ..Limits::default() };
        let (running, mut clients) = serve(shard_count, limits, &outlets, &book);
        let hub = running.hub();
        publish_from_everywhere(&hub, &book, &mut clients);
        let count = (CLIENT_COUNT + HUB_THREAD_COUNT + outlets.len()) * EACH_COUNT;
        until("the handlers have published all", || book.handled_count() == count);
        until("the last one has room", || hub.broadcast(PATH, "end 0").is_ok());
        let accepted = lock(&book.accepted).clone();
        for (index, client) in clients.iter_mut().enumerate() {
            let texts = std::iter::from_fn(|| Some(client.text()).filter(|text| text != "end 0"));
            let texts: Vec<String> = texts.collect();
            let mine = accepted.iter().filter(|&(_, &except)| except != Some(client.id));
            check_texts(&format!("client {index}"), texts, mine.map(|(text, _)| text.clone()));
        }
        for (index, outlet) in outlets.iter().enumerate() {
            let own = format!("outlet{index} ");
            let others = accepted.keys().filter(|text| !text.starts_with(&own)).cloned();
            let expected = others.chain(["end 0".to_owned()]);
            check_texts(&format!("outlet {index}"), outlet.take_texts(), expected);
        }
        for delivery in std::mem::take(&mut *lock(&book.deliveries)) {
            let report = delivery.wait().expect("it was accepted");
            assert_eq!((report.reached_count, report.gone_count), (CLIENT_COUNT, 0));
        }
        assert_eq!(hub.dropped_count(), 0);
    }
}

#[test]
fn what_an_outlet_refuses_nobody_gets() {
    for shard_count in SHARD_COUNTS {
        let (outlets, book) = ([0, 1].map(|_| Arc::default()), Arc::default());
        let (running, mut clients) = serve(shard_count, Limits::default(), &outlets, &book);
        let hub = running.hub();
        let refused = Err(SendError::Overloaded);
        // The second one: room that the first one has reserved is given back.
        let [open, full]: &[Arc<Recorder>; 2] = &outlets;
        full.is_full.store(true, Ordering::Relaxed);
        assert_eq!(hub.publish(TOPIC, "refused 0"), refused);
        assert_eq!(hub.broadcast_except(PATH, clients[0].id, "refused 1"), refused);
        assert_eq!(hub.broadcast_async(PATH, "refused 2").wait().err(), refused.err());
        // By handlers, in each way.
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("client {number}"));
        }
        let refused_count = || book.refused_count.load(Ordering::Relaxed);
        let count = CLIENT_COUNT * BURST_COUNT;
        until("the handlers were refused", || refused_count() == count);
        assert!(lock(&book.accepted).is_empty() && lock(&book.deliveries).is_empty());
        // By outlets: the full one is no destination of its own publications.
        let [of_open, of_full]: [Injector; 2] = injectors(&hub);
        let inject =
            |injector: &Injector, text| injector.publish(publication(text, everyone(&hub), None));
        assert_eq!(inject(&of_open, "refused 3"), refused);
        assert_eq!(inject(&of_full, "full 0"), Ok(()));
        full.is_full.store(false, Ordering::Relaxed);
        assert_eq!(inject(&of_open, "open 0"), Ok(()));
        assert_eq!(hub.publish(TOPIC, "end 0"), Ok(()));
        assert_eq!(open.take_texts(), ["full 0", "end 0"]);
        assert_eq!(full.take_texts(), ["open 0", "end 0"]);
        for client in &mut clients {
            assert_eq!([(); 3].map(|()| client.text()), ["full 0", "open 0", "end 0"]);
        }
    }
}

fn injectors<const N: usize>(hub: &Hub) -> [Injector; N] {
    let injectors: Vec<Injector> = hub.injectors().collect();
    injectors.try_into().expect("so many outlets")
}
