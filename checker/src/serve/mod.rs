//! `checker serve`: the checks of a configuration over HTTP, for load balancers, kubelets, monitors and people.
//!
//! A `board` holds the configuration in force and what stands of each check (`watched`, `standing`); the `router` brings a
//! question to its place in the list of `endpoints`, which give a `view` of the board in one of the `formats`. This file is the
//! command and its life, from the first answer to the last.

mod access;
mod board;
pub mod endpoints;
pub mod formats;
mod listen;
mod logs;
mod negotiate;
mod router;
mod standing;
mod starved;
mod view;
mod watched;

use std::io;
use std::sync::Arc;

use axum::Router;
use shared::config::Configuration;
use shared::settings::Listen;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time;

pub use self::board::{Board, Setup};
pub use self::router::Peer;
pub use self::standing::{Change, Moment, Run};
pub use self::view::{Seen, View, Words};

use self::listen::Listener;
use self::logs::Log;
use crate::configuration::{self, ConfigArgs};
use crate::exit::Exit;
use crate::stream;

/// Serve the checks of a configuration over HTTP
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to listen, in place of the configuration's `listen`: an address with a port, or `unix:PATH`
    #[arg(long, value_name = "ADDR")]
    listen: Option<Listen>,
    /// How the log is written
    #[arg(long, value_name = "FORM", default_value = "text")]
    log: Log,
}

/// The endpoints of a configuration, to mount in an application of one's own:
///
/// ```no_run
/// # use std::path::Path;
/// let reading = shared::config::Configuration::read(Path::new("checker.toml"));
/// let health = checker::router(reading.configuration.expect("a configuration without a mistake"))?;
/// let application: axum::Router = axum::Router::new().nest("/health", health);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The checks run on threads of their own, which end with the last clone of the router. Where the configuration has networks,
/// the application must say who asks: `into_make_service_with_connect_info::<SocketAddr>()`; else nobody is in any. `listen`,
/// `tls`, `connections` and `drain` are the application's own concern here.
///
/// An error says that no thread can be started.
pub fn router(configuration: Configuration) -> io::Result<Router> {
    Ok(over(Arc::new(Board::new(configuration)?)))
}

/// The endpoints over a board that the application keeps, to ask it itself, put another configuration in force, or announce its
/// end.
pub fn over(board: Arc<Board>) -> Router {
    router::over(board)
}

/// Serves until it is told to stop.
pub fn run(args: &Args) -> Exit {
    let configuration = match configuration::read(&args.config.path()) {
        Ok(configuration) => configuration,
        Err(wrong) => {
            stream::log(&wrong);
            return Exit::Invalid;
        }
    };
    stream::hide(configuration.secrets());
    args.log.start();
    let listen = args.listen.clone().unwrap_or_else(|| configuration.server.listen.clone());
    match serve(configuration, &listen) {
        Ok(()) => Exit::Passed,
        Err(error) => {
            stream::log(&format!("cannot serve at {listen}: {error}"));
            Exit::Unexpected
        }
    }
}

fn serve(configuration: Configuration, listen: &Listen) -> io::Result<()> {
    // Answers are given on this thread alone; whatever a check does, it does on the board's own.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::catch()?;
        let board = Arc::new(Board::new(configuration)?);
        let listener = Listener::bind(listen).await?;
        tracing::info!(at = listener.place(), "listening");
        let mut server = listener.serve(router::over(Arc::clone(&board)));
        if signals.next().await == Ending::Slowly {
            board.stop();
            // Whoever cannot wait says it again.
            let _ = time::timeout(board.setup().server.drain.0, signals.next()).await;
        }
        server.stop(board.setup().server.timeout.0).await;
        Ok(())
    })
}

/// How the server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By whoever else has to notice first: SIGTERM.
    Slowly,
    /// By a person: SIGINT.
    AtOnce,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Slowly,
            _ = self.interrupt.recv() => Ending::AtOnce,
        }
    }
}
