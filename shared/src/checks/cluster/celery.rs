//! The workers of a cluster, by what Celery's own workers reply or say of themselves at their broker.
//!
//! They are either asked ([`How::Ask`]: the remote control's `ping`, and from which queues they take work), or listened to
//! ([`How::Listen`]: their events). The broker keeps no record of who was there, so nobody is ever lost; and the cluster's
//! name is a label, because all workers of a broker and a control exchange are asked.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use heartbeat::duration::Human;
use heartbeat::verdict::Verdict;

use super::{Answer, Facts, Listed, MOST_LISTED, Missing, Question, Roll, Tasks};
use crate::celery::{Broker, Celery, Event, Happening, Method, Names, Replied, Replies};
use crate::checks::worker::Want;

/// How often Celery's workers say that they are there, unless they are told otherwise.
const USUAL_INTERVAL: Duration = Duration::from_secs(2);

/// How many replies that are none a sentence tells of.
const MOST_TOLD: usize = 5;

/// What is asked, of which broker, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker that the workers take their work from.
    pub broker: Broker,
    /// The names that its workers listen under.
    pub names: Names,
    /// Whether they are asked or listened to.
    pub how: How,
    /// What is asked about the cluster.
    pub question: Question,
}

/// How it is found out which workers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// By a question that each worker answers. One that works in its own main thread (the pool `solo`) answers only between
    /// two tasks.
    #[default]
    Ask,
    /// By what each worker says of itself, for as long as it takes all to say it once. Nothing is sent to them.
    Listen,
}

impl Settings {
    /// What `--source` calls this.
    pub const SOURCE: &str = "celery";

    /// The connection to ask over. It can be kept from one question to the next.
    pub fn celery(&self) -> Celery {
        Celery::new(&self.broker, &self.names)
    }

