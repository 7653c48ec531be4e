//! What a server asks of the kernel, call by call, for one message, delivery or visit: the
//! difference between two runs of which one does twice as much. What is done once cancels out.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::campaign::{Campaign, Values};
use crate::processes::Place;

/// Of the peers, one shows what is usual.
const SERVERS: [&str; 2] = ["peregrine", "tokio-tungstenite"];

/// What is done, and how much of it in the smaller run: of the plan's messages, times this.
const CASES: [(&str, &str, &str, f64); 5] = [
    ("echo, 1 in flight", "/echo", "--connections 100 --size 64 --in-flight 1", 1.0),
    ("echo, 32 in flight", "/echo", "--connections 100 --size 64 --in-flight 32", 8.0),
    ("echo of 16 KiB", "/echo", "--connections 100 --size 16384 --in-flight 1", 1.0),
    ("broadcast to 1 000, delivery", "/all", "--mode broadcast --connections 1000", 0.005),
    // Slow enough that each is over before the next begins.
    ("visit", "/echo", "--mode visit --rate 300", 0.03),
];

/// Who does nothing, and for how long that is watched, in seconds.
const IDLE: &str = "10 000 idle, one second";
const IDLE_COUNT: usize = 10_000;
const IDLE_SECONDS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(campaign: &mut Campaign) -> Result<()> {
    for (case, path, options, factor) in CASES {
        for name in SERVERS {
            campaign.sample((case, name, 0), |campaign| {
                let count = (campaign.plan.call_message_count as f64 * factor).round();
                let less = run(campaign, name, path, &format!("{options} --messages {count}"))?;
                let count = count * 2.0;
                let more = run(campaign, name, path, &format!("{options} --messages {count}"))?;
                Ok(difference(&less, &more))
            });
        }
    }
    for name in SERVERS {
        campaign.sample((IDLE, name, 0), |campaign| idle(campaign, name));
    }
    Ok(())
}

/// How often each call was made, and for how many messages, deliveries, or visits.
#[derive(Debug, Default)]
struct Calls {
    counts: BTreeMap<String, f64>,
    done_count: f64,
}

/// A server that is watched from its beginning to its end.
fn run(campaign: &mut Campaign, name: &str, path: &str, options: &str) -> Result<Calls> {
    let file = summary_file();
    let server =
        campaign.serve_below(&["strace", "-f", "-c", "-o", &file.to_string_lossy()], name)?;
    let values = campaign.load(&server, path, options)?;
    server.end()?;
    let counts = take_summary(&file)?;
    let done_count = values.get("count").copied().ok_or("the load does not say how much it did")?;
    Ok(Calls { counts, done_count })
}

/// What it does for those who do nothing: watched while they are there.
fn idle(campaign: &mut Campaign, name: &str) -> Result<Values> {
    let file = summary_file();
    let server = campaign.serve(name, 1)?;
    let options = format!("--mode idle --connections {IDLE_COUNT} --duration {}", IDLE_SECONDS + 3);
    let load = campaign.start_load(Place::Load, &server, "/echo", &options)?;
    server.await_clients(IDLE_COUNT, PATIENCE)?;
    campaign.watch(&server, IDLE_SECONDS, &file)?;
    load.finish(PATIENCE)?.checked()?;
    let counts = take_summary(&file)?;
    let less = Calls::default();
    Ok(difference(&less, &Calls { counts, done_count: IDLE_SECONDS as f64 }))
}

fn summary_file() -> PathBuf {
    std::env::temp_dir().join(format!("peregrine-strace-{}", std::process::id()))
}

fn take_summary(file: &PathBuf) -> Result<BTreeMap<String, f64>> {
    let text = fs::read_to_string(file)?;
    fs::remove_file(file)?;
    Ok(parse(&text))
}

/// What `strace -c` writes: the call is the last word of a line, its count the fourth.
fn parse(summary: &str) -> BTreeMap<String, f64> {
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_row = matches!(words.len(), 5 | 6) && words[0].parse::<f64>().is_ok();
        let (count, name) = (words.get(3)?.parse().ok()?, words.last()?);
        (is_row && *name != "total").then(|| ((*name).to_owned(), count))
    };
    summary.lines().filter_map(row).collect()
}

/// Calls for each of what the second run did more than the first, and their sum.
fn difference(less: &Calls, more: &Calls) -> Values {
    let done = more.done_count - less.done_count;
    let mut values = Values::new();
    for (name, count) in &more.counts {
        let count = (count - less.counts.get(name).unwrap_or(&0.0)) / done;
        // Below that it is noise: how often it slept, what the allocator wanted.
        if count >= 0.0005 {
            values.insert(name.clone(), count);
        }
    }
    values.insert("sum".to_owned(), values.values().fold(0.0, |sum, count| sum + count));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.73    0.000721           7       100           write
 36.64    0.000428           4       101         1 read
  1.63    0.000019           6         3           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.001168           5       204         1 total
";

    #[test]
    fn a_summary_is_read_with_and_without_errors() {
        let expected = [("epoll_wait", 3.0), ("read", 101.0), ("write", 100.0)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(parse(SUMMARY), BTreeMap::from(expected));
        assert_eq!(parse("strace: detached"), BTreeMap::new());
    }

    #[test]
    fn what_both_runs_did_cancels_out() {
        let calls = |reads, opens, done_count| Calls {
            counts: BTreeMap::from([("read".to_owned(), reads), ("open".to_owned(), opens)]),
            done_count,
        };
        let values = difference(&calls(150.0, 7.0, 100.0), &calls(250.0, 7.0, 200.0));
        assert_eq!(values, Values::from([("read".to_owned(), 1.0), ("sum".to_owned(), 1.0)]));
    }
}
