//! Whether a database has seen all migrations that a service's files have, asked of the table that the tool keeps; without the
//! tool, and without the language that it is written in.
//!
//! This file has the settings, the question, and the words for what was found. What each tool's files and tables mean stands in
//! the files below.

mod alembic;
mod django;
mod files;
mod python;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;

use self::files::{Files, Trouble};
use crate::check::{Check, Failure};
use crate::kind::{self, Contract, Mistake};
use crate::settings::Url;
use crate::sql::{self, Access, Connection, Engine, Place, Question, Row, What};

/// How many names go into the log.
const MOST_NAMED: usize = 20;

/// Whether a database has seen all migrations that there are.
///
/// The files are read at every question, so they must be where the check runs; else `expected` names a list made of them
/// where they are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database, as for the kind `database`. Least right: to read the tool's table.
    url: Url,
    /// What applies the migrations.
    tool: Tool,
    /// Folders with migration files. `*` stands for any part of a name: `/srv/shop/*/migrations`. For Django, an app's label is
    /// the name of the folder above.
    #[serde(default)]
    folders: Vec<String>,
    /// For Django: apps by label, each with the folder of its migrations. It counts before `folders`.
    #[serde(default)]
    apps: BTreeMap<String, PathBuf>,
    /// A list made of the files where they are, instead of the files: one name or version a line, `#` for remarks. For Django
    /// `app.name`, followed by those that it replaces; for Alembic the heads.
    expected: Option<PathBuf>,
    /// The table, where it is not the tool's own: `NAME` or `SCHEMA.NAME`.
    table: Option<String>,
    /// What it counts for that the table has migrations that the files do not: a newer version was here.
    #[serde(default)]
    unknown: Unknown,
}

/// What applies migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Tool {
    /// Django's `migrate`.
    Django,
    /// sqlx.
    Sqlx,
    /// Diesel.
    Diesel,
    /// refinery.
    Refinery,
    /// Alembic.
    Alembic,
    /// Flyway.
    Flyway,
}

/// What unknown migrations count for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    /// Nothing.
    #[default]
    Ignore,
    /// A warning.
    Warn,
    /// A failure.
    Fail,
}

impl kind::Settings for Settings {
    const KIND: &'static str = "migrations";
    const EXAMPLE: &'static str = "url = \"postgresql://probe@db.internal/shop\"\ntool = \"django\"\n\
        folders = [\"/srv/shop/*/migrations\"]";
    const CONTRACT: Contract = Contract::Peer(
        "url = \"postgresql://probe:S3cret@{peer}/shop?sslmode=disable\"\ntool = \"sqlx\"\nfolders = [\"migrations\"]",
    );
    type Check = Migrations;

