//! What the checker tells of itself, kept until Python takes it: one line at a change, and none for a question.
//!
//! The threads that checks run on must not wait for the GIL, so they leave their lines here, and whoever has asked hands
//! them to Python's `logging`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, Once, TryLockError};
use std::thread;

use shared::hidden::without_secrets;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How many lines may wait to be taken. Beyond that the oldest are lost.
const WAITING: usize = 1_024;

/// Whose events are told, as by `checker serve`.
const OWN: [&str; 3] = ["checker", "heartbeat", "shared"];

/// How often a lock is tried. It is held for a moment only; but in a forked process perhaps for ever, by a thread that was left behind.
const TRIES: usize = 1_000;

static LINES: Mutex<VecDeque<(u8, String)>> = Mutex::new(VecDeque::new());

/// From now on, lines are kept. Once a process, and its children inherit it.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let own = Targets::new().with_targets(OWN.map(|target| (target, Level::INFO)));
        let lines = tracing_subscriber::fmt().with_writer(Writer).with_ansi(false).with_target(false);
        let lines = lines.with_level(false).without_time().finish().with(own);
        // Nobody else in this module could have set another one.
        let _ = lines.try_init();
    });
}

/// Takes all lines that wait.
pub fn take() -> Vec<(u8, String)> {
    lines().map(|mut lines| lines.drain(..).collect()).unwrap_or_default()
}

fn lines() -> Option<MutexGuard<'static, VecDeque<(u8, String)>>> {
    for _ in 0..TRIES {
        match LINES.try_lock() {
            Ok(lines) => return Some(lines),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}

struct Writer;

struct Line(u8);

impl<'w> MakeWriter<'w> for Writer {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line(python_level(Level::INFO))
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Line {
        Line(python_level(*event.level()))
    }
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(mut lines) = lines() {
            if lines.len() >= WAITING {
                lines.pop_front();
            }
            let text = without_secrets(&String::from_utf8_lossy(line));
            lines.push_back((self.0, text.trim_end().to_owned()));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As Python's `logging` numbers them.
fn python_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}
