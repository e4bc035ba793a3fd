//! The folder: which beat files are in it, and which of them have changed.
//!
//! The kernel tells what changes. What it fails to tell is found by a list of the folder, in which only what is not as it
//! was before is opened. A folder that goes away is waited for.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heartbeat::observe::{Observation, Owner, beat_files, is_hidden, observe};
use heartbeat::verdict::Verdict;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::roster::{Roster, Stamp};
use super::wake::Wake;
use crate::tell;

/// How often the folder is listed though nothing asks for it.
const RELIST: Duration = Duration::from_secs(10);

/// How many files are named that are no beat files.
const MOST_NAMED: usize = 100;

/// The folder, and what in it is not a worker.
pub struct Folder {
    path: PathBuf,
    owner: Owner,
    wake: Arc<Wake>,
    changes: Arc<Mutex<Changes>>,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of the folder that is watched.
    identity: Option<(u64, u64)>,
    listed: Option<Instant>,
    strangers: HashMap<OsString, Stranger>,
    /// What was last told of the folder itself.
    trouble: Option<String>,
}

/// A file that cannot be published, and what was told of it.
#[derive(Debug)]
struct Stranger {
    stamp: Option<Stamp>,
    why: String,
}

/// What has changed.
#[derive(Debug, Default)]
struct Changes {
    names: HashSet<OsString>,
    /// More than can be told by names.
    all: bool,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Folder {
    /// Nothing is opened yet. `wake` is called where something has changed.
    pub fn new(path: PathBuf, owner: Owner, wake: Arc<Wake>) -> Self {
        Self {
            path,
            owner,
            wake,
            changes: Arc::default(),
            watcher: None,
            identity: None,
            listed: None,
            strangers: HashMap::new(),
            trouble: None,
        }
    }

    /// Whether something has changed since the last look.
    pub fn has_changed(&self) -> bool {
        lock(&self.changes).any()
    }

    /// Looks at the files of which the kernel told.
    pub fn look(&mut self, roster: &mut Roster) {
        let names = std::mem::take(&mut lock(&self.changes).names);
        self.look_again(&names, roster);
    }

    /// Looks at these files, whatever the kernel has told.
    pub fn look_again<'a>(&mut self, names: impl IntoIterator<Item = &'a OsString>, roster: &mut Roster) {
        for name in names {
            let stamp = stamp(&self.path.join(name)).ok();
            self.look_at(name, stamp, roster);
        }
    }

    /// Looks at the folder itself, and lists it where there is reason to.
    pub fn attend(&mut self, roster: &mut Roster, now: Instant) {
        match fs::metadata(&self.path) {
            Ok(metadata) => {
                let identity = (metadata.dev(), metadata.ino());
                if self.identity.is_some_and(|known| known != identity) {
                    roster.orphan_all();
                }
                if self.identity != Some(identity) {
                    self.identity = Some(identity);
                    self.watch();
                }
            }
            Err(error) => {
                if self.identity.take().is_some() {
                    roster.orphan_all();
                    self.watcher = None;
                }
                self.tell_trouble(&format!("cannot be read: {error}; it goes on trying"));
                return;
            }
        }
        let all = std::mem::take(&mut lock(&self.changes).all);
        let due = self.listed.is_none_or(|listed| now.saturating_duration_since(listed) >= RELIST);
        if all || due || self.watcher.is_none() {
            self.listed = Some(now);
            match self.list(roster) {
                Ok(()) if self.watcher.is_some() => self.end_trouble(),
                Ok(()) => {}
                Err(error) => self.tell_trouble(&format!("cannot be read: {error}; it goes on trying")),
            }
        }
    }

