//! Whether a Kafka cluster has its brokers and topics, and a consumer group keeps up with them. Nothing is written, and no
//! group is joined.
//!
//! What is asked, and how the answers are judged, stands here; how brokers are reached is `cluster`'s concern.

mod cluster;
mod line;
mod login;
pub(crate) mod message;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::cluster::{Cluster, Round};
use self::line::NO_BROKER;
use self::login::Login;
use self::message::{
    BEGINNING, END, Metadata, Partitions, Request, Topic, read_committed, read_coordinator, read_offsets,
};
use self::wire::Garbled;
use crate::check::{Check, Failure};
use crate::kind::{Contract, Mistake, Settings};
use crate::net::Address;
use crate::node::limit::{Findings, Levels};
use crate::settings::TlsFiles;
use crate::status::Status;
use crate::tls::Tls;

/// How long before the deadline a silent broker is given up, at most: then it can still be said who did not answer.
const MARGIN: Duration = Duration::from_millis(50);

/// How many brokers are asked at once.
const AT_ONCE: usize = 16;

/// The longest name of a topic, by Kafka's rule.
const LONGEST_TOPIC: usize = 249;

/// Whether a Kafka cluster answers with topics, and whatever else is set of it: brokers, leaders, replicas, a consumer group's
/// lag.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Brokers to begin with, as `HOST:PORT`, several in one text with commas between them too. They are tried in turn, and one that
    /// answers tells of all others.
    bootstrap_servers: Vec<String>,
    /// Encrypts all connections. `{}` trusts the system's authorities; `ca` names others, `cert` and `key` tell who this side is.
    tls: Option<TlsFiles>,
    /// Who logs in: `mechanism` (`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`), `user` and `password`.
    sasl: Option<Login>,
    /// How many brokers must be there. A number warns; `{ warn = 3, fail = 2 }` does both.
    #[serde(default = "none::<u32>")]
    min_brokers: Levels<u32>,
    /// Topics that must be there, each of their partitions with a leader. Without any it is enough that there are topics.
    #[serde(default)]
    topics: Vec<String>,
    /// How many replicas of each partition of the `topics` must be in sync, the leader among them. Below `min.insync.replicas`
    /// nobody can write who waits for all.
    #[serde(default = "none::<u32>")]
    min_in_sync: Levels<u32>,
    /// A consumer group, which must have committed how far it has read the `topics`.
    group: Option<String>,
    /// From how many messages on the `group` is too far behind, in all partitions of the `topics` together. A number warns;
    /// `{ warn = 1000, fail = 10000 }` does both.
    #[serde(default = "none::<u64>")]
    max_lag: Levels<u64>,
    /// What a partition counts for that the `group` has committed nothing of: for all that is in it, or for nothing, as suits
    /// consumers that begin at the end (`auto.offset.reset = latest`).
    #[serde(default)]
    uncommitted: Uncommitted,
}

