//! The beat file, and who writes it.

#[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
use std::io;
use std::path::Path;
use std::time::SystemTime;

#[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
use crate::apart::Apart;
use crate::file::{BeatFile, Failure, Written};

#[derive(Debug)]
pub enum Sink {
    /// The publisher's own thread.
    Here(BeatFile),
    /// A thread beside it, because others are told of the worker too, whatever becomes of the file.
    #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
    Apart(Apart),
}

impl Sink {
    /// Starts the thread.
    #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
    pub fn apart(file: BeatFile) -> io::Result<Self> {
        Apart::start(file).map(Self::Apart)
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Here(file) => file.path(),
            #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
            Self::Apart(file) => file.path(),
        }
    }

    /// [`BeatFile::publish`]; `None` where that is still under way.
    pub fn publish(&mut self, line: &[u8], mtime: Option<SystemTime>) -> Result<Option<Written>, Failure> {
        match self {
            Self::Here(file) => file.publish(line, mtime).map(Some),
            #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
            Self::Apart(file) => file.publish(line, mtime),
        }
    }

    /// [`BeatFile::remove`].
    pub fn remove(&mut self, farewell: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Here(file) => file.remove(farewell),
            #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
            Self::Apart(file) => file.remove(farewell),
        }
    }
}
