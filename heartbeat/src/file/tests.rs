//! The file while it is written: what readers see, and what a writer may rely on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::record::tests::least;

/// A record that is whole only where its end goes with its middle: in each second one 3,000 bytes lie between.
fn numbered(seq: u64) -> Record {
    let queues = if seq.is_multiple_of(2) { vec!["q".repeat(3_000)] } else { Vec::new() };
    Record { seq, queues, version: Some(seq.to_string()), ..least() }
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = Vec::new();
    record.write(&mut line);
    line
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    (folder, path)
}

fn beat_file(path: &Path) -> BeatFile {
    BeatFile::new(path.to_owned(), least().id, DEFAULT_MODE).unwrap()
}

/// What [`numbered`] records look like, so that a million of them are compared fast.
struct Form([[Vec<u8>; 3]; 2]);

impl Form {
    fn new() -> Self {
        Self([0, 1].map(|odd| {
            // A number that stands nowhere else in a record, in the place of its two.
            let mark = 7_777_777_770 + odd;
            let line = String::from_utf8(line(&numbered(mark))).unwrap();
            let parts: Vec<_> = line.split(&mark.to_string()).map(|part| part.as_bytes().to_vec()).collect();
            parts.try_into().unwrap()
        }))
    }

    /// The number of the record that these bytes are, to the last byte.
    fn seq(&self, bytes: &[u8]) -> Option<u64> {
        let text = bytes.strip_suffix(b"\"}\n")?;
        let digits = text.len() - text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let number = &text[digits..];
        let seq: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
        let [head, middle, tail] = &self.0[usize::from(seq % 2 == 1)];
        ([head, number, middle, number, tail].concat() == bytes).then_some(seq)
    }
}

/// How many different records are to be seen by each reader, and after how many reads it is given up.
const ENOUGH: u64 = 100;
const MOST_READS: u64 = 3_000_000;

/// Reads as anybody could, `wanted` times and, where a busy machine lets the writer seldom run, until enough different
/// records were seen, whose number is given.
fn read_whole_records(path: &Path, reads: &AtomicU64, wanted: u64) -> u64 {
    let form = Form::new();
    let (mut last, mut different) = (0, 0);
    loop {
        let number = reads.fetch_add(1, Ordering::Relaxed);
        if number >= wanted && (different >= ENOUGH || number >= MOST_READS) {
            return different;
        }
        let bytes = fs::read(path).unwrap();
        // One written over a longer one ends in spaces.
        let end = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
        let record = [&bytes[..end], b"\n"].concat();
        let seq = form.seq(&record).unwrap_or_else(|| panic!("torn: {}", bytes.escape_ascii()));
        if number.is_multiple_of(64) {
            assert_eq!(Record::parse(&bytes), Ok(numbered(seq)));
        }
        assert!(seq >= last, "back from {last} to {seq}");
        different += u64::from(seq > last);
        last = seq;
    }
}

/// Two readers against a writer that does not rest. How many beats were written and how many of them seen.
fn race(path: &Path, wanted: u64, mut write: impl FnMut(u64) + Send) -> (u64, u64) {
    let (reads, over) = (AtomicU64::new(0), AtomicBool::new(false));
    write(1);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut seq = 1;
            while !over.load(Ordering::Relaxed) {
                seq += 1;
                write(seq);
            }
            seq
        });
        let readers = [(); 2].map(|()| scope.spawn(|| read_whole_records(path, &reads, wanted)));
        let seen = readers.map(thread::ScopedJoinHandle::join);
        over.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), seen.into_iter().map(Result::unwrap).sum())
    })
}

#[test]
fn a_million_reads_beside_a_writer_without_rest_see_whole_records_only() {
    const READS: u64 = 1_000_000;
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    let begun = Instant::now();
    let (written, seen) = race(&path, READS, |seq| drop(file.publish(&line(&numbered(seq)), None).unwrap()));
    println!("{READS} reads, {written} beats written, {seen} of them seen, {:.1?}", begun.elapsed());
    assert!(seen > 1_000, "only {seen} of {written} were seen");
}

