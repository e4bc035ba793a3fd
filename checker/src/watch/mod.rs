//! `checker watch`: the workers of a folder or of a cluster, live.
//!
//! A `source` (`folder`, `cluster`) gives rows of plain data (`row`), and one of two shows them: `terminal`, which draws
//! a `table`, or `plain`, which writes lines.

#[cfg(feature = "redis")]
mod cluster;
mod events;
mod folder;
mod plain;
mod row;
mod source;
mod table;
mod terminal;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use clap::ValueHint;
use shared::checks::worker::parse_owner;

use self::folder::Folder;
use self::source::Source;
use self::terminal::Wake;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::stream;

/// Settings of the table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder with the beat files
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[cfg_attr(feature = "redis", arg(required_unless_present = "cluster", conflicts_with = "cluster"))]
    #[cfg_attr(not(feature = "redis"), arg(required = true))]
    dir: Option<PathBuf>,
    /// Who may own the beat files, besides root and the user who asks: a name, a numeric id, or `any`
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    #[cfg_attr(feature = "redis", arg(conflicts_with = "cluster"))]
    owner: Option<String>,
    /// The cluster whose workers beat to a Redis
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    cluster: Option<String>,
    /// That Redis [default: `$HEARTBEAT_REDIS_URL`]
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL", requires = "cluster")]
    redis: Option<crate::arguments::Unread>,
    /// A file with the key that the workers' records are signed with [default: the key in `$HEARTBEAT_KEY`, if any]
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "FILE", requires = "cluster", value_hint = ValueHint::FilePath)]
    key_file: Option<PathBuf>,
}

/// Shows the table until it is left or interrupted.
pub fn run(args: &Args) -> Exit {
    #[cfg(feature = "redis")]
    if let Some(name) = &args.cluster {
        return watch_cluster(name, args);
    }
    watch_folder(args)
}

#[cfg(feature = "redis")]
fn watch_cluster(name: &str, args: &Args) -> Exit {
    let asked = crate::redis::url(args.redis.as_ref())
        .and_then(|url| Ok((url, crate::redis::signing(args.key_file.as_deref())?)));
    let (url, signing) = match asked {
        Ok(asked) => asked,
        Err(wrong) => return fail(&wrong, Exit::Invalid),
    };
    if let Err(wrong) = url.check_files() {
        return fail(&wrong.to_string(), Exit::Invalid);
    }
    watch(name, |wake| cluster::Cluster::open(url.clone(), signing.clone(), name, wake))
}

fn watch_folder(args: &Args) -> Exit {
    // The parser has seen to it that there is one.
    let dir = args.dir.as_deref().unwrap_or(Path::new("."));
    let owner = match args.owner.as_deref().map(parse_owner).transpose() {
        Ok(owner) => owner.unwrap_or_default(),
        Err(wrong) => return fail(&format!("--owner: {wrong}"), Exit::Invalid),
    };
    watch(&dir.display().to_string(), |wake| Folder::open(dir, owner, wake))
}

fn watch<S: Source>(what: &str, open: impl Fn(events::Wake) -> io::Result<S>) -> Exit {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let shown = if io::stdout().is_terminal() && !dumb { in_terminal(open) } else { in_lines(open) };
    match shown {
        Ok(()) => Exit::Passed,
        Err(Failure::Source(error)) => fail(&format!("{what} cannot be watched: {error}"), Exit::Failed),
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
    Source(io::Error),
    Output(io::Error),
}

fn in_terminal<S: Source>(open: impl Fn(events::Wake) -> io::Result<S>) -> Result<(), Failure> {
    let (sender, woken) = channel();
    let news = sender.clone();
    let wake = Arc::new(move || {
        // Whoever listened has ended; so will this.
        let _ = news.send(Wake::News);
    });
    let source = open(wake).map_err(Failure::Source)?;
    let interrupt = Interrupt::catch().map_err(Failure::Output)?;
    let ended = terminal::run(source, sender, &woken, &interrupt).map_err(Failure::Output)?;
    if let Some(signal) = ended {
        signal.end();
    }
    Ok(())
}

fn in_lines<S: Source>(open: impl Fn(events::Wake) -> io::Result<S>) -> Result<(), Failure> {
    let (sender, woken) = channel();
    let wake = Arc::new(move || {
        // Whoever listened has ended; so will this.
        let _ = sender.send(());
    });
    let source = open(wake).map_err(Failure::Source)?;
    plain::run(source, &woken).map_err(Failure::Output)
}
