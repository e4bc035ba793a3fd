//! The workers of a cluster, as Redis knows them (feature `redis`).
//!
//! A [`Fleet`] publishes beats and reads them back: counts in one round trip, the members in bounded pages, the lost by
//! name. Every moment is the Redis server's own, so that no clock on any worker or checker matters, and a record is judged by
//! the same [`crate::verdict::judge`] as one in a file. What others have published is read with suspicion: answers and
//! records are bounded, and what is no record is a member whose record is corrupt.
//!
//! The calls block, each until its deadline at most. No call needs an async runtime.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use heartbeat::fleet::Fleet;
//!
//! let mut fleet = Fleet::new("redis://127.0.0.1".parse()?, "orders");
//! let counts = fleet.count(&["mail"], Instant::now() + Duration::from_secs(2))?;
//! println!("{} take work, {} of them from mail", counts.ready, counts.queues[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ask;
mod client;
mod connection;
mod error;
mod keys;
mod link;
mod members;
mod news;
mod signature;
mod socket;
pub mod tls;
mod url;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use redis::Value;

use self::ask::{Answer, Ask, text};
use self::client::Client;
pub use self::connection::Connection;
pub use self::error::{Error, ErrorKind};
use self::keys::Keys;
pub use self::members::{Cursor, MAX_PAGE, Member, Page};
pub use self::news::{Beat, Fleets, News};
pub(crate) use self::signature::MORE_BYTES;
pub use self::signature::{InvalidKey, SigningKeys};
pub use self::url::{Invalid, Url};
use crate::record::{Id, Record, Status};
use crate::verdict::{Verdict, is_without_broker};

/// One cluster's keys in one Redis, for who publishes and who reads.
///
/// The connection is made by the first call and kept; one that has died meanwhile is replaced within the call. So is one that was
/// forgotten on the way, as firewalls do without a word, by the calls that read.
pub struct Fleet {
    client: Client,
    keys: Keys,
    cluster: String,
    forget_ms: u64,
    signing: Option<SigningKeys>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.client.url();
        f.debug_struct("Fleet").field("cluster", &self.cluster).field("url", url).finish_non_exhaustive()
    }
}

/// How many workers were fresh at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Workers that beat within their promise.
    pub fresh: u64,
    /// Those of them that can take work.
    pub ready: u64,
    /// Those that can take work from each of the queues that were asked for, in that order.
    pub queues: Vec<u64>,
    /// Workers that have been silent for longer than their promise, and not yet for so long that they are
    /// forgotten. One that has started anew since is among them; [`Fleet::lost`] knows.
    pub lost: u64,
    /// The server's clock in milliseconds since 1970.
    pub now_ms: u64,
}

/// A worker that went silent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Its incarnation.
    pub id: Id,
    /// Its name; its id where its name was evicted.
    pub worker: String,
    /// The host that it ran on; empty where that was evicted.
    pub host: String,
    /// How long ago its last beat arrived, by the server's clock; for how long it has been lost, where its promise was
    /// evicted.
    pub silent_ms: u64,
    /// How long its silence might last, where that was not evicted.
    pub promise_ms: Option<u64>,
}

/// The workers that went silent, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losses {
    /// Those that have not started anew since under the same name.
    pub lost: Vec<Lost>,
    /// Whether there may be more than were asked for.
    pub more: bool,
}

/// Whether a worker of which its own record says this, and which is judged so, can take work. One that is cut off from its
/// stat key can, for this is read there; one that is cut off from its broker cannot.
pub fn takes_work(record: &Record, verdict: Verdict) -> bool {
    matches!(record.status, Status::Idle | Status::Busy)
        && matches!(verdict, Verdict::Alive | Verdict::CutOff)
        && !is_without_broker(record)
}

impl Fleet {
    /// Nothing is connected yet.
    pub fn new(url: Url, cluster: impl Into<String>) -> Self {
        Self::giving_up(url, cluster, Arc::default())
    }

    /// The same, whose calls end at once where `given_up` is set.
    pub(crate) fn giving_up(url: Url, cluster: impl Into<String>, given_up: Arc<AtomicBool>) -> Self {
        let cluster = cluster.into();
        let keys = Keys::of(&cluster);
        let client = Client::new(url, given_up);
        Self { client, keys, cluster, forget_ms: keys::FORGET_MS, signing: None }
    }

    /// How long a worker that went silent can still be named. Default: 1 h. The same for all of a cluster.
    #[must_use]
    pub fn forget_ms(mut self, forget_ms: u64) -> Self {
        self.forget_ms = forget_ms;
        self
    }

    /// Signs what it publishes, and trusts no record that is not signed: see [`Member::is_trusted`]. What [`Fleet::count`] and
    /// [`Fleet::lost`] tell comes from the index alone, which nobody signs.
    #[must_use]
    pub fn signed(mut self, keys: SigningKeys) -> Self {
        self.signing = Some(keys);
        self
    }

    /// The server that answered last, without secrets.
    pub fn place(&self) -> String {
        self.client.place()
    }

