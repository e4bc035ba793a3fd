//! Whether Celery works: its broker, its workers by their replies to a ping, and its result backend, each told apart from the
//! others.
//!
//! Who replies is fetched by `celery` and judged by `checks::cluster::celery`, as `checker cluster --source celery` does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join;
use heartbeat::fleet::Connection;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cluster::celery::{How, Settings as Workers};
use super::cluster::check::host;
use super::cluster::{Answer, Policy, Question, Queue};
use super::worker::Want;
use crate::celery::{Broker, Celery as Line, Names};
#[cfg(feature = "database")]
use crate::check::chain;
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::solo::{Solo, Unanswered};
use crate::settings::Secret;
use crate::status::Status;

/// How long before the deadline a server is given up, at most: then it can still be said what did not answer.
const MARGIN: Duration = Duration::from_millis(50);

/// No task's result.
const NO_RESULT: &str = "celery-task-meta-checker";

/// Whether Celery's broker, its workers and its result backend answer. Each that does not is a reason of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Celery {
    /// Celery's broker, as Celery takes it: `redis://`, `rediss://`, `redis+socket://`, `amqp://` or `amqps://`, or
    /// `redis+sentinel://HOST,HOST/SERVICE/DB`.
    broker: Secret,
    /// How many workers reply to a ping at least. Default: 1; with 0 the broker alone is asked for.
    min: Option<u64>,
    /// Queues, each with how many workers take work from it at least.
    #[serde(default)]
    queues: BTreeMap<String, u64>,
    /// Workers that must be there, as Celery names them: `celery@web-3`.
    #[serde(default)]
    expect: Vec<String>,
    /// Which workers count: those that take work from any queue (`ready`), or all that reply (`live`).
    #[serde(default = "ready", rename = "for")]
    want: Want,
    /// Only the workers of the host of this name count, which follows the `@`; `self` is this one.
    host: Option<String>,
    /// Celery's `control_exchange`. Default: `celery`.
    exchange: Option<String>,
    /// Celery's `global_keyprefix`, on Redis. Default: none.
    key_prefix: Option<String>,
    /// Celery's result backend, where it is a Redis or a database (`db+postgresql://`, `db+mysql://`, `db+sqlite:///`): a result is
    /// read there that is none. Default: it is not asked.
    result_backend: Option<Secret>,
}

fn ready() -> Want {
    Want::Ready
}

impl Settings for Celery {
    const KIND: &'static str = "celery";
    const EXAMPLE: &'static str = "broker = \"amqp://shop:S3cret@rabbit.internal/orders\"\nmin = 2\nqueues = { mail = 1 }\n\
         result_backend = \"redis://redis.internal/1\"";
    const CONTRACT: Contract = Contract::Peer(
        "broker = \"amqp://me:S3cret@{peer}/\"\nresult_backend = \"redis://:S3cret@{peer}/1\"",
    );
    type Check = CeleryCheck;

    fn build(self) -> Result<CeleryCheck, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let broker = self.broker.expose().parse::<Broker>();
        if let Err(invalid) = &broker {
            mistakes.push(Mistake::of("broker", format!("the URL cannot be used: {invalid}")));
        }
        let backend = self.result_backend.as_ref().map(|url| Backend::parse(url.expose())).transpose();
        mistakes.extend(backend.as_ref().err().cloned());
        let host = self.host.as_deref().map(host).transpose();
        mistakes.extend(host.as_ref().err().map(|why| Mistake::of("host", *why)));
        if self.queues.keys().chain(&self.expect).chain(&self.exchange).any(String::is_empty) {
            mistakes.push(Mistake::together("the name of a queue, a worker or the exchange is empty"));
        }
        let (Ok(broker), Ok(backend), Ok(host), true) = (broker, backend, host, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        let names = Names::default();
        let names = Names {
            exchange: self.exchange.unwrap_or(names.exchange),
            key_prefix: self.key_prefix.unwrap_or(names.key_prefix),
        };
        let policy = Policy {
            want: self.want,
            min: self.min,
            queues: self.queues.into_iter().map(|(name, min)| Queue { name, min }).collect(),
            expect: self.expect,
            ..Policy::default()
        };
        let question = Question { policy, host, ..Question::new(Workers::SOURCE, &broker, "") };
        let workers = Workers { broker, names, how: How::Ask, question };
        let line = Arc::new(Mutex::new(workers.celery()));
        Ok(CeleryCheck { workers, line, backend, solo: Solo::default() })
    }
}

