//! `checker serve`: the checks of a configuration over HTTP, for load balancers, kubelets, monitors and people.
//!
//! A `board` holds the configuration in force and what stands of each check (`watched`, `standing`); the `router` brings a
//! question to its place in the list of `endpoints`, which give a `view` of the board in one of the `formats`. This file is the
//! command and its life, from the first answer to the last.

mod access;
mod address;
mod board;
mod connections;
pub mod endpoints;
pub mod formats;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "grpc")]
mod grpc;
mod listen;
mod logs;
mod metrics;
mod negotiate;
mod openapi;
mod page;
mod reload;
mod router;
mod standing;
mod starved;
mod systemd;
mod tls;
mod view;
mod watched;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use sd_notify::NotifyState;
use shared::config::{self as settings, Configuration};
use shared::settings::Listen;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{self, JoinSet};
use tokio::time;

pub use self::board::{Board, Life, Setup};
pub use self::router::{Encrypted, Peer};
pub use self::standing::{Change, Moment, Run};
pub use self::view::{Seen, View, Words};

use self::connections::Connections;
use self::listen::{Hall, Server, Talk};
use self::logs::Log;
use self::reload::File;
use self::tls::Certificate;
use crate::configuration::{self, ConfigArgs};
use crate::exit::Exit;
use crate::stream;

/// How often one looks whether the certificate was renewed.
const RENEWAL: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
SIGHUP reads the configuration again, and so does a change of its file; one with a mistake is refused, and the one before
stays in force. SIGTERM lets readiness fail at once, waits `drain`, and stops; SIGINT waits for no drain. Answers that are on
their way are given. One more signal ends the wait that goes on.

Exit status: 0 it was stopped, 2 invalid arguments or configuration, 3 it cannot serve.";

/// Serve the checks of a configuration over HTTP
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
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
/// let reading = checker::Configuration::read(Path::new("checker.toml"));
/// let health = checker::router(reading.configuration.expect("a configuration without a mistake"))?;
/// let application: axum::Router = axum::Router::new().nest("/health", health);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The checks run on threads of their own, which end with the last clone of the router. Where the configuration has networks,
/// the application must say who asks: `into_make_service_with_connect_info::<SocketAddr>()`; else nobody is in any. `listen`,
/// `grpc`, `tls`, `connections` and `drain` are the application's own concern here.
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
    let file = File::new(args.config.path());
    let configuration = match configuration::read(file.path()) {
        Ok(configuration) => configuration,
        Err(wrong) => {
            stream::log(&wrong);
            return Exit::Invalid;
        }
    };
    let _written = args.log.start();
    let listen = args.listen.clone().unwrap_or_else(|| configuration.server.listen.clone());
    match serve(configuration, &listen, file) {
        Ok(()) => Exit::Passed,
        Err(error) => {
            tracing::error!(%error, "cannot serve at {listen}");
            Exit::Unexpected
        }
    }
}

fn serve(mut configuration: Configuration, listen: &Listen, file: File) -> io::Result<()> {
    let started = configuration.server.clone();
    let settings = &mut configuration.server;
    settings.connections = listen::allow_descriptors(settings.connections);
    let certificate = settings.tls.clone().map(Certificate::read).transpose()?.map(Arc::new);
    let connections = Connections::new(settings.connections.try_into().unwrap_or(usize::MAX));
    // Answers are given on this thread alone; whatever a check does, it does on the board's own.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let board = Arc::new(Board::new(configuration)?);
    let talk = Talk::Http(Arc::clone(&board));
    let hall = Hall { talk, certificate, connections, life: board.life() };
    let served = runtime.block_on(live(&board, listen, hall, file, started));
    // What a file system holds up ends with the process. Nothing else has the board then, so its checks end with it.
    runtime.shutdown_background();
    drop(board);
    served
}

/// From the first answer to the last.
async fn live(
    board: &Arc<Board>,
    listen: &Listen,
    hall: Hall,
    file: File,
    started: settings::Server,
) -> io::Result<()> {
    let mut signals = Signals::catch()?;
    let hangup = signal(SignalKind::hangup())?;
    let mut servers = vec![Server::start(listen, &hall)?];
    if let Some(beside) = &board.setup().server.grpc {
        let hall = Hall { talk: Talk::grpc(board)?, certificate: None, ..hall.clone() };
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("gRPC at {beside}: {error}"));
        servers.push(Server::start_beside(beside, &hall).map_err(failed)?);
    }
    let mut beside = JoinSet::new();
    beside.spawn(reload::follow(file, started, Arc::clone(board), hangup));
    beside.spawn(systemd::keep_watchdog());
    beside.spawn(renew(hall.certificate.clone()));
    for place in servers.iter().flat_map(Server::places) {
        tracing::info!(at = %place, "listening");
    }
    systemd::tell(&[NotifyState::Ready]);
    let ending = signals.next().await;
    systemd::tell(&[NotifyState::Stopping]);
    let drain = board.setup().server.drain.0;
    // Either way: the streams of the page end by it, and hold up nothing.
    board.stop();
    if ending == Ending::Slowly {
        tracing::info!(?drain, "stopping: readiness fails from now on");
        // Whoever cannot wait says it again.
        let _ = time::timeout(drain, signals.next()).await;
    }
    board.end();
    let within = board.setup().server.timeout.0;
    tokio::select! {
        biased;
        _ = join_all(servers.into_iter().map(|server| server.stop(within))) => tracing::info!("stopped"),
        _ = signals.next() => tracing::info!("stopped; not all answers were given"),
    }
    Ok(())
}

/// Looks now and then whether the certificate was renewed.
async fn renew(certificate: Option<Arc<Certificate>>) {
    let Some(certificate) = certificate else { return };
    let mut often = time::interval(RENEWAL);
    loop {
        often.tick().await;
        let own = Arc::clone(&certificate);
        match task::spawn_blocking(move || own.renew()).await {
            Ok(Ok(false)) | Err(_) => {}
            Ok(Ok(true)) => tracing::info!("the certificate was renewed"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the certificate cannot be renewed; the one before stays in use");
            }
        }
    }
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
