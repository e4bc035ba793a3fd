//! Looking: a beat file read with suspicion, and the facts about the machine that it is held against.
//!
//! This is all the I/O of a local verdict: at most ten system calls or so, no allocation beyond the record.
//! What it means is decided in [`crate::verdict`].

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid};

use crate::clock;
use crate::record::{Corrupt, MAX_BYTES, Record};
use crate::verdict::{Evidence, Judgement, Machine, Process, Unsafe, judge};

/// Who may own a beat file, besides the observer's own user and root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody else.
    #[default]
    Own,
    /// This user id too.
    User(u32),
    /// Anybody: only where the folder itself can be trusted.
    Any,
}

impl Owner {
    fn accepts(self, uid: u32) -> bool {
        uid == 0
            || match self {
                Self::Own => uid == geteuid().as_raw(),
                Self::User(user) => uid == user || uid == geteuid().as_raw(),
                Self::Any => true,
            }
    }
}

/// What one look at a beat file found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation {
    /// No file, or none that can be read.
    Missing(io::ErrorKind),
    /// A file that must not be trusted.
    Unsafe(Unsafe),
    /// A file that holds no record.
    Corrupt(Corrupt),
    /// An empty file and its mtime.
    Bare(SystemTime),
    /// A record.
    Record(Box<Record>),
    /// The observer itself is out of something.
    Unreadable(io::ErrorKind),
}

/// Reads the beat file at `path`: no link is followed, no FIFO waited for, at most [`MAX_BYTES`] are read.
pub fn observe(path: &Path, owner: Owner) -> Observation {
    match open_patiently(path, OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
        Ok(mut file) => observe_open(&mut file, owner).unwrap_or_else(|error| unreadable(&error)),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Observation::Unsafe(Unsafe::Link),
        // A socket cannot be opened at all.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Observation::Unsafe(Unsafe::NotRegular),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied(path, owner),
        Err(error) => unreadable(&error),
    }
}

/// The names of a folder's files, but for those that are hidden: see [`is_hidden`].
///
/// On tmpfs a listing may go on for as long as files are renamed, as every beat is: it ends once the same names come
/// again and again. And it may leave out a file that is renamed meanwhile, so a name that is missing here proves
/// nothing of its file.
pub fn beat_files(folder: &Path) -> io::Result<HashSet<OsString>> {
    const MOST_REPEATED: usize = 1_000;
    let mut names = HashSet::new();
    let mut repeated = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !is_hidden(&name) && !names.insert(name) {
            repeated += 1;
            if repeated > MOST_REPEATED {
                break;
            }
        }
    }
    Ok(names)
}

/// Whether a file is no beat file by its name: the draft of a beat, and whatever else people hide.
pub fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// A publisher that writes over its file, because the disk is full, makes readers wait for some microseconds.
fn open_patiently(path: &Path, flags: OFlag) -> io::Result<File> {
    const TRIES: u32 = 50;
    for _ in 1..TRIES {
        match open(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
    open(path, flags)
}

/// Opens a file to read it. Not by `std`, whose call is two of the kernel's with musl.
fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    loop {
        match openat(AT_FDCWD, path, flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::EINTR) => {}
            opened => return Ok(File::from(opened?)),
        }
    }
}

