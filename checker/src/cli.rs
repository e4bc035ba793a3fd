//! The command line's one definition: parsing, help, completions and man pages all come from it.

use clap::{Parser, Subcommand};

use crate::exit::Exit;

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
pub enum Command {
    /// A live table of the workers whose beat files are in a folder
    #[cfg(feature = "watch")]
    Watch(crate::watch::Args),
    /// Start real workers, break them one after another, and judge them live
    #[cfg(feature = "demo")]
    Demo(crate::demo::Args),
    /// A worker of the demo, controlled by lines on its standard input
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoWorker(crate::demo::worker::Args),
}

/// Carries out a parsed command line.
pub fn run(cli: &Cli) -> Exit {
    match &cli.command {
        #[cfg(feature = "watch")]
        Command::Watch(args) => crate::watch::run(args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => crate::demo::run(args),
        #[cfg(feature = "demo")]
        Command::DemoWorker(args) => crate::demo::worker::run(args),
    }
}
