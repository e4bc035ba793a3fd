//! The publisher: a thread of its own that beats, and the state that it shares with the worker.
//!
//! The worker writes marks and tasks; the publisher reads them, judges the worker by the same verdict as the
//! checker does, and hands the record to the sinks. Nothing that goes wrong here reaches the worker: failures are
//! counted, a panic is contained and the thread goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
#[cfg(feature = "tokio")]
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use nix::poll::PollTimeout;

use crate::clock;
use crate::extras::Extras;
use crate::file::{Failure, Written};
#[cfg(feature = "redis")]
use crate::fleet::takes_work;
use crate::mark::{Budget, Mark};
use crate::observe;
use crate::process;
use crate::record::{Broker, Record, Status};
use crate::sink::Sink;
#[cfg(feature = "redis")]
use crate::stat::StatKey;
use crate::sync::{Condvar, EfdFlags, EventFd, Mutex, MutexGuard};
use crate::tasks::{Board, Seen, Task};
use crate::verdict::{Evidence, Machine, Process, Verdict, judge};

/// A wake-up that is this late means that the process could not run: stopped, frozen, or starved.
const STARVED_MS: u64 = 100;

/// Between two looks at deadlines that come faster than the beats.
const LEAST_WAIT_MS: u64 = 20;

/// Between two looks at the processes that hold tasks, where beats come faster.
const HOLDERS_EVERY_MS: u64 = 100;

/// How long a thread that has panicked waits before it goes on, at least.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// What the worker says of itself beside its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting { until_ms: u64 },
    Running,
    Draining { until_ms: Option<u64> },
    Stopped,
}

/// The process that the record speaks of.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub pid: u32,
    pub start: u64,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    subject: Subject,
    /// Since when the broker is not reached.
    broker_lost_ms: Option<u64>,
    ended: bool,
    /// Somebody has waited for the end in vain.
    late: bool,
    removed: Result<(), String>,
    last_error: Option<String>,
    /// Why the last beat is no new file.
    file_failure: Option<String>,
    /// Other queues than the record has, until that takes them.
    queues: Option<Vec<String>>,
    /// Loops that are marked beside the worker's own; the one that is due first is shown.
    loops: Vec<Arc<Mark>>,
    #[cfg(feature = "tokio")]
    waiting: Vec<Waker>,
}

impl State {
    /// How a stop has gone, as far as that is known now.
    fn outcome_of_stop(&self) -> Result<(), String> {
        if self.late && !self.ended {
            return Err("the publisher did not end in time".to_owned());
        }
        self.removed.clone()
    }
}

/// How the publisher itself has fared: numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Beats made.
    pub beats: u64,
    /// Beats that did not become a new file: written over the last one, or not at all.
    pub file_failures: u64,
    /// Panics of the heartbeat's own threads that were contained.
    pub panics: u64,
    /// Beats that did not reach Redis (feature `redis`).
    pub redis_failures: u64,
    /// Times that the endpoint could not take a client (feature `endpoint`).
    pub endpoint_failures: u64,
    /// Messages that systemd did not take; what they said is told again (feature `systemd`).
    pub systemd_failures: u64,
}

/// What worker and publisher share.
#[derive(Debug)]
pub struct Shared {
    mark: Mark,
    loop_budget: Budget,
    drain_deadline_ms: Option<u64>,
    tasks: Board,
    state: Mutex<State>,
    ended: Condvar,
    wake: EventFd,
    generation: u32,
    beats: AtomicU64,
    file_failures: AtomicU64,
    panics: AtomicU64,
    redis_failures: AtomicU64,
    endpoint_failures: AtomicU64,
    systemd_failures: AtomicU64,
}

impl Shared {
    pub fn new(
        phase: Phase,
        subject: Subject,
        loop_budget_ms: u64,
        drain_deadline_ms: Option<u64>,
    ) -> nix::Result<Self> {
        Ok(Self {
            mark: Mark::default(),
            loop_budget: Budget::from_millis(loop_budget_ms),
            drain_deadline_ms,
            tasks: Board::new(),
            state: Mutex::new(State {
                phase,
                subject,
                broker_lost_ms: None,
                ended: false,
                late: false,
                removed: Ok(()),
                last_error: None,
                file_failure: None,
                queues: None,
                loops: Vec::new(),
                #[cfg(feature = "tokio")]
                waiting: Vec::new(),
            }),
            ended: Condvar::new(),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            generation: process::generation(),
            beats: AtomicU64::new(0),
            file_failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            redis_failures: AtomicU64::new(0),
            endpoint_failures: AtomicU64::new(0),
            systemd_failures: AtomicU64::new(0),
        })
    }

