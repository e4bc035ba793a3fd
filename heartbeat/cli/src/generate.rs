//! Completions and man pages, generated from the command line's own definition.

use std::fs;
use std::io::{self, Write, stdout};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::tell;

/// Prints the completion script for a shell.
pub fn completions(shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Cli::command()), "heartbeat", &mut script);
    outcome("standard output", print(&script))
}

/// The command line without what is hidden: shells would offer it all the same.
fn shown(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    Command::new("heartbeat")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(command.get_arguments())
        .subcommands(subcommands)
}

/// Prints the main manual page, or writes one for each command into a folder.
pub fn man(dir: Option<&Path>) -> Exit {
    match dir {
        Some(dir) => outcome(&dir.display().to_string(), write_pages(dir)),
        None => outcome("standard output", print_page()),
    }
}

fn write_pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

fn print_page() -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    print(&page)
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush())
}

fn outcome(whereto: &str, written: io::Result<()>) -> Exit {
    match written {
        Ok(()) => Exit::Done,
        Err(error) => {
            tell(format_args!("heartbeat: cannot write to {whereto}: {error}"));
            Exit::Refused
        }
    }
}
