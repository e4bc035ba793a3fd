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
use super::standing::{Moment, NOT_LATELY, Patience, Standing};
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

/// A run that goes on.
#[derive(Clone, Debug)]
struct Running {
    number: u64,
    begun: Instant,
    /// How long it may take.
    within: Duration,
    /// What this process has lost since it was begun.
    watch: Arc<Watch>,
}

impl Running {
    fn deadline(&self) -> Instant {
        self.begun + self.within
    }

    /// When it has certainly not told itself that it was cut off.
    fn end(&self) -> Instant {
        self.deadline() + GRACE
    }

    /// The same answer; or `unknown`, where the check seems late and it was this process that did not run, be it before the check's
    /// own time began. A check that had all of its time while this process ran is late by itself, whatever came after.
    fn judge(&self, outcome: Outcome) -> Outcome {
        let since = self.begun.elapsed();
        let late = outcome.status != Status::Pass && since.max(outcome.took) >= self.within / 4 * 3;
        let lost = self.watch.lost();
        let had = since.saturating_sub(lost);
        if late && lost >= self.within / 4 && had < self.within {
            return Outcome { status: Status::Unknown, reason: Some(STARVED.to_owned()), ..outcome };
        }
        outcome
    }
}

/// What stands of a check at one moment.
#[derive(Clone, Debug)]
pub struct Told {
    /// What stands.
    pub standing: Arc<Standing>,
    /// When the last answer came.
    pub answered: Option<Moment>,
    /// What it amounts to for who asked. That is what stands, but for who could not wait for the answer, and for who only
    /// looks long after the last one.
    pub outcome: Outcome,
    /// Since when that is so.
    pub since: Moment,
    /// What was so before, where anything was.
    pub before: Option<Status>,
}

impl Told {
    /// The same for who looks at `now` and asks nobody: unknown where the last answer is older than `most`.
    #[must_use]
    pub fn looked_at(self, now: Instant, most: Duration) -> Self {
        let old = |answered: &Moment| now.saturating_duration_since(answered.mono) > most;
        let Some(answered) = self.answered.filter(old) else { return self };
        let outcome =
            Outcome { status: Status::Unknown, reason: Some(NOT_LATELY.to_owned()), ..self.outcome };
        Self { outcome, since: answered.after(most), before: Some(self.standing.status), ..self }
    }
}

/// A question that was asked.
#[derive(Debug)]
pub struct Asking {
    from: From,
    ended: watch::Receiver<u64>,
}

impl Asking {
    /// Whether its answer is one that stood already, and was new enough.
    pub fn is_kept(&self) -> bool {
        matches!(self.from, From::Kept)
    }
}

