//! `checker validate`: every mistake in a configuration, in one go. Nothing is connected to.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};
use shared::config::{Configuration, Problem};

use super::{ConfigArgs, count, line};
use crate::exit::Exit;
use crate::format::plain::Plain;
use crate::stream;

/// Tell every mistake in the configuration, each with its line and a code
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit status: 0 it can be used (warnings too), 2 it cannot.")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// How they are shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Shown,
}

/// The forms of the answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shown {
    /// A mistake a line: file, line, column, code, what is wrong
    Text,
    /// One JSON object on one line
    Json,
}

/// Reads the file, and tells.
pub fn run(args: &Args) -> Exit {
    let path = args.config.path();
    let reading = Configuration::read(&path);
    let valid = reading.configuration.is_some();
    let shown = match args.format {
        Shown::Text => text(&path, &reading.problems),
        Shown::Json => format!("{}\n", document(&path, valid, &reading.problems)),
    };
    stream::answer(&shown, if valid { Exit::Passed } else { Exit::Invalid })
}

fn text(path: &Path, problems: &[Problem]) -> String {
    let lines: String = problems.iter().map(|problem| line(path, problem)).collect();
    format!("{lines}{}: {}\n", Plain(path.display()), count(problems))
}

fn document(path: &Path, valid: bool, problems: &[Problem]) -> Value {
    let problem = |problem: &Problem| {
        json!({
            "code": problem.code.as_str(),
            "line": problem.place.map(|place| place.line),
            "column": problem.place.map(|place| place.column),
            "level": if problem.code.is_warning() { "warning" } else { "error" },
            "message": problem.what,
        })
    };
    json!({ "file": path.to_string_lossy(), "valid": valid, "problems": problems.iter().map(problem).collect::<Vec<_>>() })
}
