//! Asks checks side by side, each with its own deadline and all with one, and sums up their answers.
//!
//! What a check asks is its own matter; how a report is shown is that of who asked for it. Nothing a check does reaches
//! beyond its own line of the report: one that hangs is `timed out`, one that panics has failed.
//!
//! [`ask`] is the piece that a server uses, which keeps its checks and asks each one for everybody who waits for it; [`run`]
//! is the whole of a run for a command, which holds its deadline even where a check blocks the thread that it runs on.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

use crate::check::{Check, Failure, chain};
use crate::hidden::without_secrets;
use crate::status::Status;

/// How long a check may take where its settings say nothing.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What is said of a check that did not answer by its deadline.
pub const TIMED_OUT: &str = "timed out";

/// How long after the last deadline an answer is still waited for, so that who was cut off there can say so itself.
const GRACE: Duration = Duration::from_millis(20);

/// A check with its name and what all checks have in their settings.
#[derive(Clone)]
pub struct Named {
    /// Its name, which no other check of the configuration has.
    pub name: String,
    /// How long one answer may take.
    pub timeout: Duration,
    /// Whether its failure is one of the whole; else it is a warning.
    pub critical: bool,
    /// The check.
    pub check: Arc<dyn Check>,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, timeout, critical, check: _ } = self;
        let mut shown = f.debug_struct("Named");
        shown
            .field("name", name)
            .field("timeout", timeout)
            .field("critical", critical)
            .finish_non_exhaustive()
    }
}

/// One check's answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The check's name.
    pub name: String,
    /// What the answer amounts to. The failure of a check that is not critical is a warning here already.
    pub status: Status,
    /// Whether the check is critical.
    pub critical: bool,
    /// Why it did not pass, for everyone.
    pub reason: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What happened, for the log alone: the error and what caused it, on one line.
    pub source: Option<String>,
}

impl Outcome {
    fn of(named: &Named, took: Duration, answer: Result<(), Failure>) -> Self {
        let passed = Self {
            name: named.name.clone(),
            status: Status::Pass,
            critical: named.critical,
            reason: None,
            took,
            source: None,
        };
        let Err(failure) = answer else { return passed };
        let status = match failure.status() {
            Status::Fail if !named.critical => Status::Warn,
            told => told,
        };
        let source = std::error::Error::source(&failure).map(chain);
        Self { status, reason: Some(without_secrets(failure.reason())), source, ..passed }
    }

    /// The status's word in a report.
    pub fn word(&self) -> &'static str {
        self.status.word()
    }

    /// What it counts for in the whole. Nobody can call that healthy which nobody can tell: it fails.
    fn counts_for(&self) -> Overall {
        match self.status {
            Status::Pass => Overall::Ok,
            Status::Warn => Overall::Warning,
            Status::Unknown if !self.critical => Overall::Warning,
            Status::Fail | Status::Unknown => Overall::Fail,
        }
    }
}

/// What the answers of a run amount to together: the worst of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overall {
    /// All passed.
    Ok,
    /// Nothing failed that is critical, and somebody should look.
    Warning,
    /// Something critical failed, or nobody can tell.
    Fail,
}

impl Overall {
    /// The choices.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Warning, Self::Fail];

    /// The word in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fail => "fail",
        }
    }

    /// Whether that passes, by what a warning counts for.
    pub fn passes(self, warnings: Warnings) -> bool {
        match self {
            Self::Ok => true,
            Self::Warning => warnings == Warnings::Pass,
            Self::Fail => false,
        }
    }
}

impl fmt::Display for Overall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a warning counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Warnings {
    /// It passes.
    #[default]
    Pass,
    /// It fails.
    Fail,
}

impl Warnings {
    /// The choices.
    pub const ALL: [Self; 2] = [Self::Pass, Self::Fail];

