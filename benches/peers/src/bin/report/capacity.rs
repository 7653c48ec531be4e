//! How many messages a second a server echoes on one processor when it is never short of them.

use std::collections::BTreeMap;

use crate::Result;
use crate::campaign::Campaign;
use crate::results::Results;

/// The one that other parts take their rates from.
pub(crate) const SMALL: &str = "64 B, 1 in flight";

const CASES: [(&str, &str); 3] = [
    (SMALL, "--in-flight 1 --size 64"),
    ("64 B, 32 in flight", "--in-flight 32 --size 64"),
    ("16 KiB, 1 in flight", "--in-flight 1 --size 16384"),
];

pub(crate) fn measure(campaign: &mut Campaign) -> Result<()> {
    for round in 0..campaign.plan.round_count {
        for (case, load) in CASES {
            for name in campaign.order(round) {
                campaign.sample((case, &name, round), |campaign| {
                    let server = campaign.serve(&name, 1)?;
                    let times = campaign.plan.times();
                    let load = format!("--connections 100 --kind binary {load} {times}");
                    campaign.load(&server, "/echo", &load)
                });
            }
        }
    }
    if !campaign.plan.is_quick {
        for note in verdicts(campaign.results()) {
            campaign.note(note);
        }
    }
    Ok(())
}

/// How busy load generator and server were, in percent, if the generator was the busier one: then
/// it was the limit, and the rate is a lower bound.
pub(crate) fn busier_load(results: &Results, case: &str, server: &str) -> Option<(f64, f64)> {
    let load = results.median(case, server, "load_busy_percent")?;
    let own = results.median(case, server, "server_busy_percent")?;
    (load > own).then_some((load, own))
}

/// Where the load generator was the limit.
fn verdicts(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    for case in results.cases() {
        for server in results.servers() {
            if let Some((load, own)) = busier_load(results, case, server) {
                notes.push(format!(
                    "{case}, {server}: the load generator was busier ({load:.0} %) than the server \
                     ({own:.0} %): the rate is a lower bound"
                ));
            }
        }
    }
    notes
}

/// What one processor of the server would do if it were busy all the time: messages a second.
pub(crate) fn from_cpu(results: &Results, case: &str, server: &str) -> Option<f64> {
    Some(1e6 / results.median(case, server, "server_cpu_micros")?)
}

/// Each server's messages a second, small ones, one in flight, as it was measured before.
pub(crate) fn of_all(campaign: &Campaign) -> Result<BTreeMap<String, f64>> {
    let results = Results::load(&campaign.folder, "capacity")?;
    if !results.machine.is_like(&campaign.results().machine) {
        return Err("capacity.json is of another machine: measure capacity here first".into());
    }
    let rate = |name: &String| {
        let rate = results.median(SMALL, name, "rate");
        let rate = rate.ok_or_else(|| format!("capacity.json does not know {name}"))?;
        Ok((name.clone(), rate))
    };
    campaign.servers.iter().map(rate).collect()
}

/// The slowest server's.
pub(crate) fn of_slowest(campaign: &Campaign) -> Result<f64> {
    Ok(of_all(campaign)?.into_values().fold(f64::INFINITY, f64::min))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn a_busier_generator_is_said() {
        let rows = [
            ("small", "ours", 0, "server_busy_percent", 80.0),
            ("small", "ours", 0, "load_busy_percent", 99.0),
            ("small", "theirs", 0, "server_busy_percent", 99.0),
            ("small", "theirs", 0, "load_busy_percent", 80.0),
        ];
        let notes = verdicts(&results("capacity", &rows));
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("small, ours: the load generator was busier (99 %)"));
    }

    #[test]
    fn capacity_follows_from_the_processor_time_of_a_message() {
        let results = results("capacity", &[("small", "ours", 0, "server_cpu_micros", 4.0)]);
        assert_eq!(from_cpu(&results, "small", "ours"), Some(250_000.0));
    }
}
