//! The workers of a cluster, as Redis knows them (feature `redis`).
//!
//! A [`Fleet`] publishes beats and reads them back: counts in one round trip, the members in bounded pages, the lost by
//! name. Every moment is the Redis server's own, so that no clock on any worker or checker matters, and a record is judged by
//! the same [`crate::verdict::judge`] as one in a file. What others have published is read with suspicion: answers and
//! records are bounded, and what is no record is a member whose record is corrupt.
//!
//! The calls block, each until its deadline at most. No call needs an async runtime.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use heartbeat::fleet::Fleet;
//!
//! let mut fleet = Fleet::new("redis://127.0.0.1".parse()?, "orders");
//! let counts = fleet.count(&["mail"], Instant::now() + Duration::from_secs(2))?;
//! println!("{} take work, {} of them from mail", counts.ready, counts.queues[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod client;
mod connection;
mod error;
mod keys;
mod news;
mod socket;
pub mod tls;
mod url;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use redis::{Cmd, Value, cmd};

use self::client::{Answer, Ask, Client, text};
pub use self::connection::Connection;
pub use self::error::{Error, ErrorKind};
use self::keys::Keys;
pub use self::news::{Beat, Fleets, News};
pub use self::url::{Invalid, Url};
use crate::record::{Corrupt, Id, MAX_BYTES, Record, Status, Tasks};
use crate::verdict::{Evidence, Judgement, Machine, Process, Verdict, judge};

/// The most members that one page can hold.
pub const MAX_PAGE: usize = 1_000;

/// Of how many members one command asks: about a quarter of a millisecond, in which the server serves nobody else.
const PORTION: usize = 100;

/// One cluster's keys in one Redis, for who publishes and who reads.
///
/// The connection is made by the first call and kept; one that has died meanwhile is replaced within the call.
pub struct Fleet {
    client: Client,
    keys: Keys,
    cluster: String,
    forget_ms: u64,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.client.url();
        f.debug_struct("Fleet").field("cluster", &self.cluster).field("url", url).finish_non_exhaustive()
    }
}

/// How many workers were fresh at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Workers that beat within their promise.
    pub fresh: u64,
    /// Those of them that can take work.
    pub ready: u64,
    /// Those that can take work from each of the queues that were asked for, in that order.
    pub queues: Vec<u64>,
    /// Workers that have been silent for longer than their promise, and not yet for so long that they are
    /// forgotten. One that has started anew since is among them; [`Fleet::lost`] knows.
    pub lost: u64,
    /// The server's clock in milliseconds since 1970.
    pub now_ms: u64,
}

/// Some members of a cluster, as they were at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The members: each at least once over all pages, in no order.
    pub members: Vec<Member>,
    /// What the next page is asked for with; `None` after the last one.
    pub next: Option<Cursor>,
}

/// Where a page of members ended.
#[derive(Clone, Debug)]
pub struct Cursor(String);

impl Default for Cursor {
    /// Before the first page.
    fn default() -> Self {
        Self("0".to_owned())
    }
}

/// One worker as Redis knows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Member {
    /// Its incarnation, as in its record.
    pub id: Id,
    /// Its name.
    pub worker: String,
    /// The host that it runs on.
    pub host: String,
    /// How long ago its last beat arrived, by the server's clock.
    pub age_ms: u64,
    /// How long its silence may last.
    pub promise_ms: u64,
    /// Whether its last beat counted it among those that can take work.
    pub takes_work: bool,
    lost_at_ms: u64,
    now_ms: u64,
    found: Found,
}

#[derive(Clone, Debug)]
enum Found {
    /// Lost by the word of somebody who could see it.
    Lost,
    /// Expired as it should be: what the index says, in the form of a record.
    Expired(Box<Record>),
    /// Evicted: Redis has dropped it before its time. Or something else stands there.
    Evicted,
    Corrupt(Corrupt),
    Record(Box<Record>),
}

