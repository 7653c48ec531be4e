//! The Autobahn suite against both kinds of handler: no case fails, and none is less than strict.
//!
//! It needs the suite's `wstest`, which needs Python 2.7 (`pip install autobahntestsuite`): named
//! by `PEREGRINE_WSTEST`, or on the path. Where it is missing the test says so and passes; with
//! `PEREGRINE_REQUIRE_AUTOBAHN` set in the environment it fails instead.
//! `PEREGRINE_AUTOBAHN_CASES` chooses cases, such as `6.*,7.*`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/echo.rs"]
mod echo;
#[path = "common/skipped.rs"]
mod skipped;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// How long the suite may take: under a minute on two cores that have nothing else to do.
const LIMIT: Duration = Duration::from_secs(600);
/// Between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The suite's program, if this machine has it.
fn wstest() -> Option<PathBuf> {
    if let Some(path) = env::var_os("PEREGRINE_WSTEST") {
        return Some(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join("wstest")).find(|file| file.is_file())
}

/// Tells whoever runs the tests; the test runner would keep `eprintln` to itself.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").expect("a place to say so");
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the suite as `spec.json` in this folder says; what it prints is kept there.
fn run(wstest: &Path, folder: &Path) {
    let log = folder.join("wstest.log");
    let output = File::create(&log).expect("a log");
    let errors = output.try_clone().expect("a descriptor");
    let mut command = Command::new(wstest);
    command.args(["--mode", "fuzzingclient", "--spec", "spec.json"]).current_dir(folder);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let mut process = Process(command.spawn().expect("wstest starts"));
    for _ in 0..LIMIT.as_millis() / LOOK_EVERY.as_millis() {
        if let Some(status) = process.0.try_wait().expect("a child") {
            assert!(status.success(), "{status}: {:?}", fs::read_to_string(&log));
            return;
        }
        thread::park_timeout(LOOK_EVERY);
    }
    panic!("the suite has not ended within {LIMIT:?}");
}

/// Whether a case's outcome is as good as can be.
fn is_right(name: &str, case: &Value) -> bool {
    // Which of several right ways was taken, where the RFC leaves the choice.
    let mut right = vec!["OK", "INFORMATIONAL"];
    // Compression is offered there; that it is not negotiated is not held against anybody.
    if name.starts_with("12.") || name.starts_with("13.") {
        right.push("UNIMPLEMENTED");
    }
    let is = |field: &str, right: &[&str]| {
        case[field].as_str().is_some_and(|outcome| right.contains(&outcome))
    };
    is("behavior", &right) && is("behaviorClose", &right[..2])
}

/// Counts outcomes, of cases and of how they closed; and tells which were wrong.
fn judge(report: &Value) -> (BTreeMap<String, usize>, Vec<String>) {
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for path in echo::PATHS {
        let cases = report[&path[1..]].as_object().expect("a report of this endpoint");
        assert!(!cases.is_empty(), "{path} was not tested");
        for (name, case) in cases {
            let outcome = |field: &str| case[field].as_str().unwrap_or("nothing").to_owned();
            for counted in [outcome("behavior"), format!("closing {}", outcome("behaviorClose"))] {
                *counts.entry(counted).or_default() += 1;
            }
            if !is_right(name, case) {
                wrong.push(format!("{path} {name}: {case}"));
            }
        }
    }
    (counts, wrong)
}

#[test]
fn the_autobahn_suite_finds_nothing_wrong() {
    let Some(wstest) = wstest() else {
        let is_required = env::var_os("PEREGRINE_REQUIRE_AUTOBAHN").is_some();
        assert!(!is_required, "the Autobahn suite is required, and there is no wstest");
        skipped::skip("the Autobahn suite", "no wstest on the path, nor in PEREGRINE_WSTEST");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");

    let server = common::start(2, echo::serve);
    let address = server.local_addr();
    let agent = |path: &str| json!({ "agent": path[1..], "url": format!("ws://{address}{path}") });
    let cases = env::var("PEREGRINE_AUTOBAHN_CASES").unwrap_or_else(|_| "*".to_owned());
    let spec = json!({
        "outdir": "report",
        "servers": echo::PATHS.map(agent),
        "cases": cases.split(',').collect::<Vec<_>>(),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    fs::write(folder.join("spec.json"), spec.to_string()).expect("a specification");
    run(&wstest, &folder);

    let report = fs::read_to_string(folder.join("report/index.json")).expect("a report");
    let (counts, wrong) = judge(&serde_json::from_str(&report).expect("JSON"));
    say(&format!("Autobahn: {counts:?}"));
    assert!(wrong.is_empty(), "{wrong:#?}, reported in {}", folder.display());
}
