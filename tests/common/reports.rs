//! What the server reports in the log. A process has one log: tests that share one tell their
//! endpoints apart, or run alone.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

/// Keeps what is reported, each with its level.
struct Reports(Mutex<Vec<String>>);

static REPORTS: Reports = Reports(Mutex::new(Vec::new()));

impl Log for Reports {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = format!("{} {}", record.level(), record.args());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn flush(&self) {}
}

/// From now on warnings and errors are kept; once in a process.
pub fn listen() {
    log::set_logger(&REPORTS).expect("the first logger");
    log::set_max_level(LevelFilter::Warn);
}

/// The log is the caller's alone until the guard is dropped, and empty: what is at least as grave
/// as this level is kept. All tests of a program do so, or none.
pub fn listen_alone(level: LevelFilter) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static LISTENING: Once = Once::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    LISTENING.call_once(listen);
    log::set_max_level(level);
    take();
    turn
}

/// What was reported since the last call.
pub fn take() -> Vec<String> {
    std::mem::take(&mut REPORTS.0.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What was reported so far with this text in it.
pub fn with(text: &str) -> Vec<String> {
    let reports = REPORTS.0.lock().unwrap_or_else(PoisonError::into_inner);
    reports.iter().filter(|report| report.contains(text)).cloned().collect()
}