    pub fn pulse(&self) {
        self.mark.set(clock::mono_ms(), self.loop_budget);
    }

    pub fn pulse_within(&self, budget_ms: u64) {
        self.mark.set(clock::mono_ms(), Budget::from_millis(budget_ms));
    }

    pub fn task(&self, name: &str, deadline_ms: Option<u64>) -> Task {
        let now = clock::mono_ms();
        self.tasks.start(name, now, deadline_ms.map(|deadline| now.saturating_add(deadline)))
    }

    pub fn status(&self) -> Status {
        // In a forked child the lock may be held by a thread that is not here.
        if self.generation != process::generation() {
            return Status::Stopped;
        }
        match self.state().phase {
            Phase::Starting { .. } => Status::Starting,
            Phase::Draining { .. } => Status::Draining,
            Phase::Stopped => Status::Stopped,
            Phase::Running if self.tasks.busy() => Status::Busy,
            Phase::Running => Status::Idle,
        }
    }

    pub fn ready(&self) {
        self.change(|state| {
            if let Phase::Starting { .. } = state.phase {
                state.phase = Phase::Running;
            }
        });
    }

    pub fn drain(&self, deadline_ms: Option<u64>) {
        let until_ms =
            deadline_ms.or(self.drain_deadline_ms).map(|deadline| clock::mono_ms().saturating_add(deadline));
        self.change(|state| {
            if state.phase != Phase::Stopped {
                state.phase = Phase::Draining { until_ms };
            }
        });
    }

    pub fn broker_lost(&self) {
        if self.generation == process::generation() && self.state().broker_lost_ms.is_none() {
            let now = clock::mono_ms();
            self.change(|state| state.broker_lost_ms = state.broker_lost_ms.or(Some(now)));
        }
    }

    /// The time in which the broker was not reached is given back to the loops and to the start, which waited for it.
    pub fn broker_back(&self) {
        if self.generation != process::generation() || self.state().broker_lost_ms.is_none() {
            return;
        }
        let now = clock::mono_ms();
        self.change(|state| {
            let Some(lost_ms) = state.broker_lost_ms.take() else { return };
            for mark in state.loops.iter().map(AsRef::as_ref).chain([&self.mark]) {
                mark.give_back(lost_ms, now);
            }
            if let Phase::Starting { until_ms } = &mut state.phase {
                *until_ms = until_ms.saturating_add(now.saturating_sub(lost_ms));
            }
        });
    }

    pub fn set_queues(&self, queues: Vec<String>) {
        self.change(|state| state.queues = Some(queues));
    }

    pub fn beat_for(&self, subject: Subject) {
        self.change(|state| state.subject = subject);
    }

    /// Asks the publisher to end; does not wait.
    pub fn request_stop(&self) {
        self.change(|state| state.phase = Phase::Stopped);
    }

