//! A cache that is a table of a database, as Django's `DatabaseCache` keeps it.
//!
//! All is done in one transaction, which is committed once the value is gone again, and else rolled back: the value is as
//! Django would write it, nobody else ever sees it, and whatever fails in between leaves nothing behind.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Entry, Expiry, Found, Read};
use crate::check::Failure;
use crate::database::{Access, Connection, Database, Engine, Place, Question, Row, Trouble, What};
use crate::django::{CacheKeys, Table};
use crate::kind::Mistake;

/// The longest key that fits into the table's column.
const LONGEST_KEY: usize = 255;

/// How long what follows a prefix is.
const RANDOM: usize = 32;

/// A table, and the connection to its database that is kept.
#[derive(Debug)]
pub struct Django {
    database: Database,
    table: Table,
    keys: CacheKeys,
}

impl Django {
    /// By the URL of its database, and the settings that the cache has in Django.
    pub fn new(url: &str, table: &str, keys: CacheKeys, prefix: &str) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let place = url::Url::parse(url).map_err(|_| "it is no URL".to_owned());
        let place = place.and_then(|url| Place::new(&url, Access::Write));
        let table = Table::parse(table);
        if let Err(why) = &place {
            mistakes.push(Mistake::of("url", format!("the URL cannot be used: {why}")));
        }
        if table.is_none() {
            mistakes.push(Mistake::of("table", "it is no name of a table"));
        }
        let quotable = |text: &str| text.chars().all(|char| !char.is_control() && !"'\\".contains(char));
        if !quotable(&keys.prefix) {
            mistakes.push(Mistake::of("key_prefix", "there is a quotation mark or a backslash in it"));
        } else if keys.key(prefix).chars().count() + RANDOM > LONGEST_KEY {
            mistakes.push(Mistake::of("key_prefix", "with it, keys have more than 255 characters"));
        }
        if !quotable(prefix) {
            mistakes.push(Mistake::of("prefix", "there is a quotation mark or a backslash in it"));
        }
        match (place, table) {
            (Ok(place), Some(table)) if mistakes.is_empty() => {
                Ok(Self { database: Database::new(place), table, keys })
            }
            _ => Err(mistakes),
        }
    }

    /// Sets, reads, looks for the expiry, deletes, and reads once more.
    pub async fn ask(&self, prefix: &str, expire: Duration, deadline: Instant) -> Result<Found, Failure> {
        self.database.ask(&Asked { django: self, prefix, expire }, deadline).await
    }

    /// What is to be run. Nothing in it needs to be escaped: random digits, and settings that were looked at.
    fn statements(&self, entry: &Entry, stored: &str) -> String {
        let seconds = entry.expire.as_secs();
        let (table, begin, expires, left, deleted) = match self.database.place().engine() {
            Engine::Postgres => (
                format!("\"{}\"", self.table),
                "BEGIN",
                format!("date_trunc('second', now()) + INTERVAL '{seconds} seconds'"),
                "floor(EXTRACT(EPOCH FROM expires - now()))",
                None,
            ),
            Engine::Mysql => (
                format!("`{}`", self.table),
                "START TRANSACTION",
                format!("UTC_TIMESTAMP() + INTERVAL {seconds} SECOND"),
                "TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), expires)",
                Some("SELECT 'deleted', ROW_COUNT()"),
            ),
            Engine::Sqlite => (
                format!("\"{}\"", self.table),
                "BEGIN IMMEDIATE",
                format!("datetime('now', '+{seconds} seconds')"),
                "CAST(strftime('%s', expires) AS INTEGER) - CAST(strftime('%s', 'now') AS INTEGER)",
                Some("SELECT 'deleted', changes()"),
            ),
        };
        let at = format!("FROM {table} WHERE cache_key = '{}'", self.keys.key(&entry.key));
        let delete = match deleted {
            Some(deleted) => format!("DELETE {at}; {deleted}"),
            None => format!("WITH gone AS (DELETE {at} RETURNING 1) SELECT 'deleted', count(*) FROM gone"),
        };
        format!(
            "{begin}; INSERT INTO {table} (cache_key, value, expires) VALUES ('{}', '{stored}', {expires}); \
             SELECT 'read', value, {left} {at}; {delete}; SELECT 'after', value {at}",
            self.keys.key(&entry.key)
        )
    }
}

