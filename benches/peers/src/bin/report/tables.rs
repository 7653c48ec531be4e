//! The tables of `PERFORMANCE.md` and of the README, made of the results.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::budget;
use crate::capacity::{self, SMALL};
use crate::fairness;
use crate::growth;
use crate::markdown::{Table, replace};
use crate::results::{Results, Spread};
use crate::tails;
use crate::units;

/// Pages with tables.
const PAGES: [&str; 2] = ["PERFORMANCE.md", "README.md"];

/// A table's name, the part it is made of, and how.
type Entry = (&'static str, &'static str, fn(&Results) -> String);

const TABLES: [Entry; 8] = [
    ("machine", "capacity", |results| results.machine.describe()),
    ("capacity", "capacity", |results| throughput(results) + &commands(results)),
    ("tails", "tails", |results| latencies(results) + &commands(results)),
    ("fairness", "fairness", |results| fair(results) + &commands(results)),
    ("growth", "growth", |results| growing(results) + &commands(results)),
    ("memory", "growth", memory),
    ("shards", "growth", shards),
    ("syscalls", "syscalls", |results| syscalls(results) + &commands(results)),
];

/// Puts the tables into the pages.
pub(crate) fn write(root: &Path, folder: &Path) -> Result<()> {
    for page in PAGES {
        let path = root.join(page);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let new = replace(&text, |name| {
            let made = make(root, folder, name);
            made.map_err(|error| eprintln!("{page}, {name}: {error}; left as it is")).ok()
        })?;
        if new != text {
            fs::write(&path, new)?;
        }
    }
    Ok(())
}

