//! Real worker processes, started, stopped, killed and starved, and judged from outside.
//!
//! This test program is also the worker: started with `--worker` it does what its standard input says (see
//! [`worker`]), so that a test never has to guess how far a worker has come.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "all of this is a test")]

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::observe::{Owner, observe};
use heartbeat::record::Record;
use heartbeat::verdict::Verdict;
use libtest_mimic::{Arguments, Trial};

mod allocations;
mod cost;
mod ends;
mod failures;
mod files;
mod forks;
#[cfg(all(feature = "endpoint", feature = "systemd"))]
mod hangs;
mod steps;
mod torn;
mod verdicts;
mod worker;

use worker::Worker;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--worker") {
        return worker::run();
    }
    let suites = [
        cost::trials(),
        ends::trials(),
        failures::trials(),
        files::trials(),
        forks::trials(),
        #[cfg(all(feature = "endpoint", feature = "systemd"))]
        hangs::trials(),
        steps::trials(),
        torn::trials(),
        verdicts::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), suites.into_iter().flatten().collect()).exit_code()
}

/// A test by its function's name.
macro_rules! trial {
    ($test:ident) => {
        $crate::named(stringify!($test), $test)
    };
}
use trial;

fn named(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// How long a fact may keep a test waiting. No test passes or fails by this, it only ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until there is an answer.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The record that stands in a file.
#[track_caller]
fn record(path: &Path) -> Record {
    let seen = observe(path, Owner::Own);
    seen.record().unwrap_or_else(|| panic!("{seen:?}")).clone()
}

/// What a checker would say now, with its reason.
fn judged(path: &Path) -> (Verdict, String) {
    let seen = observe(path, Owner::Own);
    let judgement = seen.judge(None);
    (judgement.verdict, judgement.to_string())
}

fn verdict(path: &Path) -> Verdict {
    judged(path).0
}

/// Waits for the beat after the one that stands in the file now.
#[track_caller]
fn next_beat(path: &Path) -> Record {
    let last = record(path).seq;
    until("the next beat", || Some(record(path)).filter(|record| record.seq > last))
}