    /// What of the question cannot be answered so, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let policy = &self.question.policy;
        if policy.max_lost.is_some() {
            return Err("--max-lost: Celery keeps no record of workers that were there; say who must be with --expect, or how many with --min".to_owned());
        }
        if self.how == How::Listen && !policy.queues.is_empty() {
            return Err("--queue: Celery's events do not tell from which queues a worker takes work; ask without --events".to_owned());
        }
        Ok(())
    }

    /// Asks, and judges. Takes no longer than `until`.
    pub fn answer(&self, celery: &mut Celery, until: Instant) -> Answer {
        match self.how {
            How::Ask => self.ask(celery, until),
            How::Listen => self.listen(celery, until),
        }
    }

    fn ask(&self, celery: &mut Celery, until: Instant) -> Answer {
        let methods = self.methods();
        let holds = |replies: &Replies| {
            let facts = self.facts(replies, methods);
            self.question.policy.failures(&facts).is_empty()
        };
        match celery.ask(methods, until, holds) {
            Ok(replies) => self.question.conclude(self.facts(&replies, methods), Some(self.roll(&replies))),
            Err(error) => self.question.cannot_tell(error.reason(), Some(error.to_string())),
        }
    }

    /// A worker can take work where it takes it from any queue; for less than that a ping will do.
    fn methods(&self) -> &'static [Method] {
        let Question { policy, list, .. } = &self.question;
        if policy.want == Want::Live && policy.queues.is_empty() && !list {
            &[Method::Ping]
        } else {
            &[Method::Ping, Method::ActiveQueues]
        }
    }

    fn facts(&self, replies: &Replies, methods: &[Method]) -> Facts {
        let here = || replies.workers.iter().filter(|(name, _)| self.question.counts_here(host(name)));
        let count = |of: &dyn Fn(&Replied) -> bool| {
            u64::try_from(here().filter(|(_, worker)| of(worker)).count()).unwrap_or(u64::MAX)
        };
        let counts = |worker: &Replied| {
            is_here(worker) && (self.question.policy.want == Want::Live || takes_work(worker))
        };
        let on =
            |queue: &super::Queue| count(&|worker| counts(worker) && queues(worker).contains(&queue.name));
        Facts {
            fresh: count(&is_here),
            ready: count(&|worker| is_here(worker) && takes_work(worker)),
            queues: self.question.policy.queues.iter().map(on).collect(),
            missing: self.missing(|name| self.why_missing(name, replies.workers.get(name))),
            remarks: remarks(replies, methods),
            ..Facts::default()
        }
    }

    fn missing(&self, why: impl Fn(&str) -> Option<String>) -> Vec<Missing> {
        let expected = self.question.policy.expect.iter();
        expected.filter_map(|name| Some(Missing { worker: name.clone(), why: why(name)? })).collect()
    }

    fn why_missing(&self, name: &str, worker: Option<&Replied>) -> Option<String> {
        let Some(worker) = worker else { return Some("has not replied".to_owned()) };
        match &worker.pong {
            None => Some("has not replied to ping".to_owned()),
            Some(Err(why)) => Some(why.clone()),
            Some(Ok(())) => self.why_not_counted(name, takes_work(worker)),
        }
    }

    fn why_not_counted(&self, name: &str, takes_work: bool) -> Option<String> {
        if !self.question.counts_here(host(name)) {
            return Some(format!("is on host {}", host(name)));
        }
        (self.question.policy.want == Want::Ready && !takes_work)
            .then(|| "takes work from no queue".to_owned())
    }

    fn roll(&self, replies: &Replies) -> Roll {
        let listed = |(name, worker): (&String, &Replied)| Listed {
            id: None,
            worker: name.clone(),
            host: host(name).to_owned(),
            verdict: if is_here(worker) { Verdict::Alive } else { Verdict::Corrupt },
            age_ms: None,
            fresh: is_here(worker),
            takes_work: takes_work(worker),
            queues: queues(worker).to_vec(),
            tasks: None,
        };
        self.sorted(replies.workers.iter().map(listed))
    }

    fn sorted(&self, workers: impl Iterator<Item = Listed>) -> Roll {
        let mut workers: Vec<_> = workers.filter(|listed| self.question.counts_here(&listed.host)).collect();
        workers.sort_by(|one, other| (one.fresh, &one.worker).cmp(&(other.fresh, &other.worker)));
        let more = workers.len() > MOST_LISTED;
        workers.truncate(MOST_LISTED);
        Roll { workers, more }
    }

    fn listen(&self, celery: &mut Celery, until: Instant) -> Answer {
        let begun = Instant::now();
        let mut heard = Heard::default();
        loop {
            // What is left after that is for the broker to show that it is there.
            let latest = begun + until.saturating_duration_since(begun) * 9 / 10;
            let quiet = latest.min(begun + heard.window());
            let told = celery.listen(quiet, until, |happening| heard.take(happening, Instant::now()));
            if let Err(error) = told {
                return self.question.cannot_tell(error.reason(), Some(error.to_string()));
            }
            // Somebody may have said that it speaks more rarely than that.
            if quiet == latest || begun + heard.window() <= quiet {
                return self.judge_heard(&heard, quiet.saturating_duration_since(begun));
            }
        }
    }

    /// Who has not spoken may still be about to, where there was less time to listen than workers take between two words.
    fn judge_heard(&self, heard: &Heard, listened: Duration) -> Answer {
        let facts = self.heard_facts(heard);
        let holds = self.question.policy.failures(&facts).is_empty();
        if !holds && listened < heard.window() {
            let [interval, listened] = [heard.interval, listened].map(|time| Human(milliseconds(time)));
            let reason = format!(
                "workers speak every {interval}, and there was time to listen for {listened}: give a longer timeout"
            );
            return self.question.cannot_tell(reason, None);
        }
        self.question.conclude(facts, Some(self.heard_roll(heard)))
    }

    fn heard_facts(&self, heard: &Heard) -> Facts {
        let here = |(name, last): &(&String, &Last)| {
            last.event == Event::Beat && self.question.counts_here(host(name))
        };
        let fresh = u64::try_from(heard.workers.iter().filter(here).count()).unwrap_or(u64::MAX);
        let missing = self.missing(|name| match heard.workers.get(name) {
            None => Some("has not been heard".to_owned()),
            Some(last) if last.event == Event::Offline => Some("has stopped".to_owned()),
            Some(_) => self.why_not_counted(name, true),
        });
        Facts { fresh, ready: fresh, missing, ..Facts::default() }
    }

    fn heard_roll(&self, heard: &Heard) -> Roll {
        let now = Instant::now();
        let listed = |(name, last): (&String, &Last)| Listed {
            id: None,
            worker: name.clone(),
            host: host(name).to_owned(),
            verdict: if last.event == Event::Beat { Verdict::Alive } else { Verdict::Stopped },
            age_ms: Some(milliseconds(now.saturating_duration_since(last.at))),
            fresh: last.event == Event::Beat,
            takes_work: last.event == Event::Beat,
            queues: Vec::new(),
            tasks: Some(last.tasks),
        };
        self.sorted(heard.workers.iter().map(listed))
    }
}

