//! Whether a database has seen all migrations that a service's files have, asked of the table that the tool keeps; without the
//! tool, and without the language that it is written in.
//!
//! This file has the settings, the question, and the words for what was found. What each tool's files and tables mean stands in
//! the files below.

mod alembic;
mod django;
mod files;
mod flyway;
mod graph;
mod python;
mod versions;

/// How many statements there are in any text that a migration may be; nothing where one is unreadable.
#[cfg(fuzzing)]
pub(crate) fn statements(source: &str) -> Option<usize> {
    python::lines(source).try_fold(0, |number, line| line.is_ok().then_some(number + 1))
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;

use self::files::{Files, Trouble};
use crate::blocking::Blocking;
use crate::check::{Check, Failure};
use crate::database::{self, Access, Connection, Engine, Place, Question, Row, What};
use crate::kind::{self, Contract, Mistake};
use crate::settings::Url;

/// How many names go into the log.
const MOST_NAMED: usize = 20;

/// Whether a database has seen all migrations that there are: Django's, sqlx's, Diesel's, refinery's, Alembic's or Flyway's.
///
/// The files are read at every question, without the tool, so they must be where the check runs; else `expected` names a list
/// that was made of them. No migration at all is never right.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database, as for the kind `database`. Least right: to read the tool's table. Without that table nothing is applied.
    url: Url,
    /// What applies the migrations.
    tool: Tool,
    /// Folders with migration files, each of which must be there. `*` stands for any part of a name: `/srv/shop/*/migrations`.
    /// For Django, an app's label is the name of the folder above.
    #[serde(default)]
    folders: Vec<String>,
    /// For Django: apps by label, each with the folder of its migrations. It counts before `folders`.
    #[serde(default)]
    apps: BTreeMap<String, PathBuf>,
    /// The list of migrations, instead of the files: one a line, `#` for remarks. For Django `app.name`, followed by those that it
    /// replaces; for Alembic a revision, followed by those before it; for the others a file's name or a version.
    expected: Option<PathBuf>,
    /// The table, where it is not the tool's own: `NAME` or `SCHEMA.NAME`.
    table: Option<String>,
    /// What it counts for that the table has migrations that the files have not: a newer version was here. Default: `ignore`; but
    /// with Alembic, whose table does not tell what came before, the check is then unknown.
    unknown: Option<Unknown>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    /// Nothing.
    Ignore,
    /// A warning.
    Warn,
    /// A failure.
    Fail,
}

