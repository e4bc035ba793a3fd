//! One check, asked for everybody who wants to know: one run at a time, whose answer serves all for a while.
//!
//! A run goes on to its own end whoever stops waiting for it, on a runtime apart from the one that answers. What stands after
//! an answer is decided in `standing`.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::Status;
use shared::config::Configured;
use shared::runner::{self, Named, Outcome, TIMED_OUT};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time;

use super::logs;
use super::standing::{Moment, Patience, Standing};
use super::starved::{Starved, Watch};

/// What is said of a check whose answer came late because this process itself was kept from running.
pub const STARVED: &str = "the checker itself was kept from running";

/// How long after a run's deadline it is still waited for, so that it can say itself that it was cut off there.
const GRACE: Duration = Duration::from_millis(50);

/// Where checks are run, and who is told that they were.
#[derive(Clone, Debug)]
pub struct Runs {
    /// A runtime that a check may block without any harm to who answers.
    pub runtime: Handle,
    /// Whether this process itself is run.
    pub starved: Arc<Starved>,
    /// Counts what happens: ended runs and whatever else changes an answer.
    pub news: watch::Sender<u64>,
}

impl Runs {
    /// Something has happened that may change an answer.
    pub fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}

/// One check with all that is known of it.
#[derive(Debug)]
pub struct Watched {
    /// The check.
    pub configured: Configured,
    state: Mutex<State>,
    ended: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    standing: Arc<Standing>,
    /// When the last answer came.
    answered: Option<Moment>,
    /// How long it took.
    took: Duration,
    running: Option<Running>,
    /// The numbers of the last run that was begun, and of the last whose answer was noted.
    runs: u64,
    noted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    number: u64,
    deadline: Instant,
}

/// What stands of a check at one moment.
#[derive(Clone, Debug)]
pub struct Told {
    /// What stands.
    pub standing: Arc<Standing>,
    /// When the last answer came.
    pub answered: Option<Moment>,
    /// What it amounts to for who asked. That is what stands, but for who could not wait for the answer.
    pub outcome: Outcome,
}

/// A question that was asked.
#[derive(Debug)]
pub struct Asking {
    running: Option<Running>,
    ended: watch::Receiver<u64>,
    watch: Watch,
}

impl Watched {
    /// Asks nothing yet.
    pub fn new(configured: Configured) -> Self {
        let state = State {
            standing: Arc::new(Standing::new(Moment::now(), random())),
            answered: None,
            took: Duration::ZERO,
            running: None,
            runs: 0,
            noted: 0,
        };
        Self { configured, state: Mutex::new(state), ended: watch::Sender::new(0) }
    }

    /// The check's name.
    pub fn name(&self) -> &str {
        &self.configured.named.name
    }

    /// What stands, without asking.
    pub fn look(&self) -> Told {
        let state = self.state();
        Told { standing: Arc::clone(&state.standing), answered: state.answered, outcome: self.stands(&state) }
    }

    /// Asks, where the last answer is older than `cache` and nobody asks already; what comes of it is for [`Watched::wait`].
    pub fn ask(self: &Arc<Self>, runs: &Runs, cache: Duration) -> Asking {
        let ended = self.ended.subscribe();
        let running = self.running(runs, cache);
        Asking { running, ended, watch: runs.starved.watch() }
    }

    /// What stands after the answer. Who cannot wait for it any longer at `until` is told that it timed out, whatever stands.
    pub async fn wait(&self, mut asking: Asking, runs: &Runs, until: Instant) -> Told {
        let Some(running) = asking.running else { return self.look() };
        let end = until.min(running.deadline + GRACE);
        let ended = asking.ended.wait_for(|number| *number >= running.number);
        if time::timeout_at(end.into(), ended).await.is_ok() {
            return self.look();
        }
        let late = starved(self.late(), self.named(), &asking.watch);
        if Instant::now() < running.deadline + GRACE {
            return Told { outcome: late, ..self.look() };
        }
        // It blocks the thread that it runs on, or it would have said so itself.
        self.end(running, &late, runs);
        self.look()
    }

    /// The run to wait for: the one that goes on already, or a new one. None where what stands is new enough, and where an
    /// earlier run hangs beyond its end: nothing is sent after it.
    fn running(self: &Arc<Self>, runs: &Runs, cache: Duration) -> Option<Running> {
        let now = Moment::now();
        let mut state = self.state();
        let fresh =
            state.answered.is_some_and(|answered| now.mono.saturating_duration_since(answered.mono) < cache);
        match state.running {
            Some(running) if now.mono < running.deadline + GRACE => return Some(running),
            _ if fresh => return None,
            Some(_) => {
                self.note(&mut state, &self.late(), now, runs);
                return None;
            }
            None => {}
        }
        state.runs += 1;
        let running = Running { number: state.runs, deadline: now.mono + self.named().timeout };
        state.running = Some(running);
        drop(state);
        let (own, on) = (Arc::clone(self), runs.clone());
        runs.runtime.spawn(async move { own.run(running, on).await });
        Some(running)
    }

    async fn run(self: Arc<Self>, running: Running, runs: Runs) {
        let watch = runs.starved.watch();
        let outcome = runner::ask(self.named(), running.deadline).await;
        self.end(running, &starved(outcome, self.named(), &watch), &runs);
        self.state().running = None;
        self.ended.send_replace(running.number);
    }

    /// A run has ended, or hangs beyond its end: whoever is the first to say so is heard.
    fn end(&self, running: Running, outcome: &Outcome, runs: &Runs) {
        let mut state = self.state();
        if state.noted < running.number {
            state.noted = running.number;
            self.note(&mut state, outcome, Moment::now(), runs);
        }
    }

    fn note(&self, state: &mut State, outcome: &Outcome, at: Moment, runs: &Runs) {
        let common = &self.configured.common;
        let patience = Patience { fall: common.fall, rise: common.rise };
        state.answered = Some(at);
        state.took = outcome.took;
        if let Some(change) = Arc::make_mut(&mut state.standing).note(outcome, at, patience) {
            logs::changed(self.name(), change, outcome.source.as_deref());
        }
        runs.tell();
    }

    fn stands(&self, state: &State) -> Outcome {
        Outcome {
            name: self.name().to_owned(),
            status: state.standing.status,
            critical: self.named().critical,
            reason: state.standing.reason.clone(),
            took: state.took,
            source: None,
        }
    }

    /// The answer of a check that gave none.
    fn late(&self) -> Outcome {
        let named = self.named();
        Outcome {
            name: named.name.clone(),
            status: if named.critical { Status::Fail } else { Status::Warn },
            critical: named.critical,
            reason: Some(TIMED_OUT.to_owned()),
            took: named.timeout,
            source: None,
        }
    }

    fn named(&self) -> &Named {
        &self.configured.named
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 128 bits that come twice nowhere.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}

/// The same, or `unknown` where it failed by its time and this process was kept from running for much of that.
fn starved(outcome: Outcome, named: &Named, watch: &Watch) -> Outcome {
    let late = outcome.status != Status::Pass && outcome.took >= named.timeout / 4 * 3;
    if late && watch.lost() >= named.timeout / 4 {
        return Outcome { status: Status::Unknown, reason: Some(STARVED.to_owned()), ..outcome };
    }
    outcome
}