/// What workers have said of themselves, each one's last word.
struct Heard {
    workers: BTreeMap<String, Last>,
    interval: Duration,
}

impl Default for Heard {
    fn default() -> Self {
        Self { workers: BTreeMap::new(), interval: USUAL_INTERVAL }
    }
}

struct Last {
    event: Event,
    tasks: Tasks,
    at: Instant,
}

impl Heard {
    fn take(&mut self, happening: Happening, at: Instant) -> ControlFlow<()> {
        let Happening { worker, event, active, processed, every_ms } = happening;
        if let Some(ms) = every_ms {
            self.interval = self.interval.max(Duration::from_millis(ms));
        }
        if self.workers.len() < MOST_LISTED || self.workers.contains_key(&worker) {
            self.workers
                .insert(worker, Last { event, tasks: Tasks { running: active, done: processed }, at });
        }
        ControlFlow::Continue(())
    }

    /// How long it takes until everyone has spoken: the longest time between two words, and a quarter of it.
    fn window(&self) -> Duration {
        self.interval + self.interval / 4
    }
}

/// Celery names its workers NAME@HOST.
fn host(worker: &str) -> &str {
    worker.rsplit_once('@').map_or("", |(_, host)| host)
}

fn is_here(worker: &Replied) -> bool {
    matches!(worker.pong, Some(Ok(())))
}

fn takes_work(worker: &Replied) -> bool {
    !queues(worker).is_empty()
}

fn queues(worker: &Replied) -> &[String] {
    match &worker.queues {
        Some(Ok(queues)) => queues,
        _ => &[],
    }
}

