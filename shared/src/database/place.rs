//! Where a database is: a URL as its own programs know it, and what is made of it to connect.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use percent_encoding::percent_decode_str;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, MySqlConnection, PgConnection, SqliteConnection};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::connection::{Connection, Line, Secrets};
use super::relay::{Relay, Stream};
use super::trouble::{Trouble, What, contained};
use crate::check::chain;
use crate::net::{Address, Net};

/// What servers show as the name of who is connected.
const NAME: &str = "checker";

/// The URL's parameters that mean something here. All others are the service's own driver's.
const KNOWN: [&str; 20] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "socket",
    "charset",
];

/// What will be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing but reading.
    Read,
    /// Writing as well.
    Write,
}

/// Where a database is, and how it is reached.
#[derive(Clone)]
pub struct Place {
    driver: Driver,
    shown: String,
    secrets: Secrets,
    net: Net,
}

#[derive(Clone)]
enum Driver {
    Postgres(Box<PgConnectOptions>),
    Mysql(Box<MySqlConnectOptions>),
    Sqlite { file: PathBuf, access: Access, looking: Arc<AtomicBool> },
}

/// The databases that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
}

impl Place {
    /// The place that a URL names, or what is wrong with it, as a sentence without secrets.
    ///
    /// `postgresql://`, `mysql://` and `sqlite:`, with the usual other names of them, and a driver's name after a `+`.
    pub fn new(url: &url::Url, access: Access) -> Result<Self, String> {
        let driver = match meant(url.scheme()) {
            Some(Engine::Postgres) => Driver::Postgres(Box::new(postgres(url)?)),
            Some(Engine::Mysql) => Driver::Mysql(Box::new(mysql(url)?)),
            Some(Engine::Sqlite) => Driver::Sqlite { file: file(url)?, access, looking: Arc::default() },
            None => return Err("a database's URL begins with postgresql:, mysql: or sqlite:".to_owned()),
        };
        Ok(Self { driver, shown: shown(url.as_str()), secrets: secrets(url), net: Net::default() })
    }

    /// The same, of what may be no URL at all.
    pub fn parse(text: &str, access: Access) -> Result<Self, String> {
        let url = url::Url::parse(text)
            .map_err(|_| "what stands behind its scheme is not understood".to_owned())?;
        Self::new(&url, access)
    }

    /// Whether this begins as the URL of a database does.
    pub fn is_meant(text: &str) -> bool {
        meant(text.split(':').next().unwrap_or_default()).is_some()
    }

    /// Which database it is.
    pub fn engine(&self) -> Engine {
        match self.driver {
            Driver::Postgres(_) => Engine::Postgres,
            Driver::Mysql(_) => Engine::Mysql,
            Driver::Sqlite { .. } => Engine::Sqlite,
        }
    }

    /// Connects and logs in. A server is waited for until the future is dropped; a lock of a file ends before `deadline`.
    pub async fn connect(&self, deadline: Instant) -> Result<Connection, Trouble> {
        match &self.driver {
            Driver::Postgres(options) => {
                let name = format!("/.s.PGSQL.{}", options.get_port());
                let folder = options.get_socket().cloned();
                let folder =
                    folder.or_else(|| options.get_host().starts_with('/').then(|| options.get_host().into()));
                let socket = folder.map(|folder| format!("{}{name}", folder.display()).into());
                let server = self.reach(socket, options.get_host(), options.get_port(), deadline).await?;
                let (mut line, socket) = self.line(Relay::to_postgres(server, &name))?;
                let options = options.as_ref().clone().socket(socket);
                let connection = line.contained(Box::pin(PgConnection::connect_with(&options)), true).await?;
                Ok(Connection::Postgres(connection, line))
            }
            Driver::Mysql(options) => {
                let socket = options.get_socket().cloned();
                let server = self.reach(socket, options.get_host(), options.get_port(), deadline).await?;
                let (mut line, socket) = self.line(Relay::new(server, ""))?;
                let options = options.as_ref().clone().socket(socket);
                let connection =
                    line.contained(Box::pin(MySqlConnection::connect_with(&options)), true).await?;
                Ok(Connection::Mysql(connection, line))
            }
            Driver::Sqlite { file, access, looking } => {
                look(file, looking).await?;
                let left = deadline.saturating_duration_since(Instant::now());
                let options = SqliteConnectOptions::new()
                    .filename(file)
                    .read_only(*access == Access::Read)
                    // What is locked is told, not waited for until the time is up.
                    .busy_timeout(left / 4 * 3)
                    .disable_statement_logging();
                contained(SqliteConnection::connect_with(&options), true, &[]).await.map(Connection::Sqlite)
            }
        }
    }
}

