//! Whether enough workers of a Django-Q2 cluster take work, by their own stats: the settings of a configuration for what
//! `checks::cluster::django_q` judges.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use heartbeat::fleet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cluster::Answer;
use super::cluster::check::{host, share};
use super::cluster::django_q::{STATUSES, Settings as Question};
use super::worker::{Unknown, Want};
use crate::check::{Check, Failure};
use crate::database::Engine;
#[cfg(feature = "_sql")]
use crate::database::{self, Access};
use crate::django::CacheKeys;
#[cfg(feature = "_sql")]
use crate::django::Table;
use crate::django_q::store::{Place, Store};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::solo::{Solo, Unanswered};
use crate::settings::Secret;
use crate::status::Status;

/// How long before the deadline the server is given up, at most: then it can still be said what did not answer.
const MARGIN: Duration = Duration::from_millis(50);

/// Whether enough workers of a Django-Q2 cluster take work, by its own stats: the verdict that `checker cluster --source django-q`
/// gives.
///
/// All that is set must hold. Where the stats cannot be read, nobody can tell.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DjangoQ {
    /// `Q_CLUSTER["name"]`.
    #[schemars(length(min = 1))]
    cluster: String,
    /// Django's `SECRET_KEY`, which the stats are signed with.
    secret_key: Secret,
    /// The Redis that is Django-Q's broker: `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
    redis: Option<Secret>,
    /// With every other broker, the Django cache that the stats are in: `redis://…`, or `postgres://`, `mysql://`, `mariadb://` or
    /// `sqlite://` with `cache_table`.
    cache: Option<Secret>,
    /// The table of a cache in a database: its `LOCATION`.
    cache_table: Option<String>,
    /// The cache's `KEY_PREFIX`. Default: none.
    cache_prefix: Option<String>,
    /// The cache's `VERSION`. Default: 1.
    cache_version: Option<u64>,
    /// How many workers there are at least. Without it 1, or what `min_percent` says.
    min: Option<u64>,
    /// How many there are at least as a share of `expected`, in percent and rounded up.
    #[schemars(range(min = 1, max = 100))]
    min_percent: Option<u64>,
    /// How many workers there should be.
    #[schemars(range(min = 1))]
    expected: Option<u64>,
    /// Workers that must be there, as `HOST:PID`.
    #[serde(default)]
    expect: Vec<String>,
    /// Which workers count: those that take work (`ready`), or all that live (`live`).
    #[serde(default = "ready", rename = "for")]
    want: Want,
    /// Only the workers of the host of this name count; `self` is this one.
    host: Option<String>,
    /// The statuses of workers that do not count. Default: `Stopping` and `Stopped`.
    unhealthy: Option<Vec<String>>,
    /// What it counts for that nobody can tell: `pass` makes it a warning.
    unknown: Option<Unknown>,
}

fn ready() -> Want {
    Want::Ready
}

impl Settings for DjangoQ {
    const KIND: &'static str = "django-q";
    const EXAMPLE: &'static str =
        "cluster = \"shop\"\nsecret_key = \"S3cret\"\nredis = \"redis://redis.internal/0\"\nmin = 2";
    const CONTRACT: Contract =
        Contract::Peer("cluster = \"shop\"\nsecret_key = \"S3cret\"\nredis = \"redis://:S3cret@{peer}\"");
    const MORE_CONTRACTS: &'static [&'static str] = &[
        #[cfg(feature = "mysql")]
        r#"cluster = "shop"
secret_key = "S3cret"
cache = "mysql://me:S3cret@{peer}/shop?ssl-mode=disabled"
cache_table = "django_cache""#,
        #[cfg(feature = "postgres")]
        r#"cluster = "shop"
secret_key = "S3cret"
cache = "postgres://me:S3cret@{peer}/shop?sslmode=disable"
cache_table = "django_cache""#,
    ];
    type Check = DjangoQCheck;

    fn build(self) -> Result<DjangoQCheck, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let share = share(self.min_percent, self.expected);
        mistakes.extend(share.as_ref().err().cloned());
        if self.secret_key.expose().is_empty() {
            mistakes.push(Mistake::of("secret_key", "it is empty"));
        }
        let known = |word: &String| STATUSES.contains(&word.as_str());
        if !self.unhealthy.iter().flatten().all(known) {
            mistakes.push(Mistake::of("unhealthy", format!("a status is one of {}", STATUSES.join(", "))));
        }
        let host = self.host.as_deref().map(host).transpose();
        mistakes.extend(host.as_ref().err().map(|why| Mistake::of("host", *why)));
        let place = self.place();
        mistakes.extend(place.as_ref().err().cloned());
        let (Ok(place), Ok(share), Ok(host), true) = (place, share, host, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        let mut question = Question::new(place, self.secret_key.expose(), self.cluster);
        question.unhealthy = self.unhealthy;
        question.question.host = host;
        question.question.unknown = self.unknown;
        let policy = &mut question.question.policy;
        policy.want = self.want;
        policy.min = self.min;
        policy.share = share;
        policy.expect = self.expect;
        Ok(DjangoQCheck { question, store: Arc::default(), solo: Solo::default() })
    }
}

