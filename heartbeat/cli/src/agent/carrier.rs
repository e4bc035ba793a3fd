//! The way to Redis: one thread that carries one load at a time, each within its deadline. The loop never waits for it,
//! and hands it the next load only when the last one has come back; so nothing piles up, whatever Redis does.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Beat, Error, Fleet, Url};
use heartbeat::record::Record;

use super::roster::{Errand, What};
use super::wake::Wake;

/// How long a cluster's connection is kept though nobody beats in it.
const IDLE: Duration = Duration::from_mins(10);

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// What Redis has accepted.
    pub told: Vec<Errand>,
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
    pub fn start(url: Url, interval_ms: u64, wake: Arc<Wake>) -> io::Result<Self> {
        let (loads, taken) = sync_channel::<(Vec<Errand>, Instant)>(1);
        let (given, outcomes) = sync_channel(1);
        let mut redis = Redis { url, interval_ms, fleets: HashMap::new() };
        thread::Builder::new().name("redis".to_owned()).spawn(move || {
            for (errands, until) in taken {
                let outcome = redis.carry(errands, until);
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

/// The thread's side.
struct Redis {
    url: Url,
    interval_ms: u64,
    /// One for each cluster, and when it was last needed.
    fleets: HashMap<String, (Fleet, Instant)>,
}

impl Redis {
    fn carry(&mut self, errands: Vec<Errand>, until: Instant) -> Outcome {
        let mut outcome = Outcome { told: Vec::with_capacity(errands.len()), error: None };
        let mut clusters: BTreeMap<String, Vec<Errand>> = BTreeMap::new();
        for errand in errands {
            clusters.entry(errand.record.cluster.clone()).or_default().push(errand);
        }
        let mut left = u32::try_from(clusters.len()).unwrap_or(u32::MAX);
        for (cluster, errands) in clusters {
            // A fair share for each: in a Redis Cluster, one of them may be out of reach and the others not.
            let now = Instant::now();
            let share = now + until.saturating_duration_since(now) / left.max(1);
            left = left.saturating_sub(1);
            let fresh = || (Fleet::new(self.url.clone(), cluster.as_str()), now);
            let (fleet, used) = self.fleets.entry(cluster.clone()).or_insert_with(fresh);
            *used = now;
            let (leaving, staying): (Vec<_>, Vec<_>) =
                errands.into_iter().partition(|errand| errand.what == What::Withdrawal);
            let withdrawn = withdraw(fleet, &leaving, share);
            outcome.add(leaving, withdrawn);
            let published = publish(fleet, &staying, self.interval_ms, share);
            outcome.add(staying, published);
        }
        self.fleets.retain(|_, (_, used)| used.elapsed() < IDLE);
        outcome
    }
}

type Each = Result<Vec<Result<(), Error>>, Error>;

impl Outcome {
    fn add(&mut self, errands: Vec<Errand>, each: Each) {
        let each = match each {
            Ok(each) => each,
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        };
        for (errand, done) in errands.into_iter().zip(each) {
            match done {
                Ok(()) => self.told.push(errand),
                Err(error) => drop(self.error.get_or_insert(error)),
            }
        }
    }
}

fn withdraw(fleet: &mut Fleet, leaving: &[Errand], until: Instant) -> Each {
    if leaving.is_empty() {
        return Ok(Vec::new());
    }
    let records: Vec<&Record> = leaving.iter().map(|errand| &errand.record).collect();
    fleet.withdraw(&records, until)
}

fn publish(fleet: &mut Fleet, staying: &[Errand], interval_ms: u64, until: Instant) -> Each {
    if staying.is_empty() {
        return Ok(Vec::new());
    }
    let mut told: Vec<(Record, Vec<u8>, bool)> = Vec::with_capacity(staying.len());
    // The lost first: who has started anew under the same name is the one that the name stands for.
    let mut order: Vec<usize> = (0..staying.len()).collect();
    order.sort_by_key(|index| staying[*index].what != What::Lost);
    for index in &order {
        let errand = &staying[*index];
        let mut line = Vec::with_capacity(1_024);
        errand.record.write(&mut line);
        let mut record = errand.record.clone();
        record.promise_ms = patience_ms(errand, interval_ms);
        told.push((record, line, errand.what == What::Beat { takes_work: true }));
    }
    let beats: Vec<Beat<'_>> = told
        .iter()
        .map(|(record, line, takes_work)| Beat { record, line, takes_work: *takes_work })
        .collect();
    let answers = fleet.publish(&beats, until)?;
    let mut answers: Vec<_> = order.into_iter().zip(answers).collect();
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// For how long from now Redis is to count the worker as fresh: not for a promise that is long since running.
fn patience_ms(errand: &Errand, interval_ms: u64) -> u64 {
    let record = &errand.record;
    if errand.what == What::Lost {
        return 1;
    }
    let usual = record.interval_ms.saturating_add(interval_ms);
    record.promise_ms.saturating_sub(errand.age_ms.saturating_sub(usual)).max(1)
}
