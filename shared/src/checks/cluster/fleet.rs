//! The workers of a cluster, by what they have told Redis.
//!
//! What a worker's record means is decided in `heartbeat`. Only counts are read where counts are enough: one round trip.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

use heartbeat::duration::Human;
use heartbeat::fleet::{Error, Fleet, MAX_PAGE, Member, SigningKeys, Url};
use heartbeat::record::Id;

use super::{Answer, Facts, Listed, MOST_LISTED, Missing, NAMED_IN_A_SENTENCE, Question, Roll, Silent};
#[cfg(feature = "run")]
use crate::check::{Counts, Worker, Workers};
use crate::checks::worker::Want;

/// How many of the lost are named where nobody asked how many there may be.
const NAMED_IN_PASSING: usize = 100;

/// How much the names and queues of all workers of a list may take, in bytes: of 100,000 workers as they are, a
/// third of it.
const MOST_TEXT: usize = 64 << 20;

/// What is asked, and of which Redis.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Redis that the workers beat to.
    pub url: Url,
    /// What the workers' records are signed with: then only those that are count.
    pub signing: Option<SigningKeys>,
    /// What is asked.
    pub question: Question,
}

impl Settings {
    /// The question whether at least one worker of the cluster can take work.
    pub fn new(url: Url, cluster: impl Into<String>) -> Self {
        let question = Question::new("heartbeat", &url, cluster);
        Self { url, signing: None, question }
    }

    /// The connection to ask over. It can be kept from one question to the next.
    pub fn fleet(&self) -> Fleet {
        let fleet = Fleet::new(self.url.clone(), self.question.cluster.as_str());
        match &self.signing {
            Some(keys) => fleet.signed(keys.clone()),
            None => fleet,
        }
    }

    /// Asks, and judges. Takes no longer than `until`.
    pub fn answer(&self, fleet: &mut Fleet, until: Instant) -> Answer {
        match self.learn(fleet, until) {
            Ok((facts, roll)) => self.conclude(facts, roll),
            Err(Untold::Redis(error)) => {
                self.question.cannot_tell(error.kind().to_string(), Some(error.to_string()))
            }
            Err(Untold::TooMany) => {
                let reason = format!(
                    "there are more than {MOST_LISTED} workers to be counted one by one, or their names are too long"
                );
                self.question.cannot_tell(reason, None)
            }
        }
    }

    fn conclude(&self, mut facts: Facts, roll: Option<Roll>) -> Answer {
        if facts.fresh == 0 && facts.lost_count == 0 {
            facts.remarks.push("the cluster is empty: nobody beats, and nobody has of late".to_owned());
        }
        self.question.conclude(facts, roll)
    }

    fn learn(&self, fleet: &mut Fleet, until: Instant) -> Result<(Facts, Option<Roll>), Untold> {
        let one_by_one = self.is_counted_one_by_one();
        let read = if one_by_one || self.question.list { Some(self.roll(fleet, until)?) } else { None };
        let (mut facts, roll) = match read {
            Some((roll, _)) if one_by_one && roll.more => return Err(Untold::TooMany),
            Some((roll, distrusted)) if one_by_one => {
                let mut facts = self.question.policy.tally(&roll);
                facts.warnings.extend(warning(&self.question.cluster, &distrusted));
                let mut workers = roll.workers;
                workers.extend(distrusted.into_iter().map(|(listed, _)| listed));
                (facts, Some(Roll::new(workers, false)))
            }
            Some((roll, _)) => (self.count(fleet, until)?, Some(roll)),
            None => (self.count(fleet, until)?, None),
        };
        facts.missing = self.missing(fleet, until)?;
        Ok((facts, roll))
    }

    /// Redis keeps no count for a host, nor for the workers of a queue that do not take work, nor one that is signed.
    fn is_counted_one_by_one(&self) -> bool {
        self.signing.is_some()
            || self.question.host.is_some()
            || (self.question.policy.want == Want::Live && !self.question.policy.queues.is_empty())
    }

    /// The workers; and apart from them those that seem to beat and are not to be trusted, each with the reason.
    fn roll(&self, fleet: &mut Fleet, until: Instant) -> Result<(Roll, Vec<Distrusted>), Error> {
        let host = self.question.host.as_deref();
        // Who takes work and has no record, by its place in the list.
        let (mut evicted, mut place) = (Vec::new(), 0);
        let keep = |member: Member| {
            if member.takes_work && member.record().is_none() {
                evicted.push((place, member.id));
            }
            place += 1;
            let why = (member.is_fresh() && !member.is_trusted()).then(|| member.judge(None).to_string());
            (Listed::of(member), why)
        };
        let (read, more) = read_all(fleet, host, MOST_LISTED, until, keep)?;
        // None of those moves to another place: where anybody is distrusted, who has no record takes no work.
        let (mut workers, mut distrusted) = (Vec::with_capacity(read.len()), Vec::new());
        for (listed, why) in read {
            match why {
                Some(why) => distrusted.push((listed, why)),
                None => workers.push(listed),
            }
        }
        self.place_evicted(fleet, &evicted, &mut workers, until)?;
        drop_succeeded(&mut workers, |listed| {
            (&listed.worker, listed.fresh, listed.age_ms.unwrap_or_default())
        });
        Ok((Roll::new(workers, more), distrusted))
    }

