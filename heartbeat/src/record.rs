//! The record: the self-describing document that a beat publishes, and its one line of JSON.
//!
//! This file holds the record's format, once, for writer and reader. It knows nothing of files, clocks or
//! verdicts. Writing into a buffer that has grown to [`MAX_BYTES`] allocates nothing, and reading never
//! allocates more than the line itself.

use std::fmt;

use crate::json::{Reader, Syntax, write_number, write_string};

/// The format version that this crate writes, and the only one that it reads.
pub const VERSION: u64 = 1;

/// The largest record, in bytes, its newline included.
pub const MAX_BYTES: usize = 4096;

/// The largest task name in a record, in bytes of UTF-8. A longer one is cut at a character.
pub const MAX_TASK_NAME: usize = 64;

/// What a worker published about itself at one moment.
///
/// Times named `*_mono_ms` are `CLOCK_MONOTONIC` milliseconds of the machine whose boot id is `boot`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The incarnation: 128 random bits, new at each start.
    pub id: Id,
    /// The named group of workers that share the work.
    pub cluster: String,
    /// The worker's name, unique in its cluster.
    pub worker: String,
    /// The name of the host that the worker runs on.
    pub host: String,
    /// The queues that the worker takes work from.
    pub queues: Vec<String>,
    /// The worker's process id, as seen in its own PID namespace.
    pub pid: u32,
    /// When that process started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub pid_start: u64,
    /// The inode of the worker's PID namespace.
    pub pid_ns: u64,
    /// The kernel's boot id.
    pub boot: String,
    /// The beat counter: 1 for the first beat.
    pub seq: u64,
    /// When this beat was made.
    pub at_mono_ms: u64,
    /// The same by the wall clock, in milliseconds since 1970, for people.
    pub at_unix_ms: u64,
    /// How often the worker beats.
    pub interval_ms: u64,
    /// How long the worker's own silence may last before it counts as lost.
    pub promise_ms: u64,
    /// What the worker says that it is doing.
    pub status: Status,
    /// When a status of `starting` or `draining` is overdue; absent where that state has no deadline.
    pub until_mono_ms: Option<u64>,
    /// The worker's own loop, absent where nothing pulses, and while `broker` is there: a loop that waits for its
    /// broker cannot pulse. In JSON: `loop`.
    pub pulse: Option<Pulse>,
    /// The worker's tasks.
    pub tasks: Tasks,
    /// The stat key, present where one is configured.
    pub stat: Option<Stat>,
    /// Present while the worker cannot reach where its work comes from.
    pub broker: Option<Broker>,
    /// The worker program's own version.
    pub version: Option<String>,
}

/// A record's incarnation: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub u128);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl Id {
    /// Its digits, as text has them.
    pub(crate) fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        for (digit, shift) in digits.iter_mut().zip((0..32).rev()) {
            *digit = b"0123456789abcdef"[(self.0 >> (shift * 4)) as usize & 0xf];
        }
        digits
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |number: u128, byte: u8| match byte {
            b'0'..=b'9' => Some(number * 16 + u128::from(byte - b'0')),
            b'a'..=b'f' => Some(number * 16 + u128::from(byte - b'a' + 10)),
            _ => None,
        };
        if text.len() == 32 { text.bytes().try_fold(0, digit).map(Self) } else { None }
    }
}

/// What a worker says that it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not yet able to take work.
    Starting,
    /// Able to take work, with none at hand.
    Idle,
    /// At least one task is running.
    Busy,
    /// Finishing what it has; taking no more.
    Draining,
    /// Ended by its own decision.
    Stopped,
}

impl Status {
    const ALL: [Self; 5] = [Self::Starting, Self::Idle, Self::Busy, Self::Draining, Self::Stopped];

    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The last pulse of the worker's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// When the loop last pulsed.
    pub pulsed_mono_ms: u64,
    /// By when it said that it would pulse again.
    pub due_mono_ms: u64,
}

/// The worker's tasks: counters, and the running task whose deadline is nearest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tasks {
    /// How many tasks run now.
    pub running: u64,
    /// How many ended well since the worker's start.
    pub done: u64,
    /// How many failed since the worker's start.
    pub failed: u64,
    /// The running task whose deadline is nearest; where none has a deadline, the one that has run longest.
    /// In JSON its fields stand beside the counters.
    pub nearest: Option<Nearest>,
}

