//! A worker whose tasks take a known time, back to back, and which tells at its end how long each of them took.
//!
//! What the worker is, and where it beats, comes from the environment (`HEARTBEAT_*`); the argument is the length of a
//! task in milliseconds. It ends when its standard input does, or says anything.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::Heartbeat;

static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Works until it is told to end.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let length = Duration::from_millis(std::env::args().nth(1).ok_or("how long is a task, in ms?")?.parse()?);
    let heartbeat = Heartbeat::builder().start()?;
    thread::spawn(|| {
        // An end, a line and an error mean the same.
        drop(io::stdin().lock().read_line(&mut String::new()));
        ENOUGH.store(true, Ordering::Relaxed);
    });
    writeln!(io::stdout(), "beating {}", std::process::id())?;
    let tasks = work(&heartbeat, length);
    let counters = heartbeat.counters();
    let stopping = Instant::now();
    heartbeat.stop()?;
    let mut output = io::stdout().lock();
    for (begun, ended) in tasks {
        writeln!(output, "task {} {}", begun.as_micros(), ended.as_micros())?;
    }
    writeln!(output, "redis_failures {}", counters.redis_failures)?;
    writeln!(output, "file_failures {}", counters.file_failures)?;
    writeln!(output, "panics {}", counters.panics)?;
    writeln!(output, "stop_ms {}", stopping.elapsed().as_millis())?;
    Ok(())
}

/// When each task began and ended, with all that the heartbeat asks of a worker in between.
fn work(heartbeat: &Heartbeat, length: Duration) -> Vec<(Duration, Duration)> {
    let start = Instant::now();
    let mut tasks = Vec::new();
    while !ENOUGH.load(Ordering::Relaxed) {
        let begun = Instant::now();
        heartbeat.pulse();
        let task = heartbeat.task("steady", Duration::from_secs(30));
        thread::sleep(length);
        task.done();
        tasks.push((begun - start, start.elapsed()));
    }
    tasks
}
