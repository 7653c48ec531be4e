//! Figures as they are kept: one sample a run, in JSON, with the machine and the commands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::machine::Machine;

/// What one part of the campaign has measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) part: String,
    pub(crate) is_quick: bool,
    pub(crate) machine: Machine,
    /// What was run, in order, each command once.
    pub(crate) commands: Vec<String>,
    /// What a reader should know: verdicts, limits.
    pub(crate) notes: Vec<String>,
    pub(crate) samples: Vec<Sample>,
}

/// One run of one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) case: String,
    pub(crate) server: String,
    pub(crate) round: usize,
    /// By name; the name ends in the unit.
    pub(crate) values: BTreeMap<String, f64>,
    /// Why there are no figures, or which doubts there are about them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
}

/// The middle and the ends of what several rounds gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { least, median, greatest })
    }
}

impl Results {
    pub(crate) fn new(part: &str, is_quick: bool, machine: Machine) -> Self {
        Self {
            part: part.to_owned(),
            is_quick,
            machine,
            commands: Vec::new(),
            notes: Vec::new(),
            samples: Vec::new(),
        }
    }

    pub(crate) fn load(folder: &Path, part: &str) -> Result<Self> {
        let path = file(folder, part);
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}; `report {part}` makes it", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let text = serde_json::to_string_pretty(self)?;
        Ok(fs::write(file(folder, &self.part), text + "\n")?)
    }

    /// What all rounds of a server's case gave for one value.
    pub(crate) fn spread(&self, case: &str, server: &str, value: &str) -> Option<Spread> {
        let is_wanted = |sample: &&Sample| sample.case == case && sample.server == server;
        let values = self.samples.iter().filter(is_wanted);
        Spread::of(values.filter_map(|sample| sample.values.get(value).copied()).collect())
    }

    pub(crate) fn median(&self, case: &str, server: &str, value: &str) -> Option<f64> {
        self.spread(case, server, value).map(|spread| spread.median)
    }

    /// Cases in the order measured.
    pub(crate) fn cases(&self) -> Vec<&str> {
        distinct(self.samples.iter().map(|sample| sample.case.as_str()))
    }

    /// Servers in the order measured first.
    pub(crate) fn servers(&self) -> Vec<&str> {
        distinct(self.samples.iter().map(|sample| sample.server.as_str()))
    }

    /// How many rounds there were.
    pub(crate) fn round_count(&self) -> usize {
        self.samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0)
    }

    /// What went wrong, run by run.
    pub(crate) fn errors(&self) -> impl Iterator<Item = String> {
        self.samples.iter().filter_map(|sample| {
            let Sample { case, server, round, error, .. } = sample;
            let told: String = error.as_ref()?.chars().take(300).collect();
            Some(format!("{case}, {server}, round {}: {told}", round + 1))
        })
    }
}

fn file(folder: &Path, part: &str) -> PathBuf {
    folder.join(part).with_extension("json")
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Results of one value, for tests: case, server, round, name, value.
    pub(crate) fn results(part: &str, rows: &[(&str, &str, usize, &str, f64)]) -> Results {
        let mut results = Results::new(part, false, Machine::default());
        for (case, server, round, name, value) in rows {
            let is_same = |sample: &&mut Sample| {
                sample.case == *case && sample.server == *server && sample.round == *round
            };
            let sample = match results.samples.iter_mut().find(is_same) {
                Some(sample) => sample,
                None => {
                    results.samples.push(Sample {
                        case: (*case).to_owned(),
                        server: (*server).to_owned(),
                        round: *round,
                        values: BTreeMap::new(),
                        error: None,
                    });
                    results.samples.last_mut().expect("just pushed")
                }
            };
            sample.values.insert((*name).to_owned(), *value);
        }
        results
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_of_the_middle() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 4.0]), Some(4.5));
        assert_eq!(median(&[f64::NAN, 2.0]), Some(2.0), "what is no number does not count");
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).expect("values");
        assert_eq!((spread.least, spread.greatest), (1.0, 3.0));
    }

    #[test]
    fn results_are_the_same_after_a_file() {
        let folder = std::env::temp_dir().join(format!("peregrine-report-{}", std::process::id()));
        let mut kept = results("tails", &[("half", "a", 0, "p99_micros", 12.5)]);
        kept.samples[0].error = Some("3 mismatches".to_owned());
        kept.save(&folder).expect("a file");
        let found = Results::load(&folder, "tails").expect("the file");
        assert_eq!(found.median("half", "a", "p99_micros"), Some(12.5));
        let errors: Vec<_> = found.errors().collect();
        assert_eq!(errors, ["half, a, round 1: 3 mismatches"]);
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn cases_and_servers_keep_the_order_measured() {
        let rows = [("z", "b", 0, "x", 1.0), ("a", "a", 0, "x", 3.0), ("z", "b", 1, "x", 2.0)];
        let results = results("p", &rows);
        assert_eq!((results.cases(), results.servers()), (vec!["z", "a"], vec!["b", "a"]));
        assert_eq!((results.median("z", "b", "x"), results.round_count()), (Some(1.5), 2));
        assert_eq!(results.median("z", "a", "x"), None);
    }
}
