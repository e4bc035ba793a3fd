//! Who is known, what Redis was last told of each, and so what it is to be told next. Nothing is opened and nobody
//! is asked here: what was seen comes in, errands for Redis go out, and what came of them comes back.
//!
//! A beat is told once. So a worker that goes silent is lost to Redis when its own promise says so, however many agents
//! look at its file, and one that is told of by several is told of in the same words.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;

use heartbeat::fleet::takes_work;
use heartbeat::observe::Observation;
use heartbeat::record::{Id, Record};
use heartbeat::verdict::Verdict;

/// The most errands of one round trip: as many as Redis does in a fraction of a second.
pub const MOST_ERRANDS: usize = 20_000;

/// In how many probes all are told of, however many they are.
const PROBES: usize = 4;

/// For how long Redis names who is lost: after that there is nothing to withdraw.
const NAMED_MS: u64 = 3_600_000;

/// By what a file is known to be the same as before, without a look into it: inode and time of the last change.
pub type Stamp = (u64, i64, i64);

/// Something to tell Redis of one worker.
#[derive(Clone, Debug)]
pub struct Errand {
    pub record: Record,
    pub what: What,
    /// How long ago that beat was made.
    pub age_ms: u64,
}

impl Errand {
    fn withdrawal(record: &Record) -> Self {
        Self { record: record.clone(), what: What::Withdrawal, age_ms: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It has beaten.
    Beat { takes_work: bool },
    /// It is lost, as of now.
    Lost,
    /// It has stopped.
    Withdrawal,
}

/// Which errands are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that change who can take work, or who is there.
    Urgent,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub workers: usize,
    pub take_work: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.workers == 1 { "" } else { "s" };
        write!(f, "{} worker{s}, {} can take work", self.workers, self.take_work)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Beat { seq: u64, takes_work: bool },
    Lost,
}

#[derive(Debug)]
struct Worker {
    /// Always a record.
    seen: Observation,
    stamp: Option<Stamp>,
    verdict: Verdict,
    told: Told,
    /// Whether Redis may know of it.
    attempted: bool,
    /// Whether it has beaten since the last [`Roster::recheck`].
    beaten: bool,
    /// Whether its folder has gone away, and with it all that its file could tell.
    orphan: bool,
}

impl Worker {
    fn record(&self) -> Option<&Record> {
        self.seen.record()
    }

    fn errand(&self) -> Option<What> {
        let record = self.record()?;
        match self.verdict {
            Verdict::Gone if self.told == Told::Lost => None,
            // What is dead for longer than its promise is lost to Redis already, or was never known to it.
            Verdict::Gone if self.told == Told::Nothing && self.age_ms() > record.promise_ms => None,
            Verdict::Gone => Some(What::Lost),
            Verdict::Stopped => (self.told != Told::Nothing).then_some(What::Withdrawal),
            // Redis knows when its last beat was; nobody knows more.
            Verdict::Silent | Verdict::Unknown | Verdict::Missing | Verdict::Unsafe | Verdict::Corrupt => {
                None
            }
            verdict => {
                let takes_work = takes_work(record, verdict);
                let now = Told::Beat { seq: record.seq, takes_work };
                (self.told != now).then_some(What::Beat { takes_work })
            }
        }
    }

    fn is_urgent(&self, what: What) -> bool {
        match (what, self.told) {
            (What::Beat { takes_work }, Told::Beat { takes_work: told, .. }) => takes_work != told,
            (What::Beat { .. }, _) => false,
            (What::Lost | What::Withdrawal, _) => true,
        }
    }

    fn age_ms(&self) -> u64 {
        self.seen.age_ms().unwrap_or(u64::MAX)
    }

