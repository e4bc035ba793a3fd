//! The exports as a C program calls them, where Miri and the sanitizers can watch both sides. What a C compiler makes of the
//! header, and the library as it is linked, is tested in `tests/c`.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{ptr, thread};

use crate::builder::*;
use crate::check::*;
use crate::handle::*;
use crate::outcome::*;
use crate::task::*;

/// A pointer that threads hand to each other, as in C.
struct Handed<T>(*mut T);

// SAFETY: what is handed over here may be used by any thread, by the header's word.
unsafe impl<T> Send for Handed<T> {}
// SAFETY: the same.
unsafe impl<T> Sync for Handed<T> {}

/// Memory as `malloc` gives it: nothing is in it yet, and it ends where it ends.
fn uninitialized<T: Copy>(count: usize) -> Box<[MaybeUninit<T>]> {
    Box::new_uninit_slice(count)
}

/// What an export writes to where it is told to, and nothing else of.
fn written<T>(call: impl FnOnce(*mut T) -> Outcome) -> T {
    let mut out = Box::new(MaybeUninit::uninit());
    assert_eq!(call(out.as_mut_ptr()), Outcome::Ok);
    // SAFETY: the export said that it has written it.
    unsafe { out.assume_init_read() }
}

/// The text that an export copies into a buffer of `size` bytes, and the length that it tells.
fn text(size: usize, call: impl FnOnce(*mut c_char, usize, *mut usize) -> Outcome) -> (String, usize) {
    let mut buffer = uninitialized::<c_char>(size);
    let length = written(|length| call(buffer.as_mut_ptr().cast(), size, length));
    // SAFETY: an export has ended its text within the buffer.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr().cast()) };
    (text.to_str().unwrap().to_owned(), length)
}

fn path_in_c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Settings of which the environment has no say, with a beat file.
fn settings(path: &Path) -> *mut Builder {
    let builder = heartbeat_builder_new();
    let file = path_in_c(path);
    // SAFETY: a builder that lives, and texts that end.
    unsafe {
        for outcome in [
            heartbeat_builder_set_cluster(builder, c"in-rust".as_ptr()),
            heartbeat_builder_set_worker(builder, c"one".as_ptr()),
            heartbeat_builder_set_version(builder, c"7".as_ptr()),
            heartbeat_builder_add_queue(builder, c"mail".as_ptr()),
            heartbeat_builder_add_queue(builder, c"sms".as_ptr()),
            heartbeat_builder_set_no_file(builder),
            heartbeat_builder_set_file(builder, file.as_ptr()),
            heartbeat_builder_set_file_mode(builder, 0o600),
            heartbeat_builder_set_interval_ms(builder, 20),
            heartbeat_builder_set_promise_ms(builder, 600_000),
            heartbeat_builder_set_loop_budget_ms(builder, 600_000),
            heartbeat_builder_set_start_deadline_ms(builder, 600_000),
            heartbeat_builder_set_drain_deadline_ms(builder, 600_000),
        ] {
            assert_eq!(outcome, Outcome::Ok);
        }
    }
    if cfg!(miri) {
        // It knows not all flags by which a beat file is looked at.
        // SAFETY: the same.
        assert_eq!(unsafe { heartbeat_builder_set_no_file(builder) }, Outcome::Ok);
    }
    // What the library was given is its own by now.
    drop(file);
    builder
}

fn start(builder: *mut Builder) -> *mut Heartbeat {
    // SAFETY: a builder that lives.
    written(|heartbeat| unsafe { heartbeat_builder_start(builder, heartbeat) })
}

fn start_task(heartbeat: *const Heartbeat, name: &CStr) -> *mut Task {
    // SAFETY: a heartbeat that lives, and a text that ends.
    written(|task| unsafe { heartbeat_task_start(heartbeat, name.as_ptr(), 600_000, task) })
}

fn status(heartbeat: *const Heartbeat) -> Status {
    // SAFETY: a heartbeat that lives.
    written(|status| unsafe { heartbeat_status(heartbeat, status) })
}

fn free(builder: *mut Builder, heartbeat: *mut Heartbeat) {
    // SAFETY: both live, and are used by nobody any more.
    unsafe {
        heartbeat_free(heartbeat);
        heartbeat_builder_free(builder);
    }
}

