//! What has changed in a folder since the last time somebody asked, told by the kernel.
//!
//! Changes are gathered as names, each once, so that a burst costs one look per file and never piles up.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heartbeat::observe::is_hidden;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Called from another thread when there is something to take.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What has changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Files that have appeared, changed or disappeared.
    pub names: HashSet<OsString>,
    /// More than can be told by names: the folder itself, or events that were lost.
    pub all: bool,
}

/// A folder under observation, until this is dropped.
pub struct Events {
    changes: Arc<Mutex<Changes>>,
    _watcher: RecommendedWatcher,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Begins to observe the folder: one inotify instance and one watch.
    pub fn of(folder: &Path, wake: Wake) -> notify::Result<Self> {
        let changes = Arc::new(Mutex::new(Changes::default()));
        let noted = Arc::clone(&changes);
        let path = folder.to_owned();
        let mut watcher = notify::recommended_watcher(move |event| {
            if note(&mut lock(&noted), &path, event) {
                wake();
            }
        })?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Self { changes, _watcher: watcher })
    }

    /// What has changed since the last call.
    pub fn take(&self) -> Changes {
        std::mem::take(&mut lock(&self.changes))
    }
}

fn lock(changes: &Mutex<Changes>) -> MutexGuard<'_, Changes> {
    // Nothing panics under the lock.
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes note of one event; whether there is something to take where there was nothing before.
fn note(changes: &mut Changes, folder: &Path, event: notify::Result<Event>) -> bool {
    let before = changes.all || !changes.names.is_empty();
    match event {
        Ok(event) if event.need_rescan() => changes.all = true,
        Ok(event) if only_looked_at(event.kind) => {}
        Ok(event) => {
            changes.all |= event.paths.iter().any(|path| path == folder);
            let names = event.paths.iter().filter_map(|path| path.file_name());
            changes.names.extend(names.filter(|name| !is_hidden(name)).map(OsStr::to_owned));
        }
        Err(_) => changes.all = true,
    }
    !before && (changes.all || !changes.names.is_empty())
}

/// Reading a file is an event too, and the reader is this program.
fn only_looked_at(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind, RenameMode};

    use super::*;

    fn noted(events: impl IntoIterator<Item = notify::Result<Event>>) -> (Changes, Vec<bool>) {
        let mut changes = Changes::default();
        let woken = events.into_iter().map(|event| note(&mut changes, Path::new("/f"), event)).collect();
        (changes, woken)
    }

    #[test]
    fn a_burst_is_one_name_and_one_wake_up() {
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let (changes, woken) = noted((0..3).map(|_| Ok(Event::new(renamed).add_path("/f/a".into()))));
        assert_eq!((changes.names.len(), changes.all), (1, false));
        assert_eq!(woken, [true, false, false]);
    }

    #[test]
    fn drafts_and_looks_wake_nobody() {
        let looked = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let (changes, woken) = noted([
            Ok(Event::new(EventKind::Create(CreateKind::File)).add_path("/f/.a.0123".into())),
            Ok(Event::new(looked).add_path("/f/a".into())),
        ]);
        assert!(changes.names.is_empty() && !changes.all);
        assert_eq!(woken, [false, false]);
    }

    #[test]
    fn what_cannot_be_told_by_names_asks_for_a_look_at_everything() {
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        let itself = Event::new(EventKind::Any).add_path("/f".into());
        for event in [Ok(lost), Ok(itself), Err(notify::Error::generic("lost"))] {
            let (changes, woken) = noted([event]);
            assert!(changes.all);
            assert_eq!(woken, [true]);
        }
    }

    #[test]
    fn a_file_that_was_written_in_place_has_changed() {
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let (changes, _) = noted([Ok(Event::new(written).add_path("/f/a".into()))]);
        assert!(changes.names.contains(OsStr::new("a")));
    }
}
