//! The Autobahn suite's own run against both kinds of handler: no case may fail, and none be less
//! than strict.
//!
//! It needs the suite's `wstest`, which needs Python 2.7: named by `PEREGRINE_WSTEST`, or on the
//! path. Where it is missing the test says so and passes; with `PEREGRINE_REQUIRE_AUTOBAHN` set it
//! fails instead. `PEREGRINE_AUTOBAHN_CASES` chooses cases, such as `6.*,7.*`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/echo.rs"]
mod echo;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// How long the suite may take: about two minutes and a half on two cores.
const LIMIT: Duration = Duration::from_secs(900);
/// Between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The suite's program, or `None` if this machine has none.
fn wstest() -> Option<PathBuf> {
    if let Some(path) = env::var_os("PEREGRINE_WSTEST") {
        return Some(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join("wstest")).find(|file| file.is_file())
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the suite with this specification; what it says goes to `log`.
fn run(wstest: &Path, spec: &Path, log: &Path) {
    let output = File::create(log).expect("a log");
    let mut command = Command::new(wstest);
    command
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(spec)
        .current_dir(spec.parent().expect("a folder"));
    let streams = output.try_clone().expect("a descriptor");
    command.stdin(Stdio::null()).stdout(output).stderr(streams);
    let mut process = Process(command.spawn().expect("wstest starts"));
    for _ in 0..LIMIT.as_millis() / LOOK_EVERY.as_millis() {
        if let Some(status) = process.0.try_wait().expect("a child") {
            let said = || fs::read_to_string(log).unwrap_or_default();
            assert!(status.success(), "wstest ends with {status}: {}", said());
            return;
        }
        thread::park_timeout(LOOK_EVERY);
    }
    panic!("the suite has not ended within {LIMIT:?}");
}

/// Whether a case's outcome is as good as can be.
///
/// What is informational says which of several ways was taken, all of them right.
fn is_right(case: &Value) -> bool {
    let is = |field: &str, allowed: &[&str]| {
        case[field].as_str().is_some_and(|outcome| allowed.contains(&outcome))
    };
    is("behavior", &["OK", "INFORMATIONAL"]) && is("behaviorClose", &["OK", "INFORMATIONAL"])
}

#[test]
fn the_autobahn_suite_finds_nothing_wrong() {
    let Some(wstest) = wstest() else {
        let is_required = env::var_os("PEREGRINE_REQUIRE_AUTOBAHN").is_some();
        assert!(!is_required, "the Autobahn suite is required, and there is no wstest");
        // Not by `eprintln`: the test runner would keep it to itself.
        writeln!(io::stderr(), "skipped the Autobahn suite: there is no wstest (PEREGRINE_WSTEST)")
            .expect("a place to say so");
        return;
    };
    let server = common::start(1, echo::serve);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let address = server.local_addr();
    let servers = echo::PATHS
        .map(|path| json!({ "agent": &path[1..], "url": format!("ws://{address}{path}") }));
    let cases = env::var("PEREGRINE_AUTOBAHN_CASES").unwrap_or_else(|_| "*".to_owned());
    let spec = json!({
        "outdir": folder.join("report"),
        "servers": servers,
        "cases": cases.split(',').collect::<Vec<_>>(),
        // Compression, which is never negotiated.
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let spec_file = folder.join("spec.json");
    fs::write(&spec_file, spec.to_string()).expect("a specification");
    run(&wstest, &spec_file, &folder.join("wstest.log"));

    let index = fs::read_to_string(folder.join("report/index.json")).expect("a report");
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let mut counts = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for path in echo::PATHS {
        let cases = index[&path[1..]].as_object().expect("a report of this endpoint");
        assert!(!cases.is_empty(), "{path} was not tested");
        for (name, case) in cases {
            *counts.entry(case["behavior"].to_string()).or_default() += 1;
            *counts.entry(format!("closing {}", case["behaviorClose"])).or_default() += 1;
            if !is_right(case) {
                wrong.push(format!("{path} {name}: {case}"));
            }
        }
    }
    writeln!(io::stderr(), "Autobahn: {counts:?}").expect("a place to say so");
    assert!(wrong.is_empty(), "{wrong:#?}, reported in {}", folder.display());
}
