//! Whether a database answers, and is what its users need it to be.
//!
//! This file has the settings and what is judged by them. What each server says of itself is asked in the files below.

mod mysql;
mod postgres;

use std::time::{Duration, Instant};

use heartbeat::duration::Human;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::{Check, Failure};
use crate::database::{self, Access, Connection, Engine, Place, Question, Trouble, What};
use crate::kind::{self, Contract, Mistake};
use crate::settings::{Span, Url};

/// Whether a database answers: PostgreSQL, MySQL, MariaDB or SQLite.
///
/// One connection is kept, for 30 s at most. It takes one of the server's, which counts as used.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `postgresql://USER:PASSWORD@HOST/NAME`, `mysql://…` (MariaDB too) or `sqlite:///PATH`. TLS by its parameters: `sslmode`,
    /// `sslrootcert`, `sslcert`, `sslkey`; for MySQL `ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key`.
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
    const EXAMPLE: &'static str =
        "url = \"postgresql://probe@db.internal/shop?sslmode=verify-full\"\nrole = \"primary\"";
    const CONTRACT: Contract =
        Contract::Peer("url = \"postgresql://probe:S3cret@{peer}/shop?sslmode=disable\"");
    const MORE_CONTRACTS: &'static [&'static str] = &[
        "url = \"postgres://probe:S3cret@{peer}/shop?sslmode=require\"",
        "url = \"mysql://probe:S3cret@{peer}/shop?ssl-mode=disabled\"",
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
            role: self.role,
            max_lag: self.max_lag.map(|span| span.0),
            min_free: self.min_free,
            min_free_percent: self.min_free_percent,
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
    role: Option<Role>,
    max_lag: Option<Duration>,
    min_free: Option<u32>,
    min_free_percent: Option<u8>,
}

#[async_trait::async_trait]
impl Question for Asks {
    type Answer = ();

    async fn ask(&self, connection: &mut Connection, deadline: Instant) -> Result<(), Failure> {
        let first = if matches!(connection, Connection::Sqlite(_)) {
            // `SELECT 1` would not even open the file.
            connection.row("SELECT 1 + 0 * (SELECT count(*) FROM sqlite_schema)").await?
        } else {
            connection.row("SELECT 1").await?
        };
        if first.get(0) != Some("1") {
            return Err(nonsense());
        }
        if let Some(role) = self.role {
            let (is, said) = self.role(connection).await?;
            judge_role(role, is)?;
            if let (Some(limit), Some(replication)) = (self.max_lag, said) {
                self.judge_lag(connection, replication, limit, deadline).await?;
            }
        }
        if self.min_free.is_some() || self.min_free_percent.is_some() {
            let slots = match connection {
                Connection::Postgres(..) => postgres::slots(connection).await?,
                _ => mysql::slots(connection).await?,
            };
            slots.into_iter().try_for_each(|slots| self.judge_slots(slots))?;
        }
        if self.write { self.write(connection).await } else { Ok(()) }
    }
}

impl Asks {
    /// Which one it is, and for a replica how it stands, where that is asked for.
    async fn role(&self, connection: &mut Connection) -> Result<(Role, Option<Replication>), Failure> {
        match connection {
            Connection::Postgres(..) => postgres::role(connection).await,
            _ => mysql::role(connection, self.role).await,
        }
    }

