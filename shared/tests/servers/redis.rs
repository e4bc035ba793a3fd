//! A `redis-server` without persistence. The tests of the commands use this file, too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use super::{Program, SOON, free_port, until};

pub struct Redis {
    pub program: Program,
    pub port: u16,
}

impl Redis {
    /// With these arguments more.
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        // Or what takes its settings.
        let mut command =
            Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()));
        command.args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        command.arg("--dir").arg(folder.path()).arg("--unixsocket").arg(folder.path().join("socket"));
        command.args(arguments);
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server
    }

    /// One that follows another.
    pub fn replica_of(primary: &Self, arguments: &[&str]) -> Self {
        let of = format!("127.0.0.1 {}", primary.port);
        let replica = Self::start(&[&["--replicaof", &of], arguments].concat());
        until("a replica that is linked", || {
            replica.has("replication", "master_link_status:up").then_some(())
        });
        replica
    }

    pub fn restart(&mut self) {
        self.program.restart();
        self.wait();
    }

    fn wait(&self) {
        // Whether with +PONG or with -NOAUTH: it answers.
        until("a Redis that answers", || {
            self.try_ask("PING").ok().filter(|answer| !answer.contains("LOADING"))
        });
    }

    pub fn url(&self) -> String {
        self.url_of("")
    }

    /// `login` is `USER:PASSWORD@`.
    pub fn url_of(&self, login: &str) -> String {
        format!("redis://{login}127.0.0.1:{}", self.port)
    }

    pub fn socket(&self) -> PathBuf {
        self.program.folder.path().join("socket")
    }

    /// Runs one command and gives its answer's first line, or the whole of a text.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        let answer = self.try_ask(command).unwrap();
        assert!(!answer.starts_with('-'), "{command}: {answer}");
        answer
    }

    pub fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(length) = line.strip_prefix('$').and_then(|length| length.trim().parse::<usize>().ok()) {
            let mut text = vec![0; length];
            reader.read_exact(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        Ok(line.trim().to_owned())
    }

    /// Whether a section of `INFO` has this line.
    pub fn has(&self, section: &str, line: &str) -> bool {
        self.ask(&format!("INFO {section}")).lines().any(|found| found == line)
    }

    /// A number that a section of `INFO` tells.
    pub fn number(&self, section: &str, name: &str) -> u64 {
        let info = self.ask(&format!("INFO {section}"));
        let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name} in {info}")).parse().unwrap()
    }
}
