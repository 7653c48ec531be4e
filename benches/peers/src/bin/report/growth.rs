//! What a message and a connection cost as connections grow in number, and what a second shard
//! brings.

use crate::Result;
use crate::campaign::Campaign;
use crate::processes::Place;
use crate::results::Results;

/// Messages a second of all connections together, whatever their number.
const RATE: usize = 20_000;
/// Addresses that clients come from: each has ports for 28 000 connections to a server's port.
const FROM: &str = "127.0.0.1,127.0.0.2";

pub(crate) fn echoing(connection_count: usize) -> String {
    format!("{connection_count} echo")
}

pub(crate) fn idle(connection_count: usize) -> String {
    format!("{connection_count} idle")
}

/// All numbers of connections that were measured.
pub(crate) fn counts(results: &Results) -> Vec<usize> {
    let count = |case: &str| case.strip_suffix(" idle")?.parse().ok();
    results.cases().into_iter().filter_map(count).collect()
}

pub(crate) fn shards(shard_count: usize) -> String {
    match shard_count {
        1 => "1 shard".to_owned(),
        _ => format!("{shard_count} shards"),
    }
}

pub(crate) fn measure(campaign: &mut Campaign) -> Result<()> {
    let times = campaign.plan.times();
    // What is compared is no tail: two rounds, in opposite directions.
    for round in 0..campaign.plan.round_count.min(2) {
        for &count in campaign.plan.connection_counts {
            for name in campaign.order(round) {
                let crowd = format!("--connections {count} --from {FROM}");
                campaign.sample((&idle(count), &name, round), |campaign| {
                    let server = campaign.serve(&name, 1)?;
                    let idle = format!("--mode idle {crowd} --duration 1");
                    campaign.load(&server, "/echo", &idle)
                });
                campaign.sample((&echoing(count), &name, round), |campaign| {
                    let server = campaign.serve(&name, 1)?;
                    let echo = format!("{crowd} --kind binary --size 64 --rate {RATE} {times}");
                    campaign.load(&server, "/echo", &echo)
                });
            }
        }
    }
    for round in 0..campaign.plan.round_count {
        for shard_count in [1, 2] {
            campaign.sample((&shards(shard_count), "peregrine", round), |campaign| {
                let server = campaign.serve("peregrine", shard_count)?;
                let echo = "--connections 100 --in-flight 32 --kind binary --size 64";
                let place = if shard_count == 1 { Place::Load } else { Place::Anywhere };
                campaign.load_at(place, &server, "/echo", &format!("{echo} {times}"))
            });
        }
    }
    Ok(())
}
