//! `heartbeat run`: a heartbeat for a program that links nothing, and the little that its parent process owes it.
//! What a signal means, how a child is started and reaped, and whose the terminal is, stands in files of their own.

use std::io;
use std::time::{Duration, Instant};

#[cfg(feature = "redis")]
use heartbeat::fleet::SigningKeys;
use heartbeat::{ErrorKind, Heartbeat};
use nix::libc;

use crate::child::{Change, Child, To};
use crate::cli::Run;
use crate::exit::Exit;
use crate::inherited::Inherited;
use crate::signals::{Meaning, Received, Signals, suspend_job, taken};
use crate::{can_tell, tell, terminal};

/// How often it looks whether the beat file can be written.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the command to its end.
pub fn run(arguments: &Run) -> Exit {
    match watched(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            tell(format_args!("heartbeat: {error}"));
            Exit::Unexpected
        }
    }
}

fn watched(arguments: &Run) -> io::Result<Exit> {
    let inherited = Inherited::take(&taken())?;
    let signals = Signals::new()?;
    // Before the command: what is refused is refused with nothing done.
    let heartbeat = match start_heartbeat(arguments) {
        Ok(heartbeat) => heartbeat,
        Err((wrong, exit)) => {
            tell(wrong);
            return Ok(exit);
        }
    };
    let mut troubles = Troubles::default();
    if heartbeat.file_failure().is_none()
        && let Some(wrong) = heartbeat.last_error()
    {
        tell(format_args!("heartbeat: {wrong}"));
    }
    troubles.tell_changes(&heartbeat);
    let exit = match Child::start(&arguments.command, inherited) {
        Ok(child) => {
            let watch = Watch::new(&heartbeat, &signals, &child, arguments.stop_timeout, troubles);
            let exit = watch.until_its_end();
            terminal::take_back(Some(child.pid()));
            exit
        }
        Err(error) => {
            terminal::take_back(None);
            Ok(not_run(arguments, &error))
        }
    };
    let stopped = heartbeat.stop();
    let counters = heartbeat.counters();
    if counters.file_failures > 0 {
        let last = heartbeat.last_error().unwrap_or_default();
        let (failures, beats) = (counters.file_failures, counters.beats);
        tell(format_args!(
            "heartbeat: {failures} of {beats} beats could not be written as a new file; {last}"
        ));
    }
    if let Err(error) = stopped {
        tell(error);
    }
    exit
}

/// Or why there is none, and what the command ends with.
fn start_heartbeat(arguments: &Run) -> Result<Heartbeat, (String, Exit)> {
    let mut builder = Heartbeat::builder();
    if let Some(file) = &arguments.file {
        builder = builder.file(file);
    }
    #[cfg(feature = "redis")]
    if let Some(url) = &arguments.redis {
        builder = builder.redis(url);
    }
    #[cfg(feature = "redis")]
    if let Some(file) = &arguments.key_file {
        let keys = SigningKeys::from_file(file);
        let invalid =
            |why| (format!("heartbeat: the key in {} cannot be used: {why}", file.display()), Exit::Invalid);
        builder = builder.signing_keys(keys.map_err(invalid)?);
    }
    if let Some(cluster) = &arguments.cluster {
        builder = builder.cluster(cluster);
    }
    if let Some(worker) = &arguments.worker {
        builder = builder.worker(worker);
    }
    if !arguments.queues.is_empty() {
        builder = builder.queues(&arguments.queues);
    }
    if let Some(interval) = arguments.interval {
        builder = builder.interval(interval);
    }
    if let Some(promise) = arguments.promise {
        builder = builder.promise(promise);
    }
    builder.start().map_err(|error| (error.to_string(), refusal(error.kind())))
}

fn refusal(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Configuration => Exit::Invalid,
        ErrorKind::Held { .. } | ErrorKind::Unsafe => Exit::Refused,
        _ => Exit::Unexpected,
    }
}

fn not_run(arguments: &Run, error: &io::Error) -> Exit {
    let command = arguments.command.first().map(|command| command.display().to_string()).unwrap_or_default();
    match error.raw_os_error() {
        Some(libc::ENOENT) => {
            tell(format_args!("heartbeat: {command}: not found"));
            Exit::NotFound
        }
        // These come from fork, not from exec.
        Some(libc::EAGAIN | libc::ENOMEM) => {
            tell(format_args!("heartbeat: cannot start a process: {error}"));
            Exit::Unexpected
        }
        _ => {
            tell(format_args!("heartbeat: {command}: cannot be executed: {error}"));
            Exit::NotExecutable
        }
    }
}

