//! What the load generator says at its end: the figures that are kept, in the words of ours.

use serde_json::Value;

use crate::Result;
use crate::campaign::Values;

/// Ours, where theirs is, and by how much theirs is multiplied.
const FIGURES: [(&str, &str, f64); 13] = [
    ("count", "/messages", 1.0),
    ("rate", "/per_second", 1.0),
    ("p50_micros", "/latency/p50", 1.0),
    ("p90_micros", "/latency/p90", 1.0),
    ("p99_micros", "/latency/p99", 1.0),
    ("p999_micros", "/latency/p99.9", 1.0),
    ("max_micros", "/latency/max", 1.0),
    ("server_cpu_micros", "/server/cpu_micros_per_message", 1.0),
    ("server_busy_percent", "/server/busy_percent", 1.0),
    ("load_busy_percent", "/load/busy_percent", 1.0),
    ("rss_bytes_per_connection", "/server/rss_bytes_per_connection", 1.0),
    ("switches", "/server/switches_per_message", 1.0),
    ("instructions", "/server/instructions_per_message", 1.0),
];

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) values: Values,
}

impl Outcome {
    /// Of its JSON; an error if it found something wrong.
    pub(crate) fn parse(text: &str, is_well: bool) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        if !is_well {
            let errors = json.pointer("/errors").cloned().unwrap_or_default();
            return Err(format!("the load found errors: {errors}").into());
        }
        let figure = |(ours, theirs, factor): &(&str, &str, f64)| {
            Some(((*ours).to_owned(), json.pointer(theirs)?.as_f64()? * factor))
        };
        Ok(Self { values: FIGURES.iter().filter_map(figure).collect() })
    }
}