#[test]
fn a_worker_says_what_it_does_from_its_start_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let builder = settings(&path);
    let beats = start(builder);
    assert_eq!(status(beats), Status::Starting);
    // SAFETY: a heartbeat that lives.
    unsafe {
        assert_eq!(heartbeat_ready(beats), Outcome::Ok);
        assert_eq!(heartbeat_pulse(beats), Outcome::Ok);
        assert_eq!(heartbeat_pulse_within_ms(beats, HEARTBEAT_NONE), Outcome::Ok);
        assert_eq!(heartbeat_broker_lost(beats), Outcome::Ok);
        assert_eq!(heartbeat_broker_back(beats), Outcome::Ok);
    }
    assert_eq!(status(beats), Status::Idle);
    // Not UTF-8, and longer than what is kept of it.
    let (one, two) =
        (start_task(beats, c"\xff\x1b[2J"), start_task(beats, &CString::new([b'x'; 99]).unwrap()));
    assert_eq!(status(beats), Status::Busy);
    // SAFETY: tasks that live, and no more after that.
    unsafe {
        assert_eq!(heartbeat_task_held_by(one, 0), Outcome::InvalidParameter);
        assert_eq!(heartbeat_task_held_by(one, i32::try_from(std::process::id()).unwrap()), Outcome::Ok);
        assert_eq!(heartbeat_task_done(one), Outcome::Ok);
        assert_eq!(heartbeat_task_fail(two), Outcome::Ok);
        assert_eq!(heartbeat_drain(beats, HEARTBEAT_NONE), Outcome::Ok);
    }
    assert_eq!(status(beats), Status::Draining);
    // SAFETY: a heartbeat that lives.
    assert_eq!(text(1, |at, size, length| unsafe { heartbeat_last_error(beats, at, size, length) }).1, 0);
    let outlives = start_task(beats, c"outlives");
    // SAFETY: a heartbeat that lives.
    assert_eq!(unsafe { heartbeat_stop(beats) }, Outcome::Ok);
    assert_eq!(status(beats), Status::Stopped);
    assert!(!path.exists());
    free(builder, beats);
    // SAFETY: a task that lives, and may outlive its heartbeat.
    assert_eq!(unsafe { heartbeat_task_done(outlives) }, Outcome::Ok);
}

#[test]
#[cfg_attr(miri, ignore = "Miri opens no file with O_NONBLOCK, as a beat file is looked at")]
fn a_file_is_judged_and_one_that_is_held_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beat");
    let file = path_in_c(&path);
    let judge = || {
        let mut reason = (String::new(), 0);
        let verdict = written(|verdict| {
            let mut outcome = Outcome::Panic;
            reason = text(256, |at, size, length| {
                // SAFETY: a text that ends, and places to write to.
                outcome =
                    unsafe { heartbeat_check_file(file.as_ptr(), HEARTBEAT_NONE, verdict, at, size, length) };
                outcome
            });
            outcome
        });
        assert_eq!(reason.0.len(), reason.1);
        verdict
    };
    assert_eq!(judge(), Verdict::Missing);
    let builder = settings(&path);
    let beats = start(builder);
    assert_eq!(judge(), Verdict::Starting);
    let mut other = ptr::null_mut();
    // SAFETY: a builder that lives, and a place to write to.
    assert_eq!(unsafe { heartbeat_builder_start(builder, &raw mut other) }, Outcome::Held);
    assert!(other.is_null());
    // SAFETY: the same.
    let why =
        |size| text(size, |at, size, length| unsafe { heartbeat_builder_error(builder, at, size, length) });
    let (whole, length) = why(1_024);
    assert!(whole.contains("another living worker") && whole.len() == length, "{whole}");
    // Exactly its size, one byte less, and hardly any.
    assert_eq!(why(length + 1).0, whole);
    assert_eq!(why(length), (whole[..length - 1].to_owned(), length));
    assert_eq!(why(1), (String::new(), length));
    free(builder, beats);
    assert_eq!(judge(), Verdict::Missing);
}

#[test]
fn a_text_is_cut_at_a_character_and_a_buffer_without_room_is_not_touched() {
    let builder = heartbeat_builder_new();
    // SAFETY: a builder that lives, texts that end, and a place to write to.
    unsafe {
        assert_eq!(heartbeat_builder_set_no_file(builder), Outcome::Ok);
        assert_eq!(heartbeat_builder_set_cluster(builder, c"ééé\n".as_ptr()), Outcome::Ok);
        let mut none = ptr::null_mut();
        assert_eq!(heartbeat_builder_start(builder, &raw mut none), Outcome::Configuration);
    }
    // SAFETY: a builder that lives, and places to write to.
    let why =
        |size| text(size, |at, size, length| unsafe { heartbeat_builder_error(builder, at, size, length) });
    let (whole, length) = why(256);
    for size in 1..=length + 2 {
        let (cut, told) = why(size);
        assert_eq!((cut.as_str(), told), (&whole[..whole.floor_char_boundary(size - 1)], length));
    }
    // No bytes at all: only the length is told.
    let mut nothing = uninitialized::<c_char>(0);
    let told = written(|length| {
        // SAFETY: the same.
        unsafe { heartbeat_builder_error(builder, nothing.as_mut_ptr().cast(), 0, length) }
    });
    assert_eq!(told, length);
    // SAFETY: it lives.
    unsafe { heartbeat_builder_free(builder) };
}

