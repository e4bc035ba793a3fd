//! The stat key: the worker's record in Redis, from a thread of its own.
//!
//! The publisher lays its latest line into a mailbox with one place and goes on; this thread carries it to Redis, in its
//! own time. Whatever happens there costs the publisher, its file and the worker nothing: it is counted, told once,
//! and the record says when it last went well.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::fleet::{Beat, Error, Fleet, SigningKeys, Url};
use crate::process::spawn_undisturbed;
use crate::publisher::Shared;
use crate::record::{MAX_BYTES, Record, Stat};

/// The longest wait for the first beat, which is put off so that a fleet that starts together does not beat together.
const LONGEST_PHASE: Duration = Duration::from_secs(5);

/// The wait after a first failure; it doubles with each further one.
const LEAST_BACKOFF: Duration = Duration::from_millis(100);

const MOST_BACKOFF: Duration = Duration::from_secs(10);

/// How long a clean stop may take to tell Redis of it.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// The same, where Redis has not been reached of late.
const HOPELESS_STOP_WAIT: Duration = Duration::from_millis(250);

/// The publisher's side.
#[derive(Debug)]
pub struct StatKey {
    desk: Arc<Desk>,
}

/// What the publisher and the thread share.
#[derive(Debug)]
struct Desk {
    mailbox: Mutex<Mailbox>,
    changed: Condvar,
    ok_mono_ms: AtomicU64,
    failures: AtomicU64,
    /// Ends every wait for Redis at once.
    given_up: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Mailbox {
    /// The latest line, until it is taken.
    line: Vec<u8>,
    posted: Option<Instant>,
    takes_work: bool,
    /// Other queues than the carrier knows of, until it takes them.
    queues: Option<Vec<String>>,
    stop: bool,
    ended: bool,
}

impl StatKey {
    /// Starts the thread. Its failures are told to `shared`.
    pub fn start(
        url: Url,
        signing: Option<SigningKeys>,
        record: Record,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            mailbox: Mutex::new(Mailbox {
                line: Vec::with_capacity(MAX_BYTES),
                posted: None,
                takes_work: false,
                queues: None,
                stop: false,
                ended: false,
            }),
            changed: Condvar::new(),
            ok_mono_ms: AtomicU64::new(clock::mono_ms()),
            failures: AtomicU64::new(0),
            given_up: Arc::default(),
        });
        let mut carrier = Carrier::new(url, record, shared, Arc::clone(&desk));
        if let Some(keys) = signing {
            carrier.fleet = carrier.fleet.signed(keys);
        }
        spawn_undisturbed("heartbeat-redis", move || carrier.run())?;
        Ok(Self { desk })
    }

    /// What the record says of it.
    pub fn stat(&self) -> Stat {
        Stat {
            ok_mono_ms: self.desk.ok_mono_ms.load(Ordering::Relaxed),
            failures: self.desk.failures.load(Ordering::Relaxed),
        }
    }

    /// Time in which nothing could run is not time in which Redis was out of reach.
    pub fn excuse(&self, by_ms: u64) {
        self.desk.ok_mono_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Lays a line into the mailbox, in the place of one that has not been taken yet. One short lock, one copy.
    pub fn post(&self, line: &[u8], takes_work: bool) {
        let mut mailbox = self.desk.mailbox();
        mailbox.line.clear();
        mailbox.line.extend_from_slice(line);
        mailbox.posted = Some(Instant::now());
        mailbox.takes_work = takes_work;
        drop(mailbox);
        self.desk.changed.notify_one();
    }

    /// From the next line on the worker is told among these; what Redis was told of others ends with the promise.
    pub fn set_queues(&self, queues: Vec<String>) {
        self.desk.mailbox().queues = Some(queues);
    }

    /// Asks for the end, with the withdrawal of the worker; does not wait.
    pub fn request_stop(&self) {
        // A beat that waits for its answer no longer matters. First, because the withdrawal begins by taking it back.
        self.desk.given_up.store(true, Ordering::Relaxed);
        self.desk.mailbox().stop = true;
        self.desk.changed.notify_one();
    }

    /// Waits for the end, a little more than 1 s at most.
    pub fn wait_stopped(&self) {
        let most = STOP_WAIT + Duration::from_millis(200);
        let waited =
            self.desk.changed.wait_timeout_while(self.desk.mailbox(), most, |mailbox| !mailbox.ended);
        // What has not ended by then is on its own: the worker is lost to Redis once its promise has passed.
        drop(waited);
    }
}