/// A worker that went silent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Its incarnation.
    pub id: Id,
    /// Its name.
    pub worker: String,
    /// The host that it ran on.
    pub host: String,
    /// How long ago its last beat arrived, by the server's clock.
    pub silent_ms: u64,
    /// How long its silence may last.
    pub promise_ms: u64,
}

/// The workers that went silent, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losses {
    /// Those that have not started anew since under the same name.
    pub lost: Vec<Lost>,
    /// Whether there may be more than were asked for.
    pub more: bool,
}

/// Members with the moments at which they are lost.
type Scores = Vec<(Id, u64)>;

/// Whether a worker of which its own record says this, and which is judged so, can take work.
pub fn takes_work(record: &Record, verdict: Verdict) -> bool {
    matches!(record.status, Status::Idle | Status::Busy)
        && matches!(verdict, Verdict::Alive | Verdict::CutOff)
}

impl Fleet {
    /// Nothing is connected yet.
    pub fn new(url: Url, cluster: impl Into<String>) -> Self {
        Self::giving_up(url, cluster, Arc::default())
    }

    /// The same, whose calls end at once where `given_up` is set.
    pub(crate) fn giving_up(url: Url, cluster: impl Into<String>, given_up: Arc<AtomicBool>) -> Self {
        let cluster = cluster.into();
        let keys = Keys::of(&cluster);
        Self { client: Client::new(url, given_up), keys, cluster, forget_ms: keys::FORGET_MS }
    }

    /// How long a worker that went silent can still be named. Default: 1 h. The same for all of a cluster.
    #[must_use]
    pub fn forget_ms(mut self, forget_ms: u64) -> Self {
        self.forget_ms = forget_ms;
        self
    }

    /// The server that answered last, without secrets.
    pub fn place(&self) -> String {
        self.client.place()
    }

    /// Publishes beats, all in one round trip: one result for each. Safe to repeat.
    ///
    /// The records' cluster is this one, here and below. Each beat's script is one atomic step of the server.
    pub fn publish(&mut self, beats: &[Beat<'_>], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        let news: Vec<_> = beats.iter().map(|beat| News::Beat(*beat)).collect();
        news::tell(&mut self.client, &news, self.forget_ms, until)
    }

    /// Says of workers that they are lost as of now, however long their promise, and for how many milliseconds each has been
    /// silent: all in one round trip, one result for each. Safe to repeat. For who can see that their processes are no more.
    pub fn lose(&mut self, lost: &[(&Record, u64)], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        let news = lost.iter().map(|(record, silent_ms)| News::Lost { record, silent_ms: *silent_ms });
        let news: Vec<_> = news.collect();
        news::tell(&mut self.client, &news, self.forget_ms, until)
    }

    /// Removes workers that have stopped, all in one round trip: one result for each. Safe to repeat.
    pub fn withdraw(&mut self, records: &[&Record], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        let news: Vec<_> = records.iter().map(|record| News::Stopped(record)).collect();
        news::tell(&mut self.client, &news, self.forget_ms, until)
    }

    /// Counts the fresh workers, in one round trip that reads no record and whose cost hardly grows with their number.
    pub fn count(&mut self, queues: &[&str], until: Instant) -> Result<Counts, Error> {
        let mut keys = vec![self.keys.workers(), self.keys.ready()];
        keys.extend(queues.iter().map(|queue| self.keys.queue(queue)));
        let forget = self.forget_ms.to_string().into_bytes();
        let question = Ask::Script { script: &keys::COUNT, keys, arguments: vec![forget] };
        let answer = self.array(question, until)?;
        let numbers = answer.iter().map(|value| match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        });
        let numbers: Option<Vec<u64>> = numbers.collect();
        match numbers.as_deref() {
            Some([now_ms, lost, fresh, ready, counts @ ..]) if counts.len() == queues.len() => Ok(Counts {
                fresh: *fresh,
                ready: *ready,
                queues: counts.to_vec(),
                lost: *lost,
                now_ms: *now_ms,
            }),
            _ => Err(self.garbled()),
        }
    }

