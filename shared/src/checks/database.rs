//! Whether a database answers, and is what its users need it to be.
//!
//! This file has the settings, and what is asked of every database. What is asked of servers alone stands in the files below.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "_sql-remote")]
mod server;

use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::database::{self, Access, Connection, Engine, Place, Question, Trouble, What};
use crate::kind::{self, Contract, Mistake};
use crate::settings::{Span, Url};

#[cfg_attr(feature = "database", doc = " Whether a database answers: PostgreSQL, MySQL, MariaDB or SQLite.")]
#[cfg_attr(not(feature = "database"), doc = " Whether a database answers.")]
///
/// One connection is kept, for 30 s at most. It takes one of the server's, which counts as used.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database's URL.
    #[cfg_attr(
        feature = "postgres",
        doc = " PostgreSQL: `postgresql://USER:PASSWORD@HOST/NAME`; TLS by `sslmode`, `sslrootcert`, `sslcert`, `sslkey`."
    )]
    #[cfg_attr(
        feature = "mysql",
        doc = " MySQL and MariaDB: `mysql://USER:PASSWORD@HOST/NAME`; TLS by `ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key`."
    )]
    #[cfg_attr(feature = "sqlite", doc = " SQLite: `sqlite:///PATH`.")]
    url: Url,
    /// Whether to write as well: to a temporary table, in a transaction that is rolled back.
    #[serde(default)]
    write: bool,
    /// What the server must be.
    role: Option<Role>,
    /// How far the replica may be behind its primary. Needs `role = "replica"`.
    max_lag: Option<Span>,
    /// How many connections must be free, for this user and this database.
    #[schemars(range(min = 1))]
    min_free: Option<u32>,
    /// The same as a share of those that there may be, in percent.
    #[schemars(range(min = 1, max = 100))]
    min_free_percent: Option<u8>,
}

/// What a server is to its fellows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica,
}

impl kind::Settings for Settings {
    const KIND: &'static str = "database";
    const EXAMPLE: &'static str = if cfg!(feature = "postgres") {
        "url = \"postgresql://probe@db.internal/shop?sslmode=verify-full\"\nrole = \"primary\""
    } else if cfg!(feature = "mysql") {
        "url = \"mysql://probe@db.internal/shop?ssl-mode=verify_identity\"\nrole = \"primary\""
    } else {
        "url = \"sqlite:///var/lib/shop/shop.db\"\nwrite = true"
    };
    const CONTRACT: Contract = if cfg!(feature = "postgres") {
        Contract::Peer("url = \"postgresql://probe:S3cret@{peer}/shop?sslmode=disable\"")
    } else if cfg!(feature = "mysql") {
        Contract::Peer("url = \"mysql://probe:S3cret@{peer}/shop?ssl-mode=disabled\"")
    } else {
        Contract::Local
    };
    const MORE_CONTRACTS: &'static [&'static str] = &[
        #[cfg(feature = "postgres")]
        "url = \"postgres://probe:S3cret@{peer}/shop?sslmode=require\"",
        #[cfg(feature = "mysql")]
        "url = \"mysql://probe:S3cret@{peer}/shop?ssl-mode=disabled\"",
        #[cfg(feature = "mysql")]
        "url = \"mysql://probe:S3cret@{peer}/shop?ssl-mode=required\"",
    ];
    type Check = Database;

    fn build(self) -> Result<Database, Vec<Mistake>> {
        let access = if self.write { Access::Write } else { Access::Read };
        let place = Place::new(self.url.expose(), access);
        let mut mistakes = self.mistakes(place.as_ref().ok().map(Place::engine));
        match place {
            Ok(place) if mistakes.is_empty() => {
                Ok(Database { asks: self.asks(), database: database::Database::new(place) })
            }
            Ok(_) => Err(mistakes),
            Err(what) => {
                mistakes.insert(0, Mistake::of("url", what));
                Err(mistakes)
            }
        }
    }
}

