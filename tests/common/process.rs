//! Processes of a test's own: examples, and what else it starts.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use peregrine::RunningServer;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::common::PATIENCE;

/// Building an example takes this long at most, if `cargo test` has not already done it.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// What stands before the address in the line that tells it.
const SERVES: &str = "serves at ";

/// A process of ours and what it prints. It is killed when dropped.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        // It ends with the pipe, that is, with the process.
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Self { child, lines }
    }

    /// The kernel's number of it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What follows `marker` in the next line that has it.
    pub fn after(&self, marker: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("the line with {marker:?} does not come"));
            if let Some((_, rest)) = line.split_once(marker) {
                return rest.to_owned();
            }
        }
    }

    /// Waits for the end; returns the status and the lines that had not been looked at.
    pub fn end(&mut self, limit: Duration) -> (ExitStatus, Vec<String>) {
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(limit) {
                Ok(line) => rest.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end; {rest:?}"),
            }
        }
        (self.child.wait().expect("a child of ours"), rest)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("a child of ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This test program once more, to run one of its tests, which serves.
pub fn server(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a path"));
    command.args(["--exact", test, "--nocapture"]);
    command
}

/// Serves until the process is killed, or the one that started it ends.
pub fn serve(running: &RunningServer) -> ! {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux");
    writeln!(io::stdout(), "\n{SERVES}{}", running.local_addr()).expect("a place to say so");
    loop {
        thread::park();
    }
}

impl Process {
    /// The address of what [`serve`]s.
    pub fn address(&self) -> SocketAddr {
        self.after(SERVES).parse().expect("an address")
    }

    /// What it has in memory, in bytes, to the page.
    pub fn resident_bytes(&self) -> usize {
        // `VmRSS` and `statm` may be some pages per processor off.
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id()));
        let rollup = rollup.expect("Linux 4.14");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib: Option<usize> =
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        1024 * kib.expect("a size")
    }
}

/// An example's executable, built like this test; one test program runs one example. `cargo test`
/// has built it, and then this takes no time; `cargo test --test NAME` has not, and what lies there
/// may be stale.
pub fn example(name: &str) -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        let own = env::current_exe().expect("a path");
        // TARGET/PROFILE/deps/TEST-HASH
        let profile_dir = own.parent().and_then(Path::parent).expect("a profile's directory");
        let target_dir = profile_dir.parent().expect("a target directory");
        let profile = match profile_dir.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", name, "--profile", profile]);
        // The repository's root: the same packages as `cargo test` there, and so the same features
        // of what they depend on.
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        cargo.arg("--target-dir").arg(target_dir);
        match (cfg!(feature = "serde"), cfg!(feature = "testing")) {
            (true, true) => cargo.arg("--all-features"),
            (true, false) => cargo.args(["--features", "serde"]),
            (false, true) => cargo.args(["--features", "testing"]),
            (false, false) => &mut cargo,
        };
        let (status, _) = Process::start(&mut cargo).end(BUILD_LIMIT);
        assert!(status.success(), "the example does not build");
        profile_dir.join("examples").join(name)
    });
    assert!(binary.ends_with(name), "this program runs another example");
    Command::new(binary)
}