    /// Publishes beats, all in one round trip: one result for each. Safe to repeat.
    ///
    /// The records' cluster is this one, here and below. Each beat's script is one atomic step of the server.
    pub fn publish(&mut self, beats: &[Beat<'_>], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        let news: Vec<_> = beats.iter().map(|beat| News::Beat(*beat)).collect();
        self.tell(&news, until)
    }

    /// Says of workers that they are lost as of now, however long their promise, and for how many milliseconds each has been
    /// silent: all in one round trip, one result for each. Safe to repeat. For who can see that their processes are no more.
    pub fn lose(&mut self, lost: &[(&Record, u64)], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        let news = lost.iter().map(|(record, silent_ms)| News::Lost { record, silent_ms: *silent_ms });
        let news: Vec<_> = news.collect();
        self.tell(&news, until)
    }

    /// Removes workers that have stopped, all in one round trip: one result for each. Safe to repeat.
    pub fn withdraw(&mut self, records: &[&Record], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        let news: Vec<_> = records.iter().map(|record| News::Stopped(record)).collect();
        self.tell(&news, until)
    }

    fn tell(&mut self, news: &[News<'_>], until: Instant) -> Result<Vec<Result<(), Error>>, Error> {
        news::tell(&mut self.client, news, (self.forget_ms, self.signing.as_ref()), until)
    }

    /// Counts the fresh workers, in one round trip that reads no record and whose cost hardly grows with their number.
    pub fn count(&mut self, queues: &[&str], until: Instant) -> Result<Counts, Error> {
        let mut keys = vec![self.keys.workers(), self.keys.ready()];
        keys.extend(queues.iter().map(|queue| self.keys.queue(queue)));
        let forget = self.forget_ms.to_string().into_bytes();
        let question = Ask::Script { script: &keys::COUNT, keys, arguments: vec![forget] };
        let answer = self.array(question, until)?;
        let numbers = answer.iter().map(|value| match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        });
        let numbers: Option<Vec<u64>> = numbers.collect();
        match numbers.as_deref() {
            Some([now_ms, lost, fresh, ready, counts @ ..]) if counts.len() == queues.len() => Ok(Counts {
                fresh: *fresh,
                ready: *ready,
                queues: counts.to_vec(),
                lost: *lost,
                now_ms: *now_ms,
            }),
            _ => Err(self.garbled()),
        }
    }

    /// Names at most `limit` of the workers that went silent, the latest first, in one round trip.
    pub fn lost(&mut self, limit: usize, until: Instant) -> Result<Losses, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let keys = vec![self.keys.workers(), self.keys.names()];
        let arguments = vec![limit.to_string().into_bytes(), self.forget_ms.to_string().into_bytes()];
        let answer = self.array(Ask::Script { script: &keys::LOST, keys, arguments }, until)?;
        let [Value::Int(now), Value::Int(found), lost @ ..] = &answer[..] else {
            return Err(self.garbled());
        };
        let now_ms = u64::try_from(*now).unwrap_or_default();
        let lost = lost.chunks_exact(3).filter_map(|parts| {
            let [id, score, entry] = parts else { return None };
            let bare = Member::bare(Id::parse(text(id)?)?, now_ms, moment(score)?, false);
            let member = bare.by_entry(members::entry(entry).as_deref())?;
            Some(Lost {
                id: member.id,
                silent_ms: member.age_ms.unwrap_or_default(),
                worker: member.worker,
                host: member.host,
                promise_ms: member.promise_ms,
            })
        });
        Ok(Losses { lost: lost.collect(), more: usize::try_from(*found).is_ok_and(|found| found >= limit) })
    }

    /// Asks one thing that is answered with an array.
    fn array(&mut self, question: Ask<'_>, until: Instant) -> Result<Vec<Value>, Error> {
        let answers = self.client.ask(&[question], until)?;
        let [array] = self.arrays(answers)?;
        Ok(array)
    }

    /// The first answers, which are arrays.
    fn arrays<const N: usize>(
        &self,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<[Vec<Value>; N], Error> {
        let mut answers = answers.into_iter();
        let mut arrays = [const { Vec::new() }; N];
        for array in &mut arrays {
            *array = match answers.next() {
                Some(Ok(Value::Array(values))) => values,
                Some(Err(refusal)) => return Err(refusal.at(&self.client.place())),
                _ => return Err(self.garbled()),
            };
        }
        Ok(arrays)
    }

    fn garbled(&self) -> Error {
        garbled(&self.client.place())
    }
}

/// The answer to TIME: seconds and microseconds.
fn time_ms(time: &[Value]) -> Option<u64> {
    let [seconds, micros] = time else { return None };
    let (seconds, micros): (u64, u64) = (text(seconds)?.parse().ok()?, text(micros)?.parse().ok()?);
    seconds.checked_mul(1_000)?.checked_add(micros / 1_000)
}

/// A score: a moment in milliseconds since 1970. One that no moment can have is none.
fn moment(score: &Value) -> Option<u64> {
    let number: f64 = text(score)?.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within bounds, where every whole number is exact"
    )]
    (0.0..9e15).contains(&number).then_some(number as u64)
}

fn garbled(place: &str) -> Error {
    Error::new(ErrorKind::Garbled, format!("{place}: an answer of another kind"))
}

#[cfg(test)]
mod tests;
