//! Real servers, each on a free port or socket of its own in a folder of its own, and ended by their own process id.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{FromRedisValue, Value, cmd};
use tempfile::TempDir;

/// Waits for a fact, and fails with what it was that did not come to be.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut fact: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(fact) = fact() {
            return fact;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// For what comes as soon as the machine lets it.
pub const SOON: Duration = Duration::from_secs(20);

/// A moment from now, as a deadline for one call.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A port of 127.0.0.1 that nobody listened on just now, and that no connection takes by chance.
pub fn free_port() -> u16 {
    // Below the ports that the kernel gives to connections; nodes of a Redis Cluster talk to each other 10,000 above, where no server
    // is, or one would be met there by who only tries the port.
    static TRIED: AtomicU32 = AtomicU32::new(0);
    until("a free port", SOON, || {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from((std::process::id() * 131 + tried) % 10_000).expect("a port");
        [port, port + 10_000]
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .then_some(port)
    })
}

/// One `redis-server`, or a Sentinel.
pub struct Server {
    child: Child,
    pub port: u16,
    pub folder: TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// Without persistence, and with these arguments more.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_on(free_port(), arguments)
    }

    pub fn start_on(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"];
        let mut all: Vec<String> = own.iter().chain(arguments).map(ToString::to_string).collect();
        all.extend(["--dir".to_owned(), folder.path().display().to_string()]);
        all.extend(["--unixsocket".to_owned(), folder.path().join("socket").display().to_string()]);
        if !arguments.contains(&"--port") {
            all.extend(["--port".to_owned(), port.to_string()]);
        }
        let child = run(&all, folder.path());
        let server = Self { child, port, folder, arguments: all };
        server.wait();
        server
    }

    /// A Sentinel of one master, `orders`, that acts alone.
    pub fn sentinel(master: u16) -> Self {
        let port = free_port();
        Self::sentinel_on(port, master, &format!("port {port}\n"))
    }

    /// The same, with these lines more, which say where it listens.
    pub fn sentinel_on(port: u16, master: u16, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sentinel.conf");
        let configuration = format!(
            "{more}bind 127.0.0.1\ndir {}\nunixsocket {}\nsentinel monitor orders 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds orders 500\nsentinel failover-timeout orders 3000\n",
            folder.path().display(),
            folder.path().join("socket").display(),
        );
        fs::write(&path, configuration).expect("a configuration");
        let arguments = vec![path.display().to_string(), "--sentinel".to_owned()];
        let child = run(&arguments, folder.path());
        let server = Self { child, port, folder, arguments };
        server.wait();
        server
    }

    fn wait(&self) {
        until("a Redis that answers", SOON, || {
            let answer: redis::RedisResult<Value> = cmd("PING").query(&mut self.connection().ok()?);
            match answer {
                Ok(_) => Some(()),
                // It is there, and asks for a password.
                Err(error) => (error.code() == Some("NOAUTH")).then_some(()),
            }
        });
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection for the test itself, over the socket: what the test does is not on the port.
    pub fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("unix://{}", self.socket().display()))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(connection)
    }

    /// Runs one command.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut packed = cmd(words.next().unwrap_or_default());
        for word in words {
            packed.arg(word);
        }
        packed.query(&mut self.connection()?)
    }

    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask("KEYS *");
        keys.sort();
        keys
    }

    /// How often the commands of this name have been called.
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String = self.ask("INFO commandstats");
        let name = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |rest| rest.split(',').next().unwrap_or_default().parse().expect("a number"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("its own child");
    }

    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("its own child");
    }

    /// Starts again, on the same port and with nothing in it.
    pub fn restart(&mut self) {
        self.child = run(&self.arguments, self.folder.path());
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let mut tail = String::new();
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            for line in log.lines().rev().take(12).collect::<Vec<_>>().iter().rev() {
                tail.push_str(line);
                tail.push('\n');
            }
            drop(std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("redis on {}:\n{tail}", self.port).as_bytes(),
            ));
        }
    }
}

/// Redis, or what takes its settings and stands in `$REDIS_SERVER`.
fn program() -> OsString {
    env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn run(arguments: &[String], folder: &Path) -> Child {
    let log = fs::File::options().append(true).create(true).open(folder.join("log")).expect("a log");
    // The socket of one that was killed would stand in the way of what waits for it.
    drop(fs::remove_file(folder.join("socket")));
    Command::new(program())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("redis-server (Debian: redis-server)")
}
