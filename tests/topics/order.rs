//! What one sender sends to one target arrives in the order sent, by whatever of the ways.

use std::thread;

use peregrine::Hub;

use super::LIMIT;
use super::chance::Chance;
use super::clerk::{Party, enough_for, open};
use super::common::{SHARD_COUNTS, within};

/// One message, and whom it is for.
#[derive(Clone, Copy)]
enum Way {
    /// To this one.
    Send(usize),
    /// To everybody.
    Broadcast,
    /// To those whose index leaves this rest when divided by three.
    Publish(usize),
    /// The same, but for one.
    PublishExcept(usize, usize),
}

impl Way {
    fn any(chance: &mut Chance, member_count: usize) -> Self {
        match chance.below(8) {
            0..=2 => Self::Send(chance.below(member_count)),
            3 => Self::Broadcast,
            4..=6 => Self::Publish(chance.below(3)),
            _ => Self::PublishExcept(chance.below(3), chance.below(member_count)),
        }
    }

    fn is_for(self, member: usize) -> bool {
        match self {
            Self::Send(one) => one == member,
            Self::Broadcast => true,
            Self::Publish(rest) => member % 3 == rest,
            Self::PublishExcept(rest, other) => member % 3 == rest && member != other,
        }
    }

    /// As the clerk of member `own` is told; it can leave out only itself.
    fn order(self, text: &str, parties: &[Party]) -> String {
        match self {
            Self::Send(member) => format!("to {} {text}", parties[member].id),
            Self::Broadcast => format!("all {text}"),
            Self::Publish(rest) => format!("pub t{rest} {text}"),
            Self::PublishExcept(rest, _) => format!("others t{rest} {text}"),
        }
    }

    fn send(self, hub: &Hub, text: &str, parties: &[Party]) {
        match self {
            Self::Send(member) => hub.send_to(parties[member].id, text),
            Self::Broadcast => hub.broadcast("/", text),
            Self::Publish(rest) => hub.publish(&format!("t{rest}"), text),
            Self::PublishExcept(rest, member) => {
                hub.publish_except(&format!("t{rest}"), parties[member].id, text)
            }
        }
        .expect("room");
    }
}

fn subscribed(shards: usize) -> (peregrine::RunningServer, Vec<Party>) {
    let running = open(shards, |app| app);
    let mut parties = Party::meet(&running, "/", enough_for(shards));
    for (at, party) in parties.iter_mut().enumerate() {
        party.order(&format!("sub t{}", at % 3));
    }
    (running, parties)
}

/// A message: its number, and sometimes a lot after it.
fn text(sequence: usize, chance: &mut Chance) -> String {
    let padding = match chance.below(40) {
        0 => 17 << 10,
        1 => 5 << 10,
        2 => 300,
        _ => 0,
    };
    format!("{sequence}{}", "_".repeat(padding))
}

fn sequence(text: &str) -> usize {
    text.trim_end_matches('_').parse().expect("a number")
}

fn check(shards: usize, parties: &mut [Party], ways: &[Way]) {
    for (member, party) in parties.iter_mut().enumerate() {
        let got: Vec<_> = party.until("fence").iter().map(|text| sequence(text)).collect();
        let due = ways.iter().enumerate().filter(|(_, way)| way.is_for(member));
        let expected: Vec<_> = due.map(|(sequence, _)| sequence).collect();
        assert!(got == expected, "{shards} shards, {member}: {got:?} instead of {expected:?}");
    }
}

#[test]
fn a_handlers_sends_broadcasts_and_publications_to_one_target_keep_their_order() {
    within(LIMIT, || {
        let mut chance = Chance::new();
        for shards in SHARD_COUNTS {
            let (running, mut parties) = subscribed(shards);
            for sender in 0..parties.len() {
                let ways: Vec<_> = (0..600)
                    .map(|_| match Way::any(&mut chance, parties.len()) {
                        Way::PublishExcept(rest, _) => Way::PublishExcept(rest, sender),
                        way => way,
                    })
                    .collect();
                // Some in one call, some in calls of their own, which may be one packet.
                let mut orders = ways.iter().enumerate().peekable();
                while orders.peek().is_some() {
                    let call: Vec<_> = orders
                        .by_ref()
                        .take(1 + chance.below(30))
                        .map(|(at, way)| way.order(&text(at, &mut chance), &parties))
                        .collect();
                    parties[sender].client.send(call.join(";"));
                }
                parties[sender].client.send("all fence");
                check(shards, &mut parties, &ways);
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}

#[test]
fn a_threads_sends_broadcasts_and_publications_to_one_target_keep_their_order() {
    within(LIMIT, || {
        let mut chance = Chance::new();
        for shards in SHARD_COUNTS {
            let (running, mut parties) = subscribed(shards);
            for _ in 0..4 {
                let count = parties.len();
                let ways: Vec<_> = (0..1000).map(|_| Way::any(&mut chance, count)).collect();
                thread::scope(|scope| {
                    let (hub, mut chance) = (running.hub(), chance.fork());
                    let (ways, parties) = (&ways, &parties);
                    scope.spawn(move || {
                        for (at, way) in ways.iter().enumerate() {
                            way.send(&hub, &text(at, &mut chance), parties);
                        }
                        hub.broadcast("/", "fence").expect("room");
                    });
                });
                check(shards, &mut parties, &ways);
            }
            assert_eq!(running.hub().dropped_count(), 0);
        }
    });
}