impl Drop for StatKey {
    fn drop(&mut self) {
        self.request_stop();
    }
}

impl Desk {
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // Nothing panics under the lock.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to carry a line.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// The longest wait between two tries while Redis cannot be reached. About as often as it would be beaten to
    /// anyway, so that trying costs a returning server no more than beating does, and is soon seen.
    most_backoff: Duration,
    /// How long one beat may take.
    patience: Duration,
    /// When the next line is due.
    due: Instant,
    /// Nothing is tried before this.
    not_before: Instant,
    backoff: Duration,
}

impl Pace {
    fn new(interval: Duration, promise: Duration, now: Instant) -> Self {
        let third = (promise / 3).max(LEAST_BACKOFF);
        let phase = interval.min(LONGEST_PHASE).mul_f64(fraction());
        Self {
            interval,
            most_backoff: (interval * 3 / 2).clamp(LEAST_BACKOFF, MOST_BACKOFF).min(third),
            patience: (interval * 3).clamp(Duration::from_secs(1), Duration::from_secs(5)).min(third),
            due: now + phase,
            not_before: now,
            backoff: LEAST_BACKOFF,
        }
    }

    fn succeeded(&mut self, now: Instant) {
        self.backoff = LEAST_BACKOFF;
        // What was carried before it was due changes nothing for what is.
        if now >= self.due {
            self.due += self.interval;
            if self.due <= now {
                self.due = now + self.interval;
            }
        }
    }

    /// Between half and all of a time that doubles, from when the try began: one that waited in vain has waited already.
    fn failed(&mut self, begun: Instant, now: Instant) {
        let wait = self.backoff.min(self.most_backoff);
        self.not_before = (begun + wait.mul_f64(0.5 + fraction() / 2.0)).max(now);
        self.due = self.not_before;
        self.backoff = (self.backoff * 2).min(MOST_BACKOFF);
    }
}

