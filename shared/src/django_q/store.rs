//! Where Django-Q2 keeps its stats: in its own Redis, or, with every other broker, in a Django cache.
//!
//! In Redis they are found by walking the whole keyspace in pages (`SCAN`, never `KEYS`): nobody is blocked, and it takes
//! the longer the more other keys there are. In a cache, one more key names them. What is stored is given as it is, with
//! the clock of the server that gave it; nothing is judged here.

#[cfg(feature = "_sql")]
mod table;

use std::collections::HashSet;
use std::fmt;
use std::time::Instant;

use heartbeat::fleet::{self, Connection};
use redis::{Cmd, Value, cmd};

#[cfg(feature = "_sql")]
use self::table::TableStore;
use super::pickle::{Node, Pickle};
use super::stat::{MOST_BYTES, Uuid};
use crate::django::CacheKeys;
use crate::glob::literally;
#[cfg(feature = "_sql")]
use crate::{database, django};

/// The most stats that are read.
pub const MOST_STATS: usize = 10_000;

/// How many keys one step of the walk looks at: well below a millisecond in which Redis serves nobody else.
const STEP: usize = 1_000;

/// How many stats are asked for at once: all of them, at their largest, fit into one answer.
const AT_ONCE: usize = 100;

/// The most that is read of a cache's list of keys, as it is stored.
const MOST_LISTED: usize = 2 << 20;

/// Where to look.
#[derive(Clone, Debug)]
pub enum Place {
    /// The Redis that is Django-Q's broker.
    Broker(fleet::Url),
    /// A Django cache in Redis (`django.core.cache.backends.redis.RedisCache`).
    RedisCache(fleet::Url, CacheKeys),
    /// A Django cache in a table (`django.core.cache.backends.db.DatabaseCache`).
    #[cfg(feature = "_sql")]
    TableCache {
        /// The database.
        url: database::Place,
        /// The table: its `LOCATION`.
        table: django::Table,
        /// What its keys begin with.
        keys: CacheKeys,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(url) | Self::RedisCache(url, _) => write!(f, "{url}"),
            #[cfg(feature = "_sql")]
            Self::TableCache { url, table, .. } => write!(f, "{url}, table {table}"),
        }
    }
}

/// Why nothing is known: in public words, and more of it for who asks; neither holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// A sentence that anybody may read.
    pub reason: String,
    /// What happened, where there is more to say.
    pub detail: Option<String>,
}

impl Untold {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: None }
    }
}

impl From<fleet::Error> for Untold {
    fn from(error: fleet::Error) -> Self {
        Self { reason: error.kind().to_string(), detail: Some(error.to_string()) }
    }
}

/// What was stored at one moment, each value beside what was asked for.
struct Look {
    /// The server's clock, in milliseconds since 1970.
    now_unix_ms: u64,
    /// The values, as Django-Q wrote them.
    values: Vec<Option<Vec<u8>>>,
}

/// A place that can be looked at again.
pub enum Store {
    /// One of the two kinds of key in Redis.
    Redis(Box<Connection>, Option<CacheKeys>),
    /// A table, with the runtime that its client needs.
    #[cfg(feature = "_sql")]
    Table(Box<TableStore>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store(…)")
    }
}

impl Store {
    /// Nothing is connected yet.
    pub fn new(place: &Place) -> Result<Self, Untold> {
        Ok(match place {
            Place::Broker(url) => Self::Redis(Box::new(Connection::new(url.clone())), None),
            Place::RedisCache(url, keys) => {
                Self::Redis(Box::new(Connection::new(url.clone())), Some(keys.clone()))
            }
            #[cfg(feature = "_sql")]
            Place::TableCache { url, table, keys } => {
                Self::Table(Box::new(TableStore::new(url, table, keys.clone())?))
            }
        })
    }

