//! Whether Celery works: its broker, its workers by their replies to a ping, its result backend, and where asked a task's way
//! from here to its result, each told apart from the others.
//!
//! Who replies is fetched by `celery` and judged by `checks::cluster::celery`, as `checker cluster --source celery` does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join;
use schemars::JsonSchema;
use serde::Deserialize;

use self::backend::Backend;
use self::trip::Trip;
use super::cluster::celery::{How, Settings as Workers};
use super::cluster::check::{host, share};
use super::cluster::{Answer, Policy, Question, Queue};
use super::worker::Want;
use crate::celery::task::Task;
use crate::celery::{Broker, Celery as Line, Names};
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::solo::{Solo, Unanswered};
use crate::settings::Secret;
use crate::status::Status;

mod backend;
#[cfg(feature = "_sql")]
mod table;
mod trip;

/// How long before the deadline a server is given up, at most: then it can still be said what did not answer.
const MARGIN: Duration = Duration::from_millis(50);

/// Celery's own `task_default_queue`.
const QUEUE: &str = "celery";

/// The longest name of a queue; AMQP allows no longer one.
const LONGEST_NAME: usize = 255;

/// Whether Celery's broker, its workers and its result backend answer, and where asked, whether a task that is sent is done. Each
/// that does not is a reason of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Celery {
    /// Celery's broker, as Celery takes it: `redis://`, `rediss://`, `redis+socket://`, `amqp://`, `amqps://`, or `sentinel://…;sentinel://…`
    /// with `master_name`; or `redis+sentinel://HOST,HOST/SERVICE/DB`.
    broker: Secret,
    /// Celery's `master_name` of `broker_transport_options`, for a broker of `sentinel://`.
    master_name: Option<String>,
    /// How many workers reply to a ping at least. Default: 1, or what `min_percent` says; with 0 the broker alone is asked for.
    min: Option<u64>,
    /// How many there are at least as a share of `expected`, in percent and rounded up.
    #[schemars(range(min = 1, max = 100))]
    min_percent: Option<u64>,
    /// How many workers there should be.
    #[schemars(range(min = 1))]
    expected: Option<u64>,
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
    /// Whether workers are not asked but listened to, for 2.5 s or as long as it takes all to speak: nothing is sent to them, and
    /// their queues are not known.
    #[serde(default)]
    events: bool,
    /// Celery's `control_exchange`. Default: `celery`.
    exchange: Option<String>,
    /// Celery's `global_keyprefix`, on Redis. Default: none.
    key_prefix: Option<String>,
    /// Celery's result backend, where it is a Redis or a database (`db+postgresql://`, `db+mysql://`, `db+sqlite:///`): a result is
    /// looked for there; without `task` one that does not exist. With `task` and over AMQP `rpc://` too. Default: it is not asked.
    result_backend: Option<Secret>,
    /// Celery's `global_keyprefix` of `result_backend_transport_options`, for results in a Redis. Default: none.
    result_key_prefix: Option<String>,
    /// The table of results in a database, or `SCHEMA.TABLE`: Celery's `task` of `database_table_names`; that of django-celery-results
    /// (`django-db`) is `django_celery_results_taskresult`. It must be there. Default: `celery_taskmeta`, which Celery may not have made yet.
    result_table: Option<String>,
    /// The name of a task that takes no arguments and does nothing: it is sent, and must be done within the deadline, by what is
    /// told of it in `result_backend`. Default: none is sent.
    task: Option<String>,
    /// The queue that the task is sent to. Default: `celery`.
    queue: Option<String>,
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
    const MORE_CONTRACTS: &'static [&'static str] = &[
        "broker = \"redis://:S3cret@{peer}/0\"",
        "broker = \"redis://:S3cret@{peer}/0\"\nmin = 0\nresult_backend = \"redis://:S3cret@{peer}/1\"\ntask = \"shop.ping\"",
        #[cfg(feature = "postgres")]
        "broker = \"amqp://me:S3cret@{peer}/\"\nmin = 0\nresult_backend = \"db+postgresql://me:S3cret@{peer}/shop?sslmode=disable\"",
    ];
    type Check = CeleryCheck;

    fn build(self) -> Result<CeleryCheck, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let broker = Broker::read(self.broker.expose(), self.master_name.as_deref());
        if let Err(invalid) = &broker {
            mistakes.push(Mistake::of("broker", format!("the URL cannot be used: {invalid}")));
        }
        let backend = self.backend();
        mistakes.extend(backend.as_ref().err().cloned().unwrap_or_default());
        let host = self.host.as_deref().map(host).transpose();
        mistakes.extend(host.as_ref().err().map(|why| Mistake::of("host", *why)));
        let share = share(self.min_percent, self.expected);
        mistakes.extend(share.as_ref().err().cloned());
        if self.events && !self.queues.is_empty() {
            let why = "`events` do not tell from which queues a worker takes work";
            mistakes.push(Mistake::of("queues", why));
        }
        if self.queues.keys().chain(&self.expect).chain(&self.exchange).any(String::is_empty) {
            mistakes.push(Mistake::together("the name of a queue, a worker or the exchange is empty"));
        }
        let task = self.task(&mut mistakes);
        if let (Ok(broker), Ok(Some(backend))) = (&broker, &backend) {
            mistakes.extend(backend.misfit(broker, task.is_some()));
        }
        let (Ok(broker), Ok(backend), Ok(host), Ok(share), true) =
            (broker, backend, host, share, mistakes.is_empty())
        else {
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
            share,
            queues: self.queues.into_iter().map(|(name, min)| Queue { name, min }).collect(),
            expect: self.expect,
            ..Policy::default()
        };
        let question = Question { policy, host, ..Question::new(Workers::SOURCE, &broker, "") };
        let how = if self.events { How::Listen } else { How::Ask };
        let workers = Workers { broker, names, how, question };
        let trip = task.map(|task| Trip::new(task, workers.celery()));
        Ok(CeleryCheck { line: Lone::new(workers.celery()), workers, backend, trip })
    }
}