fn none<T>() -> Levels<T> {
    Levels::NONE
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Uncommitted {
    /// It is all to be read yet.
    #[default]
    Count,
    /// It is not looked at.
    Ignore,
}

impl Settings for Kafka {
    const KIND: &'static str = "kafka";
    const EXAMPLE: &'static str = "bootstrap_servers = [\"kafka-1.internal:9092\", \"kafka-2.internal:9092\"]\n\
         min_brokers = { warn = 3, fail = 2 }\ntopics = [\"orders\"]\n\
         group = \"billing\"\nmax_lag = { warn = 1000, fail = 10000 }";
    const CONTRACT: Contract = Contract::Peer(
        "bootstrap_servers = [\"{peer}\"]\ntopics = [\"orders\"]\n\
         sasl = { mechanism = \"PLAIN\", user = \"me\", password = \"S3cret\" }",
    );
    const MORE_CONTRACTS: &'static [&'static str] = &[
        "bootstrap_servers = [\"{peer}\"]",
        "bootstrap_servers = [\"{peer}\"]\ntls = {}\n\
         sasl = { mechanism = \"SCRAM-SHA-256\", user = \"me\", password = \"S3cret\" }",
    ];
    type Check = KafkaCheck;

    fn build(self) -> Result<KafkaCheck, Vec<Mistake>> {
        let mut mistakes = self.tls.as_ref().map(Tls::mistakes).unwrap_or_default();
        let servers: Option<Vec<_>> = self
            .bootstrap_servers
            .iter()
            .flat_map(|text| text.split(','))
            .map(|text| Address::parse(text.trim()))
            .collect();
        match &servers {
            None => mistakes.push(Mistake::of("bootstrap_servers", Address::MISTAKE)),
            Some(servers) if servers.is_empty() => {
                mistakes.push(Mistake::of("bootstrap_servers", "there is no server in it"));
            }
            Some(_) => {}
        }
        let login = self.sasl.as_ref().and_then(Login::mistake);
        mistakes.extend(login.map(|what| Mistake::of("sasl", what)));
        mistakes.extend(self.mistakes());
        match servers {
            Some(servers) if mistakes.is_empty() => Ok(KafkaCheck {
                cluster: Cluster::new(servers, self.tls.clone().map(Tls::new), self.sasl.clone()),
                settings: self,
            }),
            _ => Err(mistakes),
        }
    }
}

impl Kafka {
    /// What is wrong with what is asked.
    fn mistakes(&self) -> Vec<Mistake> {
        let least = "one is the least that can be told";
        let mut mistakes = self.min_brokers.mistakes("min_brokers", false, (1, u32::MAX), least);
        mistakes.extend(self.min_in_sync.mistakes("min_in_sync", false, (1, u32::MAX), least));
        mistakes.extend(self.max_lag.mistakes("max_lag", true, (1, u64::MAX), least));
        if !self.topics.iter().all(|topic| is_topic(topic)) {
            let what = "a topic's name has 1 to 249 letters, digits, dots, underscores and hyphens";
            mistakes.push(Mistake::of("topics", what));
        }
        if self.group.as_ref().is_some_and(|group| group.is_empty() || group.len() > 255) {
            mistakes.push(Mistake::of("group", "a group's name has 1 to 255 bytes"));
        }
        for (key, is_set, needs, is_there) in [
            ("min_in_sync", !self.min_in_sync.is_none(), "it needs `topics`", !self.topics.is_empty()),
            ("group", self.group.is_some(), "it needs `topics`", !self.topics.is_empty()),
            ("max_lag", !self.max_lag.is_none(), "it needs a `group`", self.group.is_some()),
        ] {
            if is_set && !is_there {
                mistakes.push(Mistake::of(key, needs));
            }
        }
        mistakes
    }
}

fn is_topic(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_TOPIC).contains(&name.len()) && name.bytes().all(legal)
}

/// Asks a cluster, over connections that are kept.
#[derive(Debug)]
pub struct KafkaCheck {
    cluster: Cluster,
    settings: Kafka,
}

#[async_trait::async_trait]
impl Check for KafkaCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let round = self.cluster.round(deadline.checked_sub(MARGIN.min(left / 10)).unwrap_or(deadline));
        let findings = self.ask(&round).await?;
        round.end();
        findings.answer()
    }
}

impl KafkaCheck {
    async fn ask(&self, round: &Round<'_>) -> Result<Findings, Failure> {
        let mut findings = Findings::default();
        let answer = round.ask_any(&Request::metadata(&self.settings.topics)).await?;
        let metadata = Metadata::read(&answer, &self.settings.topics).map_err(garbled)?;
        self.judge(&metadata, &mut findings);
        if let Some(group) = &self.settings.group {
            match (Lag { round, group, metadata: &metadata }).measure().await {
                Ok(behind) => self.judge_lag(group, behind, &mut findings),
                // What is wrong with the cluster explains it.
                Err(failure) => return Err(worse(findings, failure)),
            }
        }
        Ok(findings)
    }

