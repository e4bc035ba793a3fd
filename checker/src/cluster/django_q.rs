//! The source `django-q`: Django-Q2's own stats, in its Redis broker or in a Django cache.

use std::env;
use std::time::Instant;

use clap::builder::PossibleValuesParser;
use heartbeat::fleet;
use shared::checks::cluster::django_q::{STATUSES, Settings};
use shared::checks::cluster::{Answer, Question};
use shared::database::{self, Access, Engine};
use shared::django::{CacheKeys, Table};
use shared::django_q::store::Place;

use super::Ask;
use crate::arguments::Unread;
use crate::redis;

const SECRET_KEY: &str = "DJANGO_SECRET_KEY";
const BROKER: &str = "DJANGO_Q_REDIS_URL";
const CACHE: &str = "DJANGO_CACHE_URL";

/// What this source alone takes.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Options of the source django-q")]
pub struct Args {
    /// The Django cache that the stats are in, where the broker is not Redis: redis://, postgres://, mysql:// or
    /// sqlite:// [default: `$DJANGO_CACHE_URL`]
    #[arg(long, value_name = "URL", conflicts_with = "redis")]
    cache: Option<Unread>,
    /// The table of a cache in a database: its `LOCATION`
    #[arg(long, value_name = "TABLE")]
    cache_table: Option<String>,
    /// The cache's `KEY_PREFIX` [default: none]
    #[arg(long, value_name = "PREFIX")]
    cache_prefix: Option<String>,
    /// The cache's `VERSION` [default: 1]
    #[arg(long, value_name = "N")]
    cache_version: Option<u64>,
    /// A status whose workers do not count; may be given more than once [default: Stopping and Stopped]
    #[arg(long = "unhealthy", value_name = "STATUS", value_parser = PossibleValuesParser::new(STATUSES))]
    unhealthy: Vec<String>,
}

impl Args {
    /// An option of this source that was given, for a source that has no use for it.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.cache.is_some(), "--cache"),
            (self.cache_table.is_some(), "--cache-table"),
            (self.cache_prefix.is_some(), "--cache-prefix"),
            (self.cache_version.is_some(), "--cache-version"),
            (!self.unhealthy.is_empty(), "--unhealthy"),
        ];
        given.into_iter().find_map(|(is, name)| is.then_some(name))
    }

    fn place(&self, broker: Option<&Unread>) -> Result<Place, String> {
        let from = |given: Option<&Unread>, flag, variable| match given {
            Some(url) => Ok(Some((flag, url.text().to_owned()))),
            None => variable_text(variable).map(|text| text.map(|text| (variable, text))),
        };
        let (broker, cache) = match (broker, &self.cache) {
            (Some(_), _) => (from(broker, "--redis", BROKER)?, None),
            (None, Some(_)) => (None, from(self.cache.as_ref(), "--cache", CACHE)?),
            (None, None) => (from(None, "--redis", BROKER)?, from(None, "--cache", CACHE)?),
        };
        match (broker, cache) {
            (Some((name, text)), None) => self.broker(name, &text),
            (None, Some((name, text))) => self.cache(name, &text),
            (Some(_), Some(_)) => Err(format!(
                "the broker or the cache? Both {BROKER} and {CACHE} are set: say --redis or --cache"
            )),
            (None, None) => Err(format!(
                "where are Django-Q's stats? In its Redis broker: --redis URL or {BROKER}; with any other broker in \
                 Django's cache: --cache URL or {CACHE}"
            )),
        }
    }

    fn broker(&self, name: &str, text: &str) -> Result<Place, String> {
        let cache = [
            (self.cache_table.is_some(), "--cache-table"),
            (self.cache_prefix.is_some(), "--cache-prefix"),
            (self.cache_version.is_some(), "--cache-version"),
        ];
        match cache.into_iter().find(|(is, _)| *is) {
            Some((_, option)) => {
                Err(format!("{option} is for --cache: in a broker the stats have no prefix and no table"))
            }
            None => Ok(Place::Broker(one_server(name, text)?)),
        }
    }

    fn cache(&self, name: &str, text: &str) -> Result<Place, String> {
        let keys = CacheKeys {
            prefix: self.cache_prefix.clone().unwrap_or_default(),
            version: self.cache_version.unwrap_or(CacheKeys::default().version),
        };
        if Engine::of(text).is_err() {
            return self.redis_cache(name, text, keys);
        }
        let url = database::Place::parse(text, Access::Read)
            .map_err(|why| format!("the URL in {name} cannot be used: {why}"))?;
        let table = self
            .cache_table
            .as_deref()
            .ok_or("a cache in a database needs --cache-table TABLE, its LOCATION")?;
        let table = Table::parse(table).ok_or("--cache-table is the name of a table")?;
        Ok(Place::TableCache { url, table, keys })
    }

    fn redis_cache(&self, name: &str, text: &str, keys: CacheKeys) -> Result<Place, String> {
        if self.cache_table.is_some() {
            return Err("--cache-table is for a cache in a database".to_owned());
        }
        let is_redis = ["redis", "valkey", "unix"].iter().any(|scheme| text.starts_with(scheme));
        if !is_redis {
            return Err(format!(
                "the URL in {name} cannot be used: it begins with none of redis://, rediss://, unix://, postgres://, mysql://, \
                 mariadb:// and sqlite://"
            ));
        }
        Ok(Place::RedisCache(one_server(name, text)?, keys))
    }
}

/// The URL of what Django can use: it knows no Redis Cluster, and a walk over the keys of one would miss most of them.
fn one_server(name: &str, text: &str) -> Result<fleet::Url, String> {
    let url = redis::parse(name, text)?;
    if url.is_cluster() {
        return Err(format!("the URL in {name} cannot be used: Django-Q2 keeps no stats in a Redis Cluster"));
    }
    Ok(url)
}

fn variable_text(name: &str) -> Result<Option<String>, String> {
    let text = env::var_os(name).filter(|text| !text.is_empty());
    text.map(|text| text.into_string().map_err(|_| format!("{name} is not text"))).transpose()
}

pub fn ask(args: &super::Args) -> Result<Settings, String> {
    let own = &args.django_q;
    if !args.queues.is_empty() {
        return Err("--queue: Django-Q's stats do not tell which queue a worker takes work from".to_owned());
    }
    if args.max_lost.is_some() {
        return Err(
            "--max-lost: Django-Q forgets a worker 3 s after its last stat, so the lost cannot be counted"
                .to_owned(),
        );
    }
    let place = own.place(args.redis.as_ref())?;
    let secret_key = variable_text(SECRET_KEY)?.ok_or_else(|| {
        format!("Django's SECRET_KEY, which the stats are signed with, belongs into {SECRET_KEY}")
    })?;
    let question = args.question(&place)?;
    let unhealthy = Some(own.unhealthy.clone()).filter(|unhealthy| !unhealthy.is_empty());
    let settings = Settings::new(place, &secret_key, args.name.as_str());
    Ok(Settings { unhealthy, question, ..settings })
}

impl Ask for Settings {
    fn question(&self) -> &Question {
        &self.question
    }

    fn asked(&self) -> &'static str {
        match self.place {
            Place::Broker(_) | Place::RedisCache(..) => "Redis",
            Place::TableCache { .. } => "the database",
        }
    }

    fn check_files(&self) -> Result<(), String> {
        match &self.place {
            Place::Broker(url) | Place::RedisCache(url, _) => {
                url.check_files().map_err(|wrong| wrong.to_string())
            }
            Place::TableCache { .. } => Ok(()),
        }
    }

    fn answer(&self, until: Instant) -> Answer {
        Self::answer(self, until)
    }
}