impl Celery {
    fn backend(&self) -> Result<Option<Backend>, Vec<Mistake>> {
        let (prefix, table) = (self.result_key_prefix.as_deref(), self.result_table.as_deref());
        if let Some(url) = &self.result_backend {
            return Backend::parse(url.expose(), prefix, table).map(Some);
        }
        let named = [("result_key_prefix", prefix), ("result_table", table)];
        let why = "it says where results are in `result_backend`, which is missing";
        let mistakes: Vec<_> =
            named.iter().filter(|(_, name)| name.is_some()).map(|(key, _)| Mistake::of(key, why)).collect();
        if mistakes.is_empty() { Ok(None) } else { Err(mistakes) }
    }

    fn task(&self, mistakes: &mut Vec<Mistake>) -> Option<Task> {
        let Some(name) = &self.task else {
            if self.queue.is_some() {
                mistakes.push(Mistake::of("queue", "it is where `task` is sent to, which is missing"));
            }
            return None;
        };
        if self.result_backend.is_none() {
            mistakes.push(Mistake::of(
                "task",
                "whether it is done is told in `result_backend`, which is missing",
            ));
        }
        let queue = self.queue.as_deref().unwrap_or(QUEUE);
        for (key, text) in [("task", name.as_str()), ("queue", queue)] {
            if text.is_empty() || text.len() > LONGEST_NAME || text.chars().any(char::is_control) {
                mistakes.push(Mistake::of(key, "a name has 1 to 255 bytes, and no control character"));
            }
        }
        Some(Task { name: name.clone(), queue: queue.to_owned() })
    }
}

/// Asks, over connections that are kept.
#[derive(Debug)]
pub struct CeleryCheck {
    workers: Workers,
    line: Lone<Line>,
    backend: Option<Backend>,
    trip: Option<Trip>,
}

/// What blocks who uses it, and is used by one at a time, on a thread of its own.
#[derive(Debug)]
struct Lone<T> {
    inner: Arc<Mutex<T>>,
    solo: Solo,
}

impl<T: Send + 'static> Lone<T> {
    fn new(inner: T) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), solo: Solo::default() }
    }

    async fn with<R: Send + 'static>(
        &self,
        deadline: Instant,
        using: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Unanswered> {
        let inner = Arc::clone(&self.inner);
        // A panic of an earlier use has been told there.
        self.solo
            .ask(deadline, move || using(&mut inner.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
    }
}

#[async_trait::async_trait]
impl Check for CeleryCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let backend = async {
            match (&self.trip, &self.backend) {
                (Some(trip), Some(backend)) => trip.make(backend, deadline).await,
                (None, Some(backend)) => backend.ask(deadline).await,
                (_, None) => Ok(()),
            }
        };
        match join(self.ask_workers(deadline), backend).await {
            (Ok(()), told) | (told, Ok(())) => told,
            (Err(one), Err(other)) => Err(both(&one, &other)),
        }
    }
}

/// Two failures as one: what is known to be wrong is wrong, whatever the other could not tell.
fn both(one: &Failure, other: &Failure) -> Failure {
    use crate::check::chain;
    let reason = format!("{}; {}", one.reason(), other.reason());
    let told = Failure::failed(reason).because(format!("{}; {}", chain(one), chain(other)));
    match (one.status(), other.status()) {
        (Status::Unknown, Status::Unknown) => told.as_unknown(),
        _ => told,
    }
}