/// Where an answer comes from.
#[derive(Debug)]
enum From {
    /// A run, to be waited for.
    Run(Running),
    /// What stands is new enough.
    Kept,
    /// An earlier run hangs beyond its end, which was noted: nothing is sent after it.
    Hung,
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
        let standing = Arc::clone(&state.standing);
        let (since, before) = (standing.since, standing.changes.back().map(|change| change.from));
        Told { standing, answered: state.answered, outcome: self.stands(&state), since, before }
    }

    /// Asks, where the last answer is older than `cache` and nobody asks already; what comes of it is for [`Watched::wait`]. A run
    /// takes its check's own time at most, and no more than `within`.
    pub fn ask(self: &Arc<Self>, runs: &Runs, cache: Duration, within: Duration) -> Asking {
        let ended = self.ended.subscribe();
        let from = self.running(runs, cache, within);
        Asking { from, ended }
    }

    /// What stands after the answer. Who cannot wait for it any longer at `until` is told that it timed out, whatever stands.
    pub async fn wait(&self, mut asking: Asking, runs: &Runs, until: Instant) -> Told {
        let From::Run(running) = asking.from else { return self.look() };
        let ended = asking.ended.wait_for(|number| *number >= running.number);
        if time::timeout_at(until.min(running.end()).into(), ended).await.is_ok() {
            return self.look();
        }
        let late = self.late(&running);
        if Instant::now() < running.end() {
            return Told { outcome: late, ..self.look() };
        }
        // It blocks the thread that it runs on, or it would have said so itself.
        self.end(&running, &late, runs);
        self.look()
    }

    /// The run to wait for, where there is one: that which goes on already, or a new one.
    fn running(self: &Arc<Self>, runs: &Runs, cache: Duration, within: Duration) -> From {
        let now = Moment::now();
        let mut state = self.state();
        let fresh =
            state.answered.is_some_and(|answered| now.mono.saturating_duration_since(answered.mono) < cache);
        match state.running.clone() {
            // It may be run ahead of time, for who tells it later.
            _ if fresh => return From::Kept,
            Some(running) if now.mono < running.end() => return From::Run(running),
            Some(running) => {
                // The run's own answer, where it was not noted yet; and for each question after that one more that it leaves
                // without any.
                state.noted = running.number;
                self.note(&mut state, &self.late(&running), now, runs);
                return From::Hung;
            }
            None => {}
        }
        state.runs += 1;
        let within = within.min(self.named().timeout);
        let watch = Arc::new(runs.starved.watch());
        let running = Running { number: state.runs, begun: now.mono, within, watch };
        state.running = Some(running.clone());
        drop(state);
        let (own, on, run) = (Arc::clone(self), runs.clone(), running.clone());
        runs.runtime.spawn(async move { own.run(run, on).await });
        From::Run(running)
    }

    async fn run(self: Arc<Self>, running: Running, runs: Runs) {
        let outcome = runner::ask(self.named(), running.deadline()).await;
        self.end(&running, &running.judge(outcome), &runs);
        self.state().running = None;
        self.ended.send_replace(running.number);
    }

    /// A run has ended, or hangs beyond its end: whoever is the first to say so is heard.
    fn end(&self, running: &Running, outcome: &Outcome, runs: &Runs) {
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

    /// The answer of a run that gave none.
    fn late(&self, running: &Running) -> Outcome {
        let named = self.named();
        running.judge(Outcome {
            name: named.name.clone(),
            status: if named.critical { Status::Fail } else { Status::Warn },
            critical: named.critical,
            reason: Some(TIMED_OUT.to_owned()),
            took: running.within,
            source: None,
        })
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shared::config::{Configuration, Surroundings};
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::serve::standing::NOT_ASKED;

    const TIMEOUT: Duration = Duration::from_secs(4);

    /// A check that has passed and takes two failures in a row; and a runtime that runs nothing until somebody waits in it.
    fn watched() -> (Arc<Watched>, Runs, Runtime) {
        let text = "[subsets]\nall = ['it']\n[checks.it]\ntype = 'command'\ncommand = ['true']\ntimeout = '4s'\nfall = 2\n";
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("/") };
        let configuration = Configuration::parse(text, surroundings).configuration.unwrap();
        let watched = Arc::new(Watched::new(configuration.checks[0].clone()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let starved = Arc::new(Starved::start().unwrap());
        let runs = Runs { runtime: runtime.handle().clone(), starved, news: watch::Sender::new(0) };
        let passed = Outcome { status: Status::Pass, reason: None, ..watched.look().outcome };
        watched.note(&mut watched.state(), &passed, Moment::now(), &runs);
        (watched, runs, runtime)
    }

    fn asked(watched: &Arc<Watched>, runs: &Runs) -> Asking {
        watched.ask(runs, Duration::ZERO, Duration::MAX)
    }

    fn run(asking: Asking) -> Running {
        let From::Run(running) = asking.from else { panic!("no run is waited for") };
        running
    }

    /// As if the run had been begun so much earlier.
    fn age(watched: &Watched, by: Duration) {
        let mut state = watched.state();
        let running = state.running.as_mut().unwrap();
        running.begun = running.begun.checked_sub(by).unwrap();
    }

    fn last(watched: &Watched) -> (Status, usize) {
        let runs = watched.look().standing.runs.clone();
        (runs.back().unwrap().status, runs.len())
    }

    #[test]
    fn a_run_that_is_found_late_counts_once_though_it_ends_after_all() {
        let (watched, runs, runtime) = watched();
        asked(&watched, &runs);
        age(&watched, 2 * TIMEOUT);
        // Nobody waited for it: the next question finds that it hangs.
        assert!(matches!(asked(&watched, &runs).from, From::Hung));
        assert_eq!(last(&watched), (Status::Fail, 2));
        let mut ended = watched.ended.subscribe();
        let ended =
            async { time::timeout(Duration::from_secs(20), ended.wait_for(|run| *run == 1)).await.is_ok() };
        assert!(runtime.block_on(ended));
        assert_eq!(last(&watched), (Status::Fail, 2));
        assert_eq!(watched.look().outcome.status, Status::Pass, "one failure of the two that it takes");
    }

    #[test]
    fn a_run_that_hangs_for_ever_counts_with_each_question_and_nothing_is_sent_after_it() {
        let (watched, runs, _idle) = watched();
        let mut asking = asked(&watched, &runs);
        age(&watched, 2 * TIMEOUT);
        asking.from = From::Run(watched.state().running.clone().unwrap());
        // The server's answers have a runtime of their own.
        let answers = Builder::new_current_thread().enable_all().build().unwrap();
        let told = answers.block_on(watched.wait(asking, &runs, Instant::now()));
        assert_eq!((told.outcome.status, last(&watched)), (Status::Pass, (Status::Fail, 2)));
        for runs_so_far in 3..5 {
            assert!(matches!(asked(&watched, &runs).from, From::Hung));
            assert_eq!(
                (watched.look().outcome.status, last(&watched)),
                (Status::Fail, (Status::Fail, runs_so_far))
            );
        }
        assert_eq!(watched.state().runs, 1);
    }

    #[test]
    fn a_run_that_is_found_late_is_unknown_where_this_process_did_not_run_and_failed_once_it_had_its_time() {
        let (watched, runs, _idle) = watched();
        asked(&watched, &runs);
        age(&watched, 3 * TIMEOUT);
        runs.starved.lose(3 * TIMEOUT);
        asked(&watched, &runs);
        assert_eq!(last(&watched), (Status::Unknown, 2));
        // It goes on to hang while this process runs.
        age(&watched, TIMEOUT);
        asked(&watched, &runs);
        assert_eq!(last(&watched), (Status::Fail, 3));
    }

    #[test]
    fn a_run_that_had_no_turn_until_its_deadline_is_unknown_where_this_process_did_not_run() {
        let (watched, runs, _idle) = watched();
        let mut running = run(asked(&watched, &runs));
        let reason = Some(TIMED_OUT.to_owned());
        // Its own time began when it had its turn.
        let failed = Outcome { status: Status::Fail, reason, took: Duration::ZERO, ..watched.look().outcome };
        let judged = |running: &Running| running.judge(failed.clone()).status;
        running.begun = running.begun.checked_sub(TIMEOUT).unwrap();
        assert_eq!(judged(&running), Status::Fail, "this process ran");
        runs.starved.lose(TIMEOUT);
        assert_eq!(judged(&running), Status::Unknown);
        assert_eq!(running.judge(Outcome { status: Status::Pass, ..failed.clone() }).status, Status::Pass);
        running.begun = Instant::now();
        assert_eq!(judged(&running), Status::Fail, "it is not late");
    }

    #[test]
    fn no_run_takes_longer_than_who_asks_can_wait() {
        let (watched, runs, _idle) = watched();
        let within = Duration::from_millis(10);
        let running = run(watched.ask(&runs, Duration::ZERO, within));
        assert_eq!((running.within, watched.late(&running).took), (within, within));
    }

    fn told(status: Status, answered: Option<Moment>) -> Told {
        let now = Moment::now();
        let mut standing = Standing::new(now, 1);
        let patience = Patience { fall: 1.try_into().unwrap(), rise: 1.try_into().unwrap() };
        let outcome = Outcome {
            name: "it".to_owned(),
            status,
            critical: true,
            reason: None,
            took: Duration::ZERO,
            source: None,
        };
        if let Some(at) = answered {
            standing.note(&outcome, at, patience);
        }
        Told { standing: Arc::new(standing), answered, outcome, since: now, before: Some(Status::Fail) }
    }

    #[test]
    fn what_was_not_asked_lately_is_unknown_to_who_looks() {
        const MOST: Duration = Duration::from_mins(10);
        let answered = Moment::now();
        for status in [Status::Pass, Status::Fail] {
            let at = |later: Duration| told(status, Some(answered)).looked_at(answered.mono + later, MOST);
            for recent in [Duration::ZERO, MOST] {
                let told = at(recent);
                assert_eq!(
                    (told.outcome.status, told.outcome.reason, told.before),
                    (status, None, Some(Status::Fail))
                );
            }
            let old = at(MOST + Duration::from_nanos(1));
            assert_eq!(
                (old.outcome.status, old.outcome.reason.as_deref()),
                (Status::Unknown, Some(NOT_LATELY))
            );
            assert_eq!((old.since.mono, old.before), (answered.mono + MOST, Some(status)));
        }
        let never = told(Status::Unknown, None).looked_at(answered.mono + MOST * 2, MOST);
        assert_eq!((never.outcome.reason, never.standing.reason.as_deref()), (None, Some(NOT_ASKED)));
    }
}
