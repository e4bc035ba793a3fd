//! The command line's one definition: parsing, help, completions and man pages all come from it.

use std::ffi::OsString;

use clap::{Parser, Subcommand, ValueEnum as _};

use crate::exit::Exit;
use crate::format::Format;
use crate::{completions, stream, tune, worker};

/// Judges the heartbeats of queue workers.
#[derive(Debug, Parser)]
#[command(name = "checker", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each command's arguments hold its line of help")]
pub enum Command {
    Worker(worker::Args),
    #[cfg(feature = "redis")]
    Cluster(Box<crate::cluster::Args>),
    #[cfg(feature = "run")]
    Run(crate::run::Args),
    #[cfg(feature = "serve")]
    Serve(crate::serve::Args),
    #[cfg(feature = "run")]
    Http(crate::http::Args),
    #[cfg(feature = "run")]
    Validate(crate::configuration::validate::Args),
    #[cfg(feature = "run")]
    Checks(crate::configuration::checks::Args),
    #[cfg(feature = "run")]
    Schema(crate::configuration::schema::Args),
    #[cfg(feature = "run")]
    Version(crate::configuration::version::Args),
    /// A live table of workers
    #[cfg(feature = "watch")]
    Watch(crate::watch::Args),
    /// Start real workers, break them one after another, and judge them live
    #[cfg(feature = "demo")]
    Demo(crate::demo::Args),
    /// A worker of the demo, controlled by lines on its standard input
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoWorker(crate::demo::worker::Args),
    Tune(tune::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Man(completions::ManArgs),
}

/// Reads the program's arguments, its own name first, and carries out what they say.
///
/// A probe runs often, so its arguments are looked at before any definition is built, and nothing that it does not need is
/// near to it in the executable.
pub fn main(arguments: &[OsString]) -> Exit {
    match probe(arguments) {
        Some(args) => worker::run(&args),
        None => other(arguments),
    }
}

#[inline(never)]
fn other(arguments: &[OsString]) -> Exit {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => run(&cli.command),
        Err(told) => refuse(&told, arguments),
    }
}

/// The arguments of a probe, where they are written plainly.
fn probe(arguments: &[OsString]) -> Option<worker::Args> {
    match arguments {
        [_, command, rest @ ..] if command == "worker" => worker::Args::quickly(rest),
        _ => None,
    }
}

