//! Celery's workers, asked over the broker that they take their work from: its remote control (`ping`,
//! `active_queues`) and its events, over Redis and AMQP.
//!
//! What an answer means for a cluster is decided in `checks::cluster::celery`; here it is only fetched. Who replies and what a
//! reply holds is anybody's who may write to the broker, so every size is bounded and nothing in it is believed.
//!
//! [`Celery`] connects at the first question and keeps the connection; after a failure it connects anew. Its calls block,
//! each until its deadline at most.

mod amqp;
mod broker;
mod error;
pub(crate) mod message;
mod redis;
mod round;
pub mod task;

pub use self::broker::{Broker, Invalid};
pub use self::error::Error;
pub use self::message::{Event, Happening};
pub use self::round::{Replied, Replies};

use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

use self::round::Round;
use self::task::{End, Sent, Task};

/// The names under which Celery speaks at its broker: its settings of the same meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `control_exchange`.
    pub exchange: String,
    /// `global_keyprefix` of `broker_transport_options`; for Redis alone.
    pub key_prefix: String,
}

/// Celery's own defaults.
impl Default for Names {
    fn default() -> Self {
        Self { exchange: "celery".to_owned(), key_prefix: String::new() }
    }
}

/// A question that every worker answers for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Whether it is there.
    Ping,
    /// From which queues it takes work.
    ActiveQueues,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::ActiveQueues => "active_queues",
        }
    }
}

/// One broker, and Celery's workers behind it.
#[derive(Debug)]
pub struct Celery {
    line: Line,
}

#[derive(Debug)]
enum Line {
    Redis(Box<redis::Line>),
    Amqp(Box<amqp::Line>),
}

impl Celery {
    /// Nothing is connected yet.
    pub fn new(broker: &Broker, names: &Names) -> Self {
        let line = match broker {
            Broker::Redis(url) => Line::Redis(Box::new(redis::Line::new(url.clone(), names.clone()))),
            Broker::Amqp(url) => Line::Amqp(Box::new(amqp::Line::new(url.clone(), names.clone()))),
        };
        Self { line }
    }

    /// Asks all workers, all of it in one broadcast.
    ///
    /// It ends when all have replied who listen, where the broker tells how many that is (Redis); or, once `enough` holds,
    /// when no reply has come for a short while; or at `until`. Where it takes until then, the broker has been asked last
    /// whether it is still there: what is told here is what the workers did, and not what the broker did not.
    pub fn ask(
        &mut self,
        methods: &[Method],
        until: Instant,
        mut enough: impl FnMut(&Replies) -> bool,
    ) -> Result<Replies, Error> {
        let mut round = Round::new(methods, &mut enough)?;
        match &mut self.line {
            Line::Redis(line) => line.ask(&mut round, until)?,
            Line::Amqp(line) => line.ask(&mut round, until)?,
        }
        if round.is_full() {
            return Err(Error::local(
                "the workers replied with too much",
                "the replies have more than 64 MiB",
            ));
        }
        Ok(round.end())
    }

    /// Sends a task. Over AMQP its queue must be there and have a consumer.
    pub fn send(&mut self, task: &Task, until: Instant) -> Result<Sent, Error> {
        match &mut self.line {
            Line::Redis(line) => line.send(task, until),
            Line::Amqp(line) => line.send(task, until),
        }
    }

    /// Takes a task back that has not been done, where no worker has taken it. Over AMQP the broker has dropped it by itself.
    pub fn withdraw(&mut self, sent: &Sent, until: Instant) -> Result<(), Error> {
        match &mut self.line {
            Line::Redis(line) => line.withdraw(sent, until),
            Line::Amqp(_) => Ok(()),
        }
    }

    /// How a task has ended, by the message that tells its sender of it (`rpc://`, AMQP alone); nothing where it has not
    /// until then.
    pub fn result(&mut self, sent: &Sent, until: Instant) -> Result<Option<End>, Error> {
        match &mut self.line {
            Line::Redis(_) => Ok(None),
            Line::Amqp(line) => line.result(sent, until),
        }
    }

    /// Hands what workers say of themselves to `each` until that says that it is enough, or until `quiet`. Sends nothing to
    /// any worker. As with [`Self::ask`], silence of a broker that is not there is an error, for which there is time until
    /// `until`.
    pub fn listen(
        &mut self,
        quiet: Instant,
        until: Instant,
        mut each: impl FnMut(Happening) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        match &mut self.line {
            Line::Redis(line) => line.listen(quiet, until, &mut each),
            Line::Amqp(line) => line.listen(quiet, until, &mut each),
        }
    }
}

/// 128 random bits in hexadecimal digits.
fn unique() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::local("no random numbers", error))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Somebody else's text: of bounded length, and nothing in it steers a terminal. Whoever writes a log cuts it shorter, once it has
/// left the secrets out.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 4_096;
        for character in self.0.chars().take(LONGEST) {
            write!(f, "{}", if character.is_control() { '?' } else { character })?;
        }
        if self.0.chars().nth(LONGEST).is_some() { f.write_str("…") } else { Ok(()) }
    }
}
