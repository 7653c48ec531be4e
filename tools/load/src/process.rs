//! What the kernel knows of processes and threads (Linux, `/proc`).

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time on a processor of all its threads, in nanoseconds, kernel included.
    pub(crate) cpu_nanos: u64,
    /// Time that its threads were ready and had no processor.
    pub(crate) waiting_nanos: u64,
    /// The kernel's estimate of which part of that was in user mode, and which was not.
    pub(crate) user_nanos: u64,
    pub(crate) system_nanos: u64,
    /// It waited; another was put in its place.
    pub(crate) voluntary_switch_count: u64,
    pub(crate) involuntary_switch_count: u64,
}

impl Usage {
    /// None: there is no such process, or it is not ours to look at.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may hold anything: fields from the third on.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
        let tick_nanos = 1_000_000_000 / clock_ticks_per_second().max(1);
        let mut usage = Self {
            user_nanos: ticks(11)? * tick_nanos,
            system_nanos: ticks(12)? * tick_nanos,
            ..Self::default()
        };
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may end meanwhile.
            let Some((cpu_nanos, waiting_nanos)) =
                schedstat(&format!("{}", thread.path().display()))
            else {
                continue;
            };
            usage.cpu_nanos += cpu_nanos;
            usage.waiting_nanos += waiting_nanos;
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
            usage.voluntary_switch_count += number(&status, "voluntary_ctxt_switches:");
            usage.involuntary_switch_count += number(&status, "nonvoluntary_ctxt_switches:");
        }
        Some(usage)
    }

    /// What has been used since.
    pub(crate) fn since(self, before: Self) -> Self {
        let less = u64::saturating_sub;
        Self {
            cpu_nanos: less(self.cpu_nanos, before.cpu_nanos),
            waiting_nanos: less(self.waiting_nanos, before.waiting_nanos),
            user_nanos: less(self.user_nanos, before.user_nanos),
            system_nanos: less(self.system_nanos, before.system_nanos),
            voluntary_switch_count: less(
                self.voluntary_switch_count,
                before.voluntary_switch_count,
            ),
            involuntary_switch_count: less(
                self.involuntary_switch_count,
                before.involuntary_switch_count,
            ),
        }
    }
}

/// How long a thread of ours has been on a processor, and has waited for one, in nanoseconds.
pub(crate) fn thread_times(thread: i32) -> Option<(u64, u64)> {
    schedstat(&format!("/proc/self/task/{thread}"))
}

fn schedstat(folder: &str) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("{folder}/schedstat")).ok()?;
    let mut fields = text.split_whitespace().map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??))
}

/// The memory that a process holds, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    // What `status` says lags behind by some pages a thread.
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let (text, name) = match exact {
        Ok(text) if text.contains("Rss:") => (text, "Rss:"),
        _ => (fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:"),
    };
    Some(number(&text, name) << 10)
}

/// The number after a name at the beginning of a line.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// `perf stat`, which counts a process's instructions where the machine can.
#[derive(Debug)]
pub(crate) struct Perf(Child);

impl Perf {
    pub(crate) fn start(pid: u32) -> Option<Self> {
        Command::new("perf")
            .args(["stat", "-x,", "-e", "instructions:u,instructions:k", "-p"])
            .arg(pid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()
            .map(Self)
    }

    /// Instructions in user mode and in the kernel since the start.
    pub(crate) fn end(self) -> Option<(u64, u64)> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)?;
        kill_process(pid, Signal::INT).ok()?;
        let output = self.0.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let count = |event: &str| {
            let line = text.lines().find(|line| line.split(',').nth(2) == Some(event))?;
            line.split(',').next()?.parse().ok()
        };
        Some((count("instructions:u")?, count("instructions:k")?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Usage, number, resident_bytes, thread_times};

    #[test]
    fn a_process_is_seen_as_the_kernel_sees_it() {
        let pid = std::process::id();
        let before = Usage::of(pid).expect("our own process");
        let mut sum = 0_u64;
        while Usage::of(pid).expect("our own process").since(before).cpu_nanos < 10_000_000 {
            sum = (0..1_000_000).fold(sum, u64::wrapping_add);
        }
        assert!(resident_bytes(pid).expect("our own process") > 100_000, "{sum}");
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(thread_times(thread).is_some_and(|(cpu_nanos, _)| cpu_nanos > 1_000_000));
        assert!(Usage::of(u32::MAX).is_none());
        assert_eq!(number("aRss: 1 kB\nRss:   42 kB\n", "Rss:"), 42);
    }
}
