//! A thread of another process, led one instruction after another, which stands whenever it is
//! about to sleep. Its clocks stand while it is led: a step takes longer than what it counts.
//!
//! Knows `ptrace` and the processor's registers. Must not know what the thread is for.

use std::collections::HashMap;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;

/// How long the thread may sleep, or be led from one sleep to the next.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it is still asleep.
const LOOK: Duration = Duration::from_micros(100);

/// Whether the one who is waited for is wanted any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Still,
    NoMore,
}

/// A thread that stands before a system call in which it would sleep.
#[derive(Debug)]
pub(crate) struct Thread {
    id: Pid,
    place: Place,
    /// What it is told when it goes on.
    signal: Option<Signal>,
    clocks: Clocks,
}

/// What a thread is told of the time, which the kernel has it read by code of its own (vDSO).
#[derive(Debug)]
struct Clocks {
    /// Where that code lies.
    code: Range<u64>,
    /// Which clock is being read, and where the time is to be written.
    reading: (u64, u64),
    /// By clock: what was told first since the thread is led.
    told: HashMap<u64, [i64; 2]>,
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Of the next instruction.
    address: u64,
    /// The system call that this makes, if it makes one: number and the fourth argument.
    call: (u64, u64),
    /// The first two arguments of the function that begins here, if one does.
    arguments: (u64, u64),
}

impl Thread {
    /// Attaches to a thread, wherever it is. It is killed if this process ends before.
    pub(crate) fn attach(id: u32) -> Result<Self> {
        let id = Pid::from_raw(i32::try_from(id)?);
        ptrace::seize(id, Options::PTRACE_O_EXITKILL).map_err(|error| match error {
            Errno::EPERM | Errno::ENOSYS => format!(
                "ptrace is not permitted here ({error}): see /proc/sys/kernel/yama/ptrace_scope, \
                 or the container's capability SYS_PTRACE"
            ),
            _ => format!("thread {id} cannot be traced: {error}"),
        })?;
        ptrace::interrupt(id)?;
        let place = Place { address: 0, call: (0, 0), arguments: (0, 0) };
        let mut thread = Self { id, place, signal: None, clocks: Clocks::of(id)? };
        let status = waitpid(id, Some(WaitPidFlag::__WALL))?;
        thread.arrive(status)?;
        thread.lead(&mut || Ok(Wanted::Still))?;
        Ok(thread)
    }

    /// Leads it to where it is about to sleep; how many instructions that took. If it does sleep at
    /// the beginning, `meanwhile` is called again and again, and may have it woken.
    pub(crate) fn lead(&mut self, meanwhile: &mut dyn FnMut() -> Result<Wanted>) -> Result<u64> {
        let start = now();
        let mut count = 0;
        self.clocks.told.clear();
        loop {
            let before = self.place.address;
            let may_sleep = self.is_before_sleep()?;
            ptrace::step(self.id, self.signal.take())?;
            let status = match may_sleep {
                true => self.await_end_of_sleep(meanwhile)?,
                false => waitpid(self.id, Some(WaitPidFlag::__WALL))?,
            };
            self.arrive(status)?;
            if before == self.place.address {
                self.finish_repetition()?;
            }
            count += has_advanced(before, self.place.address);
            self.clocks.follow(self.id, before, self.place)?;
            if self.is_before_sleep()? {
                return Ok(count);
            }
            // The clock is read now and then.
            if count % 4096 == 0 && start.elapsed() > PATIENCE {
                return Err("the server does not come to rest".into());
            }
        }
    }

    fn await_end_of_sleep(
        &self,
        meanwhile: &mut dyn FnMut() -> Result<Wanted>,
    ) -> Result<WaitStatus> {
        let start = now();
        let mut is_woken = false;
        loop {
            let status = waitpid(self.id, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))?;
            if status != WaitStatus::StillAlive {
                return Ok(status);
            }
            if !is_woken && meanwhile()? == Wanted::NoMore {
                ptrace::interrupt(self.id)?;
                is_woken = true;
            }
            if start.elapsed() > PATIENCE {
                return Err("the server sleeps, and its clients wait".into());
            }
            thread::sleep(LOOK);
        }
    }

    /// It has stopped, at a place that is to be looked up.
    fn arrive(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Stopped(_, signal) => self.signal = Some(signal),
            other => return Err(format!("the server has ended: {other:?}").into()),
        }
        self.place = place(self.id)?;
        Ok(())
    }

    /// Leads it beyond an instruction that repeats itself, of which each iteration would be a step:
    /// by a breakpoint behind it.
    fn finish_repetition(&mut self) -> Result<()> {
        let start = self.place.address;
        let code = ptrace::read(self.id, start as ptrace::AddressType)?;
        let Some(length) = repetition(code.to_ne_bytes()) else { return Ok(()) };
        let end = (start + length) as ptrace::AddressType;
        let code = ptrace::read(self.id, end)?;
        ptrace::write(self.id, end, code & !0xFF | BREAKPOINT)?;
        ptrace::cont(self.id, self.signal.take())?;
        let status = waitpid(self.id, Some(WaitPidFlag::__WALL))?;
        ptrace::write(self.id, end, code)?;
        if status != WaitStatus::Stopped(self.id, Signal::SIGTRAP) {
            return Err(format!("the server stopped within an instruction: {status:?}").into());
        }
        go_to(self.id, start + length)?;
        self.place = place(self.id)?;
        Ok(())
    }

    fn is_before_sleep(&self) -> Result<bool> {
        if !self.place.would_sleep() {
            return Ok(false);
        }
        // Registers alone could have such values by chance.
        let code = ptrace::read(self.id, self.place.address as ptrace::AddressType)?;
        Ok(code.to_ne_bytes().starts_with(&SYSCALL))
    }
}

