//! What `checker serve` tells of itself on standard error: one line at a change, and none for a question.
//!
//! The lines are `tracing` events, so an application that mounts the router has them in its own log.

use std::io;

use clap::ValueEnum;
use shared::Status;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

use super::standing::Change;
use crate::format::plain::Plain;
use crate::stream;

/// How many lines may wait to be written.
const WAITING: usize = 1_024;

/// The forms of the log.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Log {
    /// For reading
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl Log {
    /// From now on, this process's events go to standard error. Once a process.
    ///
    /// A thread writes them, and where nobody reads them some are lost: no answer waits for a log. What is dropped last waits
    /// a second at most for what is not written yet.
    pub fn start(self) -> WorkerGuard {
        let (writer, written) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING)
            .thread_name("log")
            .finish(StandardError);
        let lines: SubscriberBuilder<DefaultFields, Format, _, _> =
            tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_target(false);
        match self {
            Self::Text => lines.init(),
            Self::Json => lines.json().flatten_event(true).init(),
        }
        written
    }
}

/// Writes a line at once, without the configuration's secrets.
struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stream::complain_at_length(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A check stands differently from before. This is the one place where what happened is told, and not only the public reason.
pub fn changed(check: &str, change: &Change, source: Option<&str>) {
    let (from, to) = (change.from.as_str(), change.to.as_str());
    let reason = change.reason.as_deref();
    let source = source.map(|source| Plain(source).to_string());
    let source = source.as_deref();
    match change.to {
        Status::Pass => tracing::info!(check, from, to, "check changed"),
        Status::Warn => tracing::warn!(check, from, to, reason, source, "check changed"),
        Status::Fail | Status::Unknown => tracing::error!(check, from, to, reason, source, "check changed"),
    }
}
