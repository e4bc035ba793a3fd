//! What can keep a heartbeat from starting or stopping cleanly.

use std::fmt;
use std::io;

/// An error with a kind that callers can decide by; its text is for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    source: Option<io::Error>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting that cannot be, from code or environment.
    Configuration,
    /// The beat file belongs to another living worker.
    Held {
        /// Its process id, in its own PID namespace.
        pid: u32,
    },
    /// What stands at the beat file's path must not be replaced: a link, a folder, another user's file.
    Unsafe,
    /// The system refused something.
    System,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    pub(crate) fn system(text: impl Into<String>, source: io::Error) -> Self {
        Self { kind: ErrorKind::System, text: text.into(), source: Some(source) }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