    fn build(self) -> Result<Migrations, Vec<Mistake>> {
        let place = Place::new(self.url.expose(), Access::Read);
        let mut mistakes = self.mistakes();
        match place {
            Ok(place) if mistakes.is_empty() => {
                let table = Table { sql: self.statement(place.engine()) };
                let what = Arc::new(Mutex::new(self));
                Ok(Migrations { database: sql::Database::new(place), table, what })
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
    fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let files = !self.folders.is_empty() || !self.apps.is_empty();
        if files == self.expected.is_some() {
            mistakes.push(Mistake::together(
                "it needs either the files (`folders`, `apps`) or the list of them (`expected`)",
            ));
        }
        if !self.apps.is_empty() && self.tool != Tool::Django {
            mistakes.push(Mistake::of("apps", "only Django has apps"));
        }
        let identifier = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part.chars().all(|char| char.is_alphanumeric() || char == '_' || char == '$')
        };
        let named = |table: &String| table.split('.').count() <= 2 && table.split('.').all(identifier);
        if !self.table.as_ref().is_none_or(named) {
            mistakes.push(Mistake::of("table", "a table is NAME or SCHEMA.NAME, of letters, digits and `_`"));
        }
        mistakes
    }

    fn statement(&self, engine: Engine) -> String {
        let quote = if engine == Engine::Mysql { '`' } else { '"' };
        let table = self.table.as_deref().unwrap_or(match self.tool {
            Tool::Django => "django_migrations",
            Tool::Sqlx => "_sqlx_migrations",
            Tool::Diesel => "__diesel_schema_migrations",
            Tool::Refinery => "refinery_schema_history",
            Tool::Alembic => "alembic_version",
            Tool::Flyway => "flyway_schema_history",
        });
        let parts: Vec<String> = table.split('.').map(|part| format!("{quote}{part}{quote}")).collect();
        let table = parts.join(".");
        let hex = if engine == Engine::Postgres { "encode(checksum, 'hex')" } else { "lower(hex(checksum))" };
        match self.tool {
            Tool::Django => format!("SELECT app, name FROM {table}"),
            Tool::Sqlx => format!("SELECT version, success, {hex} FROM {table}"),
            Tool::Diesel | Tool::Refinery => format!("SELECT version FROM {table}"),
            Tool::Alembic => format!("SELECT version_num FROM {table}"),
            Tool::Flyway => format!(
                "SELECT {quote}version{quote}, {quote}type{quote}, {quote}script{quote}, {quote}checksum{quote}, \
                 {quote}success{quote} FROM {table} ORDER BY {quote}installed_rank{quote}"
            ),
        }
    }
}

/// The check.
#[derive(Debug)]
pub struct Migrations {
    database: sql::Database,
    table: Table,
    /// Held while files are read: a file system that does not answer holds one reader, not one a question.
    what: Arc<Mutex<Settings>>,
}

#[async_trait::async_trait]
impl Check for Migrations {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let rows = self.database.ask(&self.table, deadline).await?;
        let Ok(settings) = Arc::clone(&self.what).try_lock_owned() else {
            return Err(Failure::unknown("the migration files are still being read"));
        };
        let judged = tokio::task::spawn_blocking(move || settings.judge(&rows, deadline)).await;
        judged.map_err(|error| Failure::unknown("the migration files could not be read").because(error))?
    }
}

/// The question for the table's rows.
#[derive(Debug)]
struct Table {
    sql: String,
}

#[async_trait::async_trait]
impl Question for Table {
    type Answer = Vec<Row>;

    async fn ask(&self, connection: &mut Connection, _: Instant) -> Result<Vec<Row>, Failure> {
        match connection.rows(&self.sql).await {
            // Nothing was ever applied.
            Err(trouble) if trouble.what == What::NoTable => Ok(Vec::new()),
            rows => Ok(rows?),
        }
    }
}

/// What is wrong, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Finding {
    /// Not applied.
    pending: Vec<String>,
    /// Begun, and not ended well.
    failed: Vec<String>,
    /// Applied, with another content than the file has now.
    changed: Vec<String>,
    /// Applied, and no file's.
    unknown: Vec<String>,
}

impl Settings {
    fn judge(&self, rows: &[Row], deadline: Instant) -> Result<(), Failure> {
        let mut files = Files::new(deadline);
        let finding = match self.tool {
            Tool::Django => self.judge_django(&mut files, rows),
            Tool::Alembic => self.judge_alembic(&mut files, rows),
            tool => self.versions(&mut files).map(|known| {
                some(&known)?;
                Ok(if tool == Tool::Flyway {
                    versions::judge_flyway(&known, rows)
                } else {
                    versions::judge(&known, rows)
                })
            }),
        };
        let finding = finding.map_err(|trouble| {
            let reason = match trouble {
                Trouble::Unreadable(_) => "a migration file cannot be understood",
                _ => "the migration files could not be read",
            };
            Failure::unknown(reason).because(trouble)
        })??;
        self.tell(&finding)
    }

    fn judge_django(&self, files: &mut Files, rows: &[Row]) -> Result<Result<Finding, Failure>, Trouble> {
        let mut known = django::Known::new();
        for (label, folder) in &self.apps {
            django::read(files, label, folder, &mut known)?;
        }
        for folder in self.found(files)? {
            let label = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let label = label.ok_or_else(|| Trouble::Unreadable(folder.clone()))?;
            if !self.apps.contains_key(label) && !self.apps.values().any(|given| *given == folder) {
                django::read(files, label, &folder, &mut known)?;
            }
        }
        for line in self.expected(files)? {
            let mut names = line.split_whitespace().map(str::to_owned);
            known.extend(names.next().map(|name| (name, names.collect())));
        }
        Ok(some(&known).map(|()| {
            let pair = |row: &Row| Some(format!("{}.{}", row.get(0)?, row.get(1)?));
            let applied: BTreeSet<String> = rows.iter().filter_map(pair).collect();
            let replaced: BTreeSet<&String> = known.values().flatten().collect();
            let unknown =
                applied.iter().filter(|name| !known.contains_key(*name) && !replaced.contains(name));
            Finding {
                unknown: unknown.cloned().collect(),
                pending: django::pending(&known, &applied),
                ..Finding::default()
            }
        }))
    }

