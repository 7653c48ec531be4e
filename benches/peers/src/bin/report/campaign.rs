//! What all parts share: how long and how often, starting servers and load, keeping what they say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::machine::Machine;
use crate::processes::{Line, Load, Place, Server};
use crate::results::{Results, Sample};
use crate::{PARTS, Result};

/// Beyond what it was told, a load may need this long: to connect 20 000 times, and to close.
const PATIENCE: Duration = Duration::from_secs(30);

/// Above that the machine has something else to do.
const LOAD_AVERAGE_MAX: f64 = 0.5;

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) is_quick: bool,
    /// How often everything is measured, in turns.
    pub(crate) round_count: usize,
    /// How long one measurement lasts, and what goes before it.
    pub(crate) seconds: u64,
    pub(crate) warm_up_seconds: u64,
    /// Who hears a broadcast while echoes are measured.
    pub(crate) member_count: usize,
    /// Connections, where growth is measured.
    pub(crate) connection_counts: &'static [usize],
    /// Messages of the smaller of two runs, where system calls are counted.
    pub(crate) call_message_count: usize,
}

impl Plan {
    pub(crate) const FULL: Self = Self {
        is_quick: false,
        round_count: 3,
        seconds: 2,
        warm_up_seconds: 1,
        member_count: 10_000,
        connection_counts: &[100, 1_000, 5_000, 10_000, 17_400],
        call_message_count: 20_000,
    };
    pub(crate) const QUICK: Self = Self {
        is_quick: true,
        round_count: 1,
        seconds: 1,
        warm_up_seconds: 0,
        member_count: 1_000,
        connection_counts: &[100, 1_000],
        call_message_count: 2_000,
    };

    /// What a load is told that measures.
    pub(crate) fn times(&self) -> String {
        format!("--duration {} --warm-up {}", self.seconds, self.warm_up_seconds)
    }

    /// How long that load runs, in seconds.
    pub(crate) fn all_seconds(&self) -> u64 {
        self.seconds + self.warm_up_seconds
    }
}

/// What is told of a run as it ends.
const TOLD: [&str; 6] = [
    "rate",
    "p99_micros",
    "server_cpu_micros",
    "load_busy_percent",
    "rss_bytes_per_connection",
    "sum",
];

/// What a run gave, by name.
pub(crate) type Values = BTreeMap<String, f64>;

/// A part that is being measured.
#[derive(Debug)]
pub(crate) struct Campaign {
    pub(crate) plan: Plan,
    pub(crate) servers: Vec<String>,
    pub(crate) folder: PathBuf,
    root: PathBuf,
    /// Where cargo puts what it builds: we are there too.
    programs: PathBuf,
    results: Results,
}

impl Campaign {
    pub(crate) fn new(
        root: PathBuf,
        folder: PathBuf,
        servers: Vec<String>,
        plan: Plan,
    ) -> Result<Self> {
        let machine = Machine::observe(&root);
        let results = Results::new("", plan.is_quick, machine);
        let program = std::env::current_exe()?;
        let programs = program.parent().ok_or("a program lies in a folder")?.to_owned();
        Ok(Self { plan, servers, folder, root, programs, results })
    }

    /// Whether a part's file was made at this commit.
    pub(crate) fn has_measured(&self, part: &str) -> bool {
        let commit = &self.results.machine.commit;
        let found = Results::load(&self.folder, part);
        found.is_ok_and(|found| found.machine.commit == *commit && !commit.ends_with('+'))
    }

    /// Measures a part and writes its file.
    pub(crate) fn run(&mut self, part: &str) -> Result<()> {
        let (_, measure) = PARTS.iter().find(|(name, _)| *name == part).ok_or("no such part")?;
        let machine = self.results.machine.clone();
        eprintln!("{part}: {}", machine.describe());
        self.build()?;
        let load_average = machine.load_average;
        self.results = Results::new(part, self.plan.is_quick, machine);
        if load_average > LOAD_AVERAGE_MAX {
            self.note(format!("the machine was busy when it began: load average {load_average}"));
        }
        measure(self)?;
        self.results.save(&self.folder)?;
        for note in &self.results.notes {
            println!("{part}: {note}");
        }
        Ok(())
    }

