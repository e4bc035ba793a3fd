//! Work that may block for ever, such as a question to a file system whose server is gone: apart from everything else,
//! and never twice at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use std::{io, thread};

use tokio::sync::oneshot;
use tokio::time;

/// Where one question at a time is asked, in a thread of its own that nobody waits for once its asker is gone. The
/// runtime's own threads will not do: the runtime waits for them when it ends.
#[derive(Debug, Default)]
pub struct Solo {
    busy: Arc<AtomicBool>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// None came by the deadline. The thread is left behind, and is the last one until it has ended.
    Late,
    /// The question of an earlier run has not been answered to this day, and this one was not even asked.
    Still,
    /// It could not be asked.
    Broken(io::Error),
}

/// Free again, however the work ends.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Solo {
    /// Asks, by the deadline.
    pub async fn ask<T, F>(&self, deadline: Instant, question: F) -> Result<T, Unanswered>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if self.busy.swap(true, Ordering::Acquire) {
            return Err(Unanswered::Still);
        }
        let busy = Busy(Arc::clone(&self.busy));
        let (answer, answered) = oneshot::channel();
        let work = move || {
            let told = question();
            drop(busy);
            // Whoever asked may have gone meanwhile.
            drop(answer.send(told));
        };
        thread::Builder::new().name("check".to_owned()).spawn(work).map_err(Unanswered::Broken)?;
        match time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(_)) => Err(Unanswered::Broken(io::Error::other("the question panicked"))),
            Err(_) => Err(Unanswered::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn one_thread_hangs_and_no_second_one_until_it_has_ended() {
        let solo = Solo::default();
        let (let_go, hung) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let question = move || {
            hung.recv().unwrap();
            ended.send(()).unwrap();
        };
        assert!(matches!(solo.ask(soon(), question).await, Err(Unanswered::Late)));
        for _ in 0..100 {
            let asked = solo.ask(soon(), || panic!("asked all the same")).await;
            assert!(matches!(asked, Err::<(), _>(Unanswered::Still)));
        }
        let_go.send(()).unwrap();
        end.recv().unwrap();
        while solo.busy.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let later = Instant::now() + Duration::from_secs(20);
        assert_eq!(solo.ask(later, || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_frees_it() {
        let solo = Solo::default();
        let later = Instant::now() + Duration::from_secs(20);
        let broken = solo.ask(later, || panic!("of the test")).await;
        assert!(matches!(broken, Err::<(), _>(Unanswered::Broken(_))));
        assert_eq!(solo.ask(later, || 7).await.unwrap(), 7);
    }
}