/// What more there is to say: who replied nonsense, and how many have not replied at all.
fn remarks(replies: &Replies, methods: &[Method]) -> Vec<String> {
    let wrong = |(name, worker): (&String, &Replied)| {
        let why = [
            worker.pong.as_ref()?.as_ref().err(),
            worker.queues.as_ref().and_then(|queues| queues.as_ref().err()),
        ];
        why.into_iter().flatten().next().map(|why| format!("{name} {why}"))
    };
    let mut remarks: Vec<_> = replies.workers.iter().filter_map(wrong).take(MOST_TOLD).collect();
    match replies.awaited(methods) {
        Some(0) | None => {}
        Some(1) => remarks.push("1 more listens and has not replied".to_owned()),
        Some(more) => remarks.push(format!("{more} more listen and have not replied")),
    }
    if replies.workers.is_empty() && replies.listening == Some(0) {
        remarks.push("nobody listens at this broker under this control exchange".to_owned());
    }
    remarks
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Policy, Queue};
    use super::*;
    use crate::status::Status;

    fn settings(policy: Policy) -> Settings {
        let broker: Broker = "amqp://me:S3cret@h".parse().unwrap();
        let question = Question { policy, ..Question::new(Settings::SOURCE, &broker, "orders") };
        Settings { broker, names: Names::default(), how: How::Ask, question }
    }

    fn ready() -> Policy {
        Policy { want: Want::Ready, ..Policy::default() }
    }

    fn replied(queues: &[&str]) -> Replied {
        let queues = queues.iter().map(ToString::to_string).collect();
        Replied { pong: Some(Ok(())), queues: Some(Ok(queues)), after: Duration::ZERO }
    }

    fn replies() -> Replies {
        let odd = Replied {
            pong: Some(Err("did not reply with pong, but with 7".to_owned())),
            ..replied(&["mail"])
        };
        let workers = [
            ("w1@a", replied(&["mail", "pdf"])),
            ("w2@b", replied(&["mail"])),
            ("w3@b", replied(&[])),
            ("w4@b", odd),
        ];
        let workers = workers.map(|(name, worker)| (name.to_owned(), worker)).into();
        Replies { workers, listening: Some(5) }
    }

    const BOTH: &[Method] = &[Method::Ping, Method::ActiveQueues];

    #[test]
    fn a_worker_is_ready_where_it_takes_work_from_any_queue() {
        let queues = ["mail", "pdf", "none"].map(|name| Queue { name: name.to_owned(), min: 1 });
        let facts = settings(Policy { queues: queues.into(), ..ready() }).facts(&replies(), BOTH);
        assert_eq!((facts.fresh, facts.ready, facts.queues), (3, 2, vec![2, 1, 0]));
        assert_eq!(
            facts.remarks,
            ["w4@b did not reply with pong, but with 7", "1 more listens and has not replied"]
        );
    }

    #[test]
    fn only_workers_of_the_host_after_the_at_sign_count() {
        let mut settings = settings(Policy { expect: vec!["w1@a".to_owned()], ..ready() });
        settings.question.host = Some("b".to_owned());
        let facts = settings.facts(&replies(), BOTH);
        assert_eq!((facts.fresh, facts.ready), (2, 1));
        assert_eq!(facts.missing[0].why, "is on host a");
        assert_eq!(settings.roll(&replies()).workers.len(), 3);
    }

    #[test]
    fn who_is_expected_and_does_not_count_is_named_with_why() {
        let expect = ["w1@a", "w3@b", "w4@b", "w9@b"].map(ToOwned::to_owned).into();
        let missing = settings(Policy { expect, ..ready() }).facts(&replies(), BOTH).missing;
        let missing: Vec<_> =
            missing.iter().map(|missing| format!("{} {}", missing.worker, missing.why)).collect();
        assert_eq!(
            missing,
            [
                "w3@b takes work from no queue",
                "w4@b did not reply with pong, but with 7",
                "w9@b has not replied"
            ]
        );
    }

    #[test]
    fn what_celery_cannot_tell_is_refused() {
        let lost = settings(Policy { max_lost: Some(0), ..ready() }).check().unwrap_err();
        assert!(lost.starts_with("--max-lost: Celery keeps no record"), "{lost}");
        let queues = vec![Queue { name: "mail".to_owned(), min: 1 }];
        let mut settings = settings(Policy { queues, ..ready() });
        settings.check().unwrap();
        settings.how = How::Listen;
        assert!(settings.check().unwrap_err().starts_with("--queue: "));
    }

    fn heard(events: &[(&str, Event, Option<u64>)]) -> Heard {
        let mut heard = Heard::default();
        for (worker, event, every_ms) in events {
            let happening = Happening {
                worker: (*worker).to_owned(),
                event: *event,
                active: 1,
                processed: 7,
                every_ms: *every_ms,
            };
            assert!(heard.take(happening, Instant::now()).is_continue());
        }
        heard
    }

    #[test]
    fn the_last_word_of_a_worker_counts() {
        let heard = heard(&[
            ("w1@a", Event::Beat, None),
            ("w2@a", Event::Beat, None),
            ("w2@a", Event::Offline, None),
        ]);
        let policy = Policy { min: Some(2), expect: vec!["w2@a".to_owned()], ..ready() };
        let answer = settings(policy).judge_heard(&heard, heard.window());
        assert_eq!(answer.status, Status::Fail);
        assert_eq!(answer.reason, "min 2: 1 worker takes work; w2@a has stopped");
        let roll = settings(ready()).heard_roll(&heard);
        let verdicts: Vec<_> =
            roll.workers.iter().map(|worker| (worker.worker.as_str(), worker.verdict)).collect();
        assert_eq!(verdicts, [("w2@a", Verdict::Stopped), ("w1@a", Verdict::Alive)]);
        assert_eq!(roll.workers[1].tasks, Some(Tasks { running: 1, done: 7 }));
    }

    #[test]
    fn who_was_not_listened_to_for_long_enough_is_not_called_dead() {
        let heard = heard(&[("w1@a", Event::Beat, Some(60_000))]);
        assert_eq!(heard.window(), Duration::from_secs(75));
        let judge = |min, seconds| {
            settings(Policy { min: Some(min), ..ready() }).judge_heard(&heard, Duration::from_secs(seconds))
        };
        assert_eq!(judge(2, 4).status, Status::Unknown);
        assert_eq!(judge(1, 4).status, Status::Pass);
        assert_eq!(judge(2, 75).status, Status::Fail);
    }
}