    /// Builds the servers and the load generator, if they are not what the sources say.
    fn build(&self) -> Result<()> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        for what in ["-p peregrine-peers --bin peregrine-peers", "-p peregrine-load"] {
            let arguments = ["build", "--release", "--locked", "--quiet"];
            let mut command = Command::new(&cargo);
            command.args(arguments).args(what.split(' ')).current_dir(&self.root);
            if !command.status()?.success() {
                return Err(format!("cargo build --release {what} failed").into());
            }
        }
        Ok(())
    }

    /// All servers, in a direction that changes with each round: what drifts, drifts for all.
    pub(crate) fn order(&self, round: usize) -> Vec<String> {
        let mut servers = self.servers.clone();
        if round % 2 == 1 {
            servers.reverse();
        }
        servers
    }

    /// Runs one measurement and keeps what it gave, or why it gave nothing.
    pub(crate) fn sample(
        &mut self,
        (case, server, round): (&str, &str, usize),
        measure: impl FnOnce(&mut Self) -> Result<Values>,
    ) {
        let (values, error) = match measure(self) {
            Ok(values) => (values, None),
            Err(error) => (Values::new(), Some(error.to_string())),
        };
        let told = |name: &&str| Some(format!("{name} {:.1}", values.get(*name)?));
        let told: Vec<_> = TOLD.iter().filter_map(told).chain(error.clone()).collect();
        eprintln!("  {}. {case}, {server}: {}", round + 1, told.join(", "));
        let (case, server) = (case.to_owned(), server.to_owned());
        self.results.samples.push(Sample { case, server, round, values, error });
    }

    /// What was measured so far in this part.
    pub(crate) fn results(&self) -> &Results {
        &self.results
    }

    pub(crate) fn note(&mut self, note: String) {
        self.results.notes.push(note);
    }

    /// A server on its own processor; more shards than one have all processors.
    pub(crate) fn serve(&mut self, name: &str, shard_count: usize) -> Result<Server> {
        let line = self.server_line(name, shard_count);
        self.keep(&line);
        Server::start(&line)
    }

    /// The same, watched by another program.
    pub(crate) fn serve_below(&mut self, watcher: &[&str], name: &str) -> Result<Server> {
        let line = self.server_line(name, 1).below(watcher);
        self.keep(&line);
        Server::start(&line)
    }

    /// Counts the system calls of a server for a while.
    pub(crate) fn watch(&mut self, server: &Server, seconds: u64, file: &Path) -> Result<()> {
        let words = ["-s", "INT", &seconds.to_string(), "strace", "-f", "-c", "-o"];
        let line = Line::new(Place::Anywhere, Path::new("timeout")).with(&format!(
            "{} {} -p",
            words.join(" "),
            file.display()
        ));
        self.keep(&line.clone().with("PID"));
        line.with(&server.pid.to_string()).run(PATIENCE)
    }

    fn server_line(&self, name: &str, shard_count: usize) -> Line {
        let place = if shard_count == 1 { Place::Server } else { Place::Anywhere };
        Line::new(place, &self.programs.join("peregrine-peers"))
            .with(&format!("serve {name} 127.0.0.1:0 --shards {shard_count}"))
    }

    /// Puts load on a server's path; what it found, once it is through.
    pub(crate) fn load(&mut self, server: &Server, path: &str, options: &str) -> Result<Values> {
        self.load_at(Place::Load, server, path, options)
    }

    /// The same from elsewhere.
    pub(crate) fn load_at(
        &mut self,
        place: Place,
        server: &Server,
        path: &str,
        options: &str,
    ) -> Result<Values> {
        let seconds = self.plan.all_seconds();
        let options = format!("{options} --pid {}", server.pid);
        let load = self.start_load(place, server, path, &options)?;
        load.finish(PATIENCE + Duration::from_secs(seconds))?.checked()
    }

    /// Starts load, and goes on while it lasts.
    pub(crate) fn start_load(
        &mut self,
        place: Place,
        server: &Server,
        path: &str,
        options: &str,
    ) -> Result<Load> {
        let program = self.programs.join("load");
        let line = Line::new(place, &program);
        // As it is shown, the same in every round.
        let shown = options.replace(&format!("--pid {}", server.pid), "--pid PID");
        self.keep(&line.clone().with(&format!("ws://ADDRESS{path} {shown}")));
        Load::start(&line.with(&format!("{} {options}", server.url(path))))
    }

    fn keep(&mut self, line: &Line) {
        let shown = line.shown(&self.root);
        if !self.results.commands.contains(&shown) {
            self.results.commands.push(shown);
        }
    }
}
