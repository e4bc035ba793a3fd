//! What stands of a check: its status once `fall` and `rise` are counted, since when, and its bounded past.
//!
//! No clock is read and nothing is asked here: an answer comes in with its time, and what stands after it is decided.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant, SystemTime};

use shared::Status;
use shared::runner::Outcome;

/// How many runs are remembered of each check.
pub const RUNS: usize = 60;

/// How many changes are remembered of each check.
pub const CHANGES: usize = 20;

/// What is said of a check that has not answered yet.
pub const NOT_ASKED: &str = "not asked yet";

/// What is said of a check whose last answer is of long ago.
pub const NOT_LATELY: &str = "not asked lately";

/// A time, for decisions and for people.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For decisions: it only goes forward.
    pub mono: Instant,
    /// For people.
    pub wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { mono: Instant::now(), wall: SystemTime::now() }
    }

    /// So much later; the same where no clock goes that far.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let later = self.mono.checked_add(time).zip(self.wall.checked_add(time));
        later.map_or(self, |(mono, wall)| Self { mono, wall })
    }
}

/// One run of a check.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// When it ended.
    pub at: Moment,
    /// What it amounted to by itself, whatever stood after it.
    pub status: Status,
    /// How long it took.
    pub took: Duration,
}

/// A change of what stands.
#[derive(Clone, Debug)]
pub struct Change {
    /// Counted from 1, each check for itself: a new one has a number of its own.
    pub number: u64,
    /// What all changes of this `Standing` have, and no other one's.
    pub series: u128,
    /// When.
    pub at: Moment,
    /// What stood before.
    pub from: Status,
    /// What stands since.
    pub to: Status,
    /// Why, for everyone.
    pub reason: Option<String>,
}

impl Change {
    /// Its name among all changes of all checks everywhere, as a URI: of its series, with its number in the last 48 bits.
    pub fn id(&self) -> String {
        const NUMBER: u128 = (1 << 48) - 1;
        // Version 4 and its variant, as RFC 9562 has them.
        const FIXED: u128 = 0xf000_c000_0000_0000_0000;
        const RANDOM: u128 = 0x4000_8000_0000_0000_0000;
        let id = self.series & !NUMBER & !FIXED | RANDOM | u128::from(self.number) & NUMBER;
        let hex = format!("{id:032x}");
        format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// What stands of a check.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The status that counts.
    pub status: Status,
    /// Why it is no pass, for everyone.
    pub reason: Option<String>,
    /// Since when the status is this one.
    pub since: Moment,
    /// The last runs, the latest last.
    pub runs: VecDeque<Run>,
    /// The last changes, the latest last.
    pub changes: VecDeque<Change>,
    changed: u64,
    series: u128,
    better: u32,
    worse: u32,
}

/// How many answers in a row it takes.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To stand worse than before.
    pub fall: NonZeroU32,
    /// To stand better again.
    pub rise: NonZeroU32,
}

impl Standing {
    /// Of a check that has never been asked. `series` is a number that no other one has: 128 random bits.
    pub fn new(since: Moment, series: u128) -> Self {
        Self {
            status: Status::Unknown,
            reason: Some(NOT_ASKED.to_owned()),
            since,
            runs: VecDeque::new(),
            changes: VecDeque::new(),
            changed: 0,
            series,
            better: 0,
            worse: 0,
        }
    }

    /// Takes note of a run's answer. What stands changes with it where there have been enough in a row; the first one counts
    /// at once.
    pub fn note(&mut self, outcome: &Outcome, at: Moment, patience: Patience) -> Option<&Change> {
        let first = self.runs.is_empty();
        push(&mut self.runs, Run { at, status: outcome.status, took: outcome.took }, RUNS);
        let (new, old) = (rank(outcome.status), rank(self.status));
        self.better = if new < old { self.better + 1 } else { 0 };
        self.worse = if new > old { self.worse + 1 } else { 0 };
        let waits = !first
            && (new < old && self.better < patience.rise.get()
                || new > old && self.worse < patience.fall.get());
        if waits {
            return None;
        }
        (self.better, self.worse) = (0, 0);
        self.reason.clone_from(&outcome.reason);
        if self.status == outcome.status {
            return None;
        }
        let from = std::mem::replace(&mut self.status, outcome.status);
        self.since = at;
        self.changed += 1;
        let (number, series, reason) = (self.changed, self.series, self.reason.clone());
        let change = Change { number, series, at, from, to: self.status, reason };
        push(&mut self.changes, change, CHANGES);
        self.changes.back()
    }
}

