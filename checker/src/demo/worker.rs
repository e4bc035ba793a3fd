//! `checker demo-worker`: a real worker that can be broken on purpose.
//!
//! It links `heartbeat` as any worker would: its loop pulses on every turn and hashes a piece of a real file as a
//! task with a deadline. Lines on its standard input tell it what to do wrong; it judges nothing, not even itself.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use heartbeat::record::Status;
use heartbeat::{Heartbeat, duration};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use crate::exit::Exit;
use crate::stream;

/// What the loop hashes: a file that every such worker has.
const INPUT: &str = "/proc/self/exe";

/// How much of it is one task.
const CHUNK: usize = 16 * 1024;

/// How long a piece may take. Generous: on a machine that is far too busy, a worker is slow, not broken.
const CHUNK_DEADLINE: Duration = Duration::from_secs(30);

/// How long the loop rests between two turns, so that a handful of workers leaves the machine to others.
const REST: Duration = Duration::from_millis(40);

/// Settings of one worker.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The beat file
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
    /// The worker's cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The worker's name
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// A queue that it takes work from; may be given more than once
    #[arg(long = "queue", value_name = "NAME")]
    queues: Vec<String>,
    /// How often to beat
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    interval: Option<Duration>,
    /// How long its silence may last
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    promise: Option<Duration>,
    /// How long one turn of its loop may take
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    loop_budget: Option<Duration>,
    /// How long it may be `starting`; without it, it is ready at once
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    start_deadline: Option<Duration>,
    /// End, whatever happens, when the process that started it does
    #[arg(long)]
    die_with_parent: bool,
}

/// Works until it is told to stop, or until its standard input ends.
///
/// Prints `beating PID` once it beats, then `ok` for each command that it has accepted, or `error` and why not.
pub fn run(args: &Args) -> Exit {
    match work(args) {
        Ok(()) => Exit::Passed,
        Err(error) => {
            stream::complain(&error.to_string());
            Exit::Failed
        }
    }
}

fn work(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if args.die_with_parent {
        // A parent that ended before this is noticed by the end of the standard input.
        set_pdeathsig(Signal::SIGKILL)?;
    }
    let heartbeat = Arc::new(start(args)?);
    let (orders, taken) = channel();
    let looping = Arc::clone(&heartbeat);
    thread::Builder::new().name("loop".to_owned()).spawn(move || turn(&looping, &taken))?;
    obey(&Worker { heartbeat: Arc::clone(&heartbeat), orders })?;
    Ok(heartbeat.stop()?)
}

fn start(args: &Args) -> Result<Heartbeat, heartbeat::Error> {
    let mut builder = Heartbeat::builder().file(&args.file).version(env!("CARGO_PKG_VERSION"));
    if let Some(cluster) = &args.cluster {
        builder = builder.cluster(cluster);
    }
    if let Some(worker) = &args.worker {
        builder = builder.worker(worker);
    }
    if !args.queues.is_empty() {
        builder = builder.queues(&args.queues);
    }
    if let Some(interval) = args.interval {
        builder = builder.interval(interval);
    }
    if let Some(promise) = args.promise {
        builder = builder.promise(promise);
    }
    if let Some(budget) = args.loop_budget {
        builder = builder.loop_budget(budget);
    }
    if let Some(deadline) = args.start_deadline {
        builder = builder.start_deadline(deadline);
    }
    builder.start()
}

/// One line of the standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// The loop stops turning for good; the beats go on.
    Wedge,
    /// A task beside the loop.
    Task(Job),
    /// A task that the loop runs itself.
    TaskInLoop(Job),
    /// Leave `starting`.
    Ready,
    /// Finish within this time, and take no more.
    Drain(Duration),
    /// Stop cleanly.
    Stop,
}

/// A task that takes `takes` and has declared `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    takes: Duration,
    deadline: Duration,
}

impl Command {
    fn parse(line: &str) -> Result<Self, String> {
        let time = |text: &str| duration::parse(text).map_err(|why| format!("{text:?}: {why}"));
        let job = |takes, deadline| Ok::<_, String>(Job { takes: time(takes)?, deadline: time(deadline)? });
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["wedge"] => Ok(Self::Wedge),
            ["task", takes, deadline] => Ok(Self::Task(job(takes, deadline)?)),
            ["task-in-loop", takes, deadline] => Ok(Self::TaskInLoop(job(takes, deadline)?)),
            ["ready"] => Ok(Self::Ready),
            ["drain", within] => Ok(Self::Drain(time(within)?)),
            ["stop"] => Ok(Self::Stop),
            _ => Err(format!("{line:?} is not a command")),
        }
    }
}

