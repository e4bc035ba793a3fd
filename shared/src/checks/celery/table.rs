//! Results in a database: the table `celery_taskmeta`.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor, Row as _};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout_at};

use super::before;
use crate::celery::task::{self, End};
use crate::check::Failure;
use crate::sql::{Connection, Url, reason};

/// How soon it is looked for a result again.
const PAUSE: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub struct Table {
    url: Url,
    kept: Mutex<Option<Connection>>,
}

/// A URL as `SQLAlchemy` writes it: `postgresql+psycopg://` says which client to use, and a file without a fourth `/` is one of
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

    pub async fn end(&self, id: &str, last_look: Instant, deadline: Instant) -> Result<Option<End>, Failure> {
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
    matches!(error.code().as_deref(), Some("42P01" | "42S02")) || error.message().starts_with("no such table")
}