/// Not to know is as bad as to know of a failure.
fn rank(status: Status) -> u8 {
    match status {
        Status::Pass => 0,
        Status::Warn => 1,
        Status::Fail | Status::Unknown => 2,
    }
}

fn push<T>(queue: &mut VecDeque<T>, latest: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(latest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Status) -> Outcome {
        Outcome {
            name: "it".to_owned(),
            status,
            critical: true,
            reason: (status != Status::Pass).then(|| "why".to_owned()),
            took: Duration::ZERO,
            source: None,
        }
    }

    fn after(answers: &[Status], fall: u32, rise: u32) -> Standing {
        let number = |number| NonZeroU32::new(number).unwrap();
        let mut standing = Standing::new(Moment::now(), u128::MAX);
        for answer in answers {
            standing.note(
                &outcome(*answer),
                Moment::now(),
                Patience { fall: number(fall), rise: number(rise) },
            );
        }
        standing
    }

    use Status::{Fail, Pass, Unknown, Warn};

    #[test]
    fn it_begins_unknown_and_the_first_answer_counts_at_once() {
        assert_eq!((after(&[], 3, 3).status, after(&[], 3, 3).reason.as_deref()), (Unknown, Some(NOT_ASKED)));
        for status in Status::ALL {
            assert_eq!(after(&[status], 3, 3).status, status);
        }
        assert_eq!(after(&[Pass], 3, 3).reason, None);
    }

    #[test]
    fn so_many_failures_in_a_row_count_and_so_many_passes_end_it() {
        for (answers, stands) in [
            (&[Pass, Fail, Fail][..], Pass),
            (&[Pass, Fail, Fail, Fail], Fail),
            (&[Pass, Fail, Fail, Pass, Fail, Fail], Pass),
            (&[Pass, Fail, Unknown, Warn], Warn),
            (&[Pass, Unknown, Unknown, Unknown], Unknown),
            (&[Fail, Pass], Fail),
            (&[Fail, Pass, Fail, Pass], Fail),
            (&[Fail, Pass, Pass], Pass),
            (&[Fail, Unknown], Unknown),
            (&[Fail, Warn, Pass], Pass),
            (&[Warn, Fail, Fail, Pass, Pass], Pass),
        ] {
            assert_eq!(after(answers, 3, 2).status, stands, "{answers:?}");
        }
    }

    #[test]
    fn with_patience_of_one_every_answer_counts() {
        for status in Status::ALL {
            for next in Status::ALL {
                assert_eq!(after(&[status, next], 1, 1).status, next);
            }
        }
    }

    #[test]
    fn changes_are_numbered_and_the_past_is_bounded() {
        let answers: Vec<_> = (0..200).map(|number| if number % 2 == 0 { Pass } else { Fail }).collect();
        let standing = after(&answers, 1, 1);
        assert_eq!((standing.runs.len(), standing.changes.len()), (RUNS, CHANGES));
        let last = standing.changes.back().unwrap();
        assert_eq!((last.number, last.from, last.to), (200, Pass, Fail));
        assert_eq!(last.reason.as_deref(), Some("why"));
    }

    #[test]
    fn each_change_has_a_uuid_of_its_own() {
        let standing = after(&[Pass, Fail], 1, 1);
        let ids: Vec<_> = standing.changes.iter().map(Change::id).collect();
        assert_eq!(
            ids,
            [
                "urn:uuid:ffffffff-ffff-4fff-bfff-000000000001",
                "urn:uuid:ffffffff-ffff-4fff-bfff-000000000002"
            ]
        );
        let other = Change { series: 0, ..standing.changes[0].clone() };
        assert_eq!(other.id(), "urn:uuid:00000000-0000-4000-8000-000000000001");
    }
}
