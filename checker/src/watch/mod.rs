//! `checker watch`: the workers of a folder, live.
//!
//! A source (`folder`) gives rows of plain data (`row`), and one of two shows them: `terminal`, which draws a
//! `table`, or `plain`, which writes lines.

mod events;
mod folder;
mod plain;
mod row;
mod table;
mod terminal;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use clap::ValueHint;
use shared::checks::worker::parse_owner;

use self::folder::Folder;
use self::terminal::Wake;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::stream;

/// Settings of the table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder with the beat files
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Who may own the beat files, besides root and the user who asks: a name, a numeric id, or `any`
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    owner: Option<String>,
}

/// Shows the table until it is left or interrupted.
pub fn run(args: &Args) -> Exit {
    let owner = match args.owner.as_deref().map(parse_owner).transpose() {
        Ok(owner) => owner.unwrap_or_default(),
        Err(wrong) => return fail(&format!("--owner: {wrong}"), Exit::Invalid),
    };
    let open = |wake| Folder::open(&args.dir, owner, wake);
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let shown = if io::stdout().is_terminal() && !dumb { in_terminal(open) } else { in_lines(open) };
    match shown {
        Ok(()) => Exit::Passed,
        Err(Failure::Folder(error)) => {
            fail(&format!("{} cannot be watched: {error}", args.dir.display()), Exit::Failed)
        }
        // Whoever read this has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Passed,
        Err(Failure::Output(error)) => fail(&format!("the table cannot be shown: {error}"), Exit::Unexpected),
    }
}

fn fail(what: &str, exit: Exit) -> Exit {
    stream::complain(what);
    exit
}

enum Failure {
    Folder(io::Error),
    Output(io::Error),
}

fn in_terminal(open: impl Fn(events::Wake) -> io::Result<Folder>) -> Result<(), Failure> {
    let (sender, woken) = channel();
    let files = sender.clone();
    let wake = Arc::new(move || {
        // Whoever listened has ended; so will this.
        let _ = files.send(Wake::Files);
    });
    let folder = open(wake).map_err(Failure::Folder)?;
    let interrupt = Interrupt::catch().map_err(Failure::Output)?;
    let ended = terminal::run(folder, sender, &woken, &interrupt).map_err(Failure::Output)?;
    if let Some(signal) = ended {
        signal.end();
    }
    Ok(())
}

fn in_lines(open: impl Fn(events::Wake) -> io::Result<Folder>) -> Result<(), Failure> {
    let (sender, woken) = channel();
    let wake = Arc::new(move || {
        // Whoever listened has ended; so will this.
        let _ = sender.send(());
    });
    let folder = open(wake).map_err(Failure::Folder)?;
    plain::run(folder, &woken).map_err(Failure::Output)
}
