//! Whether a cache keeps what it is given: a value of its own is set, read back, looked at for its expiry, deleted, and looked
//! for once more, all in one round trip.
//!
//! Key and value are new each time, so no value of another run or of another asker can pass for this one. The value expires from the
//! moment at which it is there, so nothing is left behind, whoever is killed in between.

#[cfg(feature = "_sql")]
mod django;
#[cfg(feature = "memcached")]
mod memcached;
#[cfg(feature = "redis")]
mod redis;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

#[cfg(feature = "_sql")]
use self::django::Django;
#[cfg(feature = "memcached")]
use self::memcached::Memcached;
use crate::check::{Check, Failure};
#[cfg(not(feature = "_sql"))]
use crate::database::Engine;
#[cfg(feature = "_sql")]
use crate::django::CacheKeys;
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::{Secret, Span};

/// What the URL of a memcached begins with.
const MEMCACHED: &str = "memcached://, memcacheds://, memcached+unix://";

/// The longest prefix: memcached's keys have 250 bytes at most.
const LONGEST_PREFIX: usize = 200;

/// Whether a cache keeps a value: set, read back and compared, expiring, deleted.
///
/// In a table all of that is one transaction, which leaves nothing behind; `expires` is in UTC, as with Django's `USE_TZ = True`.
/// The role needs to read, insert and delete there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The cache's URL.
    #[cfg_attr(
        feature = "memcached",
        doc = " memcached: `memcached://HOST[:11211]` or `memcached+unix:///PATH`."
    )]
    #[cfg_attr(all(feature = "memcached", feature = "tls"), doc = " Over TLS: `memcacheds://HOST[:11211]`.")]
    #[cfg_attr(
        feature = "redis",
        doc = " Redis and Valkey: `redis://[[USER]:PASSWORD@]HOST[:6379][/DB]`, `unix://`, `redis+sentinel://` or `redis+cluster://`; with `rediss` over TLS."
    )]
    #[cfg_attr(feature = "_sql", doc = " With `table`: a database's, as the kind `database` takes it.")]
    #[cfg_attr(
        any(feature = "redis", all(feature = "memcached", feature = "tls")),
        doc = " With `memcacheds` and `rediss`, `?ca=FILE` names the authorities to trust instead of the system's, and `cert=FILE&key=FILE` who this side is."
    )]
    url: Secret,
    /// The table of a Django cache in a database: its `LOCATION`.
    table: Option<String>,
    /// With `table`: the cache's `KEY_PREFIX`. Default: none.
    key_prefix: Option<String>,
    /// With `table`: the cache's `VERSION`. Default: 1.
    version: Option<u64>,
    /// What the key begins with; 32 hexadecimal digits follow, new each time.
    #[serde(default = "prefix")]
    prefix: String,
    /// When the value is gone by itself, should nobody delete it: from 1 s to 1 h.
    #[serde(default = "expire")]
    expire: Span,
}

fn prefix() -> String {
    "checker:".to_owned()
}

fn expire() -> Span {
    Span(Duration::from_mins(1))
}

impl Settings for Cache {
    const KIND: &'static str = "cache";
    const EXAMPLE: &'static str = if cfg!(feature = "memcached") {
        r#"url = "memcached://127.0.0.1:11211""#
    } else if cfg!(feature = "redis") {
        r#"url = "redis://127.0.0.1:6379""#
    } else {
        "url = \"${DATABASE_URL}\"\ntable = \"django_cache\""
    };
    const CONTRACT: Contract = if cfg!(feature = "redis") {
        Contract::Peer(r#"url = "redis://:S3cret@{peer}""#)
    } else if cfg!(feature = "memcached") {
        Contract::Peer(r#"url = "memcached://{peer}""#)
    } else {
        Contract::Local
    };
    const MORE_CONTRACTS: &'static [&'static str] = &[
        #[cfg(feature = "redis")]
        r#"url = "rediss://:S3cret@{peer}""#,
        #[cfg(all(feature = "memcached", feature = "redis"))]
        r#"url = "memcached://{peer}""#,
        #[cfg(all(feature = "memcached", feature = "tls"))]
        r#"url = "memcacheds://{peer}""#,
        #[cfg(feature = "mysql")]
        "url = \"mysql://me:S3cret@{peer}/shop?ssl-mode=disabled\"\ntable = \"django_cache\"",
    ];
    type Check = CacheCheck;

    fn build(self) -> Result<CacheCheck, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let store = self.store().map_err(|wrong| mistakes.extend(wrong));
        if self.prefix.len() > LONGEST_PREFIX || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            mistakes.push(Mistake::of(
                "prefix",
                "it has 200 characters at most, none of them a space, all of them ASCII",
            ));
        }
        if self.expire.0 < Duration::from_secs(1) || self.expire.0 > Duration::from_hours(1) {
            mistakes.push(Mistake::of("expire", "it is from 1s to 1h"));
        }
        match store {
            Ok(store) if mistakes.is_empty() => {
                Ok(CacheCheck { store, prefix: self.prefix, expire: self.expire.0 })
            }
            _ => Err(mistakes),
        }
    }
}

