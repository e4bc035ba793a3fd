//! The verdict: one pure function from a record (or its absence) and the machine's facts.
//!
//! No clock is read here and nothing is opened, so that checker and publisher judge alike, and every border
//! can be tested. What a verdict means for liveness and readiness stands here too.
//!
//! Two moments count. A record's *silence* is measured up to now. What a record says of its loop, its tasks
//! and its deadlines is judged as of the moment when it was made (`at_mono_ms`): a deadline that has passed
//! since may have been met since, and only the next beat can tell. The publisher beats as soon as a deadline
//! passes, so nothing is told later for that; and where no next beat comes, the silence tells.

use std::fmt;
use std::io;

use crate::duration::Human;
use crate::record::{Corrupt, Record, Status};

/// How far in the future a time may lie and still count as now, in milliseconds.
pub const AHEAD_MS: u64 = 2_000;

/// What is concluded of one worker. The order is that of the rules: the first that fits decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// There is no record.
    Missing,
    /// There is a file that a checker must not trust.
    Unsafe,
    /// There is something that is not a record.
    Corrupt,
    /// The worker said that it ended.
    Stopped,
    /// The process that wrote the record is no more.
    Gone,
    /// No beat for longer than the promise.
    Silent,
    /// Not yet ready, within its deadline.
    Starting,
    /// Not yet ready, past its deadline.
    StartOverdue,
    /// Finishing what it has, within its deadline.
    Draining,
    /// Finishing what it has, past its deadline.
    DrainOverdue,
    /// The loop's pulse is overdue.
    Wedged,
    /// A task is past its deadline.
    Overdue,
    /// Alive, but it has not reached its broker or its stat key for longer than the promise.
    CutOff,
    /// None of the above.
    Alive,
    /// The checker cannot tell.
    Unknown,
}

impl Verdict {
    /// All verdicts, in the order of the rules.
    pub const ALL: [Self; 15] = [
        Self::Missing,
        Self::Unsafe,
        Self::Corrupt,
        Self::Stopped,
        Self::Gone,
        Self::Silent,
        Self::Starting,
        Self::StartOverdue,
        Self::Draining,
        Self::DrainOverdue,
        Self::Wedged,
        Self::Overdue,
        Self::CutOff,
        Self::Alive,
        Self::Unknown,
    ];

    /// The verdict's name in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unsafe => "unsafe",
            Self::Corrupt => "corrupt",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::Starting => "starting",
            Self::StartOverdue => "start overdue",
            Self::Draining => "draining",
            Self::DrainOverdue => "drain overdue",
            Self::Wedged => "wedged",
            Self::Overdue => "overdue",
            Self::CutOff => "cut off",
            Self::Alive => "alive",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the worker should be left running; `None` where the checker cannot tell.
    pub fn live(self) -> Option<bool> {
        match self {
            Self::Starting | Self::Draining | Self::CutOff | Self::Alive => Some(true),
            Self::Unknown => None,
            _ => Some(false),
        }
    }

    /// Whether the worker takes work; `None` where the checker cannot tell.
    pub fn ready(self) -> Option<bool> {
        match self {
            Self::Alive => Some(true),
            Self::Unknown => None,
            _ => Some(false),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was found where a record should be.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Evidence<'r> {
    /// Nothing, or nothing that can be read.
    Missing(io::ErrorKind),
    /// A file that must not be trusted.
    Unsafe(Unsafe),
    /// Something that is no record.
    Corrupt(&'r Corrupt),
    /// An empty file, last touched `age_ms` ago by the wall clock; negative where that is in the future.
    Bare {
        /// The wall clock's milliseconds since the file's mtime.
        age_ms: i64,
    },
    /// A record.
    Record(&'r Record),
    /// The word of somebody who could see the worker's process that it is no more.
    Lost {
        /// The milliseconds since its last beat.
        age_ms: u64,
    },
    /// The word of an index that no beat came within the promise.
    Expired {
        /// The milliseconds since its last beat; where its promise is not known, since that ended.
        age_ms: u64,
        /// How long its silence might last, where that is known.
        promise_ms: Option<u64>,
    },
    /// The checker itself is out of something (descriptors, memory), so it cannot tell.
    Unreadable(io::ErrorKind),
}

/// Why a file must not be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsafe {
    /// A symbolic link.
    Link,
    /// A directory, FIFO, socket or device.
    NotRegular,
    /// It belongs to this user id, which is not one of those that may own it.
    Owner(u32),
    /// Others than its owner may write to it, by this mode.
    Writable(u32),
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("it is a symbolic link"),
            Self::NotRegular => f.write_str("it is not a regular file"),
            Self::Owner(uid) => write!(f, "it belongs to user {uid}"),
            Self::Writable(mode) => write!(
                f,
                "others than its owner may write to it (mode {mode:04o}; umask 022, or chmod go-w, mends it)"
            ),
        }
    }
}

/// The facts about the machine that a record is held against.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'m> {
    /// `CLOCK_MONOTONIC` in milliseconds, read after the record.
    pub now_mono_ms: u64,
    /// The kernel's boot id; empty where it is not known.
    pub boot: &'m str,
    /// The inode of the observer's PID namespace; 0 where it is not known.
    pub pid_ns: u64,
    /// The process that has the record's pid, as the observer sees it.
    pub process: Process,
}

