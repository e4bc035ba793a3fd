//! The workers of a cluster as rows.
//!
//! A thread of its own asks Redis about once a second, over a connection that it keeps, so that a Redis that does not
//! answer holds up neither keys nor frames. While it cannot be asked, the rows stay, and nobody can tell of any of them
//! how it is.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::mem;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::fleet::{Error, Fleet, Member, SigningKeys, Url};
use heartbeat::verdict::Verdict;
use shared::checks::cluster::fleet::{drop_succeeded, read_all};

use super::events::Wake;
use super::row::{Account, Row};
use super::source::Source;
use crate::format::plain::Plain;

/// Between two questions.
const REST: Duration = Duration::from_secs(1);

/// Asking may take one part in so many of the time.
const SHARE: u32 = 5;

/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most workers that are shown.
const MOST: usize = 20_000;

/// How long a worker that is no longer there is still shown.
const FAREWELL: Duration = Duration::from_secs(5);

/// A cluster and what was last told of it.
pub struct Cluster {
    title: String,
    rows: Vec<Row>,
    /// The workers that have stopped since, and when that was seen.
    gone: Vec<(Row, Instant)>,
    notice: Option<String>,
    told: Arc<Mutex<Option<Told>>>,
    /// Dropped, it ends the thread.
    _asking: Sender<()>,
}

/// What one round brought: rows, and whether there are more; or why there are none.
type Told = Result<(Vec<Row>, bool), String>;

