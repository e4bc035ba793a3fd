//! Which database a URL means, whether this build has a driver for it or not.

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

impl Engine {
    /// By the scheme of a URL, or what may be no URL at all; else a sentence without secrets.
    ///
    /// `postgresql://`, `mysql://` and `sqlite:`, with the usual other names of them, and a driver's name after a `+`.
    pub fn of(url: &str) -> Result<Self, &'static str> {
        match url.split([':', '+']).next().unwrap_or_default() {
            "postgres" | "postgresql" | "postgis" => Ok(Self::Postgres),
            "mysql" | "mariadb" | "mysql2" => Ok(Self::Mysql),
            "sqlite" | "sqlite3" => Ok(Self::Sqlite),
            _ => Err("a database's URL begins with postgresql:, mysql: or sqlite:"),
        }
    }

    /// What is said of a URL whose driver is not in this build: each is a feature of it.
    pub fn missing(self) -> String {
        let scheme = match self {
            Self::Postgres => "postgresql",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
        };
        format!("this build has no driver for {scheme}://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_by_its_scheme_and_nothing_else_is_one() {
        for (url, engine) in [
            ("postgres://h/shop", Engine::Postgres),
            ("postgresql+psycopg://h/shop", Engine::Postgres),
            ("mariadb://h/shop", Engine::Mysql),
            ("mysql+pymysql://h/shop", Engine::Mysql),
            ("sqlite:shop.db", Engine::Sqlite),
            ("sqlite3:///shop.db", Engine::Sqlite),
        ] {
            assert_eq!(Engine::of(url), Ok(engine), "{url}");
        }
        for url in ["", "S3cret", "redis://:S3cret@h", "sqlite4:x", "+mysql://h"] {
            let mistake = Engine::of(url).expect_err(url);
            assert!(!mistake.contains("S3cret"), "{mistake}");
        }
    }
}