fn observe_open(file: &mut File, owner: Owner) -> io::Result<Observation> {
    let metadata = file.metadata()?;
    if let Some(why) = distrust(&metadata, owner) {
        return Ok(Observation::Unsafe(why));
    }
    if metadata.len() == 0 {
        return Ok(Observation::Bare(metadata.modified()?));
    }
    let mut buffer = [0; MAX_BYTES + 1];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => {
                filled += more;
                // Beats come as new files, so there is no more in this one: the read that would say so is left out.
                if filled as u64 == metadata.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(match Record::parse(&buffer[..filled]) {
        Ok(record) => Observation::Record(Box::new(record)),
        Err(why) => Observation::Corrupt(why),
    })
}

fn distrust(metadata: &fs::Metadata, owner: Owner) -> Option<Unsafe> {
    let mode = metadata.mode() & 0o7777;
    if metadata.is_symlink() {
        Some(Unsafe::Link)
    } else if !metadata.is_file() {
        Some(Unsafe::NotRegular)
    } else if !owner.accepts(metadata.uid()) {
        Some(Unsafe::Owner(metadata.uid()))
    } else if mode & 0o022 != 0 {
        Some(Unsafe::Writable(mode))
    } else {
        None
    }
}

/// A file that may not be opened: whose it is, is the better answer where it can be seen.
fn denied(path: &Path, owner: Owner) -> Observation {
    match fs::symlink_metadata(path).ok().and_then(|metadata| distrust(&metadata, owner)) {
        Some(why) => Observation::Unsafe(why),
        None => Observation::Missing(io::ErrorKind::PermissionDenied),
    }
}

/// Whether an error says something of the file, or of the observer.
fn unreadable(error: &io::Error) -> Observation {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN) => {
            Observation::Unreadable(error.kind())
        }
        _ => Observation::Missing(error.kind()),
    }
}

impl Observation {
    /// The record, where there is one.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            _ => None,
        }
    }

    /// Reads the machine's facts, and judges as of now.
    pub fn judge(&self, max_age_ms: Option<u64>) -> Judgement<'_> {
        self.judge_as_of(Moment::now(), max_age_ms)
    }

    /// Reads the machine's facts, and judges as of the moment when the observer began to look: time that the
    /// observer itself lost after it, between reading and judging, is not held against the worker.
    pub fn judge_as_of(&self, asked: Moment, max_age_ms: Option<u64>) -> Judgement<'_> {
        let evidence = match self {
            Self::Missing(kind) => Evidence::Missing(*kind),
            Self::Unsafe(why) => Evidence::Unsafe(*why),
            Self::Corrupt(why) => Evidence::Corrupt(why),
            Self::Bare(mtime) => Evidence::Bare { age_ms: asked.since(*mtime) },
            Self::Record(record) => Evidence::Record(record),
            Self::Unreadable(kind) => Evidence::Unreadable(*kind),
        };
        let facts = self.record().map(Facts::about).unwrap_or_default();
        let now_mono_ms = self.record().map_or(asked.mono_ms, |record| asked.not_before(record.at_mono_ms));
        judge(evidence, &facts.machine(now_mono_ms), max_age_ms)
    }

    /// How long ago the last beat was made, or the bare file touched, in milliseconds.
    pub fn age_ms(&self) -> Option<u64> {
        self.age_ms_as_of(Moment::now())
    }

    /// [`Observation::age_ms`], as of the moment when the observer began to look.
    pub fn age_ms_as_of(&self, asked: Moment) -> Option<u64> {
        match self {
            Self::Record(record) => Some(asked.mono_ms.saturating_sub(record.at_mono_ms)),
            Self::Bare(mtime) => Some(u64::try_from(asked.since(*mtime)).unwrap_or(0)),
            _ => None,
        }
    }
}

/// When an observer began to look, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    mono_ms: u64,
    unix_ms: u64,
}

impl Moment {
    /// Now. Taken before [`observe`].
    pub fn now() -> Self {
        Self { mono_ms: clock::mono_ms(), unix_ms: clock::unix_ms() }
    }

    /// This moment; where a beat was made after it and before now, the beat's own, which is then not from the
    /// future.
    fn not_before(self, at_mono_ms: u64) -> u64 {
        if at_mono_ms > self.mono_ms { at_mono_ms.min(clock::mono_ms()) } else { self.mono_ms }
    }

    /// The wall clock's milliseconds since a file was touched; negative where that is in the future.
    fn since(self, mtime: SystemTime) -> i64 {
        let mtime_ms = match mtime.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        let wall = |unix_ms| i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let asked = wall(self.unix_ms);
        let now = if mtime_ms > asked { mtime_ms.min(wall(clock::unix_ms())) } else { asked };
        now.saturating_sub(mtime_ms)
    }
}