    fn judge(&self, metadata: &Metadata, findings: &mut Findings) {
        let brokers = u32::try_from(metadata.brokers.len()).unwrap_or(u32::MAX);
        findings.add(self.settings.min_brokers.below(brokers), |level| {
            format!("{brokers} brokers are there (at least {level} are wanted)")
        });
        if self.settings.topics.is_empty() && metadata.known == 0 {
            fail(findings, "the brokers know of no topic, or of none for this user".to_owned());
        }
        for name in &self.settings.topics {
            match metadata.topics.get(name) {
                Some(topic) if topic.error == 0 => self.judge_topic(name, topic, findings),
                told => {
                    let error = told.map_or(3, |topic| topic.error);
                    fail(findings, format!("topic {name} {}", words(error)));
                }
            }
        }
    }

    fn judge_topic(&self, name: &str, topic: &Topic, findings: &mut Findings) {
        let all = topic.partitions.len();
        let leaderless = topic.partitions.values().filter(|partition| partition.leader.is_none()).count();
        if leaderless > 0 {
            fail(findings, format!("topic {name}: {leaderless} of {all} partitions have no leader"));
        }
        let Some(least) = topic.partitions.values().map(|partition| partition.in_sync).min() else { return };
        findings.add(self.settings.min_in_sync.below(least), |level| {
            let few = topic.partitions.values().filter(|partition| partition.in_sync < level).count();
            format!("topic {name}: {few} of {all} partitions have too few replicas in sync, {least} at worst (at least {level} are wanted)")
        });
    }

    fn judge_lag(&self, group: &str, behind: Behind, findings: &mut Findings) {
        if !behind.has_committed && behind.uncommitted > 0 {
            fail(findings, format!("the group {group} has committed nothing"));
            return;
        }
        let lag = match self.settings.uncommitted {
            Uncommitted::Count => behind.committed.saturating_add(behind.uncommitted),
            Uncommitted::Ignore => behind.committed,
        };
        findings.add(self.settings.max_lag.above(lag), |level| {
            format!("the group {group} is {lag} messages behind (limit {level})")
        });
    }
}

/// How far a group is behind, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Behind {
    has_committed: bool,
    /// In the partitions that it has committed something of.
    committed: u64,
    /// In the others.
    uncommitted: u64,
}

/// What it takes to measure a group's lag.
struct Lag<'a> {
    round: &'a Round<'a>,
    group: &'a str,
    metadata: &'a Metadata,
}

/// Partitions by the broker that leads them.
type Led<'a> = BTreeMap<i32, Partitions<'a>>;

type Offsets<'a> = HashMap<(&'a str, i32), i64>;

impl<'a> Lag<'a> {
    async fn measure(&self) -> Result<Behind, Failure> {
        let committed = self.committed().await?;
        let ends = self.offsets(END, self.led(|_| true)).await?;
        let begins = self.offsets(BEGINNING, self.led(|place| !committed.contains_key(place))).await?;
        Ok(behind(&ends, &committed, &begins))
    }

