//! Real servers of a test's own: each on a free loopback port, in a folder of its own, ended by its process id.

#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

mod dnsmasq;
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_peer;
mod mariadb;
mod memcached;
mod nginx;
#[cfg(feature = "storage")]
mod objects;
mod postgres;
mod program;
mod proxy;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod redis;
mod smtp;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::check::Check;
use shared::checks::KINDS;

pub use dnsmasq::Dnsmasq;
pub use kafka::Kafka;
#[cfg(feature = "kafka")]
pub use kafka_peer::{DUPE, KafkaPeer};
pub use mariadb::Mariadb;
pub use memcached::Memcached;
pub use nginx::Nginx;
#[cfg(feature = "storage")]
pub use objects::{Azurite, Certificate, GoogleStorage, S3, SigningS3};
pub use postgres::Postgres;
pub use program::{Program, SOON, free_port, until};
pub use proxy::Proxy;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
pub use smtp::Smtp;

/// A program of the npm registry, which `tests/run` installs.
pub fn node_program(name: &str) -> Command {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tests-node");
    let program = installed.join("node_modules/.bin").join(name);
    assert!(program.exists(), "{} is missing: tests/run installs it", program.display());
    Command::new(program)
}

/// The Python of the packages in `tests/requirements.txt`, which `tests/run` installs.
pub fn python() -> Command {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tests-python/bin/python");
    assert!(python.exists(), "{} is missing: tests/run installs it", python.display());
    Command::new(python)
}

/// The check that a configuration would make of these settings.
#[track_caller]
pub fn check(kind: &str, settings: Value) -> Box<dyn Check> {
    let found = KINDS.iter().find(|known| known.name == kind).expect("a kind of this name");
    found.build(settings).unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// Asks, with a deadline: nothing, or the reason and the chain of what happened.
pub async fn ask_within(check: &dyn Check, within: Duration) -> Result<(), String> {
    let deadline = Instant::now() + within;
    match tokio::time::timeout_at(deadline.into(), check.run(deadline)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => {
            use std::error::Error as _;
            let mut told = failure.reason().to_owned();
            let mut source = failure.source();
            while let Some(error) = source {
                told = format!("{told}: {error}");
                source = error.source();
            }
            Err(told)
        }
        Err(_) => Err("timed out".to_owned()),
    }
}

/// Asks with time enough.
pub async fn ask(check: &dyn Check) -> Result<(), String> {
    ask_within(check, SOON).await
}

/// Asks with little time: of a server that does not answer.
pub async fn ask_briefly(check: &dyn Check) -> Result<(), String> {
    ask_within(check, Duration::from_millis(500)).await
}