/// What the loop is told to do between two turns.
enum Order {
    Wedge,
    Run(Job),
}

struct Worker {
    heartbeat: Arc<Heartbeat>,
    orders: Sender<Order>,
}

/// Carries out the lines of the standard input, until `stop` or its end.
fn obey(worker: &Worker) -> io::Result<()> {
    answer(&format!("beating {}", std::process::id()))?;
    for line in io::stdin().lock().lines() {
        match Command::parse(&line?) {
            Ok(Command::Stop) => return answer("ok"),
            Ok(command) => match worker.carry_out(command) {
                Ok(()) => answer("ok")?,
                Err(why) => answer(&format!("error {why}"))?,
            },
            Err(why) => answer(&format!("error {why}"))?,
        }
    }
    Ok(())
}

fn answer(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

impl Worker {
    fn carry_out(&self, command: Command) -> Result<(), String> {
        match command {
            Command::Wedge => return self.order(Order::Wedge),
            Command::TaskInLoop(job) => return self.order(Order::Run(job)),
            Command::Task(job) => return self.run_beside(job),
            Command::Ready => self.heartbeat.ready(),
            Command::Drain(within) => self.heartbeat.drain(within),
            Command::Stop => {}
        }
        Ok(())
    }

    fn order(&self, order: Order) -> Result<(), String> {
        self.orders.send(order).map_err(|_| "the loop has ended".to_owned())
    }

    /// The task is running when this returns.
    fn run_beside(&self, job: Job) -> Result<(), String> {
        let task = self.heartbeat.task("long job", job.deadline);
        let run = move || {
            thread::sleep(job.takes);
            task.done();
        };
        thread::Builder::new().spawn(run).map(drop).map_err(|error| error.to_string())
    }
}

/// The worker's loop.
fn turn(heartbeat: &Heartbeat, orders: &Receiver<Order>) {
    let mut input = Input::new();
    loop {
        heartbeat.pulse();
        if matches!(heartbeat.status(), Status::Idle | Status::Busy) {
            let task = heartbeat.task("hash a piece", CHUNK_DEADLINE);
            match input.hash_piece() {
                Ok(()) => task.done(),
                Err(_) => task.fail(),
            }
        }
        match orders.recv_timeout(REST) {
            Ok(Order::Wedge) => hang(),
            Ok(Order::Run(job)) => {
                heartbeat.pulse_within(job.deadline);
                let task = heartbeat.task("long job in the loop", job.deadline);
                thread::sleep(job.takes);
                task.done();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// As a loop does that waits for a lock which nobody will ever release.
fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// The file that is hashed, piece by piece, over and over.
struct Input {
    file: Option<File>,
    piece: Vec<u8>,
    digest: Sha256,
}

impl Input {
    fn new() -> Self {
        Self { file: None, piece: vec![0; CHUNK], digest: Sha256::new() }
    }

    fn hash_piece(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(INPUT)?),
        };
        let read = file.read(&mut self.piece)?;
        self.digest.update(&self.piece[..read]);
        if read == 0 {
            self.digest.finalize_reset();
            file.rewind()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read() {
        let second = Duration::from_secs(1);
        let job = Job { takes: second, deadline: second * 2 };
        assert_eq!(Command::parse("wedge"), Ok(Command::Wedge));
        assert_eq!(Command::parse("task 1s 2s"), Ok(Command::Task(job)));
        assert_eq!(Command::parse(" task-in-loop  1s 2s "), Ok(Command::TaskInLoop(job)));
        assert_eq!(Command::parse("ready"), Ok(Command::Ready));
        assert_eq!(Command::parse("drain 1s"), Ok(Command::Drain(second)));
        assert_eq!(Command::parse("stop"), Ok(Command::Stop));
    }

    #[test]
    fn a_bad_command_is_refused_with_its_reason() {
        assert_eq!(Command::parse("break"), Err("\"break\" is not a command".to_owned()));
        assert_eq!(Command::parse(""), Err("\"\" is not a command".to_owned()));
        assert!(Command::parse("drain").is_err());
        assert!(Command::parse("drain 5").is_err_and(|why| why.starts_with("\"5\": a duration is")));
        assert!(Command::parse("task 1s").is_err());
    }
}
