//! What comes out of a run, as it stands in the JSON.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::generator::Generator;
use crate::measure::Measured;
use crate::options::{Mode, Options};
use crate::shared::Shared;
use crate::tally::Errors;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version of this format.
    pub(crate) format: u32,
    pub(crate) settings: Settings,
    pub(crate) is_interrupted: bool,
    pub(crate) opening: Opening,
    pub(crate) measured: Totals,
    pub(crate) latency_us: Latencies,
    pub(crate) generator: Generator,
    pub(crate) server: Option<Server>,
    pub(crate) errors: ErrorCounts,
}

/// The command line, and what followed from it.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) mode: &'static str,
    pub(crate) connections: usize,
    pub(crate) in_flight: Option<usize>,
    pub(crate) size_bytes: usize,
    pub(crate) kind: &'static str,
    pub(crate) rate_per_second: Option<f64>,
    pub(crate) duration_seconds: Option<f64>,
    pub(crate) messages: Option<u64>,
    pub(crate) warm_up_seconds: f64,
    pub(crate) threads: usize,
    pub(crate) pid: Option<u32>,
    pub(crate) from: Vec<String>,
    pub(crate) seed: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Opening {
    /// How many connections were opened, in visits also while it was measured.
    pub(crate) opened: u64,
    pub(crate) seconds: f64,
    /// From the beginning of a connection to the answer to its upgrade.
    pub(crate) upgrade_us: Latencies,
}

#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    pub(crate) seconds: f64,
    /// Messages (or broadcasts, or visits) that were sent, the warm-up included.
    pub(crate) sent: u64,
    /// Messages (or deliveries, or visits) that came while it was measured.
    pub(crate) received: u64,
    pub(crate) messages_per_second: f64,
    /// Payload.
    pub(crate) bytes_per_second: f64,
    /// Messages that came to connections that only hold; pings that were answered.
    pub(crate) unasked: u64,
    pub(crate) pings: u64,
    /// Connections that the server ended because they stalled.
    pub(crate) stalled_ended: u64,
}

/// Microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latencies {
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

/// The process given with `--pid`.
#[derive(Debug, Serialize)]
pub(crate) struct Server {
    /// Processors that it kept busy; and that it would have, had there been more.
    pub(crate) processors: f64,
    pub(crate) processors_waited_for: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    pub(crate) cpu_us_per_message: Option<f64>,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    pub(crate) voluntary_switches_per_message: Option<f64>,
    /// Where `perf stat` can count them: in user mode, and in the kernel.
    pub(crate) instructions_per_message: Option<f64>,
    pub(crate) kernel_instructions_per_message: Option<f64>,
    pub(crate) rss_bytes_before: Option<u64>,
    /// With all connections open, before the load; and at its end.
    pub(crate) rss_bytes_open: Option<u64>,
    pub(crate) rss_bytes_end: Option<u64>,
    pub(crate) rss_bytes_per_connection: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ErrorCounts {
    pub(crate) total: u64,
    pub(crate) by_kind: BTreeMap<&'static str, u64>,
    /// Close frames that the server sent on its own.
    pub(crate) close_codes: BTreeMap<u16, u64>,
    /// The first ones, in words.
    pub(crate) first: Vec<String>,
}

impl Report {
    pub(crate) fn new(shared: &Shared, measured: Measured) -> Self {
        let (options, tally) = (&shared.options, &measured.tally);
        let seconds = measured.window.as_secs_f64();
        let per_second = per(tally.received_count as f64, seconds).unwrap_or_default();
        let opened = tally.opened_count;
        let upgrade_us = Latencies::new(&tally.upgrades);
        let payload_bytes = if options.mode.speaks() { options.payload_bytes } else { 0 };
        Self {
            format: 1,
            settings: Settings::new(options),
            is_interrupted: measured.is_interrupted,
            opening: Opening { opened, seconds: measured.opening.as_secs_f64(), upgrade_us },
            measured: Totals {
                seconds,
                sent: tally.sent_count,
                received: tally.received_count,
                messages_per_second: per_second,
                bytes_per_second: per_second * payload_bytes as f64,
                unasked: tally.unasked_count,
                pings: tally.ping_count,
                stalled_ended: tally.ended_count,
            },
            latency_us: Latencies::new(&measured.latencies),
            generator: Generator::new(options, &measured),
            server: Server::new(options, &measured),
            errors: ErrorCounts::new(&tally.errors),
        }
    }

    pub(crate) fn json(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Settings {
    fn new(options: &Options) -> Self {
        Self {
            url: options.url.to_string(),
            mode: options.mode.name(),
            connections: options.connection_count,
            in_flight: options.in_flight_count,
            size_bytes: options.payload_bytes,
            kind: options.kind.name(),
            rate_per_second: options.rate_per_second,
            duration_seconds: options.duration.map(|duration| duration.as_secs_f64()),
            messages: options.message_count,
            warm_up_seconds: options.warm_up.as_secs_f64(),
            threads: options.thread_count,
            pid: options.pid,
            from: options.from.iter().map(ToString::to_string).collect(),
            seed: options.seed,
        }
    }
}

impl Latencies {
    pub(crate) fn new(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            min: micros(histogram.min()),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros(histogram.max()),
        }
    }
}

impl Server {
    fn new(options: &Options, measured: &Measured) -> Option<Self> {
        let usage = measured.server?;
        let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
        let count = measured.tally.received_count as f64;
        let memory = measured.memory;
        let growth = memory.open.zip(memory.before).filter(|_| options.mode != Mode::Visit);
        let growth = growth.map(|(open, before)| open as f64 - before as f64);
        let wall = measured.looked.as_secs_f64();
        Some(Self {
            processors: per(seconds(usage.cpu_nanos), wall)?,
            processors_waited_for: per(seconds(usage.waiting_nanos), wall)?,
            cpu_seconds: seconds(usage.cpu_nanos),
            user_seconds: seconds(usage.user_nanos),
            system_seconds: seconds(usage.system_nanos),
            cpu_us_per_message: per(usage.cpu_nanos as f64 / 1e3, count),
            voluntary_switches: usage.voluntary_switch_count,
            involuntary_switches: usage.involuntary_switch_count,
            voluntary_switches_per_message: per(usage.voluntary_switch_count as f64, count),
            instructions_per_message: measured
                .instructions
                .and_then(|(user, _)| per(user as f64, count)),
            kernel_instructions_per_message: measured
                .instructions
                .and_then(|(_, kernel)| per(kernel as f64, count)),
            rss_bytes_before: memory.before,
            rss_bytes_open: memory.open,
            rss_bytes_end: memory.end,
            rss_bytes_per_connection: growth
                .and_then(|growth| per(growth, measured.tally.opened_count as f64)),
        })
    }
}

impl ErrorCounts {
    fn new(errors: &Errors) -> Self {
        Self {
            total: errors.count(),
            by_kind: errors.by_fault.iter().map(|(fault, count)| (fault.name(), *count)).collect(),
            close_codes: errors.close_codes.clone(),
            first: errors.told.clone(),
        }
    }
}

/// None: a part of nothing.
pub(crate) fn per(amount: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| amount / of)
}
