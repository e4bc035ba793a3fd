//! The driver of PostgreSQL.

use std::path::PathBuf;
use std::time::Instant;

use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::connection::Connection;
use super::engine::Engine;
use super::relay::Relay;
use super::server::{Way, ipv6, known, wrong_parameter};
use super::trouble::{Trouble, What};

/// What servers show as the name of who is connected.
const NAME: &str = "checker";

/// Where one is.
#[derive(Clone)]
pub struct Postgres {
    options: Box<PgConnectOptions>,
    way: Way,
}

impl Postgres {
    pub fn new(url: &url::Url) -> Result<Self, String> {
        Ok(Self { options: Box::new(options(url)?), way: Way::new(url) })
    }

    pub async fn connect(&self, deadline: Instant) -> Result<Connection, Trouble> {
        let (options, port) = (self.options.as_ref(), self.options.get_port());
        let name = format!("/.s.PGSQL.{port}");
        let folder = options
            .get_socket()
            .cloned()
            .or_else(|| options.get_host().starts_with('/').then(|| PathBuf::from(options.get_host())));
        let socket = folder.map(|folder| format!("{}{name}", folder.display()).into());
        let server = self.way.reach(socket, options.get_host(), port, deadline).await?;
        let (mut line, socket) = self.way.line(Relay::to(Engine::Postgres, server, &name))?;
        let options = options.clone().socket(socket);
        let connection = line.contained(Box::pin(PgConnection::connect_with(&options)), true).await?;
        Ok(Connection::Postgres(connection, line))
    }
}

fn options(url: &url::Url) -> Result<PgConnectOptions, String> {
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

/// By its SQLSTATE: PostgreSQL's documentation, appendix A.
pub fn what(error: &PgDatabaseError) -> What {
    match error.code() {
        "3D000" => What::NoDatabase,
        "53300" => What::Full,
        "53100" => What::DiskFull,
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => What::NotReady,
        "25006" => What::ReadOnly,
        "42P01" => What::NoTable,
        "42501" => What::Forbidden,
        code if code.starts_with("28") => What::Denied,
        code if code.starts_with("08") => What::Lost,
        _ => What::Query,
    }
}
