//! The workers that the page and `/metrics` show: read now and then while somebody looks, beside the checks and never in the way of one.
//!
//! Nothing is read where no details are told. Whether workers have names is decided by who shows them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::check::Workers;
use tokio::time;

use crate::serve::board::{Board, Setup};
use crate::serve::standing::Moment;
use crate::serve::watched::{Runs, Watched};

/// How many workers of a cluster are read.
const MOST: usize = 500;

/// Between two readings, at least.
pub const REST: Duration = Duration::from_secs(2);

/// Reading may take one part in so many of the time.
const SHARE: u32 = 5;

/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long who asks once waits for a reading.
const MEETING: Duration = Duration::from_millis(500);

/// What was read so long ago tells nothing of now.
const CURRENT: Duration = Duration::from_mins(1);

/// What was read last.
#[derive(Debug)]
pub struct Crew {
    /// The workers; or why they could not be read, in words for everyone.
    pub told: Result<Workers, String>,
    /// When.
    pub at: Moment,
}

impl Crew {
    /// Whether it tells of now.
    pub fn is_current(&self) -> bool {
        self.at.mono.elapsed() < CURRENT
    }
}

/// What is known of the workers of each check.
#[derive(Debug)]
pub struct Crews {
    runs: Runs,
    known: Arc<Mutex<Vec<Known>>>,
}

#[derive(Debug)]
struct Known {
    check: Arc<Watched>,
    next: Next,
    crew: Option<Arc<Crew>>,
}

/// When to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(Instant),
    /// It is being read.
    Reading,
    /// The check is about no workers.
    Never,
}

impl Crews {
    /// Reads nothing yet.
    pub fn new(runs: Runs) -> Self {
        Self { runs, known: Arc::default() }
    }

    /// What is known of the workers of each check; and begins to read where that is old.
    pub fn look(&self, setup: &Setup) -> Vec<(Arc<Watched>, Arc<Crew>)> {
        if !setup.shown().reasons {
            return Vec::new();
        }
        let mut known = lock(&self.known);
        known.retain(|known| setup.checks.iter().any(|check| Arc::ptr_eq(check, &known.check)));
        let now = Instant::now();
        let mut found = Vec::new();
        for check in &setup.checks {
            let own = known.iter().position(|known| Arc::ptr_eq(check, &known.check));
            let own = own.unwrap_or_else(|| {
                known.push(Known { check: Arc::clone(check), next: Next::At(now), crew: None });
                known.len() - 1
            });
            let known = &mut known[own];
            if matches!(known.next, Next::At(at) if at <= now) {
                known.next = Next::Reading;
                self.runs.runtime.spawn(read(Arc::clone(check), Arc::clone(&self.known), self.runs.clone()));
            }
            found.extend(known.crew.as_ref().map(|crew| (Arc::clone(check), Arc::clone(crew))));
        }
        found
    }

    /// What is known of the workers of each check that are not being read just now: what was read before may hold no more.
    pub fn settled(&self, setup: &Setup) -> Vec<(Arc<Watched>, Arc<Crew>)> {
        let known = lock(&self.known);
        let settled = |check: &Arc<Watched>| {
            let known = known.iter().find(|known| Arc::ptr_eq(check, &known.check))?;
            let crew = known.crew.as_ref().filter(|_| known.next != Next::Reading)?;
            Some((Arc::clone(check), Arc::clone(crew)))
        };
        setup.checks.iter().filter_map(settled).collect()
    }

    /// Waits for what is not known of each, or was read longer ago than `most`; and not for long.
    pub async fn meet(&self, board: &Board, setup: &Setup, most: Duration) {
        let mut news = board.news();
        let met = async {
            loop {
                self.look(setup);
                let old = |crew: &Arc<Crew>| crew.at.mono.elapsed() >= most;
                let waits =
                    |known: &Known| known.next == Next::Reading && known.crew.as_ref().is_none_or(old);
                if !lock(&self.known).iter().any(waits) || news.changed().await.is_err() {
                    return;
                }
            }
        };
        // Who is not known by then is shown later.
        let _ = time::timeout(MEETING, met).await;
    }
}

/// A reading that goes on. However it ends, there can be another one.
struct Reading {
    check: Arc<Watched>,
    known: Arc<Mutex<Vec<Known>>>,
    next: Next,
    crew: Option<Arc<Crew>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut known = lock(&self.known);
        if let Some(known) = known.iter_mut().find(|known| Arc::ptr_eq(&self.check, &known.check)) {
            known.next = self.next;
            known.crew = self.crew.take().or(known.crew.take());
        }
    }
}

