//! Judges the heartbeats of queue workers: local verdicts, the command line and its formats.

mod arguments;
pub mod cli;
#[cfg(feature = "redis")]
mod cluster;
mod completions;
#[cfg(feature = "run")]
mod configuration;
mod deadline;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exit;
mod format;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use serve::fuzzing;
#[cfg(feature = "run")]
mod http;
#[cfg(any(feature = "demo", feature = "watch"))]
mod interrupt;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "run")]
mod run;
#[cfg(feature = "serve")]
pub mod serve;
mod stream;
mod tune;
#[cfg(feature = "watch")]
pub mod watch;
mod worker;

#[cfg(feature = "run")]
pub use format::Format;
#[cfg(feature = "run")]
pub use run::{Once, Told};
#[cfg(feature = "serve")]
pub use serve::router;
#[cfg(feature = "serve")]
pub use shared::config::Configuration;