    /// The partitions that have a leader, of those that are `wanted`.
    fn led(&self, wanted: impl Fn(&(&str, i32)) -> bool) -> Led<'a> {
        let mut led = Led::new();
        for (topic, index, partition) in self.metadata.partitions() {
            if let Some(leader) = partition.leader.filter(|_| wanted(&(topic, index))) {
                led.entry(leader).or_default().entry(topic).or_default().push(index);
            }
        }
        led
    }

    /// What the group has committed, where it has.
    async fn committed(&self) -> Result<Offsets<'a>, Failure> {
        let refused = |code| {
            let reason = format!("the group {} {}", self.group, words(code));
            Failure::failed(reason).because(format!("error {code}"))
        };
        let answer = self.round.ask_any(&Request::coordinator(self.group)).await?;
        let (id, address) = read_coordinator(&answer).map_err(garbled)?.map_err(refused)?;
        let mut asked = Partitions::new();
        for (topic, index, _) in self.metadata.partitions() {
            asked.entry(topic).or_default().push(index);
        }
        let answer = self.round.ask((id, &address), &Request::committed(self.group, &asked)).await?;
        let told = read_committed(&answer, &asked).map_err(garbled)?.map_err(refused)?;
        let mut offsets = known(told)?;
        offsets.retain(|_, offset| *offset >= 0);
        Ok(offsets)
    }

    /// Where the logs of partitions end, or begin: each leader tells of its own.
    async fn offsets(&self, at: i64, led: Led<'a>) -> Result<Offsets<'a>, Failure> {
        let leaders: Vec<_> = led.into_iter().collect();
        let mut all = Offsets::new();
        for some in leaders.chunks(AT_ONCE) {
            let asked: Vec<_> =
                some.iter().map(|(leader, partitions)| self.offsets_of(*leader, at, partitions)).collect();
            all.extend(try_join_all(asked).await?.into_iter().flatten());
        }
        Ok(all)
    }

    async fn offsets_of(
        &self,
        leader: i32,
        at: i64,
        partitions: &Partitions<'a>,
    ) -> Result<Offsets<'a>, Failure> {
        let unknown =
            || Failure::failed(NO_BROKER).because(format!("it does not tell where broker {leader} is"));
        let address = self.metadata.brokers.get(&leader).ok_or_else(unknown)?;
        let answer = self.round.ask((leader, address), &Request::offsets(at, partitions)).await?;
        known(read_offsets(&answer, partitions).map_err(garbled)?)
    }
}

/// All of them, or the first that has none.
fn known(offsets: message::Offsets<'_>) -> Result<Offsets<'_>, Failure> {
    let each = offsets.into_iter().map(|((topic, index), offset)| {
        let refused = |code| {
            let reason = format!("partition {index} of topic {topic} {}", words(code));
            Failure::failed(reason).because(format!("error {code}"))
        };
        Ok(((topic, index), offset.map_err(refused)?))
    });
    each.collect()
}

fn behind(ends: &Offsets<'_>, committed: &Offsets<'_>, begins: &Offsets<'_>) -> Behind {
    let mut behind = Behind { has_committed: !committed.is_empty(), ..Behind::default() };
    for (place, end) in ends {
        let read = committed.get(place).or_else(|| begins.get(place)).copied().unwrap_or(0);
        // A log that lost its end is shorter than what was read of it.
        let left = u64::try_from(end.saturating_sub(read)).unwrap_or(0);
        let sum = if committed.contains_key(place) { &mut behind.committed } else { &mut behind.uncommitted };
        *sum = sum.saturating_add(left);
    }
    behind
}

/// A failure that was found already, or else this one.
fn worse(findings: Findings, failure: Failure) -> Failure {
    findings.answer().err().filter(|found| found.status() == Status::Fail).unwrap_or(failure)
}

fn fail(findings: &mut Findings, reason: String) {
    findings.add(Some((Status::Fail, ())), |()| reason);
}

/// What an error's number says of a topic, a partition or a group.
fn words(code: i16) -> &'static str {
    match code {
        3 | 17 => "is not there",
        5 => "has no leader",
        6 | 16 => "has just moved to another broker",
        14 => "is still being loaded by its broker",
        15 => "has no coordinator",
        29 | 30 => "is not for this user",
        _ => "cannot be asked about",
    }
}

