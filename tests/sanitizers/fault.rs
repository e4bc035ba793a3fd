//! A C program that uses libheartbeat as it must not, in one way or another: what watches has to say so, or it sees nothing.

#![allow(dead_code, reason = "the modules are those of libheartbeat, whole")]

use std::hint::{black_box, spin_loop};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use builder::{
    Builder, heartbeat_builder_free, heartbeat_builder_new, heartbeat_builder_set_no_file,
    heartbeat_builder_start,
};
use handle::{heartbeat_free, heartbeat_pulse};
use outcome::Outcome;

#[path = "../../heartbeat/c/src/boundary.rs"]
mod boundary;
#[path = "../../heartbeat/c/src/builder.rs"]
mod builder;
#[path = "../../heartbeat/c/src/handle.rs"]
mod handle;
#[path = "../../heartbeat/c/src/outcome.rs"]
mod outcome;
#[cfg(miri)]
mod stand_ins;

fn main() {
    match std::env::args().nth(1).as_deref() {
        // No fault: nothing may be reported.
        Some("none") => pulse(false),
        Some("freed") => pulse(true),
        Some("leaked") => thread::spawn(|| {
            black_box(heartbeat_builder_new());
        })
        .join()
        .unwrap(),
        Some("raced") => race(),
        other => panic!("unknown fault {other:?}"),
    }
}

/// A heartbeat, and a pulse of it, before or after it is freed.
fn pulse(freed: bool) {
    let builder = heartbeat_builder_new();
    let mut beats = ptr::null_mut();
    // SAFETY: none, where it is freed first.
    unsafe {
        assert_eq!(heartbeat_builder_set_no_file(builder), Outcome::Ok);
        assert_eq!(heartbeat_builder_start(builder, &raw mut beats), Outcome::Ok);
        if freed {
            heartbeat_free(beats);
        }
        assert_eq!(heartbeat_pulse(beats), Outcome::Ok);
        if !freed {
            heartbeat_free(beats);
        }
        heartbeat_builder_free(builder);
    }
}

/// Settings that go from one thread to another by an atomic that orders nothing.
fn race() {
    static HANDED: AtomicPtr<Builder> = AtomicPtr::new(ptr::null_mut());
    let other = thread::spawn(|| {
        loop {
            let builder = HANDED.load(Ordering::Relaxed);
            if !builder.is_null() {
                // SAFETY: none.
                break unsafe { heartbeat_builder_set_no_file(builder) };
            }
            spin_loop();
        }
    });
    let builder = heartbeat_builder_new();
    HANDED.store(builder, Ordering::Relaxed);
    assert_eq!(other.join().unwrap(), Outcome::Ok);
    // SAFETY: the other thread has ended.
    unsafe { heartbeat_builder_free(builder) };
}
