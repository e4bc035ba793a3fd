//! A connection to a database, by its URL: PostgreSQL, MySQL or MariaDB, SQLite.
//!
//! Nothing is asked here but what is the same in all of them. Whoever asks gives every wait its deadline: a future of this
//! module may be dropped at any time, and the connection with it. No text here shows a password.

use std::fmt;
use std::str::FromStr;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, MySqlConnection, PgConnection, SqliteConnection};

/// Where a database is, and how to log in to it.
#[derive(Clone)]
pub struct Url {
    options: Options,
    place: String,
}

#[derive(Clone)]
enum Options {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

/// A connection. It is closed when it is dropped.
#[derive(Debug)]
pub enum Connection {
    /// To PostgreSQL.
    Postgres(PgConnection),
    /// To MySQL or MariaDB.
    MySql(MySqlConnection),
    /// To a SQLite file, which is only read unless told otherwise.
    Sqlite(SqliteConnection),
}

/// What is wrong with a URL. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// No scheme, or none of those that are known.
    Scheme,
    /// What stands behind it is not understood.
    Rest,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => {
                "it begins with none of postgres://, postgresql://, mysql://, mariadb:// and sqlite://"
            }
            Self::Rest => "what stands behind its scheme is not understood",
        })
    }
}

impl std::error::Error for Invalid {}

impl FromStr for Url {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (scheme, rest) = text.split_once("://").ok_or(Invalid::Scheme)?;
        let options = match scheme {
            "postgres" | "postgresql" => {
                // A pooler between here and the server knows nothing of statements that another connection has prepared.
                let options: PgConnectOptions = text.parse().map_err(|_| Invalid::Rest)?;
                Options::Postgres(Box::new(options.statement_cache_capacity(0)))
            }
            "mysql" | "mariadb" => {
                let options: MySqlConnectOptions = text.parse().map_err(|_| Invalid::Rest)?;
                Options::MySql(Box::new(options.statement_cache_capacity(0)))
            }
            "sqlite" => {
                let options: SqliteConnectOptions = text.parse().map_err(|_| Invalid::Rest)?;
                Options::Sqlite(Box::new(options.read_only(true).create_if_missing(false)))
            }
            _ => return Err(Invalid::Scheme),
        };
        Ok(Self { options, place: place(scheme, rest) })
    }
}

/// A URL without user, password and options.
fn place(scheme: &str, rest: &str) -> String {
    let before = rest.split(['?', '#']).next().unwrap_or_default();
    // A password may hold a character that should have been escaped.
    let shown = match before.rsplit_once('@') {
        Some((_, shown)) => shown,
        None if rest.contains('@') => "…",
        None => before,
    };
    format!("{scheme}://{shown}")
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl Url {
    /// The same, for who writes too: it makes a difference to a SQLite file.
    #[must_use]
    pub fn written_to(mut self) -> Self {
        if let Options::Sqlite(options) = self.options {
            self.options = Options::Sqlite(Box::new(options.read_only(false)));
        }
        self
    }

    /// Connects and logs in.
    pub async fn connect(&self) -> sqlx::Result<Connection> {
        Ok(match &self.options {
            Options::Postgres(options) => {
                Connection::Postgres(options.as_ref().clone().disable_statement_logging().connect().await?)
            }
            Options::MySql(options) => {
                Connection::MySql(options.as_ref().clone().disable_statement_logging().connect().await?)
            }
            Options::Sqlite(options) => {
                Connection::Sqlite(options.as_ref().clone().disable_statement_logging().connect().await?)
            }
        })
    }
}

/// What kind of thing went wrong, as a sentence that anybody may read.
pub fn reason(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Configuration(_) => "the database settings cannot be used",
        sqlx::Error::Io(_) => "the database cannot be reached",
        sqlx::Error::Tls(_) => "no TLS with the database",
        sqlx::Error::Database(error) if is_denial(error.code().as_deref()) => "the database denied access",
        sqlx::Error::Database(_) => "the database answered with an error",
        _ => "the database gave no proper answer",
    }
}

/// By SQLSTATE: class 28, and PostgreSQL's for a right that is missing. `MySQL` says 42000 for that.
fn is_denial(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("28") || matches!(code, "42501"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_url_is_read_and_shows_no_secret() {
        for (text, shown) in [
            ("postgres://me:S3cret@h:5433/shop?sslmode=disable", "postgres://h:5433/shop"),
            ("postgresql://h/shop", "postgresql://h/shop"),
            ("mysql://me:S3cret@h/shop", "mysql://h/shop"),
            ("mysql://me:123?S3cret@h/shop", "mysql://…"),
            ("mariadb://me:S3cret@h/shop?ssl-mode=disabled", "mariadb://h/shop"),
            ("sqlite:///var/lib/shop.db?mode=ro", "sqlite:///var/lib/shop.db"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), format!("Url({shown})")));
        }
        for (text, invalid) in [
            ("", Invalid::Scheme),
            ("S3cret", Invalid::Scheme),
            ("redis://:S3cret@h", Invalid::Scheme),
            ("postgres://me:S3cret@h:port/shop", Invalid::Rest),
            ("mysql://me:S3cret@h/shop?ssl-mode=S3cret", Invalid::Rest),
            ("sqlite:///a?mode=S3cret", Invalid::Rest),
        ] {
            let told = text.parse::<Url>().unwrap_err();
            assert_eq!(told, invalid, "{text}");
            assert!(!told.to_string().contains("S3cret"));
        }
    }
}
