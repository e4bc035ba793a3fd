//! A `memcached`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

use tempfile::TempDir;

use super::{Program, SOON, free_port, until};

pub struct Memcached {
    pub program: Program,
    pub port: u16,
}

impl Memcached {
    /// With these arguments more.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// In a folder with what the arguments name.
    pub fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new("memcached");
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-u", "root", "-t", "1"]);
        command.args(arguments);
        let server = Self { program: Program::start(command, folder), port };
        server.wait();
        server
    }

    /// At a socket instead of a port.
    pub fn start_at_socket(folder: TempDir, path: &str) -> Program {
        let mut command = Command::new("memcached");
        command.args(["-s", path, "-u", "root", "-t", "1"]);
        let program = Program::start(command, folder);
        until("a memcached", || UnixStream::connect(path).ok());
        program
    }

    pub fn restart(&mut self) {
        self.program.restart();
        self.wait();
    }

    fn wait(&self) {
        until("a memcached", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    /// Says lines, and gives those of the answer up to the first that begins with one of `last`.
    pub fn ask(&self, lines: &str, last: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(lines.as_bytes()).unwrap();
        let mut answer = Vec::new();
        for line in BufReader::new(stream).lines() {
            answer.push(line.unwrap());
            if last.iter().any(|last| answer.last().is_some_and(|line| line.starts_with(last))) {
                break;
            }
        }
        answer
    }

    /// A number of `stats`.
    pub fn number(&self, name: &str) -> u64 {
        let stats = self.ask("stats\r\n", &["END"]);
        let prefix = format!("STAT {name} ");
        stats.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse().unwrap()
    }
}