    /// Which cluster processes of a name there are, or were of late.
    pub fn list(&mut self, name: &str, until: Instant) -> Result<Vec<Uuid>, Untold> {
        let list_key = list_key(name);
        let listed = match self {
            Self::Redis(connection, None) => return walk(connection, &list_key, until),
            Self::Redis(connection, Some(keys)) => {
                let mut command = cmd("GETRANGE");
                command.arg(keys.key(&list_key)).arg(0).arg(MOST_LISTED);
                let answer = connection.ask(&[command], until)?.into_iter().next();
                answer.transpose()?.and_then(bytes)
            }
            #[cfg(feature = "_sql")]
            Self::Table(table) => table.list(&list_key, until)?,
        };
        listed.map_or(Ok(Vec::new()), |listed| ids(&listed, &list_key))
    }

    /// Hands out what these say now, and gives the server's clock, in milliseconds since 1970. No more of them are in
    /// memory than are read at once, however large they are.
    pub fn look(
        &mut self,
        name: &str,
        ids: &[Uuid],
        until: Instant,
        each: &mut dyn FnMut(Uuid, Vec<u8>),
    ) -> Result<u64, Untold> {
        let list_key = list_key(name);
        let mut now_unix_ms = 0;
        for ids in ids.chunks(AT_ONCE) {
            let keys = ids.iter().map(|id| format!("{list_key}:{id}"));
            let some = match self {
                Self::Redis(connection, None) => read(connection, keys, until)?,
                Self::Redis(connection, Some(cache)) => {
                    let mut some = read(connection, keys.map(|key| cache.key(&key)), until)?;
                    for value in &mut some.values {
                        *value = value.as_deref().map(unpickled);
                    }
                    some
                }
                #[cfg(feature = "_sql")]
                Self::Table(table) => table.read(keys, until)?,
            };
            now_unix_ms = some.now_unix_ms;
            for (id, value) in ids.iter().zip(some.values) {
                if let Some(value) = value {
                    each(*id, value);
                }
            }
        }
        Ok(now_unix_ms)
    }
}

fn list_key(name: &str) -> String {
    format!("django_q:{name}:cluster")
}

fn walk(connection: &mut Connection, list_key: &str, until: Instant) -> Result<Vec<Uuid>, Untold> {
    let pattern = format!("{}:*", literally(list_key));
    let mut ids = HashSet::new();
    let mut cursor = b"0".to_vec();
    for step in 0_u64.. {
        let mut command = cmd("SCAN");
        command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
        let answer = connection.ask(&[command], until).map_err(|error| unfinished(error, step))?;
        let answer = answer.into_iter().next().transpose()?;
        let Some(Value::Array(parts)) = answer else { return Err(garbled()) };
        let [Value::BulkString(next), Value::Array(keys)] = parts.as_slice() else { return Err(garbled()) };
        for key in keys.iter().filter_map(text) {
            ids.extend(key.strip_prefix(list_key).and_then(|rest| Uuid::parse(rest.strip_prefix(':')?)));
        }
        if ids.len() > MOST_STATS {
            return Err(too_many());
        }
        cursor.clone_from(next);
        if cursor == b"0" {
            break;
        }
    }
    Ok(ids.into_iter().collect())
}

/// A walk that has begun and did not come to its end in time is mostly one through too many keys.
fn unfinished(error: fleet::Error, steps: u64) -> Untold {
    if error.kind() == fleet::ErrorKind::TimedOut && steps > 0 {
        let keys = steps.saturating_mul(STEP as u64);
        let reason = format!("Redis holds too many keys to be searched in time: about {keys} were");
        return Untold { reason, detail: Some(error.to_string()) };
    }
    error.into()
}

fn read(
    connection: &mut Connection,
    keys: impl Iterator<Item = String>,
    until: Instant,
) -> Result<Look, Untold> {
    let mut commands = vec![cmd("TIME")];
    commands.extend(keys.map(|key| get(&key)));
    let mut answers = connection.ask(&commands, until)?.into_iter();
    let time = answers.next().transpose()?.ok_or_else(garbled)?;
    // What is no string at all has no value here.
    let values = answers.map(|answer| answer.ok().and_then(bytes)).collect();
    Ok(Look { now_unix_ms: time_ms(&time).ok_or_else(garbled)?, values })
}