    /// The choice's word on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

/// The answers of one run, in the order of its checks.
#[derive(Clone, Debug)]
pub struct Report {
    /// What they amount to together.
    pub status: Overall,
    /// The answers.
    pub outcomes: Vec<Outcome>,
    /// How long the run took.
    pub took: Duration,
}

impl Report {
    /// Sums up answers. A run without any has told nothing, which is no pass.
    pub fn new(outcomes: Vec<Outcome>, took: Duration) -> Self {
        let status = outcomes.iter().map(Outcome::counts_for).max().unwrap_or(Overall::Fail);
        Self { status, outcomes, took }
    }
}

/// Asks one check, and contains whatever it does, within a runtime. At the deadline, the check's own or `until`, its question
/// is dropped, and the answer is that it timed out.
///
/// A deadline that has passed is nobody's fault but the asker's: the check is not asked, and has timed out too.
pub async fn ask(named: &Named, until: Instant) -> Outcome {
    let begun = Instant::now();
    let deadline = until.min(begun + named.timeout);
    if deadline <= begun {
        return Outcome::of(named, Duration::ZERO, Err(Failure::failed(TIMED_OUT)));
    }
    let answer = answer(&named.check, deadline).await;
    Outcome::of(named, begun.elapsed(), answer.unwrap_or_else(|| Err(Failure::failed(TIMED_OUT))))
}

/// A check's answer, or nothing at the deadline.
pub(crate) async fn answer(check: &Arc<dyn Check>, deadline: Instant) -> Option<Result<(), Failure>> {
    let check = Arc::clone(check);
    // Dropped, it takes the question back.
    let mut question = JoinSet::new();
    question.spawn(async move { check.run(deadline).await });
    let answer = tokio::time::timeout_at(deadline.into(), question.join_next()).await;
    // Where every thread was held up, an answer of long ago may come together with the deadline: it tells of then.
    let in_time = Instant::now() < deadline + GRACE;
    answer.ok().filter(|_| in_time).flatten().map(|answer| answer.unwrap_or_else(|error| Err(broken(error))))
}

/// What a panic said is for the panic hook: it may hold anything.
fn broken(_: JoinError) -> Failure {
    Failure::failed("the check itself failed unexpectedly")
}

/// Asks all of them side by side, and waits on the calling thread, which is none of the runtime's, until all have
/// answered or `until` has come.
///
/// What is left of those that have not answered ends with the runtime.
pub fn run(runtime: &Handle, checks: &[Arc<Named>], until: Instant) -> Report {
    let begun = Instant::now();
    let (tell, told) = mpsc::channel();
    for (at, named) in checks.iter().enumerate() {
        let (named, tell) = (Arc::clone(named), tell.clone());
        // Who does not listen any more has given this answer up.
        runtime.spawn(async move { tell.send((at, ask(&named, until).await)) });
    }
    drop(tell);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; checks.len()];
    let patience = |until: Instant| (until + GRACE).saturating_duration_since(Instant::now());
    while let Ok((at, outcome)) = told.recv_timeout(patience(until)) {
        outcomes[at] = Some(outcome);
    }
    let late = |named: &Named| Outcome::of(named, begun.elapsed(), Err(Failure::failed(TIMED_OUT)));
    let outcomes = outcomes.into_iter().zip(checks).map(|(told, named)| told.unwrap_or_else(|| late(named)));
    Report::new(outcomes.collect(), begun.elapsed())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::thread;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    enum Stub {
        Passes,
        Takes(Duration),
        Fails,
        Warns,
        CannotTell,
        Panics,
        Hangs,
        Blocks(Duration),
    }

    #[async_trait::async_trait]
    impl Check for Stub {
        async fn run(&self, _: Instant) -> Result<(), Failure> {
            match self {
                Self::Passes => Ok(()),
                Self::Takes(time) => {
                    tokio::time::sleep(*time).await;
                    Ok(())
                }
                Self::Fails => {
                    let inner = std::io::Error::other("two\nlines");
                    Err(Failure::failed("no answer").because(std::io::Error::other(inner)))
                }
                Self::Warns => Err(Failure::warning("nearly full")),
                Self::CannotTell => Err(Failure::unknown("no memory")),
                Self::Panics => panic!("S3cret"),
                Self::Hangs => pending().await,
                Self::Blocks(time) => {
                    thread::sleep(*time);
                    Ok(())
                }
            }
        }
    }

    fn named(name: &str, check: Stub) -> Named {
        Named { name: name.to_owned(), timeout: TIMEOUT, critical: true, check: Arc::new(check) }
    }

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn report(checks: impl IntoIterator<Item = Named>, within: Duration) -> Report {
        let runtime = runtime();
        let checks: Vec<_> = checks.into_iter().map(Arc::new).collect();
        let report = run(runtime.handle(), &checks, Instant::now() + within);
        runtime.shutdown_background();
        report
    }

    fn one(check: Stub, critical: bool) -> (Status, Option<String>, Overall) {
        let report = report([Named { critical, ..named("it", check) }], TIMEOUT);
        let outcome = report.outcomes[0].clone();
        (outcome.status, outcome.reason, report.status)
    }

    #[test]
    fn each_answer_has_its_word_and_counts_for_what_it_should() {
        let reason = |text: &str| Some(text.to_owned());
        let broken = || reason("the check itself failed unexpectedly");
        for (check, critical, expected) in [
            (Stub::Passes, true, (Status::Pass, None, Overall::Ok)),
            (Stub::Fails, true, (Status::Fail, reason("no answer"), Overall::Fail)),
            (Stub::Fails, false, (Status::Warn, reason("no answer"), Overall::Warning)),
            (Stub::Warns, true, (Status::Warn, reason("nearly full"), Overall::Warning)),
            (Stub::Warns, false, (Status::Warn, reason("nearly full"), Overall::Warning)),
            (Stub::CannotTell, true, (Status::Unknown, reason("no memory"), Overall::Fail)),
            (Stub::CannotTell, false, (Status::Unknown, reason("no memory"), Overall::Warning)),
            (Stub::Panics, true, (Status::Fail, broken(), Overall::Fail)),
            (Stub::Panics, false, (Status::Warn, broken(), Overall::Warning)),
        ] {
            assert_eq!(one(check, critical), expected);
        }
    }