    /// Whether it reaches a stat key by itself.
    fn beats_by_itself(&self) -> bool {
        self.record().is_some_and(|record| {
            record.stat.is_some_and(|stat| {
                stat.failures == 0 && record.at_mono_ms - stat.ok_mono_ms <= record.promise_ms
            })
        })
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Roster {
    workers: HashMap<OsString, Worker>,
    /// In how many files an incarnation stands: more than one where somebody has copied a file.
    files: HashMap<Id, usize>,
    /// Who has stopped, and Redis does not know it yet.
    leaving: HashMap<Id, Observation>,
}

impl Roster {
    /// Takes note of what a file holds, which is a record.
    pub fn note(&mut self, name: &OsStr, seen: Observation, stamp: Option<Stamp>) {
        let Some(record) = seen.record() else { return };
        let (id, seq) = (record.id, record.seq);
        let verdict = seen.judge(None).verdict;
        if let Some(worker) = self.workers.get_mut(name)
            && worker.record().is_some_and(|known| known.id == id)
        {
            worker.beaten |= worker.record().is_some_and(|known| known.seq != seq);
            worker.orphan = false;
            (worker.seen, worker.stamp, worker.verdict) = (seen, stamp, verdict);
            return;
        }
        self.remove(name);
        self.leaving.remove(&id);
        *self.files.entry(id).or_default() += 1;
        let (told, attempted, beaten, orphan) = (Told::Nothing, false, true, false);
        let worker = Worker { seen, stamp, verdict, told, attempted, beaten, orphan };
        self.workers.insert(name.to_owned(), worker);
    }

    /// Takes note of a file's being no more: its worker has stopped, or another one has taken its place.
    pub fn remove(&mut self, name: &OsStr) {
        let Some(worker) = self.forget(name) else { return };
        if let Some(id) = worker.record().map(|record| record.id)
            && worker.attempted
            && !self.files.contains_key(&id)
        {
            self.leaving.insert(id, worker.seen);
        }
    }

    fn forget(&mut self, name: &OsStr) -> Option<Worker> {
        let worker = self.workers.remove(name)?;
        if let Some(id) = worker.record().map(|record| record.id)
            && let Some(files) = self.files.get_mut(&id)
        {
            *files -= 1;
            if *files == 0 {
                self.files.remove(&id);
            }
        }
        Some(worker)
    }

    /// Takes note of the folder's being no more. That is no word of any worker's.
    pub fn orphan_all(&mut self) {
        for worker in self.workers.values_mut() {
            worker.orphan = true;
        }
    }

    /// Whether this file is known as it is.
    pub fn knows(&self, name: &OsStr, stamp: Stamp) -> bool {
        self.workers.get(name).is_some_and(|worker| worker.stamp == Some(stamp))
    }

    /// Whose files are none of these, though their folder is there.
    pub fn unlisted(&self, listed: &HashSet<OsString>) -> Vec<OsString> {
        let unlisted = |name: &OsString, worker: &Worker| !worker.orphan && !listed.contains(name);
        let unlisted = self.workers.iter().filter(|(name, worker)| unlisted(name, worker));
        unlisted.map(|(name, _)| name.clone()).collect()
    }

    /// Judges anew who has not beaten since the last time. Who has is there. Whom Redis has forgotten by itself meanwhile
    /// need not be withdrawn any more.
    pub fn recheck(&mut self) {
        self.keep_leaving(Observation::age_ms);
        for worker in self.workers.values_mut() {
            // One that is gone does not come back as the same.
            if !std::mem::take(&mut worker.beaten) && worker.verdict != Verdict::Gone {
                worker.verdict = worker.seen.judge(None).verdict;
            }
        }
        let ended = |worker: &Worker| {
            worker.orphan && worker.errand().is_none() && worker.verdict.live() != Some(true)
        };
        let ended: Vec<_> =
            self.workers.iter().filter(|(_, worker)| ended(worker)).map(|(name, _)| name.clone()).collect();
        for name in ended {
            self.forget(&name);
        }
    }

    /// Whose process is no more, though the file was there when it was last looked at; and of those the ones alone that Redis does
    /// not know to be lost, where `untold`. Who stops takes its file away before it ends, and that may not have been seen yet.
    pub fn gone(&self, untold: bool) -> Vec<OsString> {
        let gone = |worker: &Worker| {
            worker.verdict == Verdict::Gone && !worker.orphan && !(untold && worker.told == Told::Lost)
        };
        self.workers.iter().filter(|(_, worker)| gone(worker)).map(|(name, _)| name.clone()).collect()
    }

    fn keep_leaving(&mut self, age_ms: impl Fn(&Observation) -> Option<u64>) {
        self.leaving.retain(|_, seen| {
            let named_ms = seen.record().map_or(0, |record| record.promise_ms.saturating_add(NAMED_MS));
            age_ms(seen).is_some_and(|age_ms| age_ms <= named_ms)
        });
    }

    /// Whether there is anything to tell.
    pub fn has_errands(&self, which: Which) -> bool {
        let wanted = |worker: &Worker| {
            worker.errand().is_some_and(|what| which == Which::All || worker.is_urgent(what))
        };
        !self.leaving.is_empty() || self.workers.values().any(wanted)
    }

    /// What is to be told, the most urgent first, each worker once; no more than `most`.
    pub fn errands(&mut self, which: Which, most: usize) -> Vec<Errand> {
        let errands = self.wanted(which, most);
        self.attempt(&errands);
        errands
    }

    /// A part of them all, by turns, so many of them or a quarter: for a Redis that has not answered yet. Where it hears and
    /// only answers too late, it has heard of all after four; and those that never get there do not hold up all others.
    pub fn probe(&mut self, which: Which, most: usize, turn: usize) -> Vec<Errand> {
        let mut errands = self.wanted(which, MOST_ERRANDS);
        let most = most.max(errands.len().div_ceil(PROBES));
        // Where all have room, the most urgent goes first.
        if errands.len() > most {
            let first = errands.len() * (turn % PROBES) / PROBES;
            errands.rotate_left(first);
        }
        errands.truncate(most);
        self.attempt(&errands);
        errands
    }

    /// From now on Redis may know of them.
    fn attempt(&mut self, errands: &[Errand]) {
        if errands.is_empty() {
            return;
        }
        let ids: HashSet<_> = errands.iter().map(|errand| errand.record.id).collect();
        for worker in self.workers.values_mut() {
            worker.attempted |= worker.record().is_some_and(|record| ids.contains(&record.id));
        }
    }

    fn wanted(&self, which: Which, most: usize) -> Vec<Errand> {
        let leaving = self.leaving.values().filter_map(Observation::record);
        let mut errands: Vec<_> = leaving.take(most).map(Errand::withdrawal).collect();
        let living = self.living_names();
        let mut asked = HashSet::new();
        for urgent in [true, false] {
            if !urgent && which == Which::Urgent {
                break;
            }
            for worker in self.workers.values() {
                let Some(mut what) = worker.errand() else { continue };
                let Some(record) = worker.seen.record() else { continue };
                if worker.is_urgent(what) != urgent || errands.len() >= most || !asked.insert(record.id) {
                    continue;
                }
                // Who has started anew under its name has taken its place.
                if what == What::Lost && living.contains(&name_of(record)) {
                    what = What::Withdrawal;
                }
                errands.push(Errand { record: record.clone(), what, age_ms: worker.age_ms() });
            }
        }
        errands
    }

    /// The names that somebody living has, where somebody is lost.
    fn living_names(&self) -> HashSet<(String, String)> {
        if !self.workers.values().any(|worker| worker.errand() == Some(What::Lost)) {
            return HashSet::new();
        }
        let living = self.workers.values().filter(|worker| worker.verdict != Verdict::Gone);
        living.filter_map(Worker::record).map(name_of).collect()
    }

    /// The farewell: everybody who is there, but for those that tell Redis of themselves and those that are lost. Nobody is
    /// known any more after it.
    pub fn farewell(&mut self) -> Vec<Errand> {
        let there = |worker: &Worker| {
            worker.attempted
                && worker.told != Told::Lost
                && !matches!(worker.verdict, Verdict::Gone)
                && !worker.beats_by_itself()
        };
        let there = self.workers.drain().map(|(_, worker)| worker).filter(there);
        let there = there.map(|worker| worker.seen);
        let all = there.chain(self.leaving.drain().map(|(_, seen)| seen));
        let records = all.filter_map(|seen| match seen {
            Observation::Record(record) => Some(*record),
            _ => None,
        });
        records.map(|record| Errand { record, what: What::Withdrawal, age_ms: 0 }).collect()
    }

    /// Takes note of what Redis has been told.
    pub fn done(&mut self, told: &[Errand]) {
        let mut beats = HashMap::new();
        for errand in told {
            let record = &errand.record;
            if errand.what == What::Withdrawal {
                self.leaving.remove(&record.id);
            }
            beats.insert(record.id, (record.seq, errand.what));
        }
        for worker in self.workers.values_mut() {
            let Some((seq, what)) = worker.record().and_then(|record| beats.get(&record.id)) else {
                continue;
            };
            worker.told = match *what {
                What::Beat { takes_work } => Told::Beat { seq: *seq, takes_work },
                What::Lost => Told::Lost,
                // Who is gone and has a successor needs no second farewell.
                What::Withdrawal if worker.verdict == Verdict::Gone => Told::Lost,
                What::Withdrawal => Told::Nothing,
            };
        }
    }

    /// How many are there.
    pub fn tally(&self) -> Tally {
        let live = |worker: &&Worker| !matches!(worker.verdict, Verdict::Gone | Verdict::Stopped);
        let able =
            |worker: &&Worker| worker.record().is_some_and(|record| takes_work(record, worker.verdict));
        Tally {
            workers: self.workers.values().filter(live).count(),
            take_work: self.workers.values().filter(able).count(),
        }
    }
}

fn name_of(record: &Record) -> (String, String) {
    (record.cluster.clone(), record.worker.clone())
}

#[cfg(test)]
mod tests;
