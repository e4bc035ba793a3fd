//! Where Celery keeps its results: a Redis, a database, or nowhere (`rpc://`, where the sender is told).

use std::time::{Duration, Instant};

use heartbeat::fleet::{Connection, Error};
use redis::{Value, cmd};

#[cfg(feature = "_sql")]
use super::table::Table;
use super::{Lone, before, nothing};
use crate::celery::task::{self, End, Sent};
use crate::celery::{Broker, Invalid};
use crate::check::Failure;
#[cfg(not(feature = "_sql"))]
use crate::database::Engine;
use crate::kind::Mistake;

/// What the key of a task's result begins with.
const KEY: &str = "celery-task-meta-";

/// The most that is read of a result.
const MOST_BYTES: usize = 1 << 20;

/// How soon it is looked for a result again: sooner while it has not been due for long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Where results are kept.
#[derive(Debug)]
pub enum Backend {
    /// With what the keys begin with.
    Redis(Lone<Connection>, String),
    #[cfg(feature = "_sql")]
    Database(Box<Table>),
    /// Nowhere: each is sent to who has sent the task.
    Reply,
}

impl Backend {
    /// By its URL, and what stands beside it in Celery's settings: the prefix of its keys, the name of its table.
    pub fn parse(text: &str, key_prefix: Option<&str>, table: Option<&str>) -> Result<Self, Vec<Mistake>> {
        let refused = |why: String| vec![Mistake::of("result_backend", why)];
        let mut backend = Self::read(text).map_err(refused)?;
        let mut mistakes = Vec::new();
        match (&mut backend, key_prefix) {
            (_, None) => {}
            (Self::Redis(_, keys), Some(prefix)) => *keys = prefixed(prefix),
            (_, Some(_)) => {
                mistakes.push(Mistake::of("result_key_prefix", "keys are for results in a Redis"));
            }
        }
        match (&mut backend, table) {
            (_, None) => {}
            #[cfg(feature = "_sql")]
            (Self::Database(results), Some(name)) => {
                let called = results.called(name);
                mistakes.extend(called.err().map(|why| Mistake::of("result_table", why)));
            }
            (_, Some(_)) => {
                mistakes.push(Mistake::of("result_table", "a table is for results in a database"));
            }
        }
        if mistakes.is_empty() { Ok(backend) } else { Err(mistakes) }
    }

    fn read(text: &str) -> Result<Self, String> {
        if let Some(url) = text.strip_prefix("db+") {
            return database(url).map_err(|why| format!("the URL cannot be used: {why}"));
        }
        match text {
            "rpc" | "rpc://" => return Ok(Self::Reply),
            "django-db" => {
                return Err(
                    "give the URL of Django's database (db+postgresql://, …), and `result_table = \"django_celery_results_taskresult\"`"
                        .to_owned(),
                );
            }
            _ => {}
        }
        match text.parse::<Broker>() {
            Ok(Broker::Redis(url)) => Ok(Self::Redis(Lone::new(Connection::new(url)), KEY.to_owned())),
            Ok(Broker::Amqp(_)) => Err("results over AMQP are kept nowhere: leave it out".to_owned()),
            Err(Invalid::Scheme) => {
                Err("it is neither a Redis nor a database (db+postgresql://, db+mysql://)".to_owned())
            }
            Err(invalid) => Err(format!("the URL cannot be used: {invalid}")),
        }
    }

    /// Why it is of no use beside this broker.
    pub fn misfit(&self, broker: &Broker, task: bool) -> Option<Mistake> {
        let why = match (self, broker) {
            (Self::Reply, Broker::Redis(_)) => "rpc:// is read over AMQP alone",
            (Self::Reply, Broker::Amqp(_)) if !task => {
                "rpc:// keeps nothing that could be read: it is for `task`"
            }
            _ => return None,
        };
        Some(Mistake::of("result_backend", why))
    }