    /// One page of the members, fresh and lost, with their records: two round trips. Begins at [`Cursor::default`].
    ///
    /// `size` is about how many there will be, at most [`MAX_PAGE`]. A member that was there all the time is on some page;
    /// one that came or went meanwhile may be. One may come twice.
    pub fn members(&mut self, cursor: &Cursor, size: usize, until: Instant) -> Result<Page, Error> {
        let (now_ms, scores, next) = self.scan(cursor, size, until)?;
        Ok(Page { members: self.fetch(now_ms, &scores, until)?, next })
    }

    /// The same page, of which only the members of this host are given, and of nobody else a record is read.
    pub fn members_on(
        &mut self,
        host: &str,
        cursor: &Cursor,
        size: usize,
        until: Instant,
    ) -> Result<Page, Error> {
        let (now_ms, mut scores, next) = self.scan(cursor, size, until)?;
        let names = scores.chunks(PORTION).map(|scores| about_each("HMGET", self.keys.names(), scores));
        let names: Vec<_> = names.collect();
        let mut entries = Vec::with_capacity(scores.len());
        for answer in self.client.ask(&names, until)? {
            let [portion] = self.arrays([answer])?;
            entries.extend(portion);
        }
        if entries.len() != scores.len() {
            return Err(self.garbled());
        }
        let mut entries = entries.iter();
        scores.retain(|(id, lost_at_ms)| {
            let member = entries.next().and_then(|entry| self.member(now_ms, *id, *lost_at_ms, entry));
            member.is_some_and(|member| member.host == host)
        });
        Ok(Page { members: self.fetch(now_ms, &scores, until)?, next })
    }

    /// Whether each of these members took work from this queue at its last beat, whatever has become of its record: one
    /// round trip.
    pub fn take_from(&mut self, queue: &str, members: &[Id], until: Instant) -> Result<Vec<bool>, Error> {
        let members: Vec<_> = members.iter().map(|id| (*id, 0)).collect();
        let key = self.keys.queue(queue);
        let portions = members.chunks(PORTION).map(|members| about_each("ZMSCORE", key.clone(), members));
        let mut questions = vec![Ask::Command(cmd("TIME"))];
        questions.extend(portions);
        let mut answers = self.client.ask(&questions, until)?.into_iter();
        let [time] = self.arrays(&mut answers)?;
        let now_ms = time_ms(&time).ok_or_else(|| self.garbled())?;
        let mut take = Vec::with_capacity(members.len());
        for answer in answers {
            let [scores] = self.arrays([answer])?;
            take.extend(
                scores.iter().map(|score| moment(score).is_some_and(|lost_at_ms| lost_at_ms > now_ms)),
            );
        }
        if take.len() == members.len() { Ok(take) } else { Err(self.garbled()) }
    }

    /// One page of the index: the server's clock, who is there with the moment at which it is lost, and what comes next.
    fn scan(
        &mut self,
        cursor: &Cursor,
        size: usize,
        until: Instant,
    ) -> Result<(u64, Scores, Option<Cursor>), Error> {
        let mut scan = cmd("ZSCAN");
        let size = size.clamp(1, MAX_PAGE);
        scan.arg(self.keys.workers()).arg(cursor.0.as_str()).arg("COUNT").arg(size);
        let answers = self.client.ask(&[Ask::Command(cmd("TIME")), Ask::Command(scan)], until)?;
        let [time, page] = self.arrays(answers)?;
        let (next, found) = match &page[..] {
            [next, Value::Array(found)] => (text(next), found),
            _ => (None, &page),
        };
        let next = next.ok_or_else(|| self.garbled())?;
        let next = if next == "0" { None } else { Some(Cursor(next.to_owned())) };
        let (now_ms, scores) = self.scores(&time, found)?;
        Ok((now_ms, scores, next))
    }

