//! Whether a Redis answers, and is as it should be: its role, its replicas, its memory, keys that must be there, and how long
//! lists have become. Nothing is written.

mod info;
mod slot;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use heartbeat::fleet::{Error, Url};
use redis::{Cmd, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use self::info::Info;
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::node::limit::{Findings, Levels};
use crate::redis::{Answers, GARBLED, command, reason, text};
use crate::settings::{Secret, Span};
use crate::status::Status;

/// Whether a Redis or Valkey answers, and whatever else is set of it. All that is set must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://[[USER]:PASSWORD@]HOST[:6379][/DB]`, or with `rediss://`, `unix://`, `redis+sentinel://` and `redis+cluster://`. With TLS,
    /// `?ca=FILE` names the authorities to trust instead of the system's.
    url: Secret,
    /// What the server must be. A replica must have its connection to its primary, too.
    role: Option<Role>,
    /// For how long a replica may have heard nothing from its primary, or a primary from a replica that `min_replicas` counts, in
    /// whole seconds. By default a primary says something every 10 s.
    max_lag: Option<Span>,
    /// How many replicas must follow this server, and no further behind than `max_lag` allows.
    min_replicas: Option<u64>,
    /// How much of `maxmemory` may be in use, in percent. A number warns; `{ warn = 80, fail = 95 }` does both. A server
    /// without `maxmemory` is `unknown`.
    #[serde(default = "no_level")]
    max_memory: Levels<f64>,
    /// Keys that must be there, such as the lock that a scheduler renews.
    #[serde(default)]
    exists: Vec<String>,
    /// Keys, each with the most that may be in it: in a list, stream, set, sorted set or hash. One that is not there is empty.
    #[serde(default)]
    max_length: BTreeMap<String, u64>,
}

/// What a server is to its fellows.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica,
}

fn no_level() -> Levels<f64> {
    Levels::NONE
}

impl Settings for Redis {
    const KIND: &'static str = "redis";
    const EXAMPLE: &'static str = "url = \"${REDIS_URL}\"\nrole = \"primary\"\nmax_memory = { warn = 80, fail = 95 }\n\
        exists = [\"crontask-lock\"]\nmax_length = { celery = 10000 }";
    const CONTRACT: Contract = Contract::Peer("url = \"redis://:S3cret@{peer}\"\nexists = [\"a\"]");
    const MORE_CONTRACTS: &'static [&'static str] = &["url = \"rediss://:S3cret@{peer}\""];
    type Check = RedisCheck;

    fn build(self) -> Result<RedisCheck, Vec<Mistake>> {
        let mut mistakes = self.max_memory.percent_mistakes("max_memory", true);
        let url = self.url.expose().parse::<Url>();
        match &url {
            Err(invalid) => mistakes.push(Mistake::of("url", format!("the URL cannot be used: {invalid}"))),
            Ok(url) if url.is_cluster() => mistakes.extend(self.not_of_a_cluster()),
            Ok(_) => {}
        }
        if self.max_lag.is_some() && self.role != Some(Role::Replica) && self.min_replicas.is_none() {
            mistakes.push(Mistake::of("max_lag", "it needs role = \"replica\", or min_replicas"));
        }
        for (key, empty) in [
            ("exists", self.exists.iter().any(String::is_empty)),
            ("max_length", self.max_length.contains_key("")),
        ] {
            if empty {
                mistakes.push(Mistake::of(key, "a key's name is empty"));
            }
        }
        match url {
            Ok(url) if mistakes.is_empty() => {
                let questions = self.questions(url.is_cluster());
                Ok(RedisCheck { redis: crate::redis::Redis::new(url), questions, settings: self })
            }
            _ => Err(mistakes),
        }
    }
}

impl Redis {
    /// What cannot be asked of many nodes at once.
    fn not_of_a_cluster(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for (key, set) in [
            ("role", self.role.is_some()),
            ("min_replicas", self.min_replicas.is_some()),
            ("max_memory", !self.max_memory.is_none()),
        ] {
            if set {
                mistakes.push(Mistake::of(key, "it is of one node: give that node's own URL"));
            }
        }
        let mut slots: Vec<_> =
            self.exists.iter().chain(self.max_length.keys()).map(|key| slot::of(key)).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() > 1 {
            mistakes.push(Mistake::together(
                "the keys lie on several nodes of a cluster: make it several checks",
            ));
        }
        mistakes
    }

