//! Where Celery keeps its results: a Redis, a database, or nowhere (`rpc://`, where the sender is told).

use std::time::{Duration, Instant};

use heartbeat::fleet::{Connection, Error};
use redis::{Value, cmd};

use super::{Lone, before, nothing};
use crate::celery::task::{self, End, Sent};
use crate::celery::{Broker, Invalid};
use crate::check::Failure;
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
    Redis(Lone<Connection>),
    #[cfg(feature = "sql")]
    Sql(sql::Table),
    /// Nowhere: each is sent to who has sent the task.
    Reply,
}

impl Backend {
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let refused = |why: String| Mistake::of("result_backend", why);
        #[cfg(feature = "sql")]
        if let Some(url) = text.strip_prefix("db+") {
            let url = sql::url(url).parse();
            let url: crate::sql::Url =
                url.map_err(|invalid| refused(format!("the URL cannot be used: {invalid}")))?;
            return Ok(Self::Sql(sql::Table::new(url)));
        }
        if matches!(text, "rpc" | "rpc://") {
            return Ok(Self::Reply);
        }
        match text.parse::<Broker>() {
            Ok(Broker::Redis(url)) => Ok(Self::Redis(Lone::new(Connection::new(url)))),
            Ok(Broker::Amqp(_)) => {
                Err(refused("results over AMQP are kept nowhere: leave it out".to_owned()))
            }
            Err(Invalid::Scheme) => Err(refused(
                "it is neither a Redis nor a database (db+postgresql://, db+mysql://)".to_owned(),
            )),
            Err(invalid) => Err(refused(format!("the URL cannot be used: {invalid}"))),
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
            Self::Redis(connection) => {
                let until = before(deadline);
                let mut get = cmd("GET");
                get.arg(format!("{KEY}checker"));
                told(connection.with(deadline, move |redis| one(redis, get, until)).await).map(drop)
            }
            #[cfg(feature = "sql")]
            Self::Sql(table) => table.ask(deadline).await,
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
            Self::Redis(connection) => {
                let (key, until) = (format!("{KEY}{}", sent.id), before(deadline));
                let end = connection.with(deadline, move |redis| wait(redis, &key, last_look, until)).await;
                told(end)?
                    .map_err(|task::Unread| Failure::failed("the result backend: the result is none in JSON"))
            }
            #[cfg(feature = "sql")]
            Self::Sql(table) => table.end(&sent.id, last_look, deadline).await,
            Self::Reply => Ok(None),
        }
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

#[cfg(feature = "sql")]
mod sql {
    //! Results in a database: the table `celery_taskmeta`.

    use std::time::{Duration, Instant};

    use sqlx::{AssertSqlSafe, Executor, Row as _};
    use tokio::sync::Mutex;
    use tokio::time::{sleep, timeout_at};

    use super::super::before;
    use super::{End, Failure, LONGEST_PAUSE, task};
    use crate::sql::{Connection, Url, reason};

    /// A database is asked less often than a Redis.
    const PAUSE: Duration = LONGEST_PAUSE;

    #[derive(Debug)]
    pub struct Table {
        url: Url,
        kept: Mutex<Option<Connection>>,
    }

    /// A URL as SQLAlchemy writes it: `postgresql+psycopg://` says which client to use, and a file without a fourth `/` is one of
    /// the folder where it runs.
    pub fn url(url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let scheme = scheme.split('+').next().unwrap_or_default();
        let rest = if scheme == "sqlite" { rest.strip_prefix('/').unwrap_or(rest) } else { rest };
        format!("{scheme}://{rest}")
    }

    impl Table {
        pub fn new(url: Url) -> Self {
            // A result that has been read is deleted.
            Self { url: url.written_to(), kept: Mutex::default() }
        }

        #[cfg(test)]
        pub fn url(&self) -> &Url {
            &self.url
        }

        pub async fn ask(&self, deadline: Instant) -> Result<(), Failure> {
            let mut kept = self.kept.lock().await;
            let (connection, _) = self.row(kept.take(), "SELECT 1", deadline).await?;
            *kept = Some(connection);
            Ok(())
        }

        pub async fn end(
            &self,
            id: &str,
            last_look: Instant,
            deadline: Instant,
        ) -> Result<Option<End>, Failure> {
            let mut kept = self.kept.lock().await;
            loop {
                let question = format!("SELECT status FROM celery_taskmeta WHERE task_id = '{id}'");
                let (connection, state) = self.row(kept.take(), &question, deadline).await?;
                let end = state.as_deref().and_then(task::end_of);
                *kept = Some(connection);
                if end.is_some() {
                    let delete = format!("DELETE FROM celery_taskmeta WHERE task_id = '{id}'");
                    let (connection, _) = self.row(kept.take(), &delete, deadline).await?;
                    *kept = Some(connection);
                    return Ok(end);
                }
                let now = Instant::now();
                if now >= last_look {
                    return Ok(None);
                }
                sleep(PAUSE.min(last_look.saturating_duration_since(now))).await;
            }
        }

        /// The text in a statement's first row, over the connection that is kept; where that turns out to be dead, over a new one.
        async fn row(
            &self,
            kept: Option<Connection>,
            statement: &str,
            deadline: Instant,
        ) -> Result<(Connection, Option<String>), Failure> {
            let now = Instant::now();
            if let Some(mut connection) = kept {
                // One that does not answer leaves time for a new one.
                let share = now + deadline.saturating_duration_since(now) / 3;
                if let Ok(Ok(text)) = timeout_at(share.into(), first(&mut connection, statement)).await {
                    return Ok((connection, text));
                }
            }
            let asked = async {
                let mut connection = self.url.connect().await?;
                let text = first(&mut connection, statement).await?;
                Ok((connection, text))
            };
            match timeout_at(before(deadline).into(), asked).await {
                Ok(told) => told.map_err(|error: sqlx::Error| {
                    Failure::failed(format!("the result backend: {}", reason(&error)))
                        .because(format!("{}: {error}", self.url))
                }),
                Err(_) => Err(Failure::failed("the result backend: the database did not answer in time")),
            }
        }
    }

    /// There are no parameters: what is asked holds nothing but an id that was made here.
    async fn first(connection: &mut Connection, statement: &str) -> sqlx::Result<Option<String>> {
        let statement = AssertSqlSafe(statement.to_owned());
        let text = match connection {
            Connection::Postgres(connection) => {
                connection.fetch_optional(statement).await.map(|row| row.map(|row| row.try_get(0)))
            }
            Connection::MySql(connection) => {
                connection.fetch_optional(statement).await.map(|row| row.map(|row| row.try_get(0)))
            }
            Connection::Sqlite(connection) => {
                connection.fetch_optional(statement).await.map(|row| row.map(|row| row.try_get(0)))
            }
        };
        match text {
            // `SELECT 1` is a number.
            Ok(text) => Ok(text.and_then(Result::ok)),
            // Celery makes the table when it has the first result to keep.
            Err(error) if is_no_table(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// By SQLSTATE; SQLite has none.
    fn is_no_table(error: &sqlx::Error) -> bool {
        let sqlx::Error::Database(error) = error else { return false };
        matches!(error.code().as_deref(), Some("42P01" | "42S02"))
            || error.message().starts_with("no such table")
    }
}
