//! What becomes of the figures: a table for people, a file for programs. Must not know how they
//! were got.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::loads::Load;
use super::race::{Part, Results};

/// What has been measured so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    loads: Vec<Value>,
}

impl Report {
    /// Prints a load's results and writes all that there are.
    pub(crate) fn add(&mut self, load: Load, results: &Results) {
        if results.laps.is_empty() || env::args().any(|argument| argument == "--test") {
            return;
        }
        let rows: Vec<_> = (0..results.names.len()).map(|at| Row::new(results, at)).collect();
        print(&load.name(), results.laps.len(), &rows);
        self.loads.push(json!({
            "load": load.name(),
            "connections": load.connection_count(),
            "laps": results.laps.len(),
            "peers": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        }));
        let processor_count = std::thread::available_parallelism().map_or(1, usize::from);
        let file = json!({
            "measurement": "peers",
            "command": "cargo bench -p peregrine-peers",
            "processors": processor_count,
            "loads": self.loads,
        });
        let path = path();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder for the results");
        }
        fs::write(&path, format!("{file:#}\n")).expect("the results are written");
    }
}

/// Where the results go.
fn path() -> PathBuf {
    env::var_os("PEREGRINE_PEERS_JSON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/peers.json"),
        PathBuf::from,
    )
}

/// A server's figures under one load.
#[derive(Debug)]
struct Row {
    name: String,
    messages_per_second: f64,
    processor_nanos_per_message: Option<f64>,
    /// Of peregrine's, in the same lap.
    rate: Quartiles,
    processor: Option<Quartiles>,
}

/// A median, and what the middle half of the laps lies between.
#[derive(Clone, Copy, Debug)]
struct Quartiles {
    low: f64,
    median: f64,
    high: f64,
}

impl Quartiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: usize| values[(values.len() - 1) * part / 4];
        Self { low: at(1), median: at(2), high: at(3) }
    }

    fn to_json(self) -> Value {
        json!({ "low": self.low, "median": self.median, "high": self.high })
    }
}

impl Row {
    fn new(results: &Results, at: usize) -> Self {
        let laps = &results.laps;
        let rate = |part: &Part| part.message_count as f64 / part.wall.as_secs_f64();
        let rates = Quartiles::of(laps.iter().map(|lap| rate(&lap[at])).collect());
        // The first is ours.
        let ratios = laps.iter().map(|lap| rate(&lap[at]) / rate(&lap[0])).collect();
        let spent: Option<Vec<f64>> = laps.iter().map(|lap| nanos(&lap[at])).collect();
        let ours: Option<Vec<f64>> = laps.iter().map(|lap| nanos(&lap[0])).collect();
        let spent_ratios = spent.clone().zip(ours).map(|(spent, ours)| {
            Quartiles::of(spent.iter().zip(ours).map(|(spent, ours)| spent / ours).collect())
        });
        Self {
            name: results.names[at].clone(),
            messages_per_second: rates.median,
            processor_nanos_per_message: spent.map(|spent| Quartiles::of(spent).median),
            rate: Quartiles::of(ratios),
            processor: spent_ratios,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "messages_per_second": self.messages_per_second,
            "cpu_nanos_per_message": self.processor_nanos_per_message,
            "rate_of_peregrine": self.rate.to_json(),
            "cpu_of_peregrine": self.processor.map(Quartiles::to_json),
        })
    }
}

/// On processors, for one message.
fn nanos(part: &Part) -> Option<f64> {
    part.processor.map(|time: Duration| time.as_nanos() as f64 / part.message_count as f64)
}

fn print(load: &str, lap_count: usize, rows: &[Row]) {
    eprintln!(
        "{:26}{:>12}  {:>22}{:>12}  {:>22}",
        format!("{load}, {lap_count} laps"),
        "messages/s",
        "rate of peregrine's",
        "cpu ns",
        "cpu of peregrine's"
    );
    let ratio = |quartiles: Quartiles| {
        let Quartiles { low, median, high } = quartiles;
        format!("{median:.2} ({low:.2} to {high:.2})")
    };
    for row in rows {
        eprintln!(
            "  {:24}{:>12.0}  {:>22}{:>12}  {:>22}",
            row.name,
            row.messages_per_second,
            ratio(row.rate),
            row.processor_nanos_per_message.map_or_else(String::new, |nanos| format!("{nanos:.0}")),
            row.processor.map_or_else(String::new, ratio),
        );
    }
    eprintln!();
}
