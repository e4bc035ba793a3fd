//! The workers of a cluster, by what they have told Redis.
//!
//! What a worker's record means is decided in `heartbeat`; this file adds the asker's policies: how many must be there,
//! on which queues, which ones by name, and how many may be lost. [`Policy::failures`] is pure. Only counts are read
//! where counts are enough: one round trip.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Instant;

use heartbeat::duration::Human;
use heartbeat::fleet::{Cursor, Error, Fleet, MAX_PAGE, Member, Url};
use heartbeat::record::Id;
use heartbeat::verdict::Verdict;

use super::worker::{Unknown, Want};
use crate::status::Status;

/// The most workers that are listed, or counted one by one: the bound of what one answer takes of memory.
pub const MOST_LISTED: usize = 100_000;

/// How many of the lost are named where nobody asked how many there may be.
const NAMED_IN_PASSING: usize = 100;

/// How many a sentence names.
const NAMED_IN_A_SENTENCE: usize = 5;

/// What is asked, of which cluster, and by which policy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Redis that the workers beat to.
    pub url: Url,
    /// The cluster's name.
    pub cluster: String,
    /// What must hold.
    pub policy: Policy,
    /// Only the workers of the host of this name count.
    pub host: Option<String>,
    /// Whether the workers are to be listed.
    pub list: bool,
    /// What it counts for that nobody can tell. Default: it fails.
    pub unknown: Option<Unknown>,
}

/// What must hold of a cluster: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which workers are counted: the ready ones, or all that are fresh. Here the default is liveness, as it is
    /// for one worker; who asks of a cluster mostly wants [`Want::Ready`].
    pub want: Want,
    /// How many workers there are at least. Default: 1, or what `share` says.
    pub min: Option<u64>,
    /// The same as a share of how many there should be.
    pub share: Option<Share>,
    /// Queues, each with workers of its own.
    pub queues: Vec<Queue>,
    /// Workers that are there by name.
    pub expect: Vec<String>,
    /// How many workers may be lost.
    pub max_lost: Option<u64>,
}

/// A share of the workers that there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In percent.
    pub percent: u64,
    /// Of how many.
    pub expected: u64,
}

impl Share {
    /// How many workers that is, rounded up.
    pub fn needed(self) -> u64 {
        let needed = (u128::from(self.percent) * u128::from(self.expected)).div_ceil(100);
        u64::try_from(needed).unwrap_or(u64::MAX)
    }
}

/// A queue, and how many workers take work from it at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The queue's name.
    pub name: String,
    /// How many.
    pub min: u64,
}

/// `NAME`, of which one worker is wanted, or `NAME:N`. A colon that no number follows is part of the name.
impl FromStr for Queue {
    type Err = NoQueue;

    fn from_str(text: &str) -> Result<Self, NoQueue> {
        let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let (name, min) = match text.rsplit_once(':') {
            Some((name, digits)) if number(digits) => (name, digits.parse().map_err(|_| NoQueue)?),
            _ => (text, 1),
        };
        if name.is_empty() { Err(NoQueue) } else { Ok(Self { name: name.to_owned(), min }) }
    }
}

/// A text that names no queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoQueue;

impl fmt::Display for NoQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a queue is NAME, or NAME:N for N workers at least")
    }
}

impl std::error::Error for NoQueue {}

/// What was counted and found by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Workers that beat within their promise.
    pub fresh: u64,
    /// Those of them that can take work.
    pub ready: u64,
    /// How many of those that count take work from each queue of the policy, in its order.
    pub queues: Vec<u64>,
    /// Workers that went silent and have not started anew, the latest first. Not all of them, where there are many.
    pub lost: Vec<Silent>,
    /// How many there are: an upper bound where not all were looked at.
    pub lost_count: u64,
    /// Workers of the policy that do not count.
    pub missing: Vec<Missing>,
}

/// A worker that went silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Its name.
    pub worker: String,
    /// For how long.
    pub silent_ms: u64,
}

/// A worker that was expected and does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub worker: String,
    /// Why, as the end of a sentence that begins with its name.
    pub why: String,
}

