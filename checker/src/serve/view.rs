//! One answer as it is shown: made of one configuration at one moment, with no more in it than may be told.
//!
//! Formats (`formats`) and whatever else shows checks take it from here and read no settings themselves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::Status;
use shared::runner::{Outcome, Overall, Report, Warnings};

use super::board::Setup;
use super::standing::{Change, Moment, Run};
use super::watched::Told;
use crate::format::Shown;

/// The words that an answer as a whole is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// `ok`, `warning`, `fail`.
    Whole,
    /// `ready`, `not_ready`.
    Ready,
    /// `started`, `not_started`.
    Started,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct View {
    /// What was asked about: the subset's name.
    pub subset: String,
    /// The words for the whole.
    pub words: Words,
    /// What the checks amount to together; [`Overall::Fail`] while the server is about to stop and readiness is asked.
    pub overall: Overall,
    /// Whether that passes, by what a warning counts for.
    pub passed: bool,
    /// The checks, in the order of the subset.
    pub checks: Vec<Seen>,
    /// When the answer was given.
    pub at: SystemTime,
    /// The absolute URL that it was asked at, without its query. Where nobody says otherwise, of this machine.
    pub address: String,
    /// What may be told.
    pub shown: Shown,
    /// The configuration that it was made of.
    pub setup: Arc<Setup>,
}

/// A check as it is shown.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its answer: name, status, and reason where reasons are told. How long it took is for who looks at [`View::shown`].
    pub outcome: Outcome,
    /// Its kind's word.
    pub kind: &'static str,
    /// When its last answer came; nothing where it has never been asked.
    pub answered: Option<Moment>,
    /// Since when it stands as it does.
    pub since: Moment,
    /// What stood before, where anything did.
    pub before: Option<Status>,
    told: Told,
    shown: Shown,
}

impl Seen {
    /// What may be shown of what was told.
    pub fn new(told: Told, kind: &'static str, shown: Shown) -> Self {
        let mut outcome = told.outcome.clone();
        outcome.source = None;
        outcome.reason = outcome.reason.filter(|_| shown.reasons);
        Self { outcome, kind, answered: told.answered, since: told.since, before: told.before, told, shown }
    }

    /// How long the last run took, where that is told.
    pub fn took(&self) -> Option<Duration> {
        (self.shown.durations && self.answered.is_some()).then_some(self.outcome.took)
    }

    /// The last runs, the latest last, each with how long it took where that is told.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = (Run, Option<Duration>)> + '_ {
        let took = |run: &Run| self.shown.durations.then_some(run.took);
        self.told.standing.runs.iter().map(move |run| (*run, took(run)))
    }

    /// The last changes, the latest last; their reasons where reasons are told.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = Change> + '_ {
        let may = self.shown.reasons;
        self.told
            .standing
            .changes
            .iter()
            .map(move |change| Change { reason: change.reason.clone().filter(|_| may), ..change.clone() })
    }
}

impl View {
    /// Sums the checks up.
    pub fn new(setup: &Arc<Setup>, subset: &str, words: Words, checks: Vec<Seen>) -> Self {
        let outcomes = checks.iter().map(|seen| seen.outcome.clone()).collect();
        let overall = Report::new(outcomes, Duration::ZERO).status;
        let mut view = Self {
            subset: subset.to_owned(),
            words,
            overall,
            passed: false,
            checks,
            at: SystemTime::now(),
            address: format!("http://localhost/healthcheck/{subset}"),
            shown: setup.shown(),
            setup: Arc::clone(setup),
        };
        view.passed = overall.passes(view.warnings());
        view
    }

    /// The answer that the process is up, which needs no check.
    pub fn alive(setup: &Arc<Setup>) -> Self {
        let view = Self::new(setup, super::board::LIVENESS, Words::Whole, Vec::new());
        Self { overall: Overall::Ok, passed: true, ..view }
    }

    /// The same, which does not pass, whatever the checks say.
    #[must_use]
    pub fn failing(self) -> Self {
        Self { overall: Overall::Fail, passed: false, ..self }
    }

    /// The word for the whole.
    pub fn word(&self) -> &'static str {
        match (self.words, self.passed) {
            (Words::Whole, _) => self.overall.as_str(),
            (Words::Ready, true) => "ready",
            (Words::Ready, false) => "not_ready",
            (Words::Started, true) => "started",
            (Words::Started, false) => "not_started",
        }
    }

    /// The status for the whole.
    pub fn status(&self) -> Status {
        match self.overall {
            Overall::Ok => Status::Pass,
            Overall::Warning => Status::Warn,
            Overall::Fail => Status::Fail,
        }
    }

    /// What a warning counts for.
    pub fn warnings(&self) -> Warnings {
        if self.setup.server.warnings_fail { Warnings::Fail } else { Warnings::Pass }
    }

    /// The same as a run of a command would tell it.
    pub fn report(&self) -> Report {
        let outcomes: Vec<_> = self.checks.iter().map(|seen| seen.outcome.clone()).collect();
        let took = outcomes.iter().map(|outcome| outcome.took).max().unwrap_or_default();
        Report { status: self.overall, outcomes, took }
    }
}
