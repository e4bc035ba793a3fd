//! A MariaDB server, as Debian's package brings it.

use std::os::unix::fs::chown;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use super::{Program, free_port, until};

pub struct Mariadb {
    pub program: Program,
    pub port: u16,
}

impl Mariadb {
    /// With the database `shop` and the user `probe`, whose password is `S3cret`, and with these options more.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let user =
            geteuid().is_root().then(|| User::from_name("mysql").unwrap().expect("Debian's user `mysql`"));
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        let mut command = Command::new("mariadbd");
        command.arg("--no-defaults");
        if let Some(user) = user {
            for path in [folder.path(), &data] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            }
            install.arg("--user=mysql");
            command.arg("--user=mysql");
        }
        let output = install
            .args([format!("--datadir={}", data.display()), format!("--tmpdir={}", folder.path().display())])
            .output()
            .expect("mariadb-install-db");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        command.arg(format!("--datadir={}", data.display())).arg(format!("--port={port}"));
        command.arg(format!("--socket={}", folder.path().join("socket").display()));
        // At its start a server removes what another left among the temporary files, even of one that runs.
        command.arg(format!("--tmpdir={}", folder.path().display()));
        command.args([
            "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
        ]);
        command.arg(format!("--log-bin={}", data.join("binlog").display())).args(options);
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server.sql(
            "CREATE DATABASE shop; CREATE USER probe@'127.0.0.1' IDENTIFIED BY 'S3cret'; \
            GRANT SELECT, CREATE TEMPORARY TABLES ON shop.* TO probe@'127.0.0.1'",
        );
        server
    }

    /// Waits until it answers.
    pub fn wait(&self) {
        until("a MariaDB that answers", || self.try_sql("SELECT 1").ok());
    }

    pub fn restart(&mut self) {
        self.program.restart();
        self.wait();
    }

    pub fn url(&self) -> String {
        format!("mysql://probe:S3cret@127.0.0.1:{}/shop", self.port)
    }

    /// Runs statements as `root`.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    fn try_sql(&self, statements: &str) -> Result<String, String> {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-N", "-B", "-u", "root", "-e", statements]);
        let output =
            client.arg(format!("--socket={}", self.program.folder.path().join("socket").display())).output();
        let output = output.expect("Debian's package `mariadb-client`");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.program.signal(Signal::SIGCONT);
    }
}