#[test]
fn reads_beside_a_writer_without_room_for_a_new_file_see_whole_records_only() {
    const READS: u64 = 50_000;
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    // Where a folder stands in the draft's place, no new file can be had: the last one is written over.
    fs::create_dir(draft_path(&path, least().id).unwrap()).unwrap();
    let mut in_place = 0;
    let (written, seen) = race(&path, READS, |seq| match file.publish(&line(&numbered(seq)), None) {
        Ok(Written::InPlace(_)) => in_place += 1,
        Ok(Written::Renamed) => panic!("renamed, though nothing could be"),
        // The readers did not let the file go for long enough.
        Err(Failure::System(_)) => {}
        Err(other) => panic!("{other}"),
    });
    println!("{READS} reads, {in_place} of {written} beats written in place, {seen} of them seen");
    assert!(in_place > 100 && seen > 100, "{in_place} beats written in place, {seen} seen");
}

#[test]
fn a_record_in_place_of_a_longer_or_a_shorter_one_is_whole() {
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    fs::create_dir(draft_path(&path, least().id).unwrap()).unwrap();
    for seq in 2..6 {
        let written = file.publish(&line(&numbered(seq)), None).unwrap();
        assert!(matches!(written, Written::InPlace(_)));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(Record::parse(&bytes), Ok(numbered(seq)));
        assert_eq!(bytes.last(), Some(&b'\n'));
    }
}

#[test]
fn while_anybody_has_the_file_open_nothing_is_written_in_place() {
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    fs::create_dir(draft_path(&path, least().id).unwrap()).unwrap();
    let reader = File::open(&path).unwrap();
    assert!(file.publish(&line(&numbered(2)), None).is_err());
    assert_eq!(io::read_to_string(&reader).unwrap().into_bytes(), line(&numbered(1)));
    drop(reader);
    assert!(matches!(file.publish(&line(&numbered(2)), None), Ok(Written::InPlace(_))));
}

#[test]
fn what_is_not_this_workers_is_not_written_over_in_place() {
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    fs::create_dir(draft_path(&path, least().id).unwrap()).unwrap();
    let others = line(&Record { id: Id(1), ..numbered(1) });
    for foreign in [&others[..], b"precious", b""] {
        fs::write(&path, foreign).unwrap();
        assert!(file.publish(&line(&numbered(2)), None).is_err());
        assert_eq!(fs::read(&path).unwrap(), foreign);
    }
}

#[test]
fn without_a_first_beat_nothing_is_written_in_place() {
    let (_folder, path) = place();
    fs::write(&path, line(&numbered(1))).unwrap();
    fs::create_dir(draft_path(&path, least().id).unwrap()).unwrap();
    assert!(beat_file(&path).publish(&line(&numbered(2)), None).is_err());
    assert_eq!(fs::read(&path).unwrap(), line(&numbered(1)));
}

#[test]
fn the_mtime_is_the_one_that_was_given_whichever_way_the_beat_was_written() {
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    let mtime = SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_250);
    file.publish(&line(&numbered(1)), Some(mtime)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), mtime);
    file.publish(&line(&numbered(2)), None).unwrap();
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > mtime);
    fs::create_dir(draft_path(&path, least().id).unwrap()).unwrap();
    file.publish(&line(&numbered(3)), Some(mtime)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), mtime);
}

#[test]
fn a_draft_that_an_earlier_beat_left_is_replaced() {
    let (folder, path) = place();
    let draft = draft_path(&path, least().id).unwrap();
    assert_eq!(draft, folder.path().join(format!(".beat.{}", least().id)));
    fs::write(&draft, "half").unwrap();
    beat_file(&path).publish(&line(&numbered(1)), None).unwrap();
    assert_eq!(Record::parse(&fs::read(&path).unwrap()), Ok(numbered(1)));
    assert!(!draft.exists());
}

