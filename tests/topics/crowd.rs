//! Many topics, many subscribers, many who publish at once.

use std::collections::BTreeMap;
use std::thread;

use super::LIMIT;
use super::chance::Chance;
use super::clerk::{Party, open};
use super::common::{SHARD_COUNTS, eventually, within};

const TOPIC_COUNT: usize = 500;
const MEMBER_COUNT: usize = 200;
const TOPICS_PER_MEMBER: usize = 10;
/// Senders: the handlers of so many members, then so many threads.
const HANDLER_COUNT: usize = 8;
const THREAD_COUNT: usize = 3;
const SENDER_COUNT: usize = HANDLER_COUNT + THREAD_COUNT;
/// How many publications each sender makes.
const PUBLISH_COUNT: usize = 1200;

/// What each member got of each sender: the sequence numbers, as they came.
fn receive(party: &mut Party) -> BTreeMap<usize, Vec<usize>> {
    let mut got: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut fence_count = 0;
    while fence_count < SENDER_COUNT {
        let text = party.client.text();
        match text.split_once(':') {
            Some((sender, sequence)) => {
                let sender = sender.parse().expect("a sender");
                got.entry(sender).or_default().push(sequence.parse().expect("a number"));
            }
            None => fence_count += 1,
        }
    }
    got
}

/// Lets all senders publish what they plan to, at once, and then raise their fences.
fn publish(running: &peregrine::RunningServer, parties: &mut [Party], plans: &[Vec<usize>]) {
    thread::scope(|scope| {
        for (sender, plan) in plans.iter().enumerate().skip(HANDLER_COUNT) {
            let hub = running.hub();
            scope.spawn(move || {
                for (at, topic) in plan.iter().enumerate() {
                    let name = format!("topic_{topic}");
                    hub.publish(&name, format!("{sender}:{at}")).expect("room");
                }
                hub.broadcast("/", "fence").expect("room");
            });
        }
        for at in (0..PUBLISH_COUNT).step_by(20) {
            for (sender, plan) in plans.iter().enumerate().take(HANDLER_COUNT) {
                let orders: Vec<_> = (at..at + 20)
                    .map(|at| format!("pub topic_{} {sender}:{at}", plan[at]))
                    .collect();
                parties[sender * MEMBER_COUNT / HANDLER_COUNT].client.send(orders.join(";"));
            }
        }
        for sender in 0..HANDLER_COUNT {
            parties[sender * MEMBER_COUNT / HANDLER_COUNT].client.send("all fence");
        }
    });
}

#[test]
fn publications_to_many_topics_arrive_exactly_once_and_in_order() {
    within(LIMIT, || {
        let mut chance = Chance::new();
        for shards in SHARD_COUNTS {
            let running = open(shards, |app| app);
            let hub = running.hub();
            let mut parties = Party::meet(&running, "/", MEMBER_COUNT);
            let mut topics = vec![Vec::new(); MEMBER_COUNT];
            for (party, topics) in parties.iter_mut().zip(&mut topics) {
                while topics.len() < TOPICS_PER_MEMBER {
                    let topic = chance.below(TOPIC_COUNT);
                    if topics.contains(&topic) {
                        continue;
                    }
                    topics.push(topic);
                    let name = format!("topic_{topic}");
                    match chance.below(2) {
                        0 => party.client.send(format!("sub {name}")),
                        _ => hub.subscribe(party.id, &name).expect("room"),
                    }
                }
                party.order("unsub nobody's");
            }
            let total = || -> usize {
                (0..TOPIC_COUNT).map(|topic| hub.subscriber_count(&format!("topic_{topic}"))).sum()
            };
            eventually(|| total() == MEMBER_COUNT * TOPICS_PER_MEMBER);

            let plans: Vec<Vec<usize>> = (0..SENDER_COUNT)
                .map(|_| (0..PUBLISH_COUNT).map(|_| chance.below(TOPIC_COUNT)).collect())
                .collect();
            publish(&running, &mut parties, &plans);
            for (member, (party, topics)) in parties.iter_mut().zip(&topics).enumerate() {
                let got = receive(party);
                for (sender, plan) in plans.iter().enumerate() {
                    let due = plan.iter().enumerate().filter(|(_, topic)| topics.contains(topic));
                    let expected: Vec<_> = due.map(|(at, _)| at).collect();
                    let got = got.get(&sender).map_or(&[][..], Vec::as_slice);
                    assert_eq!(got, expected, "{shards} shards, {sender} to {member}");
                }
            }
            assert_eq!(hub.dropped_count(), 0);
            drop(parties);
            eventually(|| total() == 0);
        }
    });
}
