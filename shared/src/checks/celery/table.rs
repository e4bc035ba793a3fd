//! Results in a database: a table with the columns `task_id` and `status`, as Celery and django-celery-results have it.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};

use super::before;
use crate::celery::task::{self, End};
use crate::check::{Failure, chain};
use crate::database::{Access, Connection, Database, Engine, Place, Question, What};
use crate::django;

/// How soon it is looked for a result again.
const PAUSE: Duration = Duration::from_millis(25);

/// Celery's own.
const NAME: &str = "celery_taskmeta";

/// The id of no task: what Celery makes of one has 36 characters.
const NO_TASK: &str = "checker";

#[derive(Debug)]
pub struct Table {
    database: Database,
    /// As it stands in a statement.
    name: String,
}

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
        let database = Database::new(Place::parse(&url(text), Access::Write)?);
        Ok(Self { database, name: NAME.to_owned() })
    }

    /// Gives it another name: `TABLE` or `SCHEMA.TABLE`.
    pub fn called(&mut self, name: &str) -> Result<(), &'static str> {
        if name == NAME {
            return Ok(());
        }
        let parts: Option<Vec<_>> = name.split('.').map(django::Table::parse).collect();
        let parts = parts.filter(|parts| parts.len() <= 2).ok_or("no table is called so")?;
        let quote = if self.place().engine() == Engine::Mysql { '`' } else { '"' };
        let parts: Vec<_> = parts.iter().map(|part| format!("{quote}{part}{quote}")).collect();
        self.name = parts.join(".");
        Ok(())
    }

    pub fn place(&self) -> &Place {
        self.database.place()
    }

    /// Whether a result can be looked for. Celery makes its own table when it has the first one to keep, so that may be missing.
    pub async fn ask(&self, deadline: Instant) -> Result<(), Failure> {
        match self.first(self.look(NO_TASK), deadline).await? {
            Found::NoTable if self.name != NAME => Err(self.no_table()),
            _ => Ok(()),
        }
    }

    pub async fn end(&self, id: &str, last_look: Instant, deadline: Instant) -> Result<Option<End>, Failure> {
        loop {
            let found = self.first(self.look(id), deadline).await?;
            if let Found::Text(status) = &found
                && let Some(end) = task::end_of(status)
            {
                self.first(format!("DELETE FROM {} WHERE task_id = '{id}'", self.name), deadline).await?;
                return Ok(Some(end));
            }
            let now = Instant::now();
            match found {
                Found::NoTable if now >= last_look => return Err(self.no_table()),
                _ if now >= last_look => return Ok(None),
                _ => sleep(PAUSE.min(last_look.saturating_duration_since(now))).await,
            }
        }
    }

    /// The id was made here, and ends no text.
    fn look(&self, id: &str) -> String {
        format!("SELECT status FROM {} WHERE task_id = '{id}'", self.name)
    }

    fn no_table(&self) -> Failure {
        self.failed(What::NoTable.reason(), &self.name)
    }

    async fn first(&self, statement: String, deadline: Instant) -> Result<Found, Failure> {
        let until = before(deadline);
        let told = timeout_at(until.into(), self.database.ask(&Statement(statement), until)).await;
        told.map_err(|_| Failure::failed("the result backend: the database did not answer in time"))?
            .map_err(|failure| self.failed(failure.reason(), &chain(&failure)))
    }

    fn failed(&self, reason: &str, why: &str) -> Failure {
        Failure::failed(format!("the result backend: {reason}")).because(format!("{}: {why}", self.place()))
    }
}

/// What is asked: the text in the first row of the answer, if there is any.
struct Statement(String);

enum Found {
    Text(String),
    Nothing,
    /// Celery makes the table when it has the first result to keep.
    NoTable,
}

#[async_trait::async_trait]
impl Question for Statement {
    type Answer = Found;

    async fn ask(&self, connection: &mut Connection, _: Instant) -> Result<Found, Failure> {
        match connection.rows(&self.0).await {
            Ok(rows) => {
                let text = rows.first().and_then(|row| row.get(0));
                Ok(text.map_or(Found::Nothing, |text| Found::Text(text.to_owned())))
            }
            Err(trouble) if trouble.what == What::NoTable => Ok(Found::NoTable),
            Err(trouble) => Err(trouble.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_another_name_stands_in_quotes_that_it_cannot_end() {
        for (url, name, written) in [
            (
                "postgresql://h/shop",
                "django_celery_results_taskresult",
                "\"django_celery_results_taskresult\"",
            ),
            ("postgresql://h/shop", "Jobs.Task results", "\"Jobs\".\"Task results\""),
            ("mysql://h/shop", "shop.results", "`shop`.`results`"),
            ("sqlite:///results.db", "results", "\"results\""),
        ] {
            let mut table = Table::parse(url).unwrap();
            assert_eq!(table.name, "celery_taskmeta");
            table.called(name).unwrap();
            assert_eq!(table.name, written);
        }
        for name in ["", ".", "a.", "a.b.c", "a\"b", "a`b", "a'b", "a;b"] {
            assert!(Table::parse("postgresql://h/shop").unwrap().called(name).is_err(), "{name}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_backend_passes_where_a_result_can_be_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in [("empty.db", vec![]), ("garbage.db", b"S3cret".repeat(1_000))] {
            std::fs::write(folder.path().join(file), content).unwrap();
        }
        for (file, name, told) in [
            ("empty.db", None, None),
            ("empty.db", Some("celery_taskmeta"), None),
            ("empty.db", Some("nope"), Some("the result backend: a table is missing")),
            // One that SQLite always has.
            ("empty.db", Some("sqlite_master"), Some("the result backend: the query failed")),
            ("garbage.db", None, Some("the result backend: the file is not a database")),
            ("nowhere.db", None, Some("the result backend: the file cannot be opened")),
        ] {
            let mut table = Table::parse(&format!("sqlite:///{}/{file}", folder.path().display())).unwrap();
            if let Some(name) = name {
                table.called(name).unwrap();
            }
            let asked = table.ask(Instant::now() + Duration::from_secs(5)).await;
            assert_eq!(asked.err().as_ref().map(Failure::reason), told, "{file}: {name:?}");
        }
    }
}