/// What is asked, with a key of its own each time: one that an earlier question had may be locked for a while.
struct Asked<'a> {
    django: &'a Django,
    prefix: &'a str,
    expire: Duration,
}

#[async_trait::async_trait]
impl Question for Asked<'_> {
    type Answer = Found;

    async fn ask(&self, connection: &mut Connection, _: Instant) -> Result<Found, Failure> {
        let entry = Entry::new(self.prefix, self.expire)?;
        let stored = STANDARD.encode(pickled(&entry.value));
        let rows = connection.rows(&self.django.statements(&entry, &stored)).await?;
        let found = found(&rows, &stored, self.expire.as_secs()).ok_or_else(|| {
            Failure::from(Trouble::new(What::Nonsense, "something else came than was asked for"))
        })?;
        let is_gone = found.deleted && found.after == Read::Nothing;
        connection.rows(if is_gone { "COMMIT" } else { "ROLLBACK" }).await?;
        Ok(found)
    }
}

/// A text as Python's pickle writes it with its protocol 5, which is what Django uses. It is shorter than 252 bytes.
fn pickled(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![0x80, 5, 0x95, length + 4, 0, 0, 0, 0, 0, 0, 0, 0x8c, length];
    bytes.extend(text.bytes());
    bytes.extend([0x94, b'.']);
    bytes
}

/// `None` for what no database answers.
fn found(rows: &[Row], stored: &str, seconds: u64) -> Option<Found> {
    let row = |name| rows.iter().find(|row| row.get(0) == Some(name));
    let read = |row: Option<&Row>| match row.map(|row| row.get(1)) {
        None => Read::Nothing,
        Some(Some(value)) if value == stored => Read::Same,
        Some(_) => Read::Other,
    };
    let expiry = match row("read") {
        None => Expiry::Gone,
        Some(row) => match row.get(2).map(str::parse::<i64>) {
            None => Expiry::Never,
            Some(Ok(left)) => match u64::try_from(left) {
                Err(_) => Expiry::Gone,
                Ok(left) if left <= seconds => Expiry::Set,
                Ok(_) => Expiry::Late,
            },
            Some(Err(_)) => return None,
        },
    };
    let deleted = row("deleted")?.number(1)? == 1;
    Some(Found { read: read(row("read")), expiry, deleted, after: read(row("after")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_pickled_as_python_does() {
        let python = b"\x80\x05\x95\x06\x00\x00\x00\x00\x00\x00\x00\x8c\x02ab\x94.";
        assert_eq!(pickled("ab"), python);
    }

    #[test]
    fn what_cannot_stand_in_a_statement_is_a_mistake() {
        let keys = |prefix: &str| CacheKeys { prefix: prefix.to_owned(), version: 1 };
        let mistakes = |url, table, key_prefix: &str, prefix| {
            let made = Django::new(url, table, keys(key_prefix), prefix);
            made.err().unwrap_or_default().iter().map(|mistake| mistake.key.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(mistakes("sqlite:///shop.db", "cache", "shop", "checker:"), [""; 0]);
        assert_eq!(mistakes("S3cret", "a\"b", "a'b", "a\\b"), ["url", "table", "key_prefix", "prefix"]);
        assert_eq!(mistakes("postgres://h/shop", "cache", &"a".repeat(213), "checker:"), ["key_prefix"]);
        assert_eq!(mistakes("postgres://h/shop", "cache", &"a".repeat(212), "checker:"), [""; 0]);
    }
}
