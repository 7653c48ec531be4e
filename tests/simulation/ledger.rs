//! The account: what was sent by whom to whom, what was said of it, and what has arrived.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use peregrine::{BroadcastDelivery, ConnectionId, Delivery, Message, SendError};

use crate::stream::Said;

/// When something happened, in the order of all that did; also a message's name.
pub type Moment = u64;
pub type ClientIndex = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    Hub,
    HandlerOf(ClientIndex),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    One(ClientIndex),
    Everyone { path: &'static str, except: Option<ClientIndex> },
    Topic { topic: &'static str, except: Option<ClientIndex> },
}

/// What is known of a message's fate.
#[derive(Debug)]
pub enum Fate {
    /// `Ok`: it arrives, or is counted as dropped.
    Accepted,
    Refused(SendError),
    Pending(Delivery),
    Told(Result<(), SendError>),
    PendingMany(BroadcastDelivery),
    /// So many got it, so many did not.
    ToldMany(usize, usize),
    /// A message in pieces, which is not finished.
    Unfinished,
}

pub struct Sent {
    from: Sender,
    to: To,
    is_text: bool,
    pub body: Vec<u8>,
    pub fate: Fate,
    reached: BTreeSet<ClientIndex>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, fate, reached, body, .. } = self;
        let bytes = body.len();
        write!(f, "{bytes} bytes of {from:?} to {to:?}: {fate:?}, reached {reached:?}")
    }
}

impl Sent {
    pub fn message(&self) -> Message<'_> {
        match self.is_text {
            true => Message::Text(std::str::from_utf8(&self.body).expect("letters")),
            false => Message::Binary(&self.body),
        }
    }
}

/// A client, as handlers and the hub know it.
#[derive(Debug)]
pub struct Person {
    pub path: &'static str,
    pub id: Option<ConnectionId>,
    pub connected_at: Option<Moment>,
    pub connect_count: usize,
    pub close_count: usize,
    /// How many of its messages have come to its handler.
    pub heard_count: usize,
    /// What came of the one that is coming in pieces.
    pub pieces: Option<Vec<u8>>,
    /// The topics that it may ever have been subscribed to.
    pub topics: BTreeSet<&'static str>,
    /// Those it is subscribed to since then for sure.
    pub firm_topics: BTreeMap<&'static str, Moment>,
    /// Those it has left since then for sure.
    pub left_topics: BTreeMap<&'static str, Moment>,
    /// Those that the hub has ever spoken of: nobody knows when that takes effect.
    pub loose_topics: BTreeSet<&'static str>,
    /// Why it may close: nobody closes without a reason.
    pub reasons: BTreeSet<Reason>,
    pub close_code: Option<u16>,
    last: BTreeMap<Sender, Moment>,
    /// The last message that it got of anybody but its own handler, or of its own handler by a
    /// publication.
    last_agreed: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its handler panicked, before any other reason came up.
    PanickedFirst,
    Panicked,
    Abandoned,
    ClosedByApplication,
    ClosedByClient,
    /// The client has broken the protocol, or its connection.
    Misbehaved,
    /// The outbox is small, or time has passed, or the server shuts down.
    Limits,
    Time,
    ShutdownPlan,
}

#[derive(Debug, Default)]
pub struct Ledger {
    now: Moment,
    sent: BTreeMap<Moment, Sent>,
    by_body: HashMap<Vec<u8>, Moment>,
    pub people: Vec<Person>,
    /// Something was published whose number of receivers nobody tells.
    pub has_untold: bool,
    pub is_shutting_down: bool,
}

impl Ledger {
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub fn arrive(&mut self, path: &'static str) {
        self.people.push(Person {
            path,
            id: None,
            connected_at: None,
            connect_count: 0,
            close_count: 0,
            heard_count: 0,
            pieces: None,
            topics: BTreeSet::new(),
            firm_topics: BTreeMap::new(),
            left_topics: BTreeMap::new(),
            loose_topics: BTreeSet::new(),
            reasons: BTreeSet::new(),
            close_code: None,
            last: BTreeMap::new(),
            last_agreed: 0,
        });
    }

    /// Writes down a message before it is sent.
    pub fn compose(&mut self, from: Sender, to: To, bytes: usize) -> Moment {
        let name = self.moment();
        let mut body = format!("m{name}:").into_bytes();
        let letter = b'a' + u8::try_from(name % 26).expect("a letter");
        body.extend(std::iter::repeat_n(letter, bytes));
        self.write_down(name, from, to, body, name.is_multiple_of(2))
    }

    /// Writes down that a client's message is sent back.
    pub fn echo(&mut self, client: ClientIndex, message: Message<'_>) {
        let (name, is_text) = (self.moment(), message.as_text().is_some());
        let (from, to) = (Sender::HandlerOf(client), To::One(client));
        let body = message.as_bytes().to_vec();
        self.write_down(name, from, to, body, is_text);
        self.settle(name, Fate::Accepted);
    }

