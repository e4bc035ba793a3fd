//! Configuration: from code, then from the environment, then the defaults; and the start.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock;
use crate::duration::{self, millis};
use crate::error::{Error, ErrorKind};
use crate::extras::Extras;
use crate::file::{BeatFile, DEFAULT_MODE, Failure};
#[cfg(feature = "redis")]
use crate::fleet::{self, SigningKeys, Url};
use crate::heartbeat::Heartbeat;
use crate::observe::{boot_id, pid_namespace, process};
use crate::process;
use crate::publisher::{Phase, Publisher, Shared, Subject};
use crate::record::{self, Broker, Id, Nearest, Pulse, Record, Stat, Status, Tasks};
use crate::sink::Sink;
#[cfg(feature = "redis")]
use crate::stat::StatKey;
use crate::verdict::Process;

/// Where the beat file is, where nothing says otherwise.
pub const DEFAULT_FILE: &str = "/tmp/heartbeat";

/// How often a worker beats, where nothing says otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a worker's silence may last, where nothing says otherwise.
pub const DEFAULT_PROMISE: Duration = Duration::from_secs(30);

/// How long a loop may take from pulse to pulse, where nothing says otherwise.
pub const DEFAULT_LOOP_BUDGET: Duration = Duration::from_secs(30);

const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// How long [`Builder::start`] waits for the first beat. A disk that hangs does not keep a worker from its work.
const START_WAIT: Duration = Duration::from_secs(6);

type Lookup = Box<dyn Fn(&str) -> Option<OsString>>;

/// The settings of a heartbeat.
///
/// What is not set here is taken from the environment at [`Builder::start`], read once: `HEARTBEAT_FILE`,
/// `HEARTBEAT_CLUSTER`, `HEARTBEAT_WORKER`, `HEARTBEAT_QUEUES` (with commas), `HEARTBEAT_INTERVAL`,
/// `HEARTBEAT_PROMISE`, `HEARTBEAT_LOOP_BUDGET`, and `HEARTBEAT_REDIS_URL` and `HEARTBEAT_KEY` (feature `redis`). An empty
/// variable counts as not set.
#[must_use = "a builder does nothing before its start"]
pub struct Builder {
    lookup: Lookup,
    cluster: Option<String>,
    worker: Option<String>,
    queues: Option<Vec<String>>,
    version: Option<String>,
    file: FileChoice,
    file_may_wait: bool,
    file_mode: u32,
    interval: Option<Duration>,
    promise: Option<Duration>,
    loop_budget: Option<Duration>,
    start_deadline: Option<Duration>,
    drain_deadline: Option<Duration>,
    #[cfg(feature = "redis")]
    redis: Option<String>,
    #[cfg(feature = "redis")]
    signing: Option<SigningKeys>,
    #[cfg(feature = "endpoint")]
    endpoint: Option<std::net::SocketAddr>,
}

enum FileChoice {
    Environment,
    Path(PathBuf),
    None,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cluster", &self.cluster)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            lookup: Box::new(|name| std::env::var_os(name)),
            cluster: None,
            worker: None,
            queues: None,
            version: None,
            file: FileChoice::Environment,
            file_may_wait: false,
            file_mode: DEFAULT_MODE,
            interval: None,
            promise: None,
            loop_budget: None,
            start_deadline: None,
            drain_deadline: None,
            #[cfg(feature = "redis")]
            redis: None,
            #[cfg(feature = "redis")]
            signing: None,
            #[cfg(feature = "endpoint")]
            endpoint: None,
        }
    }
}

impl Builder {
    /// The group of workers that share the work. Default: `default`.
    pub fn cluster(mut self, cluster: impl Into<String>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }

    /// This worker's name, unique in its cluster. Default: `HOST:PID`.
    pub fn worker(mut self, worker: impl Into<String>) -> Self {
        self.worker = Some(worker.into());
        self
    }

    /// The queues that this worker takes work from. Default: none named.
    pub fn queues(mut self, queues: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// The worker program's own version, for people.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The beat file; relative to the folder at the start. Default: `/tmp/heartbeat`. A folder on tmpfs is best.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = FileChoice::Path(path.into());
        self
    }

    /// No beat file, whatever the environment says.
    pub fn no_file(mut self) -> Self {
        self.file = FileChoice::None;
        self
    }

    /// A path that is refused at the start, because another living worker beats there or because of what stands there, is
    /// no error: the heartbeat starts, tells of it, and tries again once in a promise.
    pub fn file_may_wait(mut self) -> Self {
        self.file_may_wait = true;
        self
    }