#[test]
fn a_draft_that_is_a_link_is_not_followed() {
    let (folder, path) = place();
    let target = folder.path().join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, draft_path(&path, least().id).unwrap()).unwrap();
    beat_file(&path).publish(&line(&numbered(1)), None).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn a_link_put_in_the_files_place_is_replaced_and_not_followed() {
    let (folder, path) = place();
    let target = folder.path().join("target");
    fs::write(&target, "precious").unwrap();
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    file.publish(&line(&numbered(2)), None).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn every_beat_is_a_new_file_so_that_a_reader_keeps_the_whole_old_one() {
    let (_folder, path) = place();
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    let open = File::open(&path).unwrap();
    file.publish(&line(&numbered(2)), None).unwrap();
    assert_ne!(open.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    assert_eq!(std::io::read_to_string(open).unwrap().into_bytes(), line(&numbered(1)));
}

#[test]
fn only_the_own_record_is_removed() {
    let (_folder, path) = place();
    let farewell = line(&Record { status: Status::Stopped, ..numbered(9) });
    // Never published: whatever stands there is somebody else's.
    fs::write(&path, line(&numbered(1))).unwrap();
    beat_file(&path).remove(&farewell).unwrap();
    assert!(path.exists());
    let mut file = beat_file(&path);
    file.publish(&line(&numbered(1)), None).unwrap();
    fs::write(&path, line(&Record { id: Id(1), ..numbered(1) })).unwrap();
    file.remove(&farewell).unwrap();
    assert!(path.exists());
    file.publish(&line(&numbered(2)), None).unwrap();
    file.remove(&farewell).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_path_without_a_files_name_is_no_beat_file() {
    for path in ["/", "/tmp/..", "/a\0b"] {
        assert!(BeatFile::new(path.into(), least().id, DEFAULT_MODE).is_err(), "{path:?}");
    }
}

/// A record of a process that nobody here can see, just made.
fn unseen(seq: u64) -> Record {
    let pid_ns = crate::observe::pid_namespace() + 1;
    let boot = crate::observe::boot_id();
    let at_mono_ms = clock::mono_ms();
    Record { id: Id(2), pid_ns, boot, seq, at_mono_ms, interval_ms: 50, promise_ms: 60_000, ..least() }
}

#[test]
fn the_file_of_a_worker_in_another_pid_namespace_is_taken_over_only_once_it_is_quiet() {
    let (_folder, path) = place();
    fs::write(&path, line(&unseen(1))).unwrap();
    beat_file(&path).publish(&line(&numbered(1)), None).unwrap();
    assert_eq!(Record::parse(&fs::read(&path).unwrap()), Ok(numbered(1)));
}

#[test]
fn the_file_of_a_worker_that_beats_in_another_pid_namespace_is_held() {
    let (_folder, path) = place();
    fs::write(&path, line(&unseen(1))).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = BeatFile::new(path.clone(), Id(2), DEFAULT_MODE).unwrap();
            other.claimed = true;
            for seq in 2.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                other.publish(&line(&unseen(seq)), None).unwrap();
            }
        });
        let refused = beat_file(&path).publish(&line(&numbered(1)), None);
        over.store(true, Ordering::Relaxed);
        assert!(matches!(refused, Err(Failure::Held(pid)) if pid == least().pid), "{refused:?}");
    });
}

#[test]
fn the_file_of_a_worker_in_another_pid_namespace_that_is_past_its_promise_is_free_at_once() {
    let (_folder, path) = place();
    let long_ago = Record { at_mono_ms: 1, promise_ms: 50, ..unseen(1) };
    // This machine has run for longer than that.
    assert!(clock::mono_ms() > 51);
    fs::write(&path, line(&long_ago)).unwrap();
    assert!(beat_file(&path).holder().unwrap().is_none());
    fs::write(&path, line(&unseen(1))).unwrap();
    assert_eq!(beat_file(&path).holder().unwrap().map(|record| record.id), Some(Id(2)));
}

#[test]
fn what_was_refused_is_said_in_words() {
    assert_eq!(Failure::Held(42).to_string(), "it is held by another living worker, pid 42");
    assert_eq!(Failure::Unsafe(Unsafe::Link).to_string(), "it is a symbolic link");
    assert!(Failure::from(Errno::ENOSPC).to_string().starts_with("No space left on device"));
}