    fn write_down(
        &mut self,
        name: Moment,
        from: Sender,
        to: To,
        body: Vec<u8>,
        is_text: bool,
    ) -> Moment {
        self.by_body.insert(body.clone(), name);
        let fate = Fate::Unfinished;
        let reached = BTreeSet::new();
        self.sent.insert(name, Sent { from, to, is_text, body, fate, reached });
        name
    }

    pub fn get(&self, name: Moment) -> &Sent {
        &self.sent[&name]
    }

    /// A piece of a message was accepted.
    pub fn append(&mut self, name: Moment, piece: &[u8]) {
        let sent = self.sent.get_mut(&name).expect("it was written down");
        self.by_body.remove(&sent.body);
        sent.body.extend_from_slice(piece);
        self.by_body.insert(sent.body.clone(), name);
    }

    pub fn begin_stream(&mut self, client: ClientIndex) -> Moment {
        let name = self.moment();
        let (from, to) = (Sender::HandlerOf(client), To::One(client));
        self.write_down(name, from, to, Vec::new(), false)
    }

    pub fn settle(&mut self, name: Moment, fate: Fate) {
        let sent = self.sent.get_mut(&name).expect("it was written down");
        if matches!(fate, Fate::Accepted) && !matches!(sent.to, To::One(_)) {
            self.has_untold = true;
        }
        if let Fate::Refused(error) = fate {
            let is_right = match (error, &sent.to) {
                (SendError::ShuttingDown, _) => self.is_shutting_down,
                (SendError::Closed, To::One(to)) => sent.from == Sender::HandlerOf(*to),
                (SendError::Gone, To::One(to)) => !self.people[*to].reasons.is_empty(),
                (SendError::Overloaded, _) => true,
                _ => false,
            };
            assert!(is_right, "{name} was refused with {error:?}");
        }
        sent.fate = fate;
        self.look_at(name);
    }

    /// What `send` and its kin have said.
    pub fn settle_sync(&mut self, name: Moment, outcome: Result<(), SendError>) {
        self.settle(name, outcome.map_or_else(Fate::Refused, |()| Fate::Accepted));
    }

    /// An answer that is there at once is a refusal.
    pub fn settle_told(&mut self, name: Moment, mut delivery: Delivery) {
        let fate = match poll(&mut delivery) {
            Poll::Ready(Err(error)) => Fate::Refused(error),
            Poll::Ready(Ok(())) => panic!("nothing is written within a call"),
            Poll::Pending => Fate::Pending(delivery),
        };
        self.settle(name, fate);
    }

    /// As of [`settle_told`](Self::settle_told); but nobody may be there.
    pub fn settle_told_many(&mut self, name: Moment, mut delivery: BroadcastDelivery) {
        let fate = match poll(&mut delivery) {
            Poll::Ready(Err(error)) => Fate::Refused(error),
            Poll::Ready(Ok(report)) => {
                Fate::ToldMany(report.reached_count, report.gone_count + report.overloaded_count)
            }
            Poll::Pending => Fate::PendingMany(delivery),
        };
        self.settle(name, fate);
    }

    /// What the kernel has taken of a client's messages.
    pub fn reach(&mut self, client: ClientIndex, said: &Said) {
        let (body, is_text) = match said {
            Said::Text(body) => (body, true),
            Said::Binary(body) => (body, false),
            _ => return,
        };
        let name = *self.by_body.get(body).unwrap_or_else(|| {
            let text: String = String::from_utf8_lossy(body).chars().take(60).collect();
            panic!("nobody has sent this to {client}: {text:?} ({} bytes)", body.len())
        });
        let sent = self.sent.get_mut(&name).expect("it was written down");
        assert_eq!(sent.is_text, is_text, "the kind of {name}");
        let person = &mut self.people[client];
        let is_meant = match sent.to {
            To::One(one) => one == client,
            To::Everyone { path, except } => path == person.path && except != Some(client),
            To::Topic { topic, except } => {
                let has_left = person.left_topics.get(topic).is_some_and(|&since| since < name);
                let is_loose = person.loose_topics.contains(topic);
                let is_subscriber = person.topics.contains(topic) && (is_loose || !has_left);
                is_subscriber && except != Some(client)
            }
        };
        assert!(is_meant, "{name} is for {:?}, and {client} got it", sent.to);
        assert!(!matches!(sent.fate, Fate::Refused(_) | Fate::Told(Err(_))), "{name} was refused");
        assert!(sent.reached.insert(client), "{name} has reached {client} twice");
        let last = person.last.insert(sent.from, name).unwrap_or_default();
        assert!(last < name, "{client} got {name} of {:?} after {last}", sent.from);
        // Each call had returned before the next one began: all members see that order. Only what
        // a handler says to its own connection alone may come before what was accepted before.
        if sent.from != Sender::HandlerOf(client) || sent.to != To::One(client) {
            let last = std::mem::replace(&mut person.last_agreed, name);
            assert!(last < name, "{client} got {name} of {:?} after {last}", sent.from);
        }
    }

    /// Asks what there is to be told, and checks that it is true.
    pub fn look(&mut self) {
        let is_pending = |sent: &Sent| matches!(sent.fate, Fate::Pending(_) | Fate::PendingMany(_));
        let pending: Vec<Moment> =
            self.sent.iter().filter(|(_, sent)| is_pending(sent)).map(|(&name, _)| name).collect();
        pending.into_iter().for_each(|name| self.look_at(name));
    }