    /// Of a worker whose record was evicted, the index still knows whether it takes work from the queues of the policy.
    fn place_evicted(
        &self,
        fleet: &mut Fleet,
        evicted: &[(usize, Id)],
        workers: &mut [Listed],
        until: Instant,
    ) -> Result<(), Error> {
        for evicted in evicted.chunks(MAX_PAGE) {
            let ids: Vec<_> = evicted.iter().map(|(_, id)| *id).collect();
            for queue in &self.question.policy.queues {
                let take = fleet.take_from(&queue.name, &ids, until)?;
                for ((place, _), _) in evicted.iter().zip(take).filter(|(_, takes)| *takes) {
                    workers[*place].queues.push(queue.name.clone());
                }
            }
        }
        Ok(())
    }

    fn count(&self, fleet: &mut Fleet, until: Instant) -> Result<Facts, Error> {
        let queues: Vec<_> = self.question.policy.queues.iter().map(|queue| queue.name.as_str()).collect();
        let counts = fleet.count(&queues, until)?;
        let mut facts =
            Facts { fresh: counts.fresh, ready: counts.ready, queues: counts.queues, ..Facts::default() };
        if counts.lost > 0 {
            let limit = if self.question.policy.max_lost.is_some() { MAX_PAGE } else { NAMED_IN_PASSING };
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
        for names in self.question.policy.expect.chunks(MAX_PAGE) {
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
            Some(member) if !self.question.counts_here(&member.host) => {
                Some(format!("is on host {}", member.host))
            }
            Some(member) if !member.is_fresh() => {
                Some(format!("silent for {}", Human(member.age_ms.unwrap_or_default())))
            }
            Some(member) if !member.is_trusted() => Some(format!("is not trusted ({})", member.judge(None))),
            Some(member) if self.question.policy.want == Want::Ready && !member.takes_work => {
                let judgement = member.judge(None);
                Some(format!("takes no work ({}: {judgement})", judgement.verdict))
            }
            Some(_) => None,
        }
    }
}

/// A worker that does not count, because nothing proves that it is one, and the reason.
type Distrusted = (Listed, String);

/// Names them, a few of them.
fn warning(cluster: &str, distrusted: &[Distrusted]) -> Option<String> {
    if distrusted.is_empty() {
        return None;
    }
    let name = |(listed, why): &Distrusted| format!("{cluster}@{} ({why})", listed.worker);
    let named: Vec<_> = distrusted.iter().take(NAMED_IN_A_SENTENCE).map(name).collect();
    let more = match distrusted.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("not trusted: {}{more}", named.join(", ")))
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

impl Listed {
    fn of(member: Member) -> Self {
        Self {
            id: Some(member.id.to_string()),
            verdict: member.judge(None).verdict,
            age_ms: member.age_ms,
            fresh: member.is_fresh() && member.is_trusted(),
            takes_work: member.takes_work,
            queues: member.record().map(|record| record.queues.clone()).unwrap_or_default(),
            tasks: None,
            worker: member.worker,
            host: member.host,
        }
    }
}

/// Reads all members, or those of one host, and keeps what `keep` makes of each; whether there are more than `most`, or
/// than have room.
pub fn read_all<T>(
    fleet: &mut Fleet,
    host: Option<&str>,
    most: usize,
    until: Instant,
    mut keep: impl FnMut(Member) -> T,
) -> Result<(Vec<T>, bool), Error> {
    let (mut kept, mut seen, mut room, mut more) = (Vec::new(), HashSet::new(), MOST_TEXT, false);
    fleet.each_member(host, until, |member| {
        // One may come twice.
        if !seen.insert(member.id) {
            return ControlFlow::Continue(());
        }
        match room.checked_sub(size_of_text(&member)) {
            Some(left) if kept.len() < most => {
                room = left;
                kept.push(keep(member));
                ControlFlow::Continue(())
            }
            _ => {
                more = true;
                ControlFlow::Break(())
            }
        }
    })?;
    Ok((kept, more))
}

/// What its names take of memory, about.
fn size_of_text(member: &Member) -> usize {
    /// What a text takes besides its characters: of a thousand short ones in one record that is most of it.
    const EACH: usize = 48;
    let queues = member.record().map(|record| record.queues.as_slice()).unwrap_or_default();
    let queues: usize = queues.iter().map(|queue| EACH + queue.len()).sum();
    member.worker.len() + member.host.len() + queues
}

#[cfg(feature = "run")]
impl Settings {
    /// The workers that are asked about, `most` at most, and how many there are by the counts that Redis keeps. There are none
    /// where workers are counted one by one: that is the matter of an answer.
    pub fn workers(&self, fleet: &mut Fleet, most: usize, until: Instant) -> Result<Workers, Error> {
        let (workers, more) = workers(fleet, self.question.host.as_deref(), most, until)?;
        let counts = if self.is_counted_one_by_one() { None } else { Some(self.count(fleet, until)?) };
        let counts = counts.map(|Facts { fresh, ready, lost_count, queues, .. }| {
            let names = self.question.policy.queues.iter().map(|queue| queue.name.clone());
            Counts { fresh, ready, lost: lost_count, queues: names.zip(queues).collect() }
        });
        Ok(Workers { cluster: self.question.cluster.clone(), workers, more, counts })
    }
}

/// The workers, or those of one host, the worst first, `most` at most; whether there are more.
#[cfg(feature = "run")]
fn workers(
    fleet: &mut Fleet,
    host: Option<&str>,
    most: usize,
    until: Instant,
) -> Result<(Vec<Worker>, bool), Error> {
    let keep = |member: Member| (member.is_fresh(), member.age_ms.unwrap_or_default(), Worker::of(&member));
    let (mut found, more) = read_all(fleet, host, most, until, keep)?;
    drop_succeeded(&mut found, |(fresh, age_ms, worker)| (&worker.name, *fresh, *age_ms));
    let mut workers: Vec<_> = found.into_iter().map(|(.., worker)| worker).collect();
    let rank = |worker: &Worker| (worker.verdict.ready() == Some(true), worker.verdict.live() != Some(false));
    workers.sort_by(|one, other| rank(one).cmp(&rank(other)).then_with(|| one.name.cmp(&other.name)));
    Ok((workers, more))
}

#[cfg(feature = "run")]
impl Worker {
    fn of(member: &Member) -> Self {
        let judgement = member.judge(None);
        let record = member.record();
        Self {
            name: member.worker.clone(),
            host: member.host.clone(),
            id: Some(member.id.to_string()),
            age_ms: member.age_ms,
            queues: record.map(|record| record.queues.clone()).unwrap_or_default(),
            verdict: judgement.verdict,
            reason: judgement.to_string(),
            nearest: record.and_then(|record| Self::nearest_of(record, member.age_ms.unwrap_or_default())),
        }
    }
}

/// Of a worker that went silent and has started anew since, or went silent more than once, only the latest stays.
/// `of` gives a worker's name, whether it is fresh, and the age of its last beat.
pub fn drop_succeeded<T>(workers: &mut Vec<T>, of: impl Fn(&T) -> (&str, bool, u64)) {
    // Of each name that one of the lost bears, the age of the one of them that stays: none where one is fresh.
    let lost = |worker: &&T| !of(worker).1;
    let mut stays: HashMap<String, Option<u64>> =
        workers.iter().filter(lost).map(|worker| (of(worker).0.to_owned(), Some(u64::MAX))).collect();
    if stays.is_empty() {
        return;
    }
    for worker in workers.iter() {
        let (name, fresh, age_ms) = of(worker);
        if let Some(stays) = stays.get_mut(name) {
            *stays = stays.map(|least| age_ms.min(least)).filter(|_| !fresh);
        }
    }
    workers.retain(|worker| {
        let (name, fresh, age_ms) = of(worker);
        fresh || stays.get_mut(name).is_some_and(|stays| stays.take_if(|least| *least == age_ms).is_some())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    #[test]
    fn empty_and_lost_are_told_apart() {
        let settings = Settings::new("redis://me:S3cret@h:1".parse().unwrap(), "orders");
        let empty = settings.conclude(Facts::default(), None);
        assert!(empty.reason.contains("the cluster is empty"), "{}", empty.reason);
        let silent = Silent { worker: "w0".to_owned(), silent_ms: 42_000 };
        let all_lost =
            settings.conclude(Facts { lost: vec![silent], lost_count: 1, ..Facts::default() }, None);
        assert!(all_lost.reason.contains("orders@w0 silent for 42 s"), "{}", all_lost.reason);
        assert!(!all_lost.reason.contains("empty"));
        assert_eq!((empty.status, all_lost.status), (Status::Fail, Status::Fail));
        assert!(!format!("{all_lost:?} {settings:?}").contains("S3cret"));
    }

    #[test]
    fn of_a_worker_that_started_anew_only_the_latest_stays() {
        let mut workers = vec![
            ("a", false, 9),
            ("a", true, 1),
            ("b", false, 7),
            ("b", false, 5),
            ("b", false, 5),
            ("c", true, 1),
            ("c", true, 2),
            ("c", false, 1),
        ];
        drop_succeeded(&mut workers, |worker| *worker);
        assert_eq!(workers, [("a", true, 1), ("b", false, 5), ("c", true, 1), ("c", true, 2)]);
    }
}
