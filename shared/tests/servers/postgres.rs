//! A PostgreSQL server, as Debian's package brings it; as its own user where the tests run as root, which it refuses to be.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use super::{Program, free_port, until};

pub struct Postgres {
    pub program: Program,
    pub port: u16,
}

impl Postgres {
    /// With the database `shop` and the role `probe`, whose password is `S3cret`, and with these settings more.
    pub fn start(settings: &[&str]) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        done(tool("initdb").args(["--no-sync", "--auth=trust", "--username=postgres", "-D"]).arg(&data));
        let lines = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n\
            hostssl all certified 127.0.0.1/32 cert\nhostssl all encrypted 127.0.0.1/32 scram-sha-256\n\
            hostnossl all encrypted 127.0.0.1/32 reject\n\
            host all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), lines).unwrap();
        let server = Self::run(folder, settings);
        server.sql("CREATE ROLE probe LOGIN PASSWORD 'S3cret'");
        server.sql("CREATE DATABASE shop");
        server
    }

    /// One that follows this one.
    pub fn replica(&self) -> Self {
        let folder = folder();
        let from = format!("host=127.0.0.1 port={} user=postgres", self.port);
        done(
            tool("pg_basebackup")
                .args(["-R", "-c", "fast", "-d", &from, "-D"])
                .arg(folder.path().join("data")),
        );
        Self::run(folder, &["wal_retrieve_retry_interval=100ms"])
    }

    fn run(folder: tempfile::TempDir, settings: &[&str]) -> Self {
        let port = free_port();
        let mut command = tool("postgres");
        let socket = folder.path().join("socket");
        own(&socket);
        command.arg("-D").arg(folder.path().join("data")).arg(format!("-p{port}"));
        let socket = format!("unix_socket_directories={}", socket.display());
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", &socket].iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server
    }

    /// Waits until it answers.
    pub fn wait(&self) {
        until("a PostgreSQL that answers", || self.try_sql("SELECT 1").ok());
    }

    pub fn restart(&mut self) {
        // What is left of its old self holds the memory for a while.
        until("a PostgreSQL that starts", || {
            self.program.restart();
            std::thread::sleep(std::time::Duration::from_millis(50));
            until("an answer, or its end", || match self.try_sql("SELECT 1") {
                Ok(_) => Some(Some(())),
                Err(_) if self.program.has_ended() => Some(None),
                Err(_) => None,
            })
        });
    }

    /// Stops or continues all of its processes.
    pub fn signal_all(&self, signal: Signal) {
        for pid in children(self.program.id()).into_iter().chain([self.program.id()]) {
            // Some end by themselves.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// One of its files.
    pub fn data(&self, name: &str) -> PathBuf {
        self.program.folder.path().join("data").join(name)
    }

    /// A file that only the server may read.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.data(name), text).unwrap();
        own(&self.data(name));
        fs::set_permissions(self.data(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    pub fn url(&self) -> String {
        format!("postgresql://probe:S3cret@127.0.0.1:{}/shop", self.port)
    }

    /// Runs a statement as the superuser, in the database `shop` where there is one.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        self.try_sql(statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// The same, from outside of that database.
    #[track_caller]
    pub fn sql_from_outside(&self, statement: &str) -> String {
        self.psql("postgres", statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    fn try_sql(&self, statement: &str) -> Result<String, String> {
        let database = if self.shop() { "shop" } else { "postgres" };
        self.psql(database, statement)
    }

    fn shop(&self) -> bool {
        let there = self.psql("postgres", "SELECT 1 FROM pg_database WHERE datname = 'shop'");
        there.is_ok_and(|there| there == "1")
    }

    fn psql(&self, database: &str, statement: &str) -> Result<String, String> {
        let socket = self.program.folder.path().join("socket");
        let mut psql = tool("psql");
        psql.args([
            "-XAtq",
            "-U",
            "postgres",
            "-d",
            database,
            "-p",
            &self.port.to_string(),
            "-c",
            statement,
            "-h",
        ]);
        let output = psql.arg(socket).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal_all(Signal::SIGCONT);
        if !self.program.has_ended() {
            self.program.end(Signal::SIGQUIT);
        }
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    own(folder.path());
    own(&folder.path().join("data"));
    folder
}

/// Made if it is not there, and the server's.
fn own(path: &Path) {
    if !path.exists() {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    if let Some(user) = user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

fn user() -> Option<User> {
    geteuid().is_root().then(|| User::from_name("postgres").unwrap().expect("Debian's user `postgres`"))
}

/// One of its programs, as its user.
fn tool(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("Debian's package `postgresql`");
    let newest = versions
        .map(|version| version.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .max();
    let mut command = Command::new(newest.expect("one of its programs"));
    command.current_dir("/").env_remove("PGPASSWORD");
    if let Some(user) = user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

#[track_caller]
fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(&parent.to_string())
    })
    .collect()
}