/// What the machine knows of a record's process.
#[derive(Debug)]
pub(crate) struct Facts {
    boot: String,
    pid_ns: u64,
    process: Process,
}

impl Default for Facts {
    fn default() -> Self {
        Self { boot: String::new(), pid_ns: 0, process: Process::Unknown }
    }
}

impl Facts {
    pub(crate) fn about(record: &Record) -> Self {
        let boot = boot_id();
        let pid_ns = pid_namespace();
        let visible = pid_ns != 0 && pid_ns == record.pid_ns && boot == record.boot;
        let process = if visible { process(record.pid) } else { Process::Unknown };
        Self { boot, pid_ns, process }
    }

    pub(crate) fn machine(&self, now_mono_ms: u64) -> Machine<'_> {
        Machine { now_mono_ms, boot: &self.boot, pid_ns: self.pid_ns, process: self.process }
    }
}

/// The kernel's boot id; empty where there is no `/proc`.
pub(crate) fn boot_id() -> String {
    let mut id = [0; 64];
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let read = open(path, OFlag::empty()).and_then(|mut file| file.read(&mut id)).unwrap_or_default();
    std::str::from_utf8(&id[..read]).unwrap_or_default().trim_end().to_owned()
}

/// The inode of this process's PID namespace; 0 where there is no `/proc`, or one of another namespace, in which
/// every pid means another process.
pub(crate) fn pid_namespace() -> u64 {
    let own = fs::read_link("/proc/self").is_ok_and(|pid| pid == Path::new(&std::process::id().to_string()));
    if own { fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino()) } else { 0 }
}

/// What can be seen of the process `pid`.
pub(crate) fn process(pid: u32) -> Process {
    let mut stat = [0; 1024];
    let read = open(stat_path(pid, &mut [0; 32]), OFlag::empty()).and_then(|mut file| file.read(&mut stat));
    match read.ok().and_then(|read| parse_stat(&stat[..read])) {
        Some(process) => process,
        // Not readable is not the same as not there: `/proc` may be hidden (hidepid) or not mounted.
        None => match i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), None)) {
            Ok(Err(Errno::ESRCH)) => Process::Absent,
            _ => Process::Unknown,
        },
    }
}

/// `/proc/PID/stat`, written without an allocation: publishers look at the processes that hold tasks with each beat.
fn stat_path(pid: u32, buffer: &mut [u8; 32]) -> &Path {
    let mut rest = &mut buffer[..];
    // 21 bytes at most.
    let _ = write!(rest, "/proc/{pid}/stat");
    let left = rest.len();
    Path::new(OsStr::from_bytes(&buffer[..buffer.len() - left]))
}

