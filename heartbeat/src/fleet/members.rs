//! The members of a cluster: pages of them, those of a host, those of a name, and what each amounts to.
//!
//! A member's record tells all of it. What the index knows beside that is read of those alone that have none: because it has
//! expired, was evicted, or is none.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use redis::{Value, cmd};

use super::ask::{Ask, text};
use super::error::{Error, ErrorKind};
use super::keys;
use super::signature::SigningKeys;
use super::{Fleet, moment, takes_work, time_ms};
use crate::record::{Corrupt, Id, MAX_BYTES, Record};
use crate::verdict::{Evidence, Judgement, Machine, Process, judge};

/// The most members that one page can hold.
pub const MAX_PAGE: usize = 1_000;

/// Of how many members one command asks: about a quarter of a millisecond, in which the server serves nobody else.
const PORTION: usize = 100;

/// How many a server may give where a page was asked for: what it is asked for is a hint to it.
const MOST_IN_A_PAGE: usize = 4 * MAX_PAGE;

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
///
/// Where Redis has evicted its name and its record, what remains is that it is there, and until when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Member {
    /// Its incarnation, as in its record.
    pub id: Id,
    /// Its name; its id where its name was evicted.
    pub worker: String,
    /// The host that it runs on; empty where that was evicted.
    pub host: String,
    /// How long ago its last beat arrived, by the server's clock. Where its promise was evicted: for how long it has been lost, and
    /// nothing as long as it is not.
    pub age_ms: Option<u64>,
    /// How long its silence may last, where that was not evicted.
    pub promise_ms: Option<u64>,
    /// Whether its last beat counted it among those that can take work.
    pub takes_work: bool,
    lost_at_ms: u64,
    now_ms: u64,
    /// Whether it counts by its signed record alone.
    must_be_signed: bool,
    found: Found,
}

#[derive(Clone, Debug)]
enum Found {
    /// Lost by the word of somebody who could see it.
    Lost,
    /// No record: expired as it should be; or evicted, where it is fresh. Or something else stands there.
    Nothing,
    Corrupt(Corrupt),
    Record(Box<Record>),
}

/// Members with the moments at which they are lost.
type Scores = Vec<(Id, u64)>;

/// What the hash of names holds of a worker.
struct Entry<'a> {
    promise_ms: u64,
    /// Of who was called lost, for how long it had been silent then.
    silent_ms: Option<u64>,
    worker: &'a str,
    host: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.splitn(3, '\n');
        let first = lines.next()?;
        let (promise, silent) = first.split_once(' ').map_or((first, None), |(one, two)| (one, Some(two)));
        let (promise_ms, silent_ms) = (promise.parse().ok()?, silent.map(str::parse).transpose().ok()?);
        let (worker, host) = (lines.next()?, lines.next()?);
        let printable = |name: &str| {
            let short = (1..=MAX_BYTES).contains(&name.len());
            short && !name.chars().any(char::is_control)
        };
        (printable(worker) && printable(host)).then_some(Self { promise_ms, silent_ms, worker, host })
    }
}

