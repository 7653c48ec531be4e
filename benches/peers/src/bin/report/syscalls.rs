//! What a server asks of the kernel, call by call, for one message, delivery or visit: the
//! difference between two runs of which one does more. What is done once cancels out.

use std::collections::BTreeMap;
use std::fs;

use crate::Result;
use crate::campaign::{Campaign, Values};

/// Of the peers, one shows what is usual.
const SERVERS: [&str; 2] = ["peregrine", "tokio-tungstenite"];

/// What is done, where, and how much of it: messages, a tenth of them, or seconds.
const CASES: [(&str, &str, &str, Much); 6] = [
    ("echo, 1 in flight", "/echo", "--connections 100 --size 64 --in-flight 1", Much::Messages(1)),
    (
        "echo, 32 in flight",
        "/echo",
        "--connections 100 --size 64 --in-flight 32",
        Much::Messages(4),
    ),
    ("echo of 16 KiB", "/echo", "--connections 100 --size 16384 --in-flight 1", Much::Messages(1)),
    ("broadcast to 1 000", "/all", "--mode broadcast --connections 1000", Much::Broadcasts),
    ("visit", "/echo", "--mode visit --rate 1000", Much::Seconds(1)),
    ("10 000 idle, per second", "/echo", "--mode idle --connections 10000", Much::Seconds(5)),
];

#[derive(Clone, Copy, Debug)]
enum Much {
    /// So many times what the plan says.
    Messages(usize),
    Broadcasts,
    Seconds(usize),
}

pub(crate) fn measure(campaign: &mut Campaign) -> Result<()> {
    for (case, path, options, much) in CASES {
        for name in SERVERS {
            campaign.sample((case, name, 0), |campaign| {
                let less = run(campaign, name, (path, options), much, 1)?;
                let more = run(campaign, name, (path, options), much, 2)?;
                Ok(difference(&less, &more))
            });
        }
    }
    Ok(())
}

/// How often each call was made, and for how many messages, deliveries, visits or seconds.
#[derive(Debug, Default)]
struct Calls {
    counts: BTreeMap<String, f64>,
    done_count: f64,
}

fn run(
    campaign: &mut Campaign,
    name: &str,
    (path, options): (&str, &str),
    much: Much,
    times: usize,
) -> Result<Calls> {
    let file = std::env::temp_dir().join(format!("peregrine-strace-{}", std::process::id()));
    let shown = file.display().to_string();
    let server = campaign.serve_below(&["strace", "-f", "-c", "-o", &shown], name)?;
    let base = campaign.plan.call_message_count;
    let amount = match much {
        Much::Messages(factor) => format!("--messages {}", base * factor * times),
        Much::Broadcasts => format!("--messages {}", base / 400 * times),
        Much::Seconds(seconds) => format!("--duration {}", seconds * times),
    };
    let values = campaign.load(&server, path, &format!("{options} {amount}"))?;
    server.end()?;
    let text = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    let done_count = match path {
        _ if options.contains("idle") => match much {
            Much::Seconds(seconds) => (seconds * times) as f64,
            Much::Messages(_) | Much::Broadcasts => f64::NAN,
        },
        _ => values.get("count").copied().ok_or("the load does not say how much it did")?,
    };
    Ok(Calls { counts: parse(&text), done_count })
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
        if count.abs() >= 0.0005 {
            values.insert(name.clone(), count);
        }
    }
    values.insert("sum".to_owned(), values.values().sum());
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
