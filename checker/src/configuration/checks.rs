//! `checker checks`: the kinds of check with their settings, as their schemas describe them.

use clap::ValueEnum;
use serde_json::{Value, json};
use shared::checks::KINDS;
use shared::config::schema::{self, Setting, settings};
use shared::kind::Kind;

use crate::exit::Exit;
use crate::stream;

/// Tell the kinds of check, their settings and defaults
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One kind, with all that its settings mean
    kind: Option<String>,
    /// How they are shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Shown,
}

/// The forms of the answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shown {
    /// For reading
    Text,
    /// A JSON list of the kinds, on one line
    Json,
}

/// Tells them.
pub fn run(args: &Args) -> Exit {
    let Some(name) = &args.kind else {
        let shown = match args.format {
            Shown::Text => list(),
            Shown::Json => format!("{}\n", KINDS.iter().map(document).collect::<Value>()),
        };
        return stream::answer(&shown, Exit::Passed);
    };
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        let near = schema::nearest(name, KINDS.iter().map(|kind| kind.name));
        stream::log(&format!("there is no kind of check `{name}`; {near}"));
        return Exit::Invalid;
    };
    let shown = match args.format {
        Shown::Text => page(kind),
        Shown::Json => format!("{}\n", document(kind)),
    };
    stream::answer(&shown, Exit::Passed)
}

fn list() -> String {
    let wide = KINDS.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let line = |kind: &Kind| format!("{:wide$}  {}\n", kind.name, first_sentence(&schema::about(kind)));
    let lines: String = KINDS.iter().map(line).collect();
    format!("{lines}\nThe settings of a kind: checker checks KIND\n")
}

fn first_sentence(text: &str) -> &str {
    text.split_inclusive(['.', '\n']).next().unwrap_or(text).trim_end()
}

fn page(kind: &Kind) -> String {
    let (own, common) = settings(kind);
    let all = |settings: &[Setting]| settings.iter().map(paragraph).collect::<Vec<_>>().concat();
    let example = kind.example.replace('\n', "\n    ");
    format!(
        "{name}: {about}\n\n{own}Every check has:\n\n{common}Example:\n\n    [checks.NAME]\n    type = \"{name}\"\n    {example}\n",
        name = kind.name,
        about = schema::about(kind),
        own = all(&own),
        common = all(&common),
        example = example.trim_end(),
    )
}

fn paragraph(setting: &Setting) -> String {
    let about = setting.about.replace('\n', "\n      ");
    format!("  {} ({}; {})\n      {about}\n\n", setting.name, setting.form, setting.need())
}

fn document(kind: &Kind) -> Value {
    let setting = |setting: &Setting| json!({ "name": setting.name, "type": setting.form, "required": setting.required, "default": setting.default, "description": setting.about });
    let (own, common) = settings(kind);
    let all: Vec<_> = own.iter().chain(&common).map(setting).collect();
    json!({ "kind": kind.name, "description": schema::about(kind), "settings": all, "example": kind.example })
}