    fn questions(&self, cluster: bool) -> Vec<Question> {
        let mut questions = vec![Question::Ping];
        if cluster {
            questions.push(Question::Whole);
        }
        if self.role.is_some() || self.min_replicas.is_some() {
            questions.push(Question::Replication);
        }
        if !self.max_memory.is_none() {
            questions.push(Question::Memory);
        }
        questions.extend(self.exists.iter().cloned().map(Question::Exists));
        questions.extend(self.max_length.keys().cloned().map(Question::Type));
        questions
    }
}

/// One thing that is asked.
#[derive(Clone, Debug)]
enum Question {
    Ping,
    Whole,
    Replication,
    Memory,
    Exists(String),
    Type(String),
    /// By this command.
    Length(&'static str, String),
}

impl Question {
    fn command(&self) -> Cmd {
        match self {
            Self::Ping => command("PING", &[]),
            Self::Whole => command("CLUSTER", &["INFO"]),
            Self::Replication => command("INFO", &["replication"]),
            Self::Memory => command("INFO", &["memory"]),
            Self::Exists(key) => command("EXISTS", &[key]),
            Self::Type(key) => command("TYPE", &[key]),
            Self::Length(name, key) => command(name, &[key]),
        }
    }
}

/// As it would be asked by hand.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping => f.write_str("PING"),
            Self::Whole => f.write_str("CLUSTER INFO"),
            Self::Replication | Self::Memory => f.write_str("INFO"),
            Self::Exists(key) => write!(f, "EXISTS {key}"),
            Self::Type(key) => write!(f, "TYPE {key}"),
            Self::Length(name, key) => write!(f, "{name} {key}"),
        }
    }
}

/// Asks a Redis, over a connection that is kept.
#[derive(Debug)]
pub struct RedisCheck {
    redis: crate::redis::Redis,
    questions: Vec<Question>,
    settings: Redis,
}

#[async_trait::async_trait]
impl Check for RedisCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let mut findings = Findings::default();
        let answers = self.ask(&self.questions, deadline).await?;
        let lengths = self.judge(&self.questions, answers, &mut findings)?;
        // Which command counts a key's elements is known once its type is. Those of other types would do no harm, but a
        // server counts its refusals, and somebody watches them.
        if !lengths.is_empty() {
            let answers = self.ask(&lengths, deadline).await?;
            self.judge(&lengths, answers, &mut findings)?;
        }
        findings.answer()
    }
}

impl RedisCheck {
    async fn ask(&self, questions: &[Question], deadline: Instant) -> Result<Answers, Failure> {
        self.redis.ask(questions.iter().map(Question::command).collect(), deadline).await
    }

    /// What the answers amount to, and what they give to ask.
    fn judge(
        &self,
        questions: &[Question],
        answers: Answers,
        findings: &mut Findings,
    ) -> Result<Vec<Question>, Failure> {
        let mut more = Vec::new();
        for (question, answer) in questions.iter().zip(answers) {
            let value = answer.map_err(|error| refused(question, error))?;
            let proper = self.judge_one(question, &value, findings, &mut more)?;
            proper.ok_or_else(|| Failure::failed(GARBLED).because(format!("to {question}")))?;
        }
        Ok(more)
    }

