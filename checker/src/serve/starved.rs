//! Whether this process itself was kept from running: stopped, throttled, or on a machine with too much to do.
//!
//! What seems late then is no news of any dependency. A thread of its own wakes up every 50 ms, only while somebody looks, and
//! adds up how much later than asked for it was woken.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How often it wakes up.
const PERIOD: Duration = Duration::from_millis(50);

/// So much later than asked for is what any machine does now and then.
const ORDINARY: Duration = Duration::from_millis(50);

/// Adds up the time for which this process was kept from running.
#[derive(Debug)]
pub struct Starved {
    inner: Arc<Inner>,
    thread: Thread,
}

#[derive(Debug)]
struct Inner {
    ended: AtomicBool,
    wakings: Mutex<Wakings>,
}

/// The sum, as far as wakings tell.
#[derive(Clone, Copy, Debug)]
struct Wakings {
    /// How many look.
    watchers: usize,
    last: Instant,
    lost: Duration,
}

impl Wakings {
    /// One more looks; what was lost before is given.
    fn begin(&mut self, now: Instant) -> Duration {
        self.watchers += 1;
        if self.watchers == 1 {
            // Nobody has looked for some time, and that is no loss.
            self.last = now;
        }
        self.lost(now)
    }

    fn woken(&mut self, now: Instant) {
        self.lost = self.lost(now);
        self.last = now;
    }

    /// What was lost until now, the waking that is overdue counted in.
    fn lost(&self, now: Instant) -> Duration {
        let late = now.saturating_duration_since(self.last).saturating_sub(PERIOD);
        if late > ORDINARY { self.lost + late } else { self.lost }
    }
}

impl Starved {
    /// Starts the thread, which sleeps.
    pub fn start() -> io::Result<Self> {
        let wakings = Mutex::new(Wakings { watchers: 0, last: Instant::now(), lost: Duration::ZERO });
        let inner = Arc::new(Inner { ended: AtomicBool::new(false), wakings });
        let own = Arc::clone(&inner);
        let thread =
            thread::Builder::new().name("starved".to_owned()).spawn(move || own.wake())?.thread().clone();
        Ok(Self { inner, thread })
    }

    /// From now on until the value is dropped, what is lost is seen.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let before = self.inner.wakings().begin(Instant::now());
        // It sleeps where nobody looked.
        self.thread.unpark();
        Watch { of: Arc::clone(self), before }
    }

    /// As if so much had been lost.
    #[cfg(test)]
    pub fn lose(&self, time: Duration) {
        self.inner.wakings().lost += time;
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Inner {
    fn wakings(&self) -> MutexGuard<'_, Wakings> {
        // Nothing panics under the lock.
        self.wakings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        while !self.ended.load(Ordering::SeqCst) {
            let mut wakings = self.wakings();
            if wakings.watchers == 0 {
                drop(wakings);
                thread::park();
            } else {
                wakings.woken(Instant::now());
                drop(wakings);
                thread::park_timeout(PERIOD);
            }
        }
    }
}

/// Somebody looks.
#[derive(Debug)]
pub struct Watch {
    of: Arc<Starved>,
    before: Duration,
}

impl Watch {
    /// How long this process was kept from running since the look began.
    pub fn lost(&self) -> Duration {
        self.of.inner.wakings().lost(Instant::now()).saturating_sub(self.before)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.of.inner.wakings().watchers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordinary_is_no_loss_and_what_is_overdue_counts_before_it_is_woken() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut wakings = Wakings { watchers: 1, last: begun, lost: Duration::ZERO };
        wakings.woken(at(50));
        wakings.woken(at(150));
        assert_eq!(wakings.lost(at(250)), Duration::ZERO);
        assert_eq!(wakings.lost(at(1_200)), Duration::from_secs(1));
        wakings.woken(at(1_200));
        wakings.woken(at(1_250));
        assert_eq!(wakings.lost(at(1_300)), Duration::from_secs(1));
    }

    #[test]
    fn who_begins_to_look_is_told_of_no_time_before_and_neither_is_who_joins_in() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut wakings = Wakings { watchers: 0, last: begun, lost: Duration::ZERO };
        // Nobody has looked for a minute, and both come before the thread is woken.
        let (first, second) = (wakings.begin(at(60)), wakings.begin(at(60)));
        assert_eq!((first, second, wakings.lost(at(60))), (Duration::ZERO, Duration::ZERO, Duration::ZERO));
        // Who joins in while a waking is overdue is not told of what was lost by then.
        let third = wakings.begin(at(70));
        let lost = wakings.lost(at(80));
        assert_eq!((lost.as_secs(), lost.saturating_sub(third).as_secs(), wakings.watchers), (19, 10, 3));
    }

    #[test]
    fn nobody_who_looks_is_told_of_the_time_before_and_the_thread_ends_with_its_owner() {
        let starved = Arc::new(Starved::start().unwrap());
        drop(starved.watch());
        thread::sleep(Duration::from_millis(300));
        assert!(starved.watch().lost() < Duration::from_millis(200));
        let inner = Arc::downgrade(&starved.inner);
        drop(starved);
        let begun = Instant::now();
        while inner.upgrade().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the thread goes on");
            thread::yield_now();
        }
    }
}
