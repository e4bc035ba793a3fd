//! `checker run`: a subset's checks, side by side.
//!
//! Arguments in, report out; the configuration and the run itself are `shared::config` and `shared::runner`. What happened to
//! a check that did not pass goes to standard error, without the configuration's secrets.

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
    let begun = Instant::now();
    let until = begun + args.timeout.saturating_sub(MARGIN.min(args.timeout * 3 / 10));
    if let Err(failure) = set_deadline(args) {
        return fail(args.format, &failure.to_string(), Exit::Unexpected);
    }
    let checks = match read(args) {
        Ok(checks) => checks,
        Err(wrong) => return fail(args.format, &wrong, Exit::Invalid),
    };
    let runtime = match runtime(checks.len()) {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(args.format, &format!("no thread can be started: {error}"), Exit::Unexpected);
        }
    };
    let report = runner::run(runtime.handle(), &checks, until);
    report.outcomes.iter().for_each(log);
    let exit = show(args, &report);
    // Children of checks end as these are dropped. A thread that hangs is left to the end of the process.
    runtime.shutdown_timeout(LEAVING.min(args.timeout / 10));
    exit
}

fn read(args: &Args) -> Result<Vec<Arc<Named>>, String> {
    let path = args.config.path();
    let configuration = configuration::read(&path)?;
    hidden::hide(configuration.secrets());
    configuration.subset(&args.subset).map_err(|what| format!("{}: {what}", path.display()))
}

fn runtime(checks: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(checks.clamp(1, THREADS)).enable_all().build()
}

/// One line of the log for what is not for everyone.
fn log(outcome: &Outcome) {
    if let (Some(reason), Some(source)) = (&outcome.reason, &outcome.source) {
        stream::log(&format!("{}: {reason}: {source}", outcome.name));
    }
}

fn set_deadline(args: &Args) -> std::io::Result<()> {
    let late = Report::new(Vec::new(), args.timeout);
    let words = args.format.report(&args.subset, &late, args.warnings);
    deadline::set(args.timeout, words, args.format.report_exit(&late, args.warnings))
}

fn show(args: &Args, report: &Report) -> Exit {
    let exit = args.format.report_exit(report, args.warnings);
    deadline::answered(exit);
    stream::answer(&args.format.report(&args.subset, report, args.warnings), exit)
}

/// Ends a command that has no report.
fn fail(format: Format, what: &str, exit: Exit) -> Exit {
    stream::log(what);
    stream::answer(&format.failure(what), format.failure_exit(exit))
}
