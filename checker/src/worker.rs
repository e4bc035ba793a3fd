//! `checker worker`: one worker, judged by its beat file. What runs as a probe, often, and so does little.
//!
//! Arguments in, answer out; the question itself is `shared::checks::worker`. No thread, no runtime, no
//! configuration file.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ValueEnum as _, ValueHint};
use heartbeat::DEFAULT_FILE;
use heartbeat::duration::{self, Human};
use shared::checks::worker::{Answer, Overdue, Settings, Unknown, Want, parse_owner};

use crate::arguments::{one_of, timeout};
use crate::exit::Exit;
use crate::format::Format;
use crate::{deadline, stream};

/// How long the command may take where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
Verdicts, of which the first that fits is given:
                  live    ready
  missing         no      no      there is no beat file, or none that can be read
  unsafe          no      no      a link, or a file that others own or may write to
  corrupt         no      no      not a record
  stopped         no      no      the worker said that it ended
  gone            no      no      its process is no more
  silent          no      no      no beat for longer than promised
  starting        yes     no      not ready yet, within its deadline
  start overdue   no      no      not ready yet, past it
  draining        yes     no      finishing what it has, within its deadline
  drain overdue   no      no      finishing what it has, past it
  wedged          no      no      its loop is overdue
  overdue         no      no      a task is past its deadline (--overdue warn: live)
  cut off         yes     no      it does not reach its broker or its stat key; live with a warning
  alive           yes     yes     none of these
  unknown         passes  fails   the checker cannot tell (--unknown)

Exit status: 0 passed, 1 failed, 2 invalid arguments, 3 unexpected failure;
with --format nagios: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.";

/// Judge one worker by its beat file
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The beat file [default: `$HEARTBEAT_FILE`, else `/tmp/heartbeat`]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// How old the last beat may be, in place of the worker's own promise
    ///
    /// Makes an empty file a heartbeat, judged by its mtime alone.
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    max_age: Option<Duration>,
    /// What is asked for
    #[arg(long = "for", value_name = "WHAT", default_value = "live", value_parser = one_of(Want::ALL, Want::as_str))]
    want: Want,
    /// What a task past its deadline counts for, where liveness is asked
    #[arg(long, value_name = "STATUS", default_value = "fail", value_parser = one_of(Overdue::ALL, Overdue::as_str))]
    overdue: Overdue,
    /// Who may own the beat file, besides root and the user who asks: a name, a numeric id, or `any`
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    owner: Option<String>,
    /// What an `unknown` counts for [default: pass for live, fail for ready]
    #[arg(long, value_name = "STATUS", value_parser = one_of(Unknown::ALL, Unknown::as_str))]
    unknown: Option<Unknown>,
    /// How the answer is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// How long the command may take; at its end the answer is `unknown`
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = timeout)]
    timeout: Duration,
}

/// Asks, and shows the answer.
#[inline(never)]
pub fn run(args: &Args) -> Exit {
    let mut settings = args.settings();
    if let Err(failure) = set_deadline(args, &settings) {
        return fail(args.format, &failure.to_string(), Exit::Unexpected);
    }
    // Behind the deadline, because the system's user database may be a network away.
    match args.owner.as_deref().map(parse_owner).transpose() {
        Ok(owner) => settings.owner = owner.unwrap_or_default(),
        Err(wrong) => return fail(args.format, &format!("--owner: {wrong}"), Exit::Invalid),
    }
    show(args.format, &settings.answer())
}

impl Args {
    /// Reads the plain forms, `--name value` and `--name=value` of known options with good values, each at most once:
    /// `None` for all else, which the definition above is there for. It says the same, and takes a hundred times as long:
    /// more than all the rest of a probe.
    pub fn quickly(words: &[OsString]) -> Option<Self> {
        let mut args = Self {
            file: None,
            max_age: None,
            want: Want::default(),
            overdue: Overdue::default(),
            owner: None,
            unknown: None,
            format: Format::default(),
            timeout: TIMEOUT,
        };
        let mut given = Vec::with_capacity(8);
        let mut words = words.iter().map(|word| word.to_str());
        while let Some(word) = words.next() {
            let word = word?.strip_prefix("--")?;
            let (name, value) = match word.split_once('=') {
                Some(joined) => joined,
                None => (word, words.next()??),
            };
            // What looks like an option, an empty value, and an option that comes twice have rules of their own.
            if value.is_empty() || value.starts_with('-') || given.contains(&name) {
                return None;
            }
            given.push(name);
            match name {
                "file" => args.file = Some(value.into()),
                "max-age" => args.max_age = Some(duration::parse(value).ok()?),
                "for" => args.want = Want::ALL.into_iter().find(|want| want.as_str() == value)?,
                "overdue" => {
                    args.overdue = Overdue::ALL.into_iter().find(|overdue| overdue.as_str() == value)?;
                }
                "owner" => args.owner = Some(value.to_owned()),
                "unknown" => {
                    args.unknown = Some(Unknown::ALL.into_iter().find(|unknown| unknown.as_str() == value)?);
                }
                "format" => args.format = Format::from_str(value, false).ok()?,
                "timeout" => args.timeout = timeout(value).ok()?,
                _ => return None,
            }
        }
        Some(args)
    }

    fn settings(&self) -> Settings {
        Settings {
            max_age: self.max_age,
            want: self.want,
            overdue: self.overdue,
            unknown: self.unknown,
            ..Settings::new(beat_file(self.file.as_deref()))
        }
    }
}

/// The beat file that is asked about: what the option says, else the environment.
pub fn beat_file(option: Option<&Path>) -> PathBuf {
    let set = || env::var_os("HEARTBEAT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    option.map(Path::to_owned).or_else(set).unwrap_or_else(|| DEFAULT_FILE.into())
}

fn set_deadline(args: &Args, settings: &Settings) -> std::io::Result<()> {
    let ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let late = settings.cannot_tell(format!("nothing could be read within {}", Human(ms)));
    deadline::set(args.timeout, args.format.worker(&late), args.format.worker_exit(&late))
}

fn show(format: Format, answer: &Answer) -> Exit {
    let exit = format.worker_exit(answer);
    deadline::answered(exit);
    stream::answer(&format.worker(answer), exit)
}

/// Ends a command that has no answer.
fn fail(format: Format, what: &str, exit: Exit) -> Exit {
    stream::complain(what);
    stream::answer(&format.failure(what), format.failure_exit(exit))
}