impl DjangoQ {
    fn place(&self) -> Result<Place, Mistake> {
        let of_cache =
            self.cache_table.is_some() || self.cache_prefix.is_some() || self.cache_version.is_some();
        match (&self.redis, &self.cache) {
            (Some(_), None) if of_cache => Err(Mistake::of(
                "redis",
                "in a broker the stats have no table, prefix or version: those are for `cache`",
            )),
            (Some(url), None) => Ok(Place::Broker(one_server("redis", url.expose())?)),
            (None, Some(url)) => self.cache(url.expose()),
            (Some(_), Some(_)) => Err(Mistake::together("the stats are in `redis` or in `cache`: say one")),
            (None, None) => Err(Mistake::together(
                "where are the stats? In Django-Q's broker: `redis`; with any other broker in Django's cache: `cache`",
            )),
        }
    }

    fn cache(&self, text: &str) -> Result<Place, Mistake> {
        let version = self.cache_version.unwrap_or(CacheKeys::default().version);
        let keys = CacheKeys { prefix: self.cache_prefix.clone().unwrap_or_default(), version };
        match (Engine::of(text), &self.cache_table) {
            (Err(_), None) => Ok(Place::RedisCache(one_server("cache", text)?, keys)),
            (Err(_), Some(_)) => Err(Mistake::of("cache_table", "it is for a cache in a database")),
            (Ok(_), None) => {
                Err(Mistake::of("cache", "a cache in a database needs `cache_table`, its LOCATION"))
            }
            #[cfg(feature = "_sql")]
            (Ok(_), Some(table)) => {
                let url = database::Place::parse(text, Access::Read)
                    .map_err(|why| Mistake::of("cache", format!("the URL cannot be used: {why}")))?;
                match Table::parse(table) {
                    Some(table) => Ok(Place::TableCache { url, table, keys }),
                    None => Err(Mistake::of("cache_table", "it is no name of a table")),
                }
            }
            #[cfg(not(feature = "_sql"))]
            (Ok(engine), Some(_)) => {
                Err(Mistake::of("cache", format!("the URL cannot be used: {}", engine.missing())))
            }
        }
    }
}

/// Django knows no Redis Cluster.
fn one_server(key: &'static str, text: &str) -> Result<fleet::Url, Mistake> {
    let url: fleet::Url =
        text.parse().map_err(|invalid| Mistake::of(key, format!("the URL cannot be used: {invalid}")))?;
    if url.is_cluster() {
        return Err(Mistake::of(key, "Django-Q2 keeps no stats in a Redis Cluster"));
    }
    Ok(url)
}

/// Asks, over a connection that is kept.
#[derive(Debug)]
pub struct DjangoQCheck {
    question: Question,
    store: Arc<Mutex<Option<Store>>>,
    solo: Solo,
}

#[async_trait::async_trait]
impl Check for DjangoQCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let until = deadline.checked_sub(MARGIN.min(left / 10)).unwrap_or(deadline);
        let (question, store) = (self.question.clone(), Arc::clone(&self.store));
        let asked = self.solo.ask(deadline, move || {
            // A panic of an earlier question has been told there.
            question.answer_from(&mut store.lock().unwrap_or_else(PoisonError::into_inner), until)
        });
        match asked.await {
            Ok(answer) => self.judge(&answer),
            Err(Unanswered::Broken(error)) => {
                Err(Failure::unknown("the stats could not be asked for").because(error))
            }
            Err(Unanswered::Late | Unanswered::Still) => {
                Err(Failure::unknown("the stats were not read in time"))
            }
        }
    }
}