    fn look_at(&mut self, name: Moment) {
        let sent = self.sent.get_mut(&name).expect("it was written down");
        match &mut sent.fate {
            Fate::Pending(delivery) => {
                let Poll::Ready(told) = poll(delivery) else { return };
                assert_eq!(told.is_ok(), sent.reached.len() == 1, "{name} was told {told:?}");
                sent.fate = Fate::Told(told);
            }
            Fate::PendingMany(delivery) => {
                let Poll::Ready(told) = poll(delivery) else { return };
                let report = told.expect("it was accepted");
                let (reached, others) =
                    (report.reached_count, report.gone_count + report.overloaded_count);
                assert_eq!(reached, sent.reached.len(), "{name} was told {report:?}");
                sent.fate = Fate::ToldMany(reached, others);
            }
            _ => {}
        }
    }

    /// Everything is over: nothing is open, and every message is accounted for.
    pub fn close_account(&mut self, dropped_count: u64, are_all_told: bool) {
        self.look();
        let mut missing = 0;
        for (name, sent) in &self.sent {
            let reached = sent.reached.len();
            missing += match &sent.fate {
                Fate::Pending(_) | Fate::PendingMany(_) => {
                    assert!(!are_all_told, "nobody tells what became of {name}");
                    return;
                }
                Fate::Refused(_) | Fate::Unfinished => {
                    assert_eq!(reached, 0, "{name} was not sent");
                    0
                }
                Fate::ToldMany(told, others) => {
                    assert_eq!(*told, reached, "{name} reached others than was told");
                    *others
                }
                Fate::Told(told) => {
                    assert_eq!(usize::from(told.is_ok()), reached, "{name} was told {told:?}");
                    1 - reached
                }
                Fate::Accepted if matches!(sent.to, To::One(_)) => 1 - reached,
                Fate::Accepted => 0,
            };
        }
        let dropped = usize::try_from(dropped_count).expect("a count");
        let is_missing = |sent: &Sent| match sent.fate {
            Fate::Refused(_) => false,
            Fate::ToldMany(_, others) => others > 0,
            _ => sent.reached.is_empty(),
        };
        let is_right = dropped == missing || (self.has_untold && dropped > missing);
        if !is_right {
            let missed = self.sent.iter().filter(|(_, sent)| is_missing(sent));
            let missed: Vec<String> = missed.map(|missed| format!("{missed:?}")).collect();
            panic!("{missing} are missing, {dropped} counted as dropped: {}", missed.join("\n"));
        }
    }

    /// Nothing is on its way: who is there and has room has got all that is for it.
    pub fn check_arrivals(&self) {
        for (client, person) in self.people.iter().enumerate() {
            let Some(since) = person.stays_since() else { continue };
            for (&name, sent) in &self.sent {
                let is_meant = match &sent.to {
                    To::One(one) => *one == client,
                    To::Everyone { path, except } => {
                        *path == person.path && *except != Some(client) && since < name
                    }
                    To::Topic { topic, except } => {
                        let since = person.firm_topics.get(topic);
                        *except != Some(client) && since.is_some_and(|&since| since < name)
                    }
                };
                let is_accepted = !matches!(sent.fate, Fate::Refused(_) | Fate::Unfinished);
                if is_meant && is_accepted {
                    assert!(
                        sent.reached.contains(&client),
                        "{client} has not got {name}: {sent:?}"
                    );
                }
            }
        }
    }
}

impl Person {
    pub fn is_open(&self) -> bool {
        self.connect_count == 1 && self.close_count == 0
    }

    /// Since when it is open, with room for everything.
    fn stays_since(&self) -> Option<Moment> {
        let is_bounded = self.reasons.contains(&Reason::Limits);
        self.connected_at.filter(|_| self.is_open() && !is_bounded)
    }

    pub fn give_reason(&mut self, reason: Reason) {
        if reason == Reason::Panicked && self.reasons.is_empty() {
            self.reasons.insert(Reason::PanickedFirst);
        }
        self.reasons.insert(reason);
    }

    /// Its Close frame has a reason.
    pub fn check_close(&mut self, code: u16) {
        self.close_code = Some(code);
        let has = |reasons: &[Reason]| reasons.iter().any(|reason| self.reasons.contains(reason));
        let is_right = match code {
            1011 => has(&[Reason::Panicked, Reason::Abandoned]),
            1002 | 1003 | 1007 | 1008 | 1009 => has(&[Reason::Misbehaved]),
            1013 => has(&[Reason::Limits]),
            1001 => has(&[Reason::Time, Reason::ShutdownPlan]),
            4001 => has(&[Reason::ClosedByApplication]),
            4002 => has(&[Reason::ClosedByClient]),
            _ => false,
        };
        assert!(is_right, "closed with {code}: {:?}", self.reasons);
        if self.reasons.contains(&Reason::PanickedFirst) && !has(&[Reason::Limits, Reason::Time]) {
            assert_eq!(code, 1011, "its handler panicked");
        }
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
