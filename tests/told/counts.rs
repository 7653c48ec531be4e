//! The counts of a report add up to the members.

use std::thread;

use peregrine::{BroadcastDelivery, BroadcastReport, ConnectionId, Hub, OverflowPolicy};
use pollster::block_on;

use super::common::{Client, SHARD_COUNTS, within};
use super::courier::{BIG, Office, limits};
use super::raw::Raw;
use super::{LIMIT, is_pending};

/// The ways to reach all members and be told of it.
#[derive(Clone, Copy)]
enum Way {
    HubBroadcast,
    HubPublish,
    Broadcast,
    Publish,
}

const WAYS: [Way; 4] = [Way::HubBroadcast, Way::HubPublish, Way::Broadcast, Way::Publish];

impl Way {
    fn send(
        self,
        office: &Office,
        hub: &Hub,
        sender: &mut Client,
        size: usize,
    ) -> BroadcastDelivery {
        match self {
            Self::HubBroadcast => return hub.broadcast_async("/", vec![b'.'; size]),
            Self::HubPublish => return hub.publish_async("everybody", vec![b'.'; size]),
            Self::Broadcast => sender.send(format!("all {size}")),
            Self::Publish => sender.send(format!("pub everybody {size}")),
        }
        office.broadcast()
    }
}

fn counts(report: BroadcastReport) -> [usize; 3] {
    [report.reached_count, report.gone_count, report.overloaded_count]
}

#[test]
fn the_counts_tell_who_was_reached_who_had_no_room_and_who_left() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, limits(OverflowPolicy::DropNewest));
            let hub = office.running.hub();
            let mut fast = office.clients(shards);
            for way in WAYS {
                let mut slow: Vec<(Raw, ConnectionId)> =
                    (0..2 * shards).map(|_| office.slow()).collect();
                let mut big = way.send(&office, &hub, &mut fast[0].0, BIG);
                assert!(fast.iter_mut().all(|(client, _)| client.bytes().len() == BIG));
                // The slow ones have no room for as much again, which does not wait for them.
                let again = way.send(&office, &hub, &mut fast[0].0, BIG);
                assert!(fast.iter_mut().all(|(client, _)| client.bytes().len() == BIG));
                let again = counts(block_on(again).expect("room"));
                assert_eq!(again, [fast.len(), 0, slow.len()]);
                assert!(is_pending(&mut big), "it waits for the slow ones");
                // Half of them leave, the other half reads at last.
                let left = slow.split_off(shards);
                left.into_iter().for_each(|(raw, _)| raw.reset());
                assert!(is_pending(&mut big), "it waits for those who stay");
                let reading: Vec<_> = slow
                    .into_iter()
                    .map(|(mut raw, _)| thread::spawn(move || raw.frame().map(|_| raw)))
                    .collect();
                let big = counts(block_on(big).expect("room"));
                assert_eq!(big, [fast.len() + shards, shards, 0]);
                let members: Vec<_> = reading.into_iter().map(|raw| raw.join()).collect();
                drop(members);
                super::eventually(|| hub.subscriber_count("everybody") == fast.len());
            }
            // The slow ones missed the second one; the leavers were the first one's.
            assert_eq!(hub.dropped_count(), 4 * (2 + 1) * shards as u64);
        }
    });
}

#[test]
fn a_report_of_nobody_comes_at_once() {
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, peregrine::Limits::default());
            let hub = office.running.hub();
            assert_eq!(block_on(hub.broadcast_async("/", "?")), Ok(BroadcastReport::default()));
            assert_eq!(block_on(hub.publish_async("t", "?")), Ok(BroadcastReport::default()));
            let (mut client, _) = office.client();
            assert_eq!(block_on(hub.publish_async("t", "?")), Ok(BroadcastReport::default()));
            client.send("pub t 5;pub everybody 6");
            assert_eq!(counts(block_on(office.broadcast()).expect("room")), [0, 0, 0]);
            assert_eq!(counts(block_on(office.broadcast()).expect("room")), [1, 0, 0]);
            assert_eq!(client.bytes().len(), 6);
        }
    });
}

#[test]
fn every_report_adds_up_while_members_leave_and_read_slowly() {
    const FAST: usize = 9;
    const SLOW: usize = 3;
    const LEAVERS: usize = 60;
    within(LIMIT, || {
        for shards in SHARD_COUNTS {
            let office = Office::open(shards, limits(OverflowPolicy::DropOldest));
            let hub = office.running.hub();
            let mut fast: Vec<_> = (0..FAST).map(|_| office.client()).collect();
            let _slow: Vec<_> = (0..SLOW).map(|_| office.slow()).collect();
            let leavers: Vec<_> = (0..LEAVERS).map(|_| office.client()).collect();
            let leaving = thread::spawn(move || {
                for (at, (mut client, _)) in leavers.into_iter().enumerate() {
                    client.bytes();
                    match at % 3 {
                        0 => client.0.close(None).expect("an open connection"),
                        1 => client.send("close"),
                        _ => Raw::over(client.0.get_ref().try_clone().expect("a socket")).reset(),
                    }
                }
            });
            let mut reports = Vec::new();
            for at in 0..200 {
                reports.push(WAYS[at % 4].send(&office, &hub, &mut fast[0].0, 50_000));
                for (client, _) in &mut fast {
                    assert_eq!(client.bytes().len(), 50_000);
                }
            }
            leaving.join().expect("no panic");
            // The slow ones decide when: they go.
            drop(_slow);
            let mut reached = Vec::new();
            for report in reports {
                let [reached_count, gone_count, overloaded_count] =
                    counts(block_on(report).expect("room"));
                let total = reached_count + gone_count + overloaded_count;
                let members = FAST + SLOW..=FAST + SLOW + LEAVERS;
                assert!(members.contains(&total), "{total} is not in {members:?}");
                assert!(reached_count >= FAST, "{reached_count} were reached");
                // Who has not left yet reads slowly, too.
                assert!(overloaded_count <= SLOW + LEAVERS, "{overloaded_count} missed it");
                assert!(gone_count <= SLOW + LEAVERS);
                reached.push(reached_count);
            }
            assert!(reached[0] == FAST + SLOW + LEAVERS, "all were there at first");
        }
    });
}
