//! A load generator for WebSocket servers, ours or any other: it puts them under load, checks every
//! answer byte for byte, and tells how they did.
//!
//! ```text
//! cargo run --release -p peregrine-load -- ws://127.0.0.1:8080/echo --connections 100
//! cargo run --release -p peregrine-load -- --help
//! ```
//!
//! It is made not to be the bottleneck, and tells when it was. Frames are made, and masked, before
//! the clock runs; what comes back is compared as it lies, a whole batch at once; a batch costs one
//! read and one write; nothing is allocated while it runs. So it spends less on a message than a
//! server can. And it measures itself: how busy each of its threads was, how long they had to wait
//! for a processor, and in an open loop (`--rate`) how much later than due they got to sending.
//!
//! By callgrind, echoes of 64 bytes cost it 36 instructions a message with 32 in flight, and 880
//! with one (where the kernel's part is 12 000); a delivery of one of 16 broadcasts in flight, 64.
//!
//! Where to begin reading: `options` is the command line, `script` what is sent; `worker` is a
//! thread and its turns, with a role by mode: `echo`, `broadcast`, `visit`, or merely to hold;
//! `link` is a connection, `incoming` compares what it receives; `measure` is what the main thread
//! does meanwhile, `report` what comes out. It runs on Linux.

mod alarm;
mod broadcast;
mod echo;
mod floor;
mod generator;
mod incoming;
mod link;
mod measure;
mod options;
mod process;
mod report;
mod role;
mod schedule;
mod script;
mod shared;
mod summary;
mod tally;
mod upgrade;
mod url;
mod visit;
mod worker;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::{Poll, Waker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use self::options::{HELP, Options, Output};
use self::report::Report;
use self::shared::Shared;

/// Descriptors beside those of the connections.
const SPARE_DESCRIPTOR_COUNT: u64 = 64;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(report) if report.errors.total == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> io::Result<Report> {
    allow_descriptors(options.connection_count as u64)?;
    let address = options
        .url
        .resolve(&options.from)
        .map_err(|error| io::Error::other(format!("{}: {error}", options.url)))?;
    let is_stopped = Arc::new(AtomicBool::new(false));
    // The second interrupt ends it at once.
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&is_stopped))?;
    flag::register(SIGINT, Arc::clone(&is_stopped))?;

    let polls = (0..options.thread_count).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
    let waker = |poll: &Poll| Waker::new(poll.registry(), worker::WAKER);
    let wakers = polls.iter().map(waker).collect::<io::Result<_>>()?;
    let shared = Shared::new(options, address, is_stopped, wakers);
    let report = Report::new(&shared, measure::run(&shared, polls)?);

    let options = &shared.options;
    if options.json != Some(Output::Stdout) {
        say(&summary::text(&report));
    }
    match &options.json {
        None => {}
        Some(Output::Stdout) => say(&report.json()?),
        Some(Output::File(path)) => std::fs::write(path, report.json()?)
            .map_err(|error| io::Error::other(format!("--json {}: {error}", path.display())))?,
    }
    Ok(report)
}

/// Raises the limit of descriptors as far as it may be, and says if that is too low.
fn allow_descriptors(connection_count: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let needed = connection_count + SPARE_DESCRIPTOR_COUNT;
    match limit.maximum {
        Some(maximum) if maximum < needed => Err(io::Error::other(format!(
            "{connection_count} connections need {needed} descriptors, and {maximum} are allowed; \
             see `ulimit -Hn`"
        ))),
        _ => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "its output")]
fn say(text: &str) {
    println!("{}", text.trim_end());
}