/// One worker of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its incarnation.
    pub id: Id,
    /// Its name.
    pub worker: String,
    /// The host that it runs on.
    pub host: String,
    /// What is concluded of it.
    pub verdict: Verdict,
    /// Since its last beat, by the server's clock.
    pub age_ms: u64,
    /// Whether it is fresh.
    pub fresh: bool,
    /// Whether it can take work, by what it said last.
    pub takes_work: bool,
    /// The queues that it takes work from, where its record is still there.
    pub queues: Vec<String>,
}

/// The workers of a cluster, the worst first.
#[derive(Clone, Debug, Default)]
pub struct Roll {
    /// The workers.
    pub workers: Vec<Listed>,
    /// Whether there are more than can be listed.
    pub more: bool,
}

/// What was found out about a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// What it amounts to.
    pub status: Status,
    /// Whether it is what was asked for, by the asker's policy.
    pub passed: bool,
    /// Which workers were counted.
    pub want: Want,
    /// Why, as one sentence that anybody may read.
    pub reason: String,
    /// More of the same for who asked: names a server, and no secret.
    pub detail: Option<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The Redis that was asked, without secrets.
    pub place: String,
    /// The queues that `facts` has counts for.
    pub queues: Vec<Queue>,
    /// What is known, where anything is.
    pub facts: Option<Facts>,
    /// The workers, where a list was asked for.
    pub roll: Option<Roll>,
}

impl Answer {
    /// The reason with its detail.
    pub fn explanation(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.reason),
            None => self.reason.clone(),
        }
    }
}

impl Settings {
    /// The question whether at least one worker of the cluster can take work.
    pub fn new(url: Url, cluster: impl Into<String>) -> Self {
        let policy = Policy { want: Want::Ready, ..Policy::default() };
        Self { url, cluster: cluster.into(), policy, host: None, list: false, unknown: None }
    }

    /// The connection to ask over. It can be kept from one question to the next.
    pub fn fleet(&self) -> Fleet {
        Fleet::new(self.url.clone(), self.cluster.as_str())
    }

    /// Asks, and judges. Takes no longer than `until`.
    pub fn answer(&self, fleet: &mut Fleet, until: Instant) -> Answer {
        match self.learn(fleet, until) {
            Ok((facts, roll)) => self.conclude(facts, roll),
            Err(Untold::Redis(error)) => self.cannot_tell(error.kind().to_string(), Some(error.to_string())),
            Err(Untold::TooMany) => {
                let reason = format!("there are more than {MOST_LISTED} workers to be counted one by one");
                self.cannot_tell(reason, None)
            }
        }
    }

    /// The answer of an asker who cannot tell: neither alive nor dead.
    pub fn cannot_tell(&self, reason: impl Into<String>, detail: Option<String>) -> Answer {
        let passed = self.unknown == Some(Unknown::Pass);
        Answer { detail, ..self.told(Status::Unknown, passed, reason.into()) }
    }

    fn conclude(&self, facts: Facts, roll: Option<Roll>) -> Answer {
        let failures = self.policy.failures(&facts);
        let passed = failures.is_empty();
        let status = if passed { Status::Pass } else { Status::Fail };
        let mut parts = if passed { vec![self.policy.sum(&facts)] } else { failures };
        parts.extend(losses(&self.cluster, &facts));
        let roll = roll.filter(|_| self.list);
        Answer { facts: Some(facts), roll, ..self.told(status, passed, parts.join("; ")) }
    }

    fn told(&self, status: Status, passed: bool, reason: String) -> Answer {
        Answer {
            status,
            passed,
            want: self.policy.want,
            reason,
            detail: None,
            cluster: self.cluster.clone(),
            place: self.url.to_string(),
            queues: self.policy.queues.clone(),
            facts: None,
            roll: None,
        }
    }

    fn learn(&self, fleet: &mut Fleet, until: Instant) -> Result<(Facts, Option<Roll>), Untold> {
        let one_by_one = self.is_counted_one_by_one();
        let roll = if one_by_one || self.list { Some(self.roll(fleet, until)?) } else { None };
        let mut facts = match &roll {
            Some(roll) if one_by_one && roll.more => return Err(Untold::TooMany),
            Some(roll) if one_by_one => self.policy.tally(roll),
            _ => self.count(fleet, until)?,
        };
        facts.missing = self.missing(fleet, until)?;
        Ok((facts, roll))
    }

