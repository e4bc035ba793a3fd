#![doc = include_str!("../README.md")]

/// Tells through `tracing`, where that feature is on.
macro_rules! told {
    ($level:ident, $($message:tt)+) => {{
        #[cfg(feature = "tracing")]
        ::tracing::$level!($($message)+);
        #[cfg(not(feature = "tracing"))]
        let _ = format_args!($($message)+);
    }};
}

/// The project's own page, whose example is compiled like any other.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Page;

#[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
mod apart;
mod builder;
mod clock;
pub mod duration;
#[cfg(feature = "endpoint")]
mod endpoint;
mod error;
mod extras;
mod file;
#[cfg(feature = "redis")]
pub mod fleet;
mod heartbeat;
mod json;
mod mark;
pub mod observe;
mod process;
mod publisher;
pub mod record;
#[cfg(feature = "tokio")]
mod runtime;
mod sink;
#[cfg(feature = "redis")]
mod stat;
mod sync;
#[cfg(feature = "systemd")]
mod systemd;
mod tasks;
#[cfg(feature = "tower")]
pub mod tower;
pub mod verdict;

#[cfg(all(test, miri))]
#[path = "../../tests/sanitizers/stand_ins.rs"]
mod stand_ins;

pub use builder::{Builder, DEFAULT_FILE, DEFAULT_INTERVAL, DEFAULT_LOOP_BUDGET, DEFAULT_PROMISE};
pub use error::{Error, ErrorKind};
pub use heartbeat::Heartbeat;
pub use json::Syntax;
pub use publisher::Counters;
#[cfg(feature = "tokio")]
pub use runtime::RuntimePulse;
pub use tasks::Task;
