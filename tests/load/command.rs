//! `checker` as a process: how long it takes from its start to its end, what it says, and its memory at the most.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::servers::checker;

/// What a command did.
pub struct Done {
    pub took: Duration,
    pub code: Option<i32>,
    pub output: String,
    /// The most memory that it had at one time, in bytes; nothing where that was not looked at.
    pub most_memory: u64,
}

impl Done {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {}", self.output))
    }
}

/// Runs `checker` with these words.
pub fn run(words: &str, url: &str) -> Done {
    let begun = Instant::now();
    let mut child = start(words, url);
    let mut output = String::new();
    child.stdout.take().expect("its output").read_to_string(&mut output).expect("text");
    let code = child.wait().expect("its end").code();
    Done { took: begun.elapsed(), code, output, most_memory: 0 }
}

/// The same, and looks at its memory with each piece of its output. What does not fit into the pipe keeps it alive
/// until it is read, so the last look misses no more than that.
pub fn run_and_look(words: &str, url: &str) -> Done {
    let begun = Instant::now();
    let mut child = start(words, url);
    let mut pipe = child.stdout.take().expect("its output");
    let (mut output, mut piece, mut most_memory) = (Vec::new(), vec![0; 65_536], 0);
    loop {
        let read = pipe.read(&mut piece).expect("its output");
        most_memory = most_memory.max(high_water(&child));
        output.extend_from_slice(&piece[..read]);
        if read == 0 {
            break;
        }
    }
    let code = child.wait().expect("its end").code();
    let output = String::from_utf8(output).expect("text");
    Done { took: begun.elapsed(), code, output, most_memory }
}

/// How long `checker watch --cluster` takes to its first line.
pub fn first_of_watch(cluster: &str, url: &str) -> Duration {
    let begun = Instant::now();
    let mut child = start(&format!("watch --cluster {cluster}"), url);
    let read = child.stdout.take().expect("its output").read(&mut [0; 64]).expect("its output");
    let took = begun.elapsed();
    child.kill().expect("it watches");
    child.wait().expect("its end");
    assert!(read > 0, "checker watch showed nothing");
    took
}

fn start(words: &str, url: &str) -> Child {
    let mut command = checker(words);
    command.env("HEARTBEAT_REDIS_URL", url).env("DJANGO_Q_REDIS_URL", url);
    // Of a stat that is not there no signature is looked at.
    command.env("DJANGO_SECRET_KEY", "no secret: a load test").stdin(Stdio::null()).stdout(Stdio::piped());
    spawn(&mut command)
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The most memory that it has had, or 0 once it has ended.
fn high_water(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}
