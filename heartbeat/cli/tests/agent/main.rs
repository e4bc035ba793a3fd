//! `heartbeat agent` with real workers and a real Redis: what a checker sees of a fleet whose workers know nothing of Redis.
//! Needs `redis-server`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../run/bench.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod bench;
mod ends;
mod faults;
mod files;
mod many;
mod scene;
mod service;
mod sharing;