/// From 0 to 1, at random.
fn fraction() -> f64 {
    // Without random bits all are in step, and nothing else is wrong.
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

/// The thread's side.
struct Carrier {
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    fleet: Fleet,
    /// Who beats; what it says is in the line.
    record: Record,
    line: Vec<u8>,
    pace: Pace,
    /// What Redis was last told.
    took_work: Option<bool>,
    failing: bool,
}

impl Carrier {
    fn new(url: Url, record: Record, shared: Arc<Shared>, desk: Arc<Desk>) -> Self {
        let fleet = Fleet::giving_up(url, record.cluster.as_str(), Arc::clone(&desk.given_up));
        let interval = Duration::from_millis(record.interval_ms);
        let pace = Pace::new(interval, Duration::from_millis(record.promise_ms), Instant::now());
        let line = Vec::with_capacity(MAX_BYTES);
        Self { desk, shared, fleet, record, line, pace, took_work: None, failing: false }
    }

    fn run(mut self) {
        while self.contained(Self::turn).unwrap_or(true) {}
        self.contained(Self::withdraw);
        self.desk.mailbox().ended = true;
        self.desk.changed.notify_all();
    }

    /// Runs a step; `None` where it panicked, which is counted.
    fn contained<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(done) => Some(done),
            Err(payload) => {
                // Dropping somebody's payload could panic once more.
                std::mem::forget(payload);
                self.shared.count_panic();
                let now = Instant::now();
                self.pace.failed(now, now);
                None
            }
        }
    }

    /// Waits for a line and carries it; whether to go on.
    fn turn(&mut self) -> bool {
        let Some((takes_work, posted)) = self.take() else { return false };
        let begun = Instant::now();
        let until = begun + self.pace.patience;
        let beat = Beat { record: &self.record, line: &self.line, takes_work, age_ms: 0 };
        let outcome = self.fleet.publish(&[beat], until).and_then(|mut each| each.pop().unwrap_or(Ok(())));
        match outcome {
            Ok(()) => self.succeeded(takes_work),
            Err(error) => self.failed(&error, takes_work, posted, begun),
        }
        true
    }

    /// Takes the line that is due, or that says of the worker's readiness what Redis does not know yet.
    fn take(&mut self) -> Option<(bool, Instant)> {
        let mut mailbox = self.desk.mailbox();
        loop {
            if mailbox.stop {
                return None;
            }
            let now = Instant::now();
            // A line that is older than a beat says nothing of now.
            let stale = |posted: Instant| now.saturating_duration_since(posted) > self.pace.interval;
            if mailbox.posted.is_some_and(stale) {
                mailbox.posted = None;
            }
            let Some(posted) = mailbox.posted else {
                mailbox = self.desk.changed.wait(mailbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let news = self.took_work.is_some_and(|took| took != mailbox.takes_work);
            let due = if news { self.pace.not_before } else { self.pace.due };
            if now >= due {
                mailbox.posted = None;
                std::mem::swap(&mut self.line, &mut mailbox.line);
                if let Some(queues) = mailbox.queues.take() {
                    self.record.queues = queues;
                }
                return Some((mailbox.takes_work, posted));
            }
            let waited = self.desk.changed.wait_timeout(mailbox, due - now);
            mailbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn succeeded(&mut self, takes_work: bool) {
        self.took_work = Some(takes_work);
        self.desk.failures.store(0, Ordering::Relaxed);
        self.desk.ok_mono_ms.store(clock::mono_ms(), Ordering::Relaxed);
        self.pace.succeeded(Instant::now());
        if std::mem::take(&mut self.failing) {
            told!(info, "heartbeat: Redis at {} is reached again", self.fleet.place());
        }
    }

    fn failed(&mut self, error: &Error, takes_work: bool, posted: Instant, begun: Instant) {
        let mut mailbox = self.desk.mailbox();
        if mailbox.stop {
            return;
        }
        if mailbox.posted.is_none() {
            // Nothing newer: this one again, while it is young.
            std::mem::swap(&mut self.line, &mut mailbox.line);
            mailbox.posted = Some(posted);
            mailbox.takes_work = takes_work;
        }
        drop(mailbox);
        self.pace.failed(begun, Instant::now());
        self.desk.failures.fetch_add(1, Ordering::Relaxed);
        let text = format!("cannot publish to Redis: {error}");
        if !std::mem::replace(&mut self.failing, true) {
            told!(warn, "heartbeat: {text}; it goes on trying");
        }
        self.shared.count_redis_failure(text);
    }

    fn withdraw(&mut self) {
        let never_sent = self.took_work.is_none() && !self.failing;
        if never_sent {
            return;
        }
        self.desk.given_up.store(false, Ordering::Relaxed);
        let patience = if self.failing { HOPELESS_STOP_WAIT } else { STOP_WAIT };
        let outcome = self.fleet.withdraw(&[&self.record], Instant::now() + patience);
        if let Err(error) = outcome.and_then(|mut each| each.pop().unwrap_or(Ok(()))) {
            // Counted no more: the worker ends. It is lost to Redis once its promise has passed.
            told!(warn, "heartbeat: cannot withdraw from Redis: {error}");
            let _ = error;
        }
    }
}

#[cfg(test)]
mod tests;
