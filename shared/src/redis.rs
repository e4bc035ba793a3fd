//! A Redis that checks ask: one connection that is kept from one run to the next, on a thread that may block, and what may be
//! said of what went wrong. What is asked, and what the answer means, is the kinds' own.

use std::time::{Duration, Instant};

use heartbeat::fleet::{Connection, Error, ErrorKind, Url};
use redis::{Cmd, Value};

use crate::blocking::Blocking;
use crate::check::Failure;

/// How long before the deadline Redis is given up, at most: then it can still be said what did not answer.
const MARGIN: Duration = Duration::from_millis(50);

/// What Redis said to each command, in their order.
pub type Answers = Vec<Result<Value, Error>>;

/// A Redis, whichever form its URL has.
#[derive(Debug)]
pub struct Redis(Blocking<Connection>);

impl Redis {
    /// Nothing is connected yet.
    pub fn new(url: Url) -> Self {
        Self(Blocking::new(Connection::new(url)))
    }

    /// Asks all at once, in one round trip where a connection stands.
    pub async fn ask(&self, commands: Vec<Cmd>, deadline: Instant) -> Result<Answers, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let until = deadline.checked_sub(MARGIN.min(left / 10)).unwrap_or(deadline);
        let answers = self.0.with(move |connection| connection.ask(&commands, until)).await?;
        answers.map_err(|error| Failure::failed(reason(&error)).because(error))
    }
}

/// What went wrong, as a sentence that anybody may read.
pub fn reason(error: &Error) -> &'static str {
    match (error.kind(), error.code()) {
        (_, Some("NOPERM")) => "Redis does not let this user do what is asked",
        (_, Some("NOAUTH")) => "Redis wants a password",
        (ErrorKind::Denied, _) => "Redis does not accept the user or password",
        (_, Some("LOADING")) => "Redis is still loading its data",
        (_, Some("BUSY")) => "Redis is busy with a script",
        (_, Some("READONLY")) => "this Redis is a replica that takes no writes",
        (_, Some("OOM")) => "Redis is full, and takes no writes",
        (_, Some("MISCONF")) => "Redis cannot save to its disk, and takes no writes",
        (_, Some("NOREPLICAS")) => "Redis has too few replicas, and takes no writes",
        (_, Some("MASTERDOWN")) => "this Redis is a replica that has lost its primary",
        (_, Some("CLUSTERDOWN")) => "the Redis Cluster is not whole",
        (_, Some("MOVED")) => "this Redis is one node of a Redis Cluster, and not the right one",
        (kind, _) => match kind {
            ErrorKind::Configuration => "the Redis settings cannot be used",
            ErrorKind::Unreachable => "Redis cannot be reached",
            ErrorKind::TimedOut => "Redis did not answer in time",
            ErrorKind::Garbled => GARBLED,
            _ => "Redis answered with an error",
        },
    }
}

/// What is said where an answer is none.
pub const GARBLED: &str = "Redis gave no proper answer";

/// A command with its arguments.
pub fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

/// A string in an answer.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
