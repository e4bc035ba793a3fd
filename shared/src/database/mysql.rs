//! The driver of MySQL and MariaDB.

use std::time::Instant;

use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::{ConnectOptions as _, Connection as _, MySqlConnection};

use super::connection::Connection;
use super::engine::Engine;
use super::relay::Relay;
use super::server::{Way, ipv6, known, wrong_parameter};
use super::trouble::{Trouble, What};

/// Where one is.
#[derive(Clone)]
pub struct Mysql {
    options: Box<MySqlConnectOptions>,
    way: Way,
}

impl Mysql {
    pub fn new(url: &url::Url) -> Result<Self, String> {
        Ok(Self { options: Box::new(options(url)?), way: Way::new(url) })
    }

    pub async fn connect(&self, deadline: Instant) -> Result<Connection, Trouble> {
        let options = self.options.as_ref();
        let socket = options.get_socket().cloned();
        let server = self.way.reach(socket, options.get_host(), options.get_port(), deadline).await?;
        let (mut line, socket) = self.way.line(Relay::to(Engine::Mysql, server, ""))?;
        let options = options.clone().socket(socket);
        let connection = line.contained(Box::pin(MySqlConnection::connect_with(&options)), true).await?;
        Ok(Connection::Mysql(connection, line))
    }
}

fn options(url: &url::Url) -> Result<MySqlConnectOptions, String> {
    let mut options = MySqlConnectOptions::from_url(&known(url)?).map_err(|_| wrong_parameter())?;
    if let Some(host) = ipv6(url) {
        options = options.host(&host);
    }
    // The session stays as the server makes it for anybody.
    let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
    Ok(options.disable_statement_logging())
}

/// By its number: the server error references of MySQL and MariaDB.
pub fn what(error: &MySqlDatabaseError) -> What {
    match error.number() {
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