    /// The beat file's permission bits, exactly, whatever the umask. Default: 0o600. Never writable for group
    /// or others. Other than the default costs one system call a beat.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.file_mode = mode;
        self
    }

    /// How often to beat, from 10 ms. Default: 1 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// How long this worker's silence may last before it counts as lost; at least two intervals. Default: 30 s.
    pub fn promise(mut self, promise: Duration) -> Self {
        self.promise = Some(promise);
        self
    }

    /// How long the loop may take from one [`Heartbeat::pulse`] to the next. Default: 30 s.
    pub fn loop_budget(mut self, budget: Duration) -> Self {
        self.loop_budget = Some(budget);
        self
    }

    /// The worker is `starting` until [`Heartbeat::ready`], and overdue where that takes longer. Default: it is
    /// ready from its first beat.
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = Some(deadline);
        self
    }

    /// The deadline of [`Heartbeat::drain`] where the call names none. Default: none.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = Some(deadline);
        self
    }

    /// Beats to this Redis too: see [`crate::fleet::Url`] for the forms. Default: no stat key.
    ///
    /// A URL that cannot be is an error at the start; a Redis that cannot be reached is not.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis = Some(url.into());
        self
    }

    /// Signs the records that go to Redis, so that a checker with the same key can tell them from what somebody else has written
    /// there. Those in the beat file are not signed: a file has an owner. Default: `HEARTBEAT_KEY`, and without it nothing is signed.
    #[cfg(feature = "redis")]
    pub fn signing_keys(mut self, keys: SigningKeys) -> Self {
        self.signing = Some(keys);
        self
    }

    /// Answers `GET` and `HEAD` of `/livez` and `/readyz` here, from the publisher's own thread, by the verdict of
    /// that moment: 200 or 503, with one JSON object as `checker worker` prints it. Port 0 lets the system choose:
    /// see [`Heartbeat::endpoint_address`]. A port in use is an error at the start.
    ///
    /// It serves whoever reaches the address, without TLS: choose it accordingly. At most 64 clients at a time,
    /// 4 KiB and 2 s each. Neither executed nor forked children keep the port.
    #[cfg(feature = "endpoint")]
    pub fn endpoint(mut self, address: std::net::SocketAddr) -> Self {
        self.endpoint = Some(address);
        self
    }

    /// Where variables are looked up instead of the process's environment: for tests, and for who wants none.
    pub fn environment(mut self, lookup: impl Fn(&str) -> Option<OsString> + 'static) -> Self {
        self.lookup = Box::new(lookup);
        self
    }

    /// Starts the publisher's thread and waits for its first beat.
    ///
    /// Settings that cannot be, a record that would not fit, a beat file that belongs to another living worker
    /// or must not be replaced: these are errors. A file that cannot be written is not: it is counted, told,
    /// and tried again at every beat.
    ///
    /// The beat file of a worker that can not be seen from here (another PID namespace) and that may yet be alive
    /// is watched for one and a half of its intervals, 3 s at most, before it is replaced.
    ///
    /// With the feature `systemd`, and where `NOTIFY_SOCKET` is set (`Type=notify`), systemd is told READY when the
    /// worker is no longer `starting`, a STATUS line, and STOPPING when it drains or stops: from then on
    /// `TimeoutStopSec=` runs, which must leave a drain its time. With `WatchdogSec=` it gets a WATCHDOG twice in that
    /// time, and only while the worker is live by its own account: one that is wedged is restarted.
    pub fn start(self) -> Result<Heartbeat, Error> {
        let settings = Settings::of(self)?;
        let system = |text: &str, error: std::io::Error| Error::system(format!("heartbeat: {text}"), error);
        process::watch_forks().map_err(|error| system("cannot watch for forks", error))?;
        let record = settings.record()?;
        let file = match &settings.file {
            Some(path) => Some(
                BeatFile::new(path.clone(), record.id, settings.file_mode)
                    .map_err(|_| configuration(format!("{} cannot be a file", path.display())))?,
            ),
            None => None,
        };
        let phase = match settings.start_deadline_ms {
            Some(deadline) => Phase::Starting { until_ms: clock::mono_ms() + deadline },
            None => Phase::Running,
        };
        let (id, at_start) = (record.id, Box::new(record.clone()));
        let signature = settings.signature();
        let subject = Subject { pid: record.pid, start: record.pid_start };
        let shared = Shared::new(phase, subject, settings.loop_budget_ms, settings.drain_deadline_ms)
            .map_err(|errno| system("cannot make an eventfd", errno.into()))?;
        let shared = Arc::new(shared);
        #[cfg(feature = "endpoint")]
        let endpoint = settings.extras.endpoint.as_ref().map(crate::endpoint::Endpoint::address);
        #[cfg(feature = "redis")]
        let stat = match settings.redis {
            Some(url) => Some(
                StatKey::start(url, settings.signing, record.clone(), Arc::clone(&shared))
                    .map_err(|error| system("cannot start the thread for Redis", error))?,
            ),
            None => None,
        };
        #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
        let others = !settings.extras.are_none();
        #[cfg(feature = "redis")]
        let others = others || stat.is_some();
        let file = match file {
            #[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
            Some(file) if others => Some(
                Sink::apart(file)
                    .map_err(|error| system("cannot start the thread for the beat file", error))?,
            ),
            file => file.map(Sink::Here),
        };
        let mut publisher = Publisher::new(Arc::clone(&shared), record, file, settings.extras);
        publisher.file_may_wait = settings.file_may_wait;
        #[cfg(feature = "redis")]
        let publisher = publisher.with_stat(stat);
        let (sender, first_beat) = sync_channel(1);
        process::spawn_undisturbed("heartbeat", move || publisher.run(&sender))
            .map_err(|error| system("cannot start the publisher's thread", error))?;
        process::stop_at_exit(id, Arc::downgrade(&shared) as Weak<Shared>);
        #[cfg(not(feature = "redis"))]
        if settings.redis_is_asked_for {
            told!(warn, "heartbeat: {NO_REDIS}");
            shared.note_error(NO_REDIS.to_owned());
        }
        let path = settings.file.unwrap_or_default();
        match first_beat.recv_timeout(START_WAIT) {
            Ok(Ok(())) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(Heartbeat {
                shared,
                record: at_start,
                signature,
                #[cfg(feature = "endpoint")]
                endpoint,
            }),
            Ok(Err(failure)) => Err(refusal(&path, &failure)),
        }
    }
}

