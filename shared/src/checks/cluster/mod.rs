//! The workers of a cluster, judged by the asker's policies, whoever tells of them: one file a source.
//!
//! A source finds [`Facts`]; this file says what they amount to: how many workers must be there, on which queues, which
//! ones by name, and how many may be lost. [`Policy::failures`] is pure.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use heartbeat::duration::Human;
use heartbeat::verdict::Verdict;

use super::worker::{Unknown, Want};
use crate::status::Status;

#[cfg(feature = "celery")]
pub mod celery;
#[cfg(feature = "run")]
pub mod check;
#[cfg(feature = "django-q")]
pub mod django_q;
pub mod fleet;

/// The most workers that are listed, or counted one by one: the bound of what one answer takes of memory.
pub const MOST_LISTED: usize = 100_000;

/// How many of the lost an answer names at most, where it counts workers one by one.
const MOST_LOST: usize = 1_000;

/// How many a sentence names.
const NAMED_IN_A_SENTENCE: usize = 5;

/// What is asked about a cluster, and by which policy, whatever the source.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who tells of the workers, as `--source` calls it.
    pub source: &'static str,
    /// What is asked, without secrets.
    pub place: String,
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
    /// What more is to be said, whatever the policies find.
    pub remarks: Vec<String>,
    /// What somebody should look at although every policy holds: then the answer is a warning.
    pub warnings: Vec<String>,
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
    /// Its incarnation, where the source tells one.
    pub id: Option<String>,
    /// Its name.
    pub worker: String,
    /// The host that it runs on; empty where the source does not tell.
    pub host: String,
    /// What is concluded of it.
    pub verdict: Verdict,
    /// Since it was last heard of, where the source tells that; by the server's clock, where the server has it.
    pub age_ms: Option<u64>,
    /// Whether it is fresh.
    pub fresh: bool,
    /// Whether it can take work, by what it said last.
    pub takes_work: bool,
    /// The queues that it takes work from; where its record was evicted, those of the policy.
    pub queues: Vec<String>,
    /// Its tasks, where the source tells of them.
    pub tasks: Option<Tasks>,
}

/// A worker's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// How many run.
    pub running: u64,
    /// How many have ended since its start.
    pub done: u64,
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
    /// Who tells of its workers, as `--source` calls it.
    pub source: &'static str,
    /// What was asked, without secrets.
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
impl Question {
    /// The question whether at least one worker of the cluster can take work.
    pub fn new(source: &'static str, place: impl fmt::Display, cluster: impl Into<String>) -> Self {
        let policy = Policy { want: Want::Ready, ..Policy::default() };
        let (place, cluster) = (place.to_string(), cluster.into());
        Self { source, place, cluster, policy, host: None, list: false, unknown: None }
    }

    /// The answer of a source that told this.
    pub fn conclude(&self, facts: Facts, roll: Option<Roll>) -> Answer {
        let failures = self.policy.failures(&facts);
        let passed = failures.is_empty();
        let status = match (passed, facts.warnings.is_empty()) {
            (true, true) => Status::Pass,
            (true, false) => Status::Warn,
            (false, _) => Status::Fail,
        };
        let mut parts = if passed { vec![self.policy.sum(&facts)] } else { failures };
        parts.extend(facts.warnings.iter().cloned());
        parts.extend((facts.lost_count > 0).then(|| losses(&self.cluster, &facts)));
        parts.extend(facts.remarks.iter().cloned());
        let roll = roll.filter(|_| self.list);
        Answer { facts: Some(facts), roll, ..self.told(status, passed, parts.join("; ")) }
    }

    /// The answer of an asker who cannot tell: neither alive nor dead.
    pub fn cannot_tell(&self, reason: impl Into<String>, detail: Option<String>) -> Answer {
        let passed = self.unknown == Some(Unknown::Pass);
        Answer { detail, ..self.told(Status::Unknown, passed, reason.into()) }
    }

    fn told(&self, status: Status, passed: bool, reason: String) -> Answer {
        Answer {
            status,
            passed,
            want: self.policy.want,
            reason,
            detail: None,
            cluster: self.cluster.clone(),
            source: self.source,
            place: self.place.clone(),
            queues: self.policy.queues.clone(),
            facts: None,
            roll: None,
        }
    }