/// No more of a value than tells that it is too large.
fn get(key: &str) -> Cmd {
    let mut command = cmd("GETRANGE");
    command.arg(key).arg(0).arg(MOST_BYTES);
    command
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// A value; GETRANGE has an empty one where there is none.
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) if !bytes.is_empty() => Some(bytes),
        _ => None,
    }
}

fn time_ms(time: &Value) -> Option<u64> {
    let Value::Array(parts) = time else { return None };
    let [seconds, micros] = parts.as_slice() else { return None };
    let (seconds, micros): (u64, u64) = (text(seconds)?.parse().ok()?, text(micros)?.parse().ok()?);
    seconds.checked_mul(1_000)?.checked_add(micros / 1_000)
}

fn garbled() -> Untold {
    Untold::new("Redis gave no proper answer")
}

fn too_many() -> Untold {
    Untold::new(format!("there are more than {MOST_STATS} stats"))
}

fn no_list() -> Untold {
    Untold::new("what the cache has in the place of Django-Q's list of stats is no list")
}

/// The ids in a cache's pickled list of keys. A key that is none of Django-Q's is left out.
fn ids(pickled: &[u8], list_key: &str) -> Result<Vec<Uuid>, Untold> {
    let pickle = Pickle::parse_up_to(MOST_LISTED, pickled).map_err(|_| no_list())?;
    let Node::List(items) = pickle.root() else { return Err(no_list()) };
    let ids: HashSet<_> = items
        .iter()
        .filter_map(|id| match pickle.node(*id) {
            Node::Text(key) => Uuid::parse(key.strip_prefix(list_key)?.strip_prefix(':')?),
            _ => None,
        })
        .collect();
    if ids.len() > MOST_STATS { Err(too_many()) } else { Ok(ids.into_iter().collect()) }
}

/// The text in a pickle. What is none is no stat: it is given on as it is, and its signature will be wrong.
fn unpickled(pickled: &[u8]) -> Vec<u8> {
    match Pickle::parse(pickled) {
        Ok(pickle) => match pickle.root() {
            Node::Text(text) => text.clone().into_bytes(),
            _ => pickled.to_vec(),
        },
        Err(_) => pickled.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12345678-1234-5678-1234-567812345678";

    #[test]
    fn the_keys_in_a_caches_list_are_taken_and_others_left() {
        let keys =
            ["django_q:shop:cluster:", "django_q:other:cluster:", "x"].map(|start| format!("{start}{ID}"));
        let mut pickled = b"(".to_vec();
        for key in keys.iter().chain(&keys) {
            pickled.extend(format!("V{key}\n").bytes());
        }
        pickled.extend(b"K\x01Vdjango_q:shop:cluster:no\nl.");
        assert_eq!(ids(&pickled, "django_q:shop:cluster"), Ok(vec![Uuid::parse(ID).unwrap()]));
        for wrong in [&b"N."[..], b"", b"cos\nsystem\n)R."] {
            assert!(ids(wrong, "django_q:shop:cluster").is_err());
        }
    }

    #[test]
    fn a_list_of_as_many_keys_as_are_read_is_a_list() {
        let ids_of = |count: usize| {
            let mut pickled = b"(".to_vec();
            for number in 0..count {
                let id = format!("{number:08}-1234-5678-1234-567812345678");
                pickled.extend(format!("Vdjango_q:shop:cluster:{id}\n").bytes());
            }
            pickled.extend(b"l.");
            ids(&pickled, "django_q:shop:cluster").map(|ids| ids.len())
        };
        assert_eq!(ids_of(MOST_STATS), Ok(MOST_STATS));
        assert_eq!(ids_of(MOST_STATS + 1), Err(too_many()));
    }

    #[test]
    fn what_is_no_pickled_text_stays_what_it_is() {
        assert_eq!(unpickled(b"\x80\x05\x8c\x02ab\x94."), b"ab");
        assert_eq!(unpickled(b"K\x01."), b"K\x01.");
        assert_eq!(unpickled(b"ab"), b"ab");
    }
}