    /// Redis keeps no count for a host, nor for the workers of a queue that do not take work.
    fn is_counted_one_by_one(&self) -> bool {
        self.host.is_some() || (self.policy.want == Want::Live && !self.policy.queues.is_empty())
    }

    fn counts_here(&self, host: &str) -> bool {
        self.host.as_deref().is_none_or(|wanted| wanted == host)
    }

    fn roll(&self, fleet: &mut Fleet, until: Instant) -> Result<Roll, Error> {
        let keep = |member: &Member| self.counts_here(&member.host).then(|| Listed::of(member));
        let (mut workers, more) = read_all(fleet, MOST_LISTED, until, keep)?;
        drop_succeeded(&mut workers, |listed| (&listed.worker, listed.fresh, listed.age_ms));
        workers.sort_by(|one, other| one.rank().cmp(&other.rank()));
        Ok(Roll { workers, more })
    }

    fn count(&self, fleet: &mut Fleet, until: Instant) -> Result<Facts, Error> {
        let queues: Vec<_> = self.policy.queues.iter().map(|queue| queue.name.as_str()).collect();
        let counts = fleet.count(&queues, until)?;
        let mut facts =
            Facts { fresh: counts.fresh, ready: counts.ready, queues: counts.queues, ..Facts::default() };
        if counts.lost > 0 {
            let limit = if self.policy.max_lost.is_some() { MAX_PAGE } else { NAMED_IN_PASSING };
            let losses = fleet.lost(limit, until)?;
            let named = u64::try_from(losses.lost.len()).unwrap_or(u64::MAX);
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            // Of those beyond the limit nobody knows which have started anew.
            let beyond = if losses.more { counts.lost.saturating_sub(limit) } else { 0 };
            facts.lost_count = named + beyond;
            let silent = losses.lost.into_iter();
            facts.lost =
                silent.map(|lost| Silent { worker: lost.worker, silent_ms: lost.silent_ms }).collect();
        }
        Ok(facts)
    }

    fn missing(&self, fleet: &mut Fleet, until: Instant) -> Result<Vec<Missing>, Error> {
        let mut missing = Vec::new();
        for names in self.policy.expect.chunks(MAX_PAGE) {
            let asked: Vec<_> = names.iter().map(String::as_str).collect();
            let found = fleet.named(&asked, until)?;
            let found: HashMap<_, _> = found.iter().map(|member| (member.worker.as_str(), member)).collect();
            missing.extend(asked.iter().filter_map(|name| {
                let why = self.why_missing(found.get(name).copied())?;
                Some(Missing { worker: (*name).to_owned(), why })
            }));
        }
        Ok(missing)
    }

    fn why_missing(&self, member: Option<&Member>) -> Option<String> {
        match member {
            None => Some("is not there".to_owned()),
            Some(member) if !self.counts_here(&member.host) => Some(format!("is on host {}", member.host)),
            Some(member) if !member.is_fresh() => Some(format!("silent for {}", Human(member.age_ms))),
            Some(member) if self.policy.want == Want::Ready && !member.takes_work => {
                let judgement = member.judge(None);
                Some(format!("takes no work ({}: {judgement})", judgement.verdict))
            }
            Some(_) => None,
        }
    }
}

/// Why there are no facts.
enum Untold {
    Redis(Error),
    TooMany,
}

impl From<Error> for Untold {
    fn from(error: Error) -> Self {
        Self::Redis(error)
    }
}

impl Policy {
    /// What does not hold, each as a sentence that begins with its name; nothing where all holds.
    ///
    /// ```
    /// use shared::checks::cluster::{Facts, Policy};
    ///
    /// let policy = Policy { min: Some(2), ..Policy::default() };
    /// let failures = policy.failures(&Facts { fresh: 1, ..Facts::default() });
    /// assert_eq!(failures, ["min 2: 1 worker beats"]);
    /// ```
    pub fn failures(&self, facts: &Facts) -> Vec<String> {
        let counted = self.counted(facts);
        let mut failures = Vec::new();
        if counted < self.least() {
            failures.push(format!("min {}: {}", self.least(), self.say(counted)));
        }
        if let Some(share) = self.share.filter(|share| counted < share.needed()) {
            let Share { percent, expected } = share;
            let counted = self.say(counted);
            failures.push(format!("{percent} % of {expected} is {}: {counted}", share.needed()));
        }
        for (Queue { name, min }, counted) in self.queues.iter().zip(&facts.queues) {
            if counted < min {
                failures.push(format!("queue {name} needs {min}: {}", self.say(*counted)));
            }
        }
        failures.extend(facts.missing.iter().map(|missing| format!("{} {}", missing.worker, missing.why)));
        if let Some(max) = self.max_lost.filter(|max| facts.lost_count > *max) {
            failures.push(format!("max lost {max}: {} lost", facts.lost_count));
        }
        failures
    }

