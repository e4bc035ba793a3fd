//! The beat file as a sink.
//!
//! Every beat is a new file, renamed over the last one: a reader holds either the old record or the new one,
//! whole, however the writer dies. Its block is reserved before it is written, because ext4 flushes a renamed
//! file to the disk where its block is not yet allocated, and a beat must not cost a disk write. Five
//! system calls: open, fallocate, write, rename, close; a sixth sets the mtime back while the worker is not
//! live by its own account.
//!
//! Where no new file can be had, the last one is written over under a lease, so that a full disk does not make
//! a living worker silent.
//!
//! The path is claimed with the first beat, and only from a worker that is no more.

use std::ffi::{CString, OsString};
use std::fmt;
use std::fs::{File, FileTimes, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, OFlag, fallocate, open, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::unlink;

use crate::clock;
use crate::observe::{Facts, Observation, Owner, observe};
use crate::process;
use crate::record::{Id, MAX_BYTES, Record, Status};
use crate::verdict::{Process, Unsafe};

/// How long a claim waits for other claims in the same folder.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// How long a claim watches, at most, whether a worker that it cannot see is alive.
const WATCH_LIMIT: Duration = Duration::from_secs(3);

/// Why a beat did not reach the file.
#[derive(Debug)]
pub enum Failure {
    /// The system refused.
    System(io::Error),
    /// Another living worker beats there.
    Held(u32),
    /// What stands there must not be replaced.
    Unsafe(Unsafe),
}

impl Failure {
    /// Whether the path is not this worker's to write to.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Held(_) | Self::Unsafe(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Held(pid) => write!(f, "it is held by another living worker, pid {pid}"),
            Self::Unsafe(why) => why.fmt(f),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// How a beat reached the file.
#[derive(Debug)]
pub enum Written {
    /// As a new file.
    Renamed,
    /// Over the last record, because a new file failed so.
    InPlace(io::Error),
}

/// The mode of a beat file that nobody asked otherwise for.
pub const DEFAULT_MODE: u32 = 0o600;

/// One worker's beat file.
#[derive(Debug)]
pub struct BeatFile {
    path: PathBuf,
    target: CString,
    draft: CString,
    id: Id,
    mode: u32,
    claimed: bool,
    reserve: bool,
}

impl BeatFile {
    /// `path` is absolute, so that the worker may change its folder. Does no I/O.
    pub fn new(path: PathBuf, id: Id, mode: u32) -> io::Result<Self> {
        let target = c_path(&path)?;
        let draft = c_path(&draft_path(&path, id)?)?;
        Ok(Self { path, target, draft, id, mode, claimed: false, reserve: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes one record. `mtime` where it is not to be now.
    pub fn publish(&mut self, line: &[u8], mtime: Option<SystemTime>) -> Result<Written, Failure> {
        let claim = if self.claimed { None } else { Some(self.claim()?) };
        let renamed = self
            .write(line, mtime)
            .and_then(|()| Ok(renameat(AT_FDCWD, self.draft.as_c_str(), AT_FDCWD, self.target.as_c_str())?));
        let Err(error) = renamed else {
            self.claimed = true;
            drop(claim);
            return Ok(Written::Renamed);
        };
        // What could not be published may not stay; where this fails too, the next beat replaces it.
        let _ = unlink(self.draft.as_c_str());
        if self.claimed && self.rewrite(line, mtime).is_ok() {
            return Ok(Written::InPlace(error));
        }
        Err(error.into())
    }

    /// Where no new file can be had (disk or inodes full, folder not writable), writes over the last one.
    ///
    /// Under a write lease, which the kernel grants only while nobody else has the file open, and for which
    /// whoever opens it meanwhile has to wait: so this is not seen half done either. Where there are no leases, it
    /// is not done.
    fn rewrite(&self, line: &[u8], mtime: Option<SystemTime>) -> io::Result<()> {
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(open(self.target.as_c_str(), flags, Mode::empty())?);
        lease(&file)?;
        let mut last = [0; MAX_BYTES + 1];
        let length = file.read_at(&mut last, 0)?;
        if Record::parse(&last[..length]).ok().is_none_or(|record| record.id != self.id) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // One write of at least the old length leaves nothing of the old record: a record may end in spaces.
        let mut whole = [b' '; MAX_BYTES];
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let end = length.max(text.len() + 1);
        whole.get_mut(..text.len()).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(text);
        *whole.get_mut(end - 1).ok_or(io::ErrorKind::InvalidData)? = b'\n';
        file.write_all_at(&whole[..end], 0)?;
        match mtime {
            Some(mtime) => file.set_times(FileTimes::new().set_modified(mtime)),
            None => Ok(()),
        }
        // Closing the file ends the lease.
    }

    fn write(&mut self, line: &[u8], mtime: Option<SystemTime>) -> io::Result<()> {
        let draft = self.create()?;
        if self.mode != DEFAULT_MODE {
            // The process's umask has no say in what was asked for.
            fchmod(&draft, Mode::from_bits_truncate(self.mode))?;
        }
        if self.reserve {
            self.reserve = match fallocate(&draft, FallocateFlags::empty(), 0, length(line)) {
                Ok(()) => true,
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => false,
                Err(errno) => return Err(errno.into()),
            };
        }
        let mut draft = File::from(draft);
        draft.write_all(line)?;
        match mtime {
            Some(mtime) => draft.set_times(FileTimes::new().set_modified(mtime)),
            None => Ok(()),
        }
    }

    fn create(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(DEFAULT_MODE);
        match open(self.draft.as_c_str(), flags, mode) {
            // Its name is ours alone: an earlier beat could not clean up.
            Err(Errno::EEXIST) => {
                unlink(self.draft.as_c_str())?;
                Ok(open(self.draft.as_c_str(), flags, mode)?)
            }
            opened => Ok(opened?),
        }
    }

    /// Removes the file, where it still is this worker's. Where it cannot be removed, `farewell` (a record
    /// that says `stopped`) is left in its place.
    pub fn remove(&mut self, farewell: &[u8]) -> Result<(), Failure> {
        let own = |path: &Path| observe(path, Owner::Own).record().is_some_and(|record| record.id == self.id);
        if !self.claimed || !own(&self.path) {
            return Ok(());
        }
        match unlink(self.target.as_c_str()) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => {
                // Better than nothing, and the error to tell is the first one.
                let _ = self.publish(farewell, None);
                Err(errno.into())
            }
        }
    }

    /// Makes sure that nobody else's living worker beats at the path. The answer is a lock on the folder, to
    /// be kept until the first beat is there, so that of two that start at the same time one is refused.
    fn claim(&self) -> Result<Option<File>, Failure> {
        let quiet = match self.holder()? {
            Some(unseen) => Some(self.watch(&unseen)?),
            None => None,
        };
        let lock = lock_folder(self.path.parent().unwrap_or(Path::new("/")));
        match self.holder()? {
            Some(unseen) if Some(unseen.id) != quiet => Err(Failure::Held(unseen.pid)),
            _ => Ok(lock),
        }
    }

    /// Whether the path is free (`None`), or has a fresh record of which it cannot be seen from here whether somebody
    /// still writes it: of another PID namespace (the last incarnation of a restarted container, or a living worker),
    /// or of this very process (the program that it ran before `exec`, or somebody who beats for it).
    fn holder(&self) -> Result<Option<Box<Record>>, Failure> {
        let record = match observe(&self.path, Owner::Own) {
            Observation::Record(record) => record,
            // Our own, from a time when our umask or somebody's chmod was looser.
            Observation::Unsafe(Unsafe::Writable(_)) => return Ok(None),
            Observation::Unsafe(why) => return Err(Failure::Unsafe(why)),
            _ => return Ok(None),
        };
        let facts = Facts::about(&record);
        let machine = facts.machine(clock::mono_ms());
        let same_boot = machine.boot == record.boot;
        if record.status == Status::Stopped || record.id == self.id || !same_boot {
            return Ok(None);
        }
        match machine.process {
            Process::Present { start, .. } if start == record.pid_start => {
                let itself = record.pid == std::process::id() && !process::has_started(record.id);
                if !itself {
                    return Err(Failure::Held(record.pid));
                }
            }
            Process::Present { .. } | Process::Absent => {
                self.clean_up_after(record.id);
                return Ok(None);
            }
            Process::Unknown => {}
        }
        let age = machine.now_mono_ms.saturating_sub(record.at_mono_ms);
        Ok((age <= record.promise_ms).then_some(record))
    }

    /// Waits for the next beat of a worker that cannot be seen. Answers its id where none comes in time.
    fn watch(&self, last: &Record) -> Result<Id, Failure> {
        let patience = Duration::from_millis(last.interval_ms.saturating_mul(3) / 2 + 200);
        let step = Duration::from_millis(20);
        for _ in 0..patience.min(WATCH_LIMIT).as_millis() / step.as_millis() {
            thread::sleep(step);
            match observe(&self.path, Owner::Own).record() {
                Some(record) if record.id == last.id && record.seq == last.seq => {}
                Some(record) => return Err(Failure::Held(record.pid)),
                None => break,
            }
        }
        Ok(last.id)
    }

    /// Removes the draft that a dead incarnation may have left behind.
    fn clean_up_after(&self, id: Id) {
        if let Ok(draft) = draft_path(&self.path, id) {
            // Nearly always there is none.
            let _ = std::fs::remove_file(draft);
        }
    }
}

/// Where a beat is written before it is renamed: hidden, beside its target, and nobody else's name.
fn draft_path(path: &Path, id: Id) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{id}"));
    Ok(path.with_file_name(draft))
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().to_owned().into_vec())?)
}

/// A record has 4,096 bytes at most.
fn length(line: &[u8]) -> libc::off_t {
    libc::off_t::try_from(line.len()).unwrap_or(libc::off_t::MAX)
}

/// Takes a write lease on a file, for as long as it is open. Waits a little for readers to go.
fn lease(file: &File) -> io::Result<()> {
    // Not in `libc` for every target; the same number on all of them.
    const F_SETSIG: libc::c_int = 10;
    const TRIES: u32 = 5;
    let set = |command, value: libc::c_int| {
        // SAFETY: both commands take a descriptor, which is open, and a number.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, value) } == 0 {
            Ok(())
        } else {
            Err(Errno::last())
        }
    };
    // Whoever opens the file meanwhile makes the kernel send a signal: one that is ignored by default, and not
    // SIGIO, which would end the worker.
    set(F_SETSIG, libc::SIGURG)?;
    for _ in 1..TRIES {
        match set(libc::F_SETLEASE, libc::F_WRLCK) {
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(2)),
            outcome => return Ok(outcome?),
        }
    }
    Ok(set(libc::F_SETLEASE, libc::F_WRLCK)?)
}

/// Best effort: where the folder cannot be locked in time, two workers that start in the same instant may both
/// claim one path.
fn lock_folder(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    for _ in 0..LOCK_WAIT.as_millis() / 5 {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
