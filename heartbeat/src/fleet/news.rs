//! What Redis is told of workers: that one beats, is lost, or has stopped. One by one cluster through a
//! [`Fleet`](super::Fleet), or of many workers in many clusters through [`Fleets`]. Nothing is read back here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::ask::{Answer, Ask, Script};
use super::client::Client;
use super::error::{Error, ErrorKind};
use super::garbled;
use super::keys::{self, Keys};
use super::signature::SigningKeys;
use super::url::{Servers, Url};
use crate::record::Record;

/// How long a connection is kept that nobody needs.
const IDLE: Duration = Duration::from_mins(10);

/// How many connections are kept: clusters are named by records, which anybody may write.
const MOST_CLIENTS: usize = 64;

/// What one beat says to Redis.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    /// Who beats.
    pub record: &'a Record,
    /// That record as it is to be stored, but for its signature.
    pub line: &'a [u8],
    /// Whether the worker can take work: see [`takes_work`](super::takes_work).
    pub takes_work: bool,
    /// How much of the promise has passed already: 0 for who tells of its own beat.
    pub age_ms: u64,
}

/// One thing to tell Redis of one worker. Each is one atomic step of the server, and safe to repeat.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// It has beaten.
    Beat(Beat<'a>),
    /// Its process is no more: it is lost as of now, however long its promise, and stays named for a while.
    Lost {
        /// Who is lost.
        record: &'a Record,
        /// How long ago its last beat was.
        silent_ms: u64,
    },
    /// It has stopped, and is no longer there.
    Stopped(&'a Record),
}

impl<'a> News<'a> {
    fn record(&self) -> &'a Record {
        match self {
            Self::Beat(beat) => beat.record,
            Self::Lost { record, .. } | Self::Stopped(record) => record,
        }
    }

    /// What to ask for it alone; none for one that has stopped, which goes with others.
    fn question(&self, forget_ms: u64, signing: Option<Signing<'_>>) -> Result<Option<Ask<'static>>, Error> {
        let record = self.record();
        let keys = Keys::of(&record.cluster).of_worker(record.id, &record.queues);
        let id = record.id.to_string().into_bytes();
        let (worker, host) = (record.worker.clone().into_bytes(), record.host.clone().into_bytes());
        let promise = number(record.promise_ms);
        let (script, arguments) = match self {
            Self::Beat(beat) => {
                let line = match signing {
                    Some((keys, now_ms)) => keys.sign(beat.line, now_ms).ok_or_else(|| too_long(record))?,
                    None => beat.line.to_vec(),
                };
                let takes_work = number(beat.takes_work.into());
                let left = number(record.promise_ms.saturating_sub(beat.age_ms).max(1));
                let (forget, prune) = (number(forget_ms), number(keys::MOST_PRUNED));
                (&*keys::BEAT, vec![id, line, promise, takes_work, worker, host, forget, prune, left])
            }
            Self::Lost { silent_ms, .. } => {
                (&*keys::LOSE, vec![id, promise, worker, host, number(forget_ms), number(*silent_ms)])
            }
            Self::Stopped(_) => return Ok(None),
        };
        Ok(Some(Ask::Script { script, keys, arguments }))
    }
}

/// What records are signed with, and the server's clock.
type Signing<'a> = (&'a SigningKeys, u64);