    /// `None` for what is no answer to that.
    fn judge_one(
        &self,
        question: &Question,
        value: &Value,
        findings: &mut Findings,
        more: &mut Vec<Question>,
    ) -> Result<Option<()>, Failure> {
        let mut fail = |says: String| findings.add(Some((Status::Fail, ())), |()| says);
        Ok(match question {
            Question::Ping => (text(value) == Some("PONG")).then_some(()),
            Question::Whole => Info::read(value).and_then(|info| {
                if info.get("cluster_state")? != "ok" {
                    fail("the Redis Cluster is not whole".to_owned());
                }
                Some(())
            }),
            Question::Replication => Info::read(value).and_then(|info| self.replication(&info, &mut fail)),
            Question::Memory => {
                let Some(info) = Info::read(value) else { return Ok(None) };
                return self.memory(&info, findings);
            }
            Question::Exists(key) => number(value).map(|found| {
                if found == 0 {
                    fail(format!("the key {key} is not there"));
                }
            }),
            Question::Type(key) => text(value).and_then(|kind| {
                match counted_by(kind)? {
                    Counted::By(name) => more.push(Question::Length(name, key.clone())),
                    Counted::Empty => {}
                    Counted::Not => fail(format!("the key {key} holds nothing that could be counted")),
                }
                Some(())
            }),
            Question::Length(_, key) => number(value).map(|length| {
                let limit = self.settings.max_length.get(key).copied().unwrap_or(u64::MAX);
                if length > limit {
                    fail(format!("the key {key} holds {length} elements (limit {limit})"));
                }
            }),
        })
    }

    fn replication(&self, info: &Info<'_>, fail: &mut impl FnMut(String)) -> Option<()> {
        let max_lag = self.settings.max_lag.map(|span| span.0.as_secs());
        let role = match info.get("role")? {
            "master" => Role::Primary,
            "slave" | "replica" => Role::Replica,
            _ => return None,
        };
        match (self.settings.role, role) {
            (Some(Role::Primary), Role::Replica) => {
                fail("this Redis is a replica, and no primary".to_owned());
            }
            (Some(Role::Replica), Role::Primary) => {
                fail("this Redis is a primary, and no replica".to_owned());
            }
            (Some(Role::Replica), Role::Replica) => link(info, max_lag, fail)?,
            _ => {}
        }
        if let Some(min) = self.settings.min_replicas {
            let near = |lag: u64| max_lag.is_none_or(|max| lag <= max);
            let following = info.replicas().filter(|lag| near(*lag)).count() as u64;
            if following < min {
                fail(format!("too few replicas follow this Redis: {following} (at least {min} are wanted)"));
            }
        }
        Some(())
    }

