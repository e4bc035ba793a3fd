//! Settings, and the start.

use std::ffi::{OsStr, c_char};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::boundary::{
    Answer, Buffer, Out, borrowed, bytes, changed, give, guarded, guarded_or, taken, text,
};
use crate::handle::{Heartbeat, optional};
use crate::outcome::Outcome;

/// The settings of a heartbeat. What is not set is taken from the environment at the start (HEARTBEAT_FILE, HEARTBEAT_CLUSTER,
/// HEARTBEAT_WORKER, HEARTBEAT_QUEUES with commas, HEARTBEAT_INTERVAL, HEARTBEAT_PROMISE, HEARTBEAT_LOOP_BUDGET,
/// HEARTBEAT_REDIS_URL, HEARTBEAT_KEY), and else is the default.
#[derive(Default)]
pub struct Builder {
    cluster: Option<String>,
    worker: Option<String>,
    queues: Option<Vec<String>>,
    version: Option<String>,
    file: Option<PathBuf>,
    no_file: bool,
    file_mode: Option<u32>,
    interval: Option<Duration>,
    promise: Option<Duration>,
    loop_budget: Option<Duration>,
    start_deadline: Option<Duration>,
    drain_deadline: Option<Duration>,
    #[cfg(feature = "redis")]
    redis: Option<String>,
    #[cfg(feature = "endpoint")]
    endpoint: Option<std::net::SocketAddr>,
    error: String,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    fn core(&self) -> heartbeat_core::Builder {
        type Core = heartbeat_core::Builder;
        let mut core = heartbeat_core::Heartbeat::builder();
        let names = [
            (&self.cluster, Core::cluster as fn(Core, String) -> Core),
            (&self.worker, Core::worker),
            (&self.version, Core::version),
        ];
        for (name, set) in names {
            if let Some(name) = name {
                core = set(core, name.clone());
            }
        }
        let durations = [
            (self.interval, Core::interval as fn(Core, Duration) -> Core),
            (self.promise, Core::promise),
            (self.loop_budget, Core::loop_budget),
            (self.start_deadline, Core::start_deadline),
            (self.drain_deadline, Core::drain_deadline),
        ];
        for (duration, set) in durations {
            if let Some(duration) = duration {
                core = set(core, duration);
            }
        }
        if let Some(queues) = &self.queues {
            core = core.queues(queues);
        }
        if self.no_file {
            core = core.no_file();
        } else if let Some(path) = &self.file {
            core = core.file(path);
        }
        if let Some(mode) = self.file_mode {
            core = core.file_mode(mode);
        }
        #[cfg(feature = "redis")]
        if let Some(url) = &self.redis {
            core = core.redis(url);
        }
        #[cfg(feature = "endpoint")]
        if let Some(address) = self.endpoint {
            core = core.endpoint(address);
        }
        core
    }
}

/// Sets a name.
///
/// # Safety
///
/// As for [`changed`] and [`text`].
unsafe fn name(
    builder: *mut Builder,
    name: *const c_char,
    place: impl FnOnce(&mut Builder) -> &mut Option<String>,
) -> Outcome {
    guarded(|| {
        // SAFETY: the same promises.
        let (builder, name) = unsafe { (changed(builder)?, text(name)?) };
        *place(builder) = Some(name.to_owned());
        Ok(())
    })
}

/// Sets anything else.
///
/// # Safety
///
/// As for [`changed`].
unsafe fn set(builder: *mut Builder, change: impl FnOnce(&mut Builder)) -> Outcome {
    guarded(|| {
        // SAFETY: the same promise.
        change(unsafe { changed(builder) }?);
        Ok(())
    })
}

/// New settings, all of them unset. NULL only where this library has a bug.
///
/// Ownership: the caller's, until heartbeat_builder_free().
/// Threads: any; what it returns belongs to one thread at a time. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub extern "C" fn heartbeat_builder_new() -> *mut Builder {
    guarded_or(std::ptr::null_mut(), || give(Builder::default()))
}

