//! What the load generator says at its end: the figures that are kept, in the words of ours.

use serde_json::Value;

use crate::Result;
use crate::campaign::Values;

/// Ours, where theirs is, and by how much theirs is multiplied.
const FIGURES: [(&str, &str, f64); 16] = [
    ("count", "/measured/received", 1.0),
    ("rate", "/measured/messages_per_second", 1.0),
    ("p50_micros", "/latency_us/p50", 1.0),
    ("p90_micros", "/latency_us/p90", 1.0),
    ("p99_micros", "/latency_us/p99", 1.0),
    ("p999_micros", "/latency_us/p99_9", 1.0),
    ("max_micros", "/latency_us/max", 1.0),
    ("server_cpu_micros", "/server/cpu_us_per_message", 1.0),
    ("server_busy_percent", "/server/processors", 100.0),
    ("server_switches", "/server/voluntary_switches_per_message", 1.0),
    ("rss_bytes_per_connection", "/server/rss_bytes_per_connection", 1.0),
    ("load_cpu_micros", "/generator/cpu_us_per_message", 1.0),
    ("load_busy_percent", "/generator/threads/0/busy", 100.0),
    ("load_waiting_percent", "/generator/threads/0/waiting", 100.0),
    ("load_late_p99_micros", "/generator/late_us/p99", 1.0),
    ("thrown_out_count", "/measured/stalled_ended", 1.0),
];

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) values: Values,
    /// What went wrong, in words, if anything did.
    pub(crate) errors: Option<String>,
}

impl Outcome {
    /// Of its JSON, and whether it ended well.
    pub(crate) fn parse(text: &str, is_well: bool) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let figure = |(ours, theirs, factor): &(&str, &str, f64)| {
            Some(((*ours).to_owned(), json.pointer(theirs)?.as_f64()? * factor))
        };
        let values = FIGURES.iter().filter_map(figure).collect();
        let errors = (!is_well).then(|| format!("errors: {}", json["errors"]));
        Ok(Self { values, errors })
    }

    /// Its figures, if all was well.
    pub(crate) fn checked(self) -> Result<Values> {
        match self.errors {
            None => Ok(self.values),
            Some(errors) => Err(errors.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    /// As `tools/load/src/report.rs` writes it, in part.
    const JSON: &str = r#"{
        "measured": { "received": 500, "messages_per_second": 1000.0 },
        "latency_us": { "p50": 40.5, "p99_9": 90.0 },
        "generator": { "threads": [{ "busy": 0.5, "waiting": 0.0 }], "late_us": null },
        "server": { "processors": 0.25, "cpu_us_per_message": null },
        "errors": { "total": 2, "by_kind": { "wrong": 2 } }
    }"#;

    #[test]
    fn figures_are_found_and_those_that_are_not_there_are_left_out() {
        let values = Outcome::parse(JSON, true).and_then(Outcome::checked).expect("figures");
        let expected = [
            ("count", 500.0),
            ("load_busy_percent", 50.0),
            ("load_waiting_percent", 0.0),
            ("p50_micros", 40.5),
            ("p999_micros", 90.0),
            ("rate", 1000.0),
            ("server_busy_percent", 25.0),
        ];
        let found: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn errors_are_told() {
        let error = Outcome::parse(JSON, false).and_then(Outcome::checked).expect_err("errors");
        assert!(error.to_string().contains(r#""wrong":2"#), "{error}");
        assert!(Outcome::parse("", true).is_err());
    }
}
