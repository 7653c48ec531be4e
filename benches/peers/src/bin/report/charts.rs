//! Which charts there are: results in, SVG files beside them.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::capacity;
use crate::draw::{self, Bar, Range, Series, Titles};
use crate::growth;
use crate::results::Results;
use crate::svg::Scale;
use crate::units;

/// Draws everything that has been measured.
pub(crate) fn write(folder: &Path) -> Result<()> {
    type Draw = fn(&Results) -> String;
    let all: [(&str, &str, Draw); 5] = [
        ("capacity", "throughput", throughput),
        ("tails", "tails", tails),
        ("growth", "growth", growth),
        ("growth", "memory", memory),
        ("fairness", "fairness", fairness),
    ];
    for (part, name, draw) in all {
        match Results::load(folder, part) {
            Ok(results) => {
                let path = folder.join(name).with_extension("svg");
                fs::write(&path, draw(&results))?;
                eprintln!("{}", path.display());
            }
            Err(error) => eprintln!("{name} is not drawn: {error}"),
        }
    }
    Ok(())
}

fn throughput(results: &Results) -> String {
    let titles = Titles {
        title: "Echo: messages a second on one processor",
        subtitle: "100 connections, closed loop. Pale: what the server's processor time would \
                   allow if the load generator were no limit.",
        axis: "messages per second; the dark line: least to greatest of all rounds",
        format: units::rate,
    };
    let bar = |case, server| {
        let value = results.spread(case, server, "rate")?;
        Some(Bar { server, value, beyond: capacity::from_cpu(results, case, server) })
    };
    let panel = |case| {
        let bars = results.servers().into_iter().filter_map(|server| bar(case, server));
        (case, bars.collect())
    };
    draw::bars(&titles, &results.cases().into_iter().map(panel).collect::<Vec<_>>())
}

/// A panel for each case, a range for each server.
fn latencies<'a>(results: &'a Results, titles: &Titles<'_>) -> String {
    let range = |case, server: &'a str| {
        let value = |name| results.median(case, server, name);
        let values = || Some([value("p50_micros")?, value("p99_micros")?, value("p999_micros")?]);
        Range { server, values: values() }
    };
    let panel = |case| {
        let ranges = results.servers().into_iter().map(|server| range(case, server));
        (case, ranges.collect())
    };
    draw::ranges(titles, &results.cases().into_iter().map(panel).collect::<Vec<_>>())
}

fn tails(results: &Results) -> String {
    let titles = Titles {
        title: "How long an echo takes",
        subtitle: "64 bytes, 100 connections, open loop: from when a message was due to its echo. \
                   Medians of all rounds.",
        axis: "latency, logarithmic",
        format: units::micros,
    };
    latencies(results, &titles)
}

fn fairness(results: &Results) -> String {
    let titles = Titles {
        title: "What one greedy connection takes from a hundred others",
        subtitle: "Echo of 64 bytes, open loop, the same rate for all; the greedy one has 1 000 \
                   messages in flight, all the time.",
        axis: "latency of the others, logarithmic",
        format: units::micros,
    };
    latencies(results, &titles)
}

/// One value of each server over the number of connections.
fn series<'a>(
    results: &'a Results,
    case: fn(usize) -> String,
    value: &str,
    unit: f64,
) -> Vec<Series<'a>> {
    let counts = growth::counts(results);
    let series = |server: &'a str| {
        let point = |count: &usize| {
            let value = results.median(&case(*count), server, value)?;
            Some((*count as f64, value * unit))
        };
        Series { server, points: counts.iter().filter_map(point).collect() }
    };
    let all = results.servers().into_iter().map(series);
    all.filter(|series| !series.points.is_empty()).collect()
}

fn growth(results: &Results) -> String {
    let titles = Titles {
        title: "Processor time of a message as connections grow in number",
        subtitle: "Echo of 64 bytes; all connections together send 20 000 messages a second.",
        axis: "the server's processor time per message",
        format: units::micros,
    };
    let all = series(results, growth::echoing, "server_cpu_micros", 1.0);
    draw::lines(&titles, "connections", Scale::Linear, &all)
}

fn memory(results: &Results) -> String {
    let titles = Titles {
        title: "Memory of an idle connection",
        subtitle: "What the server's resident memory grew by, for each connection that is held; \
                   the kernel's sockets not counted.",
        axis: "resident memory per connection, logarithmic",
        format: units::bytes,
    };
    let all = series(results, growth::idle, "rss_bytes_per_connection", 1.0);
    draw::lines(&titles, "connections", Scale::Log, &all)
}
