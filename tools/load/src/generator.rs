//! The load generator's share in what was measured: was it the bottleneck?

use serde::Serialize;

use crate::measure::Measured;
use crate::options::Options;
use crate::report::{Latencies, per};

/// From this share of the time on, a thread counts as busy: then the load generator, not the
/// server, may be what was measured.
const BUSY: f64 = 0.85;
/// From this share of the time on, a thread that is ready and has no processor counts as starved.
const STARVED: f64 = 0.10;

/// The load generator itself.
#[derive(Debug, Serialize)]
pub(crate) struct Generator {
    pub(crate) threads: Vec<Thread>,
    pub(crate) cpu_us_per_message: Option<f64>,
    /// How much later than due it got to sending, in an open loop.
    pub(crate) late_us: Option<Latencies>,
    /// What may have been measured instead of the server.
    pub(crate) warnings: Vec<String>,
}

/// Shares of the time that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Thread {
    /// On a processor.
    pub(crate) busy: f64,
    /// Ready, without a processor.
    pub(crate) waiting: f64,
}

impl Generator {
    pub(crate) fn new(options: &Options, measured: &Measured) -> Self {
        let wall = measured.looked.as_nanos() as f64;
        let threads: Vec<_> = measured
            .threads
            .iter()
            .map(|(busy, waiting)| Thread {
                busy: per(*busy as f64, wall).unwrap_or_default(),
                waiting: per(*waiting as f64, wall).unwrap_or_default(),
            })
            .collect();
        let cpu_nanos: u64 = measured.threads.iter().map(|(busy, _)| busy).sum();
        let mut warnings = Vec::new();
        for (at, thread) in threads.iter().enumerate() {
            if thread.busy > BUSY {
                warnings.push(format!(
                    "thread {at} of the load generator was busy {:.0} % of the time: latencies \
                     and throughput are its own, not the server's; see --threads",
                    thread.busy * 100.0
                ));
            } else if thread.waiting > STARVED {
                warnings.push(format!(
                    "thread {at} of the load generator waited for a processor {:.0} % of the \
                     time: latencies include that",
                    thread.waiting * 100.0
                ));
            }
        }
        let count = measured.tally.received_count as f64;
        let lateness = Latencies::new(&measured.tally.lateness);
        Self {
            threads,
            cpu_us_per_message: per(cpu_nanos as f64 / 1e3, count),
            late_us: options.rate_per_second.map(|_| lateness),
            warnings,
        }
    }
}
