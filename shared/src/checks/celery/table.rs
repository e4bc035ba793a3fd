//! Results in a database: the table `celery_taskmeta`.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};

use super::before;
use crate::celery::task::{self, End};
use crate::check::{Failure, chain};
use crate::database::{Access, Connection, Database, Place, Question, What};

/// How soon it is looked for a result again.
const PAUSE: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub struct Table(Database);

/// A URL as `SQLAlchemy` writes it: a file without a fourth `/` is one of the folder where it runs.
fn url(url: &str) -> String {
    match url.split_once(":///") {
        Some((scheme, file)) if scheme.starts_with("sqlite") => format!("sqlite://{file}"),
        _ => url.to_owned(),
    }
}

impl Table {
    pub fn parse(text: &str) -> Result<Self, String> {
        // A result that has been read is deleted.
        Place::parse(&url(text), Access::Write).map(|place| Self(Database::new(place)))
    }

    #[cfg(test)]
    pub fn place(&self) -> &Place {
        self.0.place()
    }

    pub async fn ask(&self, deadline: Instant) -> Result<(), Failure> {
        self.first("SELECT 1".to_owned(), deadline).await.map(drop)
    }

    pub async fn end(&self, id: &str, last_look: Instant, deadline: Instant) -> Result<Option<End>, Failure> {
        loop {
            // The id was made here, and is a number.
            let look = format!("SELECT status FROM celery_taskmeta WHERE task_id = '{id}'");
            let end = self.first(look, deadline).await?.as_deref().and_then(task::end_of);
            if end.is_some() {
                self.first(format!("DELETE FROM celery_taskmeta WHERE task_id = '{id}'"), deadline).await?;
                return Ok(end);
            }
            let now = Instant::now();
            if now >= last_look {
                return Ok(None);
            }
            sleep(PAUSE.min(last_look.saturating_duration_since(now))).await;
        }
    }

    async fn first(&self, statement: String, deadline: Instant) -> Result<Option<String>, Failure> {
        let until = before(deadline);
        let told = timeout_at(until.into(), self.0.ask(&Statement(statement), until)).await;
        told.map_err(|_| Failure::failed("the result backend: the database did not answer in time"))?.map_err(
            |failure| {
                let reason = format!("the result backend: {}", failure.reason());
                Failure::failed(reason).because(format!("{}: {}", self.0.place(), chain(&failure)))
            },
        )
    }
}

/// What is asked: the text in the first row of the answer, if there is any.
struct Statement(String);

#[async_trait::async_trait]
impl Question for Statement {
    type Answer = Option<String>;

    async fn ask(&self, connection: &mut Connection, _: Instant) -> Result<Option<String>, Failure> {
        match connection.rows(&self.0).await {
            Ok(rows) => Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned)),
            // Celery makes the table when it has the first result to keep.
            Err(trouble) if trouble.what == What::NoTable => Ok(None),
            Err(trouble) => Err(trouble.into()),
        }
    }
}