fn too_long(record: &Record) -> Error {
    let text = format!("the record of {:?} is too long to be signed", record.worker);
    Error::new(ErrorKind::Configuration, text)
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// The withdrawal of workers of one cluster and the same queues.
fn withdrawal(records: &[&Record], script: &'static Script) -> Option<Ask<'static>> {
    let first = records.first()?;
    let keys = Keys::of(&first.cluster).of_all(records.iter().map(|record| record.id), &first.queues);
    let mut arguments = vec![first.queues.len().to_string().into_bytes()];
    for record in records {
        arguments.extend([record.id.to_string().into_bytes(), record.worker.clone().into_bytes()]);
    }
    Some(Ask::Script { script, keys, arguments })
}

/// Who has stopped, in groups that one script withdraws, by their places in the news.
fn leaving(news: &[News<'_>]) -> Vec<Vec<usize>> {
    let mut groups: HashMap<(&str, &[String]), Vec<Vec<usize>>> = HashMap::new();
    for (index, news) in news.iter().enumerate() {
        let News::Stopped(record) = news else { continue };
        let groups = groups.entry((&record.cluster, &record.queues)).or_default();
        match groups.last_mut() {
            Some(group) if group.len() < keys::MOST_WITHDRAWN => group.push(index),
            _ => groups.push(vec![index]),
        }
    }
    groups.into_values().flatten().collect()
}

/// Tells it all in one round trip, to the one node that holds the keys; where it is signed, in two over a new connection. First of two
/// is how long a worker that went silent can be named.
pub fn tell(
    client: &mut Client,
    news: &[News<'_>],
    (forget_ms, signing): (u64, Option<&SigningKeys>),
    until: Instant,
) -> Result<Vec<Result<(), Error>>, Error> {
    let signing = match signing.filter(|_| news.iter().any(|news| matches!(news, News::Beat(_)))) {
        Some(keys) => Some((keys, client.time_ms(until)?)),
        None => None,
    };
    let mut outcomes: Vec<_> = news.iter().map(|_| Ok(())).collect();
    let leaving = leaving(news);
    let mut questions = Vec::with_capacity(news.len());
    // Which of the news each question tells.
    let mut told: Vec<Vec<usize>> = Vec::with_capacity(news.len());
    for (index, news) in news.iter().enumerate() {
        match news.question(forget_ms, signing) {
            Ok(Some(question)) => {
                questions.push(question);
                told.push(vec![index]);
            }
            Ok(None) => {}
            Err(error) => outcomes[index] = Err(error),
        }
    }
    let alone = questions.is_empty() && leaving.len() == 1;
    for group in leaving {
        let records: Vec<_> = group.iter().map(|index| news[*index].record()).collect();
        let script = if alone { &*keys::WITHDRAW_ONCE } else { &*keys::WITHDRAW };
        questions.extend(withdrawal(&records, script));
        told.push(group);
    }
    let answers = client.tell(&questions, until)?;
    let place = client.place();
    for (answer, told) in answers.into_iter().zip(told) {
        if let (Ok(Value::Int(now_ms)), Some(News::Beat(_))) =
            (&answer, told.first().map(|index| news[*index]))
        {
            client.set_time_ms(*now_ms);
        }
        let outcome = outcome(answer, &place);
        for index in told {
            outcomes[index].clone_from(&outcome);
        }
    }
    Ok(outcomes)
}

fn outcome(answer: Answer, place: &str) -> Result<(), Error> {
    match answer {
        Ok(Value::Int(_)) => Ok(()),
        Ok(_) => Err(garbled(place)),
        Err(refusal) => Err(refusal.at(place)),
    }
}

/// All clusters of one Redis, for who publishes for many workers.
///
/// Behind one server or Sentinel everything goes over one connection, in one round trip. In a Redis Cluster the keys of two
/// clusters may lie on two nodes, so there each cluster has a connection and a round trip of its own, one after
/// another. A connection that was not needed for ten minutes is closed with the next call; of more than 64 clusters, those
/// that were told of last keep theirs.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use heartbeat::fleet::{Fleets, News};
/// # let record = heartbeat::record::Record::parse(b"").unwrap();
///
/// let mut fleets = Fleets::new("redis://127.0.0.1".parse()?);
/// let news = [News::Lost { record: &record, silent_ms: 1_200 }];
/// for outcome in fleets.tell(&news, Instant::now() + Duration::from_secs(2)) {
///     outcome?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fleets {
    url: Url,
    signing: Option<SigningKeys>,
    /// By cluster in a Redis Cluster; elsewhere one, without a name.
    clients: HashMap<String, (Client, Instant)>,
}

impl fmt::Debug for Fleets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleets").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Fleets {
    /// Nothing is connected yet.
    pub fn new(url: Url) -> Self {
        Self { url, signing: None, clients: HashMap::new() }
    }

    /// Signs what it publishes.
    #[must_use]
    pub fn signed(mut self, keys: SigningKeys) -> Self {
        self.signing = Some(keys);
        self
    }

    /// Where Redis is, without secrets.
    pub fn place(&self) -> String {
        self.url.to_string()
    }

    /// Tells news of any clusters: one result for each. What cannot be reached costs no more than until then, and in a Redis
    /// Cluster no cluster more than its fair share.
    pub fn tell(&mut self, news: &[News<'_>], until: Instant) -> Vec<Result<(), Error>> {
        let mut outcomes: Vec<_> = news.iter().map(|_| Ok(())).collect();
        let routes = self.routes(news);
        let mut left = u32::try_from(routes.len()).unwrap_or(u32::MAX);
        for (route, indexes) in routes {
            let now = Instant::now();
            let share = now + until.saturating_duration_since(now) / left.max(1);
            left = left.saturating_sub(1);
            self.make_room(&route);
            let fresh = || (Client::new(self.url.clone(), Arc::default()), now);
            let (client, used) = self.clients.entry(route).or_insert_with(fresh);
            *used = now;
            let these: Vec<_> = indexes.iter().map(|index| news[*index]).collect();
            match tell(client, &these, (keys::FORGET_MS, self.signing.as_ref()), share) {
                Ok(each) => {
                    for (index, outcome) in indexes.into_iter().zip(each) {
                        outcomes[index] = outcome;
                    }
                }
                Err(error) => {
                    for index in indexes {
                        outcomes[index] = Err(error.clone());
                    }
                }
            }
        }
        self.clients.retain(|_, (_, used)| used.elapsed() < IDLE);
        outcomes
    }

    /// Closes the connection that was not needed for the longest time, where one for this route would be too many.
    fn make_room(&mut self, route: &str) {
        if self.clients.len() < MOST_CLIENTS || self.clients.contains_key(route) {
            return;
        }
        let oldest = self.clients.iter().min_by_key(|(_, (_, used))| *used).map(|(route, _)| route.clone());
        if let Some(oldest) = oldest {
            self.clients.remove(&oldest);
        }
    }

    /// Which news go together.
    fn routes(&self, news: &[News<'_>]) -> BTreeMap<String, Vec<usize>> {
        let mut routes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let apart = matches!(self.url.servers, Servers::Cluster(_));
        for (index, news) in news.iter().enumerate() {
            let route = if apart { news.record().cluster.as_str() } else { "" };
            match routes.get_mut(route) {
                Some(indexes) => indexes.push(index),
                None => drop(routes.insert(route.to_owned(), vec![index])),
            }
        }
        routes
    }
}