    /// Whether workers of this host count.
    pub fn counts_here(&self, host: &str) -> bool {
        self.host.as_deref().is_none_or(|wanted| wanted == host)
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

    /// Counts the workers of a list. Who is not fresh is lost.
    pub fn tally(&self, roll: &Roll) -> Facts {
        let count = |of: &dyn Fn(&Listed) -> bool| {
            let counted = roll.workers.iter().filter(|listed| listed.fresh && of(listed)).count();
            u64::try_from(counted).unwrap_or(u64::MAX)
        };
        let counts = |listed: &Listed| self.want == Want::Live || listed.takes_work;
        let on = |queue: &Queue| count(&|listed| counts(listed) && listed.queues.contains(&queue.name));
        let silent = |listed: &Listed| Silent {
            worker: listed.worker.clone(),
            silent_ms: listed.age_ms.unwrap_or_default(),
        };
        let mut lost: Vec<_> = roll.workers.iter().filter(|listed| !listed.fresh).map(silent).collect();
        lost.sort_by_key(|silent| silent.silent_ms);
        let lost_count = u64::try_from(lost.len()).unwrap_or(u64::MAX);
        lost.truncate(MOST_LOST);
        Facts {
            fresh: count(&|_| true),
            ready: count(&|listed| listed.takes_work),
            queues: self.queues.iter().map(on).collect(),
            lost,
            lost_count,
            ..Facts::default()
        }
    }
}

/// Names the lost, a few of them, and for how long each has been silent.
fn losses(cluster: &str, facts: &Facts) -> String {
    let name =
        |silent: &Silent| format!("{cluster}@{} silent for {}", silent.worker, Human(silent.silent_ms));
    let mut text = facts.lost.iter().take(NAMED_IN_A_SENTENCE).map(name).collect::<Vec<_>>().join(", ");
    let named = facts.lost.len().min(NAMED_IN_A_SENTENCE);
    let more = facts.lost_count.saturating_sub(u64::try_from(named).unwrap_or(u64::MAX));
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {more} more");
    }
    format!("lost: {text}")
}

impl Roll {
    /// These workers, the worst first; `more` where there are others that do not fit.
    pub fn new(mut workers: Vec<Listed>, more: bool) -> Self {
        workers.sort_by(|one, other| one.rank().cmp(&other.rank()));
        Self { workers, more }
    }
}

impl Listed {
    fn rank(&self) -> (u8, &str, Option<u64>) {
        let rank = match (self.verdict.live(), self.verdict.ready()) {
            (Some(false), _) => 0,
            (None, _) => 1,
            (_, Some(false)) => 2,
            _ => 3,
        };
        (rank, &self.worker, self.age_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(policy: Policy) -> Question {
        Question { policy, ..Question::new("heartbeat", "redis://h:1", "orders") }
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
        let answer = asked(policy).conclude(facts, None);
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
    fn the_lost_are_named_and_counted() {
        let told = |facts| asked(ready()).conclude(facts, None);
        let all_lost = told(Facts { fresh: 0, ready: 0, ..lost(7) });
        assert!(all_lost.reason.contains("lost: orders@w0 silent for 42 s"), "{}", all_lost.reason);
        assert!(all_lost.reason.ends_with(" and 2 more"), "{}", all_lost.reason);
        assert_eq!(all_lost.status, Status::Fail);
        assert!(!told(facts()).reason.contains("lost"));
    }

    #[test]
    fn what_somebody_should_look_at_makes_a_pass_a_warning_and_a_failure_no_better() {
        let odd = Facts { warnings: vec!["odd".to_owned()], remarks: vec!["more".to_owned()], ..facts() };
        let answer = asked(ready()).conclude(odd.clone(), None);
        assert_eq!((answer.status, answer.passed), (Status::Warn, true));
        assert!(answer.reason.ends_with("; odd; more"), "{}", answer.reason);
        let answer = asked(Policy { min: Some(9), ..ready() }).conclude(odd, None);
        assert_eq!((answer.status, answer.passed), (Status::Fail, false));
        let remark = Facts { remarks: vec!["more".to_owned()], ..facts() };
        assert_eq!(asked(ready()).conclude(remark, None).status, Status::Pass);
    }

    #[test]
    fn what_nobody_can_tell_fails_unless_it_is_to_pass_and_stays_unknown() {
        for (unknown, passed) in [(None, false), (Some(Unknown::Fail), false), (Some(Unknown::Pass), true)] {
            let asked = Question { unknown, ..asked(ready()) };
            let answer = asked.cannot_tell("why", Some("more".to_owned()));
            assert_eq!((answer.status, answer.passed), (Status::Unknown, passed));
            assert_eq!(answer.explanation(), "why: more");
            assert!(!asked.conclude(Facts::default(), None).passed);
        }
    }
}