    /// The members of these names, with their records: two round trips. A name that is not known is left out.
    pub fn named(&mut self, workers: &[&str], until: Instant) -> Result<Vec<Member>, Error> {
        let keys = vec![self.keys.workers(), self.keys.names()];
        let arguments = workers.iter().map(|worker| worker.as_bytes().to_vec()).collect();
        let answer = self.array(Ask::Script { script: &keys::NAMED, keys, arguments }, until)?;
        match &answer[..] {
            [Value::Array(time), Value::Array(found)] => {
                let (now_ms, scores) = self.scores(time, found)?;
                self.fetch(now_ms, &scores, until)
            }
            _ => Err(self.garbled()),
        }
    }

    /// Names at most `limit` of the workers that went silent, the latest first, in one round trip.
    pub fn lost(&mut self, limit: usize, until: Instant) -> Result<Losses, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let keys = vec![self.keys.workers(), self.keys.names()];
        let arguments = vec![limit.to_string().into_bytes(), self.forget_ms.to_string().into_bytes()];
        let answer = self.array(Ask::Script { script: &keys::LOST, keys, arguments }, until)?;
        let [Value::Int(now), Value::Int(found), lost @ ..] = &answer[..] else {
            return Err(self.garbled());
        };
        let now_ms = u64::try_from(*now).unwrap_or_default();
        let lost = lost.chunks_exact(3).filter_map(|parts| {
            let [id, score, entry] = parts else { return None };
            let member = self.member(now_ms, Id::parse(text(id)?)?, moment(score)?, entry)?;
            Some(Lost {
                id: member.id,
                worker: member.worker,
                host: member.host,
                silent_ms: member.age_ms,
                promise_ms: member.promise_ms,
            })
        });
        Ok(Losses { lost: lost.collect(), more: usize::try_from(*found).is_ok_and(|found| found >= limit) })
    }

    /// Asks one thing that is answered with an array.
    fn array(&mut self, question: Ask<'_>, until: Instant) -> Result<Vec<Value>, Error> {
        let answers = self.client.ask(&[question], until)?;
        let [array] = self.arrays(answers)?;
        Ok(array)
    }

    /// The first answers, which are arrays.
    fn arrays<const N: usize>(
        &self,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<[Vec<Value>; N], Error> {
        let mut answers = answers.into_iter();
        let mut arrays = [const { Vec::new() }; N];
        for array in &mut arrays {
            *array = match answers.next() {
                Some(Ok(Value::Array(values))) => values,
                Some(Err(refusal)) => return Err(refusal.at(&self.client.place())),
                _ => return Err(self.garbled()),
            };
        }
        Ok(arrays)
    }

    /// The server's clock, and those who are there, of which each has its score behind it. What is no worker of ours is
    /// left out.
    fn scores(&self, time: &[Value], found: &[Value]) -> Result<(u64, Scores), Error> {
        let now_ms = time_ms(time).ok_or_else(|| self.garbled())?;
        let mut seen = HashSet::with_capacity(found.len() / 2);
        let mut scores = Vec::with_capacity(found.len() / 2);
        for pair in found.chunks_exact(2) {
            let id = text(&pair[0]).and_then(Id::parse).filter(|id| seen.insert(*id));
            scores.extend(id.zip(moment(&pair[1])));
        }
        Ok((now_ms, scores))
    }

    /// All that is known of these members.
    fn fetch(&mut self, now_ms: u64, scores: &[(Id, u64)], until: Instant) -> Result<Vec<Member>, Error> {
        let mut members = Vec::with_capacity(scores.len());
        for scores in scores.chunks(MAX_PAGE) {
            let together = |stats: &[Vec<u8>]| vec![Ask::Command(about("MGET", stats))];
            let (answers, a_portion) = match self.facts(scores, together, until) {
                // Somebody has put something large there: no more of each than tells that it is too large.
                Err(error) if error.kind() == ErrorKind::Garbled => {
                    let start = |key: &Vec<u8>| {
                        let mut command = cmd("GETRANGE");
                        command.arg(key.as_slice()).arg(0).arg(MAX_BYTES);
                        Ask::Command(command)
                    };
                    let apart = |stats: &[Vec<u8>]| stats.iter().map(start).collect();
                    (self.facts(scores, apart, until)?, 2 + PORTION)
                }
                answers => (answers?, 3),
            };
            let mut answers = answers.into_iter();
            for scores in scores.chunks(PORTION) {
                let answers: Vec<_> = answers.by_ref().take(a_portion).collect();
                self.make(now_ms, scores, answers, &mut members)?;
            }
        }
        Ok(members)
    }

    /// The members' names, whether they take work, and the answers to what more is asked, portion by portion: the answers
    /// to one are read here while the server works on the next, which others' questions come between.
    fn facts(
        &mut self,
        scores: &[(Id, u64)],
        more: impl Fn(&[Vec<u8>]) -> Vec<Ask<'static>>,
        until: Instant,
    ) -> Result<Vec<Answer>, Error> {
        let mut questions = Vec::new();
        for scores in scores.chunks(PORTION) {
            let stats: Vec<_> = scores.iter().map(|(id, _)| self.keys.stat(id)).collect();
            questions.push(about_each("HMGET", self.keys.names(), scores));
            questions.push(about_each("ZMSCORE", self.keys.ready(), scores));
            questions.extend(more(&stats));
        }
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        self.client.ask(&questions, until)
    }

    fn make(
        &self,
        now_ms: u64,
        scores: &[(Id, u64)],
        answers: Vec<Answer>,
        members: &mut Vec<Member>,
    ) -> Result<(), Error> {
        let mut answers = answers.into_iter();
        let [entries, ready] = self.arrays(&mut answers)?;
        let lines: Vec<Value> = match answers.next() {
            Some(Ok(Value::Array(lines))) => lines,
            // One by one; where it is no string at all, there is no record.
            first => first.into_iter().chain(answers).map(|line| line.unwrap_or(Value::Nil)).collect(),
        };
        for ((((id, lost_at_ms), entry), ready), line) in scores.iter().zip(entries).zip(ready).zip(lines) {
            let Some(mut member) = self.member(now_ms, *id, *lost_at_ms, &entry) else { continue };
            member.takes_work = moment(&ready).is_some_and(|lost_at_ms| lost_at_ms > now_ms);
            match line {
                _ if matches!(member.found, Found::Lost) => {}
                Value::BulkString(line) if !line.is_empty() => member.found = self.read(*id, &line),
                _ if member.is_fresh() => member.found = Found::Evicted,
                _ => member.found = Found::Expired(Box::new(self.outline(&member))),
            }
            members.push(member);
        }
        Ok(())
    }

    fn garbled(&self) -> Error {
        garbled(&self.client.place())
    }

    /// A member by its score and its entry among the names; none where they are not, or no longer, a worker's.
    fn member(&self, now_ms: u64, id: Id, lost_at_ms: u64, entry: &Value) -> Option<Member> {
        if lost_at_ms.saturating_add(self.forget_ms) < now_ms {
            return None;
        }
        let mut entry = text(entry)?.splitn(3, '\n');
        let first = entry.next()?;
        // Of who was called lost, for how long it had been silent then.
        let (promise, silent) = first.split_once(' ').map_or((first, None), |(one, two)| (one, Some(two)));
        let promise_ms: u64 = promise.parse().ok()?;
        let silent_ms: Option<u64> = silent.map(str::parse).transpose().ok()?;
        let (worker, host) = (entry.next()?, entry.next()?);
        let printable = |name: &str| {
            let short = (1..=MAX_BYTES).contains(&name.len());
            short && !name.chars().any(char::is_control)
        };
        if !printable(worker) || !printable(host) {
            return None;
        }
        let age_ms = now_ms.saturating_add(silent_ms.unwrap_or(promise_ms)).saturating_sub(lost_at_ms);
        let found = if silent_ms.is_some() { Found::Lost } else { Found::Evicted };
        let (worker, host) = (worker.to_owned(), host.to_owned());
        Some(Member { id, worker, host, age_ms, promise_ms, takes_work: false, lost_at_ms, now_ms, found })
    }

    /// What is known of a worker whose record has expired: enough to say how long it has been silent.
    fn outline(&self, member: &Member) -> Record {
        Record {
            id: member.id,
            cluster: self.cluster.clone(),
            worker: member.worker.clone(),
            host: member.host.clone(),
            queues: Vec::new(),
            pid: 0,
            pid_start: 0,
            pid_ns: 0,
            boot: String::new(),
            seq: 0,
            at_mono_ms: 0,
            at_unix_ms: 0,
            interval_ms: 0,
            promise_ms: member.promise_ms,
            status: Status::Idle,
            until_mono_ms: None,
            pulse: None,
            tasks: Tasks::default(),
            stat: None,
            version: None,
        }
    }

    fn read(&self, id: Id, line: &[u8]) -> Found {
        match Record::parse(line) {
            Ok(record) if record.id != id => Found::Corrupt(Corrupt::Value("id")),
            Ok(record) if record.cluster != self.cluster => Found::Corrupt(Corrupt::Value("cluster")),
            Ok(record) => Found::Record(Box::new(record)),
            Err(corrupt) => Found::Corrupt(corrupt),
        }
    }
}