impl Place {
    /// A connection to the server, of which the driver knows nothing.
    async fn reach(
        &self,
        socket: Option<PathBuf>,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, Trouble> {
        if let Some(socket) = socket {
            let server = UnixStream::connect(socket).await.map_err(unreachable)?;
            return Ok(Box::new(server));
        }
        let address = Address { host: host.to_owned(), port };
        Ok(Box::new(self.net.connect(&address, deadline).await.map_err(unreachable)?))
    }

    /// The way to it, and the socket that leads there.
    fn line(&self, relay: io::Result<Relay>) -> Result<(Line, String), Trouble> {
        let relay = relay.map_err(unreachable)?;
        let socket = relay.socket();
        Ok((Line::new(relay, self.secrets.clone()), socket))
    }
}

fn unreachable(error: impl std::error::Error + 'static) -> Trouble {
    Trouble::new(What::Unreachable, chain(&error))
}

/// The URL without user, password and parameters.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Which database, and no more: a host's name may be a secret to some.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.engine()).finish()
    }
}

/// By the scheme of a URL, with a driver's name after a `+`.
fn meant(scheme: &str) -> Option<Engine> {
    match scheme.split('+').next()? {
        "postgres" | "postgresql" | "postgis" => Some(Engine::Postgres),
        "mysql" | "mariadb" | "mysql2" => Some(Engine::Mysql),
        "sqlite" | "sqlite3" => Some(Engine::Sqlite),
        _ => None,
    }
}

fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let before = rest.split(['?', '#']).next().unwrap_or_default();
    // A password may hold a character that should have been escaped.
    let shown = match before.rsplit_once('@') {
        Some((_, shown)) => shown,
        None if rest.contains('@') => "…",
        None => before,
    };
    format!("{scheme}://{shown}")
}

fn postgres(url: &url::Url) -> Result<PgConnectOptions, String> {
    let mut options = PgConnectOptions::from_url(&known(url)?).map_err(|_| wrong_parameter())?;
    if let Some(host) = ipv6(url) {
        options = options.host(&host);
    }
    if options.get_application_name().is_none() {
        options = options.application_name(NAME);
    }
    // Poolers refuse a parameter that they do not know at the start.
    Ok(options.extra_float_digits(None).disable_statement_logging())
}

fn mysql(url: &url::Url) -> Result<MySqlConnectOptions, String> {
    let mut options = MySqlConnectOptions::from_url(&known(url)?).map_err(|_| wrong_parameter())?;
    if let Some(host) = ipv6(url) {
        options = options.host(&host);
    }
    // The session stays as the server makes it for anybody.
    let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
    Ok(options.disable_statement_logging())
}

fn wrong_parameter() -> String {
    "a parameter after the question mark has a value that it cannot have".to_owned()
}

/// The URL with the parameters that mean something here. What is misspelt of TLS is a mistake, as it would leave the
/// connection open to all.
fn known(url: &url::Url) -> Result<url::Url, String> {
    let mut kept = url.clone();
    kept.set_query(None);
    for (name, value) in url.query_pairs() {
        if KNOWN.contains(&&*name) || name.starts_with("options[") {
            kept.query_pairs_mut().append_pair(&name, &value);
        } else if name.to_ascii_lowercase().contains("ssl") || name.to_ascii_lowercase().contains("tls") {
            let name: String = name
                .chars()
                .filter(|char| char.is_ascii_alphanumeric() || "-_".contains(*char))
                .take(30)
                .collect();
            return Err(format!(
                "`{name}` is no parameter here; those of TLS are sslmode, sslrootcert, sslcert and sslkey (for MySQL ssl-mode, ssl-ca, ssl-cert and ssl-key)"
            ));
        }
    }
    Ok(kept)
}

