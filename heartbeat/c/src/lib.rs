//! `libheartbeat`: the heartbeat for C, and for whatever else calls C.
//!
//! A thin layer: each export checks its pointers, turns C's types into Rust's and back, lets no panic through, and calls the
//! core. It keeps no state of its own beside what it hands out. `heartbeat.h` is made from this crate, comments and all, so what
//! is written here above an export is its documentation; a test compares the two.

#![expect(clippy::doc_markdown, reason = "most comments here are for the header, and C has no backticks")]

mod boundary;
mod builder;
mod check;
mod handle;
mod outcome;
mod task;

#[cfg(test)]
mod tests;

#[cfg(all(test, miri))]
#[path = "../../../tests/sanitizers/stand_ins.rs"]
mod stand_ins;
