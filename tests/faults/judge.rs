//! Judges many workers again and again, as `checker worker` and `checker cluster --list` do, without a process for each look.
//!
//! One order a line: `file NAME PATH`, `key NAME URL CLUSTER WORKER`, `forget NAME`; `once NAME PATH` is one look at a file. It
//! tells runs of one verdict: `+ NAME ASKED ANSWERED VERDICT` with the first of its looks, and with the last
//! `- NAME ASKED ANSWERED LOOKS`. Moments are milliseconds of the monotonic clock, before and after the look. The argument is the
//! time between two looks in milliseconds.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use heartbeat::fleet::Fleet;
use heartbeat::observe::{Moment, Owner, observe};
use nix::time::{ClockId, clock_gettime};

type Failure = Box<dyn std::error::Error>;

/// How long Redis may take for its answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a worker is looked for.
enum Place {
    File(PathBuf),
    Key(Box<Fleet>, String),
}

impl Place {
    fn verdict(&mut self) -> &'static str {
        match self {
            Self::File(path) => {
                let asked = Moment::now();
                observe(path, Owner::Any).judge_as_of(asked, None).verdict.as_str()
            }
            Self::Key(fleet, worker) => match fleet.named(&[worker.as_str()], Instant::now() + PATIENCE) {
                Ok(found) => found.first().map_or("missing", |member| member.judge(None).verdict.as_str()),
                Err(_) => "unknown",
            },
        }
    }
}

/// Looks as long as its input is open.
pub fn main() -> Result<(), Failure> {
    let period = Duration::from_millis(std::env::args().nth(1).ok_or("how often, in ms?")?.parse()?);
    let mut watches: HashMap<String, (Sender<()>, JoinHandle<()>)> = HashMap::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        let (name, place) = match words.as_slice() {
            ["file", name, path] => (name, Place::File(path.into())),
            ["key", name, url, cluster, worker] => {
                (name, Place::Key(Box::new(Fleet::new(url.parse()?, *cluster)), (*worker).to_owned()))
            }
            ["once", name, path] => {
                let verdict = Place::File(path.into()).verdict();
                tell(&format!("+ {name} {now} {now} {verdict}", now = now_ms()));
                continue;
            }
            ["forget", name] => {
                let (over, thread) = watches.remove(*name).ok_or("no such watch")?;
                drop(over);
                // Its last run is told by itself, so that nobody's looks wait for it.
                drop(thread);
                continue;
            }
            _ => return Err(format!("no such order: {line:?}").into()),
        };
        let (over, ended) = channel();
        let owned = (*name).to_owned();
        let thread = thread::spawn(move || watch(&owned, place, period, &ended));
        watches.insert((*name).to_owned(), (over, thread));
    }
    for (over, thread) in watches.into_values() {
        drop(over);
        drop(thread.join());
    }
    Ok(())
}

/// A run of looks with one verdict.
struct Run {
    verdict: &'static str,
    asked: u128,
    answered: u128,
    looks: u64,
}

fn watch(name: &str, mut place: Place, period: Duration, ended: &Receiver<()>) {
    let mut run: Option<Run> = None;
    loop {
        let begun = Instant::now();
        let asked = now_ms();
        let verdict = place.verdict();
        let answered = now_ms();
        match &mut run {
            Some(run) if run.verdict == verdict => {
                (run.asked, run.answered, run.looks) = (asked, answered, run.looks + 1);
            }
            run => {
                let last = run.replace(Run { verdict, asked, answered, looks: 1 });
                if let Some(last) = last {
                    tell(&format!("- {name} {} {} {}", last.asked, last.answered, last.looks));
                }
                tell(&format!("+ {name} {asked} {answered} {verdict}"));
            }
        }
        match ended.recv_timeout(period.saturating_sub(begun.elapsed())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(last) = run {
        tell(&format!("- {name} {} {} {}", last.asked, last.answered, last.looks));
    }
}

/// A line at a time. Where nobody listens any more, the input ends too.
fn tell(line: &str) {
    drop(writeln!(io::stdout().lock(), "{line}"));
}

fn now_ms() -> u128 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_millis())
}