    /// Watches the folder that is there now. Where that cannot be had, it is listed all the time.
    fn watch(&mut self) {
        self.watcher = None;
        lock(&self.changes).all = true;
        let (changes, wake, path) = (Arc::clone(&self.changes), Arc::clone(&self.wake), self.path.clone());
        let watcher = notify::recommended_watcher(move |event| {
            if lock(&changes).note(&path, event) {
                wake.wake();
            }
        });
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watching {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                self.tell_trouble(&format!("cannot be watched: {error}; it is listed at every interval"));
            }
        }
    }

    fn list(&mut self, roster: &mut Roster) -> io::Result<()> {
        let listed = beat_files(&self.path)?;
        for name in &listed {
            let Ok(stamp) = stamp(&self.path.join(name)) else { continue };
            let known = roster.knows(name, stamp)
                || self.strangers.get(name).is_some_and(|stranger| stranger.stamp == Some(stamp));
            if !known {
                self.look_at(name, Some(stamp), roster);
            }
        }
        // A file that is renamed meanwhile, as every beat is, may be on no list.
        for name in roster.unlisted(&listed) {
            self.look_at(&name, None, roster);
        }
        self.strangers.retain(|name, _| listed.contains(name));
        Ok(())
    }

    fn look_at(&mut self, name: &OsStr, stamp: Option<Stamp>, roster: &mut Roster) {
        let path = self.path.join(name);
        let mut seen = observe(&path, self.owner);
        let mut verdict = seen.judge(None).verdict;
        if verdict == Verdict::Gone {
            // Between the look at the file and that for the process it may have stopped, and taken the file away first.
            seen = observe(&path, self.owner);
            verdict = seen.judge(None).verdict;
        }
        match &seen {
            Observation::Missing(io::ErrorKind::NotFound) => {
                self.strangers.remove(name);
                // Where the folder has gone too, that is not the worker's doing.
                if self.is_still_there() {
                    roster.remove(name);
                }
                return;
            }
            Observation::Record(_) if verdict != Verdict::Corrupt => {
                self.strangers.remove(name);
                roster.note(name, seen, stamp);
                return;
            }
            _ => {}
        }
        let why = seen.judge(None).to_string();
        let told = self.strangers.get(name).is_some_and(|stranger| stranger.why == why);
        if !told && self.strangers.len() < MOST_NAMED {
            tell(format_args!("heartbeat: {} is not published: {why}", printable(&path)));
        } else if !told && self.strangers.len() == MOST_NAMED {
            let folder = printable(&self.path);
            tell(format_args!(
                "heartbeat: {folder} holds more files that are not published; they are not named"
            ));
        }
        self.strangers.insert(name.to_owned(), Stranger { stamp, why });
    }

    fn is_still_there(&self) -> bool {
        let there = fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        there.is_ok_and(|identity| self.identity == Some(identity))
    }

    fn tell_trouble(&mut self, trouble: &str) {
        if self.trouble.as_deref() != Some(trouble) {
            tell(format_args!("heartbeat: {} {trouble}", printable(&self.path)));
            self.trouble = Some(trouble.to_owned());
        }
    }

    fn end_trouble(&mut self) {
        if self.trouble.take().is_some() {
            tell(format_args!("heartbeat: {} is there again", printable(&self.path)));
        }
    }
}

impl Changes {
    fn any(&self) -> bool {
        self.all || !self.names.is_empty()
    }

    /// Takes note of one event; whether there is something to look at where there was nothing before.
    fn note(&mut self, folder: &Path, event: notify::Result<Event>) -> bool {
        let before = self.any();
        match event {
            Ok(event) if event.need_rescan() => self.all = true,
            Ok(event) if only_looked_at(event.kind) => {}
            Ok(event) => {
                self.all |= event.paths.iter().any(|path| path == folder);
                let names = event.paths.iter().filter_map(|path| path.file_name());
                let names = names.filter(|name| !is_hidden(name) && Some(*name) != folder.file_name());
                self.names.extend(names.map(OsStr::to_owned));
            }
            Err(_) => self.all = true,
        }
        !before && self.any()
    }
}

/// Reading a file is an event too, and the reader is this program.
fn only_looked_at(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn lock(changes: &Mutex<Changes>) -> MutexGuard<'_, Changes> {
    // Nothing panics under the lock.
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path that steers no terminal.
fn printable(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|character| if character.is_control() { '?' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind, RenameMode};

    use super::*;

    fn noted(events: impl IntoIterator<Item = notify::Result<Event>>) -> (Changes, Vec<bool>) {
        let mut changes = Changes::default();
        let woken = events.into_iter().map(|event| changes.note(Path::new("/f"), event)).collect();
        (changes, woken)
    }

    #[test]
    fn a_burst_is_one_name_and_one_wake_up_and_drafts_are_nothing() {
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        let event = || Event::new(renamed).add_path("/f/.a.0123".into()).add_path("/f/a".into());
        let (changes, woken) = noted((0..3).map(|_| Ok(event())));
        assert_eq!(changes.names, HashSet::from([OsString::from("a")]));
        assert_eq!((changes.all, woken), (false, vec![true, false, false]));
        let draft = Event::new(EventKind::Create(CreateKind::File)).add_path("/f/.a.0123".into());
        let looked = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let (changes, woken) = noted([Ok(draft), Ok(Event::new(looked).add_path("/f/a".into()))]);
        assert!(!changes.any());
        assert_eq!(woken, [false, false]);
    }

    #[test]
    fn what_cannot_be_told_by_names_asks_for_a_list() {
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        let itself = Event::new(EventKind::Any).add_path("/f".into());
        for event in [Ok(lost), Ok(itself), Err(notify::Error::generic("lost"))] {
            let (changes, woken) = noted([event]);
            assert!(changes.all && changes.names.is_empty());
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