/// Carries out a parsed command line.
fn run(command: &Command) -> Exit {
    match command {
        Command::Worker(args) => worker::run(args),
        #[cfg(feature = "redis")]
        Command::Cluster(args) => crate::cluster::run(args),
        #[cfg(feature = "run")]
        Command::Run(args) => crate::run::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => crate::serve::run(args),
        #[cfg(feature = "run")]
        Command::Http(args) => crate::http::run(args),
        #[cfg(feature = "run")]
        Command::Validate(args) => crate::configuration::validate::run(args),
        #[cfg(feature = "run")]
        Command::Checks(args) => crate::configuration::checks::run(args),
        #[cfg(feature = "run")]
        Command::Schema(args) => crate::configuration::schema::run(args),
        #[cfg(feature = "run")]
        Command::Version(args) => crate::configuration::version::run(args),
        #[cfg(feature = "watch")]
        Command::Watch(args) => crate::watch::run(args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => crate::demo::run(args),
        #[cfg(feature = "demo")]
        Command::DemoWorker(args) => crate::demo::worker::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::run_man(args),
    }
}

/// Shows help where it was asked for, else what is wrong with the arguments.
fn refuse(told: &clap::Error, arguments: &[OsString]) -> Exit {
    if !told.use_stderr() {
        return stream::answer(&told.to_string(), Exit::Passed);
    }
    let text = without_urls(told.to_string(), arguments);
    stream::complain_at_length(&text);
    let format = asked_format(arguments);
    let first = text.lines().next().unwrap_or_default();
    stream::answer(&format.failure(first), format.failure_exit(Exit::Invalid))
}

/// Hides every URL that stands in the arguments: one that got into the wrong place is shown as what is wrong, and it
/// may hold a password.
fn without_urls(mut text: String, arguments: &[OsString]) -> String {
    for argument in arguments {
        let argument = argument.to_string_lossy();
        if let Some(at) = argument.find("://") {
            let scheme =
                argument[..at].rsplit(|part: char| !part.is_ascii_alphanumeric() && part != '+').next();
            let begin = at - scheme.unwrap_or_default().len();
            text = text.replace(&argument[begin..], &format!("{}://…", &argument[begin..at]));
        }
    }
    text
}

/// The format that a command line asks for that could not be read as a whole.
fn asked_format(arguments: &[OsString]) -> Format {
    let joined = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix("--format="));
    let apart = arguments.windows(2).filter(|pair| pair[0] == "--format").filter_map(|pair| pair[1].to_str());
    joined.chain(apart).find_map(|word| Format::from_str(word, false).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use clap::Args as _;
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    /// What the definition makes of the words after `checker worker`, in its own order of rules.
    fn defined(words: &[OsString]) -> Result<worker::Args, String> {
        let whole = ["checker", "worker"].map(OsString::from).into_iter().chain(words.iter().cloned());
        match Cli::try_parse_from(whole) {
            Ok(Cli { command: Command::Worker(args) }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(told) => Err(told.to_string()),
        }
    }

    /// Every option of the definition, with good values, bad ones, and such as have rules of their own.
    fn some_words() -> impl Strategy<Value = Vec<OsString>> {
        let command = worker::Args::augment_args(clap::Command::new("worker"));
        let names = command.get_arguments().filter_map(|argument| argument.get_long());
        let mut names: Vec<_> = names.map(|name| format!("--{name}")).collect();
        assert!(names.len() >= 8, "{names:?}");
        names.extend(
            ["--", "-f", "--file-", "--fil", "--help", "-h", "file", "", "--=", "-"].map(str::to_owned),
        );
        let values = [
            "live",
            "ready",
            "fail",
            "warn",
            "pass",
            "any",
            "0",
            "root",
            "text",
            "json",
            "health+json",
            "nagios",
            "openmetrics",
            "1m30s",
            "5s",
            "0s",
            "1",
            "366d",
            "/run/beat",
            "a b",
            "a=b",
            "",
            "-",
            "-1",
            "--for",
            "Live",
            "é",
        ];
        let name = prop::sample::select(names);
        let value = prop::sample::select(Vec::from(values));
        let joined =
            (name.clone(), value.clone()).prop_map(|(name, value)| vec![format!("{name}={value}").into()]);
        let apart = (name.clone(), value).prop_map(|(name, value)| vec![name.into(), value.into()]);
        let alone = name.prop_map(|name| vec![name.into()]);
        let torn = Just(vec![OsString::from_vec(b"--file".into()), OsString::from_vec(b"/a\xff".into())]);
        let part = prop_oneof![6 => apart, 6 => joined, 1 => alone, 1 => torn];
        prop::collection::vec(part, 0..4).prop_map(|parts: Vec<Vec<OsString>>| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_read_quickly_is_what_the_definition_says(words in some_words()) {
            if let Some(args) = worker::Args::quickly(&words) {
                prop_assert_eq!(Ok(args), defined(&words));
            }
        }
    }

    #[test]
    fn every_option_is_read_quickly_in_its_plain_forms() {
        let good = |name: &str| match name {
            "file" => "/run/beat",
            "max-age" | "timeout" => "1m30s",
            "for" => "ready",
            "overdue" => "warn",
            "owner" => "any",
            "unknown" => "fail",
            "format" => "json",
            new => panic!("--{new} is unknown here: does the quick reader know it?"),
        };
        let command = worker::Args::augment_args(clap::Command::new("worker"));
        let names: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let all = names.iter().flat_map(|name| [format!("--{name}"), good(name).to_owned()]);
        let all: Vec<OsString> = all.map(OsString::from).collect();
        for words in [vec![], all] {
            assert_eq!(Ok(worker::Args::quickly(&words).unwrap()), defined(&words));
        }
        for name in names {
            let words = [OsString::from(format!("--{name}={}", good(name)))];
            assert_eq!(Ok(worker::Args::quickly(&words).unwrap()), defined(&words));
        }
    }

    #[test]
    fn a_url_in_the_wrong_place_is_not_shown() {
        for line in [
            "checker worker redis://me:S3cret@h",
            "checker worker --file=/a --for redis+sentinel://me:S3cret@h/s?pass=S3cret",
            "checker worker --max-age=rediss://:S3cret@h",
            "checker worker --redis=redis://:S3cret@h",
            "checker nothing://:S3cret@h",
        ] {
            let told = Cli::try_parse_from(words(line)).expect_err(line).to_string();
            let text = without_urls(told, &words(line));
            assert!(text.starts_with("error: ") && !text.contains("S3cret"), "{text}");
        }
    }

    #[test]
    fn the_format_is_found_in_a_line_that_is_wrong() {
        for (line, format) in [
            ("checker worker --wrong --format nagios", Format::Nagios),
            ("checker worker --format=nagios --wrong", Format::Nagios),
            ("checker worker --format", Format::Text),
            ("checker worker --format xml nagios", Format::Text),
        ] {
            assert_eq!(asked_format(&words(line)), format, "{line}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
