//! One connection to a database, and rows of text over it.
//!
//! Statements go over the simple protocols, without prepared statements, so that they pass through poolers which give each
//! transaction another connection. Every value comes as text, whatever its type.

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Column as _, ColumnIndex, Connection as _, Decode, Error, Executor, Row as _};

use super::engine::Engine;
#[cfg(feature = "_sql-remote")]
use super::server::Line;
#[cfg(feature = "sqlite")]
use super::trouble::contained;
use super::trouble::{Trouble, What};

/// The most rows of an answer.
const MOST_ROWS: usize = 100_000;

/// The most text of an answer, in bytes.
const MOST_TEXT: usize = 8 << 20;

/// A connection, to one of the databases that this build has a driver for.
#[derive(Debug)]
pub enum Connection {
    /// MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    Mysql(sqlx::MySqlConnection, Line),
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgConnection, Line),
    /// SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqliteConnection),
}

/// One row of an answer: names and values, which are text or NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(Vec<(String, Option<String>)>);

impl Row {
    /// As if it came from a database, without names.
    #[cfg(test)]
    pub(crate) fn of(values: &[Option<&str>]) -> Self {
        Self(values.iter().map(|value| (String::new(), value.map(str::to_owned))).collect())
    }

    /// The value of a column, by its place from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.1.as_deref()
    }

    /// The value of the first column that has one of these names.
    pub fn named(&self, names: &[&str]) -> Option<&str> {
        self.0.iter().find(|(name, _)| names.contains(&name.as_str()))?.1.as_deref()
    }

    /// A number, by the column's place from 0.
    pub fn number(&self, index: usize) -> Option<i64> {
        self.get(index)?.parse().ok()
    }
}

impl Connection {
    /// Which database it is one to.
    pub fn engine(&self) -> Engine {
        match self {
            #[cfg(feature = "mysql")]
            Self::Mysql(..) => Engine::Mysql,
            #[cfg(feature = "postgres")]
            Self::Postgres(..) => Engine::Postgres,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// Runs the statements, and returns the rows of all that give any.
    ///
    /// The text is the asker's own: nothing of it may come from elsewhere.
    pub async fn rows(&mut self, statements: &str) -> Result<Vec<Row>, Trouble> {
        match self {
            #[cfg(feature = "mysql")]
            Self::Mysql(connection, line) => line.contained(rows(connection, statements), false).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(connection, line) => line.contained(rows(connection, statements), false).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => contained(rows(connection, statements), false, &[]).await,
        }
    }

    /// The same for what gives one row.
    pub async fn row(&mut self, statements: &str) -> Result<Row, Trouble> {
        let rows = self.rows(statements).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| Trouble::new(What::Nonsense, "no row came where there is always one"))
    }

    /// A file is opened anew each time: another one may have taken its place.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.engine() != Engine::Sqlite
    }

    /// Ends it in order. What goes wrong now has no one to tell.
    pub async fn close(self) {
        let _ = match self {
            #[cfg(feature = "mysql")]
            Self::Mysql(connection, line) => line.ended(connection.close()).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(connection, line) => line.ended(connection.close()).await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => connection.close().await,
        };
    }
}

async fn rows<'c, D, E>(executor: E, statements: &str) -> Result<Vec<Row>, Error>
where
    D: sqlx::Database,
    E: Executor<'c, Database = D>,
    usize: ColumnIndex<D::Row>,
    for<'r> Option<String>: Decode<'r, D>,
{
    let mut found = Vec::new();
    let mut text = 0;
    let mut stream = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).fetch(executor);
    while let Some(row) = stream.try_next().await? {
        let mut values = Vec::with_capacity(row.columns().len());
        for (index, column) in row.columns().iter().enumerate() {
            let value: Option<String> = row.try_get_unchecked(index)?;
            text += column.name().len() + value.as_deref().map_or(0, str::len);
            values.push((column.name().to_owned(), value));
        }
        found.push(Row(values));
        if found.len() > MOST_ROWS || text > MOST_TEXT {
            return Err(Error::Protocol("more came than was asked for".to_owned()));
        }
    }
    Ok(found)
}
