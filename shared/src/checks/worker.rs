//! One worker, judged by its beat file on its own machine.
//!
//! What is seen and what it means is decided in `heartbeat`; this file adds the asker's policy: what was asked
//! for (liveness or readiness), what an overdue task counts for, and what it counts for that nobody can tell.

#[cfg(feature = "run")]
pub mod check;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use heartbeat::observe::{Moment, Observation, Owner, observe};
use heartbeat::record::Record;
use heartbeat::verdict::Verdict;
use nix::unistd::User;
#[cfg(feature = "run")]
use schemars::JsonSchema;
#[cfg(feature = "run")]
use serde::{Deserialize, Serialize};

use crate::status::Status;

/// What is asked, of which worker, and by which policy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The worker's beat file.
    pub file: PathBuf,
    /// How long ago the last beat may be, in place of the worker's own promise. It also makes an empty, touched
    /// file a heartbeat, judged by its mtime alone.
    pub max_age: Option<Duration>,
    /// What is asked for.
    pub want: Want,
    /// What a task past its deadline counts for, where liveness is asked.
    pub overdue: Overdue,
    /// Who may own the beat file, besides the checker's own user and root.
    pub owner: Owner,
    /// What it counts for that the checker cannot tell. Default: it passes for liveness, so that a starved checker
    /// kills nobody, and fails for readiness.
    pub unknown: Option<Unknown>,
}

/// What is asked of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "run", derive(Deserialize, Serialize, JsonSchema), serde(rename_all = "lowercase"))]
pub enum Want {
    /// That it should be left running.
    #[default]
    Live,
    /// That it takes work.
    Ready,
}

impl Want {
    /// The choices.
    pub const ALL: [Self; 2] = [Self::Live, Self::Ready];

    /// The choice's word on a command line and in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
        }
    }
}

/// What a task past its deadline counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "run", derive(Deserialize, Serialize, JsonSchema), serde(rename_all = "lowercase"))]
pub enum Overdue {
    /// The worker is not live.
    #[default]
    Fail,
    /// The worker is live, with a warning. It is not ready all the same.
    Warn,
}

impl Overdue {
    /// The choices.
    pub const ALL: [Self; 2] = [Self::Fail, Self::Warn];

    /// The choice's word on a command line and in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Warn => "warn",
        }
    }
}

/// What an answer of `unknown` counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "run", derive(Deserialize, Serialize, JsonSchema), serde(rename_all = "lowercase"))]
pub enum Unknown {
    /// It passes.
    Pass,
    /// It fails.
    Fail,
}

impl Unknown {
    /// The choices.
    pub const ALL: [Self; 2] = [Self::Pass, Self::Fail];

    /// The choice's word on a command line and in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

/// What was found out about one worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// What it amounts to.
    pub status: Status,
    /// Whether it is what was asked for, by the asker's policy.
    pub passed: bool,
    /// What was asked.
    pub want: Want,
    /// What is concluded of the worker.
    pub verdict: Verdict,
    /// Why, as one sentence without the verdict's name.
    pub reason: String,
    /// How long ago the last beat was made or the empty file touched, where there is such a moment.
    pub age_ms: Option<u64>,
    /// How long ago it may be: the asker's `max_age`, else the worker's own promise.
    pub budget_ms: Option<u64>,
    /// The beat file.
    pub file: PathBuf,
    /// What the worker published, where it can be read.
    pub record: Option<Box<Record>>,
}

impl Answer {
    /// The worker's name, where there is a record.
    pub fn worker(&self) -> Option<&str> {
        self.record.as_ref().map(|record| record.worker.as_str())
    }

    /// The name of the worker's cluster, where there is a record.
    pub fn cluster(&self) -> Option<&str> {
        self.record.as_ref().map(|record| record.cluster.as_str())
    }
}

impl Settings {
    /// The question whether the worker that beats at `file` is live, by the default policy.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            max_age: None,
            want: Want::default(),
            overdue: Overdue::default(),
            owner: Owner::default(),
            unknown: None,
        }
    }

    /// Looks at the beat file once, and judges.
    ///
    /// ```
    /// use shared::{Status, checks::worker::Settings};
    ///
    /// let answer = Settings::new("/nonexistent/beat").answer();
    /// assert_eq!(answer.status, Status::Fail);
    /// assert_eq!(answer.reason, "there is no beat file");
    /// ```
    pub fn answer(&self) -> Answer {
        let first = self.look();
        if first.verdict != Verdict::Gone {
            return first;
        }
        // Between the file and its process, the worker may have been replaced by its next incarnation.
        let second = self.look();
        let id = |answer: &Answer| answer.record.as_ref().map(|record| record.id);
        if id(&first) == id(&second) { first } else { second }
    }

    fn look(&self) -> Answer {
        let max_age_ms = self.max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let asked = Moment::now();
        let seen = observe(&self.file, self.owner);
        let judgement = seen.judge_as_of(asked, max_age_ms);
        let mut answer = self.conclude(judgement.verdict, judgement.to_string());
        answer.age_ms = seen.age_ms_as_of(asked);
        answer.budget_ms = max_age_ms.or(seen.record().map(|record| record.promise_ms));
        if let Observation::Record(record) = seen {
            answer.record = Some(record);
        }
        answer
    }

    /// The answer of an asker who cannot tell, for a reason of its own.
    pub fn cannot_tell(&self, reason: impl Into<String>) -> Answer {
        self.conclude(Verdict::Unknown, reason.into())
    }

    fn conclude(&self, verdict: Verdict, reason: String) -> Answer {
        let (status, passed) = self.policy(verdict);
        Answer {
            status,
            passed,
            want: self.want,
            verdict,
            reason,
            age_ms: None,
            budget_ms: None,
            file: self.file.clone(),
            record: None,
        }
    }

    fn policy(&self, verdict: Verdict) -> (Status, bool) {
        let fits = match self.want {
            Want::Live => verdict.live(),
            Want::Ready => verdict.ready(),
        };
        let tolerated = match verdict {
            Verdict::CutOff => true,
            Verdict::Overdue => self.overdue == Overdue::Warn,
            _ => false,
        };
        match fits {
            None => (Status::Unknown, self.unknown_passes()),
            Some(_) if self.want == Want::Live && tolerated => (Status::Warn, true),
            Some(true) => (Status::Pass, true),
            Some(false) => (Status::Fail, false),
        }
    }

    fn unknown_passes(&self) -> bool {
        match self.unknown {
            Some(unknown) => unknown == Unknown::Pass,
            None => self.want == Want::Live,
        }
    }
}