/// The running task whose deadline is nearest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The task's name, at most [`MAX_TASK_NAME`] bytes.
    pub name: String,
    /// When it started.
    pub since_mono_ms: u64,
    /// By when it was declared to end, or since when the process that does it has been stopped or gone
    /// ([`Task::held_by`](crate::Task::held_by)); `None` where it has no deadline.
    pub due_mono_ms: Option<u64>,
}

/// How the worker reaches its stat key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// When a publication last succeeded; until the first one, when the worker started.
    pub ok_mono_ms: u64,
    /// How many have failed since.
    pub failures: u64,
}

/// Where the worker's work comes from, while the worker cannot reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Since when.
    pub lost_mono_ms: u64,
}

/// Why some bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corrupt {
    /// No bytes at all.
    Empty,
    /// More than [`MAX_BYTES`].
    TooLarge,
    /// Not the JSON text of one object.
    Syntax(Syntax),
    /// A format version that this reader does not know.
    Version(u64),
    /// A field that every record has is not there.
    Missing(&'static str),
    /// A field stands there twice.
    Twice(&'static str),
    /// A field's value is of another type, or cannot be.
    Value(&'static str),
    /// It is not signed, where it has to be (feature `redis`).
    Unsigned,
    /// It is signed with none of the keys that count, or was changed since.
    Signature,
    /// It was signed long before, or by another clock: somebody has sent it again.
    Stale,
    /// It is said to be good for much longer than it promises itself.
    Lasting,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLarge => write!(f, "it is larger than {MAX_BYTES} bytes"),
            Self::Syntax(syntax) => syntax.fmt(f),
            Self::Version(version) => write!(f, "its version is {version}, this program reads {VERSION}"),
            Self::Missing(field) => write!(f, "it has no \"{field}\""),
            Self::Twice(field) => write!(f, "it has \"{field}\" twice"),
            Self::Value(field) => write!(f, "its \"{field}\" has an impossible value"),
            Self::Unsigned => f.write_str("it is not signed"),
            Self::Signature => f.write_str("its signature is not right"),
            Self::Stale => f.write_str("it was signed too long ago"),
            Self::Lasting => f.write_str("it is said to be good for longer than it promises"),
        }
    }
}

impl std::error::Error for Corrupt {}

impl From<Syntax> for Corrupt {
    fn from(syntax: Syntax) -> Self {
        Self::Syntax(syntax)
    }
}

impl Record {
    /// Replaces what is in `line` with the record's line of JSON and its newline.
    pub fn write(&self, line: &mut Vec<u8>) {
        line.clear();
        let mut object = Object::open(line);
        object.number("v", VERSION);
        object.id("id", self.id);
        object.string("cluster", &self.cluster);
        object.string("worker", &self.worker);
        object.string("host", &self.host);
        object.strings("queues", &self.queues);
        object.number("pid", self.pid.into());
        object.number("pid_start", self.pid_start);
        object.number("pid_ns", self.pid_ns);
        object.string("boot", &self.boot);
        object.number("seq", self.seq);
        object.number("at_mono_ms", self.at_mono_ms);
        object.number("at_unix_ms", self.at_unix_ms);
        object.number("interval_ms", self.interval_ms);
        object.number("promise_ms", self.promise_ms);
        object.string("status", self.status.as_str());
        object.optional_number("until_mono_ms", self.until_mono_ms);
        if let Some(pulse) = &self.pulse {
            let mut nested = object.object("loop");
            nested.number("pulsed_mono_ms", pulse.pulsed_mono_ms);
            nested.number("due_mono_ms", pulse.due_mono_ms);
            nested.close();
        }
        let mut tasks = object.object("tasks");
        tasks.number("running", self.tasks.running);
        tasks.number("done", self.tasks.done);
        tasks.number("failed", self.tasks.failed);
        if let Some(nearest) = &self.tasks.nearest {
            tasks.string("name", &nearest.name);
            tasks.number("since_mono_ms", nearest.since_mono_ms);
            tasks.optional_number("due_mono_ms", nearest.due_mono_ms);
        }
        tasks.close();
        if let Some(stat) = &self.stat {
            let mut nested = object.object("stat");
            nested.number("ok_mono_ms", stat.ok_mono_ms);
            nested.number("failures", stat.failures);
            nested.close();
        }
        if let Some(broker) = &self.broker {
            let mut nested = object.object("broker");
            nested.number("lost_mono_ms", broker.lost_mono_ms);
            nested.close();
        }
        if let Some(version) = &self.version {
            object.string("version", version);
        }
        object.close();
        line.push(b'\n');
    }