/// Prints the tables that can be made.
pub(crate) fn print(root: &Path, folder: &Path) {
    let names = TABLES.iter().map(|(name, _, _)| *name).chain(["budget", "summary"]);
    for name in names {
        match make(root, folder, name) {
            Ok(table) => println!("{table}"),
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
}

fn make(root: &Path, folder: &Path, name: &str) -> Result<String> {
    match name {
        "summary" => return summary(folder),
        "budget" => return budget::table(root),
        _ => {}
    }
    let entry = TABLES.iter().find(|(known, _, _)| *known == name);
    let (_, part, make) = entry.ok_or("there is no such table")?;
    Ok(make(&Results::load(folder, part)?))
}

/// What made a table: its notes, the command, and where each run of it stands.
fn commands(results: &Results) -> String {
    let Results { part, notes, .. } = results;
    let notes = notes.iter().cloned().chain(results.errors());
    let notes: String = notes.map(|note| format!("- {note}\n")).collect();
    format!(
        "\n{notes}\n`cargo run --release -p peregrine-peers --bin report -- {part}`, {}, rounds: \
         {}; the commands that it ran are in [`{part}.json`](benches/results/{part}.json)\n",
        results.machine.date,
        results.round_count(),
    )
}

/// A value, or a dash if there is none.
fn shown(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or("–".to_owned(), format)
}

/// The median, and in brackets from where to where the rounds went.
fn spread(value: Option<Spread>, format: impl Fn(f64) -> String) -> String {
    let Some(Spread { least, median, greatest }) = value else { return "–".to_owned() };
    let (least, greatest) = (format(least), format(greatest));
    let median = format(median);
    match least == greatest {
        true => median,
        false => format!("{median} ({least} to {greatest})"),
    }
}

/// Marks a rate that the load generator may have limited.
fn at_least(results: &Results, case: &str, server: &str) -> String {
    let is_bound = capacity::busier_load(results, case, server).is_some();
    if is_bound { "at least ".to_owned() } else { String::new() }
}

fn percent(value: f64) -> String {
    format!("{value:.0} %")
}

fn throughput(results: &Results) -> String {
    let mut table = Table::new(&[
        "echo, 100 connections",
        "server",
        "messages/s",
        "server's processor time per message",
        "server busy",
        "load busy",
        "messages/s if it were always busy",
    ]);
    for case in results.cases() {
        for server in results.servers() {
            let value = |name| results.spread(case, server, name);
            let busy = |name| shown(results.median(case, server, name), percent);
            table.row([
                case.to_owned(),
                server.to_owned(),
                at_least(results, case, server) + &spread(value("rate"), units::rate),
                spread(value("server_cpu_micros"), units::micros),
                busy("server_busy_percent"),
                busy("load_busy_percent"),
                shown(capacity::from_cpu(results, case, server), units::rate),
            ]);
        }
    }
    table.finish()
}

fn latencies(results: &Results) -> String {
    let mut table = Table::new(&[
        "echo of 64 B, 100 connections",
        "server",
        "messages/s",
        "p50",
        "p99",
        "p99.9",
        "of which load late, p99",
        "load busy",
        "beside",
    ]);
    for case in results.cases() {
        for server in results.servers() {
            let value = |name| spread(results.spread(case, server, name), units::micros);
            let median = |name| results.median(case, server, name);
            let beside = |(name, what): &(&'static str, &str)| {
                median(name).map(|rate| format!("{} {what}", units::rate(rate)))
            };
            let beside: Vec<_> = BESIDE.iter().filter_map(beside).collect();
            table.row([
                case.to_owned(),
                server.to_owned(),
                shown(median("rate"), units::rate),
                value("p50_micros"),
                value("p99_micros"),
                value("p999_micros"),
                shown(median("load_late_p99_micros"), units::micros),
                shown(median("load_busy_percent"), percent),
                beside.join(", "),
            ]);
        }
    }
    table.finish()
}

/// What went on beside, and how it is counted.
const BESIDE: [(&str, &str); 3] = [
    ("broadcast_rate", "deliveries/s"),
    ("visit_rate", "visits/s"),
    ("speaker_rate", "messages/s of 16 KiB to each reader"),
];

fn fair(results: &Results) -> String {
    let mut table =
        Table::new(&["server", "p99 alone", "p99 beside the greedy one", "p99", "its messages/s"]);
    for server in results.servers() {
        let p99 = |case| spread(results.spread(case, server, "p99_micros"), units::micros);
        table.row([
            server.to_owned(),
            p99(fairness::ALONE),
            p99(fairness::BESIDE),
            shown(fairness::rise(results, server), fairness::change),
            shown(results.median(fairness::BESIDE, server, "greedy_rate"), units::rate),
        ]);
    }
    table.finish()
}

/// One value for each number of connections and each server.
fn by_count(
    results: &Results,
    case: fn(usize) -> String,
    value: &str,
    format: fn(f64) -> String,
) -> String {
    let servers = results.servers();
    let mut table = Table::new(&[&["connections"], servers.as_slice()].concat());
    for count in growth::counts(results) {
        let cell = |server: &&str| shown(results.median(&case(count), server, value), format);
        let count_shown = units::whole(count as f64);
        table.row(std::iter::once(count_shown).chain(servers.iter().map(cell)));
    }
    table.finish()
}

fn growing(results: &Results) -> String {
    by_count(results, growth::echoing, "server_cpu_micros", units::micros)
}

fn memory(results: &Results) -> String {
    by_count(results, growth::idle, "rss_bytes_per_connection", units::bytes)
}

fn shards(results: &Results) -> String {
    let mut table = Table::new(&[
        "peregrine",
        "messages/s",
        "processor time per message",
        "server busy",
        "load busy",
    ]);
    for count in [1, 2] {
        let case = growth::shards(count);
        let median = |name| results.median(&case, "peregrine", name);
        table.row([
            case.clone(),
            spread(results.spread(&case, "peregrine", "rate"), units::rate),
            shown(median("server_cpu_micros"), units::micros),
            shown(median("server_busy_percent"), percent),
            shown(median("load_busy_percent"), percent),
        ]);
    }
    table.finish()
}

fn syscalls(results: &Results) -> String {
    let mut table = Table::new(&["for each", "server", "system calls", "which"]);
    for case in results.cases() {
        for server in results.servers() {
            let Some(sample) =
                results.samples.iter().find(|found| found.case == case && found.server == server)
            else {
                continue;
            };
            let mut calls: Vec<_> =
                sample.values.iter().filter(|(name, _)| *name != "sum").collect();
            calls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            let calls = calls.into_iter().map(|(name, count)| format!("{name} {count:.3}"));
            let sum = sample.values.get("sum").map(|sum| format!("{sum:.3}"));
            table.row([
                case.to_owned(),
                server.to_owned(),
                sum.unwrap_or("–".to_owned()),
                calls.collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    table.finish()
}

/// What the README says.
fn summary(folder: &Path) -> Result<String> {
    let load = |part| Results::load(folder, part);
    let (capacity, tails_found, growth) = (load("capacity")?, load("tails")?, load("growth")?);
    let mut table = Table::new(&[
        "one processor, echo of 64 B",
        "messages/s",
        "processor time per message",
        "p99 at the same rate for all",
        "p99 beside broadcasts to 10 000",
        "memory per idle connection",
    ]);
    let most = growth::counts(&growth).last().copied().map(growth::idle).unwrap_or_default();
    for server in capacity.servers() {
        let p99 = |case| shown(tails_found.median(case, server, "p99_micros"), units::micros);
        table.row([
            server.to_owned(),
            at_least(&capacity, SMALL, server)
                + &shown(capacity.median(SMALL, server, "rate"), units::rate),
            shown(capacity.median(SMALL, server, "server_cpu_micros"), units::micros),
            p99(tails::SAME),
            p99(tails::BROADCASTS),
            shown(growth.median(&most, server, "rss_bytes_per_connection"), units::bytes),
        ]);
    }
    Ok(table.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn a_table_shows_medians_with_where_they_went() {
        let rows = [
            (SMALL, "ours", 0, "rate", 100_000.0),
            (SMALL, "ours", 1, "rate", 300_000.0),
            (SMALL, "ours", 2, "rate", 200_000.0),
            (SMALL, "ours", 0, "server_cpu_micros", 4.0),
            (SMALL, "theirs", 0, "server_busy_percent", 99.6),
        ];
        let table = throughput(&results("capacity", &rows));
        let ours =
            "| 64 B, 1 in flight | ours | 200 k (100 k to 300 k) | 4.00 µs | – | – | 250 k |";
        let theirs = "| 64 B, 1 in flight | theirs | – | – | 100 % | – | – |";
        assert!(table.contains(ours) && table.contains(theirs), "{table}");
    }

    #[test]
    fn connections_are_rows_and_servers_columns() {
        let (few, many) = (growth::idle(100), growth::idle(19_900));
        let name = "rss_bytes_per_connection";
        let rows = [
            (few.as_str(), "ours", 0, name, 300.0),
            (few.as_str(), "theirs", 0, name, 131_072.0),
            (many.as_str(), "ours", 0, name, 310.0),
        ];
        let table = memory(&results("growth", &rows));
        assert_eq!(
            table,
            "| connections | ours | theirs |\n| --- | ---: | ---: |\n| 100 | 300 B | 131 kB |\n\
             | 19 900 | 310 B | – |\n"
        );
    }

    #[test]
    fn the_dearest_calls_come_first() {
        let rows = [
            ("echo", "ours", 0, "read", 1.0),
            ("echo", "ours", 0, "epoll_wait", 0.0312),
            ("echo", "ours", 0, "write", 1.0),
            ("echo", "ours", 0, "sum", 2.0312),
        ];
        let table = syscalls(&results("syscalls", &rows));
        assert!(table.contains("| 2.031 | read 1.000, write 1.000, epoll_wait 0.031 |"), "{table}");
    }

    #[test]
    fn every_table_can_be_made_of_nothing() {
        for (name, part, make) in TABLES {
            assert!(!make(&results(part, &[])).is_empty(), "{name}");
        }
    }
}
