//! Who sent what to whom, what the sender was told, and whether it all came true.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use peregrine::SendError;

/// What every message carries: its sender, and how many that one had sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sender: usize,
    pub(crate) sequence: usize,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sender, self.sequence)
    }
}

impl Stamp {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (sender, sequence) = text.split_once(':')?;
        Some(Self { sender: sender.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// Whom a message addresses, by their index in the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    All,
    AllBut(usize),
    One(usize),
    /// Whoever subscribes to this topic; see [`topics_of`].
    Topic(usize),
}

pub(crate) const TOPIC_COUNT: usize = 32;

/// The topics of a member: sometimes the same twice.
pub(crate) fn topics_of(member: usize) -> [usize; 2] {
    [member % TOPIC_COUNT, member / TOPIC_COUNT % TOPIC_COUNT]
}

impl Target {
    pub(crate) fn includes(self, member: usize) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(other) => other != member,
            Self::One(one) => one == member,
            Self::Topic(topic) => topics_of(member).contains(&topic),
        }
    }

    /// How many of so many members it includes.
    pub(crate) fn count(self, member_count: usize) -> usize {
        match self {
            Self::All => member_count,
            Self::AllBut(_) => member_count - 1,
            Self::One(_) => 1,
            Self::Topic(_) => (0..member_count).filter(|&member| self.includes(member)).count(),
        }
    }
}

type Entries = Vec<(Target, Result<(), SendError>)>;

/// One page for each sender. A sender sends one message at a time.
pub(crate) struct Ledger {
    pages: Vec<Mutex<Entries>>,
}

impl Ledger {
    pub(crate) fn new(sender_count: usize) -> Self {
        Self { pages: (0..sender_count).map(|_| Mutex::default()).collect() }
    }

    /// Sends the sender's next message by `send` and notes what it was told.
    pub(crate) fn send(
        &self,
        sender: usize,
        target: Target,
        send: impl FnOnce(String) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let mut page = self.page(sender);
        let result = send(Stamp { sender, sequence: page.len() }.to_string());
        page.push((target, result));
        result
    }

    fn page(&self, sender: usize) -> std::sync::MutexGuard<'_, Entries> {
        self.pages[sender].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages a sender has tried to send.
    pub(crate) fn len(&self, sender: usize) -> usize {
        self.page(sender).len()
    }

    /// How many messages were tried in all.
    pub(crate) fn total(&self) -> usize {
        (0..self.pages.len()).map(|sender| self.len(sender)).sum()
    }

    /// How many messages were refused; always because of overload.
    pub(crate) fn refused_count(&self) -> usize {
        let refused = |sender| {
            let page = self.page(sender);
            let errors = page.iter().filter_map(|(_, result)| result.err());
            errors.inspect(|error| assert_eq!(*error, SendError::Overloaded)).count()
        };
        (0..self.pages.len()).map(refused).sum()
    }

    /// How many messages have to arrive at a swarm of so many members.
    pub(crate) fn delivery_count(&self, member_count: usize) -> usize {
        let accepted = |sender| {
            let page = self.page(sender);
            let accepted = page.iter().filter(|(_, result)| result.is_ok());
            accepted.map(|(target, _)| target.count(member_count)).sum()
        };
        (0..self.pages.len()).map(accepted).collect::<Vec<usize>>().into_iter().sum()
    }

    /// Panics unless each member got exactly what was accepted for it, in each sender's order.
    pub(crate) fn check(&self, received: &[Vec<Stamp>]) {
        let mut differences = Vec::new();
        for (member, stamps) in received.iter().enumerate() {
            let mut by_sender: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for stamp in stamps {
                by_sender.entry(stamp.sender).or_default().push(stamp.sequence);
            }
            for sender in 0..self.pages.len() {
                let got = by_sender.remove(&sender).unwrap_or_default();
                let expected: Vec<usize> = self
                    .page(sender)
                    .iter()
                    .enumerate()
                    .filter(|(_, (target, result))| result.is_ok() && target.includes(member))
                    .map(|(sequence, _)| sequence)
                    .collect();
                if got != expected {
                    differences.push(difference(member, sender, &got, &expected));
                }
            }
            assert!(by_sender.is_empty(), "member {member} got messages that nobody sent");
        }
        let first: Vec<_> = differences.iter().take(20).map(String::as_str).collect();
        assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), first.join("\n"));
    }
}

fn difference(member: usize, sender: usize, got: &[usize], expected: &[usize]) -> String {
    let same = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    format!(
        "member {member} got {} messages of sender {sender} instead of {}; after {same} right ones \
         came {:?}, not {:?}",
        got.len(),
        expected.len(),
        &got[same..got.len().min(same + 8)],
        &expected[same..expected.len().min(same + 8)],
    )
}
