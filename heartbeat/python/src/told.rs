//! What the library tells of its sinks, brought to Python's `logging` as the logger `heartbeat`.
//!
//! Whoever tells is a thread of the library's, which never waits for the GIL: it leaves its line here, and the worker's next
//! call takes it along. So a worker that makes no call is told nothing, and has `last_error` to look at.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, TryLockError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// So many lines wait; each is told once and not on every beat, so more do not come together soon.
const MOST: usize = 64;

static WAITING: AtomicBool = AtomicBool::new(false);
static LINES: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

struct Line {
    /// A forked child inherits what its parent has yet to hear.
    pid: u32,
    /// Python's number.
    level: u8,
    text: String,
}

/// Hears the library from now on.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Nobody else can have set one: these are this module's own statics.
        let _ = tracing::subscriber::set_global_default(Listener);
    });
}

/// Passes on what waits. Costs an atomic load where nothing does.
pub fn pass_on(py: Python<'_>) -> PyResult<()> {
    if WAITING.load(Ordering::Relaxed) { log(py) } else { Ok(()) }
}

#[cold]
fn log(py: Python<'_>) -> PyResult<()> {
    WAITING.store(false, Ordering::Relaxed);
    let lines = lock().map(|mut lines| std::mem::take(&mut *lines)).unwrap_or_default();
    let logger = py.import("logging")?.call_method1("getLogger", ("heartbeat",))?;
    for line in lines.iter().filter(|line| line.pid == std::process::id()) {
        if let Err(error) = logger.call_method1("log", (line.level, "%s", &line.text)) {
            if !error.is_instance_of::<PyException>(py) {
                return Err(error);
            }
            // What a handler of the log raises must not end the worker, which only wanted to pulse.
            error.write_unraisable(py, None);
        }
    }
    Ok(())
}

/// A child may have been forked while another thread held the lock: then it is never to be had.
fn lock() -> Option<MutexGuard<'static, VecDeque<Line>>> {
    for _ in 0..100 {
        match LINES.try_lock() {
            Ok(lines) => return Some(lines),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("heartbeat") && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            _ => 20,
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        let text = message.0.strip_prefix("heartbeat: ").map_or(message.0.as_str(), |text| text).to_owned();
        if let Some(mut lines) = lock().filter(|lines| lines.len() < MOST) {
            lines.push_back(Line { pid: std::process::id(), level, text });
            WAITING.store(true, Ordering::Relaxed);
        }
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