fn about_each(command: &str, key: Vec<u8>, members: &[(Id, u64)]) -> Ask<'static> {
    let mut words = vec![key];
    words.extend(members.iter().map(|(id, _)| id.to_string().into_bytes()));
    Ask::Command(about(command, &words))
}

fn about(command: &str, words: &[Vec<u8>]) -> Cmd {
    let mut command = cmd(command);
    for word in words {
        command.arg(word.as_slice());
    }
    command
}

/// The answer to TIME: seconds and microseconds.
fn time_ms(time: &[Value]) -> Option<u64> {
    let [seconds, micros] = time else { return None };
    let (seconds, micros): (u64, u64) = (text(seconds)?.parse().ok()?, text(micros)?.parse().ok()?);
    seconds.checked_mul(1_000)?.checked_add(micros / 1_000)
}

/// A score: a moment in milliseconds since 1970. One that no moment can have is none.
fn moment(score: &Value) -> Option<u64> {
    let number: f64 = text(score)?.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within bounds, where every whole number is exact"
    )]
    (0.0..9e15).contains(&number).then_some(number as u64)
}

fn garbled(place: &str) -> Error {
    Error::new(ErrorKind::Garbled, format!("{place}: an answer of another kind"))
}

impl Member {
    /// Whether it beats within its promise, as [`Counts::fresh`] counts it.
    pub fn is_fresh(&self) -> bool {
        self.lost_at_ms > self.now_ms
    }