impl CeleryCheck {
    async fn ask_workers(&self, deadline: Instant) -> Result<(), Failure> {
        let (workers, until) = (self.workers.clone(), before(deadline));
        match self.line.with(deadline, move |line| workers.answer(line, until)).await {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::super::cluster::Share;
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
        let trip =
            build(json!({ "broker": "amqp://h", "result_backend": "rpc://", "task": "t" })).unwrap().trip;
        assert_eq!(trip.unwrap().task(), &Task { name: "t".to_owned(), queue: "celery".to_owned() });
        let heard = build(json!({ "broker": "redis://h", "events": true, "min_percent": 50, "expected": 4 }));
        let heard = heard.unwrap().workers;
        assert_eq!((heard.how, heard.question.policy.share.map(Share::needed)), (How::Listen, Some(2)));
        let default = build(json!({ "broker": "redis://h" })).unwrap();
        assert_eq!(default.workers.question.policy.want, Want::Ready);
        assert!(default.backend.is_none());
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_part_of_a_url() {
        for (settings, keys) in [
            (json!({ "broker": "http://S3cret" }), vec![Some("broker")]),
            (json!({ "broker": "redis://h", "result_backend": "S3cret" }), vec![Some("result_backend")]),
            (json!({ "broker": "amqp://h", "result_backend": "rpc://" }), vec![Some("result_backend")]),
            (
                json!({ "broker": "redis://h", "result_backend": "rpc://", "task": "t" }),
                vec![Some("result_backend")],
            ),
            (json!({ "broker": "amqp://h", "task": "t" }), vec![Some("task")]),
            (json!({ "broker": "amqp://h", "queue": "q" }), vec![Some("queue")]),
            (
                json!({ "broker": "amqp://h", "result_backend": "rpc://", "task": "", "queue": "q".repeat(256) }),
                vec![Some("task"), Some("queue")],
            ),
            (json!({ "broker": "amqp://h", "events": true, "queues": { "q": 1 } }), vec![Some("queues")]),
            (json!({ "broker": "amqp://h", "min_percent": 50 }), vec![Some("min_percent")]),
            (json!({ "broker": "sentinel://:S3cret@h" }), vec![Some("broker")]),
            (json!({ "broker": "redis://:S3cret@h", "master_name": "main" }), vec![Some("broker")]),
            (json!({ "broker": "redis://h", "result_backend": "amqp://h" }), vec![Some("result_backend")]),
            (json!({ "broker": "redis://h", "result_backend": "django-db" }), vec![Some("result_backend")]),
            (
                json!({ "broker": "redis://h", "result_key_prefix": "a", "result_table": "a" }),
                vec![Some("result_key_prefix"), Some("result_table")],
            ),
            (
                json!({ "broker": "redis://h", "result_backend": "redis://h", "result_table": "a" }),
                vec![Some("result_table")],
            ),
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
            ("db+sqlite:///results.db", "sqlite://results.db"),
            ("db+sqlite:////var/lib/results.db", "sqlite:///var/lib/results.db"),
            ("db+sqlite+pysqlite:////var/lib/results.db", "sqlite:///var/lib/results.db"),
        ] {
            match Backend::parse(text, None, None) {
                Ok(Backend::Database(table)) => assert_eq!(table.place().to_string(), shown),
                other => panic!("{text}: {other:?}"),
            }
        }
        for (key, name) in [("result_key_prefix", "a"), ("result_table", "a'b")] {
            let settings = json!({ "broker": "redis://h", "result_backend": "db+postgresql://me:S3cret@h/shop", key: name });
            let keys: Vec<_> = build(settings).unwrap_err().iter().map(|mistake| mistake.key).collect();
            assert_eq!(keys, [Some(key)]);
        }
        assert!(Backend::parse("db+oracle://me:S3cret@h", None, None).is_err());
    }

    #[test]
    fn two_that_nobody_can_tell_of_are_not_known_to_be_wrong() {
        let (unknown, failed) = (Failure::unknown("a"), Failure::failed("b"));
        for (one, other, status) in [
            (&unknown, &unknown, Status::Unknown),
            (&unknown, &failed, Status::Fail),
            (&failed, &unknown, Status::Fail),
            (&failed, &failed, Status::Fail),
        ] {
            let told = both(one, other);
            assert_eq!(told.status(), status);
            assert_eq!(told.reason(), format!("{}; {}", one.reason(), other.reason()));
        }
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
