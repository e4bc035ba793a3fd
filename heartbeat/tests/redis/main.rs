//! The stat key and `fleet` against real servers: needs `redis-server` and `redis-sentinel`'s program, which is the same.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod cluster;
mod connection;
mod outages;
mod reading;
mod sentinel;
mod servers;
mod signed;
mod standalone;
mod storm;
mod tls;
#[cfg(feature = "tracing")]
mod told;
mod worker;
