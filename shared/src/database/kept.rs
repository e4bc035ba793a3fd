//! A database, and the connection to it that is kept from one question to the next.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::connection::Connection;
use super::place::Place;
use crate::check::Failure;

/// How long a connection is kept: after a changed password or a name that leads elsewhere, for so long at most the old one
/// is asked.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Something to ask a database.
#[async_trait::async_trait]
pub trait Question: Send + Sync {
    /// What there is to tell.
    type Answer: Send;

    /// Asks. It may be asked twice, over two connections, where the first one does not give an answer.
    async fn ask(&self, connection: &mut Connection, deadline: Instant) -> Result<Self::Answer, Failure>;
}

/// A database, and the connection to it that is kept.
pub struct Database {
    place: Place,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    connection: Connection,
    since: Instant,
}

impl Database {
    /// Opens nothing.
    pub fn new(place: Place) -> Self {
        Self { place, kept: Mutex::new(None) }
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Asks over the kept connection, or over a new one.
    ///
    /// A kept connection can only do good: whatever goes wrong over it is asked again over a new one, and so is what is
    /// not answered in half of the time. While a question is under way its connection belongs to it, and ends with it
    /// where it is given up.
    pub async fn ask<Q: Question>(&self, question: &Q, deadline: Instant) -> Result<Q::Answer, Failure> {
        if let Some(kept) = self.take() {
            let patience = deadline.saturating_duration_since(Instant::now()) / 2;
            if let Ok(Ok(answer)) = timeout(patience, self.put(question, kept, deadline)).await {
                return Ok(answer);
            }
        }
        let connection = self.place.connect(deadline).await?;
        self.put(question, Kept { connection, since: Instant::now() }, deadline).await
    }

    async fn put<Q: Question>(
        &self,
        question: &Q,
        mut kept: Kept,
        deadline: Instant,
    ) -> Result<Q::Answer, Failure> {
        let answer = question.ask(&mut kept.connection, deadline).await?;
        if kept.connection.is_worth_keeping() {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        } else {
            kept.connection.close().await;
        }
        Ok(answer)
    }

    fn take(&self) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|kept| kept.since.elapsed() < KEPT_FOR)
    }
}

/// Where it is: nothing of what connects.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).finish_non_exhaustive()
    }
}
