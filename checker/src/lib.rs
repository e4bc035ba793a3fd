//! Judges the heartbeats of queue workers: local verdicts, the command line and its formats.

pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exit;
#[cfg(feature = "watch")]
pub mod watch;
