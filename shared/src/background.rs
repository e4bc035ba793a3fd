//! Checks that are asked in the background: whoever wants an answer is told the latest one.
//!
//! Which checks are asked so, and how often, they say themselves ([`Check::refresh`]).

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

use crate::check::{Check, Failure, Refresh};
use crate::runner;
use crate::status::Status;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(10);

/// How much earlier than the deadline one says that there is no answer yet, so that one is still heard.
const MARGIN: Duration = Duration::from_millis(50);

/// A check that is asked in the background, from the first question to the end of this value, and never twice at once.
///
/// The first answer is waited for. What could not be told at a look leaves the answer before it standing, until that is
/// too old: so a look that fails or hangs is not an outage of what is looked at, and no good answer is told for ever.
pub struct Background {
    check: Arc<dyn Check>,
    refresh: Refresh,
    known: Arc<watch::Sender<Known>>,
    looking: Mutex<JoinSet<()>>,
}

/// What the looks have told.
#[derive(Debug, Default)]
struct Known {
    /// The latest answer that told something, and when it was asked for.
    told: Option<(Instant, Result<(), Failure>)>,
    /// Why nothing has been told since.
    since: Option<Failure>,
}

impl Background {
    /// The check, asked in the background where it is one to be.
    pub fn where_asked_for(check: impl Check + 'static) -> Box<dyn Check> {
        match check.refresh() {
            Some(refresh) => Box::new(Self::new(Arc::new(check), refresh)),
            None => Box::new(check),
        }
    }

    /// Asks nothing yet.
    pub fn new(check: Arc<dyn Check>, refresh: Refresh) -> Self {
        Self { check, refresh, known: Arc::default(), looking: Mutex::default() }
    }

    /// Begins to look, at the first question and where the runtime of an earlier one has ended.
    fn look(&self) {
        // A panic elsewhere leaves nothing half-made here.
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        while looking.try_join_next().is_some() {}
        if looking.is_empty() {
            looking.spawn(look(Arc::clone(&self.check), self.refresh, Arc::clone(&self.known)));
        }
    }

    fn answer(&self) -> Option<Result<(), Failure>> {
        self.known.borrow().answer(Instant::now(), self.refresh.max_stale)
    }
}

#[async_trait::async_trait]
impl Check for Background {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let mut known = self.known.subscribe();
        self.look();
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.saturating_sub(MARGIN.min(left / 10));
        // Whether there is one by then or not: what is known is looked at below.
        let _ = time::timeout(patience, known.wait_for(Known::is_any)).await;
        self.answer().unwrap_or_else(|| Err(Failure::unknown("there is no answer yet")))
    }
}

impl Known {
    fn is_any(&self) -> bool {
        self.told.is_some() || self.since.is_some()
    }

    fn note(&mut self, asked: Instant, answer: Result<(), Failure>) {
        match answer {
            Err(failure) if failure.status() == Status::Unknown => self.since = Some(failure),
            told => *self = Self { told: Some((asked, told)), since: None },
        }
    }

    fn answer(&self, now: Instant, max_stale: Duration) -> Option<Result<(), Failure>> {
        match (&self.told, &self.since) {
            (Some((asked, told)), _) if now.saturating_duration_since(*asked) <= max_stale => {
                Some(told.as_ref().copied().map_err(Failure::again))
            }
            (_, Some(failure)) => Some(Err(failure.again())),
            (Some(_), None) => Some(Err(Failure::unknown("the last answer is too old"))),
            (None, None) => None,
        }
    }
}

/// Looks again and again. Where a look tells nothing, the next one comes sooner, and each further one later.
async fn look(check: Arc<dyn Check>, refresh: Refresh, known: Arc<watch::Sender<Known>>) {
    let mut pause = refresh.every;
    loop {
        let asked = Instant::now();
        let answer = runner::answer(&check, asked + LOOK).await;
        let answer = answer.unwrap_or_else(|| Err(Failure::unknown("no answer in time")));
        known.send_modify(|known| known.note(asked, answer));
        let in_vain = known.borrow().since.is_some();
        pause = next(pause, refresh.every, in_vain);
        time::sleep(jittered(pause)).await;
    }
}

/// How long to wait after a look, by how long was waited before it.
fn next(last: Duration, every: Duration, in_vain: bool) -> Duration {
    if in_vain && last >= every {
        every / 16
    } else if in_vain {
        (last * 2).min(every)
    } else {
        every
    }
}