    /// A lag beyond the limit is looked at again while there is time: to a replica of a primary that wrote nothing for an hour,
    /// the first new transaction seems an hour late until it is replayed.
    async fn judge_lag(
        &self,
        connection: &mut Connection,
        mut now: Replication,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let first = now;
        let patience = (deadline.saturating_duration_since(Instant::now()) / 2).min(limit).min(LOOKS);
        let patience = Instant::now() + patience;
        loop {
            let Replication::Behind(lag, _) = now else {
                return Err(Failure::failed("replication is stopped"));
            };
            if lag.is_some_and(|lag| lag <= limit) || now.has_reached(first) {
                return Ok(());
            }
            if Instant::now() >= patience || !matches!(connection, Connection::Postgres(..)) {
                let Some(lag) = lag else {
                    return Err(Failure::unknown("nobody knows how far the replica is behind"));
                };
                let (lag, limit) = (human(lag), human(limit));
                return Err(Failure::failed(format!(
                    "the replica is {lag} behind, where {limit} is allowed"
                )));
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            now = self.role(connection).await?.1.unwrap_or(Replication::Stopped);
        }
    }

    fn judge_slots(&self, Slots { free, most }: Slots) -> Result<(), Failure> {
        let free = free.max(0);
        if let Some(min) = self.min_free
            && free < i64::from(min)
        {
            return Err(Failure::failed(format!("{free} connections are free, where {min} are needed")));
        }
        if let Some(percent) = self.min_free_percent
            && free.saturating_mul(100) < most.saturating_mul(i64::from(percent))
        {
            let reason = format!("{free} of {most} connections are free, where {percent} % are needed");
            return Err(Failure::failed(reason));
        }
        Ok(())
    }

    async fn write(&self, connection: &mut Connection) -> Result<(), Failure> {
        match connection {
            Connection::Postgres(..) => postgres::write(connection).await?,
            Connection::Mysql(..) => mysql::write(connection).await?,
            // A table of the file itself: a temporary one would be in another file.
            Connection::Sqlite(_) => connection
                .rows("BEGIN IMMEDIATE; CREATE TABLE checker_write (probe); INSERT INTO checker_write VALUES (1); ROLLBACK")
                .await
                .map(drop)?,
        }
        Ok(())
    }
}

/// For how long a lag is looked at, at most.
const LOOKS: Duration = Duration::from_secs(2);

/// How long between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How a replica stands to its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replication {
    /// It receives or replays nothing.
    Stopped,
    /// By so much, where it says that; with how far it has received and how far it has replayed, where it says that.
    Behind(Option<Duration>, Option<(i128, i128)>),
}

impl Replication {
    /// Whether it has replayed by now what it had received `then`.
    fn has_reached(self, then: Self) -> bool {
        match (self, then) {
            (Self::Behind(_, Some((_, replayed))), Self::Behind(_, Some((received, _)))) => {
                replayed >= received
            }
            _ => false,
        }
    }
}

/// Connections, by one of the limits that there are to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slots {
    free: i64,
    most: i64,
}

fn judge_role(wanted: Role, is: Role) -> Result<(), Failure> {
    match (wanted, is) {
        (Role::Primary, Role::Replica) => Err(Failure::failed("it is a replica, not the primary")),
        (Role::Replica, Role::Primary) => Err(Failure::failed("it is the primary, not a replica")),
        _ => Ok(()),
    }
}

fn human(span: Duration) -> Human {
    Human(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
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

    #[test]
    fn connections_are_judged_by_number_and_by_share() {
        let asks = |min_free, min_free_percent| Asks {
            write: false,
            role: None,
            max_lag: None,
            min_free,
            min_free_percent,
        };
        let judge = |asks: Asks, free, most| {
            asks.judge_slots(Slots { free, most }).map_err(|failure| failure.to_string())
        };
        assert_eq!(judge(asks(Some(3), None), 3, 97), Ok(()));
        assert_eq!(
            judge(asks(Some(3), None), 2, 97),
            Err("2 connections are free, where 3 are needed".to_owned())
        );
        assert_eq!(judge(asks(None, Some(10)), 10, 100), Ok(()));
        assert_eq!(
            judge(asks(None, Some(10)), 9, 97),
            Err("9 of 97 connections are free, where 10 % are needed".to_owned())
        );
        assert_eq!(
            judge(asks(Some(1), None), -2, 97),
            Err("0 connections are free, where 1 are needed".to_owned())
        );
    }

    #[test]
    fn a_replica_has_caught_up_once_it_replayed_what_it_had_received_at_the_first_look() {
        let at = |received, replayed| {
            Replication::Behind(Some(Duration::from_hours(1)), Some((received, replayed)))
        };
        assert!(at(900, 500).has_reached(at(500, 100)));
        assert!(!at(900, 499).has_reached(at(500, 100)));
        assert!(!Replication::Stopped.has_reached(at(500, 100)));
    }
}
