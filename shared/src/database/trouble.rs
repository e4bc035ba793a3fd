//! What went wrong with a database, in words for everyone, and apart from them what it said, for the log.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use sqlx::Error;
use sqlx::error::DatabaseError;

use crate::check::Failure;
use crate::hidden::without_secrets;

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
        // Before anything is cut off: of a secret that is cut in two no part would be known again.
        let mut said = without_secrets(&error.to_string());
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
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref() {
        return super::mysql::what(error);
    }
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref() {
        return super::postgres::what(error);
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref() {
        return super::sqlite::what(error);
    }
    What::Query
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