fn configuration(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, format!("heartbeat: {}", text.into()))
}

fn refusal(path: &Path, failure: &Failure) -> Error {
    let text = format!("heartbeat: {} is refused: {failure}", path.display());
    let kind = match failure {
        Failure::Held(pid) => ErrorKind::Held { pid: *pid },
        Failure::Unsafe(_) => ErrorKind::Unsafe,
        Failure::System(_) => ErrorKind::System,
    };
    Error::new(kind, text)
}

/// Settings that have been looked up and found possible.
struct Settings {
    cluster: String,
    worker: String,
    host: String,
    queues: Vec<String>,
    version: Option<String>,
    file: Option<PathBuf>,
    file_may_wait: bool,
    file_mode: u32,
    interval_ms: u64,
    promise_ms: u64,
    loop_budget_ms: u64,
    start_deadline_ms: Option<u64>,
    drain_deadline_ms: Option<u64>,
    #[cfg(feature = "redis")]
    redis: Option<Url>,
    #[cfg(feature = "redis")]
    signing: Option<SigningKeys>,
    #[cfg(not(feature = "redis"))]
    redis_is_asked_for: bool,
    extras: Extras,
}

/// A worker does not fail for it, and it is not kept from anybody who looks.
#[cfg(not(feature = "redis"))]
const NO_REDIS: &str = "HEARTBEAT_REDIS_URL is set, and nothing goes to Redis: this program was built without the feature `redis`";

