//! A `checker serve` of a test's own, on a free port and ended by its process id; and questions to it, byte for byte.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take that comes as soon as the machine lets it.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits for a fact, and fails with what it was that did not come to be.
#[track_caller]
pub fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(fact) = fact() {
            return fact;
        }
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A check that is a line of shell.
pub fn shell(name: &str, script: &str, more: &str) -> String {
    format!("[checks.{name}]\ntype = 'command'\ncommand = ['sh', '-c', '''{script}''']\n{more}\n")
}

pub struct Server {
    pub child: Child,
    pub folder: TempDir,
    pub port: u16,
    log: Arc<Mutex<String>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Told {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub took: Duration,
}

impl Told {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Server {
    pub fn start(configuration: &str) -> Self {
        Self::start_with(configuration, &["--listen", "127.0.0.1:0"], |_| {})
    }

    /// In a folder with this configuration, with these arguments, once the command was prepared further.
    pub fn start_with(configuration: &str, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("checker.toml"), configuration).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_checker"));
        command.arg("serve").args(arguments).current_dir(folder.path()).env_remove("CHECKER_CONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (noted, output) = (Arc::clone(&log), child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut noted = noted.lock().unwrap();
                noted.push_str(&line);
                noted.push('\n');
            }
        });
        let mut server = Self { child, folder, port: 0, log };
        let place = server.wait_for_log("listening");
        let port = place.split("127.0.0.1:").nth(1).unwrap_or_default();
        server.port = port.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
        server
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first line of the log that holds this.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) -> String {
        until(&format!("a line with {part:?} in the log"), || {
            self.log().lines().find(|line| line.contains(part)).map(str::to_owned)
        })
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// GET, and the answer.
    pub fn get(&self, path: &str) -> Told {
        self.ask("GET", path, "")
    }

    /// The same with further lines in the head, each with its end.
    pub fn ask(&self, method: &str, path: &str, lines: &str) -> Told {
        self.send(
            format!("{method} {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n{lines}\r\n").as_bytes(),
        )
    }

    /// Bytes, and the answer to them.
    pub fn send(&self, bytes: &[u8]) -> Told {
        let begun = Instant::now();
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        parse(&answer, begun.elapsed())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn configure(&self, configuration: &str) {
        fs::write(self.path("checker.toml"), configuration).unwrap();
    }
}

/// Reads one whole answer.
pub fn parse(answer: &[u8], took: Duration) -> Told {
    let text = String::from_utf8(answer.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Told { status, headers: lines.filter_map(header).collect(), body: body.to_owned(), took }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
