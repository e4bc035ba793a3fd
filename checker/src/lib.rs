//! Judges the heartbeats of queue workers: local verdicts, the command line and its formats.

pub mod cli;
mod completions;
mod deadline;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exit;
mod format;
#[cfg(any(feature = "demo", feature = "watch"))]
mod interrupt;
mod stream;
#[cfg(feature = "watch")]
pub mod watch;
mod worker;