/// Frees settings; not the heartbeats that were started with them. NULL is allowed.
///
/// Threads: no other may use them any more. Fork: may be called in a child, for its copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_free(builder: *mut Builder) {
    // SAFETY: the caller's word. NULL is nothing to free.
    guarded_or((), || drop(unsafe { taken(builder) }));
}

/// The group of workers that share the work; no braces. Default: $HEARTBEAT_CLUSTER, else "default".
///
/// Ownership: the text is copied.
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_cluster(
    builder: *mut Builder,
    cluster: *const c_char,
) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { name(builder, cluster, |builder| &mut builder.cluster) }
}

/// This worker's name, unique in its cluster. Default: $HEARTBEAT_WORKER, else "HOST:PID".
///
/// Ownership: the text is copied.
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_worker(
    builder: *mut Builder,
    worker: *const c_char,
) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { name(builder, worker, |builder| &mut builder.worker) }
}

/// The worker program's own version, for people. Default: none.
///
/// Ownership: the text is copied.
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_version(
    builder: *mut Builder,
    version: *const c_char,
) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { name(builder, version, |builder| &mut builder.version) }
}

/// One more queue that this worker takes work from. Default: those of $HEARTBEAT_QUEUES, else none.
///
/// Ownership: the text is copied.
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_add_queue(builder: *mut Builder, queue: *const c_char) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let (builder, queue) = unsafe { (changed(builder)?, text(queue)?) };
        builder.queues.get_or_insert_default().push(queue.to_owned());
        Ok(())
    })
}

/// The beat file; relative to the current folder at the start. Default: $HEARTBEAT_FILE, else "/tmp/heartbeat".
/// A folder on tmpfs is best.
///
/// Ownership: the path is copied. It may be of any bytes.
/// Errors: NULL_PARAMETER.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_file(builder: *mut Builder, path: *const c_char) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let (builder, path) = unsafe { (changed(builder)?, bytes(path)?) };
        builder.file = Some(OsStr::from_bytes(path).into());
        builder.no_file = false;
        Ok(())
    })
}

/// No beat file, whatever the environment says.
///
/// Errors: NULL_PARAMETER.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_no_file(builder: *mut Builder) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.no_file = true) }
}

/// The beat file's permission bits, exactly, whatever the umask; never writable for group or others. Default: 0600.
///
/// Errors: NULL_PARAMETER. A mode that cannot be is told at the start.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_file_mode(builder: *mut Builder, mode: u32) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.file_mode = Some(mode)) }
}

/// How often to beat, in milliseconds, from 10. Default: $HEARTBEAT_INTERVAL, else 1,000.
///
/// Errors: NULL_PARAMETER. A time that cannot be is told at the start; HEARTBEAT_NONE is not set. So for all of them.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_interval_ms(builder: *mut Builder, ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.interval = optional(ms)) }
}

/// How long this worker's silence may last before it counts as lost, in milliseconds, from two intervals. Default:
/// $HEARTBEAT_PROMISE, else 30,000.
///
/// Errors: NULL_PARAMETER.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_promise_ms(builder: *mut Builder, ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.promise = optional(ms)) }
}

/// How long the loop may take from one heartbeat_pulse() to the next, in milliseconds. Default: $HEARTBEAT_LOOP_BUDGET, else
/// 30,000.
///
/// Errors: NULL_PARAMETER.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_loop_budget_ms(builder: *mut Builder, ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.loop_budget = optional(ms)) }
}

/// The worker is "starting" until heartbeat_ready(), and overdue where that takes longer than this, in milliseconds. Default:
/// it is ready from its first beat.
///
/// Errors: NULL_PARAMETER.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_start_deadline_ms(builder: *mut Builder, ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.start_deadline = optional(ms)) }
}

/// The deadline of heartbeat_drain() where the call names none, in milliseconds. Default: none.
///
/// Errors: NULL_PARAMETER.
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_drain_deadline_ms(builder: *mut Builder, ms: u64) -> Outcome {
    // SAFETY: the caller's word.
    unsafe { set(builder, |builder| builder.drain_deadline = optional(ms)) }
}