    /// Reads one record. Fields that it does not know are passed over; everything else that is not exactly
    /// what [`Record::write`] could have written of some worker is an error.
    pub fn parse(line: &[u8]) -> Result<Self, Corrupt> {
        if line.is_empty() {
            return Err(Corrupt::Empty);
        }
        if line.len() > MAX_BYTES {
            return Err(Corrupt::TooLarge);
        }
        let mut reader = Reader::new(line)?;
        let mut fields = Fields::default();
        reader.object(|reader, key| fields.take(reader, key))?;
        reader.end()?;
        fields.record()
    }
}

/// Writes the members of one JSON object.
struct Object<'a> {
    line: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(line: &'a mut Vec<u8>) -> Self {
        line.push(b'{');
        Self { line, empty: true }
    }

    fn key(&mut self, key: &str) {
        if !self.empty {
            self.line.push(b',');
        }
        self.empty = false;
        write_string(self.line, key);
        self.line.push(b':');
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        write_number(self.line, value);
    }

    fn optional_number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        write_string(self.line, value);
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.line.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.line.push(b',');
            }
            write_string(self.line, value);
        }
        self.line.push(b']');
    }

    fn id(&mut self, key: &str, id: Id) {
        self.key(key);
        self.line.push(b'"');
        self.line.extend_from_slice(&id.digits());
        self.line.push(b'"');
    }

    fn object(&mut self, key: &str) -> Object<'_> {
        self.key(key);
        Object::open(self.line)
    }

    fn close(self) {
        self.line.push(b'}');
    }
}

/// What has been read of a record so far.
#[derive(Default)]
struct Fields {
    version_known: bool,
    id: Option<Id>,
    cluster: Option<String>,
    worker: Option<String>,
    host: Option<String>,
    queues: Option<Vec<String>>,
    pid: Option<u32>,
    pid_start: Option<u64>,
    pid_ns: Option<u64>,
    boot: Option<String>,
    seq: Option<u64>,
    at_mono_ms: Option<u64>,
    at_unix_ms: Option<u64>,
    interval_ms: Option<u64>,
    promise_ms: Option<u64>,
    status: Option<Status>,
    until_mono_ms: Option<u64>,
    pulse: Option<Pulse>,
    tasks: Option<Tasks>,
    stat: Option<Stat>,
    broker: Option<Broker>,
    version: Option<String>,
}

