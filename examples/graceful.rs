//! A journal that is replaced without losing anything: what a client sends is appended to a file,
//! and only then acknowledged. On a signal the server shuts down gracefully; on a second one at
//! once.
//!
//! ```text
//! cargo run --release --example graceful -- [ADDRESS] [FILE] [GRACE_SECONDS]
//! ```
//!
//! To replace it, start a second one with the same address and file, then `kill -TERM` the first.
//! Its clients get Close 1012 one after another, and come back to the second. What a client has no
//! acknowledgement of, it sends again: so all that it was told is stored, is stored, at least once.
//! That outlives the process, however that dies; to outlive the machine, too, takes a `sync_data`
//! before each acknowledgement.

#![allow(clippy::print_stdout, reason = "it tells where it serves, and how it ended")]

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, CloseCode, Reply, Server, ServerBuilder, ShutdownPlan};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn app(journal: File) -> ServerBuilder {
    let journal = Arc::new(journal);
    let endpoint = Callbacks::<()>::new().on_message(move |_ws, message| {
        let Some(text) = message.as_text().filter(|text| !text.contains('\n')) else {
            return "not a line".into();
        };
        let (journal, line) = (Arc::clone(&journal), format!("{text}\n"));
        // The disk may be slow. A shutdown waits for what is under way.
        Reply::offload(move || match (&*journal).write_all(line.as_bytes()) {
            Ok(()) => format!("stored {}", line.trim_end()),
            Err(error) => format!("not stored: {error}"),
        })
    });
    // The next process shares the port until this one has stopped listening.
    Server::builder().websocket("/journal", endpoint).readiness("/ready").share_port()
}

/// Half of the grace for the Close frames, so that the clients do not come back as a herd; the rest
/// for those who are slow to answer.
fn plan(grace: Duration) -> ShutdownPlan {
    ShutdownPlan::within(grace)
        .announce(grace / 10)
        .spread(grace / 2)
        .code(CloseCode::SERVICE_RESTART)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = arguments.next().unwrap_or_else(|| "journal.txt".to_owned());
    let grace = Duration::from_secs(arguments.next().map_or(Ok(20), |seconds| seconds.parse())?);

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let journal = File::options().append(true).create(true).open(file)?;
    let running = app(journal).bind(address)?.start()?;
    println!("ws://{}/journal", running.local_addr());

    let hub = running.hub();
    thread::spawn(move || {
        let plans = [plan(grace), Duration::ZERO.into()];
        for (_, plan) in signals.forever().zip(plans) {
            hub.shutdown(plan);
        }
    });
    let report = running.join()?;
    let (open, aborted) = (report.open_count, report.aborted_count);
    println!("{open} connections were open, {aborted} had to be dropped");
    Ok(())
}
