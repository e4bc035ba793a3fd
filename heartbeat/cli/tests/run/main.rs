//! `heartbeat run` with real processes: what its supervisor, its command and a checker see of it.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bench;
mod container;
mod exit;
mod generated;
mod inheritance;
mod record;
mod refusal;
mod signals;
mod terminal;