fn garbled(_: Garbled) -> Failure {
    Failure::failed(NO_BROKER).because("an answer that is none")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::message::Partition;
    use super::*;

    fn build(settings: Value) -> Result<KafkaCheck, Vec<Mistake>> {
        from_value::<Kafka>(settings).unwrap().build()
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_secret() {
        let sasl =
            |user: &str, password: &str| json!({ "mechanism": "PLAIN", "user": user, "password": password });
        for (settings, keys) in [
            (json!({ "bootstrap_servers": [] }), vec!["bootstrap_servers"]),
            (json!({ "bootstrap_servers": ["a:1,b"] }), vec!["bootstrap_servers"]),
            (
                json!({ "bootstrap_servers": ["a:1,"], "sasl": sasl("", "S3cret") }),
                vec!["bootstrap_servers", "sasl"],
            ),
            (json!({ "bootstrap_servers": ["a:1"], "sasl": sasl("a", "S3cret\0") }), vec!["sasl"]),
            (json!({ "bootstrap_servers": ["a:1"], "tls": { "key": "/a" } }), vec!["tls"]),
            (json!({ "bootstrap_servers": ["a:1"], "max_lag": 1 }), vec!["max_lag"]),
            (
                json!({ "bootstrap_servers": ["a:1"], "group": "a", "min_in_sync": 1 }),
                vec!["min_in_sync", "group"],
            ),
            (
                json!({
                    "bootstrap_servers": ["a:1"], "topics": ["a b"], "group": "", "max_lag": { "warn": 2, "fail": 1 },
                    "min_brokers": 0, "min_in_sync": { "warn": 1, "fail": 2 },
                }),
                vec!["min_brokers", "min_in_sync", "max_lag", "topics", "group"],
            ),
        ] {
            let mistakes = build(settings).unwrap_err();
            assert_eq!(mistakes.iter().filter_map(|mistake| mistake.key).collect::<Vec<_>>(), keys);
            assert!(!format!("{mistakes:?}").contains("S3cret"));
        }
    }

    #[test]
    fn servers_stand_one_by_one_or_with_commas_and_a_password_nowhere() {
        let sasl = json!({ "mechanism": "SCRAM-SHA-512", "user": "me", "password": "S3cret" });
        let servers = json!(["a:1, b:2", "[::1]:3"]);
        let check = build(json!({ "bootstrap_servers": servers, "sasl": sasl, "tls": {} })).unwrap();
        let shown = format!("{check:?}");
        for host in [r#"host: "a""#, r#"host: "b""#, r#"host: "::1""#] {
            assert!(shown.contains(host), "{shown}");
        }
        assert!(!shown.contains("S3cret"));
    }

    #[test]
    fn a_topic_is_as_well_as_the_worst_of_its_partitions() {
        let settings =
            json!({ "bootstrap_servers": ["a:1"], "topics": ["t"], "min_in_sync": { "warn": 3, "fail": 2 } });
        let check = build(settings).unwrap();
        let judged = |in_sync: &[u32]| {
            let partitions = in_sync.iter().map(|in_sync| Partition { leader: Some(1), in_sync: *in_sync });
            let topic = Topic { error: 0, partitions: (0..).zip(partitions).collect() };
            let mut findings = Findings::default();
            check.judge_topic("t", &topic, &mut findings);
            findings.answer().map_err(|failure| (failure.status(), failure.reason().to_owned()))
        };
        assert_eq!(judged(&[3, 4]), Ok(()));
        let reason =
            "topic t: 1 of 2 partitions have too few replicas in sync, 2 at worst (at least 3 are wanted)";
        assert_eq!(judged(&[3, 2]), Err((Status::Warn, reason.to_owned())));
        let reason =
            "topic t: 2 of 4 partitions have too few replicas in sync, 0 at worst (at least 2 are wanted)";
        assert_eq!(judged(&[3, 2, 1, 0]), Err((Status::Fail, reason.to_owned())));
    }

    #[test]
    fn a_lag_counts_what_is_left_and_nothing_below_zero() {
        let ends = Offsets::from([(("t", 0), 10), (("t", 1), 20), (("t", 2), 5), (("t", 3), i64::MAX)]);
        let committed = Offsets::from([(("t", 0), 4), (("t", 2), 8)]);
        let begins = Offsets::from([(("t", 1), 15), (("t", 3), i64::MIN)]);
        let told = behind(&ends, &committed, &begins);
        let uncommitted = 5 + u64::try_from(i64::MAX).unwrap();
        assert_eq!(told, Behind { has_committed: true, committed: 6, uncommitted });
        assert_eq!(behind(&Offsets::new(), &Offsets::new(), &Offsets::new()), Behind::default());
    }
}
