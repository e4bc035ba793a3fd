//! The way to Redis: one thread that carries one load at a time, each within its deadline. The loop never waits for it,
//! and hands it the next load only when the last one has come back; so nothing piles up, whatever Redis does.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Beat, Error, ErrorKind, Fleets, News};

use super::roster::{Errand, What};
use super::wake::Wake;

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// What Redis has accepted, or need not be told again.
    pub told: Vec<Errand>,
    /// Whether it has answered to any of them, be it by a refusal.
    pub answered: bool,
    /// The first thing that went wrong.
    pub error: Option<Error>,
}

/// The loop's side.
#[derive(Debug)]
pub struct Carrier {
    loads: SyncSender<(Vec<Errand>, Instant)>,
    outcomes: Receiver<Outcome>,
    /// The deadline of the load that is under way.
    under_way: Option<Instant>,
}

impl Carrier {
    /// Starts the thread. `interval_ms` is how old a beat may be on its way.
    pub fn start(mut fleets: Fleets, interval_ms: u64, wake: Arc<Wake>) -> io::Result<Self> {
        let (loads, taken) = sync_channel::<(Vec<Errand>, Instant)>(1);
        let (given, outcomes) = sync_channel(1);
        thread::Builder::new().name("redis".to_owned()).spawn(move || {
            for (errands, until) in taken {
                let outcome = carry(&mut fleets, errands, interval_ms, until);
                let heard = given.send(outcome).is_ok();
                wake.wake();
                if !heard {
                    return;
                }
            }
        })?;
        Ok(Self { loads, outcomes, under_way: None })
    }

    pub fn is_free(&self) -> bool {
        self.under_way.is_none()
    }

    /// Whether what is under way should have come back long ago.
    pub fn is_stuck(&self, now: Instant) -> bool {
        const LONG: Duration = Duration::from_secs(5);
        self.under_way.is_some_and(|until| now.saturating_duration_since(until) > LONG)
    }

    /// Hands over a load, where the last one has come back.
    pub fn send(&mut self, errands: Vec<Errand>, until: Instant) {
        if self.loads.try_send((errands, until)).is_ok() {
            self.under_way = Some(until);
        }
    }

    /// What came of the load, where that is known.
    pub fn outcome(&mut self) -> io::Result<Option<Outcome>> {
        match self.outcomes.try_recv() {
            Ok(outcome) => {
                self.under_way = None;
                Ok(Some(outcome))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the way to Redis has broken down")),
        }
    }

    /// Waits for what is under way, until then at most; `None` where nothing came back.
    pub fn wait(&mut self, until: Instant) -> Option<Outcome> {
        match self.outcomes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(outcome) => {
                self.under_way = None;
                Some(outcome)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

/// Tells all of them at once; nothing is told of one that Redis refuses, and the others are told of all the same.
fn carry(fleets: &mut Fleets, errands: Vec<Errand>, interval_ms: u64, until: Instant) -> Outcome {
    let mut lines = Vec::with_capacity(errands.len());
    for errand in &errands {
        let mut line = Vec::new();
        if let What::Beat { .. } = errand.what {
            line.reserve(1_024);
            errand.record.write(&mut line);
        }
        lines.push(line);
    }
    let news: Vec<_> =
        errands.iter().zip(&lines).map(|(errand, line)| news(errand, line, interval_ms)).collect();
    let outcomes = fleets.tell(&news, until);
    let mut outcome = Outcome { told: Vec::with_capacity(errands.len()), answered: false, error: None };
    for (errand, told) in errands.into_iter().zip(outcomes) {
        let Err(error) = told else {
            outcome.answered = true;
            outcome.told.push(errand);
            continue;
        };
        outcome.answered |= matches!(error.kind(), ErrorKind::Denied | ErrorKind::Server);
        // The promise ends what may not be withdrawn or called lost.
        if !matches!(errand.what, What::Beat { .. }) && is_for_good(&error) {
            outcome.told.push(errand);
        }
        outcome.error.get_or_insert(error);
    }
    outcome
}

/// Whether it would be refused the next time too: a server that only replicates, or loads, may take it then.
fn is_for_good(error: &Error) -> bool {
    matches!(error.code(), Some("NOPERM" | "WRONGTYPE"))
}

fn news<'a>(errand: &'a Errand, line: &'a [u8], interval_ms: u64) -> News<'a> {
    let record = &errand.record;
    match errand.what {
        What::Beat { takes_work } => {
            // Who beats by itself beats again within its interval, and is told of within this one's: that is no delay.
            let usual = record.interval_ms.saturating_add(interval_ms);
            let age_ms = errand.age_ms.saturating_sub(usual);
            News::Beat(Beat { record, line, takes_work, age_ms })
        }
        What::Lost => News::Lost { record, silent_ms: errand.age_ms },
        What::Withdrawal => News::Stopped(record),
    }
}
