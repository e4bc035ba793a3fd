//! A Django cache in a table of a database (`django.core.cache.backends.db.DatabaseCache`), read for Django-Q2's stats.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, Row as _};
use tokio::runtime::{Builder, Runtime};

use super::{Look, MOST_LISTED, Untold, no_list, unpickled};
use crate::database::{self, Trouble};
use crate::django::{CacheKeys, Table};
use crate::django_q::stat::MOST_BYTES;

/// The most that is read of a stat: here it is a pickle in base64, a third longer than the stat.
const MOST_STORED: usize = 2 * MOST_BYTES;

impl From<Trouble> for Untold {
    fn from(trouble: Trouble) -> Self {
        let reason = format!("the database: {}", trouble.what.reason());
        Self { reason, detail: Some(trouble.to_string()) }
    }
}

/// A table of a Django cache. Its client is asynchronous, so there is a runtime, on the thread that asks.
#[derive(Debug)]
pub struct TableStore {
    runtime: Option<Runtime>,
    url: database::Place,
    table: Table,
    keys: CacheKeys,
    connection: Option<database::Connection>,
}

impl Drop for TableStore {
    fn drop(&mut self) {
        // A look-up of a name may hang in it, and nobody waits for that any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl TableStore {
    pub(super) fn new(url: &database::Place, table: &Table, keys: CacheKeys) -> Result<Self, Untold> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Untold::new(format!("no runtime for the database: {error}")))?;
        let (url, table) = (url.clone(), table.clone());
        Ok(Self { runtime: Some(runtime), url, table, keys, connection: None })
    }

    pub(super) fn list(&mut self, list_key: &str, until: Instant) -> Result<Option<Vec<u8>>, Untold> {
        let key = self.keys.key(list_key);
        let (_, rows) = self.select(std::slice::from_ref(&key), MOST_LISTED, until)?;
        let listed = rows.into_iter().next().map(|(_, value)| decoded(&value).ok_or_else(no_list));
        listed.transpose()
    }

    pub(super) fn read(
        &mut self,
        keys: impl Iterator<Item = String>,
        until: Instant,
    ) -> Result<Look, Untold> {
        let keys: Vec<_> = keys.map(|key| self.keys.key(&key)).collect();
        let (now_unix_ms, mut rows) = self.select(&keys, MOST_STORED, until)?;
        let values = keys.iter().map(|key| {
            let at = rows.iter().position(|(found, _)| found == key)?;
            let (_, value) = rows.swap_remove(at);
            // What is no base64 is no stat either: its signature will be wrong.
            Some(decoded(&value).map_or(value.into_bytes(), |pickled| unpickled(&pickled)))
        });
        Ok(Look { now_unix_ms, values: values.collect() })
    }

    /// The rows of these keys, no more than `most` of each, and the server's clock, over the connection that stands; where
    /// that turns out to be dead, over a new one.
    fn select(
        &mut self,
        keys: &[String],
        most: usize,
        until: Instant,
    ) -> Result<(u64, Vec<(String, String)>), Untold> {
        let now = Instant::now();
        if self.connection.is_some() {
            // One that does not answer leaves time for a new one.
            let share = now + until.saturating_duration_since(now) / 3;
            if let Ok(told) = self.select_once(keys, most, share) {
                return Ok(told);
            }
        }
        self.select_once(keys, most, until)
    }

    fn select_once(
        &mut self,
        keys: &[String],
        most: usize,
        until: Instant,
    ) -> Result<(u64, Vec<(String, String)>), Untold> {
        let Some(runtime) = &self.runtime else { return Err(Untold::new("the database is closed")) };
        let left = until.saturating_duration_since(Instant::now());
        let (url, table, kept) = (&self.url, &self.table, &mut self.connection);
        let asked = async {
            let connection = match kept {
                Some(connection) => connection,
                None => kept.insert(url.connect(until).await?),
            };
            match connection {
                #[cfg(feature = "postgres")]
                database::Connection::Postgres(connection, line) => {
                    line.contained(postgres(connection, table, keys, most), false).await
                }
                #[cfg(feature = "mysql")]
                database::Connection::Mysql(connection, line) => {
                    line.contained(mysql(connection, table, keys, most), false).await
                }
                #[cfg(feature = "sqlite")]
                database::Connection::Sqlite(connection) => {
                    database::contained(sqlite(connection, table, keys, most), false, &[]).await
                }
            }
        };
        let told = runtime.block_on(async { tokio::time::timeout(left, asked).await });
        match told {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(trouble)) => {
                self.connection = None;
                Err(trouble.into())
            }
            Err(_) => {
                self.connection = None;
                Err(Untold::new("the database did not answer in time"))
            }
        }
    }
}