impl Cluster {
    /// Begins to ask. `wake` is called when [`Source::catch_up`] has work.
    pub fn open(url: Url, signing: Option<SigningKeys>, cluster: &str, wake: Wake) -> io::Result<Self> {
        let title = format!("{} at {url}", Plain(cluster));
        let mut fleet = Fleet::new(url, cluster);
        if let Some(keys) = signing {
            fleet = fleet.signed(keys);
        }
        let told = Arc::new(Mutex::new(None));
        let desk = Arc::clone(&told);
        let (asking, wanted) = channel();
        thread::Builder::new().name("redis".to_owned()).spawn(move || {
            loop {
                let begun = Instant::now();
                let answer = ask(&mut fleet).map_err(|error| format!("{}: {error}", error.kind()));
                // A large cluster is asked more rarely; a Redis that is away, as often as ever.
                let rest = if answer.is_ok() { REST.max(begun.elapsed() * SHARE) } else { REST };
                *desk.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                wake();
                if wanted.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        let (rows, gone) = (Vec::new(), Vec::new());
        Ok(Self { title, rows, gone, notice: None, told, _asking: asking })
    }

    fn take(&mut self, told: Told) {
        match told {
            Ok((rows, more)) => {
                self.notice = more.then(|| format!("more than {MOST} workers: not all are shown"));
                let before = mem::replace(&mut self.rows, rows);
                let now = Instant::now();
                let there: HashSet<&OsStr> = self.rows.iter().map(|row| row.key.as_os_str()).collect();
                let is_there = |row: &Row| there.contains(row.key.as_os_str());
                let missed: Vec<_> = before.into_iter().filter(|row| !is_there(row)).collect();
                self.gone.retain(|(row, _)| !is_there(row));
                self.gone.extend(missed.into_iter().map(|row| (farewell(row), now)));
            }
            Err(why) => {
                for row in &mut self.rows {
                    doubt(row, &why);
                }
                self.notice = Some(why);
            }
        }
    }
}

impl Source for Cluster {
    fn rows(&self) -> Vec<&Row> {
        self.rows.iter().chain(self.gone.iter().map(|(row, _)| row)).collect()
    }

    fn title(&self) -> String {
        self.title.clone()
    }

    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn emptiness(&self) -> &'static str {
        "no workers yet: one is shown as soon as it beats to this Redis"
    }

    fn next_tick(&self) -> Duration {
        REST
    }

    fn catch_up(&mut self) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(told) = told {
            self.take(told);
        }
    }

    fn tick(&mut self) {
        self.gone.retain(|(_, since)| since.elapsed() < FAREWELL);
    }
}

fn ask(fleet: &mut Fleet) -> Result<(Vec<Row>, bool), Error> {
    let keep = |member: Member| (member.is_fresh(), judged(&member));
    let (mut rows, more) = read_all(fleet, None, MOST, Instant::now() + PATIENCE, keep)?;
    drop_succeeded(&mut rows, |(fresh, row)| (&row.worker, *fresh, row.age_ms.unwrap_or_default()));
    let mut rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    name_apart(&mut rows);
    Ok((rows, more))
}

fn judged(member: &Member) -> Row {
    let judgement = member.judge(None);
    let record = member.record();
    let age_ms = member.age_ms.unwrap_or_default();
    let now_mono_ms = record.map_or(0, |record| record.at_mono_ms.saturating_add(age_ms));
    Row {
        key: member.id.to_string().into(),
        worker: Plain(&member.worker).to_string(),
        verdict: judgement.verdict,
        reason: Plain(&judgement).to_string(),
        age_ms: member.age_ms,
        account: record.map(|record| Account::of(record, now_mono_ms)),
        place: match record {
            None if !member.host.is_empty() => format!("host {}, id {}", Plain(&member.host), member.id),
            _ => format!("id {}", member.id),
        },
    }
}

/// A worker keeps its row when it starts anew, so its key is its name. Where two have the same name, which is a mistake
/// that should be seen, both have a row.
fn name_apart(rows: &mut [Row]) {
    rows.sort_by(|one, other| one.worker.cmp(&other.worker).then_with(|| one.key.cmp(&other.key)));
    let mut before = None;
    for row in rows {
        if before.as_ref() != Some(&row.worker) {
            row.key = row.worker.clone().into();
        }
        before = Some(row.worker.clone());
    }
}

/// A clean stop removes a worker; what it last said of itself no longer holds.
fn farewell(row: Row) -> Row {
    let reason = "it has withdrawn, or has been silent for so long that it is forgotten".to_owned();
    Row { verdict: Verdict::Missing, reason, account: None, age_ms: None, ..row }
}

fn doubt(row: &mut Row, why: &str) {
    if row.verdict != Verdict::Unknown {
        row.reason = format!("{} (last seen {})", Plain(why), row.verdict);
        row.verdict = Verdict::Unknown;
        row.age_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    fn cluster(rows: Vec<Row>) -> Cluster {
        let (asking, _) = channel();
        let told = Arc::default();
        Cluster { title: "orders".to_owned(), rows, gone: Vec::new(), notice: None, told, _asking: asking }
    }

    #[test]
    fn a_redis_that_does_not_answer_takes_no_row_away_and_every_verdict() {
        let mut cluster = cluster(vec![row("a", Verdict::Alive), row("b", Verdict::Silent)]);
        for _ in 0..2 {
            cluster.take(Err("Redis cannot be reached".to_owned()));
        }
        let rows = cluster.rows();
        assert!(rows.iter().all(|row| row.verdict == Verdict::Unknown));
        assert_eq!(rows[0].reason, "Redis cannot be reached (last seen alive)");
        assert_eq!(cluster.notice(), Some("Redis cannot be reached"));
        cluster.take(Ok((vec![row("a", Verdict::Alive)], false)));
        assert_eq!(cluster.notice(), None);
    }

    #[test]
    fn who_has_stopped_is_missing_for_a_while_and_is_back_at_once() {
        let mut cluster = cluster(vec![row("a", Verdict::Alive)]);
        cluster.take(Ok((Vec::new(), false)));
        assert_eq!(cluster.rows().iter().map(|row| row.verdict).collect::<Vec<_>>(), [Verdict::Missing]);
        cluster.take(Ok((vec![row("a", Verdict::Alive)], false)));
        assert_eq!(cluster.rows().iter().map(|row| row.verdict).collect::<Vec<_>>(), [Verdict::Alive]);
    }

    #[test]
    fn two_of_one_name_both_have_a_row() {
        let named = |key: &str| Row { key: key.into(), ..row("a", Verdict::Alive) };
        let mut rows = vec![named("2"), named("1"), Row { key: "3".into(), ..row("b", Verdict::Alive) }];
        name_apart(&mut rows);
        assert_eq!(rows.iter().map(|row| row.key.to_str().unwrap()).collect::<Vec<_>>(), ["a", "2", "b"]);
    }
}
