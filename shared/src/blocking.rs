//! What only blocking code can use, for checks: it runs on a thread that may block, one question at a time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use crate::check::Failure;

/// Something that is used from threads that may block.
pub struct Blocking<T>(Arc<Mutex<T>>);

impl<T> fmt::Debug for Blocking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blocking(…)")
    }
}

impl<T: Send + 'static> Blocking<T> {
    /// Keeps it.
    pub fn new(inner: T) -> Self {
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Uses it on another thread. Where an earlier use that nobody waits for any more still hangs there, no second thread is
    /// given to the same fate: nobody can tell.
    pub async fn with<R: Send + 'static>(
        &self,
        using: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        if let Err(TryLockError::WouldBlock) = self.0.try_lock() {
            return Err(Failure::unknown("an earlier question still hangs"));
        }
        let inner = Arc::clone(&self.0);
        let used = tokio::task::spawn_blocking(move || {
            // A panic of an earlier use has been told there.
            using(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
        });
        used.await.map_err(|_| Failure::failed("the check itself failed unexpectedly"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::status::Status;

    #[tokio::test]
    async fn a_use_that_hangs_takes_one_thread_and_no_more() {
        let (end, ended) = mpsc::channel::<()>();
        let blocking = Blocking::new(ended);
        assert!(
            timeout(Duration::from_millis(50), blocking.with(|ended| ended.recv().is_ok())).await.is_err()
        );
        let failure = blocking.with(|_| ()).await.unwrap_err();
        assert_eq!(failure.status(), Status::Unknown);
        end.send(()).unwrap();
        while blocking.with(|_| ()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_fails_that_use_alone() {
        let blocking = Blocking::new(7);
        assert_eq!(blocking.with(|_| panic!("on purpose")).await.unwrap_err().status(), Status::Fail);
        assert_eq!(blocking.with(|seven| *seven).await.unwrap(), 7);
    }
}
