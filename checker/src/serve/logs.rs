//! What `checker serve` tells of itself on standard error: one line at a change, and none for a question.
//!
//! The lines are `tracing` events, so an application that mounts the router has them in its own log.

use std::io;

use clap::ValueEnum;
use shared::Status;
use shared::hidden::without_secrets;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

use super::standing::Change;
use crate::format::plain::Plain;

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
        let (queue, written) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING)
            .thread_name("log")
            .finish(StandardError);
        let without_secrets: fn(&str) -> String = match self {
            Self::Text => without_secrets,
            Self::Json => json_without_secrets,
        };
        let writer = move || Line { queue: queue.clone(), without_secrets };
        let lines: SubscriberBuilder<DefaultFields, Format, _, _> =
            tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_target(false);
        match self {
            Self::Text => lines.init(),
            Self::Json => lines.json().flatten_event(true).init(),
        }
        written
    }
}

/// Hands a line on without the secrets of the configurations that are in force at the event.
struct Line {
    queue: NonBlocking,
    without_secrets: fn(&str) -> String,
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.write_all((self.without_secrets)(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush()
    }
}

/// A line of JSON without the secrets in its texts. Its keys are this program's own words, whatever a secret is.
fn json_without_secrets(line: &str) -> String {
    let mut told = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('"') {
        let (before, text) = rest.split_at(at);
        let (text, after) = text.split_at(length_of_text(text));
        told.push_str(before);
        match serde_json::from_str::<String>(text) {
            Ok(value) if !after.starts_with(':') => {
                told.push_str(&serde_json::Value::from(without_secrets(&value)).to_string());
            }
            _ => told.push_str(text),
        }
        rest = after;
    }
    told + rest
}

/// How long the text in quotes is that stands at the beginning of this.
fn length_of_text(json: &str) -> usize {
    // The first of the quotes ends nothing.
    let mut is_escaped = true;
    let end = json.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 1)
}

/// Writes a line at once.
struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // There is nowhere left to tell that nothing can be told.
        let _ = io::stderr().write_all(line);
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
    use shared::hidden::hide;

    use super::*;

    #[test]
    fn a_secret_is_in_no_text_of_a_line_and_leaves_its_keys_and_its_form_alone() {
        let _hidden = hide(["check-source", "7531", "a\"b\\"].into_iter());
        let line = r#"{"check-source":"it is check-source","checks":7531,"a":["a\"b\\ \\","7531"],"b":""}"#;
        let told = r#"{"check-source":"it is …","checks":7531,"a":["… \\","…"],"b":""}"#;
        assert_eq!(json_without_secrets(&format!("{line}\n")), format!("{told}\n"));
    }
}