impl DjangoQCheck {
    /// Numbers and names of the configuration are for everyone; what the stats say is not.
    fn judge(&self, answer: &Answer) -> Result<(), Failure> {
        let policy = &self.question.question.policy;
        let reason = match answer.status {
            Status::Pass => return Ok(()),
            Status::Fail => public(answer, policy),
            Status::Unknown => answer.reason.clone(),
            Status::Warn => {
                "a stat of this cluster is not taken: wrong signature, content or place".to_owned()
            }
        };
        let failure = match (answer.status, answer.passed) {
            (_, true) => Failure::warning(reason),
            (Status::Unknown, false) => Failure::unknown(reason),
            (_, false) => Failure::failed(reason),
        };
        Err(failure.because(answer.explanation()))
    }
}

/// What does not hold, without what a worker says of itself.
fn public(answer: &Answer, policy: &super::cluster::Policy) -> String {
    let mut facts = answer.facts.clone().unwrap_or_default();
    for missing in &mut facts.missing {
        "does not count".clone_into(&mut missing.why);
    }
    policy.failures(&facts).join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::super::cluster::Share;
    use super::*;

    fn build(mut settings: Value) -> Result<DjangoQCheck, Vec<Mistake>> {
        settings["cluster"] = json!("shop");
        settings["secret_key"] = json!("T0psecret");
        let built = from_value::<DjangoQ>(settings).unwrap().build();
        assert!(!format!("{built:?}").contains("ecret"), "{built:?}");
        built
    }

    #[test]
    fn its_settings_are_the_policies_of_the_command() {
        let check = build(json!({
            "cache": "redis://:S3cret@h", "cache_prefix": "p", "cache_version": 7, "min_percent": 50, "expected": 4, "expect": ["web-3:7"],
            "for": "live", "host": "web-3", "unhealthy": ["Stopped"], "unknown": "pass",
        }));
        let question = check.unwrap().question;
        let Place::RedisCache(_, keys) = &question.place else { panic!("{question:?}") };
        assert_eq!(*keys, CacheKeys { prefix: "p".to_owned(), version: 7 });
        assert_eq!(question.unhealthy, Some(vec!["Stopped".to_owned()]));
        let asked = question.question;
        assert_eq!((asked.host.as_deref(), asked.unknown), (Some("web-3"), Some(Unknown::Pass)));
        assert_eq!(
            (asked.policy.want, asked.policy.share),
            (Want::Live, Some(Share { percent: 50, expected: 4 }))
        );
        let own = build(json!({ "redis": "redis://h", "host": "self" })).unwrap().question.question;
        assert_eq!(own.policy.want, Want::Ready);
        assert_ne!(own.host.as_deref(), Some("self"));
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_secret() {
        for (settings, keys) in [
            (json!({}), vec![None]),
            (json!({ "redis": "redis://h", "cache": "redis://h" }), vec![None]),
            (json!({ "redis": "http://S3cret" }), vec![Some("redis")]),
            (json!({ "redis": "redis+cluster://:S3cret@h" }), vec![Some("redis")]),
            (json!({ "redis": "redis://h", "cache_prefix": "p" }), vec![Some("redis")]),
            (json!({ "cache": "redis://h", "cache_table": "t" }), vec![Some("cache_table")]),
            (json!({ "cache": "postgres://:S3cret@h/shop" }), vec![Some("cache")]),
            (json!({ "cache": "postgres://h/shop", "cache_table": "\"" }), vec![Some("cache_table")]),
            (
                json!({ "cache": "S3cret", "unhealthy": ["Arrêté"], "expected": 4 }),
                vec![Some("expected"), Some("unhealthy"), Some("cache")],
            ),
        ] {
            let mistakes = build(settings).unwrap_err();
            assert_eq!(mistakes.iter().map(|mistake| mistake.key).collect::<Vec<_>>(), keys);
        }
    }

    #[tokio::test]
    async fn where_the_stats_cannot_be_read_nobody_can_tell() {
        for (unknown, status) in [("fail", Status::Unknown), ("pass", Status::Warn)] {
            let check = build(json!({ "redis": "redis://:S3cret@127.0.0.1:1", "unknown": unknown })).unwrap();
            let failure = check.run(Instant::now() + Duration::from_secs(5)).await.unwrap_err();
            assert_eq!((failure.status(), failure.reason()), (status, "Redis cannot be reached"));
            assert!(!format!("{failure:?}").contains("ecret"));
        }
    }
}
