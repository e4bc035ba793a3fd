//! What stands for `heartbeat/src/sync.rs`: loom's locks, and the rest made of them.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Add;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, LockResult};
use std::time::Duration;

use loom::sync::Condvar as Signal;
pub use loom::sync::{Mutex, MutexGuard};
use nix::errno::Errno;
pub use nix::sys::eventfd::EfdFlags;

/// One word. All that is done to one word has one order that all threads agree on, whatever ordering is asked for; so each
/// is one step here. Loom's own word knows less: an exchange and a store that follow the same store have no order in it.
#[derive(Debug, Default)]
pub struct AtomicU64(Mutex<u64>);

impl AtomicU64 {
    pub fn load(&self, _: Ordering) -> u64 {
        *self.0.lock().unwrap()
    }

    pub fn store(&self, word: u64, _: Ordering) {
        *self.0.lock().unwrap() = word;
    }

    pub fn compare_exchange(&self, from: u64, to: u64, _: Ordering, _: Ordering) -> Result<u64, u64> {
        let mut word = self.0.lock().unwrap();
        if *word == from { Ok(std::mem::replace(&mut word, to)) } else { Err(*word) }
    }
}

/// Which of the waits for a message end without one. Loom has no time; that a wait takes long is that the others go on meanwhile,
/// and that is tried anyway, before it: so one that is to end in vain may end at once.
pub mod patience {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A bit for each wait that finds nothing, the lowest first; those beyond have no end.
    static IN_VAIN: AtomicU64 = AtomicU64::new(0);

    pub fn set(in_vain: u64) {
        IN_VAIN.store(in_vain, Ordering::Relaxed);
    }

    pub fn ends() -> bool {
        let in_vain = IN_VAIN.load(Ordering::Relaxed);
        set(in_vain >> 1);
        in_vain & 1 == 1
    }
}

/// Whatever was waited for has been under way for long: what is told of that is tried, in the place of a moment's patience.
#[derive(Clone, Copy, Debug)]
pub struct Instant;

impl Instant {
    pub fn now() -> Self {
        Self
    }

    pub fn elapsed(self) -> Duration {
        Duration::MAX
    }

    pub fn saturating_duration_since(self, _: Self) -> Duration {
        Duration::ZERO
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, _: Duration) -> Self {
        self
    }
}

#[derive(Debug, Default)]
pub struct Condvar(Signal);

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Has all the time that there is.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        while condition(&mut guard) {
            guard = self.0.wait(guard).unwrap();
        }
        Ok((guard, ()))
    }
}

/// The kernel's counter, as eventfd(2) has it.
#[derive(Debug)]
pub struct EventFd {
    count: Mutex<u64>,
    changed: Signal,
}

impl EventFd {
    pub fn from_flags(_: EfdFlags) -> nix::Result<Self> {
        Ok(Self { count: Mutex::new(0), changed: Signal::new() })
    }

    pub fn write(&self, more: u64) -> nix::Result<usize> {
        *self.count.lock().unwrap() += more;
        self.changed.notify_all();
        Ok(size_of::<u64>())
    }

    pub fn read(&self) -> nix::Result<u64> {
        match std::mem::take(&mut *self.count.lock().unwrap()) {
            0 => Err(Errno::EAGAIN),
            count => Ok(count),
        }
    }

    /// poll(2), without an end.
    pub fn poll(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.changed.wait(count).unwrap();
        }
    }
}

/// [`std::sync::mpsc::sync_channel`], for one sender.
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let line = Line { messages: VecDeque::new(), bound, sender: true, receiver: true };
    let channel = Arc::new(Channel { line: Mutex::new(line), changed: Signal::new() });
    (SyncSender(Arc::clone(&channel)), Receiver(channel))
}

struct Channel<T> {
    line: Mutex<Line<T>>,
    changed: Signal,
}

struct Line<T> {
    messages: VecDeque<T>,
    bound: usize,
    sender: bool,
    receiver: bool,
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap()
    }
}

pub struct SyncSender<T>(Arc<Channel<T>>);

impl<T> SyncSender<T> {
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let mut line = self.0.lock();
        if !line.receiver {
            return Err(TrySendError::Disconnected(message));
        }
        if line.messages.len() == line.bound {
            return Err(TrySendError::Full(message));
        }
        line.messages.push_back(message);
        self.0.changed.notify_all();
        Ok(())
    }

    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut line = self.0.lock();
        while line.receiver && line.messages.len() == line.bound {
            line = self.0.changed.wait(line).unwrap();
        }
        if !line.receiver {
            return Err(SendError(message));
        }
        line.messages.push_back(message);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.0.lock().sender = false;
        self.0.changed.notify_all();
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

pub struct Receiver<T>(Arc<Channel<T>>);

impl<T> Receiver<T> {
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.take(|| true)
    }

    pub fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
        self.take(patience::ends).map_err(|why| match why {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// The next message, where one comes before the wait for it ends.
    fn take(&self, mut ends: impl FnMut() -> bool) -> Result<T, TryRecvError> {
        let mut line = self.0.lock();
        loop {
            if let Some(message) = line.messages.pop_front() {
                self.0.changed.notify_all();
                return Ok(message);
            }
            if !line.sender {
                return Err(TryRecvError::Disconnected);
            }
            if ends() {
                return Err(TryRecvError::Empty);
            }
            line = self.0.changed.wait(line).unwrap();
        }
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = Messages<T>;

    fn into_iter(self) -> Messages<T> {
        Messages(self)
    }
}

pub struct Messages<T>(Receiver<T>);

impl<T> Iterator for Messages<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.take(|| false).ok()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.receiver = false;
        line.messages.clear();
        self.0.changed.notify_all();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
