//! What the figures were taken on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processor_count: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) commit: String,
    /// UTC, at the start.
    pub(crate) date: String,
    /// Over the last minute, at the start: the machine should have had nothing else to do.
    pub(crate) load_average: f64,
}

impl Machine {
    /// This machine, before anything is measured.
    pub(crate) fn observe(root: &Path) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            processor_count: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: said(root, "uname", &["-sr"]),
            rustc: said(root, "rustc", &["--version"]),
            commit: commit(root),
            date: said(root, "date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            load_average: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
        }
    }

    /// Whether rates of the other one mean something here.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.processor == other.processor && self.processor_count == other.processor_count
    }

    /// One line for the reader.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} ({} processors), {}, {}, commit {}, {}, load average at the start {:.2}",
            self.processor,
            self.processor_count,
            self.kernel,
            self.rustc,
            self.commit,
            self.date,
            self.load_average
        )
    }
}

/// The commit that is checked out; with a `+` if sources differ from it.
fn commit(root: &Path) -> String {
    let commit = said(root, "git", &["rev-parse", "--short=10", "HEAD"]);
    let sources = ["src", "examples", "benches/peers", "Cargo.toml", "Cargo.lock"];
    let status: Vec<_> = ["status", "--porcelain", "--"].into_iter().chain(sources).collect();
    match said(root, "git", &status).is_empty() {
        true => commit,
        false => commit + "+",
    }
}

/// What a program prints; empty if it cannot.
fn said(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    output.map_or(String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
