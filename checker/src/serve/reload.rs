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
use shared::hidden;
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

/// Follows the file for as long as it is awaited.
pub async fn follow(path: PathBuf, board: Arc<Board>, mut hangup: Signal) {
    let changed = Arc::new(Notify::new());
    // The folder, because editors and Kubernetes put another file in the place of the one before.
    let watcher = watch(&path, Arc::clone(&changed));
    if let Err(error) = &watcher {
        tracing::warn!(%error, "the configuration cannot be watched; SIGHUP still reads it again");
    }
    let mut known = stamp(&path);
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
                take(reading, &board);
            }
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

fn take(reading: Reading, board: &Board) {
    for problem in reading.problems.iter().filter(|problem| !problem.code.is_warning()) {
        tracing::error!(problem = %Plain(problem), "the configuration has a mistake");
    }
    let Some(configuration) = reading.configuration else {
        tracing::error!("the configuration is refused; the one before stays in force");
        return;
    };
    hidden::hide(configuration.secrets());
    warn_of_what_waits(&board.setup().server, &configuration.server);
    let checks = configuration.checks.len();
    board.replace(configuration);
    tracing::info!(checks, "another configuration is in force");
}

fn warn_of_what_waits(before: &Server, now: &Server) {
    let waits = [
        ("listen", before.listen != now.listen),
        ("grpc", before.grpc != now.grpc),
        ("tls", before.tls != now.tls),
        ("connections", before.connections != now.connections),
    ];
    for (setting, _) in waits.into_iter().filter(|(_, changed)| *changed) {
        tracing::warn!(setting, "this setting takes effect at the next start");
    }
}
