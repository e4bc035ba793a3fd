//! The configuration file as the command line knows it: where it is, and the commands that tell of it without checking
//! anything.

pub mod checks;
pub mod schema;
pub mod validate;
pub mod version;

use std::env;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use shared::config::{Configuration, Problem};

use crate::format::plain::Plain;
use crate::stream;

/// Which file.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration [default: `$CHECKER_CONFIG`, else `checker.toml`]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The file.
    pub fn path(&self) -> PathBuf {
        let set = || env::var_os("CHECKER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.config.clone().or_else(set).unwrap_or_else(|| "checker.toml".into())
    }
}

/// Reads a file for a command that uses it. Its mistakes go to standard error; the error sums them up.
pub fn read(path: &Path) -> Result<Configuration, String> {
    let reading = Configuration::read(path);
    if let Some(configuration) = reading.configuration {
        return Ok(configuration);
    }
    let lines: String = reading.problems.iter().map(|problem| line(path, problem)).collect();
    stream::complain_at_length(&lines);
    Err(format!("{} cannot be used: {}", path.display(), count(&reading.problems)))
}

/// `checker.toml:12:5: C004: what is wrong`.
fn line(path: &Path, problem: &Problem) -> String {
    let between = if problem.place.is_some() { ":" } else { ": " };
    format!("{}\n", Plain(format_args!("{}{between}{problem}", path.display())))
}

fn count(problems: &[Problem]) -> String {
    let warnings = problems.iter().filter(|problem| problem.code.is_warning()).count();
    let say = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    };
    let told: Vec<_> =
        [say(problems.len() - warnings, "mistake"), say(warnings, "warning")].into_iter().flatten().collect();
    if told.is_empty() { "no mistakes".to_owned() } else { told.join(", ") }
}