impl Cache {
    fn store(&self) -> Result<Store, Vec<Mistake>> {
        if let Some(table) = &self.table {
            return self.table(table);
        }
        let mut mistakes = Vec::new();
        let store = Store::read(self.url.expose()).map_err(|why| {
            mistakes.push(Mistake::of("url", format!("the URL cannot be used: {why}")));
        });
        for (key, given) in [("key_prefix", self.key_prefix.is_some()), ("version", self.version.is_some())] {
            if given {
                mistakes.push(Mistake::of(key, "this is for a cache in a database, with `table`"));
            }
        }
        store.ok().filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }

    #[cfg(feature = "_sql")]
    fn table(&self, table: &str) -> Result<Store, Vec<Mistake>> {
        let version = self.version.unwrap_or(CacheKeys::default().version);
        let keys = CacheKeys { prefix: self.key_prefix.clone().unwrap_or_default(), version };
        Django::new(self.url.expose(), table, keys, &self.prefix).map(|cache| Store::Django(Box::new(cache)))
    }

    #[cfg(not(feature = "_sql"))]
    fn table(&self, _: &str) -> Result<Store, Vec<Mistake>> {
        let why = Engine::of(self.url.expose()).map_or_else(str::to_owned, Engine::missing);
        Err(vec![Mistake::of("url", format!("the URL cannot be used: {why}"))])
    }
}

/// What is asked.
#[derive(Debug)]
enum Store {
    #[cfg(feature = "_sql")]
    Django(Box<Django>),
    #[cfg(feature = "memcached")]
    Memcached(Memcached),
    #[cfg(feature = "redis")]
    Redis(crate::redis::Redis),
}

impl Store {
    /// By its URL; what is wrong with that says nothing of it.
    fn read(url: &str) -> Result<Self, String> {
        match url.split_once("://").map_or("", |(scheme, _)| scheme) {
            "memcached" | "memcacheds" | "memcached+unix" => Self::memcached(url),
            _ => Self::redis(url),
        }
    }

    #[cfg(feature = "memcached")]
    fn memcached(url: &str) -> Result<Self, String> {
        Memcached::read(url).map(Self::Memcached).map_err(str::to_owned)
    }

    #[cfg(not(feature = "memcached"))]
    fn memcached(_: &str) -> Result<Self, String> {
        Err("this build has no driver for memcached://".to_owned())
    }

    #[cfg(feature = "redis")]
    fn redis(url: &str) -> Result<Self, String> {
        let url = url.parse().map_err(|invalid| match invalid {
            heartbeat::fleet::Invalid::Scheme if cfg!(feature = "memcached") => {
                format!("{invalid}, {MEMCACHED}")
            }
            invalid => invalid.to_string(),
        })?;
        Ok(Self::Redis(crate::redis::Redis::new(url)))
    }

    #[cfg(not(feature = "redis"))]
    fn redis(url: &str) -> Result<Self, String> {
        let is_redis = ["redis", "valkey", "unix:"].iter().any(|begin| url.starts_with(begin));
        Err(match (is_redis, cfg!(feature = "memcached")) {
            (true, _) => "this build has no driver for redis://".to_owned(),
            (false, true) => format!("it begins with none of {MEMCACHED}"),
            (false, false) => "this build asks caches in databases alone, each with its `table`".to_owned(),
        })
    }
}

/// Asks a cache, over a connection that is kept.
#[derive(Debug)]
pub struct CacheCheck {
    store: Store,
    prefix: String,
    expire: Duration,
}

#[async_trait::async_trait]
impl Check for CacheCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let mut found = self.ask(deadline).await?;
        if found.is_torn() {
            // Where a connection is found dead or a failover goes on, what is asked may be answered in two parts by two servers.
            found = self.ask(deadline).await?;
        }
        found.judge()
    }
}

impl CacheCheck {
    async fn ask(&self, deadline: Instant) -> Result<Found, Failure> {
        match &self.store {
            #[cfg(feature = "_sql")]
            Store::Django(table) => table.ask(&self.prefix, self.expire, deadline).await,
            #[cfg(feature = "memcached")]
            Store::Memcached(server) => server.ask(&Entry::new(&self.prefix, self.expire)?, deadline).await,
            #[cfg(feature = "redis")]
            Store::Redis(server) => {
                redis::ask(server, &Entry::new(&self.prefix, self.expire)?, deadline).await
            }
        }
    }
}