impl Fields {
    fn take(&mut self, reader: &mut Reader<'_>, key: &str) -> Result<(), Corrupt> {
        match key {
            "v" => match number(reader, "v")? {
                VERSION if self.version_known => return Err(Corrupt::Twice("v")),
                VERSION => self.version_known = true,
                other => return Err(Corrupt::Version(other)),
            },
            "id" => set(&mut self.id, "id", id(reader)?)?,
            "cluster" => set(&mut self.cluster, "cluster", name(reader, "cluster")?)?,
            "worker" => set(&mut self.worker, "worker", name(reader, "worker")?)?,
            "host" => set(&mut self.host, "host", name(reader, "host")?)?,
            "queues" => set(&mut self.queues, "queues", queues(reader)?)?,
            "pid" => set(&mut self.pid, "pid", pid(reader)?)?,
            "pid_start" => set(&mut self.pid_start, "pid_start", number(reader, "pid_start")?)?,
            "pid_ns" => set(&mut self.pid_ns, "pid_ns", number(reader, "pid_ns")?)?,
            "boot" => set(&mut self.boot, "boot", text(reader, "boot")?)?,
            "seq" => set(&mut self.seq, "seq", number(reader, "seq")?)?,
            "at_mono_ms" => set(&mut self.at_mono_ms, "at_mono_ms", number(reader, "at_mono_ms")?)?,
            "at_unix_ms" => set(&mut self.at_unix_ms, "at_unix_ms", number(reader, "at_unix_ms")?)?,
            "interval_ms" => set(&mut self.interval_ms, "interval_ms", number(reader, "interval_ms")?)?,
            "promise_ms" => set(&mut self.promise_ms, "promise_ms", number(reader, "promise_ms")?)?,
            "status" => set(&mut self.status, "status", status(reader)?)?,
            "until_mono_ms" => {
                set(&mut self.until_mono_ms, "until_mono_ms", number(reader, "until_mono_ms")?)?;
            }
            "loop" => set(&mut self.pulse, "loop", pulse(reader)?)?,
            "tasks" => set(&mut self.tasks, "tasks", tasks(reader)?)?,
            "stat" => set(&mut self.stat, "stat", stat(reader)?)?,
            "broker" => set(&mut self.broker, "broker", broker(reader)?)?,
            "version" => set(&mut self.version, "version", name(reader, "version")?)?,
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn record(self) -> Result<Record, Corrupt> {
        if !self.version_known {
            return Err(Corrupt::Missing("v"));
        }
        let record = Record {
            id: need(self.id, "id")?,
            cluster: need(self.cluster, "cluster")?,
            worker: need(self.worker, "worker")?,
            host: need(self.host, "host")?,
            queues: need(self.queues, "queues")?,
            pid: need(self.pid, "pid")?,
            pid_start: need(self.pid_start, "pid_start")?,
            pid_ns: need(self.pid_ns, "pid_ns")?,
            boot: need(self.boot, "boot")?,
            seq: need(self.seq, "seq")?,
            at_mono_ms: need(self.at_mono_ms, "at_mono_ms")?,
            at_unix_ms: need(self.at_unix_ms, "at_unix_ms")?,
            interval_ms: need(self.interval_ms, "interval_ms")?,
            promise_ms: need(self.promise_ms, "promise_ms")?,
            status: need(self.status, "status")?,
            until_mono_ms: self.until_mono_ms,
            pulse: self.pulse,
            tasks: need(self.tasks, "tasks")?,
            stat: self.stat,
            broker: self.broker,
            version: self.version,
        };
        match record.impossible() {
            Some(field) => Err(Corrupt::Value(field)),
            None => Ok(record),
        }
    }
}

impl Record {
    /// The first field whose value no publisher can have written beside the others.
    fn impossible(&self) -> Option<&'static str> {
        let at = self.at_mono_ms;
        let nearest = self.tasks.nearest.as_ref();
        let faults = [
            (self.seq == 0, "seq"),
            (self.interval_ms == 0, "interval_ms"),
            (self.promise_ms < self.interval_ms, "promise_ms"),
            (self.pulse.is_some_and(|p| p.pulsed_mono_ms > at || p.due_mono_ms < p.pulsed_mono_ms), "loop"),
            (self.tasks.running == 0 && nearest.is_some(), "tasks"),
            (nearest.is_some_and(|n| n.since_mono_ms > at), "tasks"),
            (nearest.is_some_and(|n| n.due_mono_ms.is_some_and(|due| due < n.since_mono_ms)), "tasks"),
            (self.stat.is_some_and(|s| s.ok_mono_ms > at), "stat"),
            (self.broker.is_some_and(|b| b.lost_mono_ms > at), "broker"),
        ];
        faults.into_iter().find_map(|(fault, field)| fault.then_some(field))
    }
}

fn set<T>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), Corrupt> {
    if slot.replace(value).is_some() { Err(Corrupt::Twice(field)) } else { Ok(()) }
}

fn need<T>(slot: Option<T>, field: &'static str) -> Result<T, Corrupt> {
    slot.ok_or(Corrupt::Missing(field))
}

