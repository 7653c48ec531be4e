//! Topics come and go while publications are on their way: what was published to one never reaches
//! whoever subscribes to the next one that gets its place.

use std::collections::BTreeSet;
use std::thread;

use peregrine::RunningServer;

use super::LIMIT;
use super::chance::Chance;
use super::clerk::{Clerk, Party, open};
use super::common::{SHARD_COUNTS, within};

/// Each thread has an endpoint, members and topics of its own: what it does is in one order.
const PATHS: [&str; 3] = ["/a", "/b", "/c"];
const MEMBER_COUNT: usize = 70;
const TOPIC_COUNT: usize = 12;
const ROUND_COUNT: usize = 6;
const OPERATION_COUNT: usize = 500;

/// One thread's members, and what they have to get.
struct Model<'r> {
    running: &'r RunningServer,
    path: &'static str,
    chance: Chance,
    parties: Vec<Party>,
    expected: Vec<Vec<usize>>,
    /// By topic, the members.
    topics: Vec<BTreeSet<usize>>,
    sequence: usize,
}

impl<'r> Model<'r> {
    fn new(running: &'r RunningServer, path: &'static str, chance: Chance) -> Self {
        let parties: Vec<_> = (0..MEMBER_COUNT).map(|_| Party::connect(running, path)).collect();
        let (expected, topics) =
            (vec![Vec::new(); MEMBER_COUNT], vec![BTreeSet::new(); TOPIC_COUNT]);
        Self { running, path, chance, parties, expected, topics, sequence: 0 }
    }

    fn name(&self, topic: usize) -> String {
        format!("{}{topic}", self.path)
    }

    /// The next message: its number, and sometimes so much more that it takes another way.
    fn text(&mut self) -> String {
        self.sequence += 1;
        let padding = match self.chance.below(100) {
            0 => 17 << 10,
            1 => 5 << 10,
            _ => 0,
        };
        format!("{}{}", self.sequence, "_".repeat(padding))
    }

    fn operate(&mut self) {
        let hub = self.running.hub();
        let (topic, member) = (self.chance.below(TOPIC_COUNT), self.chance.below(MEMBER_COUNT));
        let (name, id) = (self.name(topic), self.parties[member].id);
        match self.chance.below(100) {
            0..30 => {
                hub.subscribe(id, &name).expect("room");
                self.topics[topic].insert(member);
            }
            30..42 => {
                hub.unsubscribe(id, &name).expect("room");
                self.topics[topic].remove(&member);
            }
            42..48 => {
                // The topic ends.
                for member in std::mem::take(&mut self.topics[topic]) {
                    hub.unsubscribe(self.parties[member].id, &name).expect("room");
                }
            }
            48..80 => {
                let text = self.text();
                hub.publish(&name, text).expect("room");
                self.expect(topic, None);
            }
            80..90 => {
                let text = self.text();
                hub.publish_except(&name, id, text).expect("room");
                self.expect(topic, Some(member));
            }
            90..99 => {
                let text = self.text();
                hub.send_to(id, text).expect("room");
                self.expected[member].push(self.sequence);
            }
            _ => self.replace(member),
        }
    }

    fn expect(&mut self, topic: usize, except: Option<usize>) {
        for &member in self.topics[topic].iter().filter(|&&member| Some(member) != except) {
            self.expected[member].push(self.sequence);
        }
    }

    /// A member leaves, having got all that was for it; another comes.
    fn replace(&mut self, member: usize) {
        let party = &mut self.parties[member];
        self.running.hub().close(party.id).expect("room");
        for &expected in &self.expected[member] {
            assert_eq!(sequence(&party.client.text()), expected);
        }
        assert_eq!(party.client.close_code(), 1000);
        self.expected[member].clear();
        for members in &mut self.topics {
            members.remove(&member);
        }
        *party = Party::connect(self.running, self.path);
    }

    fn check(&mut self) {
        let hub = self.running.hub();
        hub.broadcast(self.path, "fence").expect("room");
        for (party, expected) in self.parties.iter_mut().zip(&mut self.expected) {
            let got: Vec<_> = party.until("fence").iter().map(|text| sequence(text)).collect();
            assert_eq!(got, std::mem::take(expected));
        }
        for topic in 0..TOPIC_COUNT {
            assert_eq!(hub.subscriber_count(&self.name(topic)), self.topics[topic].len());
        }
    }
}

fn sequence(text: &str) -> usize {
    text.trim_end_matches('_').parse().expect("a number")
}

/// A client whose handler subscribes, unsubscribes and publishes to itself, on topics of its own.
fn talk_to_oneself(running: &RunningServer, at: usize, mut chance: Chance) {
    let mut party = Party::connect(running, "/");
    let mut topics = [false; 5];
    for call in 0..60 {
        let (mut orders, mut expected) = (Vec::new(), Vec::new());
        for step in 0..40 {
            let topic = chance.below(topics.len());
            let (name, text) = (format!("own_{at}_{topic}"), format!("{call}:{step}"));
            match chance.below(7) {
                0 | 1 => {
                    topics[topic] = true;
                    orders.push(format!("sub {name}"));
                }
                2 | 3 => {
                    topics[topic] = false;
                    orders.push(format!("unsub {name}"));
                }
                4 | 5 => {
                    expected.extend(topics[topic].then(|| text.clone()));
                    orders.push(format!("pub {name} {text}"));
                }
                _ => {
                    expected.push(text.clone());
                    orders.push(format!("say {text}"));
                }
            }
        }
        party.client.send(format!("{};say fence", orders.join(";")));
        assert_eq!(party.until("fence"), expected, "{orders:?}");
    }
}

#[test]
fn topics_that_come_and_go_under_load_deliver_exactly_what_is_for_their_members() {
    within(LIMIT, || {
        let mut chance = Chance::new();
        for shards in SHARD_COUNTS {
            let running =
                open(shards, |app| PATHS.iter().fold(app, |app, path| app.websocket(*path, Clerk)));
            thread::scope(|scope| {
                for path in PATHS {
                    let (running, chance) = (&running, chance.fork());
                    scope.spawn(move || {
                        let mut model = Model::new(running, path, chance);
                        for _ in 0..ROUND_COUNT {
                            (0..OPERATION_COUNT).for_each(|_| model.operate());
                            model.check();
                        }
                    });
                }
                for at in 0..3 {
                    let (running, chance) = (&running, chance.fork());
                    scope.spawn(move || talk_to_oneself(running, at, chance));
                }
            });
            // `replace` closes whoever has got everything.
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}