/// What is set.
#[derive(Debug)]
struct Entry {
    key: String,
    value: String,
    expire: Duration,
}

impl Entry {
    fn new(prefix: &str, expire: Duration) -> Result<Self, Failure> {
        Ok(Self { key: format!("{prefix}{}", random()?), value: random()?, expire })
    }
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| Failure::unknown("no random numbers").because(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// What a cache did with a value that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    read: Read,
    expiry: Expiry,
    /// Whether something was there to delete.
    deleted: bool,
    /// What was there afterwards.
    after: Read,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Nothing,
    Same,
    Other,
}

/// What a cache says of when a value is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// In time.
    Set,
    /// Later than asked for.
    Late,
    /// Never.
    Never,
    /// There is no value.
    Gone,
    /// It cannot say.
    #[cfg(feature = "memcached")]
    Untold,
}

impl Found {
    /// Whether it may be that not all was answered by the same server.
    fn is_torn(self) -> bool {
        self.read == Read::Nothing || self.expiry == Expiry::Gone || !self.deleted
    }

    fn judge(self) -> Result<(), Failure> {
        let wrong = match self {
            Self { read: Read::Nothing, .. } | Self { expiry: Expiry::Gone, .. } => {
                "a value that was just set is not there"
            }
            Self { read: Read::Other, .. } => "another value came back than was set",
            Self { expiry: Expiry::Never, .. } => "the cache lets a value that should expire live for ever",
            Self { expiry: Expiry::Late, .. } => "the cache lets a value live for longer than it should",
            Self { deleted: false, .. } => "a value that was just set could not be deleted",
            Self { after: Read::Same | Read::Other, .. } => "a value is still there after it was deleted",
            Self { after: Read::Nothing, .. } => return Ok(()),
        };
        Err(Failure::failed(wrong))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn build(settings: Value) -> Result<CacheCheck, Vec<Mistake>> {
        from_value::<Cache>(settings).unwrap().build()
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_part_of_the_url() {
        for url in [
            "http://S3cret",
            "memcached://me:S3cret@h",
            "memcached://h:S3cret",
            "memcached://h/S3cret",
            "memcached://h?ca=S3cret",
            "memcacheds://h?cert=S3cret",
            "memcacheds://me:S3cret@h?ca=a",
            "memcached+unix://S3cret",
            "redis://S3cret@h",
        ] {
            let wrong = json!({ "url": url, "prefix": "a b", "expire": "2h" });
            let mistakes = build(wrong).unwrap_err();
            let keys: Vec<_> = mistakes.iter().filter_map(|mistake| mistake.key).collect();
            assert_eq!(keys, ["url", "prefix", "expire"], "{url}");
            assert!(!format!("{mistakes:?}").contains("S3cret"), "{mistakes:?}");
        }
        let foreign = json!({ "url": "redis://h", "key_prefix": "shop", "version": 2 });
        let keys: Vec<_> = build(foreign).unwrap_err().iter().filter_map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["key_prefix", "version"]);
        for url in [
            "memcached://h",
            "memcached://[::1]:7/",
            #[cfg(feature = "tls")]
            "memcacheds://h?ca=a.pem",
            "memcached+unix:///run/m",
            "redis+sentinel://a,b/c",
        ] {
            build(json!({ "url": url })).unwrap();
        }
    }

    #[test]
    fn a_cache_passes_that_does_all_that_a_cache_should() {
        let good = Found { read: Read::Same, expiry: Expiry::Set, deleted: true, after: Read::Nothing };
        good.judge().unwrap();
        #[cfg(feature = "memcached")]
        Found { expiry: Expiry::Untold, ..good }.judge().unwrap();
        for (bad, says, torn) in [
            (Found { read: Read::Nothing, ..good }, "a value that was just set is not there", true),
            (Found { expiry: Expiry::Gone, ..good }, "a value that was just set is not there", true),
            (Found { read: Read::Other, ..good }, "another value came back than was set", false),
            (
                Found { expiry: Expiry::Never, ..good },
                "the cache lets a value that should expire live for ever",
                false,
            ),
            (
                Found { expiry: Expiry::Late, ..good },
                "the cache lets a value live for longer than it should",
                false,
            ),
            (Found { deleted: false, ..good }, "a value that was just set could not be deleted", true),
            (Found { after: Read::Same, ..good }, "a value is still there after it was deleted", false),
        ] {
            assert_eq!((bad.judge().unwrap_err().reason(), bad.is_torn()), (says, torn));
        }
    }
}
