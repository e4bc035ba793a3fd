//! Another configuration while the server runs: at SIGHUP, and where its file has changed.
//!
//! A configuration with a mistake is told of and refused: the one before stays in force.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::AccessKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use sd_notify::NotifyState;
use shared::config::{Configuration, Reading, Server};
use tokio::signal::unix::Signal;
use tokio::sync::Notify;
use tokio::{task, time};

use super::board::Board;
use super::systemd;
use crate::format::plain::Plain;

/// How long a file is left alone that somebody writes just now.
const SETTLE: Duration = Duration::from_millis(100);

/// What changes with a file, or with the link that leads to it: device, inode, size, and its last change to the nanosecond.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The file of a configuration, as it was before it was read: what changes from then on is not missed.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    known: Stamp,
}

impl File {
    /// As it is now.
    pub fn new(path: PathBuf) -> Self {
        let known = stamp(&path);
        Self { path, known }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Follows the file for as long as it is awaited. `started` is what the server was started with.
pub async fn follow(file: File, started: Server, board: Arc<Board>, mut hangup: Signal) {
    let File { path, mut known } = file;
    let changed = Arc::new(Notify::new());
    // The folder, because editors and Kubernetes put another file in the place of the one before.
    let watcher = watch(&path, Arc::clone(&changed));
    if let Err(error) = &watcher {
        tracing::warn!(%error, "the configuration cannot be watched; SIGHUP still reads it again");
    }
    // What has changed before it was watched.
    changed.notify_one();
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = changed.notified() => {
                time::sleep(SETTLE).await;
                false
            }
        };
        if asked {
            // Who asked waits for the end, whatever comes of it.
            systemd::tell_reloading();
        }
        let (file, before) = (path.clone(), known);
        // A file system that hangs must hold up no answer.
        let read = task::spawn_blocking(move || {
            let now = stamp(&file);
            (now, (asked || now != before).then(|| Configuration::read(&file)))
        });
        if let Ok((now, reading)) = read.await {
            known = now;
            if let Some(reading) = reading {
                take(reading, &started, &board);
            }
        } else {
            tracing::error!("the configuration cannot be read; the one before stays in force");
        }
        if asked {
            systemd::tell(&[NotifyState::Ready]);
        }
    }
}

fn watch(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let looked = |kind| matches!(kind, EventKind::Access(AccessKind::Open(_) | AccessKind::Read));
        if !event.is_ok_and(|event| looked(event.kind)) {
            changed.notify_one();
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn stamp(path: &Path) -> Stamp {
    let of = path.metadata().ok()?;
    Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
}

fn take(reading: Reading, started: &Server, board: &Board) {
    for problem in reading.problems.iter().filter(|problem| !problem.code.is_warning()) {
        tracing::error!(problem = %Plain(problem), "the configuration has a mistake");
    }
    let Some(configuration) = reading.configuration else {
        tracing::error!("the configuration is refused; the one before stays in force");
        return;
    };
    warn_of_what_waits(started, &configuration.server);
    let checks = configuration.checks.len();
    board.replace(configuration);
    tracing::info!(checks, "another configuration is in force");
}

fn warn_of_what_waits(started: &Server, now: &Server) {
    let waits = [
        ("listen", started.listen != now.listen),
        ("grpc", started.grpc != now.grpc),
        ("tls", started.tls != now.tls),
        ("connections", started.connections != now.connections),
    ];
    for (setting, _) in waits.into_iter().filter(|(_, changed)| *changed) {
        tracing::warn!(setting, "this setting takes effect at the next start");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    #[test]
    fn what_changes_between_the_first_reading_and_the_watch_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checker.toml");
        fs::write(&path, "[server]\nfailure_status = 501\n").unwrap();
        let file = File::new(path.clone());
        let board = Arc::new(Board::new(Configuration::read(&path).configuration.unwrap()).unwrap());
        fs::write(&path, "[server]\nfailure_status = 502 # another one\n").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let taken = async {
            let mut news = board.news();
            let hangup = signal(SignalKind::hangup()).unwrap();
            let following = follow(file, board.setup().server.clone(), Arc::clone(&board), hangup);
            tokio::select! {
                () = following => {}
                _ = time::timeout(Duration::from_secs(20), news.changed()) => {}
            }
        };
        runtime.block_on(taken);
        assert_eq!(board.setup().server.failure_status, 502);
    }
}