/// What has been told of the beat file.
#[derive(Debug, Default)]
struct Troubles {
    told: bool,
}

impl Troubles {
    /// Tells once that the file cannot be written, and once that it can be again. Where standard error takes nothing now,
    /// that waits: the command's signals do not.
    fn tell_changes(&mut self, heartbeat: &Heartbeat) {
        let failure = heartbeat.file_failure();
        if failure.is_some() == self.told || !can_tell() {
            return;
        }
        self.told = failure.is_some();
        match failure {
            Some(failure) => tell(format_args!("heartbeat: {failure}; it goes on trying")),
            None => tell("heartbeat: the beat file is written again"),
        }
    }
}

/// The time from the command's start to its end.
struct Watch<'a> {
    heartbeat: &'a Heartbeat,
    signals: &'a Signals,
    child: &'a Child,
    stop_timeout: Option<Duration>,
    draining: bool,
    kill_at: Option<Instant>,
    troubles: Troubles,
}

impl<'a> Watch<'a> {
    fn new(
        heartbeat: &'a Heartbeat,
        signals: &'a Signals,
        child: &'a Child,
        stop_timeout: Option<Duration>,
        troubles: Troubles,
    ) -> Self {
        Self { heartbeat, signals, child, stop_timeout, draining: false, kill_at: None, troubles }
    }

    fn until_its_end(mut self) -> io::Result<Exit> {
        let unseen = self.heartbeat.beat_for(self.child.pid().as_raw().unsigned_abs()).err();
        let mut change = self.child.changes()?;
        if let Some(error) = unseen
            && !matches!(change, Change::Ended(_))
        {
            tell(format_args!("{error}; the record speaks of `heartbeat run` itself"));
        }
        loop {
            match change {
                Change::Ended(status) => return Ok(Exit::of(status)),
                Change::Stopped(signal) => self.stopped(signal)?,
                Change::More => {}
                Change::None => self.signals.wait(self.left())?,
            }
            while let Some(signal) = self.signals.next()? {
                self.received(signal)?;
            }
            self.kill_where_due();
            self.troubles.tell_changes(self.heartbeat);
            change = self.child.changes()?;
        }
    }

    fn left(&self) -> Duration {
        self.kill_at.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK))
    }

    fn received(&mut self, signal: Received) -> io::Result<()> {
        let meaning = signal.meaning();
        match meaning {
            Meaning::ChildChanged => return Ok(()),
            Meaning::End => self.drain(),
            Meaning::Continue => {
                terminal::hand_over(self.child.pid());
            }
            Meaning::Suspend | Meaning::Other => {}
        }
        // What the terminal sends, it sends to all processes of a group.
        self.child.send(signal.number, if signal.from_terminal { To::Group } else { To::Process });
        if meaning == Meaning::Suspend { self.suspend(signal.number) } else { Ok(()) }
    }

    /// The first request to end counts; its deadline stands, however many follow.
    fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            self.heartbeat.drain(self.stop_timeout);
            self.kill_at = self.stop_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
    }

    fn kill_where_due(&mut self) {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            self.child.send(libc::SIGKILL, To::Group);
            // It may have moved to another group.
            self.child.send(libc::SIGKILL, To::Process);
            let timeout = self.stop_timeout.unwrap_or_default().as_millis();
            let timeout = heartbeat::duration::Human(u64::try_from(timeout).unwrap_or(u64::MAX));
            tell(format_args!("heartbeat: the command did not end within {timeout} and was killed"));
        }
    }

    /// The command was stopped. Where the terminal did that, the job is suspended as a whole; where a process did
    /// (SIGSTOP), that process will continue it.
    fn stopped(&self, signal: i32) -> io::Result<()> {
        let wants_terminal = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        if wants_terminal && terminal::hand_over(self.child.pid()) {
            self.child.send(libc::SIGCONT, To::Group);
            Ok(())
        } else if terminal::is_ours() && (wants_terminal || signal == libc::SIGTSTP) {
            self.suspend(signal)
        } else {
            Ok(())
        }
    }

    fn suspend(&self, signal: i32) -> io::Result<()> {
        terminal::take_back(Some(self.child.pid()));
        let continued = suspend_job()?;
        terminal::hand_over(self.child.pid());
        // Where no shell could continue it, Ctrl-Z suspends nothing.
        if continued || signal == libc::SIGTSTP {
            self.child.send(libc::SIGCONT, To::Group);
        }
        Ok(())
    }
}