type Told = sqlx::Result<(u64, Vec<(String, String)>)>;

#[cfg(feature = "postgres")]
async fn postgres(connection: &mut sqlx::PgConnection, table: &Table, keys: &[String], most: usize) -> Told {
    let marks: Vec<_> = (1..=keys.len()).map(|at| format!("${at}")).collect();
    let statement = statement(&format!("\"{table}\""), &marks.join(", "), most);
    let now = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
    let now: i64 = connection.fetch_one(now).await?.try_get(0)?;
    let rows = bound(sqlx::query(AssertSqlSafe(statement)), keys).fetch_all(connection).await?;
    let rows = rows.iter().map(|row| Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?)));
    Ok((now.unsigned_abs(), rows.collect::<sqlx::Result<_>>()?))
}

#[cfg(feature = "mysql")]
async fn mysql(connection: &mut sqlx::MySqlConnection, table: &Table, keys: &[String], most: usize) -> Told {
    let statement = statement(&format!("`{table}`"), &vec!["?"; keys.len()].join(", "), most);
    let now = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";
    let now: i64 = connection.fetch_one(now).await?.try_get(0)?;
    let rows = bound(sqlx::query(AssertSqlSafe(statement)), keys).fetch_all(connection).await?;
    let rows = rows.iter().map(|row| Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?)));
    Ok((now.unsigned_abs(), rows.collect::<sqlx::Result<_>>()?))
}

/// SQLite has no clock but this machine's.
#[cfg(feature = "sqlite")]
async fn sqlite(
    connection: &mut sqlx::SqliteConnection,
    table: &Table,
    keys: &[String],
    most: usize,
) -> Told {
    let statement = statement(&format!("\"{table}\""), &vec!["?"; keys.len()].join(", "), most);
    let rows = bound(sqlx::query(AssertSqlSafe(statement)), keys).fetch_all(connection).await?;
    let rows = rows.iter().map(|row| Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?)));
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok((u64::try_from(now).unwrap_or(u64::MAX), rows.collect::<sqlx::Result<_>>()?))
}

/// Not by `expires`: that is the clock of the host that wrote, in whole seconds, in a time zone that depends on Django's
/// settings. The stat itself tells when it was signed.
fn statement(table: &str, marks: &str, most: usize) -> String {
    format!("SELECT cache_key, substr(value, 1, {most}) FROM {table} WHERE cache_key IN ({marks})")
}

fn bound<'q, DB>(query: Query<'q, DB, DB::Arguments>, keys: &'q [String]) -> Query<'q, DB, DB::Arguments>
where
    DB: sqlx::Database + sqlx::database::HasStatementCache,
    &'q str: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
{
    keys.iter().fold(query.persistent(false), |query, key| query.bind(key.as_str()))
}

fn decoded(value: &str) -> Option<Vec<u8>> {
    let packed: String = value.split_ascii_whitespace().collect();
    STANDARD.decode(packed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "sqlite")]
    use crate::database::Access;
    #[cfg(feature = "sqlite")]
    use crate::django_q::stat::Uuid;
    #[cfg(feature = "sqlite")]
    use crate::django_q::store::{Place, Store};

    #[test]
    fn what_is_stored_is_base64_with_or_without_line_ends() {
        let pickled = b"\x80\x05\x8c\x02ab\x94.".to_vec();
        assert_eq!((decoded("gAWM\nAmFilC4="), decoded("!")), (Some(pickled), None));
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn of_a_row_that_is_far_too_large_only_a_part_is_read() {
        const ID: &str = "12345678-1234-5678-1234-567812345678";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cache.db");
        let key = format!(":1:django_q:shop:cluster:{ID}");
        let made = std::process::Command::new("sqlite3")
            .arg(&file)
            .arg(format!(
                "CREATE TABLE cache (cache_key, value); \
                 INSERT INTO cache VALUES ('{key}', CAST(hex(zeroblob(4000000)) AS TEXT));"
            ))
            .status();
        assert!(made.unwrap().success());
        let url = database::Place::parse(&format!("sqlite://{}", file.display()), Access::Read).unwrap();
        let table = Table::parse("cache").unwrap();
        let mut store = Store::new(&Place::TableCache { url, table, keys: CacheKeys::default() }).unwrap();
        let mut sizes = Vec::new();
        let until = Instant::now() + std::time::Duration::from_secs(10);
        store
            .look("shop", &[Uuid::parse(ID).unwrap()], until, &mut |_, value| sizes.push(value.len()))
            .unwrap();
        // "00…" is base64, three bytes of four.
        assert_eq!(sizes, [MOST_STORED / 4 * 3]);
    }
}