#[test]
fn a_null_is_told_wherever_it_stands_and_freed_without_a_word() {
    let builder = heartbeat_builder_new();
    // SAFETY: a builder that lives.
    assert_eq!(unsafe { heartbeat_builder_set_no_file(builder) }, Outcome::Ok);
    let beats = start(builder);
    let task = start_task(beats, c"task");
    let (word, mut byte, mut length) = (c"127.0.0.1:0".as_ptr(), 0, 0);
    let (mut verdict, mut out) = (Verdict::Alive, ptr::null_mut());
    let (byte, length) = (&raw mut byte, &raw mut length);
    // SAFETY: what is not NULL lives, ends, or may be written to.
    let outcomes = unsafe {
        heartbeat_builder_free(ptr::null_mut());
        heartbeat_free(ptr::null_mut());
        [
            heartbeat_builder_set_cluster(ptr::null_mut(), word),
            heartbeat_builder_set_cluster(builder, ptr::null_mut()),
            heartbeat_builder_set_worker(builder, ptr::null_mut()),
            heartbeat_builder_set_version(builder, ptr::null_mut()),
            heartbeat_builder_add_queue(ptr::null_mut(), word),
            heartbeat_builder_add_queue(builder, ptr::null_mut()),
            heartbeat_builder_set_file(ptr::null_mut(), word),
            heartbeat_builder_set_file(builder, ptr::null_mut()),
            heartbeat_builder_set_no_file(ptr::null_mut()),
            heartbeat_builder_set_interval_ms(ptr::null_mut(), 1),
            heartbeat_builder_set_redis(ptr::null_mut(), word),
            heartbeat_builder_set_redis(builder, ptr::null_mut()),
            heartbeat_builder_set_endpoint(ptr::null_mut(), word),
            heartbeat_builder_set_endpoint(builder, ptr::null_mut()),
            heartbeat_builder_start(ptr::null_mut(), &raw mut out),
            heartbeat_builder_start(builder, ptr::null_mut()),
            heartbeat_builder_error(ptr::null_mut(), byte, 1, length),
            heartbeat_builder_error(builder, ptr::null_mut(), 1, length),
            heartbeat_builder_error(builder, byte, 1, ptr::null_mut()),
            heartbeat_pulse(ptr::null_mut()),
            heartbeat_drain(ptr::null_mut(), 1),
            heartbeat_stop(ptr::null_mut()),
            heartbeat_status(ptr::null_mut(), ptr::null_mut()),
            heartbeat_status(beats, ptr::null_mut()),
            heartbeat_last_error(beats, ptr::null_mut(), 1, length),
            heartbeat_endpoint_address(beats, byte, 1, ptr::null_mut()),
            heartbeat_task_start(ptr::null_mut(), word, 1, ptr::null_mut()),
            heartbeat_task_start(beats, ptr::null_mut(), 1, ptr::null_mut()),
            heartbeat_task_start(beats, word, 1, ptr::null_mut()),
            heartbeat_task_held_by(ptr::null_mut(), 1),
            heartbeat_task_done(ptr::null_mut()),
            heartbeat_task_fail(ptr::null_mut()),
            heartbeat_check_file(ptr::null_mut(), 1, &raw mut verdict, byte, 1, length),
            heartbeat_check_file(word, 1, ptr::null_mut(), byte, 1, length),
            heartbeat_check_file(word, 1, &raw mut verdict, byte, 1, ptr::null_mut()),
        ]
    };
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome, Outcome::NullParameter, "the one of number {number}");
    }
    // SAFETY: a task that lives.
    assert_eq!(unsafe { heartbeat_task_done(task) }, Outcome::Ok);
    free(builder, beats);
}

#[test]
fn threads_share_a_heartbeat_and_hand_their_tasks_to_each_other() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2_000 };
    let folder = tempfile::tempdir().unwrap();
    let builder = settings(&folder.path().join("beat"));
    let beats = &Handed(start(builder));
    thread::scope(|scope| {
        for _ in 0..2 {
            let (give, take) = std::sync::mpsc::channel::<Handed<Task>>();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    // SAFETY: a heartbeat that lives, for any thread.
                    unsafe { assert_eq!(heartbeat_pulse(beats.0), Outcome::Ok) };
                    give.send(Handed(start_task(beats.0, c"handed"))).unwrap();
                }
            });
            scope.spawn(move || {
                for (number, task) in take.into_iter().enumerate() {
                    // SAFETY: a task that lives, and is this thread's alone by now.
                    let ended = unsafe {
                        if number % 2 == 0 {
                            heartbeat_task_done(task.0)
                        } else {
                            heartbeat_task_fail(task.0)
                        }
                    };
                    assert_eq!(ended, Outcome::Ok);
                    let _: Status = status(beats.0);
                }
            });
        }
    });
    // SAFETY: a heartbeat that lives.
    assert_eq!(unsafe { heartbeat_ready(beats.0) }, Outcome::Ok);
    assert_eq!(status(beats.0), Status::Idle);
    free(builder, beats.0);
}

#[test]
fn what_is_said_of_a_number_is_a_text_for_every_number() {
    for number in (0..20).chain([u32::MAX]) {
        for text in [heartbeat_result_text(number), heartbeat_verdict_text(number)] {
            // SAFETY: a constant text that ends, by the header's word.
            assert!(!unsafe { CStr::from_ptr(text) }.to_bytes().is_empty());
        }
        assert!(heartbeat_verdict_is_live(number) || !heartbeat_verdict_is_ready(number));
    }
    // SAFETY: the same.
    assert_eq!(unsafe { CStr::from_ptr(heartbeat_version()) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}
