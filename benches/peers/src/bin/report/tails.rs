//! How long echoes take: at half and nearly all of what a server can do, and at a rate that all can
//! do, alone and while something else goes on. Open loop: a message that is sent late was waiting
//! since it was due.

use std::time::Duration;

use crate::Result;
use crate::campaign::{Campaign, Values};
use crate::capacity;
use crate::processes::{Load, Place, Server};

/// Until clients that are to be there have come.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How long a broadcast or a crowd lasts beyond what is measured beside it, in seconds.
const MARGIN: u64 = 3;

/// How fast echoes are asked for.
#[derive(Clone, Copy, Debug)]
enum Rate {
    /// Of what the server itself can do.
    Own(f64),
    /// Of what the slowest can do, the same for all.
    Slowest(f64),
}

/// What else goes on.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    /// Five times a second, 64 bytes, to everyone of many.
    Broadcast,
    /// Clients that connect, upgrade and leave.
    Visits,
    /// A hundred who never read what they are sent.
    Stalled,
}

pub(crate) const SAME: &str = "the same rate for all";
pub(crate) const BROADCASTS: &str = "the same, beside broadcasts";

const CASES: [(&str, Rate, Beside); 6] = [
    ("half of its capacity", Rate::Own(0.5), Beside::Nothing),
    ("90 % of its capacity", Rate::Own(0.9), Beside::Nothing),
    (SAME, Rate::Slowest(0.5), Beside::Nothing),
    (BROADCASTS, Rate::Slowest(0.5), Beside::Broadcast),
    ("the same, beside visits", Rate::Slowest(0.5), Beside::Visits),
    ("the same, beside stalled readers", Rate::Slowest(0.5), Beside::Stalled),
];

pub(crate) fn measure(campaign: &mut Campaign) -> Result<()> {
    let (own, slowest) = (capacity::of_all(campaign)?, capacity::of_slowest(campaign)?);
    for round in 0..campaign.plan.round_count {
        for (case, rate, beside) in CASES {
            for name in campaign.order(round) {
                let rate = match rate {
                    Rate::Own(share) => own[&name] * share,
                    Rate::Slowest(share) => slowest * share,
                };
                campaign.sample((case, &name, round), |campaign| {
                    let server = campaign.serve(&name, 1)?;
                    echo_beside(campaign, &server, rate, beside)
                });
            }
        }
    }
    Ok(())
}

fn echo_beside(
    campaign: &mut Campaign,
    server: &Server,
    rate: f64,
    beside: Beside,
) -> Result<Values> {
    let others = start(campaign, server, beside)?;
    let mut values = echo(campaign, server, rate)?;
    for (name, load) in others {
        let theirs = load.finish(ARRIVAL)?;
        // A server may turn visitors away; what is wanted of it here are the others' echoes.
        if let Some(errors) = &theirs.errors {
            eprintln!("  {name}: {errors}");
        }
        for figure in ["rate", "thrown_out_count"] {
            let value = theirs.values.get(figure).copied().unwrap_or_default();
            values.insert(format!("{name}_{figure}"), value);
        }
    }
    Ok(values)
}

/// What is measured: a hundred connections, 64 bytes, evenly spread.
pub(crate) fn echo(campaign: &mut Campaign, server: &Server, rate: f64) -> Result<Values> {
    let times = campaign.plan.times();
    let options = format!("--connections 100 --kind binary --size 64 --rate {rate:.0} {times}");
    let mut values = campaign.load(server, "/echo", &options)?;
    values.insert("wanted_rate".to_owned(), rate.round());
    Ok(values)
}

/// Starts what goes on beside, with its name, and waits until it does.
fn start(
    campaign: &mut Campaign,
    server: &Server,
    beside: Beside,
) -> Result<Vec<(&'static str, Load)>> {
    let seconds = campaign.plan.all_seconds() + MARGIN;
    let members = campaign.plan.member_count;
    let mut put =
        |path: &str, options: &str| campaign.start_load(Place::LoadIdle, server, path, options);
    Ok(match beside {
        Beside::Nothing => Vec::new(),
        Beside::Broadcast => {
            let what = format!("--mode broadcast --connections {members} --size 64 --rate 5");
            let load = put("/all", &format!("{what} --duration {seconds}"))?;
            server.await_clients(members, ARRIVAL)?;
            vec![("broadcast", load)]
        }
        Beside::Visits => {
            // A port that was used is not used again for a minute: several addresses have enough.
            let from = "127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5";
            let what = format!("--mode visit --rate 5000 --from {from} --duration {seconds}");
            vec![("visit", put("/echo", &what)?)]
        }
        Beside::Stalled => {
            let crowd =
                put("/all", &format!("--mode stall --connections 100 --duration {seconds}"))?;
            server.await_clients(100, ARRIVAL)?;
            // The kernel's buffers are full in a second, the server's own 1 MiB in seven.
            let what = "--mode broadcast --connections 1 --size 16384 --rate 10";
            let speaker = put("/all", &format!("{what} --duration {seconds}"))?;
            vec![("stalled", crowd), ("speaker", speaker)]
        }
    })
}