impl kind::Settings for Settings {
    const KIND: &'static str = "migrations";
    const EXAMPLE: &'static str =
        "url = \"${DATABASE_URL}\"\ntool = \"django\"\nfolders = [\"/srv/shop/*/migrations\"]";
    const CONTRACT: Contract = if cfg!(feature = "postgres") {
        Contract::Peer(
            "url = \"postgresql://probe:S3cret@{peer}/shop?sslmode=disable\"\ntool = \"sqlx\"\nfolders = [\"migrations\"]",
        )
    } else {
        Contract::Local
    };
    const MORE_CONTRACTS: &'static [&'static str] = &[
        #[cfg(feature = "mysql")]
        "url = \"mysql://probe:S3cret@{peer}/shop?ssl-mode=disabled\"\ntool = \"sqlx\"\nfolders = [\"migrations\"]",
    ];
    type Check = Migrations;

    fn build(self) -> Result<Migrations, Vec<Mistake>> {
        let place = Place::new(self.url.expose(), Access::Read);
        let mut mistakes = self.mistakes();
        match place {
            Ok(place) if mistakes.is_empty() => {
                let table = Table { sql: self.statement(place.engine()) };
                Ok(Migrations { database: database::Database::new(place), table, what: Blocking::new(self) })
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
            Tool::Diesel => format!("SELECT version FROM {table}"),
            // What has failed is not in it.
            Tool::Refinery => format!("SELECT version, 1, checksum FROM {table}"),
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
    database: database::Database,
    table: Table,
    what: Blocking<Settings>,
}

#[async_trait::async_trait]
impl Check for Migrations {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let rows = self.database.ask(&self.table, deadline).await?;
        self.what.with(move |settings| settings.judge(rows.as_deref(), deadline)).await?
    }
}

/// The question for the table's rows.
#[derive(Debug)]
struct Table {
    sql: String,
}

#[async_trait::async_trait]
impl Question for Table {
    type Answer = Option<Vec<Row>>;

    async fn ask(&self, connection: &mut Connection, _: Instant) -> Result<Self::Answer, Failure> {
        match connection.rows(&self.sql).await {
            // Nothing was ever applied.
            Err(trouble) if trouble.what == What::NoTable => Ok(None),
            rows => Ok(Some(rows?)),
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
    /// Applied, and after one that is not.
    early: Vec<String>,
    /// The last of their app, which has several.
    rivals: Vec<String>,
    /// Applied, and no file's.
    unknown: Vec<String>,
}

impl Settings {
    /// What the table's rows mean for the files. Without a table there are none.
    fn judge(&self, rows: Option<&[Row]>, deadline: Instant) -> Result<(), Failure> {
        let mut files = Files::new(deadline);
        let finding = match self.tool {
            Tool::Django => self.django(&mut files, rows.unwrap_or_default()),
            Tool::Alembic => self.alembic(&mut files, rows.unwrap_or_default()),
            _ => self.versions(&mut files, rows.unwrap_or_default()),
        };
        let finding = finding.map_err(|trouble| Failure::unknown(trouble.reason()).because(trouble))?;
        self.tell(&finding, if rows.is_none() { "there is no table of migrations: " } else { "" })
    }

    fn django(&self, files: &mut Files, rows: &[Row]) -> Result<Finding, Trouble> {
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
        for mut words in self.listed(files)? {
            let name = words.remove(0);
            known.insert(name, django::Migration { replaces: words, ..django::Migration::default() });
        }
        self.some(&known)?;
        let pair = |row: &Row| Some(format!("{}.{}", row.get(0)?, row.get(1)?));
        django::judge(&known, &rows.iter().filter_map(pair).collect(), self.expected.is_some())
    }

    fn alembic(&self, files: &mut Files, rows: &[Row]) -> Result<Finding, Trouble> {
        let mut known = alembic::Known::default();
        for folder in self.found(files)? {
            alembic::read(files, &folder, &mut known)?;
        }
        for mut words in self.listed(files)? {
            known.revisions.insert(words.remove(0), words);
        }
        self.some(&known.revisions)?;
        alembic::judge(&known, &rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect())
    }

    fn versions(&self, files: &mut Files, rows: &[Row]) -> Result<Finding, Trouble> {
        let mut known = versions::Known::new();
        for folder in self.found(files)? {
            match self.tool {
                Tool::Sqlx => versions::read_sqlx(files, &folder, &mut known)?,
                Tool::Diesel => versions::read_diesel(files, &folder, &mut known)?,
                Tool::Refinery => versions::read_refinery(files, &folder, &mut known)?,
                _ => flyway::read(files, &folder, &mut known)?,
            }
        }
        let listed = self.listed(files)?;
        known.extend(listed.iter().filter_map(|words| Some((self.version(&words[0])?, Vec::new()))));
        self.some(&known)?;
        Ok(if self.tool == Tool::Flyway {
            flyway::judge(&known, rows)
        } else {
            versions::judge(&known, rows)
        })
    }

    /// The version that a list's word is, or that a file of that name has.
    fn version(&self, word: &str) -> Option<String> {
        let number = || Some(word.parse::<i64>().ok()?.to_string());
        match self.tool {
            Tool::Sqlx => versions::sqlx(word).or_else(number),
            Tool::Refinery => {
                versions::refinery(word).map(|(version, _)| version.to_string()).or_else(number)
            }
            Tool::Diesel => versions::diesel(word)
                .filter(|version| version.starts_with(|char: char| char.is_ascii_digit())),
            _ => flyway::migration(word).or_else(|| flyway::normal(word)),
        }
    }

    fn found(&self, files: &mut Files) -> Result<Vec<PathBuf>, Trouble> {
        let mut found = Vec::new();
        for pattern in &self.folders {
            found.extend(files.folders(pattern)?);
        }
        Ok(found)
    }

    /// The words of each line of the list, one at least.
    fn listed(&self, files: &mut Files) -> Result<Vec<Vec<String>>, Trouble> {
        let Some(path) = &self.expected else { return Ok(Vec::new()) };
        let text = files.text(path)?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        Ok(words.filter(|words| !words.is_empty()).collect())
    }

    /// A list of nothing would pass whatever the table says.
    fn some<T>(&self, known: &BTreeMap<String, T>) -> Result<(), Trouble> {
        let first = self.folders.first().map(PathBuf::from);
        let place = self.expected.clone().or(first).or_else(|| self.apps.values().next().cloned());
        if known.is_empty() { Err(Trouble::Nothing(place.unwrap_or_default())) } else { Ok(()) }
    }

    fn tell(&self, finding: &Finding, about: &str) -> Result<(), Failure> {
        let Finding { pending, failed, changed, early, rivals, unknown } = finding;
        let told = |names: &[String], one: &str, many: &str| {
            let what = if names.len() == 1 { one } else { many };
            Failure::failed(format!("{} {what}", names.len())).because(format!("{about}{}", named(names)))
        };
        Err(if !failed.is_empty() {
            told(failed, "migration has failed", "migrations have failed")
        } else if !rivals.is_empty() {
            told(rivals, "migration is the last one of its app", "migrations are the last ones of their app")
        } else if !early.is_empty() {
            told(
                early,
                "migration is applied before one that it depends on",
                "migrations are applied before those that they depend on",
            )
        } else if !pending.is_empty() {
            told(pending, "migration is not applied", "migrations are not applied")
        } else if !changed.is_empty() {
            told(
                changed,
                "migration has changed since it was applied",
                "migrations have changed since they were applied",
            )
        } else if unknown.is_empty() {
            return Ok(());
        } else {
            return self.tell_unknown(unknown);
        })
    }

    fn tell_unknown(&self, unknown: &[String]) -> Result<(), Failure> {
        let is = if unknown.len() == 1 { "migration is" } else { "migrations are" };
        let reason = format!("{} applied {is} unknown here", unknown.len());
        let failure = match self.unknown {
            None if self.tool == Tool::Alembic => {
                Failure::unknown("the database is at a revision that is unknown here")
            }
            None | Some(Unknown::Ignore) => return Ok(()),
            Some(Unknown::Warn) => Failure::warning(reason),
            Some(Unknown::Fail) => Failure::failed(reason),
        };
        Err(failure.because(named(unknown)))
    }
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
