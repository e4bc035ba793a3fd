//! The handle that a worker holds.

use std::ffi::c_char;
use std::time::Duration;

use heartbeat_core::record;

use crate::boundary::{Buffer, Out, borrowed, guarded, guarded_or, taken};
use crate::outcome::Outcome;

/// "None", where a time in milliseconds is asked for: no deadline, no greatest age; of a heartbeat_builder_set_..._ms(), not set.
pub const HEARTBEAT_NONE: u64 = u64::MAX;

/// A time, or none.
pub fn optional(ms: u64) -> Option<Duration> {
    (ms != HEARTBEAT_NONE).then_some(Duration::from_millis(ms))
}

/// A worker's heartbeat: beats from heartbeat_builder_start() until heartbeat_stop(), heartbeat_free(), or exit().
///
/// In a forked child the inherited handle does nothing, and every call on it returns as it would in the parent: the child neither
/// beats nor cleans up in its parent's name, and no lock is touched that another thread may have held. It may free its copy, or
/// leave it.
#[derive(Debug)]
pub struct Heartbeat {
    pub(crate) core: heartbeat_core::Heartbeat,
}

impl Heartbeat {
    pub(crate) fn new(core: heartbeat_core::Heartbeat) -> Self {
        Self { core }
    }
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Not ready yet.
    Starting = 0,
    /// Ready, with no task.
    Idle = 1,
    /// Ready, with at least one task.
    Busy = 2,
    /// Finishing what it has.
    Draining = 3,
    /// Ended; in a forked child, always.
    Stopped = 4,
}

impl From<record::Status> for Status {
    fn from(status: record::Status) -> Self {
        match status {
            record::Status::Starting => Self::Starting,
            record::Status::Idle => Self::Idle,
            record::Status::Busy => Self::Busy,
            record::Status::Draining => Self::Draining,
            record::Status::Stopped => Self::Stopped,
        }
    }
}

/// Calls the core.
///
/// # Safety
///
/// As for [`borrowed`].
unsafe fn on(heartbeat: *const Heartbeat, call: impl FnOnce(&heartbeat_core::Heartbeat)) -> Outcome {
    guarded(|| {
        // SAFETY: the same promise.
        call(&unsafe { borrowed(heartbeat) }?.core);
        Ok(())
    })
}

/// Copies what a heartbeat has to say into the caller's buffer.
///
/// # Safety
///
/// As for [`borrowed`]; and the buffer is the caller's to write to, for its size.
unsafe fn copied(
    heartbeat: *const Heartbeat,
    buffer: *mut c_char,
    size: usize,
    length_out: *mut usize,
    text: impl FnOnce(&Heartbeat) -> String,
) -> Outcome {
    guarded(|| {
        // SAFETY: the same promise.
        let heartbeat = unsafe { borrowed(heartbeat) }?;
        let buffer = Buffer::new(buffer, size, length_out)?;
        // SAFETY: the same promise.
        unsafe { buffer.put(&text(heartbeat)) };
        Ok(())
    })
}

/// Marks the worker's loop alive: it will be back within its loop budget. One clock read and one atomic store; no lock, no
/// allocation, no system call.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: safe in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_pulse(heartbeat: *const Heartbeat) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { on(heartbeat, heartbeat_core::Heartbeat::pulse) }
}

/// Marks the worker's loop alive, and says that its next pulse may take so many milliseconds: the loop is about to run a long
/// job itself. 97 days at most, for HEARTBEAT_NONE too; above 2.3 hours, whole seconds. It costs what heartbeat_pulse() costs.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: safe in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_pulse_within_ms(heartbeat: *const Heartbeat, budget_ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { on(heartbeat, |core| core.pulse_within(Duration::from_millis(budget_ms))) }
}

/// Leaves "starting". Does nothing in any other state.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_ready(heartbeat: *const Heartbeat) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { on(heartbeat, heartbeat_core::Heartbeat::ready) }
}