impl Settings {
    fn mistakes(&self, engine: Option<Engine>) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let asked = [
            ("role", self.role.is_some()),
            ("max_lag", self.max_lag.is_some()),
            ("min_free", self.min_free.is_some()),
            ("min_free_percent", self.min_free_percent.is_some()),
        ];
        if engine == Some(Engine::Sqlite) {
            let foreign = asked.into_iter().filter(|(_, given)| *given);
            mistakes.extend(foreign.map(|(key, _)| Mistake::of(key, "SQLite is a file: it has none")));
            return mistakes;
        }
        if self.max_lag.is_some() && self.role != Some(Role::Replica) {
            mistakes.push(Mistake::of("max_lag", "only a replica has a lag: it needs role = \"replica\""));
        }
        if self.write && self.role == Some(Role::Replica) {
            mistakes.push(Mistake::of("write", "a replica takes no writes"));
        }
        if self.min_free == Some(0) {
            mistakes.push(Mistake::of("min_free", "1 or more"));
        }
        if self.min_free_percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            mistakes.push(Mistake::of("min_free_percent", "1 to 100"));
        }
        mistakes
    }

    fn asks(&self) -> Asks {
        Asks {
            write: self.write,
            #[cfg(feature = "_sql-remote")]
            of_server: server::Asks {
                role: self.role,
                max_lag: self.max_lag.map(|span| span.0),
                min_free: self.min_free,
                min_free_percent: self.min_free_percent,
            },
        }
    }
}

/// The check.
#[derive(Debug)]
pub struct Database {
    database: database::Database,
    asks: Asks,
}

#[async_trait::async_trait]
impl Check for Database {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        self.database.ask(&self.asks, deadline).await
    }
}

/// What must hold.
#[derive(Debug)]
struct Asks {
    write: bool,
    #[cfg(feature = "_sql-remote")]
    of_server: server::Asks,
}

#[async_trait::async_trait]
impl Question for Asks {
    type Answer = ();

    #[cfg_attr(
        not(feature = "_sql-remote"),
        expect(unused_variables, reason = "a file has no lag to wait for")
    )]
    async fn ask(&self, connection: &mut Connection, deadline: Instant) -> Result<(), Failure> {
        let first = if connection.engine() == Engine::Sqlite {
            // `SELECT 1` would not even open the file.
            connection.row("SELECT 1 + 0 * (SELECT count(*) FROM sqlite_schema)").await?
        } else {
            connection.row("SELECT 1").await?
        };
        if first.get(0) != Some("1") {
            return Err(nonsense());
        }
        #[cfg(feature = "_sql-remote")]
        self.of_server.ask(connection, deadline).await?;
        if self.write { write(connection).await } else { Ok(()) }
    }
}

async fn write(connection: &mut Connection) -> Result<(), Failure> {
    match connection.engine() {
        #[cfg(feature = "mysql")]
        Engine::Mysql => mysql::write(connection).await?,
        #[cfg(feature = "postgres")]
        Engine::Postgres => postgres::write(connection).await?,
        // SQLite. A table of the file itself: a temporary one would be in another file.
        _ => connection
            .rows("BEGIN IMMEDIATE; CREATE TABLE checker_write (probe); INSERT INTO checker_write VALUES (1); ROLLBACK")
            .await
            .map(drop)?,
    }
    Ok(())
}

fn nonsense() -> Failure {
    Trouble::new(What::Nonsense, "something else came than was asked for").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::Settings as _;

    fn mistakes(settings: serde_json::Value) -> Vec<&'static str> {
        let settings: Settings = serde_json::from_value(settings).expect("settings");
        settings
            .build()
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|mistake| mistake.key.unwrap_or(""))
            .collect()
    }

    #[test]
    fn settings_that_make_no_sense_are_all_told_at_once() {
        let url = "postgres://db/shop";
        assert_eq!(mistakes(json!({"url": url, "role": "replica", "max_lag": "10s"})), [""; 0]);
        assert_eq!(
            mistakes(json!({"url": "redis://db", "max_lag": "10s", "min_free": 0})),
            ["url", "max_lag", "min_free"]
        );
        assert_eq!(mistakes(json!({"url": url, "role": "replica", "write": true})), ["write"]);
        assert_eq!(mistakes(json!({"url": url, "min_free_percent": 101})), ["min_free_percent"]);
        assert_eq!(
            mistakes(json!({"url": "sqlite:x", "role": "primary", "min_free": 1})),
            ["role", "min_free"]
        );
    }
}