/// An address in brackets, without them.
fn ipv6(url: &url::Url) -> Option<String> {
    Some(url.host_str()?.strip_prefix('[')?.strip_suffix(']')?.to_owned())
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

/// The passwords of a URL, as they stand there and as they are meant.
fn secrets(url: &url::Url) -> Secrets {
    let written = url.password().unwrap_or_default();
    let meant = percent_decode_str(written).decode_utf8_lossy().into_owned();
    let parameter =
        url.query_pairs().filter(|(name, _)| name == "password").map(|(_, value)| value.into_owned());
    Secrets(
        [written.to_owned(), meant]
            .into_iter()
            .chain(parameter)
            .filter(|secret| !secret.is_empty())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place, String> {
        Place::new(&url::Url::parse(url).expect("a URL"), Access::Read)
    }

    #[test]
    fn a_url_is_understood_as_its_own_programs_do() {
        for (url, engine) in [
            ("postgres://localhost/shop", Engine::Postgres),
            (
                "postgresql+psycopg://u:p@[::1]:5432/shop?sslmode=verify-full&connect_timeout=3",
                Engine::Postgres,
            ),
            ("mysql+pymysql://u:p@db/shop?ssl-mode=VERIFY_IDENTITY&charset=utf8mb4", Engine::Mysql),
            ("mariadb://db/shop", Engine::Mysql),
            ("sqlite:shop.db?mode=rwc", Engine::Sqlite),
        ] {
            assert_eq!(place(url).map(|place| place.engine()), Ok(engine), "{url}");
        }
    }

    #[test]
    fn what_is_misspelt_of_tls_is_a_mistake_that_repeats_no_value() {
        for wrong in [
            "postgres://db/shop?sslmod=verify-full",
            "postgres://db/shop?sslmode=S3cret",
            "mysql://db/shop?sslVerify=S3cret",
            "mysql://db/shop?ssl-mode=S3cret",
            "redis://db",
        ] {
            let mistake = place(wrong).expect_err(wrong);
            assert!(!mistake.contains("S3cret"), "{mistake}");
        }
    }

    #[test]
    fn every_form_of_url_is_known_and_shown_without_its_secrets() {
        for (text, shown) in [
            ("postgres://me:S3cret@h:5433/shop?sslmode=disable", "postgres://h:5433/shop"),
            ("postgresql://h/shop", "postgresql://h/shop"),
            ("mysql://me:S3cret@h/shop", "mysql://h/shop"),
            ("mysql://me:123?S3cret@h/shop", "mysql://…"),
            ("mariadb://me:S3cret@h/shop?ssl-mode=disabled", "mariadb://h/shop"),
            ("sqlite:///var/lib/shop.db?mode=ro", "sqlite:///var/lib/shop.db"),
        ] {
            assert!(Place::is_meant(text), "{text}");
            assert_eq!(Place::parse(text, Access::Read).unwrap().to_string(), shown);
        }
        for text in ["", "S3cret", "redis://:S3cret@h"] {
            assert!(!Place::is_meant(text), "{text}");
        }
        for text in ["postgres://me:S3cret@h:port/shop", "mysql://me:S3cret@h/shop?ssl-mode=S3cret", "S3cret"]
        {
            assert!(!Place::parse(text, Access::Read).unwrap_err().contains("S3cret"), "{text}");
        }
    }

    #[test]
    fn nothing_that_is_printed_of_a_place_holds_its_password() {
        let place = place("postgres://u:S3cret@db/shop?password=S3cret2").expect("a place");
        assert!(!format!("{place:?}").contains("S3cret"));
        assert_eq!(place.secrets.0.len(), 3);
    }

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