impl Fleet {
    /// Hands on all members, fresh and lost, with their records, or those of one host; until `each` breaks. Two round trips for
    /// [`MAX_PAGE`] of them, one more with a host, and one more where one has no record. Never more of them are in memory.
    ///
    /// A member that was there all the time is among them; one that came or went meanwhile may be. One may come twice. Of
    /// other hosts' members no record is read, but of those whose names were evicted.
    pub fn each_member(
        &mut self,
        host: Option<&str>,
        until: Instant,
        mut each: impl FnMut(Member) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut next = Some(Cursor::default());
        while let Some(cursor) = next {
            let (now_ms, mut scores, more) = self.scan(&cursor, MAX_PAGE, until)?;
            next = more;
            if let Some(host) = host {
                scores = self.may_be_on(host, scores, until)?;
            }
            let mut flow = ControlFlow::Continue(());
            let on_host = |member: &Member| host.is_none_or(|host| member.host == host);
            for scores in scores.chunks(MAX_PAGE) {
                self.fetch(now_ms, scores, until, |member| {
                    if flow.is_continue() && on_host(&member) {
                        flow = each(member);
                    }
                })?;
                if flow.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One page of the same. Begins at [`Cursor::default`].
    ///
    /// `size` is about how many there will be, at most [`MAX_PAGE`]. A server that gives several times as many does so by an
    /// unusual setting (`zset-max-listpack-entries`), or is none: that is an error here.
    pub fn members(&mut self, cursor: &Cursor, size: usize, until: Instant) -> Result<Page, Error> {
        let (now_ms, scores, next) = self.scan(cursor, size, until)?;
        if scores.len() > MOST_IN_A_PAGE {
            return Err(self.garbled());
        }
        Ok(Page { members: self.fetched(now_ms, &scores, until)?, next })
    }

    /// Those that are on this host, or whose names were evicted.
    fn may_be_on(&mut self, host: &str, scores: Scores, until: Instant) -> Result<Scores, Error> {
        let key = self.keys.names();
        let there = self.about_each("HMGET", &key, &scores, until, |entry| match entry {
            Value::Nil => true,
            entry => text(entry).and_then(Entry::parse).is_some_and(|entry| entry.host == host),
        })?;
        Ok(scores.into_iter().zip(there).filter_map(|(score, there)| there.then_some(score)).collect())
    }

    /// Whether each of these members took work from this queue at its last beat, whatever has become of its record: one
    /// round trip.
    pub fn take_from(&mut self, queue: &str, members: &[Id], until: Instant) -> Result<Vec<bool>, Error> {
        let members: Vec<_> = members.iter().map(|id| (*id, 0)).collect();
        let key = self.keys.queue(queue);
        let portions = members.chunks(PORTION).map(|members| of_each("ZMSCORE", &key, members));
        let mut questions = vec![Ask::Command(cmd("TIME"))];
        questions.extend(portions);
        let mut answers = self.client.ask(&questions, until)?.into_iter();
        let [time] = self.arrays(&mut answers)?;
        let now_ms = time_ms(&time).ok_or_else(|| self.garbled())?;
        let mut take = Vec::with_capacity(members.len());
        for answer in answers {
            let [scores] = self.arrays([answer])?;
            take.extend(scores.iter().map(|score| is_after(score, now_ms)));
        }
        if take.len() == members.len() { Ok(take) } else { Err(self.garbled()) }
    }

    /// The members of these names, with their records, in no order: two round trips, and a third where one has no record. A name
    /// that is not known is left out.
    pub fn named(&mut self, workers: &[&str], until: Instant) -> Result<Vec<Member>, Error> {
        let keys = vec![self.keys.workers(), self.keys.names()];
        let arguments = workers.iter().map(|worker| worker.as_bytes().to_vec()).collect();
        let answer = self.array(Ask::Script { script: &keys::NAMED, keys, arguments }, until)?;
        match &answer[..] {
            [Value::Array(time), Value::Array(found)] => {
                let (now_ms, scores) = self.scores(time, found)?;
                self.fetched(now_ms, &scores, until)
            }
            _ => Err(self.garbled()),
        }
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

    /// The server's clock, and those who are there, of which each has its score behind it. What is no worker of ours, or
    /// none any more, is left out.
    fn scores(&self, time: &[Value], found: &[Value]) -> Result<(u64, Scores), Error> {
        let now_ms = time_ms(time).ok_or_else(|| self.garbled())?;
        let mut seen = HashSet::with_capacity(found.len() / 2);
        let mut scores = Vec::with_capacity(found.len() / 2);
        for pair in found.chunks_exact(2) {
            let id = text(&pair[0]).and_then(Id::parse).filter(|id| seen.insert(*id));
            let lost_at_ms = moment(&pair[1]).filter(|at| at.saturating_add(self.forget_ms) >= now_ms);
            scores.extend(id.zip(lost_at_ms));
        }
        Ok((now_ms, scores))
    }

    fn fetched(&mut self, now_ms: u64, scores: &[(Id, u64)], until: Instant) -> Result<Vec<Member>, Error> {
        let mut members = Vec::with_capacity(scores.len());
        for scores in scores.chunks(MAX_PAGE) {
            self.fetch(now_ms, scores, until, |member| members.push(member))?;
        }
        Ok(members)
    }

    /// Hands on all that is known of each of these members: those with a record as they come, and then the others.
    fn fetch(
        &mut self,
        now_ms: u64,
        scores: &[(Id, u64)],
        until: Instant,
        mut each: impl FnMut(Member),
    ) -> Result<(), Error> {
        let mut bare = Vec::new();
        let mut sort_out = |member: Member| match member.found {
            Found::Record(_) => each(member),
            _ => bare.push(member),
        };
        match self.records(now_ms, scores, until, &mut sort_out) {
            // Somebody has put something large there: no more of each than tells that it is too large. Or its slot is just
            // being moved, with some of the keys here and some there: each by itself is found.
            Err(error) if error.kind() == ErrorKind::Garbled || error.code() == Some("TRYAGAIN") => {
                self.beginnings(now_ms, scores, until)?.into_iter().for_each(sort_out);
            }
            read => read?,
        }
        self.describe(bare, until)?.into_iter().for_each(each);
        Ok(())
    }

    /// Hands on each with its record and whether it takes work. The answers about some are read while the server works on the
    /// next, which others' questions come between.
    fn records(
        &mut self,
        now_ms: u64,
        scores: &[(Id, u64)],
        until: Instant,
        mut each: impl FnMut(Member),
    ) -> Result<(), Error> {
        let (ready, mut stat) = (self.keys.ready(), self.keys.stat(""));
        let prefix = stat.len();
        let mut questions = Vec::new();
        for scores in scores.chunks(PORTION) {
            questions.push(of_each("ZMSCORE", &ready, scores));
            let mut command = cmd("MGET");
            for (id, _) in scores {
                stat.truncate(prefix);
                stat.extend(id.digits());
                command.arg(stat.as_slice());
            }
            questions.push(Ask::Command(command));
        }
        let (cluster, signing) = (self.cluster.as_str(), self.signing.as_ref());
        // Each portion's apart: what was sent aside by a node that just hands its keys over is answered after all others.
        let mut ready = vec![None; scores.len().div_ceil(PORTION)];
        let mut all_told = true;
        let refused = self.client.ask_each(&questions, until, |index, answer| {
            let portion = scores.chunks(PORTION).nth(index / 2).unwrap_or_default();
            let Value::Array(values) = answer else { return all_told = false };
            all_told &= values.len() == portion.len();
            if index % 2 == 0 {
                ready[index / 2] =
                    Some(values.iter().map(|score| is_after(score, now_ms)).collect::<Vec<_>>());
                return;
            }
            let Some(ready) = ready[index / 2].take().filter(|ready| ready.len() == portion.len()) else {
                return all_told = false;
            };
            for (((id, lost_at_ms), line), takes_work) in portion.iter().zip(&values).zip(ready) {
                let found = Found::of((*id, cluster), line, signing, now_ms);
                let member = Member::found(*id, now_ms, *lost_at_ms, takes_work, found);
                each(if signing.is_some() { member.by_record() } else { member });
            }
        })?;
        match refused.first() {
            Some((_, refusal)) => Err(refusal.at(&self.client.place())),
            None if all_told => Ok(()),
            None => Err(self.garbled()),
        }
    }

    /// The same, of records of which each is read apart, and no more than tells that it is too large.
    fn beginnings(
        &mut self,
        now_ms: u64,
        scores: &[(Id, u64)],
        until: Instant,
    ) -> Result<Vec<Member>, Error> {
        let is_ready = |score: &Value| is_after(score, now_ms);
        let ready = self.about_each("ZMSCORE", &self.keys.ready(), scores, until, is_ready)?;
        let begin = |(id, _): &(Id, u64)| {
            let mut command = cmd("GETRANGE");
            command.arg(self.keys.stat(id)).arg(0).arg(MAX_BYTES);
            Ask::Command(command)
        };
        let questions: Vec<_> = scores.iter().map(begin).collect();
        // What is refused is no string at all: there is no record.
        let mut read: Vec<_> = scores.iter().map(|_| Found::Nothing).collect();
        let (cluster, signing) = (self.cluster.as_str(), self.signing.as_ref());
        self.client.ask_each(&questions, until, |index, line| {
            read[index] = Found::of((scores[index].0, cluster), &line, signing, now_ms);
        })?;
        let read = scores.iter().zip(ready).zip(read);
        let members = read.map(|(((id, at), ready), found)| {
            let member = Member::found(*id, now_ms, *at, ready, found);
            if signing.is_some() { member.by_record() } else { member }
        });
        Ok(members.collect())
    }

    /// What the index knows of these, which have no record. Who has stopped meanwhile is left out.
    fn describe(&mut self, bare: Vec<Member>, until: Instant) -> Result<Vec<Member>, Error> {
        if bare.is_empty() {
            return Ok(bare);
        }
        let scores: Vec<_> = bare.iter().map(|member| (member.id, member.lost_at_ms)).collect();
        // In this order: one that is still there now had its name before, if it ever had.
        let names = self.about_each("HMGET", &self.keys.names(), &scores, until, entry)?;
        let is_there = |score: &Value| *score != Value::Nil;
        let there = self.about_each("ZMSCORE", &self.keys.workers(), &scores, until, is_there)?;
        let described = bare.into_iter().zip(names).zip(there).filter_map(|((member, entry), there)| {
            let known = there || entry.is_some();
            if known { member.by_entry(entry.as_deref()) } else { None }
        });
        Ok(described.collect())
    }

    /// What the answers to a command about each of these members are read as, in portions.
    fn about_each<T: Clone>(
        &mut self,
        command: &str,
        key: &[u8],
        scores: &[(Id, u64)],
        until: Instant,
        read: impl Fn(&Value) -> T,
    ) -> Result<Vec<T>, Error> {
        let questions: Vec<_> = scores.chunks(PORTION).map(|scores| of_each(command, key, scores)).collect();
        let mut portions = vec![Vec::new(); questions.len()];
        let refused = self.client.ask_each(&questions, until, |index, answer| {
            if let Value::Array(values) = answer {
                portions[index] = values.iter().map(&read).collect();
            }
        })?;
        if let Some((_, refusal)) = refused.first() {
            return Err(refusal.at(&self.client.place()));
        }
        let read = portions.concat();
        if read.len() == scores.len() { Ok(read) } else { Err(self.garbled()) }
    }
}

fn of_each(command: &str, key: &[u8], scores: &[(Id, u64)]) -> Ask<'static> {
    let mut command = cmd(command);
    command.arg(key);
    for (id, _) in scores {
        command.arg(&id.digits()[..]);
    }
    Ask::Command(command)
}

/// What the hash of names was found to hold; what is no text is no entry either.
pub(super) fn entry(value: &Value) -> Option<String> {
    match value {
        Value::Nil => None,
        value => Some(text(value).unwrap_or_default().to_owned()),
    }
}

fn is_after(score: &Value, now_ms: u64) -> bool {
    moment(score).is_some_and(|lost_at_ms| lost_at_ms > now_ms)
}

/// How long a signed record is good for, at the very longest: its promise, and as much again for what the way took, or a clock that
/// was set meanwhile.
fn longest(record: &Record) -> u64 {
    record.promise_ms.saturating_mul(2)
}

impl Found {
    /// What stands at the key of this worker of this cluster.
    fn of((id, cluster): (Id, &str), line: &Value, signing: Option<&SigningKeys>, now_ms: u64) -> Self {
        let line = match line {
            Value::BulkString(line) if !line.is_empty() => line,
            _ => return Self::Nothing,
        };
        // Nothing of what nobody has signed is read.
        let signed_ms = match signing.map(|keys| keys.verify(line)).transpose() {
            Ok(signed_ms) => signed_ms,
            Err(corrupt) => return Self::Corrupt(corrupt),
        };
        match Record::parse(line) {
            Ok(record) if record.id != id => Self::Corrupt(Corrupt::Value("id")),
            Ok(record) if record.cluster != cluster => Self::Corrupt(Corrupt::Value("cluster")),
            Ok(record) if signed_ms.is_some_and(|at| at.abs_diff(now_ms) > longest(&record)) => {
                Self::Corrupt(Corrupt::Stale)
            }
            Ok(record) => Self::Record(Box::new(record)),
            Err(corrupt) => Self::Corrupt(corrupt),
        }
    }
}

impl Member {
    /// One of which nothing is known but that it is there.
    pub(super) fn bare(id: Id, now_ms: u64, lost_at_ms: u64, takes_work: bool) -> Self {
        Self {
            id,
            worker: id.to_string(),
            host: String::new(),
            age_ms: now_ms.checked_sub(lost_at_ms),
            promise_ms: None,
            takes_work,
            lost_at_ms,
            now_ms,
            must_be_signed: false,
            found: Found::Nothing,
        }
    }

    /// The same where records are signed: whether it takes work is the record's word too, and the index cannot make it good for
    /// [longer](longest) than that.
    fn by_record(self) -> Self {
        let found = match self.found {
            Found::Record(record) if self.lost_at_ms.saturating_sub(self.now_ms) > longest(&record) => {
                Found::Corrupt(Corrupt::Lasting)
            }
            found => found,
        };
        let member = Self { must_be_signed: true, found, ..self };
        let says_so = member.record().is_some_and(|record| takes_work(record, member.judge(None).verdict));
        let takes_work = member.takes_work && says_so;
        Self { takes_work, ..member }
    }

    /// One of which this was found where its record should be.
    fn found(id: Id, now_ms: u64, lost_at_ms: u64, takes_work: bool, found: Found) -> Self {
        let bare = Self::bare(id, now_ms, lost_at_ms, takes_work);
        match &found {
            Found::Record(record) => {
                let (worker, host) = (record.worker.clone(), record.host.clone());
                let (age_ms, promise_ms) = (Some(bare.since(record.promise_ms)), Some(record.promise_ms));
                Self { worker, host, age_ms, promise_ms, found, ..bare }
            }
            _ => Self { found, ..bare },
        }
    }

    /// By what the hash of names holds of it, if anything; none where that is not a worker's.
    pub(super) fn by_entry(self, entry: Option<&str>) -> Option<Self> {
        let Some(entry) = entry else { return Some(self) };
        let Entry { promise_ms, silent_ms, worker, host } = Entry::parse(entry)?;
        let age_ms = Some(self.since(silent_ms.unwrap_or(promise_ms)));
        let (worker, host, promise_ms) = (worker.to_owned(), host.to_owned(), Some(promise_ms));
        let found = if silent_ms.is_some() { Found::Lost } else { self.found };
        Some(Self { worker, host, age_ms, promise_ms, found, ..self })
    }

    /// How long ago it was that its loss was so far ahead.
    fn since(&self, ahead_ms: u64) -> u64 {
        self.now_ms.saturating_add(ahead_ms).saturating_sub(self.lost_at_ms)
    }

    /// Whether it beats within its promise, as [`Counts::fresh`](super::Counts::fresh) counts it.
    pub fn is_fresh(&self) -> bool {
        self.lost_at_ms > self.now_ms
    }

    /// Whether what is told of it may be believed: always, where nothing has to be signed; else where it has a record that is
    /// rightly signed, for this id and cluster. Of any other its id, its name and until when it is there are what somebody has
    /// written into the index; it never takes work.
    pub fn is_trusted(&self) -> bool {
        !self.must_be_signed || self.record().is_some()
    }

    /// Its record, where there is one.
    pub fn record(&self) -> Option<&Record> {
        match &self.found {
            Found::Record(record) => Some(record),
            Found::Lost | Found::Nothing | Found::Corrupt(_) => None,
        }
    }

    /// Judges it on the server's clock. `max_age_ms` takes the place of the promise in its record.
    ///
    /// Of its process and its machine nothing is known here. Where Redis has dropped the record of a worker that
    /// beats, the verdict is `unknown`.
    pub fn judge(&self, max_age_ms: Option<u64>) -> Judgement<'_> {
        let age_ms = self.age_ms.unwrap_or_default();
        let (evidence, at_mono_ms) = match &self.found {
            Found::Record(record) => (Evidence::Record(record), record.at_mono_ms),
            Found::Corrupt(corrupt) => (Evidence::Corrupt(corrupt), 0),
            Found::Lost => (Evidence::Lost { age_ms }, 0),
            Found::Nothing if self.is_fresh() => (Evidence::Unreadable(io::ErrorKind::NotFound), 0),
            Found::Nothing => (Evidence::Expired { age_ms, promise_ms: self.promise_ms }, 0),
        };
        // In the millisecond in which its promise ends it is lost, as it is counted.
        let promise_ms = self.promise_ms.unwrap_or_default();
        let least = if self.is_fresh() { 0 } else { promise_ms.saturating_add(1) };
        let now_mono_ms = at_mono_ms.saturating_add(age_ms.max(least));
        let machine = Machine { now_mono_ms, boot: "", pid_ns: 0, process: Process::Unknown };
        judge(evidence, &machine, max_age_ms)
    }
}

#[cfg(test)]
mod tests;