/// The worker finishes what it has and takes no more. It is "drain overdue" where that takes longer than deadline_ms;
/// HEARTBEAT_NONE: the builder's drain deadline, and without one it may take as long as it takes.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_drain(heartbeat: *const Heartbeat, deadline_ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { on(heartbeat, |core| core.drain(optional(deadline_ms))) }
}

/// The worker does not reach where its work comes from, from now on; said again, the first moment counts. Until
/// heartbeat_broker_back() the loop is not judged, because it waits, nor is the deadline of a start; tasks are, as ever. Once that has
/// lasted for longer than the promise, the worker is "cut off": live, and not ready.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_broker_lost(heartbeat: *const Heartbeat) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { on(heartbeat, heartbeat_core::Heartbeat::broker_lost) }
}

/// The worker reaches where its work comes from again. The loop and the start have the time back that it took.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_broker_back(heartbeat: *const Heartbeat) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { on(heartbeat, heartbeat_core::Heartbeat::broker_back) }
}

/// What the next beat will say.
///
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: "stopped" in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_status(heartbeat: *const Heartbeat, status_out: *mut Status) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let heartbeat = unsafe { borrowed(heartbeat) }?;
        let out = Out::new(status_out)?;
        // SAFETY: the caller's word.
        unsafe { out.put(heartbeat.core.status().into()) };
        Ok(())
    })
}

/// The last thing that went wrong with the file, Redis or the stop, as a sentence for people; empty where nothing did. It holds
/// no secret.
///
/// Ownership: copied into the caller's buffer of size bytes, a NUL included, cut at a character where it does not fit. length_out
/// gets its whole length in bytes, so it was cut where that is size or more.
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: empty in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_last_error(
    heartbeat: *const Heartbeat,
    buffer: *mut c_char,
    size: usize,
    length_out: *mut usize,
) -> Outcome {
    let error = |heartbeat: &Heartbeat| heartbeat.core.last_error().unwrap_or_default();
    // SAFETY: the caller's word.
    unsafe { copied(heartbeat, buffer, size, length_out, error) }
}

/// Where the endpoint listens, as "127.0.0.1:8090", with the port that the system chose where 0 was asked for; empty where there
/// is none.
///
/// Ownership: copied into the caller's buffer of size bytes, a NUL included, cut where it does not fit. length_out gets its whole
/// length in bytes, so it was cut where that is size or more.
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time. Signals: not in a handler. Fork: what it was in the parent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_endpoint_address(
    heartbeat: *const Heartbeat,
    buffer: *mut c_char,
    size: usize,
    length_out: *mut usize,
) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { copied(heartbeat, buffer, size, length_out, |heartbeat| endpoint(&heartbeat.core)) }
}

#[cfg(feature = "endpoint")]
fn endpoint(core: &heartbeat_core::Heartbeat) -> String {
    core.endpoint_address().map(|address| address.to_string()).unwrap_or_default()
}

#[cfg(not(feature = "endpoint"))]
fn endpoint(_: &heartbeat_core::Heartbeat) -> String {
    String::new()
}

/// Ends the beats and removes the beat file; waits for that, 2 s at most. Once stopped, a heartbeat stays so. The handle stays
/// the caller's.
///
/// Errors: NULL_PARAMETER; SYSTEM, where the file could not be removed (its record then says "stopped" where it can) or the
/// beats did not end in time: heartbeat_last_error() tells which. It may be called again.
/// Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_stop(heartbeat: *const Heartbeat) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let heartbeat = unsafe { borrowed(heartbeat) }?;
        heartbeat.core.stop().map_err(|error| Outcome::from(&error))
    })
}

/// Stops a heartbeat, where heartbeat_stop() has not, and frees it. NULL is allowed. Tasks may be ended after it.
///
/// Threads: no other may use it any more. Signals: not in a handler. Fork: may be called in a child, for its copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_free(heartbeat: *mut Heartbeat) {
    // SAFETY: the caller's word. NULL is nothing to free.
    guarded_or((), || drop(unsafe { taken(heartbeat) }));
}