fn number(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, Corrupt> {
    reader.number()?.ok_or(Corrupt::Value(field))
}

/// Text for people's eyes: nothing in it may steer a terminal.
fn text(reader: &mut Reader<'_>, field: &'static str) -> Result<String, Corrupt> {
    let text = reader.string()?.ok_or(Corrupt::Value(field))?;
    // All of them, because that is quicker than to look for the first.
    let plain = text.bytes().fold(true, |plain, byte| plain & matches!(byte, 0x20..0x7f));
    if !plain && text.chars().any(char::is_control) {
        Err(Corrupt::Value(field))
    } else {
        Ok(text.into_owned())
    }
}

fn name(reader: &mut Reader<'_>, field: &'static str) -> Result<String, Corrupt> {
    let name = text(reader, field)?;
    if name.is_empty() { Err(Corrupt::Value(field)) } else { Ok(name) }
}

fn id(reader: &mut Reader<'_>) -> Result<Id, Corrupt> {
    reader.string()?.and_then(|text| Id::parse(&text)).ok_or(Corrupt::Value("id"))
}

fn pid(reader: &mut Reader<'_>) -> Result<u32, Corrupt> {
    let pid = number(reader, "pid")?;
    // A process id is a positive `pid_t`.
    u32::try_from(pid).ok().filter(|pid| (1..=0x7fff_ffff).contains(pid)).ok_or(Corrupt::Value("pid"))
}

fn status(reader: &mut Reader<'_>) -> Result<Status, Corrupt> {
    reader.string()?.and_then(|word| Status::parse(&word)).ok_or(Corrupt::Value("status"))
}

fn queues(reader: &mut Reader<'_>) -> Result<Vec<String>, Corrupt> {
    let mut queues = Vec::new();
    if !reader.at_array() {
        return Err(Corrupt::Value("queues"));
    }
    reader.array(|reader| -> Result<(), Corrupt> {
        queues.push(name(reader, "queues")?);
        Ok(())
    })?;
    Ok(queues)
}

/// Reads an object whose members of interest are all numbers.
fn numbers<const N: usize>(
    reader: &mut Reader<'_>,
    field: &'static str,
    keys: [&'static str; N],
) -> Result<[u64; N], Corrupt> {
    let mut values = [None; N];
    if !reader.at_object() {
        return Err(Corrupt::Value(field));
    }
    reader.object(|reader, key| -> Result<(), Corrupt> {
        match keys.iter().position(|known| *known == key) {
            Some(index) => set(&mut values[index], field, number(reader, field)?),
            None => Ok(reader.skip()?),
        }
    })?;
    let mut found = [0; N];
    for (found, value) in found.iter_mut().zip(values) {
        *found = value.ok_or(Corrupt::Value(field))?;
    }
    Ok(found)
}

fn pulse(reader: &mut Reader<'_>) -> Result<Pulse, Corrupt> {
    let [pulsed_mono_ms, due_mono_ms] = numbers(reader, "loop", ["pulsed_mono_ms", "due_mono_ms"])?;
    Ok(Pulse { pulsed_mono_ms, due_mono_ms })
}

fn stat(reader: &mut Reader<'_>) -> Result<Stat, Corrupt> {
    let [ok_mono_ms, failures] = numbers(reader, "stat", ["ok_mono_ms", "failures"])?;
    Ok(Stat { ok_mono_ms, failures })
}

fn broker(reader: &mut Reader<'_>) -> Result<Broker, Corrupt> {
    let [lost_mono_ms] = numbers(reader, "broker", ["lost_mono_ms"])?;
    Ok(Broker { lost_mono_ms })
}

fn tasks(reader: &mut Reader<'_>) -> Result<Tasks, Corrupt> {
    const FIELD: &str = "tasks";
    let (mut running, mut done, mut failed) = (None, None, None);
    let (mut task, mut since, mut due) = (None, None, None);
    if !reader.at_object() {
        return Err(Corrupt::Value(FIELD));
    }
    reader.object(|reader, key| -> Result<(), Corrupt> {
        match key {
            "running" => set(&mut running, FIELD, number(reader, FIELD)?),
            "done" => set(&mut done, FIELD, number(reader, FIELD)?),
            "failed" => set(&mut failed, FIELD, number(reader, FIELD)?),
            "name" => set(&mut task, FIELD, text(reader, FIELD)?),
            "since_mono_ms" => set(&mut since, FIELD, number(reader, FIELD)?),
            "due_mono_ms" => set(&mut due, FIELD, number(reader, FIELD)?),
            _ => Ok(reader.skip()?),
        }
    })?;
    let nearest = match (task, since, due) {
        (Some(name), Some(since_mono_ms), due_mono_ms) => Some(Nearest { name, since_mono_ms, due_mono_ms }),
        (None, None, None) => None,
        _ => return Err(Corrupt::Value(FIELD)),
    };
    let need = |value: Option<u64>| value.ok_or(Corrupt::Value(FIELD));
    Ok(Tasks { running: need(running)?, done: need(done)?, failed: need(failed)?, nearest })
}

#[cfg(test)]
pub(crate) mod tests;
