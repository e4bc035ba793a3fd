//! One line of the table as plain data, wherever it comes from, and how its cells read.
//!
//! Pure: a source fills rows in, the terminal and the plain lines show them.

use std::cmp::Ordering;
use std::ffi::OsString;

use heartbeat::observe::{Moment, Observation};
use heartbeat::record::{Record, Status};
use heartbeat::verdict::Verdict;

use crate::format::plain::Plain;

/// One worker, as it was judged last.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is called in its source: unique there, and the same for as long as the worker is there.
    pub key: OsString,
    /// The worker's name; where there is no record, that of the place where one should be.
    pub worker: String,
    pub verdict: Verdict,
    /// Why, as one sentence.
    pub reason: String,
    /// Since the last beat.
    pub age_ms: Option<u64>,
    /// What the worker says of itself.
    pub account: Option<Account>,
    /// Where it was found, for who looks closer.
    pub place: String,
}

/// What a worker says of itself, as far as the table shows it.
#[derive(Clone, Debug)]
pub struct Account {
    pub cluster: String,
    pub queues: Vec<String>,
    pub host: String,
    pub pid: u32,
    pub status: Status,
    pub running: u64,
    pub done: u64,
    pub failed: u64,
    pub nearest: Option<Due>,
}

/// The running task whose deadline is nearest.
#[derive(Clone, Debug)]
pub struct Due {
    pub name: String,
    pub when: When,
}

/// How it stands with a deadline, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Left(u64),
    Late(u64),
    Never,
}

/// What a verdict means for the eye. Never shown without the verdict's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// Not live.
    Bad,
    /// It cannot be told.
    Unsure,
    /// Live, but not taking work.
    Between,
    /// Live and ready.
    Good,
}

impl Tone {
    pub fn of(verdict: Verdict) -> Self {
        match (verdict.live(), verdict.ready()) {
            (Some(false), _) => Self::Bad,
            (None, _) => Self::Unsure,
            (_, Some(true)) => Self::Good,
            _ => Self::Between,
        }
    }
}

/// The columns' headings, in the order of [`Row::cells`].
pub const HEADINGS: [&str; 8] =
    ["worker", "verdict", "age", "status", "run", "done", "fail", "next deadline"];

impl Row {
    /// Judges what was found at `key` by a look that began at `asked`.
    pub fn judged(key: OsString, observation: &Observation, asked: Moment) -> Self {
        let judgement = observation.judge_as_of(asked, None);
        let age_ms = observation.age_ms_as_of(asked);
        let record = observation.record();
        let place = format!("file {}", Plain(key.display()));
        let worker = match record {
            Some(record) => Plain(&record.worker).to_string(),
            None => Plain(key.display()).to_string(),
        };
        Self {
            key,
            worker,
            verdict: judgement.verdict,
            reason: Plain(&judgement).to_string(),
            age_ms,
            account: record.map(|record| Account::of(record, record.at_mono_ms + age_ms.unwrap_or_default())),
            place,
        }
    }

    /// The worst first, and among equals by name, so that rows keep their places.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |row: &Self| Tone::of(row.verdict);
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.worker.cmp(&other.worker))
            .then_with(|| self.key.cmp(&other.key))
    }

    /// What stands in each column; narrow, so that all of it fits in 80.
    pub fn cells(&self) -> [String; 8] {
        let account = self.account.as_ref();
        let of = |show: fn(&Account) -> String| account.map(show).unwrap_or_default();
        [
            self.worker.clone(),
            self.verdict.to_string(),
            self.age_ms.map(span).unwrap_or_default(),
            of(|account| account.status.to_string()),
            of(|account| count(account.running)),
            of(|account| count(account.done)),
            of(|account| count(account.failed)),
            of(|account| account.nearest.as_ref().map(Due::to_cell).unwrap_or_default()),
        ]
    }

    /// Verdict and reason as a sentence.
    pub fn sentence(&self) -> String {
        format!("{} is {}: {}", self.worker, self.verdict, self.reason)
    }

    /// Who and where the worker is, for who looks closer.
    pub fn whereabouts(&self) -> String {
        let place = &self.place;
        let Some(account) = &self.account else { return place.clone() };
        let Account { cluster, host, pid, .. } = account;
        let queues = match &account.queues[..] {
            [] => String::new(),
            queues => format!(", queues {}", queues.join(" ")),
        };
        format!("cluster {cluster}{queues}, host {host}, pid {pid}, {place}")
    }
}