/// Reads state, number of threads and start time (fields 3, 20 and 22) of `/proc/PID/stat`.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    // The command's name stands in parentheses and may hold anything, a closing one too.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let begun = fields.nth(1)?.parse().ok()?;
    // A leader that has ended while other threads run on is a zombie too, but the process lives.
    let dead = matches!(state, "Z" | "X" | "x") && threads <= 1;
    let stopped = matches!(state, "T" | "t");
    Some(if dead { Process::Absent } else { Process::Present { start: begun, stopped } })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::verdict::Verdict;

    fn stat(name: &str, state: char, threads: u32) -> String {
        format!("7 ({name}) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 4242 1 1 1\n")
    }

    #[test]
    fn a_process_is_found_in_its_stat_whatever_its_name() {
        for name in ["worker", "a b", "x) R 1 (y", ")", "", "Z"] {
            let expected = Some(Process::Present { start: 4242, stopped: false });
            assert_eq!(parse_stat(stat(name, 'S', 1).as_bytes()), expected, "{name}");
        }
        let stopped = Some(Process::Present { start: 4242, stopped: true });
        assert_eq!(parse_stat(stat("w", 'T', 3).as_bytes()), stopped);
        for garbage in ["", "7", "7 (w) R", "7 (w) R 1 2 3", "\u{fffd})"] {
            assert_eq!(parse_stat(garbage.as_bytes()), None);
        }
    }

    #[test]
    fn a_process_has_its_own_path() {
        assert_eq!(stat_path(1, &mut [0; 32]), Path::new("/proc/1/stat"));
        assert_eq!(stat_path(u32::MAX, &mut [0; 32]), Path::new("/proc/4294967295/stat"));
        assert!(matches!(process(std::process::id()), Process::Present { stopped: false, .. }));
        assert_eq!(process(0x7fff_fffe), Process::Absent);
    }

    #[test]
    fn a_zombie_is_gone_but_a_process_whose_leader_ended_is_not() {
        assert_eq!(parse_stat(stat("w", 'Z', 1).as_bytes()), Some(Process::Absent));
        let present = Some(Process::Present { start: 4242, stopped: false });
        assert_eq!(parse_stat(stat("w", 'Z', 2).as_bytes()), present);
    }

    #[test]
    fn time_that_the_observer_loses_is_not_held_against_a_worker() {
        let mut record = crate::record::tests::least();
        // Of a process that cannot be seen from here, so that its silence alone counts.
        (record.boot, record.pid_ns, record.at_mono_ms) = (boot_id(), 0, clock::mono_ms());
        let (at, promise) = (record.at_mono_ms, record.promise_ms);
        let seen = Observation::Record(Box::new(record));
        let asked = |mono_ms| Moment { mono_ms, ..Moment::now() };
        // Now it is that moment: the record was as young when the look began, or has been made since.
        for begun in [at, at + promise, at.saturating_sub(promise)] {
            assert_eq!(seen.judge_as_of(asked(begun), None).verdict, Verdict::Alive, "{begun} {at}");
        }
        assert_eq!(seen.judge_as_of(asked(at + promise + 1), None).verdict, Verdict::Silent);
        let Observation::Record(mut record) = seen else { unreachable!() };
        record.at_mono_ms += 60_000;
        let seen = Observation::Record(record);
        assert_eq!(seen.judge_as_of(asked(at), None).verdict, Verdict::Corrupt);
    }

    #[test]
    fn time_that_the_observer_loses_is_not_held_against_a_touched_file() {
        let age = |asked: Moment, mtime_ms: u64| {
            let mtime = UNIX_EPOCH + Duration::from_millis(mtime_ms);
            Observation::Bare(mtime).judge_as_of(asked, Some(1_000)).verdict
        };
        let now = clock::unix_ms();
        let asked = |unix_ms| Moment { unix_ms, ..Moment::now() };
        assert_eq!(age(asked(now), now - 1_000), Verdict::Alive);
        assert_eq!(age(asked(now), now - 1_001), Verdict::Silent);
        // Touched after the look began, and before now.
        assert_eq!(age(asked(now - 60_000), now), Verdict::Alive);
        assert_eq!(age(asked(now), now + 60_000), Verdict::Silent);
    }

    #[test]
    #[cfg_attr(miri, ignore = "thousands of files, of which Miri takes minutes")]
    fn a_listing_has_no_drafts_though_its_files_are_renamed_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let name = |number: u32| folder.path().join(format!("beat-{number}"));
        let draft = folder.path().join(".beat.draft");
        (0..500).for_each(|number| fs::write(name(number), "").unwrap());
        let over = AtomicBool::new(false);
        let listings: Vec<_> = thread::scope(|scope| {
            scope.spawn(|| {
                for number in (0..500).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    fs::write(&draft, "").unwrap();
                    fs::rename(&draft, name(number)).unwrap();
                }
            });
            let listings = (0..10).map(|_| beat_files(folder.path())).collect();
            over.store(true, Ordering::Relaxed);
            listings
        });
        for names in listings {
            let names = names.unwrap();
            assert!(names.iter().all(|name| name.to_string_lossy().starts_with("beat-")), "{names:?}");
        }
        assert_eq!(beat_files(folder.path()).unwrap().len(), 500);
    }

    #[test]
    fn this_process_is_seen_and_a_free_pid_is_not() {
        assert!(matches!(process(std::process::id()), Process::Present { stopped: false, .. }));
        assert_eq!(process(0x7fff_ffff), Process::Absent);
    }
}
