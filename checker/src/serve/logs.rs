//! What `checker serve` tells of itself on standard error: one line at a change, and none for a question.
//!
//! The lines are `tracing` events, so an application that mounts the router has them in its own log.

use std::io;

use clap::ValueEnum;
use shared::Status;
use tracing::{Dispatch, Level};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::standing::Change;
use crate::format::plain::Plain;
use crate::stream;

/// How many lines may wait to be written.
const WAITING: usize = 1_024;

/// Whose events are told. Libraries tell of single questions, and of what a check expects to go wrong.
const OWN: [&str; 3] = ["checker", "heartbeat", "shared"];

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
        self.written_to(writer).init();
        written
    }

    fn written_to(self, writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) -> Dispatch {
        let own = Targets::new().with_targets(OWN.map(|target| (target, Level::INFO)));
        let lines = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_target(false);
        match self {
            Self::Text => lines.finish().with(own).into(),
            Self::Json => lines.json().flatten_event(true).finish().with(own).into(),
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tracing::dispatcher;

    use super::*;

    #[test]
    fn no_library_tells_of_what_a_check_has_asked() {
        for log in Log::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            let file = Arc::new(fs::File::create(&path).unwrap());
            dispatcher::with_default(&log.written_to(file), || {
                tracing::info!("ours");
                tracing::error!(target: "heartbeat::fleet", "also ours");
                tracing::debug!("too much");
                tracing::error!(target: "lapin::channel", "Channel closed");
                tracing::error!(target: "rustls", "a library's");
            });
            let told = fs::read_to_string(path).unwrap();
            assert_eq!(told.lines().count(), 2, "{told}");
            assert!(told.lines().all(|line| line.contains("ours")), "{told}");
        }
    }
}