    /// Its record, where there is one.
    pub fn record(&self) -> Option<&Record> {
        match &self.found {
            Found::Record(record) => Some(record),
            Found::Lost | Found::Expired(_) | Found::Evicted | Found::Corrupt(_) => None,
        }
    }

    /// Judges it on the server's clock. `max_age_ms` takes the place of its promise.
    ///
    /// Of its process and its machine nothing is known here. Where Redis has dropped the record of a worker that
    /// beats, the verdict is `unknown`.
    pub fn judge(&self, max_age_ms: Option<u64>) -> Judgement<'_> {
        let (evidence, at_mono_ms) = match &self.found {
            Found::Record(record) | Found::Expired(record) => (Evidence::Record(record), record.at_mono_ms),
            Found::Corrupt(corrupt) => (Evidence::Corrupt(corrupt), 0),
            Found::Lost => (Evidence::Lost { age_ms: self.age_ms }, 0),
            Found::Evicted => (Evidence::Unreadable(io::ErrorKind::NotFound), 0),
        };
        // In the millisecond in which its promise ends it is lost, as it is counted.
        let least = if self.is_fresh() { 0 } else { self.promise_ms.saturating_add(1) };
        let now_mono_ms = at_mono_ms.saturating_add(self.age_ms.max(least));
        let machine = Machine { now_mono_ms, boot: "", pid_ns: 0, process: Process::Unknown };
        judge(evidence, &machine, max_age_ms)
    }
}

#[cfg(test)]
mod tests;
