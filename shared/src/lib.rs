//! Checks of what a service depends on, and the words that their answers are given in.
//!
//! A check asks one question and gives an answer; how an answer is shown, on a command line or over HTTP, is the
//! concern of who asked.

#[cfg(feature = "_amqp")]
pub mod amqp;
#[cfg(feature = "run")]
pub mod background;
#[cfg(feature = "run")]
pub mod blocking;
#[cfg(feature = "celery")]
pub mod celery;
#[cfg(feature = "run")]
pub mod check;
pub mod checks;
#[cfg(feature = "run")]
pub mod config;
#[cfg(feature = "run")]
pub mod database;
#[cfg(any(feature = "_sql", feature = "django-q"))]
pub mod django;
#[cfg(feature = "django-q")]
pub mod django_q;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(feature = "celery", feature = "django-q"))]
mod glob;
#[cfg(feature = "run")]
pub mod hidden;
#[cfg(feature = "run")]
pub mod kind;
#[cfg(feature = "run")]
pub mod net;
#[cfg(any(feature = "celery", feature = "run"))]
pub mod node;
#[cfg(all(feature = "redis", feature = "run"))]
pub mod redis;
#[cfg(feature = "run")]
pub mod runner;
#[cfg(feature = "run")]
pub mod settings;
#[cfg(feature = "tls")]
mod starttls;
mod status;
#[cfg(feature = "tls")]
pub mod tls;

pub use status::Status;