/// Reads who may own a beat file: `any`, a numeric user id, or a user's name as this machine knows it.
///
/// Looks a name up in the system's user database; a static executable reads `/etc/passwd` only.
pub fn parse_owner(text: &str) -> Result<Owner, NoSuchUser> {
    if text == "any" {
        return Ok(Owner::Any);
    }
    if let Ok(id) = text.parse() {
        return Ok(Owner::User(id));
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(Owner::User(user.uid.as_raw())),
        // Whether there is no such user or no database to look into: either way a number helps.
        Ok(None) | Err(_) => Err(NoSuchUser(text.to_owned())),
    }
}

/// A user's name that this machine does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchUser(String);

impl fmt::Display for NoSuchUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no user is named {:?} here; a numeric user id always works", self.0)
    }
}

impl std::error::Error for NoSuchUser {}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(want: Want, overdue: Overdue, unknown: Option<Unknown>) -> Settings {
        Settings { want, overdue, unknown, ..Settings::new("/nonexistent") }
    }

    fn policy(want: Want, verdict: Verdict) -> (Status, bool) {
        asked(want, Overdue::Fail, None).policy(verdict)
    }

    #[test]
    fn each_verdict_counts_for_what_the_table_of_verdicts_says() {
        for verdict in Verdict::ALL {
            let live = match verdict {
                Verdict::Alive | Verdict::Starting | Verdict::Draining => (Status::Pass, true),
                Verdict::CutOff => (Status::Warn, true),
                Verdict::Unknown => (Status::Unknown, true),
                _ => (Status::Fail, false),
            };
            assert_eq!(policy(Want::Live, verdict), live, "{verdict}");
            let ready = match verdict {
                Verdict::Alive => (Status::Pass, true),
                Verdict::Unknown => (Status::Unknown, false),
                _ => (Status::Fail, false),
            };
            assert_eq!(policy(Want::Ready, verdict), ready, "{verdict}");
        }
    }

    #[test]
    fn a_tolerated_overdue_task_is_a_warning_for_liveness_and_changes_nothing_else() {
        for verdict in Verdict::ALL {
            let live = asked(Want::Live, Overdue::Warn, None).policy(verdict);
            let ready = asked(Want::Ready, Overdue::Warn, None).policy(verdict);
            if verdict == Verdict::Overdue {
                assert_eq!(live, (Status::Warn, true));
            } else {
                assert_eq!(live, policy(Want::Live, verdict), "{verdict}");
            }
            assert_eq!(ready, policy(Want::Ready, verdict), "{verdict}");
        }
    }

    #[test]
    fn what_nobody_can_tell_passes_as_it_is_asked_for_and_stays_unknown() {
        for (unknown, passed) in [(Unknown::Pass, true), (Unknown::Fail, false)] {
            for want in [Want::Live, Want::Ready] {
                let settings = asked(want, Overdue::Fail, Some(unknown));
                assert_eq!(settings.policy(Verdict::Unknown), (Status::Unknown, passed));
                assert_eq!(settings.policy(Verdict::Alive), (Status::Pass, true));
                assert_eq!(settings.policy(Verdict::Gone), (Status::Fail, false));
            }
        }
    }

    #[test]
    fn a_touched_file_is_a_heartbeat_only_where_an_age_is_given() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut settings = Settings::new(file.path());
        assert_eq!(settings.answer().verdict, Verdict::Corrupt);
        settings.max_age = Some(Duration::from_mins(1));
        let answer = settings.answer();
        assert_eq!((answer.verdict, answer.passed, answer.budget_ms), (Verdict::Alive, true, Some(60_000)));
        assert!(answer.age_ms.is_some() && answer.worker().is_none() && answer.cluster().is_none());
    }

    #[test]
    fn an_owner_is_any_a_number_or_a_name_that_is_known_here() {
        assert_eq!(parse_owner("any"), Ok(Owner::Any));
        assert_eq!(parse_owner("65534"), Ok(Owner::User(65_534)));
        assert_eq!(parse_owner("root"), Ok(Owner::User(0)));
        for unknown in ["", "-1", "4294967296", "no-such-user", "a\0b"] {
            assert!(parse_owner(unknown).is_err(), "{unknown:?}");
        }
    }
}
