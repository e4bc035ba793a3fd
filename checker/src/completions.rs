//! `checker completions` and `checker man`: what a shell and a reader of manuals need, from the command line's one
//! definition.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::stream;

/// Print a shell's completions for this command
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints them.
pub fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(&Cli::command()), "checker", &mut script);
    stream::answer(&String::from_utf8_lossy(&script), Exit::Passed)
}

/// The command line without what is hidden: shells would offer it all the same.
fn visible(command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    Command::new("checker")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(command.get_arguments())
        .subcommands(shown)
}

/// Print this command's manual page
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Prints or writes it.
pub fn run_man(args: &ManArgs) -> Exit {
    let written = match &args.dir {
        Some(dir) => write_pages(dir).map(|()| String::new()),
        None => page(Cli::command()),
    };
    match written {
        Ok(page) => stream::answer(&page, Exit::Passed),
        Err(error) => {
            stream::complain(&format!("the manual cannot be written: {error}"));
            Exit::Failed
        }
    }
}

fn page(command: Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn write_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
