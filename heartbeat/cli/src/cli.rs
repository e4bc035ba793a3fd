//! The command line's one definition: parsing, help, completions and man pages all come from it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
#[cfg(feature = "redis")]
use heartbeat::observe::Owner;

use crate::exit::Exit;

/// Publishes the heartbeat of a queue worker.
#[derive(Debug, Parser)]
#[command(name = "heartbeat", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    // Described at its arguments, at length.
    Run(Run),
    #[cfg(feature = "redis")]
    Agent(Agent),
    /// Print a completion script for a shell
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
    /// Print the manual page, in roff
    #[command(hide = true)]
    Man {
        /// Write one page for each command into this folder instead
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// Run a command and beat for it
///
/// Runs COMMAND and publishes a record of it in a file, on a timer, for `checker worker` to judge. While
/// COMMAND is stopped no beat is made. Signals are passed on to COMMAND, and its exit status is passed on. Can be the
/// first process of a container.
///
/// What no option says is taken from the environment: HEARTBEAT_FILE, HEARTBEAT_CLUSTER, HEARTBEAT_WORKER,
/// HEARTBEAT_QUEUES (with commas), HEARTBEAT_INTERVAL, HEARTBEAT_PROMISE, HEARTBEAT_REDIS_URL, HEARTBEAT_KEY. A duration is
/// written 500ms, 30s or 1m30s.
#[derive(Args, Debug)]
#[expect(clippy::doc_markdown, reason = "the help shows it as it stands here")]
#[command(after_long_help = Exit::help())]
pub struct Run {
    /// The beat file [default: /tmp/heartbeat]
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Beat to this Redis too; better by HEARTBEAT_REDIS_URL, which no process list shows
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// A file with the key that records in Redis are signed with [default: the key in HEARTBEAT_KEY, if any]
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
    /// The group of workers that share the work [default: default]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The worker's name, unique in its cluster [default: HOST:PID, of `heartbeat run` itself]
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// A queue that the worker takes work from; may be given more than once
    #[arg(long = "queue", value_name = "NAME")]
    pub queues: Vec<String>,
    /// How often to beat [default: 1s]
    #[arg(long, value_name = "DUR", value_parser = heartbeat::duration::parse)]
    pub interval: Option<Duration>,
    /// How long the worker's silence may last before it counts as lost [default: 30s]
    #[arg(long, value_name = "DUR", value_parser = heartbeat::duration::parse)]
    pub promise: Option<Duration>,
    /// How long COMMAND may take to end after a SIGTERM, SIGINT or SIGQUIT; then it is killed, with its process
    /// group [default: as long as it takes]
    #[arg(long, value_name = "DUR", value_parser = heartbeat::duration::parse)]
    pub stop_timeout: Option<Duration>,
    /// The command to run, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Publish the beat files of a folder to Redis
///
/// One for each host or pod: watches the beat files in a folder, judges each worker on the spot, and publishes
/// all of them to Redis, so that no worker needs a Redis client. A worker that is dead or stuck leaves the sets of those
/// that take work at once. Ends on SIGTERM and SIGINT, and withdraws its workers.
///
/// The URL is better given by HEARTBEAT_REDIS_URL, which no process list shows. A duration is written 500ms, 30s or 1m30s.
#[cfg(feature = "redis")]
#[derive(Args, Debug)]
#[expect(clippy::doc_markdown, reason = "the help shows it as it stands here")]
#[command(after_long_help = Exit::agent_help())]
pub struct Agent {
    /// The folder; files whose names begin with a dot are passed over
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Where Redis is [default: $HEARTBEAT_REDIS_URL]
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// A file with the key that records in Redis are signed with [default: the key in $HEARTBEAT_KEY, if any]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
    /// How often to publish [default: 1s]
    #[arg(long, value_name = "DUR", value_parser = heartbeat::duration::parse)]
    pub interval: Option<Duration>,
    /// Whose beat files count, besides this user's and root's: a user's name or id, or any
    #[arg(long, value_name = "USER|any", value_parser = owner)]
    pub owner: Option<Owner>,
}

/// A user's name or id, or `any`.
#[cfg(feature = "redis")]
fn owner(text: &str) -> Result<Owner, String> {
    if text == "any" {
        return Ok(Owner::Any);
    }
    if let Ok(uid) = text.parse() {
        return Ok(Owner::User(uid));
    }
    match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(Owner::User(user.uid.as_raw())),
        Ok(None) => Err("there is no such user".to_owned()),
        Err(error) => Err(format!("users cannot be looked up: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_variable_that_is_read() {
        let help = Cli::command().find_subcommand_mut("run").unwrap().render_long_help().to_string();
        for name in ["FILE", "CLUSTER", "WORKER", "QUEUES", "INTERVAL", "PROMISE", "REDIS_URL", "KEY"] {
            assert!(help.contains(&format!("HEARTBEAT_{name}")), "{name}");
        }
    }
}
