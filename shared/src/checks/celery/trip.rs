//! A task's way from here to a worker, and of its result back.
//!
//! Nothing of it is to stay: a task that nobody has taken in time is taken back or dropped by its broker, one that is taken
//! later is not begun, and a result that was read is deleted.

use std::time::Instant;

use super::backend::Backend;
use super::{Lone, before, nothing};
use crate::celery::Celery;
use crate::celery::task::{End, Task};
use crate::check::Failure;

/// Sends a task, over a connection of its own.
#[derive(Debug)]
pub struct Trip {
    task: Task,
    line: Lone<Celery>,
}

impl Trip {
    pub fn new(task: Task, celery: Celery) -> Self {
        Self { task, line: Lone::new(celery) }
    }

    #[cfg(test)]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Sends it, and waits for its end.
    pub async fn make(&self, backend: &Backend, deadline: Instant) -> Result<(), Failure> {
        let until = before(deadline);
        let task = self.task.clone();
        let sent = self.ask(deadline, move |celery| celery.send(&task, until)).await?;
        let now = Instant::now();
        // What is left after that is for a task to be taken back.
        let last_look = now + until.saturating_duration_since(now) * 9 / 10;
        let end = if matches!(backend, Backend::Reply) {
            let sent = sent.clone();
            self.ask(deadline, move |celery| celery.result(&sent, last_look)).await
        } else {
            backend.end(&sent, last_look, deadline).await
        };
        match end {
            Ok(Some(end)) => self.judge(end),
            unknown => {
                let until = before(deadline);
                let withdrawn = self.ask(deadline, move |celery| celery.withdraw(&sent, until)).await;
                unknown.and(withdrawn)?;
                Err(Failure::failed(format!("the task {} was not done in time", self.task.name)))
            }
        }
    }

    fn judge(&self, end: End) -> Result<(), Failure> {
        let name = &self.task.name;
        match end {
            End::Done => Ok(()),
            End::Failed(why) => Err(Failure::failed(format!("the task {name} failed")).because(why)),
            End::Revoked => Err(Failure::failed(format!(
                "the task {name} was not begun: it was revoked, or had expired by the worker's clock"
            ))),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        deadline: Instant,
        question: impl FnOnce(&mut Celery) -> Result<T, crate::celery::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let name = &self.task.name;
        match self.line.with(deadline, question).await {
            Ok(told) => told.map_err(|error| {
                Failure::failed(format!("the task {name}: {}", error.reason())).because(error.to_string())
            }),
            Err(unanswered) => Err(nothing("the broker", unanswered)),
        }
    }
}
