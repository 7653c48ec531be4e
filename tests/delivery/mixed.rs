//! All ways of sending at once, by many senders, told of or not, waited for or not: each message
//! arrives exactly once and in its sender's order, and what is told of it is what happened.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use peregrine::{
    BroadcastDelivery, BroadcastReport, ConnectionId, Delivery, Handler, Hub, Limits, Message,
    Reply, SendError, WebSocket,
};
use pollster::block_on;

use super::chance::Chance;
use super::common::{SHARD_COUNTS, start, within};
use super::crowd::{Book, settle, target};
use super::ledger::{TOPIC_COUNT, Target, topics_of};
use super::swarm::{Member, Swarm};
use super::{LIMIT, eventually};

/// What a sender does about what becomes of its message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// It does not ask.
    None,
    /// It asks, and does not wait.
    Lost,
    /// It asks, and the test compares.
    Kept,
}

const INTERESTS: [(Interest, char); 3] =
    [(Interest::None, '.'), (Interest::Lost, '!'), (Interest::Kept, '?')];

/// A message for one or for many, on its way.
enum Fate {
    One(Delivery),
    Many(BroadcastDelivery),
}

/// What was told of a message: for one, as if it were for many.
type Told = Result<BroadcastReport, SendError>;

fn reached(count: usize) -> Told {
    let mut report = BroadcastReport::default();
    report.reached_count = count;
    Ok(report)
}

impl Fate {
    fn poll(&mut self) -> Poll<Told> {
        let mut context = Context::from_waker(Waker::noop());
        match self {
            Self::One(one) => Pin::new(one).poll(&mut context).map(|told| told.and(reached(1))),
            Self::Many(many) => Pin::new(many).poll(&mut context),
        }
    }

    fn wait(self) -> Told {
        match self {
            Self::One(one) => block_on(one).and(reached(1)),
            Self::Many(many) => block_on(many),
        }
    }
}

/// The futures that are waited for, and those that have told already.
#[derive(Default)]
struct Kept {
    open: Vec<(Target, Fate)>,
    told: Vec<(Target, Told)>,
}

/// A book, and what its senders wait for.
struct Post {
    book: Arc<Book>,
    kept: Mutex<Kept>,
}

impl Post {
    /// Whether it was accepted: what is refused says so at once.
    fn note(
        &self,
        target: Target,
        interest: Interest,
        mut fate: Fate,
        chance: usize,
    ) -> Result<(), SendError> {
        let polled = fate.poll();
        let accepted = match polled {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        };
        if interest == Interest::Kept {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            match polled {
                Poll::Ready(told) => kept.told.push((target, told)),
                Poll::Pending => kept.open.push((target, fate)),
            }
            if chance.is_multiple_of(16) && kept.open.len() > 4 {
                // Some are looked at now and then, and lost after all.
                let at = chance % kept.open.len();
                let (_, mut fate) = kept.open.swap_remove(at);
                let _ = fate.poll();
            }
        }
        accepted
    }

    fn send_by_hub(&self, hub: &Hub, sender: usize, target: Target, interest: Interest) {
        let book = &self.book;
        if interest == Interest::None {
            book.send_by_hub(hub, "/", sender, target).expect("room");
            return;
        }
        let sent = book.ledger.send(sender, target, |text| {
            let length = text.len() * 7 + sender;
            let fate = match target {
                Target::One(member) => Fate::One(hub.send_to_async(book.id(member), text)),
                Target::Topic(topic) => Fate::Many(hub.publish_async(&topic.to_string(), text)),
                _ => Fate::Many(hub.broadcast_async("/", text)),
            };
            self.note(target, interest, fate, length)
        });
        sent.expect("room");
    }
}

/// Tells its client its id and subscribes it; then sends as it says: `SENDER` and then words of an
/// interest and a target.
struct Mixing(Arc<Post>);

impl Handler for Mixing {
    type Session = ();

