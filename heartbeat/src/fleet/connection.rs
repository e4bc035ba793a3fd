//! A connection on which anything may be asked: for who reads what other programs keep in a Redis or say through it.
//!
//! It is the connection that the fleet is read over, with all that it knows of servers, deadlines and bounds; what is
//! asked is the caller's matter.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use redis::{Cmd, Value, cmd};

use super::ask::{Ask, text};
use super::client::Client;
use super::error::{Error, ErrorKind};
use super::url::Url;

/// One Redis, to be asked anything. Connects at the first call and keeps the connection; one that has died meanwhile, or that a
/// firewall has forgotten without a word, is replaced within the call, so what is asked may reach the server twice.
pub struct Connection {
    client: Client,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", self.client.url()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Nothing is connected yet.
    pub fn new(url: Url) -> Self {
        Self { client: Client::new(url, Arc::new(AtomicBool::new(false))).of_large_answers() }
    }

    /// Asks all at once and waits for all answers, in their order; each may be the server's refusal. All of them together
    /// take 8 MiB at most.
    pub fn ask(&mut self, commands: &[Cmd], until: Instant) -> Result<Vec<Result<Value, Error>>, Error> {
        let questions: Vec<_> = commands.iter().cloned().map(Ask::Command).collect();
        let answers = self.client.ask(&questions, until)?;
        let place = self.client.place();
        Ok(answers.into_iter().map(|answer| answer.map_err(|refusal| refusal.at(&place))).collect())
    }

    /// Makes sure that the connection is not one that was forgotten on the way. What is asked directly after it does not reach
    /// the server twice because that is slow.
    pub fn prove(&mut self, until: Instant) -> Result<(), Error> {
        self.client.prove(until)
    }

    /// Hands what is published on channels of these patterns to `each`, over a connection of its own, until that says
    /// that it is enough, or until `quiet`. Then the server is asked whether it is still there at all, and must answer
    /// until `until`: silence of one that is frozen is an error, and not silence.
    pub fn listen(
        &mut self,
        patterns: &[String],
        quiet: Instant,
        until: Instant,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut ear = self.client.subscribe(patterns, until)?;
        while let Some(message) = ear.next(quiet)? {
            if let Some(payload) = payload(&message)
                && each(payload).is_break()
            {
                return Ok(());
            }
        }
        ear.say(&cmd("PING"), until)?;
        while let Some(message) = ear.next(until)? {
            if payload(&message).is_none() {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::TimedOut, format!("{}: no answer in time", self.client.place())))
    }
}

/// What was published, of the announcement `["pmessage", pattern, channel, payload]`.
fn payload(message: &Value) -> Option<&[u8]> {
    let Value::Array(parts) = message else { return None };
    match parts.as_slice() {
        [kind, _, _, Value::BulkString(payload)] if text(kind) == Some("pmessage") => Some(payload),
        _ => None,
    }
}
