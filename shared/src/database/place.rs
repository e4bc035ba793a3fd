//! Where a database is: a URL as its own programs know it, and what its driver makes of it to connect.

use std::fmt;
use std::time::Instant;

use super::connection::Connection;
use super::engine::Engine;
#[cfg(feature = "mysql")]
use super::mysql::Mysql;
#[cfg(feature = "postgres")]
use super::postgres::Postgres;
#[cfg(feature = "sqlite")]
use super::sqlite::Sqlite;
use super::trouble::Trouble;

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
    engine: Engine,
    driver: Driver,
    shown: String,
}

#[derive(Clone)]
enum Driver {
    #[cfg(feature = "mysql")]
    Mysql(Mysql),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
    #[cfg(feature = "sqlite")]
    Sqlite(Sqlite),
}

/// What a driver makes of its URL.
type Read = fn(&url::Url, Access) -> Result<Driver, String>;

/// The drivers that this build has.
const DRIVERS: &[(Engine, Read)] = &[
    #[cfg(feature = "mysql")]
    (Engine::Mysql, |url, _| Mysql::new(url).map(Driver::Mysql)),
    #[cfg(feature = "postgres")]
    (Engine::Postgres, |url, _| Postgres::new(url).map(Driver::Postgres)),
    #[cfg(feature = "sqlite")]
    (Engine::Sqlite, |url, access| Sqlite::new(url, access).map(Driver::Sqlite)),
];

impl Place {
    /// The place that a URL names, or what is wrong with it, as a sentence without secrets.
    ///
    /// `postgresql://`, `mysql://` and `sqlite:`, with the usual other names of them, and a driver's name after a `+`.
    pub fn new(url: &url::Url, access: Access) -> Result<Self, String> {
        Self::with(DRIVERS, url, access)
    }

    fn with(drivers: &[(Engine, Read)], url: &url::Url, access: Access) -> Result<Self, String> {
        let engine = Engine::of(url.as_str())?;
        let driver = drivers.iter().find(|(of, _)| *of == engine);
        let (_, read) = driver.ok_or_else(|| engine.missing())?;
        Ok(Self { engine, driver: read(url, access)?, shown: shown(url.as_str()) })
    }

    /// The same, of what may be no URL at all.
    pub fn parse(text: &str, access: Access) -> Result<Self, String> {
        let url = url::Url::parse(text)
            .map_err(|_| "what stands behind its scheme is not understood".to_owned())?;
        Self::new(&url, access)
    }

    /// Which database it is.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Connects and logs in. A server is waited for until the future is dropped; a lock of a file ends before `deadline`.
    pub async fn connect(&self, deadline: Instant) -> Result<Connection, Trouble> {
        match &self.driver {
            #[cfg(feature = "mysql")]
            Driver::Mysql(server) => server.connect(deadline).await,
            #[cfg(feature = "postgres")]
            Driver::Postgres(server) => server.connect(deadline).await,
            #[cfg(feature = "sqlite")]
            Driver::Sqlite(file) => file.connect(deadline).await,
        }
    }
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
        f.debug_tuple("Place").field(&self.engine).finish()
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
            assert_eq!(Place::parse(text, Access::Read).unwrap().to_string(), shown);
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
    }

    #[test]
    fn a_database_whose_driver_is_not_built_in_is_a_mistake_that_says_so() {
        for (text, engine, built_in, says) in [
            ("postgis://me:S3cret@h/shop", Engine::Postgres, cfg!(feature = "postgres"), "postgresql://"),
            ("mariadb://me:S3cret@h/shop", Engine::Mysql, cfg!(feature = "mysql"), "mysql://"),
            ("sqlite:///S3cret.db", Engine::Sqlite, cfg!(feature = "sqlite"), "sqlite://"),
        ] {
            let mistake = format!("this build has no driver for {says}");
            let url = url::Url::parse(text).expect("a URL");
            let told = |drivers: &[_]| Place::with(drivers, &url, Access::Read).map(|place| place.engine());
            let others: Vec<_> = DRIVERS.iter().copied().filter(|(of, _)| *of != engine).collect();
            assert_eq!(told(&others), Err(mistake.clone()));
            assert_eq!(told(DRIVERS), if built_in { Ok(engine) } else { Err(mistake) });
        }
    }
}