impl Account {
    pub fn of(record: &Record, now_mono_ms: u64) -> Self {
        let plain = |text: &String| Plain(text).to_string();
        let nearest = record.tasks.nearest.as_ref().map(|task| Due {
            name: plain(&task.name),
            when: match task.due_mono_ms {
                Some(due) if due < now_mono_ms => When::Late(now_mono_ms - due),
                Some(due) => When::Left(due - now_mono_ms),
                None => When::Never,
            },
        });
        Self {
            cluster: plain(&record.cluster),
            queues: record.queues.iter().map(plain).collect(),
            host: plain(&record.host),
            pid: record.pid,
            status: record.status,
            running: record.tasks.running,
            done: record.tasks.done,
            failed: record.tasks.failed,
            nearest,
        }
    }
}

impl Due {
    /// The time first: a long name may be cut.
    fn to_cell(&self) -> String {
        match self.when {
            When::Left(ms) => format!("in {} {}", span(ms), self.name),
            When::Late(ms) => format!("{} ago {}", span(ms), self.name),
            When::Never => format!("none {}", self.name),
        }
    }
}

/// A time in at most five characters: `0.8s`, `42s`, `59m`, `23h`, `365d`.
fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        10_000..60_000 => format!("{}s", ms / 1_000),
        60_000..3_600_000 => format!("{}m", ms / 60_000),
        3_600_000..86_400_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// A number in at most five characters, rounded down.
fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..1_000_000 => format!("{}k", number / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row of a worker that has told of itself.
    pub fn row(worker: &str, verdict: Verdict) -> Row {
        let nearest = Due { name: "encode".to_owned(), when: When::Left(29_000) };
        let account = Account {
            cluster: "orders".to_owned(),
            queues: vec!["mail".to_owned(), "default".to_owned()],
            host: "web".to_owned(),
            pid: 42,
            status: Status::Busy,
            running: 2,
            done: 1_234_567,
            failed: 3,
            nearest: Some(nearest),
        };
        Row {
            key: worker.into(),
            worker: worker.to_owned(),
            verdict,
            reason: "for a reason".to_owned(),
            age_ms: Some(812),
            account: Some(account),
            place: format!("file {worker}"),
        }
    }

    #[test]
    fn every_verdict_stands_in_its_row_as_a_word() {
        for verdict in Verdict::ALL {
            let cells = row("a", verdict).cells();
            assert_eq!(cells[..2], ["a", verdict.as_str()]);
            assert_eq!(cells[2..], ["0.8s", "busy", "2", "1M", "3", "in 29s encode"]);
        }
    }

    #[test]
    fn a_row_without_a_record_is_a_name_and_a_verdict() {
        let row = Row { account: None, age_ms: None, ..row("notes.txt", Verdict::Corrupt) };
        assert_eq!(row.cells(), ["notes.txt", "corrupt", "", "", "", "", "", ""]);
        assert_eq!(row.whereabouts(), "file notes.txt");
    }

    #[test]
    fn what_is_wrong_stands_above_what_is_not() {
        let mut rows: Vec<_> = Verdict::ALL.into_iter().map(|verdict| row("a", verdict)).collect();
        rows.extend([row("b", Verdict::Gone), row("b", Verdict::Alive)]);
        rows.sort_by(Row::order);
        let tones: Vec<_> = rows.iter().map(|row| Tone::of(row.verdict)).collect();
        assert!(tones.is_sorted());
        assert_eq!(tones[0], Tone::Bad);
        assert_eq!(rows.last().map(|row| row.worker.as_str()), Some("b"));
    }

    #[test]
    fn a_deadline_reads_as_what_is_left_of_it_or_how_long_it_is_past() {
        let cell = |when| Due { name: "encode".to_owned(), when }.to_cell();
        assert_eq!(cell(When::Left(90_000)), "in 1m encode");
        assert_eq!(cell(When::Late(1_500)), "1.5s ago encode");
        assert_eq!(cell(When::Never), "none encode");
    }

    #[test]
    fn times_and_numbers_fit_in_five_characters() {
        let year = 365 * 86_400_000;
        for ms in [0, 999, 1_000, 9_999, 10_000, 59_999, 60_000, 3_599_999, 3_600_000, 86_400_000, year] {
            assert!(span(ms).len() <= 5, "{}", span(ms));
        }
        for number in [0, 99_999, 100_000, 999_999, 1_000_000, 999_999_999, 1_000_000_000] {
            assert!(count(number).len() <= 5, "{}", count(number));
        }
        assert_eq!((span(9_949), span(61_000), count(123_456)), ("9.9s".into(), "1m".into(), "123k".into()));
    }

    #[test]
    fn a_name_from_a_file_cannot_steer_the_terminal() {
        let missing = Observation::Missing(std::io::ErrorKind::NotFound);
        let row = Row::judged("a\u{1b}[2J".into(), &missing, Moment::now());
        assert_eq!((row.worker.as_str(), row.verdict), ("a\\u{1b}[2J", Verdict::Missing));
    }
}
