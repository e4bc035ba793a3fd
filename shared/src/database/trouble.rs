//! What went wrong with a database, in words for everyone, and apart from them what it said, for the log.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use sqlx::Error;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::check::Failure;

/// The most of a server's words that go into the log.
const MOST_WORDS: usize = 500;

/// What went wrong, as far as there is something to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nobody listens, or nobody can be found.
    Unreachable,
    /// The connection ended before the answer.
    Lost,
    /// No TLS, or not with these certificates.
    Insecure,
    /// User, password, certificate or address is not accepted.
    Denied,
    /// The server has no database of this name.
    NoDatabase,
    /// As many are connected as may be.
    Full,
    /// Starting up or shutting down.
    NotReady,
    /// Whatever is there, it does not speak as a database does.
    Nonsense,
    /// A replica, or made read-only.
    ReadOnly,
    /// A table that was asked is not there.
    NoTable,
    /// The role may not do this.
    Forbidden,
    /// No space is left.
    DiskFull,
    /// Somebody else holds the file.
    Locked,
    /// The file is not there, or may not be opened.
    NoFile,
    /// The file is something else, or broken.
    NotADatabase,
    /// The file system gives no answer.
    Stuck,
    /// Anything else that was asked in vain.
    Query,
}

impl What {
    /// The public reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "no connection can be made",
            Self::Lost => "the connection was lost",
            Self::Insecure => "no secure connection can be made",
            Self::Denied => "access is denied",
            Self::NoDatabase => "there is no such database",
            Self::Full => "no connection is free",
            Self::NotReady => "the database is starting up or shutting down",
            Self::Nonsense => "the answer makes no sense",
            Self::ReadOnly => "the database takes no writes",
            Self::NoTable => "a table is missing",
            Self::Forbidden => "the role lacks a right",
            Self::DiskFull => "the database has no space left",
            Self::Locked => "the database is locked",
            Self::NoFile => "the file cannot be opened",
            Self::NotADatabase => "the file is not a database",
            Self::Stuck => "the file system does not answer",
            Self::Query => "the query failed",
        }
    }
}

/// What went wrong, with what was said of it. It repeats no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub what: What,
    said: Cow<'static, str>,
}

impl Trouble {
    /// In our own words.
    pub fn new(what: What, said: impl Into<Cow<'static, str>>) -> Self {
        Self { what, said: said.into() }
    }

    /// In the driver's or the server's words, which a hostile server may have filled with what it was sent.
    fn of(error: &Error, connecting: bool, secrets: &[String]) -> Self {
        let mut said = error.to_string();
        // Before anything is cut off: of a secret that is cut in two no part would be known again.
        for secret in secrets {
            said = said.replace(secret, "…");
        }
        let said: String = said.chars().take(MOST_WORDS).collect();
        Self::new(what(error, connecting), said.replace(char::is_control, " "))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Trouble {}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::failed(trouble.what.reason()).because(trouble)
    }
}

/// What the driver does, which slices what it reads without looking: that must cost no more than this one question.
pub(crate) async fn contained<T>(
    work: impl Future<Output = Result<T, Error>>,
    connecting: bool,
    secrets: &[String],
) -> Result<T, Trouble> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done.map_err(|error| Trouble::of(&error, connecting, secrets)),
        Err(_) => Err(Trouble::new(What::Nonsense, "the driver panicked over it")),
    }
}

fn what(error: &Error, connecting: bool) -> What {
    match error {
        Error::Database(error) => said_by_database(error.as_ref()),
        // The driver's settings were looked at long ago: what is left are those of TLS, and a login that needs it.
        Error::Tls(_) | Error::Configuration(_) => What::Insecure,
        // The kind that rustls gives to what it does not accept.
        Error::Io(error) if connecting && error.kind() == io::ErrorKind::InvalidData => What::Insecure,
        Error::Io(_) if connecting => What::Unreachable,
        Error::Io(_) | Error::WorkerCrashed => What::Lost,
        _ => What::Nonsense,
    }
}

fn said_by_database(error: &dyn DatabaseError) -> What {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        said_by_postgres(error.code())
    } else if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        said_by_mysql(error.number())
    } else {
        let code = error.code().and_then(|code| code.parse().ok()).unwrap_or(0);
        said_by_sqlite(code, error.message())
    }
}

/// By its SQLSTATE: PostgreSQL's documentation, appendix A.
fn said_by_postgres(code: &str) -> What {
    match code {
        "3D000" => What::NoDatabase,
        "53300" => What::Full,
        "53100" => What::DiskFull,
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => What::NotReady,
        "25006" => What::ReadOnly,
        "42P01" => What::NoTable,
        "42501" => What::Forbidden,
        _ if code.starts_with("28") => What::Denied,
        _ if code.starts_with("08") => What::Lost,
        _ => What::Query,
    }
}

/// By its number: the server error references of MySQL and MariaDB.
fn said_by_mysql(number: u16) -> What {
    match number {
        1044 | 1045 | 1129 | 1130 | 1698 | 1820 | 1862 | 3118 | 4151 => What::Denied,
        1049 => What::NoDatabase,
        1040 | 1203 | 1226 => What::Full,
        1021 | 1114 => What::DiskFull,
        1053 | 1927 | 4031 => What::NotReady,
        1290 | 1792 | 1836 => What::ReadOnly,
        1146 => What::NoTable,
        1142 | 1143 | 1227 | 1370 => What::Forbidden,
        _ => What::Query,
    }
}

/// By its primary result code, which the low byte of an extended one is.
fn said_by_sqlite(code: i32, message: &str) -> What {
    match code & 0xff {
        3 | 23 => What::Denied,
        5 | 6 => What::Locked,
        8 => What::ReadOnly,
        11 | 26 => What::NotADatabase,
        13 => What::DiskFull,
        14 => What::NoFile,
        1 if message.starts_with("no such table") => What::NoTable,
        _ => What::Query,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_repeats_no_secret_and_stays_on_its_line() {
        let hostile = Error::Protocol(format!("you sent S3cret\n{}", "x".repeat(9_999)));
        let trouble = Trouble::of(&hostile, true, &["S3cret".to_owned()]);
        assert_eq!(trouble.what, What::Nonsense);
        let said = trouble.to_string();
        assert!(!said.contains("S3cret") && !said.contains('\n'), "{said}");
        assert!(said.chars().count() <= MOST_WORDS);
    }

    #[test]
    fn no_part_of_a_secret_is_left_where_the_words_are_cut_off() {
        for before in 0..=MOST_WORDS {
            let hostile = Error::Protocol(format!("{}S3cret", "x".repeat(before)));
            let said = Trouble::of(&hostile, true, &["S3cret".to_owned()]).to_string();
            assert!(!said.contains('S'), "{said}");
        }
    }
}
