//! The workers that the page and `/metrics` show: read now and then while somebody looks, beside the checks and never in the way of one.
//!
//! Names of workers are details, so nothing is read where reasons are not told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use shared::check::Workers;
use tokio::time;

use crate::serve::board::{Board, Setup};
use crate::serve::watched::{Runs, Watched};

/// How many workers of a cluster are read.
const MOST: usize = 500;

/// Between two readings, at least.
pub const REST: Duration = Duration::from_secs(2);

/// Reading may take one part in so many of the time.
const SHARE: u32 = 5;

/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long who asks once waits for what is being read.
const MEETING: Duration = Duration::from_millis(500);

/// What was read before that is told to nobody any more.
const RECENT: Duration = Duration::from_mins(1);

/// What was read last.
#[derive(Debug)]
pub struct Crew {
    /// The workers; or why they could not be read, in words for everyone.
    pub told: Result<Workers, String>,
    /// When.
    pub at: SystemTime,
}

impl Crew {
    /// Whether it was read within so long.
    fn is_recent(&self, most: Duration) -> bool {
        self.at.elapsed().is_ok_and(|age| age <= most)
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
            let recent = known.crew.as_ref().filter(|crew| crew.is_recent(RECENT));
            found.extend(recent.map(|crew| (Arc::clone(check), Arc::clone(crew))));
        }
        found
    }

    /// Waits for what is being read, where what is known is older than `most`, and not for long.
    pub async fn meet(&self, board: &Board, setup: &Setup, most: Duration) {
        let mut news = board.news();
        let met = async {
            loop {
                self.look(setup);
                let old = |known: &Known| !known.crew.as_ref().is_some_and(|crew| crew.is_recent(most));
                let waits = |known: &Known| known.next == Next::Reading && old(known);
                if !lock(&self.known).iter().any(waits) || news.changed().await.is_err() {
                    return;
                }
            }
        };
        // Who is not known by then is shown later.
        let _ = time::timeout(MEETING, met).await;
    }
}

async fn read(check: Arc<Watched>, known: Arc<Mutex<Vec<Known>>>, runs: Runs) {
    let begun = Instant::now();
    let named = &check.configured.named;
    let until = begun + PATIENCE.min(named.timeout);
    let told = time::timeout_at(until.into(), named.check.workers(MOST, until)).await;
    let told = match told {
        Ok(Some(Ok(workers))) => Some(Ok(workers)),
        Ok(Some(Err(failure))) => Some(Err(failure.reason().to_owned())),
        Ok(None) => None,
        Err(_) => Some(Err("no answer in time".to_owned())),
    };
    let mut known = lock(&known);
    if let Some(known) = known.iter_mut().find(|known| Arc::ptr_eq(&check, &known.check)) {
        let rest = REST.max(begun.elapsed() * SHARE);
        known.next = if told.is_some() { Next::At(Instant::now() + rest) } else { Next::Never };
        known.crew = told.map(|told| Arc::new(Crew { told, at: SystemTime::now() }));
    }
    drop(known);
    runs.tell();
}

fn lock(known: &Mutex<Vec<Known>>) -> MutexGuard<'_, Vec<Known>> {
    // Nothing panics under the lock.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