    fn on_connect(&self, ws: &mut WebSocket<'_, ()>) -> Reply<'static> {
        let member = ws.query("member").and_then(|text| text.parse().ok()).expect("a number");
        for topic in topics_of(member) {
            ws.subscribe(&topic.to_string()).expect("room");
        }
        ws.id().to_string().into()
    }

    fn on_message<'m>(&self, ws: &mut WebSocket<'_, ()>, message: Message<'m>) -> Reply<'m> {
        let mut words = message.as_text().unwrap_or_default().split(' ');
        let sender = words.next().and_then(|word| word.parse().ok()).expect("a sender");
        for word in words {
            let (interest, target) = (word.chars().next(), target(&word[1..]));
            let (interest, _) =
                *INTERESTS.iter().find(|(_, sign)| Some(*sign) == interest).expect("an interest");
            let book = &self.0.book;
            let sent = book.ledger.send(sender, target, |text| {
                let length = text.len() * 7 + sender;
                let fate = match (target, interest) {
                    (Target::One(member), Interest::None) => {
                        return ws.send_to(book.id(member), text);
                    }
                    (Target::Topic(topic), Interest::None) => {
                        return ws.publish(&topic.to_string(), text);
                    }
                    (_, Interest::None) => return ws.broadcast(text),
                    (Target::One(member), _) => Fate::One(ws.send_to_async(book.id(member), text)),
                    (Target::Topic(topic), _) => {
                        Fate::Many(ws.publish_async(&topic.to_string(), text))
                    }
                    _ => Fate::Many(ws.broadcast_async(text)),
                };
                self.0.note(target, interest, fate, length)
            });
            sent.expect("room");
        }
        Reply::none()
    }
}

const MEMBER_COUNT: usize = 1000;
/// Senders: the handlers of so many members, then so many threads.
const HANDLER_COUNT: usize = 20;
const THREAD_COUNT: usize = 4;
const SENDER_COUNT: usize = HANDLER_COUNT + THREAD_COUNT;
const MESSAGE_COUNT: usize = 300;

/// What one sender sends.
fn plan(chance: &mut Chance) -> Vec<(Interest, Target)> {
    let one = |_| {
        let target = match chance.below(100) {
            0 => Target::All,
            1..20 => Target::Topic(chance.below(TOPIC_COUNT)),
            _ => Target::One(chance.below(MEMBER_COUNT)),
        };
        (INTERESTS[chance.below(INTERESTS.len())].0, target)
    };
    (0..MESSAGE_COUNT).map(one).collect()
}

fn order(sender: usize, wishes: &[(Interest, Target)]) -> String {
    let mut order = sender.to_string();
    for (interest, target) in wishes {
        let sign = INTERESTS.iter().find(|(other, _)| other == interest).map(|(_, sign)| *sign);
        let target = super::crowd::order(0, &[*target]);
        order.extend([' ', sign.expect("a sign")]);
        order.push_str(&target[2..]);
    }
    order
}

fn fly(shards: usize) {
    let book = Book::new(SENDER_COUNT + 1);
    let post = Arc::new(Post { book: Arc::clone(&book), kept: Mutex::default() });
    let running = start(shards, |app| app.websocket("/", Mixing(Arc::clone(&post))));
    let mut swarm = Swarm::new();
    for member in 0..MEMBER_COUNT {
        swarm.join(Member::connect(running.local_addr(), &format!("/?member={member}")));
    }
    book.ids.set(swarm.ids.clone()).expect("once");

    let mut chance = Chance::new();
    let plans: Vec<_> = (0..SENDER_COUNT).map(|_| plan(&mut chance)).collect();
    thread::scope(|scope| {
        for (sender, plan) in plans.iter().enumerate().skip(HANDLER_COUNT) {
            let (hub, post) = (running.hub(), &post);
            scope.spawn(move || {
                for &(interest, target) in plan {
                    post.send_by_hub(&hub, sender, target, interest);
                }
            });
        }
        for at in (0..MESSAGE_COUNT).step_by(10) {
            for (sender, plan) in plans.iter().enumerate().take(HANDLER_COUNT) {
                let member = sender * MEMBER_COUNT / HANDLER_COUNT;
                swarm.say(member, order(sender, &plan[at..at + 10]));
            }
        }
    });
    eventually(|| book.ledger.total() == SENDER_COUNT * MESSAGE_COUNT);
    settle(&running, &book, swarm, SENDER_COUNT);

    // Everyone was there and got everything, so that is what has to be told.
    let kept = std::mem::take(&mut *post.kept.lock().unwrap_or_else(PoisonError::into_inner));
    let waited = kept.open.into_iter().map(|(target, fate)| (target, fate.wait()));
    let told: Vec<_> = kept.told.into_iter().chain(waited).collect();
    assert!(told.len() > SENDER_COUNT * MESSAGE_COUNT / 5, "a third, but for those lost");
    for (target, told) in told {
        assert_eq!(told, reached(target.count(MEMBER_COUNT)), "{target:?}");
    }
}

#[test]
fn all_ways_of_sending_mix_and_what_is_told_is_what_happened() {
    within(LIMIT, || SHARD_COUNTS.into_iter().for_each(fly));
}

/// A client that gets some messages and vanishes: what it got.
fn read_and_vanish(mut member: Member, count: usize) -> Vec<String> {
    let mut next = || match member.socket.read().expect("a message") {
        tungstenite::Message::Text(text) => text.as_str().to_owned(),
        other => panic!("a text was expected, not {other:?}"),
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn nothing_that_a_leaver_got_is_told_to_be_lost() {
    const LEAVER_COUNT: usize = 60;
    const SENT_COUNT: usize = 80;
    within(LIMIT, || {
        let mut chance = Chance::new();
        for shards in SHARD_COUNTS {
            let post = Arc::new(Post { book: Book::new(1), kept: Mutex::default() });
            let running = start(shards, |app| {
                app.limits(Limits::default()).websocket("/", Mixing(Arc::clone(&post)))
            });
            let connect = |_| Member::connect(running.local_addr(), "/?member=0");
            let members: Vec<_> = (0..LEAVER_COUNT).map(connect).collect();
            let ids: Vec<ConnectionId> = members.iter().map(|member| member.id).collect();
            let counts: Vec<_> = ids.iter().map(|_| chance.below(SENT_COUNT)).collect();
            let (hub, ids) = (running.hub(), &ids);
            let (told, got): (Vec<_>, Vec<_>) = thread::scope(|scope| {
                let reading: Vec<_> = members
                    .into_iter()
                    .zip(counts)
                    .map(|(member, count)| scope.spawn(move || read_and_vanish(member, count)))
                    .collect();
                let sent: Vec<Vec<Delivery>> = (0..SENT_COUNT)
                    .map(|at| {
                        let send = |id| hub.send_to_async(id, at.to_string());
                        ids.iter().map(|id| send(*id)).collect()
                    })
                    .collect();
                let wait = |sent: Vec<Delivery>| sent.into_iter().map(block_on).collect();
                let told: Vec<Vec<Result<(), SendError>>> = sent.into_iter().map(wait).collect();
                let got = reading.into_iter().map(|one| one.join().expect("no panic")).collect();
                (told, got)
            });
            for (leaver, got) in got.iter().enumerate() {
                let told: Vec<_> = told.iter().map(|of_one| of_one[leaver]).collect();
                let delivered = told.iter().take_while(|told| told.is_ok()).count();
                assert!(told[delivered..].iter().all(|told| *told == Err(SendError::Gone)));
                assert!(got.len() <= delivered, "{} came, {delivered} were told of", got.len());
                assert!(got.iter().enumerate().all(|(at, text)| *text == at.to_string()));
            }
            let lost = told.iter().flatten().filter(|told| told.is_err()).count();
            assert_eq!(hub.dropped_count(), lost as u64);
            eventually(|| hub.connection_counts().iter().sum::<usize>() == 0);
        }
    });
}