/// Asks, over connections that are kept.
#[derive(Debug)]
pub struct CeleryCheck {
    workers: Workers,
    line: Arc<Mutex<Line>>,
    backend: Option<Backend>,
    solo: Solo,
}

#[async_trait::async_trait]
impl Check for CeleryCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let backend = async {
            match &self.backend {
                Some(backend) => backend.ask(deadline).await,
                None => Ok(()),
            }
        };
        match join(self.ask_workers(deadline), backend).await {
            (Ok(()), told) | (told, Ok(())) => told,
            (Err(one), Err(other)) => Err(both(&one, &other)),
        }
    }
}

/// Two failures as one.
fn both(one: &Failure, other: &Failure) -> Failure {
    use crate::check::chain;
    let reason = format!("{}; {}", one.reason(), other.reason());
    Failure::failed(reason).because(format!("{}; {}", chain(one), chain(other)))
}

impl CeleryCheck {
    async fn ask_workers(&self, deadline: Instant) -> Result<(), Failure> {
        let (workers, line, until) = (self.workers.clone(), Arc::clone(&self.line), before(deadline));
        let asked = self.solo.ask(deadline, move || {
            // A panic of an earlier question has been told there.
            workers.answer(&mut line.lock().unwrap_or_else(PoisonError::into_inner), until)
        });
        match asked.await {
            Ok(answer) => self.judge(&answer),
            Err(unanswered) => Err(nothing("the broker", unanswered)),
        }
    }

    /// Numbers and names of the configuration are for everyone; what a worker replied is not.
    fn judge(&self, answer: &Answer) -> Result<(), Failure> {
        let reason = match answer.status {
            Status::Pass => return Ok(()),
            // Whether it answers is part of what is asked here.
            Status::Unknown => answer.reason.clone(),
            _ => {
                let mut facts = answer.facts.clone().unwrap_or_default();
                for missing in &mut facts.missing {
                    "does not count".clone_into(&mut missing.why);
                }
                self.workers.question.policy.failures(&facts).join("; ")
            }
        };
        Err(Failure::failed(reason).because(answer.explanation()))
    }
}

fn before(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline.checked_sub(MARGIN.min(left / 10)).unwrap_or(deadline)
}

fn nothing(who: &str, unanswered: Unanswered) -> Failure {
    match unanswered {
        Unanswered::Broken(error) => Failure::unknown(format!("{who} could not be asked")).because(error),
        Unanswered::Late | Unanswered::Still => Failure::failed(format!("{who} did not answer in time")),
    }
}

/// Where results are kept.
#[derive(Debug)]
enum Backend {
    Redis(Arc<Mutex<Connection>>, Solo),
    #[cfg(feature = "database")]
    Database(Box<crate::database::Database>),
}

impl Backend {
    fn parse(text: &str) -> Result<Self, Mistake> {
        let refused = |why: String| Mistake::of("result_backend", why);
        #[cfg(feature = "database")]
        if let Some(url) = text.strip_prefix("db+") {
            use crate::database::{Access, Database, Place};
            let place = Place::parse(url, Access::Read)
                .map_err(|why| refused(format!("the URL cannot be used: {why}")))?;
            return Ok(Self::Database(Box::new(Database::new(place))));
        }
        match text.parse::<Broker>() {
            Ok(Broker::Redis(url)) => {
                Ok(Self::Redis(Arc::new(Mutex::new(Connection::new(url))), Solo::default()))
            }
            Ok(Broker::Amqp(_)) => {
                Err(refused("results over AMQP are kept nowhere: leave it out".to_owned()))
            }
            Err(crate::celery::Invalid::Scheme) => Err(refused(
                "it is neither a Redis nor a database (db+postgresql://, db+mysql://)".to_owned(),
            )),
            Err(invalid) => Err(refused(format!("the URL cannot be used: {invalid}"))),
        }
    }

    async fn ask(&self, deadline: Instant) -> Result<(), Failure> {
        match self {
            Self::Redis(connection, solo) => redis(connection, solo, deadline).await,
            #[cfg(feature = "database")]
            Self::Database(database) => database.ask(&SelectOne, deadline).await.map_err(|failure| {
                let reason = format!("the result backend: {}", failure.reason());
                Failure::failed(reason).because(format!("{}: {}", database.place(), chain(&failure)))
            }),
        }
    }
}

