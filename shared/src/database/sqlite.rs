//! The driver of SQLite: a file, opened anew each time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use percent_encoding::percent_decode_str;
use sqlx::error::DatabaseError as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteError};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::place::Access;
use super::trouble::{Trouble, What, contained};

/// Where one is.
#[derive(Clone)]
pub struct Sqlite {
    file: PathBuf,
    access: Access,
    looking: Arc<AtomicBool>,
}

impl Sqlite {
    pub fn new(url: &url::Url, access: Access) -> Result<Self, String> {
        Ok(Self { file: file(url)?, access, looking: Arc::default() })
    }

    pub async fn connect(&self, deadline: Instant) -> Result<Connection, Trouble> {
        look(&self.file, &self.looking).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let options = SqliteConnectOptions::new()
            .filename(&self.file)
            .read_only(self.access == Access::Read)
            // What is locked is told, not waited for until the time is up.
            .busy_timeout(left / 4 * 3)
            .disable_statement_logging();
        contained(SqliteConnection::connect_with(&options), true, &[]).await.map(Connection::Sqlite)
    }
}

/// `sqlite:relative.db`, `sqlite://relative.db` or `sqlite:///absolute.db`.
fn file(url: &url::Url) -> Result<PathBuf, String> {
    let text = url.as_str();
    let text = &text[..text.find(['?', '#']).unwrap_or(text.len())];
    let (_, path) = text.split_once(':').unwrap_or_default();
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "the path is not UTF-8".to_owned())?;
    let in_memory = url.query_pairs().any(|(name, value)| name == "mode" && value == "memory");
    if path.is_empty()
        || path.contains('\0')
        || path.starts_with(':')
        || path.starts_with("file:")
        || in_memory
    {
        return Err("names no file".to_owned());
    }
    Ok(PathBuf::from(path.into_owned()))
}

/// Whether a regular file is there, asked from a thread of its own: a file system whose server is gone holds whoever asks, for
/// good. One such thread at a time is enough.
async fn look(file: &Path, looking: &Arc<AtomicBool>) -> Result<(), Trouble> {
    if looking.swap(true, Ordering::SeqCst) {
        return Err(Trouble::new(What::Stuck, "it has not answered the last question yet"));
    }
    let (tell, told) = oneshot::channel();
    let (path, done) = (file.to_owned(), Arc::clone(looking));
    let thread = std::thread::Builder::new().name("sqlite-file".to_owned()).spawn(move || {
        let found = std::fs::metadata(&path);
        done.store(false, Ordering::SeqCst);
        // Who asked may have gone.
        let _ = tell.send(found);
    });
    if let Err(error) = thread {
        looking.store(false, Ordering::SeqCst);
        return Err(Trouble::new(What::Stuck, error.to_string()));
    }
    match told.await {
        Ok(Ok(found)) if found.is_file() => Ok(()),
        Ok(Ok(_)) => Err(Trouble::new(What::NotADatabase, "it is not a regular file")),
        Ok(Err(error)) => Err(Trouble::new(What::NoFile, error.to_string())),
        Err(_) => Err(Trouble::new(What::Stuck, "the thread that asked has died")),
    }
}

/// By its primary result code, which the low byte of an extended one is.
pub fn what(error: &SqliteError) -> What {
    let code = error.code().and_then(|code| code.parse().ok()).unwrap_or(0);
    match code & 0xff {
        3 | 23 => What::Denied,
        5 | 6 => What::Locked,
        8 => What::ReadOnly,
        11 | 26 => What::NotADatabase,
        13 => What::DiskFull,
        14 => What::NoFile,
        1 if error.message().starts_with("no such table") => What::NoTable,
        _ => What::Query,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_path_is_relative_or_absolute_as_it_stands() {
        let path =
            |text: &str| file(&url::Url::parse(text).expect("a URL")).map(|path| path.display().to_string());
        assert_eq!(path("sqlite:shop.db"), Ok("shop.db".to_owned()));
        assert_eq!(path("sqlite://shop.db"), Ok("shop.db".to_owned()));
        assert_eq!(path("sqlite://data/Shop.db"), Ok("data/Shop.db".to_owned()));
        assert_eq!(path("sqlite:///srv/a%20b.db?mode=rwc"), Ok("/srv/a b.db".to_owned()));
        assert_eq!(path("sqlite:////srv/shop.db"), Ok("//srv/shop.db".to_owned()));
        for none in [
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:x?mode=memory",
            "sqlite:file:x",
            "sqlite:a%00b",
        ] {
            assert!(path(none).is_err(), "{none}");
        }
    }
}