    /// Whether it answers.
    pub async fn ask(&self, deadline: Instant) -> Result<(), Failure> {
        match self {
            Self::Redis(connection, keys) => {
                let until = before(deadline);
                let mut get = cmd("GET");
                get.arg(format!("{keys}checker"));
                told(connection.with(deadline, move |redis| one(redis, get, until)).await).map(drop)
            }
            #[cfg(feature = "_sql")]
            Self::Database(table) => table.ask(deadline).await,
            Self::Reply => Ok(()),
        }
    }

    /// How a task has ended, once it has; nothing where it has not until `last_look`. What tells of it is deleted.
    pub async fn end(
        &self,
        sent: &Sent,
        last_look: Instant,
        deadline: Instant,
    ) -> Result<Option<End>, Failure> {
        match self {
            Self::Redis(connection, keys) => {
                let (key, until) = (format!("{keys}{}", sent.id), before(deadline));
                let end = connection.with(deadline, move |redis| wait(redis, &key, last_look, until)).await;
                told(end)?
                    .map_err(|task::Unread| Failure::failed("the result backend: the result is none in JSON"))
            }
            #[cfg(feature = "_sql")]
            Self::Database(table) => table.end(&sent.id, last_look, deadline).await,
            Self::Reply => Ok(None),
        }
    }
}

#[cfg(feature = "_sql")]
fn database(url: &str) -> Result<Backend, String> {
    Table::parse(url).map(|table| Backend::Database(Box::new(table)))
}

#[cfg(not(feature = "_sql"))]
fn database(url: &str) -> Result<Backend, String> {
    Err(Engine::of(url).map_or_else(str::to_owned, Engine::missing))
}

/// What Celery puts before the key, which it parts from that by itself.
fn prefixed(prefix: &str) -> String {
    match prefix.chars().next_back() {
        None | Some(':' | '_' | '-' | '.') => format!("{prefix}{KEY}"),
        Some(_) => format!("{prefix}_{KEY}"),
    }
}

fn told<T>(asked: Result<Result<T, Error>, crate::node::solo::Unanswered>) -> Result<T, Failure> {
    let told = asked.map_err(|unanswered| nothing("the result backend", unanswered))?;
    told.map_err(|error| {
        Failure::failed(format!("the result backend: {}", error.kind())).because(error.to_string())
    })
}

fn one(redis: &mut Connection, command: redis::Cmd, until: Instant) -> Result<Option<Value>, Error> {
    redis.ask(&[command], until)?.into_iter().next().transpose()
}

/// Looks again and again: to be told would take a connection that is subscribed before the task is sent.
fn wait(
    redis: &mut Connection,
    key: &str,
    last_look: Instant,
    until: Instant,
) -> Result<Result<Option<End>, task::Unread>, Error> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let mut get = cmd("GETRANGE");
        get.arg(key).arg(0).arg(MOST_BYTES);
        let end = match one(redis, get, until)? {
            // It has an empty one where there is none.
            Some(Value::BulkString(bytes)) if !bytes.is_empty() => task::end(&bytes),
            _ => Ok(None),
        };
        if !matches!(end, Ok(None)) {
            let mut delete = cmd("DEL");
            delete.arg(key);
            one(redis, delete, until)?;
            return Ok(end);
        }
        let now = Instant::now();
        if now >= last_look {
            return Ok(Ok(None));
        }
        std::thread::sleep(pause.min(last_look.saturating_duration_since(now)));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_parted_from_the_key_as_celery_parts_it() {
        for (prefix, key) in [
            ("", "celery-task-meta-"),
            ("shop", "shop_celery-task-meta-"),
            ("shop:", "shop:celery-task-meta-"),
            ("shop_", "shop_celery-task-meta-"),
            ("shop-", "shop-celery-task-meta-"),
            ("größe.", "größe.celery-task-meta-"),
        ] {
            assert_eq!(prefixed(prefix), key);
        }
    }
}