    fn least(&self) -> u64 {
        self.min.unwrap_or(u64::from(self.share.is_none()))
    }

    fn counted(&self, facts: &Facts) -> u64 {
        match self.want {
            Want::Live => facts.fresh,
            Want::Ready => facts.ready,
        }
    }

    fn say(&self, count: u64) -> String {
        let workers = if count == 1 { "worker" } else { "workers" };
        let number = if count == 0 { "no".to_owned() } else { count.to_string() };
        let verb = match (self.want, count) {
            (Want::Live, 1) => "beats",
            (Want::Live, _) => "beat",
            (Want::Ready, 1) => "takes work",
            (Want::Ready, _) => "take work",
        };
        format!("{number} {workers} {verb}")
    }

    /// All that holds, in short.
    fn sum(&self, facts: &Facts) -> String {
        let mut sum = self.say(self.counted(facts));
        if self.want == Want::Ready && facts.fresh != facts.ready {
            // Writing to a string cannot fail, here and below.
            let _ = write!(sum, " of {} that beat", facts.fresh);
        }
        for (queue, counted) in self.queues.iter().zip(&facts.queues) {
            let _ = write!(sum, ", {counted} on {}", queue.name);
        }
        sum
    }

    /// Counts the workers of a list.
    fn tally(&self, roll: &Roll) -> Facts {
        let count = |of: &dyn Fn(&Listed) -> bool| {
            let counted = roll.workers.iter().filter(|listed| listed.fresh && of(listed)).count();
            u64::try_from(counted).unwrap_or(u64::MAX)
        };
        let counts = |listed: &Listed| self.want == Want::Live || listed.takes_work;
        let on = |queue: &Queue| count(&|listed| counts(listed) && listed.queues.contains(&queue.name));
        let silent = |listed: &Listed| Silent { worker: listed.worker.clone(), silent_ms: listed.age_ms };
        let mut lost: Vec<_> = roll.workers.iter().filter(|listed| !listed.fresh).map(silent).collect();
        lost.sort_by_key(|silent| silent.silent_ms);
        let lost_count = u64::try_from(lost.len()).unwrap_or(u64::MAX);
        lost.truncate(MAX_PAGE);
        Facts {
            fresh: count(&|_| true),
            ready: count(&|listed| listed.takes_work),
            queues: self.queues.iter().map(on).collect(),
            lost,
            lost_count,
            missing: Vec::new(),
        }
    }
}

/// Who is lost, and for how long each has been silent; and where there is nobody at all, that.
fn losses(cluster: &str, facts: &Facts) -> Option<String> {
    if facts.lost_count == 0 {
        let empty = facts.fresh == 0;
        return empty.then(|| "the cluster is empty: nobody beats, and nobody has of late".to_owned());
    }
    let name =
        |silent: &Silent| format!("{cluster}@{} silent for {}", silent.worker, Human(silent.silent_ms));
    let mut text = facts.lost.iter().take(NAMED_IN_A_SENTENCE).map(name).collect::<Vec<_>>().join(", ");
    let named = facts.lost.len().min(NAMED_IN_A_SENTENCE);
    let more = facts.lost_count.saturating_sub(u64::try_from(named).unwrap_or(u64::MAX));
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {more} more");
    }
    Some(format!("lost: {text}"))
}

impl Listed {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id,
            worker: member.worker.clone(),
            host: member.host.clone(),
            verdict: member.judge(None).verdict,
            age_ms: member.age_ms,
            fresh: member.is_fresh(),
            takes_work: member.takes_work,
            queues: member.record().map(|record| record.queues.clone()).unwrap_or_default(),
        }
    }

    fn rank(&self) -> (u8, &str, u64) {
        let rank = match (self.verdict.live(), self.verdict.ready()) {
            (Some(false), _) => 0,
            (None, _) => 1,
            (_, Some(false)) => 2,
            _ => 3,
        };
        (rank, &self.worker, self.age_ms)
    }
}