async fn read(check: Arc<Watched>, known: Arc<Mutex<Vec<Known>>>, runs: Runs) {
    let begun = Instant::now();
    let mut reading = Reading { check: Arc::clone(&check), known, next: Next::At(begun + REST), crew: None };
    let named = &check.configured.named;
    let until = begun + PATIENCE.min(named.timeout);
    let told = time::timeout_at(until.into(), named.check.workers(MOST, until)).await;
    let told = match told {
        Ok(Some(Ok(workers))) => Some(Ok(workers)),
        Ok(Some(Err(failure))) => Some(Err(failure.reason().to_owned())),
        Ok(None) => None,
        Err(_) => Some(Err("no answer in time".to_owned())),
    };
    let rest = REST.max(begun.elapsed() * SHARE);
    reading.next = if told.is_some() { Next::At(Instant::now() + rest) } else { Next::Never };
    reading.crew = told.map(|told| Arc::new(Crew { told, at: Moment::now() }));
    drop(reading);
    runs.tell();
}

fn lock(known: &Mutex<Vec<Known>>) -> MutexGuard<'_, Vec<Known>> {
    // Nothing panics under the lock.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};

    use shared::check::{Check, Failure};
    use shared::config::{Configuration, Surroundings};
    use shared::runner::Named;
    use tokio::runtime::Builder;

    use super::*;

    /// Reads nobody, and ends as a fault of its own would end it.
    struct Breaks;

    type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

    impl Check for Breaks {
        fn run<'a: 'r, 'r>(&'a self, _: Instant) -> Answer<'r, Result<(), Failure>>
        where
            Self: 'r,
        {
            Box::pin(async { Ok(()) })
        }

        fn workers<'a: 'r, 'r>(&'a self, _: usize, _: Instant) -> Answer<'r, Option<Result<Workers, Failure>>>
        where
            Self: 'r,
        {
            Box::pin(async { panic!("a fault of the check's own") })
        }
    }

    /// Reads nobody at first, and does not end where it is asked once more.
    #[derive(Default)]
    struct Hangs(AtomicBool);

    impl Check for Hangs {
        fn run<'a: 'r, 'r>(&'a self, _: Instant) -> Answer<'r, Result<(), Failure>>
        where
            Self: 'r,
        {
            Box::pin(async { Ok(()) })
        }

        fn workers<'a: 'r, 'r>(&'a self, _: usize, _: Instant) -> Answer<'r, Option<Result<Workers, Failure>>>
        where
            Self: 'r,
        {
            Box::pin(async move {
                if self.0.swap(true, Ordering::SeqCst) {
                    future::pending::<()>().await;
                }
                Some(Err(Failure::failed("nobody")))
            })
        }
    }

    /// A board whose only check is this one.
    fn board(check: impl Check + 'static) -> Board {
        let text = "[server]\ndetail = 'safe'\n[subsets]\nall = ['it']\n[checks.it]\ntype = 'command'\ncommand = ['true']\n";
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("/") };
        let mut configuration = Configuration::parse(text, surroundings).configuration.unwrap();
        let named = &mut configuration.checks[0].named;
        *named = Arc::new(Named { check: Arc::new(check), ..(**named).clone() });
        Board::new(configuration).unwrap()
    }

    #[test]
    fn who_is_being_read_is_not_told_as_if_that_were_over() {
        let board = board(Hangs::default());
        let (setup, crews) = (board.setup(), &board.live().crews);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let begun = Instant::now();
        // A meeting is short, and this machine may have much to do.
        while crews.settled(&setup).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not read");
            runtime.block_on(crews.meet(&board, &setup, Duration::ZERO));
        }
        lock(&crews.known)[0].next = Next::At(Instant::now());
        runtime.block_on(crews.meet(&board, &setup, Duration::ZERO));
        assert!(crews.settled(&setup).is_empty());
        assert_eq!(crews.look(&setup).len(), 1, "to who waits for nothing, it is told with its time");
    }

    #[test]
    fn a_reading_that_breaks_is_followed_by_another_one() {
        let board = board(Breaks);
        let crews = &board.live().crews;
        assert!(crews.look(&board.setup()).is_empty());
        let next = || lock(&crews.known)[0].next;
        let begun = Instant::now();
        while next() == Next::Reading {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is still said to be read");
            std::thread::yield_now();
        }
        assert!(matches!(next(), Next::At(_)));
    }
}
