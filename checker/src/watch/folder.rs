//! The beat files of one folder as rows.
//!
//! An event costs a look at the files that it names; a tick judges what was read before once more, because time
//! and processes go on without telling, and reads a file again before it says anything new about it. Names are
//! listed anew where events were lost, and now and then for file systems that tell of nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heartbeat::observe::{Moment, Observation, Owner, beat_files, observe};
use heartbeat::verdict::{Unsafe, Verdict};

use super::events::{Events, Wake};
use super::row::Row;
use super::source::Source;

/// Between two ticks, where they cost next to nothing.
const TICK: Duration = Duration::from_millis(250);

/// A tick may cost one part in so many of the time.
const SHARE: u32 = 20;

/// Between two listings that nothing asked for.
const LISTING: Duration = Duration::from_secs(5);

/// How long a worker whose file is gone is still shown.
const FAREWELL: Duration = Duration::from_secs(5);

/// A folder and what is known of its files.
pub struct Folder {
    path: PathBuf,
    owner: Owner,
    entries: BTreeMap<OsString, Entry>,
    wake: Wake,
    /// `None` while the folder is not there, or where no events are to be had.
    events: Option<Events>,
    /// Device and inode of the folder that is observed.
    identity: Option<(u64, u64)>,
    notice: Option<String>,
    listed: Instant,
    tick: Duration,
}

#[derive(Debug)]
struct Entry {
    observation: Observation,
    row: Row,
    /// Since when there is no file.
    gone: Option<Instant>,
}

impl Folder {
    /// Lists the folder and begins to observe it. `wake` is called when [`Source::catch_up`] has work.
    pub fn open(path: &Path, owner: Owner, wake: Wake) -> io::Result<Self> {
        fs::read_dir(path)?;
        let mut folder = Self {
            path: path.to_owned(),
            owner,
            entries: BTreeMap::new(),
            wake,
            events: None,
            identity: None,
            notice: None,
            listed: Instant::now(),
            tick: TICK,
        };
        folder.attach();
        Ok(folder)
    }

    /// Observes the folder that has the path now, and lists it.
    fn attach(&mut self) {
        self.events = None;
        self.identity = identity(&self.path);
        self.notice = None;
        if self.identity.is_none() {
            self.notice = Some("the folder is gone; waiting for it to come back".to_owned());
        } else {
            // Before the listing, so that nothing is missed in between.
            match Events::of(&self.path, self.wake.clone()) {
                Ok(events) => self.events = Some(events),
                Err(error) => self.notice = Some(format!("no file events, looking regularly: {error}")),
            }
        }
        self.list();
    }

    /// Looks at every file that is there, and at every one that was.
    fn list(&mut self) {
        self.listed = Instant::now();
        // A folder that cannot be listed has only those files that are known.
        let mut names = beat_files(&self.path).unwrap_or_default();
        names.extend(self.entries.keys().cloned());
        for name in names {
            self.look(&name);
        }
    }

    fn look(&mut self, name: &OsStr) {
        let path = self.path.join(name);
        let asked = Moment::now();
        let observation = observe(&path, self.owner);
        match &observation {
            Observation::Missing(io::ErrorKind::NotFound) => {
                if let Some(entry) = self.entries.get_mut(name) {
                    entry.lose(observation);
                }
                return;
            }
            // A folder among the files is no worker.
            Observation::Unsafe(Unsafe::NotRegular) if is_folder(&path) => {
                self.entries.remove(name);
                return;
            }
            _ => {}
        }
        let row = Row::judged(name.to_owned(), &observation, asked);
        self.entries.insert(name.to_owned(), Entry { observation, row, gone: None });
    }
}

impl Source for Folder {
    fn rows(&self) -> Vec<&Row> {
        self.entries.values().map(|entry| &entry.row).collect()
    }

    fn title(&self) -> String {
        self.path.display().to_string()
    }

    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn emptiness(&self) -> &'static str {
        "no beat files yet: a worker is shown as soon as it beats"
    }

    fn next_tick(&self) -> Duration {
        self.tick
    }

    fn catch_up(&mut self) {
        let Some(changes) = self.events.as_ref().map(Events::take) else { return };
        if changes.all {
            self.list();
        } else {
            for name in changes.names {
                self.look(&name);
            }
        }
    }

    fn tick(&mut self) {
        let begun = Instant::now();
        if self.identity != identity(&self.path) {
            self.attach();
        } else if self.events.is_none() || self.listed.elapsed() > LISTING {
            self.list();
        }
        self.entries.retain(|_, entry| entry.gone.is_none_or(|since| since.elapsed() < FAREWELL));
        let changed: Vec<_> =
            self.entries.iter_mut().filter_map(|(name, entry)| entry.judge().then(|| name.clone())).collect();
        for name in changed {
            self.look(&name);
        }
        self.tick = TICK.max(begun.elapsed() * SHARE);
    }
}

impl Entry {
    /// Judges what was read before at this moment; whether that gives another verdict, which is not kept: the
    /// file may say more by now.
    fn judge(&mut self) -> bool {
        if self.gone.is_some() {
            return false;
        }
        let row = Row::judged(self.row.key.clone(), &self.observation, Moment::now());
        let changed = row.verdict != self.row.verdict;
        if !changed {
            self.row = row;
        }
        changed
    }

    /// The file is gone: its worker is still known by its name.
    fn lose(&mut self, observation: Observation) {
        self.gone.get_or_insert_with(Instant::now);
        let row = Row::judged(self.row.key.clone(), &observation, Moment::now());
        self.row =
            Row { worker: std::mem::take(&mut self.row.worker), account: self.row.account.take(), ..row };
        debug_assert_eq!(self.row.verdict, Verdict::Missing);
        self.observation = observation;
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
