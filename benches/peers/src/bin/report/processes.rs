//! Servers and load as processes: pinned to processors, bounded in time, gone at the end, whatever
//! that end is.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::outcome::Outcome;

/// How long a server may need until it listens.
const START: Duration = Duration::from_secs(20);
/// How often is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(20);

/// Where a process runs, and how much it matters there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The server's own processor.
    Server,
    /// The processor of the load.
    Load,
    /// There too, but only when the load that is measured has nothing to do.
    LoadIdle,
    /// Wherever there is room.
    Anywhere,
}

impl Place {
    /// The words before the program.
    fn prefix(self) -> &'static [&'static str] {
        match self {
            Self::Server => &["taskset", "-c", "0"],
            Self::Load => &["taskset", "-c", "1"],
            Self::LoadIdle => &["taskset", "-c", "1", "chrt", "--idle", "0"],
            Self::Anywhere => &[],
        }
    }
}

/// A program with its arguments, and where it runs.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    words: Vec<String>,
}

impl Line {
    pub(crate) fn new(place: Place, program: &Path) -> Self {
        let prefix = place.prefix().iter().map(|word| (*word).to_owned());
        Self { words: prefix.chain([program.display().to_string()]).collect() }
    }

    /// Before all words there are: a program that watches this one.
    pub(crate) fn below(mut self, watcher: &[&str]) -> Self {
        let watched = std::mem::take(&mut self.words);
        self.words.extend(watcher.iter().map(|word| (*word).to_owned()));
        self.words.extend(watched);
        self
    }

    /// Words, parted by spaces.
    pub(crate) fn with(mut self, arguments: &str) -> Self {
        self.words.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// As one would type it in the folder of the repository.
    pub(crate) fn shown(&self, root: &Path) -> String {
        self.words.join(" ").replace(&format!("{}/", root.display()), "")
    }

    /// Runs it to its end, however that is.
    pub(crate) fn run(&self, patience: Duration) -> Result<()> {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn()?).wait(patience).map(drop)
    }

    /// Ends with us, even if we are killed.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(&self.words).stdin(Stdio::null());
        command
    }
}

/// A process that is killed when it is not wanted any more.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Waits until it ends; whether it said that all was well.
    fn wait(&mut self, patience: Duration) -> Result<bool> {
        let mut status = None;
        let has_ended = eventually(patience, || {
            status = self.0.try_wait().ok().flatten();
            status.is_some()
        });
        match has_ended {
            true => Ok(status.is_some_and(|status| status.success())),
            false => Err(format!("did not end within {} s", patience.as_secs()).into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail: it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    pub(crate) address: String,
    pub(crate) pid: u32,
    /// Descriptors that are open without clients.
    own_count: usize,
}

impl Server {
    /// By its line `NAME listening on ADDRESS, pid PID`.
    pub(crate) fn start(line: &Line) -> Result<Self> {
        let failed = |error| format!("{}: {error}", line.words.join(" "));
        let mut child = line.command().stdout(Stdio::piped()).spawn().map_err(failed)?;
        let output = child.stdout.take();
        let process = Process(child);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut first = String::new();
            if let Some(output) = output {
                drop(BufReader::new(output).read_line(&mut first));
            }
            // Whoever started it may have given up.
            drop(sender.send(first));
        });
        let first = receiver.recv_timeout(START).unwrap_or_default();
        let (address, pid) = listening(&first)
            .ok_or_else(|| format!("{}: does not listen: {first:?}", line.words.join(" ")))?;
        let mut server = Self { process, address, pid, own_count: 0 };
        server.own_count = server.descriptor_count();
        Ok(server)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Waits until so many clients have come.
    pub(crate) fn await_clients(&self, count: usize, patience: Duration) -> Result<()> {
        let come = || self.descriptor_count().saturating_sub(self.own_count);
        match eventually(patience, || come() >= count) {
            true => Ok(()),
            false => Err(format!("{} of {count} clients have come", come()).into()),
        }
    }

    fn descriptor_count(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// Asks it to end when its clients have gone, and waits for whoever watches it to say what it
    /// has seen.
    pub(crate) fn end(mut self) -> Result<()> {
        eventually(START, || self.descriptor_count() <= self.own_count);
        Command::new("kill").args(["-TERM", &self.pid.to_string()]).status()?;
        self.process.wait(START).map(drop)
    }
}

fn listening(line: &str) -> Option<(String, u32)> {
    let (_, rest) = line.trim().split_once(" listening on ")?;
    let (address, pid) = rest.split_once(", pid ")?;
    Some((address.to_owned(), pid.parse().ok()?))
}

/// A load generator that runs.
#[derive(Debug)]
pub(crate) struct Load {
    process: Process,
    file: PathBuf,
}

impl Load {
    pub(crate) fn start(line: &Line) -> Result<Self> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("peregrine-report-{}-{count}.json", std::process::id());
        let file = std::env::temp_dir().join(name);
        let mut command = line.command();
        command.args(["--quiet", "--json"]).arg(&file).stdout(Stdio::null());
        let child =
            command.spawn().map_err(|error| format!("{}: {error}", line.words.join(" ")))?;
        Ok(Self { process: Process(child), file })
    }

    /// What it found, at the latest after `patience`.
    pub(crate) fn finish(mut self, patience: Duration) -> Result<Outcome> {
        let is_well = self.process.wait(patience)?;
        let text = fs::read_to_string(&self.file)
            .map_err(|error| format!("the load says nothing: {error}"))?;
        Outcome::parse(&text, is_well)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may not have come to write it.
        drop(fs::remove_file(&self.file));
    }
}

/// Whether something comes true before patience ends.
fn eventually(patience: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let mut left = patience;
    loop {
        if is_true() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        thread::sleep(LOOK);
        left = left.saturating_sub(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_first_line_tells_address_and_process() {
        let line = "axum listening on 127.0.0.1:4711, pid 12\n";
        assert_eq!(listening(line), Some(("127.0.0.1:4711".to_owned(), 12)));
        assert_eq!(listening("thread 'main' panicked"), None);
        assert_eq!(listening(""), None);
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let program = Path::new("/home/me/peregrine/target/release/load");
        let line = Line::new(Place::Load, program).with("ws://x/ --size  64").below(&["strace"]);
        let shown = line.shown(Path::new("/home/me/peregrine"));
        assert_eq!(shown, "strace taskset -c 1 target/release/load ws://x/ --size 64");
    }

    #[test]
    fn what_does_not_end_in_time_is_an_error_and_is_killed() {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let (id, mut process) = (child.id(), Process(child));
        assert!(process.wait(Duration::from_millis(50)).is_err());
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