    fn memory(&self, info: &Info<'_>, findings: &mut Findings) -> Result<Option<()>, Failure> {
        let (Some(used), Some(most)) = (info.number("used_memory"), info.number("maxmemory")) else {
            return Ok(None);
        };
        if most == 0 {
            return Err(Failure::unknown("Redis has no maxmemory that a share could be of"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a share in percent")]
        let share = used as f64 * 100.0 / most as f64;
        findings.add(self.settings.max_memory.above(share), |level| {
            format!("{share:.1} % of Redis' maxmemory is in use (limit {level} %)")
        });
        Ok(Some(()))
    }
}

/// Whether a replica hears from its primary.
fn link(info: &Info<'_>, max_lag: Option<u64>, fail: &mut impl FnMut(String)) -> Option<()> {
    if info.get("master_link_status")? != "up" {
        let filled = info.get("master_sync_in_progress") == Some("1");
        fail(if filled {
            "the replica is still being filled by its primary".to_owned()
        } else {
            "the replica has no connection to its primary".to_owned()
        });
        return Some(());
    }
    let silent = info.number("master_last_io_seconds_ago")?;
    if let Some(max) = max_lag.filter(|max| silent > *max) {
        fail(format!("the replica has heard nothing from its primary for {silent} s (limit {max} s)"));
    }
    Some(())
}

/// How what a key holds is counted.
enum Counted {
    By(&'static str),
    Empty,
    Not,
}

/// By the type's name; `None` for what is no name of a type.
fn counted_by(kind: &str) -> Option<Counted> {
    Some(match kind {
        "list" => Counted::By("LLEN"),
        "stream" => Counted::By("XLEN"),
        "zset" => Counted::By("ZCARD"),
        "set" => Counted::By("SCARD"),
        "hash" => Counted::By("HLEN"),
        "none" => Counted::Empty,
        _ if kind.bytes().all(|byte| byte.is_ascii_graphic()) => Counted::Not,
        _ => return None,
    })
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// What is said where it is one question that is refused, and not everything.
fn refused(question: &Question, error: Error) -> Failure {
    Failure::failed(format!("{}: {question}", reason(&error))).because(error)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn build(settings: Value) -> Result<RedisCheck, Vec<Mistake>> {
        from_value::<Redis>(settings).unwrap().build()
    }

    #[test]
    fn what_is_not_set_is_not_asked() {
        let asked = |settings| {
            let check = build(settings).unwrap();
            check.questions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(asked(json!({ "url": "redis://h" })), "PING");
        assert_eq!(asked(json!({ "url": "redis+cluster://a,b" })), "PING, CLUSTER INFO");
        assert_eq!(
            asked(json!({
                "url": "unix:///run/redis", "role": "primary", "max_memory": 90, "exists": ["a", "b"], "max_length": { "c": 1 },
            })),
            "PING, INFO, INFO, EXISTS a, EXISTS b, TYPE c"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_part_of_the_url() {
        let wrong = json!({
            "url": "http://S3cret", "max_lag": "5s", "exists": [""], "max_length": { "": 1 }, "max_memory": 101,
        });
        let mistakes = build(wrong).unwrap_err();
        let keys: Vec<_> = mistakes.iter().filter_map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["max_memory", "url", "max_lag", "exists", "max_length"]);
        assert!(!format!("{mistakes:?}").contains("S3cret"));
    }

    #[test]
    fn of_a_cluster_is_asked_what_one_of_its_nodes_can_answer() {
        let cluster = "redis+cluster://h";
        for (settings, key) in [
            (json!({ "url": cluster, "role": "primary" }), Some("role")),
            (json!({ "url": cluster, "min_replicas": 1 }), Some("min_replicas")),
            (json!({ "url": cluster, "max_memory": 90 }), Some("max_memory")),
            (json!({ "url": cluster, "exists": ["a"], "max_length": { "b": 1 } }), None),
        ] {
            assert_eq!(build(settings).unwrap_err()[0].key, key);
        }
        build(json!({ "url": cluster, "exists": ["{x}a"], "max_length": { "{x}b": 1 } })).unwrap();
    }

    fn told(settings: Value, question: &Question, answer: &str) -> Result<(), String> {
        let check = build(settings).unwrap();
        let mut findings = Findings::default();
        let answer = vec![Ok(redis::Value::BulkString(answer.as_bytes().to_vec()))];
        let judged = check.judge(std::slice::from_ref(question), answer, &mut findings);
        judged.and_then(|_| findings.answer()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_replica_is_judged_by_its_link_and_by_how_long_it_has_heard_nothing() {
        let replica = |rest: &str| {
            let settings = json!({ "url": "redis://h", "role": "replica", "max_lag": "15s" });
            told(settings, &Question::Replication, &format!("# Replication\r\nrole:slave\r\n{rest}"))
        };
        assert_eq!(replica("master_link_status:up\r\nmaster_last_io_seconds_ago:15\r\n"), Ok(()));
        for (rest, says) in [
            (
                "master_link_status:up\r\nmaster_last_io_seconds_ago:16\r\n",
                "the replica has heard nothing from its primary for 16 s (limit 15 s)",
            ),
            (
                "master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_sync_in_progress:0\r\n",
                "the replica has no connection to its primary",
            ),
            (
                "master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_sync_in_progress:1\r\n",
                "the replica is still being filled by its primary",
            ),
            ("master_link_status:up\r\n", GARBLED),
            ("", GARBLED),
        ] {
            assert_eq!(replica(rest), Err(says.to_owned()), "{rest}");
        }
    }

    #[test]
    fn replicas_count_that_are_online_and_near_enough() {
        let primary = |min: u64, lag: &str| {
            let settings = json!({ "url": "redis://h", "min_replicas": min, "max_lag": lag });
            let info = "role:master\r\nconnected_slaves:3\r\nslave0:ip=a,port=1,state=online,offset=5,lag=0\r\n\
                        slave1:ip=b,port=1,state=online,offset=5,lag=7\r\nslave2:ip=c,port=1,state=wait_bgsave,offset=0,lag=0\r\n";
            told(settings, &Question::Replication, info)
        };
        assert_eq!((primary(1, "1s"), primary(2, "7s")), (Ok(()), Ok(())));
        for (min, lag, following) in [(2, "6s", 1), (3, "1m", 2)] {
            let says = format!("too few replicas follow this Redis: {following} (at least {min} are wanted)");
            assert_eq!(primary(min, lag), Err(says));
        }
    }
}