/// Up to a tenth less, so that many do not ask at the same moment.
fn jittered(pause: Duration) -> Duration {
    let share = u32::try_from(RandomState::new().hash_one(0) % 1_000).unwrap_or_default();
    pause.saturating_sub(pause / 10_000 * share)
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("refresh", &self.refresh).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::runtime::Builder;

    use super::*;

    const STALE: Duration = Duration::from_mins(15);

    fn told(known: &Known, now: Instant) -> Option<Result<(), (Status, String)>> {
        let shown = |failure: Failure| (failure.status(), failure.to_string());
        known.answer(now, STALE).map(|answer| answer.map_err(shown))
    }

    #[test]
    fn a_look_in_vain_leaves_the_last_answer_standing_until_it_is_too_old() {
        let mut known = Known::default();
        let begun = Instant::now();
        let at = |minutes| begun + Duration::from_mins(minutes);
        let unknown = |reason: &str| Some(Err((Status::Unknown, reason.to_owned())));
        assert_eq!(told(&known, at(0)), None);
        known.note(at(0), Err(Failure::unknown("no network")));
        assert_eq!(told(&known, at(0)), unknown("no network"));
        known.note(at(1), Ok(()));
        assert_eq!(told(&known, at(16)), Some(Ok(())));
        assert_eq!(told(&known, at(17)), unknown("the last answer is too old"));
        known.note(at(6), Err(Failure::unknown("no answer in time")));
        assert_eq!(told(&known, at(16)), Some(Ok(())));
        assert_eq!(told(&known, at(17)), unknown("no answer in time"));
        known.note(at(18), Err(Failure::warning("an incident")));
        assert_eq!(told(&known, at(18)), Some(Err((Status::Warn, "an incident".to_owned()))));
        assert_eq!(told(&known, at(34)), unknown("the last answer is too old"));
    }

    #[test]
    fn looks_in_vain_come_sooner_and_then_ever_later() {
        let every = Duration::from_mins(16);
        let minutes = [1, 2, 4, 8, 16, 1].map(Duration::from_mins);
        let mut last = every;
        for expected in minutes {
            last = next(last, every, true);
            assert_eq!(last, expected);
        }
        assert_eq!(next(last, every, false), every);
        for _ in 0..1_000 {
            let pause = jittered(every);
            assert!(pause <= every && pause > every * 9 / 10, "{pause:?}");
        }
    }

    /// Counts how often it is asked.
    #[derive(Clone, Default)]
    struct Asked(Arc<AtomicUsize>, Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl Check for Asked {
        async fn run(&self, _: Instant) -> Result<(), Failure> {
            self.0.fetch_add(1, Ordering::SeqCst);
            assert_eq!(self.1.fetch_add(1, Ordering::SeqCst), 0, "two looks at once");
            time::sleep(Duration::from_millis(20)).await;
            self.1.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }

        fn refresh(&self) -> Option<Refresh> {
            Some(Refresh { every: Duration::from_hours(1), max_stale: Duration::from_hours(2) })
        }
    }

    #[test]
    fn many_who_ask_cost_one_look_and_a_runtime_that_ended_is_no_end() {
        let asked = Asked::default();
        let check: Arc<dyn Check> = Background::where_asked_for(asked.clone()).into();
        for looks in 1..=2 {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for _ in 0..100 {
                    let check = Arc::clone(&check);
                    all.spawn(async move { check.run(Instant::now() + Duration::from_secs(20)).await });
                }
                for answer in all.join_all().await {
                    answer.unwrap();
                }
            });
            // The second runtime's look may not have begun: its askers have been told the first one's answer.
            let begun = Instant::now();
            while asked.0.load(Ordering::SeqCst) < looks {
                assert!(begun.elapsed() < Duration::from_secs(20));
                std::thread::yield_now();
            }
            assert_eq!(asked.0.load(Ordering::SeqCst), looks);
            // A look that its runtime's end breaks off has not ended by itself.
            drop(runtime);
            asked.1.store(0, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_looks_ends_with_the_check() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let check = Background::where_asked_for(Asked::default());
        runtime.block_on(check.run(Instant::now() + Duration::from_secs(20))).unwrap();
        assert_eq!(runtime.metrics().num_alive_tasks(), 1);
        drop(check);
        let begun = Instant::now();
        while runtime.metrics().num_alive_tasks() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it looks on");
            std::thread::yield_now();
        }
    }

    struct Silent;

    #[async_trait::async_trait]
    impl Check for Silent {
        async fn run(&self, _: Instant) -> Result<(), Failure> {
            std::future::pending().await
        }

        fn refresh(&self) -> Option<Refresh> {
            Some(Refresh { every: Duration::from_hours(1), max_stale: Duration::from_hours(2) })
        }
    }

    #[tokio::test]
    async fn without_any_answer_it_is_unknown_just_before_the_deadline() {
        let check = Background::where_asked_for(Silent);
        let deadline = Instant::now() + Duration::from_millis(300);
        let failure = check.run(deadline).await.unwrap_err();
        assert_eq!((failure.status(), failure.reason()), (Status::Unknown, "there is no answer yet"));
    }
}
