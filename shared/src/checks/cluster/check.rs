//! The verdict on a cluster as a check of a configuration, by what its workers have told Redis.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Fleet, SigningKeys, Url};
use nix::unistd::gethostname;
use schemars::JsonSchema;
use serde::Deserialize;

use super::fleet::Settings as Question;
use super::{Answer, Policy, Queue, Share};
use crate::blocking::Blocking;
use crate::check::{Check, Failure, Workers};
use crate::checks::worker::{Unknown, Want};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::Secret;
use crate::status::Status;

/// How long before the deadline Redis is given up, at most: then it can still be said what did not answer.
const MARGIN: Duration = Duration::from_millis(50);

/// Whether enough workers of a cluster take work, by what they have told Redis: the verdict that `checker cluster` gives.
///
/// All that is set must hold. Where Redis cannot be asked, nobody can tell. Celery's and Django-Q2's own workers, which tell Redis
/// nothing of this kind, are the matter of `celery` and `django-q`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "a field is a key of the configuration")]
pub struct Cluster {
    /// The cluster's name.
    #[schemars(length(min = 1))]
    cluster: String,
    /// The Redis that its workers beat to, as in `$HEARTBEAT_REDIS_URL`: `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or
    /// `redis+cluster://`.
    redis: Secret,
    /// What their records are signed with, as in `$HEARTBEAT_KEY`: then only workers whose records are rightly signed count, and who
    /// is not signed is a warning. Two keys while one takes the place of the other, with a space between them.
    key: Option<Secret>,
    /// How many workers there are at least. Without it 1, or what `min_percent` says.
    min: Option<u64>,
    /// How many there are at least as a share of `expected`, in percent and rounded up.
    #[schemars(range(min = 1, max = 100))]
    min_percent: Option<u64>,
    /// How many workers there should be.
    #[schemars(range(min = 1))]
    expected: Option<u64>,
    /// Queues, each with how many workers take work from it at least.
    #[serde(default)]
    queues: BTreeMap<String, u64>,
    /// Workers that must be there, by name.
    #[serde(default)]
    expect: Vec<String>,
    /// How many workers may have gone silent. Without it, any number.
    max_lost: Option<u64>,
    /// Which workers count: those that take work (`ready`), or all that beat (`live`).
    #[serde(default = "ready", rename = "for")]
    want: Want,
    /// Only the workers of the host of this name count; `self` is this one.
    host: Option<String>,
    /// What it counts for that nobody can tell: `pass` makes it a warning.
    unknown: Option<Unknown>,
}

fn ready() -> Want {
    Want::Ready
}

/// Asks it, over a connection that is kept.
#[derive(Debug)]
pub struct ClusterCheck {
    question: Question,
    fleet: Blocking<Fleet>,
    /// For who looks at the workers, beside the check. It connects where it is used.
    onlookers: Blocking<Fleet>,
}

impl Settings for Cluster {
    const KIND: &'static str = "cluster";
    const EXAMPLE: &'static str =
        "cluster = \"orders\"\nredis = \"${HEARTBEAT_REDIS_URL}\"\nmin = 2\nqueues = { mail = 1 }";
    const CONTRACT: Contract = Contract::Peer("cluster = \"orders\"\nredis = \"redis://:S3cret@{peer}\"");
    const MORE_CONTRACTS: &'static [&'static str] =
        &["cluster = \"orders\"\nredis = \"rediss://:S3cret@{peer}\""];
    type Check = ClusterCheck;

    fn build(self) -> Result<ClusterCheck, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut refuse = |key, what: String| mistakes.push(Mistake::of(key, what));
        let url = self.redis.expose().parse::<Url>();
        if let Err(invalid) = &url {
            refuse("redis", format!("the URL cannot be used: {invalid}"));
        }
        let signing = self.key.as_ref().map(|key| key.expose().parse::<SigningKeys>()).transpose();
        if let Err(invalid) = &signing {
            refuse("key", invalid.to_string());
        }
        let host = self.host.as_deref().map(host).transpose();
        if let Err(why) = &host {
            refuse("host", (*why).to_owned());
        }
        let share = share(self.min_percent, self.expected).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        if self.queues.keys().chain(&self.expect).any(String::is_empty) {
            mistakes.push(Mistake::together("the name of a queue or of a worker is empty"));
        }
        let (Ok(url), Ok(signing), Ok(host), true) = (url, signing, host, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        let mut question = Question::new(url, self.cluster);
        question.signing = signing;
        question.question.policy = Policy {
            want: self.want,
            min: self.min,
            share,
            queues: self.queues.into_iter().map(|(name, min)| Queue { name, min }).collect(),
            expect: self.expect,
            max_lost: self.max_lost,
        };
        question.question.host = host;
        question.question.unknown = self.unknown;
        let (fleet, onlookers) = (Blocking::new(question.fleet()), Blocking::new(question.fleet()));
        Ok(ClusterCheck { question, fleet, onlookers })
    }
}

