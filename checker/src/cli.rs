//! The command line's one definition: parsing, help, completions and man pages all come from it.

use std::ffi::OsString;

use clap::{Args as _, FromArgMatches as _, Parser, Subcommand, ValueEnum as _};

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
pub fn main(arguments: &[OsString]) -> Exit {
    match parse(arguments) {
        Ok(command) => run(&command),
        Err(told) => refuse(&told, arguments),
    }
}

/// A probe runs often, so its arguments are read without building the definitions of all other commands.
fn parse(arguments: &[OsString]) -> Result<Command, clap::Error> {
    match arguments {
        [_, command, rest @ ..] if command == "worker" => parse_worker(rest).map(Command::Worker),
        _ => Cli::try_parse_from(arguments).map(|cli| cli.command),
    }
}

fn parse_worker(rest: &[OsString]) -> Result<worker::Args, clap::Error> {
    let command = clap::Command::new("worker").bin_name("checker worker").no_binary_name(true);
    let matches = worker::Args::augment_args(command).try_get_matches_from(rest)?;
    worker::Args::from_arg_matches(&matches)
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
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_quick_way_to_read_a_probes_arguments_says_what_the_whole_command_line_says() {
        for line in [
            "checker worker",
            "checker worker --for ready --overdue warn --owner any --unknown fail --format nagios",
            "checker worker --file /a --max-age=1m --timeout 2s",
            "checker worker -h",
            "checker worker --help",
            "checker worker --max-age 1",
            "checker worker --form json",
            "checker worker --for",
            "checker worker more",
            "checker worker --file=",
        ] {
            let quick = parse(&words(line)).map(|command| format!("{command:?}"));
            let whole = Cli::try_parse_from(words(line)).map(|cli| format!("{:?}", cli.command));
            assert_eq!(
                quick.map_err(|told| told.to_string()),
                whole.map_err(|told| told.to_string()),
                "{line}"
            );
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
            let told = parse(&words(line)).map(|_| ()).expect_err(line).to_string();
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
