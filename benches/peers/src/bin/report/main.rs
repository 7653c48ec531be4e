//! The measurement campaign: starts servers and load in processes of their own, gathers what they
//! say, writes it to `benches/results/`, and makes the tables and charts of `PERFORMANCE.md` of it.
//!
//! ```text
//! cargo run --release -p peregrine-peers --bin report -- PART.. [--quick] [--resume]
//!     [--servers NAME,NAME..] [--folder FOLDER]
//! ```
//!
//! PART is one of `capacity`, `tails`, `fairness`, `growth`, `syscalls`, or `all`: all of them and
//! then `charts` and `tables`, which need no measurement, but what was measured before. `--quick`
//! is to see that everything works: its figures mean nothing, and go to `target/`. `--resume`
//! leaves out the parts that were measured at this very commit.
//!
//! The machine should have nothing else to do. The server has one processor, the load another: with
//! two, that is all there are.

#![allow(clippy::print_stdout, reason = "verdicts are its output")]

mod budget;
mod campaign;
mod capacity;
mod charts;
mod draw;
mod fairness;
mod growth;
mod machine;
mod markdown;
mod outcome;
mod processes;
mod results;
mod svg;
mod syscalls;
mod tables;
mod tails;
mod units;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use campaign::{Campaign, Plan};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures a part.
type Measure = fn(&mut Campaign) -> Result<()>;

/// What is measured, in this order: the rates of later parts come from the first.
const PARTS: [(&str, Measure); 5] = [
    ("capacity", capacity::measure),
    ("tails", tails::measure),
    ("fairness", fairness::measure),
    ("growth", growth::measure),
    ("syscalls", syscalls::measure),
];

/// Beside peregrine.
const PEERS: [&str; 2] = ["tokio-tungstenite", "fastwebsockets"];

fn main() -> ExitCode {
    match Order::from_arguments(std::env::args().skip(1)).and_then(|order| order.carry_out()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
struct Order {
    parts: Vec<String>,
    servers: Vec<String>,
    /// Where results are, and go.
    folder: Option<PathBuf>,
    is_quick: bool,
    resumes: bool,
}

impl Order {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let servers = std::iter::once("peregrine").chain(PEERS).map(str::to_owned).collect();
        let mut order =
            Self { parts: Vec::new(), servers, folder: None, is_quick: false, resumes: false };
        while let Some(word) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => order.is_quick = true,
                "--resume" => order.resumes = true,
                "--servers" => order.servers = value()?.split(',').map(str::to_owned).collect(),
                "--folder" => order.folder = Some(value()?.into()),
                "charts" | "tables" => order.parts.push(word),
                "all" => {
                    let parts = PARTS.iter().map(|(name, _)| *name).chain(["charts", "tables"]);
                    order.parts.extend(parts.map(str::to_owned));
                }
                part if PARTS.iter().any(|(name, _)| *name == part) => order.parts.push(word),
                _ => return Err(format!("what is {word:?}? See the top of its source").into()),
            }
        }
        if order.parts.is_empty() {
            return Err("say what to measure: capacity, .., or all".into());
        }
        Ok(order)
    }

    fn carry_out(self) -> Result<()> {
        let root = root()?;
        let folder = match self.folder {
            Some(folder) => folder,
            None if self.is_quick => root.join("target/report"),
            None => root.join("benches/results"),
        };
        let plan = if self.is_quick { Plan::QUICK } else { Plan::FULL };
        let mut campaign = Campaign::new(root.clone(), folder.clone(), self.servers, plan)?;
        for part in self.parts {
            match part.as_str() {
                "charts" => charts::write(&folder)?,
                // What is not quick is meant for the reader.
                "tables" if !self.is_quick => tables::write(&root, &folder)?,
                "tables" => tables::print(&root, &folder),
                _ if self.resumes && campaign.has_measured(&part) => {
                    eprintln!("{part}: measured at this commit, left out");
                }
                _ => campaign.run(&part)?,
            }
        }
        Ok(())
    }
}

/// The folder of the repository.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().map_err(|error| format!("{}: {error}", root.display()).into())
}

#[cfg(test)]
mod tests {
    use super::Order;

    fn order(line: &str) -> super::Result<Order> {
        Order::from_arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_measures_before_it_draws() {
        let parts = order("all --quick").expect("an order").parts;
        assert_eq!(parts[0], "capacity");
        assert_eq!(parts[parts.len() - 2..], ["charts", "tables"]);
    }

    #[test]
    fn an_unknown_word_and_no_word_are_errors() {
        assert!(order("").is_err());
        assert!(order("all --fast").is_err());
        assert!(order("tails --servers").is_err());
    }
}
