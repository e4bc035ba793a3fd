//! The clocks: monotonic for every decision, wall for people and for file times.

use std::time::{SystemTime, UNIX_EPOCH};

/// `CLOCK_MONOTONIC` in milliseconds: the time since boot in which the machine was not suspended.
pub fn mono_ms() -> u64 {
    read_ms(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_BOOTTIME` in milliseconds: the same with suspends, only to be held against a process's start time.
pub fn boot_ms() -> u64 {
    read_ms(libc::CLOCK_BOOTTIME)
}

fn read_ms(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Both exist on every Linux, so the call cannot fail. Not through `nix`, whose wrapper is a quarter of a pulse.
    // SAFETY: `time` is valid for the time of the call.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    // They are never negative.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The wall clock in milliseconds since 1970; 0 where it stands before that.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