    fn judge_alembic(&self, files: &mut Files, rows: &[Row]) -> Result<Result<Finding, Failure>, Trouble> {
        let mut known = alembic::Known::new();
        for folder in self.found(files)? {
            alembic::read(files, &folder, &mut known)?;
        }
        let listed = self.expected(files)?;
        known.extend(
            listed.iter().filter_map(|line| Some((line.split_whitespace().next()?.to_owned(), Vec::new()))),
        );
        let at: BTreeSet<String> = rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect();
        let unknown: Vec<String> =
            at.iter().filter(|revision| !known.contains_key(*revision)).cloned().collect();
        if let Err(none) = some(&known) {
            return Ok(Err(none));
        }
        // A list has nothing but the heads.
        let pending = if self.expected.is_some() {
            Some(known.into_keys().filter(|head| !at.contains(head)).collect())
        } else {
            alembic::pending(&known, &at)
        };
        Ok(match pending {
            Some(pending) => Ok(Finding { pending, unknown, ..Finding::default() }),
            None => {
                Err(Failure::unknown("the database is at a revision that no file has")
                    .because(named(&unknown)))
            }
        })
    }

    fn versions(&self, files: &mut Files) -> Result<versions::Known, Trouble> {
        let mut known = versions::Known::new();
        for folder in self.found(files)? {
            versions::read(files, self.tool, &folder, &mut known)?;
        }
        for line in self.expected(files)? {
            known.extend(line.split_whitespace().next().map(|version| (version.to_owned(), None)));
        }
        Ok(known)
    }

    fn found(&self, files: &mut Files) -> Result<Vec<PathBuf>, Trouble> {
        let mut found = Vec::new();
        for pattern in &self.folders {
            found.extend(files.folders(pattern)?);
        }
        Ok(found)
    }

    fn expected(&self, files: &Files) -> Result<Vec<String>, Trouble> {
        let Some(path) = &self.expected else { return Ok(Vec::new()) };
        let text = files.text(path)?;
        Ok(text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect())
    }

    fn tell(&self, finding: &Finding) -> Result<(), Failure> {
        let count = |names: &[String], one: &str, many: &str| {
            let what = if names.len() == 1 { one } else { many };
            format!("{} {what}", names.len())
        };
        let Finding { pending, failed, changed, unknown } = finding;
        let failure = if !failed.is_empty() {
            Failure::failed(count(failed, "migration has failed", "migrations have failed"))
                .because(named(failed))
        } else if !pending.is_empty() {
            Failure::failed(count(pending, "migration is not applied", "migrations are not applied"))
                .because(named(pending))
        } else if !changed.is_empty() {
            let reason = count(
                changed,
                "migration has changed since it was applied",
                "migrations have changed since they were applied",
            );
            Failure::failed(reason).because(named(changed))
        } else if !unknown.is_empty() && self.unknown != Unknown::Ignore {
            let reason =
                count(unknown, "applied migration is unknown here", "applied migrations are unknown here");
            let failure = if self.unknown == Unknown::Warn {
                Failure::warning(reason)
            } else {
                Failure::failed(reason)
            };
            failure.because(named(unknown))
        } else {
            return Ok(());
        };
        Err(failure)
    }
}

/// A list of nothing would pass whatever the table says.
fn some<T>(known: &BTreeMap<String, T>) -> Result<(), Failure> {
    if known.is_empty() { Err(Failure::unknown("no migration files are found")) } else { Ok(()) }
}

/// Names for the log, on one line.
fn named(names: &[String]) -> String {
    let mut told: Vec<String> =
        names.iter().take(MOST_NAMED).map(|name| name.escape_debug().to_string()).collect();
    if names.len() > MOST_NAMED {
        told.push(format!("and {} more", names.len() - MOST_NAMED));
    }
    told.join(", ")
}