impl Clocks {
    fn of(thread: Pid) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{thread}/maps"))?;
        let range = |line: &str| {
            let (start, end) = line.strip_suffix("[vdso]")?.split_once(' ')?.0.split_once('-')?;
            Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
        };
        let code = maps.lines().find_map(range).unwrap_or_default();
        Ok(Self { code, reading: (0, 0), told: HashMap::new() })
    }

    /// The thread has gone from one place to another: if it has just read a clock, it gets to know
    /// what it was told before.
    fn follow(&mut self, thread: Pid, before: u64, place: Place) -> Result<()> {
        match (self.code.contains(&before), self.code.contains(&place.address)) {
            (false, true) => self.reading = place.arguments,
            (true, false) => {
                let (clock, time) = self.reading;
                let at = [time, time + 8].map(|at| at as ptrace::AddressType);
                let now = [ptrace::read(thread, at[0])?, ptrace::read(thread, at[1])?];
                let told = *self.told.entry(clock).or_insert(now);
                ptrace::write(thread, at[0], told[0])?;
                ptrace::write(thread, at[1], told[1])?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // It may have ended.
        let _ = ptrace::detach(self.id, None);
    }
}

/// The instruction `int3`.
const BREAKPOINT: i64 = 0xCC;

/// How long this instruction is, if it is `rep` and one on strings.
fn repetition(code: [u8; 8]) -> Option<u64> {
    match code {
        [0xF2 | 0xF3, 0xA4..=0xA7 | 0xAA..=0xAF, ..] => Some(2),
        [0xF2 | 0xF3, 0x40..=0x4F, 0xA4..=0xA7 | 0xAA..=0xAF, ..] => Some(3),
        _ => None,
    }
}

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0F, 0x05];

impl Place {
    /// Whether a system call made here waits for events, unless it is told not to wait.
    fn would_sleep(self) -> bool {
        const EPOLL_WAIT: u64 = 232;
        const EPOLL_PWAIT: u64 = 281;
        let (number, argument) = self.call;
        // The timeout is an `int`; the upper half of the register may hold anything.
        matches!(number, EPOLL_WAIT | EPOLL_PWAIT) && argument & 0xFFFF_FFFF != 0
    }
}

/// What a step counts: nothing if the instruction is not over, as `rep` is not before its last
/// iteration.
fn has_advanced(before: u64, after: u64) -> u64 {
    u64::from(before != after)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn place(id: Pid) -> Result<Place> {
    let registers = ptrace::getregs(id)?;
    Ok(Place {
        address: registers.rip,
        call: (registers.rax, registers.r10),
        arguments: (registers.rdi, registers.rsi),
    })
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn go_to(id: Pid, address: u64) -> Result<()> {
    let mut registers = ptrace::getregs(id)?;
    registers.rip = address;
    Ok(ptrace::setregs(id, registers)?)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn go_to(_: Pid, _: u64) -> Result<()> {
    Err("instructions are counted on Linux and x86-64 only".into())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn place(_: Pid) -> Result<Place> {
    Err("instructions are counted on Linux and x86-64 only".into())
}

#[expect(clippy::disallowed_methods, reason = "a measurement is bounded in real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_that_repeats_counts_once() {
        // `rep movsb` of three bytes at 7, two instructions after it.
        let places = [7, 7, 7, 9, 12, 15];
        let count: u64 = places.windows(2).map(|pair| has_advanced(pair[0], pair[1])).sum();
        assert_eq!(count, 3);
    }

    #[test]
    fn repeated_instructions_on_strings_are_known_by_their_bytes() {
        let length = |code: &[u8]| {
            let mut bytes = [0x90; 8];
            bytes[..code.len()].copy_from_slice(code);
            repetition(bytes)
        };
        assert_eq!(length(&[0xF3, 0xA4]), Some(2), "rep movsb");
        assert_eq!(length(&[0xF3, 0x48, 0xAB]), Some(3), "rep stosq");
        assert_eq!([length(&[0xF3, 0x90]), length(&[0xA4])], [None; 2], "pause, movsb");
    }

    #[test]
    fn the_code_that_reads_clocks_is_found() {
        let clocks = Clocks::of(Pid::this()).expect("a map of this process");
        assert!(!clocks.code.is_empty());
    }

    #[test]
    fn only_a_wait_for_events_that_may_last_is_sleep() {
        let at =
            |number, argument| Place { address: 1, call: (number, argument), arguments: (0, 0) };
        assert!(at(232, 0xFFFF_FFFF).would_sleep() && at(281, 5).would_sleep());
        assert!(!at(232, 0).would_sleep() && !at(232, 1 << 32).would_sleep());
        assert!(!at(1, 5).would_sleep());
    }
}