async fn redis(connection: &Arc<Mutex<Connection>>, solo: &Solo, deadline: Instant) -> Result<(), Failure> {
    let (connection, until) = (Arc::clone(connection), before(deadline));
    let asked = solo.ask(deadline, move || {
        let mut get = redis::cmd("GET");
        get.arg(NO_RESULT);
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.ask(&[get], until)?.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    });
    match asked.await {
        Ok(told) => told.map_err(|error| {
            Failure::failed(format!("the result backend: {}", error.kind())).because(error.to_string())
        }),
        Err(unanswered) => Err(nothing("the result backend", unanswered)),
    }
}

/// Whether it answers.
#[cfg(feature = "database")]
struct SelectOne;

#[cfg(feature = "database")]
#[async_trait::async_trait]
impl crate::database::Question for SelectOne {
    type Answer = ();

    async fn ask(&self, connection: &mut crate::database::Connection, _: Instant) -> Result<(), Failure> {
        connection.row("SELECT 1").await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn build(settings: Value) -> Result<CeleryCheck, Vec<Mistake>> {
        let built = from_value::<Celery>(settings).unwrap().build();
        assert!(!format!("{built:?}").contains("S3cret"), "{built:?}");
        built
    }

    #[test]
    fn its_settings_are_the_policies_of_the_command() {
        let check = build(json!({
            "broker": "amqps://:S3cret@h/?ssl_ca_certs=/a", "min": 3, "queues": { "mail": 2 }, "expect": ["w@h"], "for": "live", "host": "h",
            "exchange": "x", "key_prefix": "p", "result_backend": "redis://:S3cret@h/1",
        }));
        let workers = check.unwrap().workers;
        assert_eq!(workers.names, Names { exchange: "x".to_owned(), key_prefix: "p".to_owned() });
        let policy = workers.question.policy;
        assert_eq!((policy.want, policy.min), (Want::Live, Some(3)));
        assert_eq!(policy.queues, ["mail:2".parse().unwrap()]);
        let default = build(json!({ "broker": "redis://h" })).unwrap();
        assert_eq!(default.workers.question.policy.want, Want::Ready);
        assert!(default.backend.is_none());
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_part_of_a_url() {
        for (settings, keys) in [
            (json!({ "broker": "http://S3cret" }), vec![Some("broker")]),
            (json!({ "broker": "redis://h", "result_backend": "S3cret" }), vec![Some("result_backend")]),
            (json!({ "broker": "redis://h", "result_backend": "rpc://" }), vec![Some("result_backend")]),
            (json!({ "broker": "redis://h", "result_backend": "amqp://h" }), vec![Some("result_backend")]),
            (
                json!({ "broker": "amqp://:S3cret@", "result_backend": "redis://:S3cret@h/x", "expect": [""] }),
                vec![Some("broker"), Some("result_backend"), None],
            ),
        ] {
            let mistakes = build(settings).unwrap_err();
            assert_eq!(mistakes.iter().map(|mistake| mistake.key).collect::<Vec<_>>(), keys);
        }
    }

    #[cfg(feature = "database")]
    #[test]
    fn a_database_is_named_as_celery_names_it() {
        for (text, shown) in [
            ("db+postgresql://me:S3cret@h/shop", "postgresql://h/shop"),
            ("db+postgresql+psycopg://me:S3cret@h/shop", "postgresql+psycopg://h/shop"),
            ("db+mysql+pymysql://me:S3cret@h/shop", "mysql+pymysql://h/shop"),
            ("db+sqlite:///results.db", "sqlite:///results.db"),
        ] {
            match Backend::parse(text) {
                Ok(Backend::Database(database)) => assert_eq!(database.place().to_string(), shown),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(Backend::parse("db+oracle://me:S3cret@h").is_err());
    }

    #[tokio::test]
    async fn each_of_them_that_cannot_be_reached_is_told() {
        let settings = json!({ "broker": "redis://:S3cret@127.0.0.1:1", "result_backend": "redis://:S3cret@127.0.0.1:1" });
        let failure =
            build(settings).unwrap().run(Instant::now() + Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(failure.reason(), "Redis cannot be reached; the result backend: Redis cannot be reached");
        assert!(!format!("{failure:?}").contains("S3cret"));
    }
}
