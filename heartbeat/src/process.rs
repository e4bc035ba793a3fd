//! This process and its end: who it is, which copy of itself after `fork()`, and what runs at `exit()`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::publisher::Shared;
use crate::record::Id;

/// How long `exit()` waits for a beat file to be removed.
const EXIT_WAIT: Duration = Duration::from_millis(500);

static GENERATION: AtomicU32 = AtomicU32::new(0);
static STARTED: Mutex<Started> = Mutex::new(Vec::new());

type Started = Vec<(Id, Weak<Shared>)>;

/// A number that differs between a process and its forked children. One load: no system call.
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Sees to it that forked children know themselves. Before any heartbeat takes its generation.
///
/// Not under a lock: a child may be forked while another thread is just here, and would wait for it for ever. Where two
/// threads are here at once both functions are registered twice, which does no harm.
pub fn watch_forks() -> io::Result<()> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: both functions live as long as the program, touch one atomic or only what `at_exit` says,
    // and neither unwinds.
    let failed =
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) != 0 || libc::atexit(at_exit) != 0 };
    if failed {
        // For want of memory only.
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    WATCHED.store(true, Ordering::Release);
    Ok(())
}

/// Starts a thread that gets no signals: those are for the program's own threads.
pub fn spawn_undisturbed(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    before.thread_set_mask()?;
    spawned.map(drop)
}

/// Has `exit()` clean up after this heartbeat, where it has not been stopped by then.
pub fn stop_at_exit(id: Id, shared: Weak<Shared>) {
    if let Some(mut started) = lock_started() {
        started.retain(|(_, other)| other.strong_count() > 0);
        started.push((id, shared));
    }
}

/// Whether this process, in the program that it runs now, has a heartbeat of this id.
pub fn has_started(id: Id) -> bool {
    lock_started().is_some_and(|started| {
        started.iter().any(|(other, shared)| *other == id && shared.strong_count() > 0)
    })
}

/// A child may have been forked while another thread held the lock: then it is never to be had.
fn lock_started() -> Option<MutexGuard<'static, Started>> {
    for _ in 0..100 {
        match STARTED.try_lock() {
            Ok(started) => return Some(started),
            Err(TryLockError::Poisoned(_)) => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    #[cfg(feature = "endpoint")]
    listeners::close_all();
}

/// Sockets that a forked child closes, so that it does not hold its parent's port, where nobody would answer.
#[cfg(feature = "endpoint")]
pub mod listeners {
    use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
    use std::sync::atomic::{AtomicI32, Ordering};

    const NONE: RawFd = -1;

    /// More endpoints than a process has workers. What finds no place here is only not closed in children.
    static OPEN: [AtomicI32; 8] = [const { AtomicI32::new(NONE) }; 8];

    pub fn add(listener: BorrowedFd<'_>) {
        change(NONE, listener.as_raw_fd());
    }

    pub fn remove(listener: BorrowedFd<'_>) {
        change(listener.as_raw_fd(), NONE);
    }

    fn change(from: RawFd, to: RawFd) {
        for place in &OPEN {
            if place.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    pub(super) fn close_all() {
        for place in &OPEN {
            let listener = place.swap(NONE, Ordering::Relaxed);
            if listener != NONE {
                // SAFETY: the child's copy of the descriptor. Its owner is the publisher's thread, which was not
                // copied, so nobody here uses or closes it. `close` may be called after a fork.
                unsafe { libc::close(listener) };
            }
        }
    }
}

extern "C" fn at_exit() {
    let stop_all = || {
        let started = match STARTED.try_lock() {
            Ok(mut started) => std::mem::take(&mut *started),
            Err(TryLockError::Poisoned(poisoned)) => std::mem::take(&mut *PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => return,
        };
        let started: Vec<_> = started.iter().filter_map(|(_, shared)| shared.upgrade()).collect();
        for shared in &started {
            shared.request_stop();
        }
        for shared in started {
            // There is nobody left to tell.
            let _ = shared.wait_stopped(EXIT_WAIT);
        }
    };
    // Across this border nothing may unwind; a panic has been reported by the panic hook.
    drop(catch_unwind(AssertUnwindSafe(stop_all)));
}
