//! Checks of what a service depends on, and the words that their answers are given in.
//!
//! A check asks one question and gives an answer; how an answer is shown, on a command line or over HTTP, is the
//! concern of who asked.

pub mod checks;
mod status;

pub use status::Status;
