//! Whether one connection that asks for much takes it from the others: their p99 without it, and
//! beside it.

use std::time::Duration;

use crate::Result;
use crate::campaign::Campaign;
use crate::capacity;
use crate::processes::Place;
use crate::results::Results;
use crate::tails;

pub(crate) const ALONE: &str = "alone";
pub(crate) const BESIDE: &str = "beside 1 000 in flight";

/// How much the p99 of the others may rise.
pub(crate) const RISE_MAX: f64 = 2.0;
/// What the others ask for, of the slowest server's capacity.
const SHARE: f64 = 0.25;

pub(crate) fn measure(campaign: &mut Campaign) -> Result<()> {
    let rate = capacity::of_slowest(campaign)? * SHARE;
    let seconds = campaign.plan.all_seconds() + 2;
    // What is compared is a ratio of tails: one round more.
    for round in 0..campaign.plan.round_count + 1 {
        for case in [ALONE, BESIDE] {
            for name in campaign.order(round) {
                campaign.sample((case, &name, round), |campaign| {
                    let server = campaign.serve(&name, 1)?;
                    let greedy = if case == BESIDE {
                        let what = "--connections 1 --in-flight 1000 --size 64 --kind binary";
                        let what = format!("{what} --duration {seconds}");
                        Some(campaign.start_load(Place::LoadIdle, &server, "/echo", &what)?)
                    } else {
                        None
                    };
                    let mut values = tails::echo(campaign, &server, rate)?;
                    if let Some(greedy) = greedy {
                        let theirs = greedy.finish(Duration::from_secs(30))?.checked()?;
                        let rate = theirs.get("rate").copied().unwrap_or_default();
                        values.insert("greedy_rate".to_owned(), rate);
                    }
                    Ok(values)
                });
            }
        }
    }
    for server in campaign.servers.clone() {
        let note = verdict(campaign.results(), &server);
        campaign.note(note);
    }
    Ok(())
}

/// By how much a server's p99 rose, of the medians of all rounds.
pub(crate) fn rise(results: &Results, server: &str) -> Option<f64> {
    let p99 = |case| results.median(case, server, "p99_micros");
    Some(p99(BESIDE)? / p99(ALONE)?)
}

/// A ratio in words: below one it is a fall.
pub(crate) fn change(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    let word = if percent < 0.0 { "falls" } else { "rises" };
    format!("{word} by {:.0} %", percent.abs())
}

pub(crate) fn verdict(results: &Results, server: &str) -> String {
    match rise(results, server) {
        Some(rise) if rise <= RISE_MAX => format!("PASS {server}: p99 {}", change(rise)),
        Some(rise) => {
            format!("FAIL {server}: p99 {}, to more than {RISE_MAX} times", change(rise))
        }
        None => format!("FAIL {server}: not measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn twice_passes_and_more_fails() {
        let rows = |p99| [(ALONE, "s", 0, "p99_micros", 50.0), (BESIDE, "s", 0, "p99_micros", p99)];
        assert!(verdict(&results("fairness", &rows(100.0)), "s").starts_with("PASS s"));
        assert!(verdict(&results("fairness", &rows(101.0)), "s").starts_with("FAIL s"));
        assert_eq!([change(0.72), change(1.64)], ["falls by 28 %", "rises by 64 %"]);
        assert!(verdict(&results("fairness", &[]), "s").starts_with("FAIL s: not measured"));
    }
}
