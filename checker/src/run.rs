//! `checker run`: a subset's checks, side by side.
//!
//! Arguments in, report out; the configuration and the run itself are `shared::config` and `shared::runner`. What happened to
//! a check that did not pass goes to standard error, without the configuration's secrets.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::hidden;
use shared::runner::{self, Named, Outcome, Report, Warnings};
use tokio::runtime::{Builder, Runtime};

use crate::arguments::{one_of, timeout};
use crate::configuration::{self, ConfigArgs};
use crate::exit::Exit;
use crate::format::Format;
use crate::{deadline, stream};

/// How long before the command's end the checks are cut off, at most: then it can still be said which ones.
const MARGIN: Duration = Duration::from_millis(750);

/// More threads than that are no help: checks wait, they do not compute. One that wrongly blocks its thread leaves the others.
const THREADS: usize = 4;

/// How long what a check has left behind may take to end, after the report.
const LEAVING: Duration = Duration::from_millis(200);

const AFTER_HELP: &str = "\
The file is --config, else $CHECKER_CONFIG, else checker.toml. A check that is still running shortly before --timeout
(750 ms, or 3/10 where that is less) has timed out. A failure of a check with `critical = false` is a warning.

Exit status: 0 passed (warnings too, unless --warnings fail), 1 failed, 2 invalid arguments or configuration,
3 unexpected failure; with --format nagios: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.";

/// Run a subset's checks
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The subset, a name under `[subsets]`
    subset: String,
    #[command(flatten)]
    config: ConfigArgs,
    /// What a warning counts for
    #[arg(long, value_name = "STATUS", default_value = "pass", value_parser = one_of(Warnings::ALL, Warnings::as_str))]
    warnings: Warnings,
    /// How the report is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// How long the command may take; what has not answered by then has timed out
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = timeout)]
    timeout: Duration,
}

/// Runs the checks, and shows the report.
pub fn run(args: &Args) -> Exit {
    let Args { subset, warnings, format, timeout, .. } = args;
    Run { name: subset, warnings: *warnings, format: *format, timeout: *timeout }.of(|| read(args))
}

fn read(args: &Args) -> Result<Vec<Arc<Named>>, String> {
    let path = args.config.path();
    let configuration = configuration::read(&path)?;
    hidden::hide(configuration.secrets()).for_good();
    configuration.subset(&args.subset).map_err(|what| format!("{}: {what}", path.display()))
}

/// A command that is one run of checks.
#[derive(Debug)]
pub struct Run<'r> {
    /// What the checks are together, in the report.
    pub name: &'r str,
    /// What a warning counts for.
    pub warnings: Warnings,
    /// How the report is shown.
    pub format: Format,
    /// How long all of it may take, reading the checks too.
    pub timeout: Duration,
}

impl Run<'_> {
    /// Asks the checks that `read` gives, and shows the report; where it gives none, the arguments are invalid.
    pub fn of(&self, read: impl FnOnce() -> Result<Vec<Arc<Named>>, String>) -> Exit {
        let begun = Instant::now();
        let until = begun + self.timeout.saturating_sub(MARGIN.min(self.timeout * 3 / 10));
        if let Err(failure) = self.set_deadline() {
            return fail(self.format, &failure.to_string(), Exit::Unexpected);
        }
        let checks = match read() {
            Ok(checks) => checks,
            Err(wrong) => return fail(self.format, &wrong, Exit::Invalid),
        };
        let runtime = match runtime(checks.len()) {
            Ok(runtime) => runtime,
            Err(error) => {
                return fail(self.format, &format!("no thread can be started: {error}"), Exit::Unexpected);
            }
        };
        let report = runner::run(runtime.handle(), &checks, until);
        report.outcomes.iter().for_each(log);
        let exit = self.show(&report);
        // Children of checks end as these are dropped. A thread that hangs is left to the end of the process.
        runtime.shutdown_timeout(LEAVING.min(self.timeout / 10));
        exit
    }

    fn set_deadline(&self) -> std::io::Result<()> {
        let late = Report::new(Vec::new(), self.timeout);
        let words = self.format.report(self.name, &late, self.warnings);
        deadline::set(self.timeout, words, self.format.report_exit(&late, self.warnings))
    }

    fn show(&self, report: &Report) -> Exit {
        let exit = self.format.report_exit(report, self.warnings);
        deadline::answered(exit);
        stream::answer(&self.format.report(self.name, report, self.warnings), exit)
    }
}

fn runtime(checks: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(checks.clamp(1, THREADS)).enable_all().build()
}

/// One line of the log for what is not for everyone.
fn log(outcome: &Outcome) {
    if let Some(line) = line(outcome) {
        stream::log(&line);
    }
}

fn line(outcome: &Outcome) -> Option<String> {
    let (reason, source) = (outcome.reason.as_ref()?, outcome.source.as_ref()?);
    Some(format!("{}: {reason}: {source}", outcome.name))
}

/// A subset asked once by a program of one's own, which goes on afterwards: what `checker run` would tell.
#[derive(Clone, Copy, Debug)]
pub struct Once<'o> {
    /// The subset's name, in the report.
    pub subset: &'o str,
    /// What a warning counts for.
    pub warnings: Warnings,
    /// How the report is shown.
    pub format: Format,
    /// How long it may take. As with the command, checks are cut off shortly before.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// How the command would end.
    pub exit: Exit,
    /// The report, for standard output.
    pub shown: String,
    /// For the log alone: what happened to each check that did not pass. Without the secrets that are hidden
    /// (`shared::hidden`).
    pub log: Vec<String>,
}

impl Once<'_> {
    /// Asks the checks of the subset, side by side, and waits on this thread, which must be none of a runtime's.
    ///
    /// An error says that no thread can be started.
    pub fn ask(&self, checks: &[Arc<Named>]) -> io::Result<Told> {
        let until = Instant::now() + self.timeout.saturating_sub(MARGIN.min(self.timeout * 3 / 10));
        let runtime = runtime(checks.len())?;
        let report = runner::run(runtime.handle(), checks, until);
        runtime.shutdown_timeout(LEAVING.min(self.timeout / 10));
        let log =
            report.outcomes.iter().filter_map(line).map(|line| hidden::without_secrets(&line)).collect();
        let exit = self.format.report_exit(&report, self.warnings);
        Ok(Told { exit, shown: self.format.report(self.subset, &report, self.warnings), log })
    }
}

/// Ends a command that has no report.
pub fn fail(format: Format, what: &str, exit: Exit) -> Exit {
    stream::log(what);
    stream::answer(&format.failure(what), format.failure_exit(exit))
}