    #[test]
    fn a_check_that_hangs_costs_its_own_deadline_and_no_other_answer() {
        let hanging = Named { timeout: Duration::from_millis(200), ..named("hangs", Stub::Hangs) };
        let report = report([named("first", Stub::Passes), hanging, named("last", Stub::Passes)], TIMEOUT);
        let told: Vec<_> = report.outcomes.iter().map(|outcome| (&*outcome.name, outcome.status)).collect();
        assert_eq!(told, [("first", Status::Pass), ("hangs", Status::Fail), ("last", Status::Pass)]);
        assert_eq!(report.outcomes[1].reason.as_deref(), Some(TIMED_OUT));
        assert!(
            report.took >= Duration::from_millis(200) && report.took < Duration::from_secs(3),
            "{report:?}"
        );
    }

    #[test]
    fn the_runs_deadline_holds_for_a_check_that_blocks_its_thread_and_every_other_answer_is_kept() {
        let checks = [
            named("blocks", Stub::Blocks(Duration::from_secs(10))),
            named("passes", Stub::Passes),
            named("hangs", Stub::Hangs),
        ];
        let report = report(checks, Duration::from_millis(300));
        assert!(report.took < Duration::from_secs(5), "{report:?}");
        let told: Vec<_> = report.outcomes.iter().map(|outcome| outcome.status).collect();
        assert_eq!(told, [Status::Fail, Status::Pass, Status::Fail]);
    }

    #[test]
    fn a_run_takes_as_long_as_its_slowest_check() {
        let slow = Duration::from_millis(300);
        let report = report((0..20).map(|number| named(&number.to_string(), Stub::Takes(slow))), TIMEOUT);
        assert_eq!(report.status, Overall::Ok);
        // One after another it would be six seconds.
        assert!(report.took >= slow && report.took < slow * 5, "{report:?}");
    }

    #[test]
    fn a_deadline_that_has_passed_is_a_time_out_and_no_question() {
        let report = report([named("it", Stub::Panics)], Duration::ZERO);
        assert_eq!(report.outcomes[0].reason.as_deref(), Some(TIMED_OUT));
    }

    #[test]
    fn what_happened_is_one_line_for_the_log_and_no_part_of_the_reason() {
        let report = report([named("it", Stub::Fails), named("panics", Stub::Panics)], TIMEOUT);
        assert_eq!(report.outcomes[0].source.as_deref(), Some("two lines"));
        assert_eq!(report.outcomes[1].source, None);
        assert!(!format!("{report:?}").contains("S3cret"));
    }

    #[test]
    fn an_answer_of_the_last_moment_counts() {
        let last = |timeout| Named { timeout, ..named("it", Stub::Takes(GRACE / 4)) };
        let runtime = runtime();
        // Now and then a busy machine is late itself.
        let counts = |ask: &dyn Fn() -> Outcome| (0..200).any(|_| ask().status == Status::Pass);
        let in_time = || Instant::now() + GRACE * 3 / 4;
        assert!(counts(&|| runtime.block_on(ask(&last(TIMEOUT), in_time()))));
        assert!(counts(&|| runtime.block_on(ask(&last(GRACE * 3 / 4), Instant::now() + TIMEOUT))));
        assert!(counts(&|| run(runtime.handle(), &[Arc::new(last(TIMEOUT))], in_time()).outcomes.remove(0)));
    }

    #[test]
    fn each_word_is_the_one_that_is_promised() {
        assert_eq!(Overall::ALL.map(Overall::as_str), ["ok", "warning", "fail"]);
        assert_eq!(format!("{:>8}", Overall::Warning), " warning");
        assert_eq!(Warnings::ALL.map(Warnings::as_str), ["pass", "fail"]);
        let words = |check| report([named("it", check)], TIMEOUT).outcomes[0].word();
        assert_eq!(
            [Stub::Passes, Stub::Warns, Stub::Fails, Stub::CannotTell].map(words),
            ["ok", "warning", "fail", "unknown"]
        );
    }

    #[test]
    fn a_named_check_is_shown_without_what_it_holds() {
        let shown = format!("{:?}", named("database", Stub::Passes));
        assert_eq!(shown, "Named { name: \"database\", timeout: 5s, critical: true, .. }");
    }

    #[test]
    fn nothing_asked_is_no_pass_and_a_warning_passes_as_it_is_told_to() {
        assert_eq!(Report::new(Vec::new(), Duration::ZERO).status, Overall::Fail);
        assert!(Overall::Warning.passes(Warnings::Pass) && !Overall::Warning.passes(Warnings::Fail));
        for warnings in Warnings::ALL {
            assert!(Overall::Ok.passes(warnings) && !Overall::Fail.passes(warnings));
        }
    }
}