/// A share of the workers that there should be, where both its parts are set.
pub(crate) fn share(min_percent: Option<u64>, expected: Option<u64>) -> Result<Option<Share>, Mistake> {
    match (min_percent, expected) {
        (Some(_), None) => Err(Mistake::of("min_percent", "it is a share of `expected`, which is missing")),
        (None, Some(_)) => {
            Err(Mistake::of("expected", "it is what `min_percent` is a share of, which is missing"))
        }
        _ => Ok(min_percent.zip(expected).map(|(percent, expected)| Share { percent, expected })),
    }
}

/// The name of a host, as its workers tell it; `self` is this one.
pub(crate) fn host(name: &str) -> Result<String, &'static str> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let own = gethostname().ok().and_then(|own| own.into_string().ok());
    own.filter(|own| !own.is_empty()).ok_or("this host does not tell its name")
}

#[async_trait::async_trait]
impl Check for ClusterCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (question, until) =
            (self.question.clone(), deadline.checked_sub(MARGIN.min(left / 10)).unwrap_or(deadline));
        let answer = self.fleet.with(move |fleet| question.answer(fleet, until)).await?;
        self.judge(&answer)
    }

    async fn workers(&self, most: usize, deadline: Instant) -> Option<Result<Workers, Failure>> {
        let question = self.question.clone();
        let read = self.onlookers.with(move |fleet| question.workers(fleet, most, deadline)).await;
        Some(match read {
            Ok(Ok(workers)) => Ok(workers),
            Ok(Err(error)) => Err(Failure::unknown(error.kind().to_string()).because(error)),
            Err(failure) => Err(failure),
        })
    }
}

impl ClusterCheck {
    /// Numbers and names of the configuration are for everyone; who was lost where is not.
    fn judge(&self, answer: &Answer) -> Result<(), Failure> {
        let policy = &self.question.question.policy;
        let failures = answer.facts.as_ref().map(|facts| policy.failures(facts)).unwrap_or_default();
        let reason = match answer.status {
            Status::Pass => return Ok(()),
            Status::Fail if !failures.is_empty() => failures.join("; "),
            Status::Unknown => answer.reason.clone(),
            _ => "the cluster is not quite as it should be".to_owned(),
        };
        let failure = match (answer.status, answer.passed) {
            (_, true) => Failure::warning(reason),
            (Status::Unknown, false) => Failure::unknown(reason),
            (_, false) => Failure::failed(reason),
        };
        Err(failure.because(answer.explanation()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn build(settings: Value) -> Result<ClusterCheck, Vec<Mistake>> {
        from_value::<Cluster>(settings).unwrap().build()
    }

    #[test]
    fn its_settings_are_the_policies_of_the_command() {
        let check = build(json!({
            "cluster": "orders", "redis": "redis+sentinel://a:1,b:2/main", "min_percent": 50, "expected": 4, "queues": { "mail": 2 },
            "expect": ["w"], "max_lost": 0, "for": "live", "host": "web-3", "unknown": "pass",
        }));
        let question = check.unwrap().question.question;
        assert_eq!((question.host.as_deref(), question.unknown), (Some("web-3"), Some(Unknown::Pass)));
        let policy = question.policy;
        assert_eq!((policy.want, policy.min, policy.max_lost), (Want::Live, None, Some(0)));
        assert_eq!(policy.share, Some(Share { percent: 50, expected: 4 }));
        assert_eq!(policy.queues, ["mail:2".parse().unwrap()]);
        let default = build(json!({ "cluster": "orders", "redis": "redis://h" })).unwrap().question.question;
        assert_eq!(default.policy.want, Want::Ready);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_part_of_the_url() {
        let wrong = json!({ "cluster": "orders", "redis": "http://S3cret", "key": "S3cret", "expected": 4, "expect": [""] });
        let mistakes = build(wrong).unwrap_err();
        let keys: Vec<_> = mistakes.iter().map(|mistake| mistake.key).collect();
        assert_eq!(keys, [Some("redis"), Some("key"), Some("expected"), None]);
        assert!(!format!("{mistakes:?}").contains("S3cret"));
    }

    #[tokio::test]
    async fn where_redis_cannot_be_asked_nobody_can_tell() {
        for (unknown, status) in [("fail", Status::Unknown), ("pass", Status::Warn)] {
            let settings =
                json!({ "cluster": "orders", "redis": "redis://:S3cret@127.0.0.1:1", "unknown": unknown });
            let failure =
                build(settings).unwrap().run(Instant::now() + Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(failure.status(), status);
            assert!(!format!("{failure:?}").contains("S3cret"));
        }
    }
}
