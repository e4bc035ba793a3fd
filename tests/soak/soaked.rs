//! What tests/soak runs for as long as it likes: a worker, one that starts again and again, a judge, and one that leaks.
//!
//! ```text
//! soaked worker               works until its standard input ends
//! soaked leak                 the same, and loses memory, a descriptor, a connection and a thread every now and then
//! soaked once stop|kill       one task, and then a clean end or none
//! soaked again TIMES SECONDS  starts and stops so many heartbeats in this one process, spread over so long
//! soaked judge FILE TIMES SECONDS    reads and judges a beat file so many times, and tells how often it was live
//! ```
//!
//! Where it beats comes from the environment (`HEARTBEAT_*`).

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::Heartbeat;
use heartbeat::observe::{Moment, Owner, observe};
use nix::sys::signal::{Signal, raise};

type Failure = Box<dyn std::error::Error>;

static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Between two turns of a loop.
const TURN: Duration = Duration::from_millis(10);

/// Runs what the first argument names.
pub fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["worker"] => work(|| ()),
        ["leak"] => work(leak),
        ["once", end] => once(end),
        ["again", times, seconds] => again(&Pace::new(times, seconds)?),
        ["judge", file, times, seconds] => judge(&PathBuf::from(file), &Pace::new(times, seconds)?),
        _ => Err(format!("what is {arguments:?}?").into()),
    }
}

/// Pulses and tasks, of two threads at once.
fn work(each_turn: impl Fn()) -> Result<(), Failure> {
    let heartbeat = Heartbeat::builder().start()?;
    end_with_input();
    tell(&format!("beating {}", std::process::id()))?;
    thread::scope(|scope| {
        scope.spawn(|| turn(&heartbeat, || ()));
        turn(&heartbeat, each_turn);
    });
    let counters = heartbeat.counters();
    heartbeat.stop()?;
    tell(&format!("{counters:?}"))
}

fn turn(heartbeat: &Heartbeat, each: impl Fn()) {
    while !ENOUGH.load(Ordering::Relaxed) {
        heartbeat.pulse();
        let task = heartbeat.task("soak", Duration::from_secs(30));
        thread::sleep(TURN);
        task.done();
        each();
    }
}

/// About 150 KB, 2 descriptors and a thread a second: what the rule has to see.
fn leak() {
    thread_local!(static TURNS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    let turns = TURNS.replace(TURNS.get() + 1);
    std::mem::forget(vec![1_u8; 1_500]);
    if turns.is_multiple_of(100) {
        std::mem::forget(UnixStream::pair());
        thread::spawn(thread::park);
    }
}

fn once(end: &str) -> Result<(), Failure> {
    let heartbeat = Heartbeat::builder().start()?;
    heartbeat.pulse();
    heartbeat.task("once", Duration::from_secs(30)).done();
    match end {
        // On a busy machine it may be late, and is then not waited for.
        "stop" => {
            drop(heartbeat.stop());
            Ok(())
        }
        _ => Ok(raise(Signal::SIGKILL)?),
    }
}

fn again(pace: &Pace) -> Result<(), Failure> {
    end_with_input();
    let mut started = 0_u64;
    while pace.next(started) {
        let heartbeat = Heartbeat::builder().start()?;
        heartbeat.pulse();
        let task = heartbeat.task("again", Duration::from_secs(30));
        task.done();
        // As above.
        drop(heartbeat.stop());
        started += 1;
    }
    tell(&format!("restarts {started}"))
}

fn judge(file: &std::path::Path, pace: &Pace) -> Result<(), Failure> {
    end_with_input();
    let mut verdicts = BTreeMap::new();
    let mut judged = 0_u64;
    while pace.next(judged) {
        let asked = Moment::now();
        let verdict = observe(file, Owner::Own).judge_as_of(asked, None).verdict;
        *verdicts.entry(verdict.as_str()).or_insert(0_u64) += 1;
        judged += 1;
    }
    for (verdict, times) in verdicts {
        tell(&format!("{verdict}: {times}"))?;
    }
    tell(&format!("judged {judged}"))
}

/// So many of something, evenly over so many seconds.
struct Pace {
    times: u64,
    seconds: f64,
    begun: Instant,
}

impl Pace {
    fn new(times: &str, seconds: &str) -> Result<Self, Failure> {
        Ok(Self { times: times.parse()?, seconds: seconds.parse()?, begun: Instant::now() })
    }

    /// Waits until the next one is due; whether there is one. When all are done, it waits for the end.
    fn next(&self, done: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "millions at most")]
        let due = self.seconds * done as f64 / self.times as f64;
        while !ENOUGH.load(Ordering::Relaxed) {
            let ahead = due - self.begun.elapsed().as_secs_f64();
            if done < self.times && ahead <= 0.0 {
                return true;
            }
            thread::sleep(TURN.min(Duration::from_secs_f64(ahead.max(0.001))));
        }
        false
    }
}

/// An end, a line and an error mean the same.
fn end_with_input() {
    thread::spawn(|| {
        drop(io::stdin().lock().read_line(&mut String::new()));
        ENOUGH.store(true, Ordering::Relaxed);
    });
}

fn tell(line: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{line}")?)
}