/// Beats to this Redis or Valkey too: redis://HOST, rediss:, unix:, redis+sentinel:, redis+cluster:. Default:
/// $HEARTBEAT_REDIS_URL, else none. A URL that cannot be is told at the start; a Redis that cannot be reached is no error.
///
/// What goes there is signed with the key in $HEARTBEAT_KEY, if there is one: the environment is the only place for it, and no call
/// sets it. A key that cannot be is told at the start.
///
/// Ownership: the text is copied. Nothing of it is ever shown.
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8), UNSUPPORTED (built without the feature redis).
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_redis(builder: *mut Builder, url: *const c_char) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let (builder, url) = unsafe { (changed(builder)?, text(url)?) };
        set_redis(builder, url)
    })
}

#[cfg(feature = "redis")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn set_redis(builder: &mut Builder, url: &str) -> Answer {
    builder.redis = Some(url.to_owned());
    Ok(())
}

#[cfg(not(feature = "redis"))]
fn set_redis(_: &mut Builder, _: &str) -> Answer {
    Err(Outcome::Unsupported)
}

/// Answers GET and HEAD of /livez and /readyz at this address, "127.0.0.1:8090" or "[::1]:8090", from the publisher's own thread
/// and by the verdict of that moment. Port 0 lets the system choose: see heartbeat_endpoint_address(). Default: nowhere. A port in
/// use is told at the start.
///
/// Ownership: the text is copied.
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not an address), UNSUPPORTED (built without the feature endpoint).
/// Threads: one at a time for one builder. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_set_endpoint(
    builder: *mut Builder,
    address: *const c_char,
) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let (builder, address) = unsafe { (changed(builder)?, text(address)?) };
        set_endpoint(builder, address)
    })
}

#[cfg(feature = "endpoint")]
fn set_endpoint(builder: &mut Builder, address: &str) -> Answer {
    builder.endpoint = Some(address.parse().map_err(|_| Outcome::InvalidParameter)?);
    Ok(())
}

#[cfg(not(feature = "endpoint"))]
fn set_endpoint(_: &mut Builder, _: &str) -> Answer {
    Err(Outcome::Unsupported)
}

/// Starts a heartbeat: a thread of its own, with all signals blocked, that beats from now on. Waits for the first beat, for 6 s at
/// most. The settings stay the caller's, and may be used for another start.
///
/// Not an error: a beat file that cannot be written. That is counted, kept (heartbeat_last_error()) and tried again at every
/// beat. The environment is read here, so no other thread may change it meanwhile (setenv, putenv).
///
/// Ownership: the heartbeat is the caller's, until heartbeat_free().
/// Errors: NULL_PARAMETER; CONFIGURATION, HELD, UNSAFE, SYSTEM, of which heartbeat_builder_error() tells more.
/// Threads: one at a time for one builder. Fork: start after daemon() and after fork(), in the process that works.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_start(
    builder: *mut Builder,
    heartbeat_out: *mut *mut Heartbeat,
) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let builder = unsafe { changed(builder) }?;
        let out = Out::new(heartbeat_out)?;
        builder.error.clear();
        match builder.core().start() {
            Ok(core) => {
                // SAFETY: the caller's word.
                unsafe { out.put(give(Heartbeat::new(core))) };
                Ok(())
            }
            Err(error) => {
                builder.error = error.to_string();
                Err(Outcome::from(&error))
            }
        }
    })
}

/// Why the last heartbeat_builder_start() failed, as a sentence for people; empty where it did not. It holds no secret.
///
/// Ownership: copied into the caller's buffer of size bytes, a NUL included, cut at a character where it does not fit. length_out
/// gets its whole length in bytes, so it was cut where that is size or more.
/// Errors: NULL_PARAMETER.
/// Threads: none may change the builder meanwhile. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_builder_error(
    builder: *const Builder,
    buffer: *mut c_char,
    size: usize,
    length_out: *mut usize,
) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let builder = unsafe { borrowed(builder) }?;
        let buffer = Buffer::new(buffer, size, length_out)?;
        // SAFETY: the caller's word.
        unsafe { buffer.put(&builder.error) };
        Ok(())
    })
}