impl Settings {
    fn of(builder: Builder) -> Result<Self, Error> {
        let environment = Environment(&builder.lookup);
        let interval = environment.duration(builder.interval, "HEARTBEAT_INTERVAL", DEFAULT_INTERVAL)?;
        let promise = environment.duration(builder.promise, "HEARTBEAT_PROMISE", DEFAULT_PROMISE)?;
        let loop_budget =
            environment.duration(builder.loop_budget, "HEARTBEAT_LOOP_BUDGET", DEFAULT_LOOP_BUDGET)?;
        let deadlines = [builder.start_deadline, builder.drain_deadline];
        let durations = [Some(interval), Some(promise), Some(loop_budget)];
        if durations.into_iter().chain(deadlines).flatten().any(|duration| duration > duration::MAX) {
            return Err(configuration("no duration is longer than 365 days"));
        }
        if interval < LEAST_INTERVAL {
            return Err(configuration("the interval is 10 ms at least"));
        }
        if promise < interval * 2 {
            return Err(configuration("the promise is two intervals at least"));
        }
        if loop_budget < Duration::from_millis(1) {
            return Err(configuration("the loop budget is 1 ms at least"));
        }
        if builder.file_mode & !0o755 != 0 || builder.file_mode & 0o400 == 0 {
            let text = "the file mode is a plain one, readable for its owner and writable for nobody else";
            return Err(configuration(text));
        }
        let host = host_name()?;
        let worker = match environment.text(builder.worker, "HEARTBEAT_WORKER")? {
            Some(worker) => worker,
            None if host.is_empty() => {
                return Err(configuration("this host has no name, so the worker needs one"));
            }
            None => format!("{host}:{}", std::process::id()),
        };
        let host = if host.is_empty() { "?".to_owned() } else { host };
        let cluster = environment.text(builder.cluster, "HEARTBEAT_CLUSTER")?;
        let cluster = cluster.unwrap_or_else(|| "default".to_owned());
        let queues = match builder.queues {
            Some(queues) => queues,
            None => environment.list("HEARTBEAT_QUEUES")?,
        };
        check_name("cluster", &cluster)?;
        check_name("worker", &worker)?;
        if let Some(version) = &builder.version {
            check_name("version", version)?;
        }
        if cluster.contains(['{', '}']) {
            return Err(configuration("a cluster's name has no braces"));
        }
        let file = match builder.file {
            FileChoice::None => None,
            FileChoice::Path(path) => Some(path),
            FileChoice::Environment => {
                Some(environment.path("HEARTBEAT_FILE").unwrap_or(DEFAULT_FILE.into()))
            }
        };
        let file = match file.map(|path| std::path::absolute(&path).map_err(|error| (path, error))) {
            Some(Ok(path)) => Some(path),
            Some(Err((path, error))) => {
                return Err(configuration(format!("{:?} cannot be a file: {error}", path.display())));
            }
            None => None,
        };
        Ok(Self {
            cluster,
            worker,
            host,
            queues,
            version: builder.version,
            file,
            file_may_wait: builder.file_may_wait,
            file_mode: builder.file_mode,
            interval_ms: millis(interval),
            promise_ms: millis(promise),
            loop_budget_ms: millis(loop_budget),
            start_deadline_ms: builder.start_deadline.map(millis),
            drain_deadline_ms: builder.drain_deadline.map(millis),
            #[cfg(feature = "redis")]
            redis: environment.redis(builder.redis)?,
            #[cfg(feature = "redis")]
            signing: environment.signing(builder.signing)?,
            #[cfg(not(feature = "redis"))]
            redis_is_asked_for: environment.path("HEARTBEAT_REDIS_URL").is_some(),
            extras: Extras {
                #[cfg(feature = "endpoint")]
                endpoint: builder.endpoint.map(crate::endpoint::Endpoint::bind).transpose()?,
                #[cfg(feature = "systemd")]
                systemd: crate::systemd::Systemd::from_environment(&builder.lookup),
            },
        })
    }

    /// The record that every beat brings up to date. Refused where the largest that it can become would not fit.
    fn record(&self) -> Result<Record, Error> {
        let pid = std::process::id();
        let pid_start = match process(pid) {
            Process::Present { start, .. } => start,
            // Without a `/proc` nobody else can compare it either.
            Process::Absent | Process::Unknown => 0,
        };
        let id = getrandom::u64().and_then(|high| Ok(u128::from(high) << 64 | u128::from(getrandom::u64()?)));
        let id =
            id.map_err(|_| Error::new(ErrorKind::System, "heartbeat: the system gave no random bits"))?;
        #[cfg(feature = "redis")]
        let stat = self.redis.as_ref().map(|_| Stat::default());
        #[cfg(not(feature = "redis"))]
        let stat = None;
        let record = Record {
            id: Id(id),
            cluster: self.cluster.clone(),
            worker: self.worker.clone(),
            host: self.host.clone(),
            queues: self.queues.clone(),
            pid,
            pid_start,
            pid_ns: pid_namespace(),
            boot: boot_id(),
            seq: 0,
            at_mono_ms: 0,
            at_unix_ms: 0,
            interval_ms: self.interval_ms,
            promise_ms: self.promise_ms,
            status: Status::Idle,
            until_mono_ms: None,
            pulse: None,
            tasks: Tasks::default(),
            stat,
            broker: None,
            version: self.version.clone(),
        };
        check_queues(&record, self.signature())?;
        Ok(record)
    }