impl<'m> Machine<'m> {
    /// The machine as a running worker sees it at the moment of its own record.
    pub fn of(record: &'m Record) -> Self {
        Self {
            now_mono_ms: record.at_mono_ms,
            boot: &record.boot,
            pid_ns: record.pid_ns,
            process: Process::Present { start: record.pid_start, stopped: false },
        }
    }
}

/// What the observer knows of the process that has a record's pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// It cannot be seen: another PID namespace, or a hidden `/proc`.
    Unknown,
    /// There is none, or only a zombie.
    Absent,
    /// There is one.
    Present {
        /// Its start time in clock ticks since boot.
        start: u64,
        /// Whether it is stopped (`SIGSTOP`, a debugger).
        stopped: bool,
    },
}

/// A verdict and its reason. `Display` gives the reason, as one sentence without the verdict's name.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'r> {
    /// What is concluded.
    pub verdict: Verdict,
    reason: Reason<'r>,
}

#[derive(Clone, Copy, Debug)]
enum Reason<'r> {
    Missing(io::ErrorKind),
    Unsafe(Unsafe),
    Corrupt(&'r Corrupt),
    Ahead(u64),
    Stopped,
    Booted,
    Absent(u32),
    OtherProcess(u32),
    Lost(u64),
    Silent { age: u64, budget: u64, promised: bool, stopped: bool },
    Expired(u64),
    BareAhead(u64),
    BareSilent { age: u64, budget: u64 },
    Until { what: &'static str, left: Option<u64> },
    UntilOverdue { what: &'static str, late: u64 },
    Wedged { late: u64, budget: u64 },
    Overdue { name: &'r str, late: u64, budget: u64 },
    NoBroker { since: u64 },
    CutOff { since: u64, failures: u64 },
    Bare { age: u64 },
    Alive { age: u64, record: &'r Record },
    Unreadable(io::ErrorKind),
}

/// Judges one worker.
///
/// `max_age_ms` takes the place of the record's own promise, and makes a bare file a heartbeat by its mtime;
/// without it, an empty file is no record.
///
/// ```
/// use heartbeat::verdict::{Evidence, Machine, Process, Verdict, judge};
///
/// let machine = Machine { now_mono_ms: 5_000, boot: "", pid_ns: 0, process: Process::Unknown };
/// let judgement = judge(Evidence::Bare { age_ms: 61_000 }, &machine, Some(60_000));
/// assert_eq!(judgement.verdict, Verdict::Silent);
/// assert_eq!(judgement.to_string(), "not touched for 61 s (at most 60 s)");
/// ```
pub fn judge<'r>(evidence: Evidence<'r>, machine: &Machine<'_>, max_age_ms: Option<u64>) -> Judgement<'r> {
    let (verdict, reason) = match evidence {
        Evidence::Missing(kind) => (Verdict::Missing, Reason::Missing(kind)),
        Evidence::Unsafe(why) => (Verdict::Unsafe, Reason::Unsafe(why)),
        Evidence::Corrupt(why) => (Verdict::Corrupt, Reason::Corrupt(why)),
        Evidence::Unreadable(kind) => (Verdict::Unknown, Reason::Unreadable(kind)),
        Evidence::Lost { age_ms } => (Verdict::Gone, Reason::Lost(age_ms)),
        Evidence::Expired { age_ms, promise_ms } => (Verdict::Silent, expired(age_ms, promise_ms)),
        Evidence::Bare { age_ms } => judge_bare(age_ms, max_age_ms),
        Evidence::Record(record) => judge_life(record, machine, max_age_ms)
            .unwrap_or_else(|| judge_account(record, machine.now_mono_ms)),
    };
    Judgement { verdict, reason }
}

fn expired(age: u64, promise_ms: Option<u64>) -> Reason<'static> {
    match promise_ms {
        Some(budget) => Reason::Silent { age, budget, promised: true, stopped: false },
        None => Reason::Expired(age),
    }
}

fn judge_bare(age_ms: i64, max_age_ms: Option<u64>) -> (Verdict, Reason<'static>) {
    let Some(budget) = max_age_ms else {
        return (Verdict::Corrupt, Reason::Corrupt(&Corrupt::Empty));
    };
    let age = u64::try_from(age_ms).unwrap_or(0);
    let ahead = age_ms.min(0).unsigned_abs();
    if ahead > AHEAD_MS {
        (Verdict::Silent, Reason::BareAhead(ahead))
    } else if age > budget {
        (Verdict::Silent, Reason::BareSilent { age, budget })
    } else {
        (Verdict::Alive, Reason::Bare { age })
    }
}

/// Whether the worker's process is still there and beating: what the machine knows better than the worker.
fn judge_life<'r>(
    record: &'r Record,
    machine: &Machine<'_>,
    max_age_ms: Option<u64>,
) -> Option<(Verdict, Reason<'r>)> {
    let (budget, promised) = (max_age_ms.unwrap_or(record.promise_ms), max_age_ms.is_none());
    let same_boot = machine.boot.is_empty() || record.boot.is_empty() || machine.boot == record.boot;
    let ahead = record.at_mono_ms.saturating_sub(machine.now_mono_ms);
    let age = machine.now_mono_ms.saturating_sub(record.at_mono_ms);
    let visible = machine.pid_ns != 0 && machine.pid_ns == record.pid_ns;
    let stopped = match machine.process {
        Process::Present { stopped, .. } => visible && stopped,
        Process::Absent | Process::Unknown => false,
    };
    if same_boot && ahead > AHEAD_MS {
        return Some((Verdict::Corrupt, Reason::Ahead(ahead)));
    }
    if record.status == Status::Stopped {
        return Some((Verdict::Stopped, Reason::Stopped));
    }
    if !same_boot {
        return Some((Verdict::Gone, Reason::Booted));
    }
    match machine.process {
        Process::Absent if visible => return Some((Verdict::Gone, Reason::Absent(record.pid))),
        Process::Present { start, .. } if visible && start != record.pid_start => {
            return Some((Verdict::Gone, Reason::OtherProcess(record.pid)));
        }
        _ => {}
    }
    (age > budget).then_some((Verdict::Silent, Reason::Silent { age, budget, promised, stopped }))
}

/// What the worker's own account amounts to, as of the moment when it was given.
fn judge_account(record: &Record, now: u64) -> (Verdict, Reason<'_>) {
    let at = record.at_mono_ms;
    let until = |what, within, past| match record.until_mono_ms {
        Some(until) if at > until => (past, Reason::UntilOverdue { what, late: now.saturating_sub(until) }),
        until => (within, Reason::Until { what, left: until.map(|until| until.saturating_sub(now)) }),
    };
    match record.status {
        Status::Starting => return until("start", Verdict::Starting, Verdict::StartOverdue),
        Status::Draining => return until("drain", Verdict::Draining, Verdict::DrainOverdue),
        Status::Stopped | Status::Idle | Status::Busy => {}
    }
    if let Some(pulse) = record.pulse.filter(|pulse| at > pulse.due_mono_ms) {
        let budget = pulse.due_mono_ms.saturating_sub(pulse.pulsed_mono_ms);
        return (Verdict::Wedged, Reason::Wedged { late: now.saturating_sub(pulse.due_mono_ms), budget });
    }
    if let Some(task) = &record.tasks.nearest
        && let Some(due) = task.due_mono_ms.filter(|due| at > *due)
    {
        let budget = due.saturating_sub(task.since_mono_ms);
        let late = now.saturating_sub(due);
        return (Verdict::Overdue, Reason::Overdue { name: &task.name, late, budget });
    }
    if let Some(broker) = record.broker.filter(|_| is_without_broker(record)) {
        return (Verdict::CutOff, Reason::NoBroker { since: now.saturating_sub(broker.lost_mono_ms) });
    }
    if let Some(stat) = record.stat.filter(|stat| at.saturating_sub(stat.ok_mono_ms) > record.promise_ms) {
        let since = now.saturating_sub(stat.ok_mono_ms);
        return (Verdict::CutOff, Reason::CutOff { since, failures: stat.failures });
    }
    (Verdict::Alive, Reason::Alive { age: now.saturating_sub(at), record })
}

/// Whether, by its own account, the worker had not reached its broker for longer than its promise.
pub(crate) fn is_without_broker(record: &Record) -> bool {
    record
        .broker
        .is_some_and(|broker| record.at_mono_ms.saturating_sub(broker.lost_mono_ms) > record.promise_ms)
}

impl fmt::Display for Judgement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Missing(io::ErrorKind::NotFound) => f.write_str("there is no beat file"),
            Reason::Missing(kind) => write!(f, "the beat file cannot be read: {kind}"),
            Reason::Unsafe(why) => write!(f, "the beat file is not to be trusted: {why}"),
            Reason::Corrupt(why) => write!(f, "there is no record in it: {why}"),
            Reason::Ahead(ahead) => {
                write!(f, "there is no record in it: it was made {} from now", Human(ahead))
            }
            Reason::Stopped => f.write_str("it said that it stopped"),
            Reason::Booted => f.write_str("it is a record of another boot"),
            Reason::Absent(pid) => write!(f, "its process {pid} is no more"),
            Reason::OtherProcess(pid) => write!(f, "its pid {pid} belongs to another process now"),
            Reason::Lost(age) => write!(f, "its process is no more, last beat {} ago", Human(age)),
            Reason::Silent { age, budget, promised, stopped } => {
                let of = if promised { "promised within" } else { "at most" };
                write!(f, "no beat for {} ({of} {})", Human(age), Human(budget))?;
                if stopped { f.write_str("; its process is stopped") } else { Ok(()) }
            }
            Reason::Expired(since) => write!(f, "its promise ended {} ago", Human(since)),
            Reason::BareAhead(ahead) => write!(f, "last touched {} from now", Human(ahead)),
            Reason::BareSilent { age, budget } => {
                write!(f, "not touched for {} (at most {})", Human(age), Human(budget))
            }
            Reason::Until { what, left: Some(left) } => write!(f, "its {what} is due in {}", Human(left)),
            Reason::Until { what, left: None } => write!(f, "its {what} has no deadline"),
            Reason::UntilOverdue { what, late } => write!(f, "its {what} was due {} ago", Human(late)),
            Reason::Wedged { late, budget } => {
                write!(f, "its loop was due {} ago (budget {})", Human(late), Human(budget))
            }
            Reason::Overdue { name, late, budget } => {
                write!(f, "its task {name:?} was due {} ago (budget {})", Human(late), Human(budget))
            }
            Reason::NoBroker { since } => write!(f, "it has not reached its broker for {}", Human(since)),
            Reason::CutOff { since, failures } => {
                write!(f, "it has not reached its stat key for {} ({failures} failures)", Human(since))
            }
            Reason::Bare { age } => write!(f, "touched {} ago", Human(age)),
            Reason::Alive { age, record } => {
                write!(f, "{}, beat {} ago", record.status, Human(age))?;
                match record.tasks.running {
                    0 => Ok(()),
                    1 => f.write_str(", 1 task running"),
                    running => write!(f, ", {running} tasks running"),
                }
            }
            Reason::Unreadable(kind) => write!(f, "the checker cannot tell: {kind}"),
        }
    }
}

#[cfg(test)]
mod tests;
