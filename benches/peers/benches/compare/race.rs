//! All servers under one load, in laps. Must not know what is made of the figures.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::common::{NAMES, Process};
use super::loads::{Iterations, Load};

/// Laps of less than this part of the longest do not count: criterion warms up with 1, 2, 4, ..
/// iterations. How long a lap took must not decide, or who was fast would be left out.
const LAP_PART_MIN: u64 = 4;

/// How long a server may think about an upgrade before it does not take part.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that was running already.
#[derive(Clone, Debug)]
struct Guest {
    name: String,
    address: SocketAddr,
    pid: Option<u32>,
}

/// The servers in `PEREGRINE_PEER`.
fn guests() -> Vec<Guest> {
    let named = env::var("PEREGRINE_PEER").unwrap_or_default();
    let guest = |word: &str| {
        let (name, url) = word.split_once("=ws://")?;
        let (address, pid) = match url.split_once('#') {
            Some((address, pid)) => (address, Some(pid.parse().ok()?)),
            None => (url, None),
        };
        let address = address.trim_end_matches('/').parse().ok()?;
        Some(Guest { name: name.to_owned(), address, pid })
    };
    let understood = |word| guest(word).expect("PEREGRINE_PEER is NAME=ws://ADDRESS[#PID] ..");
    named.split_whitespace().map(understood).collect()
}

/// Whether a server upgrades this path.
fn upgrades(address: SocketAddr, path: &str) -> bool {
    let mut stream = TcpStream::connect(address).expect("PEREGRINE_PEER listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let mut line = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && BufReader::new(stream).read_line(&mut line).is_ok()
        && line.starts_with("HTTP/1.1 101 ")
}

/// Who takes part in loads on this path; ours is the first.
pub(crate) fn competitors(path: &str) -> Vec<String> {
    let guests = guests().into_iter().filter(|guest| upgrades(guest.address, path));
    let own = NAMES.iter().map(|&name| name.to_owned());
    own.chain(guests.map(|guest| guest.name)).collect()
}

/// One server and the client's connections to it. The clients end first.
struct Runner {
    name: String,
    iterations: Iterations,
    pid: Option<u32>,
    _process: Option<Process>,
}

/// A server's part of a lap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) wall: Duration,
    /// On processors, kernel included; none if the process is not known.
    pub(crate) processor: Option<Duration>,
    pub(crate) message_count: u64,
}

/// What there is to know after a race.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) names: Vec<String>,
    /// Of each lap the parts, in the order of the names.
    pub(crate) laps: Vec<Vec<Part>>,
}

/// All servers, connected.
pub(crate) struct Race {
    load: Load,
    runners: Vec<Runner>,
    laps: Vec<Vec<Part>>,
    is_backward: bool,
}

impl Race {
    /// Starts the servers and connects to all.
    pub(crate) fn prepare(load: Load) -> Self {
        let script = load.script();
        let connect = |address| load.connect(address, script.clone());
        let own = |&name: &&str| {
            let process = Process::start(name, 1);
            let (iterations, pid) = (connect(process.address()), Some(process.pid()));
            Runner { name: name.to_owned(), iterations, pid, _process: Some(process) }
        };
        let mut runners: Vec<_> = NAMES.iter().map(own).collect();
        for Guest { name, address, pid } in guests() {
            if upgrades(address, load.path()) {
                runners.push(Runner { name, iterations: connect(address), pid, _process: None });
            }
        }
        Self { load, runners, laps: Vec::new(), is_backward: false }
    }

    /// Every server runs so many iterations; tells how long the one of this name took.
    pub(crate) fn lap(&mut self, count: u64, name: &str) -> Duration {
        let message_count = count * self.load.message_count() as u64;
        let iteration_count = usize::try_from(count).expect("a count");
        let mut run = |runner: &mut Runner| {
            let before = processor_time(runner.pid);
            let start = now();
            (runner.iterations)(iteration_count);
            let wall = start.elapsed();
            let after = processor_time(runner.pid);
            let processor = after.zip(before).map(|(after, before)| after - before);
            Part { wall, processor, message_count }
        };
        let lap: Vec<Part> = if self.is_backward {
            let mut lap: Vec<_> = self.runners.iter_mut().rev().map(&mut run).collect();
            lap.reverse();
            lap
        } else {
            self.runners.iter_mut().map(&mut run).collect()
        };
        self.is_backward = !self.is_backward;
        let at = self.runners.iter().position(|runner| runner.name == name).expect("a runner");
        let wall = lap[at].wall;
        self.laps.push(lap);
        wall
    }

    /// Ends all servers.
    pub(crate) fn end(mut self) -> Results {
        let length = |lap: &Vec<Part>| lap[0].message_count;
        let longest = self.laps.iter().map(length).max().unwrap_or(0);
        self.laps.retain(|lap| length(lap) >= longest / LAP_PART_MIN);
        let names = self.runners.into_iter().map(|runner| runner.name).collect();
        Results { names, laps: self.laps }
    }
}

/// How long the threads of a process have been on processors (Linux).
fn processor_time(pid: Option<u32>) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{}/task", pid?)).ok()?;
    let nanos = |thread: fs::DirEntry| -> Option<u64> {
        let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse().ok()
    };
    Some(Duration::from_nanos(threads.flatten().filter_map(nanos).sum()))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}