    /// By how many bytes what is stored is longer than the record.
    #[cfg_attr(
        not(feature = "redis"),
        expect(clippy::unused_self, reason = "nothing is signed but what goes to Redis")
    )]
    fn signature(&self) -> usize {
        #[cfg(feature = "redis")]
        if self.redis.is_some() && self.signing.is_some() {
            return fleet::MORE_BYTES;
        }
        0
    }
}

/// Whether a record may have these queues: their names can be, and the largest that it can become fits, with a signature of so
/// many bytes.
pub fn check_queues(record: &Record, signature: usize) -> Result<(), Error> {
    for queue in &record.queues {
        check_name("queue", queue)?;
    }
    let mut line = Vec::new();
    largest(record.clone()).write(&mut line);
    let most = line.len() + signature;
    if most > record::MAX_BYTES {
        let text = format!(
            "the record could take {most} bytes, and {} is the limit: name fewer queues, or shorter ones",
            record::MAX_BYTES
        );
        return Err(configuration(text));
    }
    Ok(())
}

/// The same worker's record with every number and name at its longest.
fn largest(mut record: Record) -> Record {
    // More than any clock will show, and as many digits.
    let moment = 999_999_999_999_999;
    record.status = Status::Starting;
    record.until_mono_ms = Some(moment);
    (record.seq, record.at_mono_ms, record.at_unix_ms) = (u64::MAX, moment, moment);
    (record.pid, record.pid_start, record.pid_ns) = (u32::MAX, u64::MAX, u64::MAX);
    record.pulse = Some(Pulse { pulsed_mono_ms: moment, due_mono_ms: moment });
    let name = "\"".repeat(record::MAX_TASK_NAME);
    let nearest = Some(Nearest { name, since_mono_ms: moment, due_mono_ms: Some(moment) });
    record.tasks = Tasks { running: u64::MAX, done: u64::MAX, failed: u64::MAX, nearest };
    record.stat = record.stat.map(|_| Stat { ok_mono_ms: moment, failures: u64::MAX });
    record.broker = Some(Broker { lost_mono_ms: moment });
    record
}

fn host_name() -> Result<String, Error> {
    let name = nix::unistd::gethostname()
        .map_err(|errno| Error::system("heartbeat: the host's name cannot be read", errno.into()))?;
    Ok(name.to_string_lossy().into_owned())
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(configuration(format!("{name:?} cannot be a {what}'s name")));
    }
    Ok(())
}

/// The environment, through a look-up that tests can replace.
struct Environment<'a>(&'a Lookup);

impl Environment<'_> {
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        match (self.0)(name).filter(|value| !value.is_empty()).map(OsString::into_string) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(configuration(format!("{name} is not UTF-8"))),
            None => Ok(None),
        }
    }

    fn text(&self, set: Option<String>, name: &str) -> Result<Option<String>, Error> {
        match set {
            Some(set) => Ok(Some(set)),
            None => self.value(name),
        }
    }

    #[cfg(feature = "redis")]
    fn redis(&self, set: Option<String>) -> Result<Option<Url>, Error> {
        let Some(text) = self.text(set, "HEARTBEAT_REDIS_URL")? else { return Ok(None) };
        let url: Url =
            text.parse().map_err(|error| configuration(format!("the Redis URL is refused: {error}")))?;
        url.check_files().map_err(|error| configuration(error.to_string()))?;
        Ok(Some(url))
    }

    #[cfg(feature = "redis")]
    fn signing(&self, set: Option<SigningKeys>) -> Result<Option<SigningKeys>, Error> {
        const NAME: &str = "HEARTBEAT_KEY";
        let parsed = match (set, self.value(NAME)?) {
            (Some(set), _) => Ok(Some(set)),
            (None, text) => text.map(|text| text.parse()).transpose(),
        };
        parsed
            .map_err(|invalid: fleet::InvalidKey| configuration(format!("{NAME} cannot be used: {invalid}")))
    }

    fn list(&self, name: &str) -> Result<Vec<String>, Error> {
        let value = self.value(name)?.unwrap_or_default();
        Ok(value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn duration(&self, set: Option<Duration>, name: &str, default: Duration) -> Result<Duration, Error> {
        match (set, self.value(name)?) {
            (Some(set), _) => Ok(set),
            (None, Some(value)) => duration::parse(&value)
                .map_err(|error| configuration(format!("{name} is {value:?}: {error}"))),
            (None, None) => Ok(default),
        }
    }
}