    /// Waits until the publisher has ended; whether it did, and how the removal of the file went.
    pub fn wait_stopped(&self, timeout: Duration) -> Result<(), String> {
        if self.generation != process::generation() {
            return Ok(());
        }
        let (mut state, _) = self
            .ended
            .wait_timeout_while(self.state(), timeout, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.late = !state.ended;
        state.outcome_of_stop()
    }

    /// Whether the publisher has ended, and how; else `context` is woken when it has.
    #[cfg(feature = "tokio")]
    pub fn poll_stopped(&self, context: &Context<'_>) -> Poll<Result<(), String>> {
        if self.generation != process::generation() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state();
        if state.ended {
            return Poll::Ready(state.removed.clone());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Judges this loop too, from its first pulse until it is forgotten.
    #[cfg(feature = "tokio")]
    pub fn watch(&self, mark: Arc<Mark>) {
        self.change(|state| state.loops.push(mark));
    }

    #[cfg(feature = "tokio")]
    pub fn forget(&self, mark: &Arc<Mark>) {
        self.change(|state| state.loops.retain(|other| !Arc::ptr_eq(other, mark)));
    }

    #[cfg(feature = "tokio")]
    pub fn loop_budget(&self) -> Budget {
        self.loop_budget
    }

    pub fn counters(&self) -> Counters {
        Counters {
            beats: self.beats.load(Ordering::Relaxed),
            file_failures: self.file_failures.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            redis_failures: self.redis_failures.load(Ordering::Relaxed),
            endpoint_failures: self.endpoint_failures.load(Ordering::Relaxed),
            systemd_failures: self.systemd_failures.load(Ordering::Relaxed),
        }
    }

    /// A stop that failed is the last of all.
    pub fn last_error(&self) -> Option<String> {
        if self.generation != process::generation() {
            return None;
        }
        let state = self.state();
        state.outcome_of_stop().err().or_else(|| state.last_error.clone())
    }

    pub fn file_failure(&self) -> Option<String> {
        if self.generation == process::generation() { self.state().file_failure.clone() } else { None }
    }

    /// What is wrong from the start, and stays so.
    #[cfg(not(feature = "redis"))]
    pub fn note_error(&self, text: String) {
        self.state().last_error = Some(text);
    }

    #[cfg(feature = "redis")]
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "redis")]
    pub fn count_redis_failure(&self, text: String) {
        self.redis_failures.fetch_add(1, Ordering::Relaxed);
        self.state().last_error = Some(text);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A forked child changes nothing: the heartbeat is its parent's.
    fn change(&self, change: impl FnOnce(&mut State)) {
        if self.generation != process::generation() {
            return;
        }
        change(&mut self.state());
        // Fails only where the counter is full, and then the publisher is awake.
        let _ = self.wake.write(1);
    }
}

/// The publisher's own side: everything that only its thread touches.
pub struct Publisher {
    pub shared: Arc<Shared>,
    pub record: Record,
    pub file: Option<Sink>,
    /// Whether a path that is refused is tried again, in the place of ending.
    pub file_may_wait: bool,
    pub extras: Extras,
    #[cfg(feature = "redis")]
    stat: Option<StatKey>,
    line: Vec<u8>,
    spare_name: String,
    /// When the worker was last live by its own account.
    live_mono_ms: u64,
    own_pid: u32,
    verdict: Verdict,
    /// When the last beat was made.
    beaten_mono_ms: u64,
    /// Until when Redis has been posted to, or there was nothing to post.
    #[cfg(feature = "redis")]
    posted_mono_ms: u64,
    next_beat_ms: u64,
    /// When a stall outside the wait may be excused again.
    next_excuse_ms: u64,
    /// What was found of the processes that hold tasks.
    holders: Vec<Seen>,
    next_holders_ms: u64,
    /// When a path that was refused is tried again.
    next_claim_ms: u64,
    /// When a holder that is stopped or gone makes its task due.
    holder_due_ms: Option<u64>,
    failing: bool,
}

/// Whether the first beat was refused: what is merely failing is tried again, and does not keep a worker from
/// its work.
pub type FirstBeat = Result<(), Failure>;

impl Publisher {
    pub fn new(shared: Arc<Shared>, record: Record, file: Option<Sink>, extras: Extras) -> Self {
        Self {
            shared,
            record,
            file,
            file_may_wait: false,
            extras,
            #[cfg(feature = "redis")]
            stat: None,
            line: Vec::with_capacity(crate::record::MAX_BYTES),
            spare_name: String::with_capacity(crate::record::MAX_TASK_NAME),
            live_mono_ms: clock::mono_ms(),
            own_pid: std::process::id(),
            verdict: Verdict::Alive,
            beaten_mono_ms: 0,
            #[cfg(feature = "redis")]
            posted_mono_ms: clock::mono_ms(),
            next_beat_ms: 0,
            next_excuse_ms: 0,
            holders: Vec::new(),
            next_holders_ms: 0,
            next_claim_ms: 0,
            holder_due_ms: None,
            failing: false,
        }
    }

    #[cfg(feature = "redis")]
    pub fn with_stat(self, stat: Option<StatKey>) -> Self {
        Self { stat, ..self }
    }

    /// Beats until it is asked to stop. The first beat's outcome goes to `first`.
    pub fn run(mut self, first: &SyncSender<FirstBeat>) {
        let begun = self.contained(|publisher| {
            let refusal = match publisher.begin() {
                Err(failure) if failure.is_refusal() && !publisher.file_may_wait => Err(failure),
                outcome => {
                    publisher.tell(outcome);
                    publisher.contained(Self::attend);
                    Ok(())
                }
            };
            let go_on = refusal.is_ok();
            // Nobody waits any more where the start has timed out.
            drop(first.try_send(refusal));
            go_on
        });
        let mut go_on = begun.unwrap_or(true);
        while go_on {
            go_on = self.contained(Self::turn).unwrap_or_else(|| {
                std::thread::sleep(AFTER_PANIC);
                true
            });
        }
        let removed = self.contained(Self::end).unwrap_or_else(|| Err("a panic".to_owned()));
        let mut state = self.shared.state();
        state.removed = removed;
        state.ended = true;
        #[cfg(feature = "tokio")]
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.shared.ended.notify_all();
        #[cfg(feature = "tokio")]
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Runs a step; `None` where it panicked, which is counted.
    fn contained<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(done) => Some(done),
            Err(payload) => {
                self.shared.panics.fetch_add(1, Ordering::Relaxed);
                // Dropping somebody's payload could panic once more.
                std::mem::forget(payload);
                None
            }
        }
    }

    fn begin(&mut self) -> Result<Option<Written>, Failure> {
        self.look();
        self.next_beat_ms = self.record.at_mono_ms + self.record.interval_ms;
        self.beat()
    }

    /// One wait and what it ends with; whether to go on.
    fn turn(&mut self) -> bool {
        let before_ms = clock::mono_ms();
        self.excuse_stall(before_ms);
        let wait_ms = self.wake_at_ms().saturating_sub(before_ms);
        let timeout = PollTimeout::try_from(wait_ms).unwrap_or(PollTimeout::MAX);
        let woken = self.extras.wait(&self.shared.wake, timeout);
        let late_ms = (clock::mono_ms() - before_ms).saturating_sub(wait_ms);
        if late_ms > STARVED_MS {
            self.excuse(late_ms);
        }
        self.look();
        if self.record.status == Status::Stopped {
            return false;
        }
        // Contained apart, so that nothing there keeps the beat from being made.
        self.contained(Self::attend);
        let now = self.record.at_mono_ms;
        if woken || now >= self.next_beat_ms {
            self.next_beat_ms = self.next_beat_ms.saturating_add(self.record.interval_ms);
            if self.next_beat_ms <= now || woken {
                self.next_beat_ms = now + self.record.interval_ms;
            }
        } else if self.own_verdict() == self.verdict {
            return true;
        }
        let outcome = self.beat();
        self.tell(outcome);
        true
    }

    /// The next beat, or the moment just after a deadline passes, so that it is told at once.
    fn wake_at_ms(&self) -> u64 {
        let now = self.record.at_mono_ms;
        let record = &self.record;
        let deadlines = [
            record.until_mono_ms,
            record.pulse.map(|pulse| pulse.due_mono_ms),
            record.tasks.nearest.as_ref().and_then(|task| task.due_mono_ms),
            record.broker.map(|broker| broker.lost_mono_ms.saturating_add(record.promise_ms)),
            self.holder_due_ms,
        ];
        let ahead = deadlines.into_iter().flatten().filter(|due| *due >= now);
        let next_due = ahead.min().map_or(u64::MAX, |due| due.saturating_add(1).max(now + LEAST_WAIT_MS));
        self.next_beat_ms.min(next_due).min(self.extras.due_ms().unwrap_or(u64::MAX))
    }

    /// A process that was stopped in the middle of a beat, and a sink that hung, look alike from here. The first is
    /// rare and excused; the second comes again and again, and is no excuse for the worker. So: once in a promise.
    fn excuse_stall(&mut self, now_ms: u64) {
        let stalled_ms = now_ms.saturating_sub(self.record.at_mono_ms);
        if stalled_ms > STARVED_MS && now_ms >= self.next_excuse_ms {
            self.next_excuse_ms = now_ms.saturating_add(self.record.promise_ms);
            self.excuse(stalled_ms);
        }
    }

    /// Deadlines are in time in which the worker could run: what this thread could not run, neither could the
    /// others, and a worker that is thawed is not wedged.
    fn excuse(&self, by_ms: u64) {
        self.shared.mark.extend(by_ms);
        self.shared.tasks.extend(by_ms);
        #[cfg(feature = "redis")]
        if let Some(stat) = &self.stat {
            stat.excuse(by_ms);
        }
        let mut state = self.shared.state();
        for mark in &state.loops {
            mark.extend(by_ms);
        }
        state.broker_lost_ms = state.broker_lost_ms.map(|lost_ms| lost_ms.saturating_add(by_ms));
        match &mut state.phase {
            Phase::Starting { until_ms } | Phase::Draining { until_ms: Some(until_ms) } => {
                *until_ms = until_ms.saturating_add(by_ms);
            }
            Phase::Draining { until_ms: None } | Phase::Running | Phase::Stopped => {}
        }
    }

    /// Brings the record up to this moment.
    fn look(&mut self) {
        let (phase, subject, pulse, broker_lost_ms, queues) = {
            let mut state = self.shared.state();
            let pulses = state.loops.iter().map(|mark| mark.get()).chain([self.shared.mark.get()]);
            let pulse = pulses.flatten().min_by_key(|pulse| pulse.due_mono_ms);
            (state.phase, state.subject, pulse, state.broker_lost_ms, state.queues.take())
        };
        if let Some(queues) = queues {
            #[cfg(feature = "redis")]
            if let Some(stat) = &self.stat {
                stat.set_queues(queues.clone());
            }
            self.record.queues = queues;
        }
        self.look_at_tasks();
        let record = &mut self.record;
        (record.pid, record.pid_start) = (subject.pid, subject.start);
        record.broker = broker_lost_ms.map(|lost_mono_ms| Broker { lost_mono_ms });
        // A loop that waits for its broker cannot pulse, and neither can it get ready.
        record.pulse = pulse.filter(|_| record.broker.is_none());
        (record.status, record.until_mono_ms) = match phase {
            Phase::Starting { until_ms } => {
                (Status::Starting, Some(until_ms).filter(|_| record.broker.is_none()))
            }
            Phase::Draining { until_ms } => (Status::Draining, until_ms),
            Phase::Stopped => (Status::Stopped, None),
            Phase::Running if record.tasks.running > 0 => (Status::Busy, None),
            Phase::Running => (Status::Idle, None),
        };
        #[cfg(feature = "redis")]
        if let Some(stat) = &self.stat {
            record.stat = Some(stat.stat());
        }
        // Last, so that nothing in the record is younger than the record.
        record.at_mono_ms = clock::mono_ms();
        record.at_unix_ms = clock::unix_ms();
        if let Some(stat) = &mut record.stat {
            stat.ok_mono_ms = stat.ok_mono_ms.min(record.at_mono_ms);
        }
        if let Some(broker) = &mut record.broker {
            broker.lost_mono_ms = broker.lost_mono_ms.min(record.at_mono_ms);
        }
    }

    /// Counts the tasks, and looks at the processes that hold any.
    fn look_at_tasks(&mut self) {
        let now = clock::mono_ms();
        let (tasks, board) = (&mut self.record.tasks, &self.shared.tasks);
        if !board.snapshot(tasks, &mut self.spare_name, now) {
            self.holder_due_ms = None;
        } else if now >= self.next_holders_ms {
            self.holder_due_ms = board.look_at_holders(&mut self.holders, observe::process);
            let next_beat_ms = now.saturating_add(self.record.interval_ms.max(HOLDERS_EVERY_MS));
            // Nothing becomes due by an old look.
            self.next_holders_ms = self.holder_due_ms.map_or(next_beat_ms, |due| due.min(next_beat_ms));
            board.snapshot(tasks, &mut self.spare_name, clock::mono_ms());
        }
    }

    fn own_verdict(&self) -> Verdict {
        judge(Evidence::Record(&self.record), &Machine::of(&self.record), None).verdict
    }

    /// Lets the extras have this moment's record, and the verdict that a checker would reach now.
    fn attend(&mut self) {
        if self.extras.are_none() {
            return;
        }
        let now_mono_ms = self.record.at_mono_ms;
        let process = self.subject();
        if !self.can_run(process) {
            // No beat is made, so what counts is the last one.
            self.record.at_mono_ms = self.beaten_mono_ms;
        }
        let machine = Machine { now_mono_ms, process, ..Machine::of(&self.record) };
        self.extras.attend(&self.record, &judge(Evidence::Record(&self.record), &machine, None), now_mono_ms);
        self.record.at_mono_ms = now_mono_ms;
        let (endpoint, systemd) = self.extras.failures();
        self.shared.endpoint_failures.store(endpoint, Ordering::Relaxed);
        self.shared.systemd_failures.store(systemd, Ordering::Relaxed);
    }

    /// Makes a beat, and tells how its file was written; `None` where there is no beat to make, or it is still under way.
    fn beat(&mut self) -> Result<Option<Written>, Failure> {
        let can_run = self.can_run(self.subject());
        #[cfg(feature = "redis")]
        {
            let last_ms = std::mem::replace(&mut self.posted_mono_ms, self.record.at_mono_ms);
            // What is not sent is not kept from arriving.
            if let Some(stat) = self.stat.as_ref().filter(|_| !can_run) {
                stat.excuse(self.posted_mono_ms.saturating_sub(last_ms));
            }
        }
        if !can_run {
            return Ok(None);
        }
        self.beaten_mono_ms = self.record.at_mono_ms;
        self.record.seq += 1;
        self.shared.beats.fetch_add(1, Ordering::Relaxed);
        self.verdict = self.own_verdict();
        let live = self.verdict.live() == Some(true);
        if live {
            self.live_mono_ms = self.record.at_mono_ms;
        }
        self.record.write(&mut self.line);
        let behind = Duration::from_millis(self.record.at_mono_ms - self.live_mono_ms);
        let mtime = if live { None } else { SystemTime::now().checked_sub(behind) };
        let outcome = match &mut self.file {
            Some(_) if self.record.at_mono_ms < self.next_claim_ms => Ok(None),
            Some(file) => file.publish(&self.line, mtime),
            None => Ok(Some(Written::Renamed)),
        };
        let is_refused = outcome.as_ref().is_err_and(Failure::is_refusal);
        // To look whose path it is may take seconds, so not with every beat.
        let wait_ms = if is_refused && self.file_may_wait { self.record.promise_ms } else { 0 };
        if !matches!(outcome, Ok(None)) {
            self.next_claim_ms = self.record.at_mono_ms.saturating_add(wait_ms);
        }
        #[cfg(feature = "redis")]
        if let Some(stat) = &self.stat
            // A start that is refused is none, in Redis neither.
            && !(self.record.seq == 1 && is_refused && !self.file_may_wait)
        {
            stat.post(&self.line, takes_work(&self.record, self.verdict));
        }
        outcome
    }

    /// The process that the record speaks of. This one is running, or would not ask.
    fn subject(&self) -> Process {
        if self.record.pid == self.own_pid {
            Process::Present { start: self.record.pid_start, stopped: false }
        } else {
            observe::process(self.record.pid)
        }
    }

    /// Another process than this one, that is stopped or gone, does not beat.
    fn can_run(&self, process: Process) -> bool {
        match process {
            Process::Present { start, stopped } => !stopped && start == self.record.pid_start,
            Process::Absent => false,
            // It is there, and no more is known.
            Process::Unknown => true,
        }
    }

    /// Counts a failure, and tells of it once, not on every beat.
    fn tell(&mut self, outcome: Result<Option<Written>, Failure>) {
        let path = self.file.as_ref().map_or(Path::new(""), Sink::path);
        let text = match outcome {
            Ok(None) => return,
            Ok(Some(Written::Renamed)) => {
                if std::mem::take(&mut self.failing) {
                    self.shared.state().file_failure = None;
                    told!(info, "heartbeat: {} is written again", path.display());
                }
                return;
            }
            Ok(Some(Written::InPlace(error))) => {
                format!("cannot replace {}, so its last record is written over: {error}", path.display())
            }
            Err(failure) => format!("cannot write {}: {failure}", path.display()),
        };
        self.shared.file_failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            let mut state = self.shared.state();
            (state.last_error, state.file_failure) = (Some(text.clone()), Some(text.clone()));
            drop(state);
            told!(warn, "heartbeat: {text}; it goes on trying");
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.look();
        self.record.status = Status::Stopped;
        self.record.seq += 1;
        self.record.write(&mut self.line);
        self.contained(|Self { record, extras, .. }| {
            extras.end(record, &judge(Evidence::Record(record), &Machine::of(record), None));
        });
        #[cfg(feature = "redis")]
        if let Some(stat) = &self.stat {
            stat.request_stop();
        }
        let removed = match &mut self.file {
            Some(file) => file
                .remove(&self.line)
                .map_err(|failure| format!("cannot remove {}: {failure}", file.path().display())),
            None => Ok(()),
        };
        #[cfg(feature = "redis")]
        if let Some(stat) = &self.stat {
            stat.wait_stopped();
        }
        removed
    }
}

#[cfg(test)]
mod tests;