/// Reads all members, page by page, and keeps what `keep` makes of them, `most` at most; whether there are more.
pub fn read_all<T>(
    fleet: &mut Fleet,
    most: usize,
    until: Instant,
    mut keep: impl FnMut(&Member) -> Option<T>,
) -> Result<(Vec<T>, bool), Error> {
    let mut kept = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let page = fleet.members(&cursor, MAX_PAGE, until)?;
        next = page.next;
        for member in page.members {
            // One may come twice.
            let Some(value) = keep(&member) else { continue };
            if !seen.insert(member.id) {
                continue;
            }
            if kept.len() == most {
                return Ok((kept, true));
            }
            kept.push(value);
        }
    }
    Ok((kept, false))
}

/// Of a worker that went silent and has started anew since, or went silent more than once, only the latest stays.
/// `of` gives a worker's name, whether it is fresh, and the age of its last beat.
pub fn drop_succeeded<T>(workers: &mut Vec<T>, of: impl Fn(&T) -> (&str, bool, u64)) {
    let mut latest: HashMap<String, u64> = HashMap::new();
    for worker in workers.iter() {
        let (name, _, age_ms) = of(worker);
        match latest.get_mut(name) {
            Some(least) => *least = age_ms.min(*least),
            None => {
                latest.insert(name.to_owned(), age_ms);
            }
        }
    }
    workers.retain(|worker| {
        let (name, fresh, age_ms) = of(worker);
        fresh || latest.get(name).is_none_or(|least| age_ms == *least)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(policy: Policy) -> Settings {
        let url = "redis://me:S3cret@h:1".parse().unwrap();
        Settings { policy, ..Settings::new(url, "orders") }
    }

    fn facts() -> Facts {
        Facts { fresh: 3, ready: 2, queues: vec![2, 0], ..Facts::default() }
    }

    fn ready() -> Policy {
        Policy { want: Want::Ready, ..Policy::default() }
    }

    fn queue(text: &str) -> Queue {
        text.parse().unwrap()
    }

    fn lost(count: u64) -> Facts {
        let silent = |at| Silent { worker: format!("w{at}"), silent_ms: 42_000 + at };
        Facts { lost: (0..count).map(silent).collect(), lost_count: count, ..facts() }
    }

    #[test]
    fn at_least_one_is_the_default_and_counted_are_those_that_were_asked_for() {
        let none_ready = Facts { fresh: 1, ..Facts::default() };
        assert_eq!(ready().failures(&none_ready), ["min 1: no workers take work"]);
        assert!(Policy::default().failures(&none_ready).is_empty());
        assert_eq!(Policy::default().failures(&Facts::default()), ["min 1: no workers beat"]);
        assert!(Policy { min: Some(0), ..ready() }.failures(&none_ready).is_empty());
        // Without a word about how many: that none are lost of none does not pass.
        assert_eq!(Policy { max_lost: Some(0), ..ready() }.failures(&Facts::default()).len(), 1);
    }

    #[test]
    fn each_policy_alone_has_its_border() {
        let share = |percent, expected| Some(Share { percent, expected });
        let missing = Missing { worker: "w9".to_owned(), why: "is not there".to_owned() };
        for (policy, facts, fails) in [
            (Policy { min: Some(2), ..ready() }, facts(), ""),
            (Policy { min: Some(3), ..ready() }, facts(), "min 3: 2 workers take work"),
            (Policy { min: Some(3), ..Policy::default() }, facts(), ""),
            (Policy { share: share(50, 4), ..ready() }, facts(), ""),
            (Policy { share: share(50, 5), ..ready() }, facts(), "50 % of 5 is 3: 2 workers take work"),
            (Policy { queues: vec![queue("mail:2")], ..ready() }, facts(), ""),
            (
                Policy { queues: vec![queue("mail:3"), queue("pdf:0")], ..ready() },
                facts(),
                "queue mail needs 3: 2 workers take work",
            ),
            (
                Policy { queues: vec![queue("mail"), queue("pdf")], ..ready() },
                facts(),
                "queue pdf needs 1: no workers take work",
            ),
            (Policy { max_lost: Some(2), ..ready() }, lost(2), ""),
            (Policy { max_lost: Some(1), ..ready() }, lost(2), "max lost 1: 2 lost"),
            (ready(), Facts { missing: vec![missing], ..facts() }, "w9 is not there"),
        ] {
            assert_eq!(policy.failures(&facts).join("; "), fails, "{policy:?}");
        }
    }

    #[test]
    fn every_policy_that_fails_is_named_beside_the_others() {
        let policy = Policy {
            min: Some(9),
            share: Some(Share { percent: 100, expected: 8 }),
            queues: vec![queue("mail:7"), queue("pdf:6")],
            max_lost: Some(0),
            ..ready()
        };
        let facts = Facts {
            missing: vec![Missing { worker: "w9".to_owned(), why: "is not there".to_owned() }],
            ..lost(2)
        };
        assert_eq!(policy.failures(&facts).len(), 6);
        let answer = settings(policy).conclude(facts, None);
        assert_eq!((answer.status, answer.passed), (Status::Fail, false));
        assert!(
            answer.reason.ends_with("; lost: orders@w0 silent for 42 s, orders@w1 silent for 42 s"),
            "{answer:?}"
        );
    }

    #[test]
    fn a_share_is_rounded_up_and_never_overflows() {
        for (percent, expected, needed) in [(1, 1, 1), (50, 3, 2), (100, 7, 7), (99, 100, 99), (1, 0, 0)] {
            assert_eq!(Share { percent, expected }.needed(), needed);
        }
        assert_eq!(Share { percent: 100, expected: u64::MAX }.needed(), u64::MAX);
    }

    #[test]
    fn a_queues_name_may_hold_colons() {
        for (text, name, min) in [
            ("mail", "mail", 1),
            ("mail:2", "mail", 2),
            ("mail:0", "mail", 0),
            ("a:b", "a:b", 1),
            ("a:b:3", "a:b", 3),
            ("a:", "a:", 1),
        ] {
            assert_eq!(queue(text), Queue { name: name.to_owned(), min }, "{text}");
        }
        for text in ["", ":1", "a:99999999999999999999"] {
            assert_eq!(text.parse::<Queue>(), Err(NoQueue), "{text}");
        }
    }

    #[test]
    fn empty_lost_and_unknown_are_told_apart() {
        let told = |facts| settings(ready()).conclude(facts, None);
        let empty = told(Facts::default());
        assert!(empty.reason.contains("the cluster is empty"), "{}", empty.reason);
        let all_lost = told(Facts { fresh: 0, ready: 0, ..lost(7) });
        assert!(all_lost.reason.contains("orders@w0 silent for 42 s"), "{}", all_lost.reason);
        assert!(all_lost.reason.ends_with(" and 2 more") && !all_lost.reason.contains("empty"));
        assert_eq!((empty.status, all_lost.status), (Status::Fail, Status::Fail));
        let unknown = settings(ready()).cannot_tell("Redis cannot be reached", None);
        assert_eq!((unknown.status, unknown.passed), (Status::Unknown, false));
        assert!(unknown.facts.is_none());
    }

    #[test]
    fn what_nobody_can_tell_fails_unless_it_is_to_pass_and_stays_unknown() {
        for (unknown, passed) in [(None, false), (Some(Unknown::Fail), false), (Some(Unknown::Pass), true)] {
            let settings = Settings { unknown, ..settings(ready()) };
            let answer = settings.cannot_tell("why", Some("more".to_owned()));
            assert_eq!((answer.status, answer.passed), (Status::Unknown, passed));
            assert_eq!(answer.explanation(), "why: more");
            assert!(!settings.conclude(Facts::default(), None).passed);
            assert!(!format!("{answer:?} {settings:?}").contains("S3cret"));
        }
    }

    #[test]
    fn of_a_worker_that_started_anew_only_the_latest_stays() {
        let mut workers = vec![
            ("a", false, 9),
            ("a", true, 1),
            ("b", false, 7),
            ("b", false, 5),
            ("c", true, 1),
            ("c", true, 2),
        ];
        drop_succeeded(&mut workers, |worker| *worker);
        assert_eq!(workers, [("a", true, 1), ("b", false, 5), ("c", true, 1), ("c", true, 2)]);
    }
}
