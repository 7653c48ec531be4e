//! The report for people.

use std::fmt::Write;

use crate::report::{Latencies, Report};

pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, report);
    text
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let (settings, measured) = (&report.settings, &report.measured);
    let Report { opening, generator, errors, .. } = report;
    let interrupted = if report.is_interrupted { ", interrupted" } else { "" };
    writeln!(out, "{} {}{interrupted}", settings.url, settings.mode)?;
    if opening.opened > 0 {
        let Latencies { p50, p99, max, .. } = opening.upgrade_us;
        let (opened, seconds) = (opening.opened, opening.seconds);
        write!(out, "connections   {opened} opened")?;
        if settings.mode != "visit" {
            write!(out, " in {seconds:.3} s")?;
        }
        writeln!(out, "; upgrade after p50 {p50:.0}, p99 {p99:.0}, max {max:.0} µs")?;
    }
    let (received, seconds) = (measured.received, measured.seconds);
    let what = match settings.mode {
        "broadcast" => "deliveries",
        "visit" => "visits",
        _ => "messages",
    };
    if matches!(settings.mode, "echo" | "broadcast" | "visit") {
        let rate = measured.messages_per_second;
        writeln!(out, "{what:13} {received} in {seconds:.3} s: {rate:.0}/s")?;
    }
    if measured.bytes_per_second > 0.0 {
        let (rate, size) = (measured.bytes_per_second / 1e6, settings.size_bytes);
        writeln!(out, "payload       {rate:.3} MB/s, {size} bytes each")?;
    }
    if measured.unasked + measured.stalled_ended > 0 {
        let (unasked, ended) = (measured.unasked, measured.stalled_ended);
        writeln!(out, "meanwhile     {unasked} messages came, {ended} connections were ended")?;
    }
    if report.latency_us.count > 0 {
        writeln!(out, "latency       {}", line(&report.latency_us))?;
    }
    if let Some(late) = generator.late_us.as_ref().filter(|late| late.count > 0) {
        writeln!(out, "sent late by  {}", line(late))?;
    }
    write!(out, "generator    ")?;
    for thread in &generator.threads {
        write!(out, " {:.0} % busy", thread.busy * 100.0)?;
        write!(out, " ({:.0} % waiting),", thread.waiting * 100.0)?;
    }
    match generator.cpu_us_per_message {
        Some(cpu) => writeln!(out, " {cpu:.2} µs of processor time a message")?,
        None => writeln!(out)?,
    }
    server(out, report)?;
    if errors.total == 0 {
        writeln!(out, "errors        none")?;
    } else {
        let kinds: Vec<_> =
            errors.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(out, "ERRORS        {}: {}", errors.total, kinds.join(", "))?;
        for told in &errors.first {
            writeln!(out, "              {told}")?;
        }
    }
    for warning in &generator.warnings {
        writeln!(out, "WARNING       {warning}")?;
    }
    Ok(())
}

fn server(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(server) = &report.server else { return Ok(()) };
    let (busy, waited_for) = (server.processors, server.processors_waited_for);
    write!(out, "server        {busy:.2} processors busy, {waited_for:.2} waited for")?;
    if let Some(cpu) = server.cpu_us_per_message {
        write!(out, ", {cpu:.2} µs a message")?;
    }
    if let Some(switches) = server.voluntary_switches_per_message {
        write!(out, ", {switches:.3} waits a message")?;
    }
    if let Some(instructions) = server.instructions_per_message {
        write!(out, ", {instructions:.0} instructions a message")?;
    }
    writeln!(out)?;
    let mib = |bytes: Option<u64>| bytes.unwrap_or_default() as f64 / f64::from(1 << 20);
    let (before, open) = (mib(server.rss_bytes_before), mib(server.rss_bytes_open));
    let end = mib(server.rss_bytes_end);
    write!(out, "memory        {before:.1} MiB before, {open:.1} with all connections, {end:.1} ")?;
    match server.rss_bytes_per_connection {
        Some(bytes) => writeln!(out, "at the end; {bytes:.0} bytes a connection"),
        None => writeln!(out, "at the end"),
    }
}

fn line(latencies: &Latencies) -> String {
    let Latencies { p50, p90, p99, p99_9, max, .. } = latencies;
    format!("p50 {p50:.0}, p90 {p90:.0}, p99 {p99:.0}, p99.9 {p99_9:.0}, max {max:.0} µs")
}
