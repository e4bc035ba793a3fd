//! The verdict on one worker as a check of a configuration.

use std::path::PathBuf;
use std::time::Instant;

use heartbeat::DEFAULT_FILE;
use heartbeat::record::Record;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Overdue, Settings as Question, Unknown, Want, parse_owner};
use crate::blocking::Blocking;
use crate::check::{self, Check, Failure, Workers};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::Span;
use crate::status::Status;

/// Whether a worker on this machine is live or ready, by its beat file: the verdict that `checker worker` gives.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// The beat file. Without it `$HEARTBEAT_FILE`, else `/tmp/heartbeat`.
    file: Option<PathBuf>,
    /// How old the last beat may be, in place of the worker's own promise. It also makes an empty, touched file a heartbeat.
    max_age: Option<Span>,
    /// What is asked: whether it should be left running (`live`), or whether it takes work (`ready`).
    #[serde(default, rename = "for")]
    want: Want,
    /// What a task past its deadline counts for, where liveness is asked.
    #[serde(default)]
    overdue: Overdue,
    /// Who may own the beat file, besides root and the checker's own user: a name, a numeric id, or `any`.
    owner: Option<String>,
    /// What it counts for that nobody can tell. Without it, it is a warning for `live`, and fails for `ready`.
    unknown: Option<Unknown>,
}

/// Asks it.
#[derive(Debug)]
pub struct WorkerCheck {
    question: Question,
    owner: Option<String>,
    look: Blocking<()>,
    /// For who looks at the worker, beside the check.
    onlookers: Blocking<()>,
}

impl Settings for Worker {
    const KIND: &'static str = "worker";
    const EXAMPLE: &'static str = "file = \"/run/orders/heartbeat\"\nfor = \"ready\"";
    const CONTRACT: Contract = Contract::Local;
    type Check = WorkerCheck;

    fn build(self) -> Result<WorkerCheck, Vec<Mistake>> {
        let file = self.file.or_else(|| {
            let set = std::env::var_os("HEARTBEAT_FILE").filter(|path| !path.is_empty());
            set.map(PathBuf::from)
        });
        let question = Question {
            max_age: self.max_age.map(|Span(age)| age),
            want: self.want,
            overdue: self.overdue,
            unknown: self.unknown,
            ..Question::new(file.unwrap_or_else(|| DEFAULT_FILE.into()))
        };
        let (look, onlookers) = (Blocking::new(()), Blocking::new(()));
        Ok(WorkerCheck { question, owner: self.owner, look, onlookers })
    }
}

#[async_trait::async_trait]
impl Check for WorkerCheck {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        judge(&self.answer(&self.look).await?)
    }

    async fn workers(&self, _: usize, _: Instant) -> Option<Result<Workers, Failure>> {
        Some(self.answer(&self.onlookers).await.map(|answer| alone(&answer)))
    }
}

impl WorkerCheck {
    async fn answer(&self, look: &Blocking<()>) -> Result<Answer, Failure> {
        let (mut question, owner) = (self.question.clone(), self.owner.clone());
        let seen = move |(): &mut ()| {
            // A user's name may be a network away, so it is looked up here.
            question.owner = owner.as_deref().map(parse_owner).transpose()?.unwrap_or_default();
            Ok(question.answer())
        };
        let looked: Result<Answer, super::NoSuchUser> = look.with(seen).await?;
        looked.map_err(|error| Failure::unknown("the owner's name is not known here").because(error))
    }
}

/// The worker, by itself.
fn alone(answer: &Answer) -> Workers {
    let record = answer.record.as_deref();
    let text = |of: fn(&Record) -> &String| record.map(of).cloned().unwrap_or_default();
    let worker = check::Worker {
        name: text(|record| &record.worker),
        host: text(|record| &record.host),
        id: record.map(|record| record.id.to_string()),
        age_ms: answer.age_ms,
        queues: record.map(|record| record.queues.clone()).unwrap_or_default(),
        verdict: answer.verdict,
        reason: answer.reason.clone(),
        nearest: record
            .and_then(|record| check::Worker::nearest_of(record, answer.age_ms.unwrap_or_default())),
    };
    Workers { cluster: text(|record| &record.cluster), workers: vec![worker], more: false, counts: None }
}

/// The verdict is for everyone; the sentence around it names tasks and processes.
fn judge(answer: &Answer) -> Result<(), Failure> {
    let reason = format!("the worker's verdict is `{}`", answer.verdict);
    let failure = match (answer.status, answer.passed) {
        (Status::Pass, _) => return Ok(()),
        (_, true) => Failure::warning(reason),
        (Status::Unknown, false) => Failure::unknown(reason),
        (_, false) => Failure::failed(reason),
    };
    Err(failure.because(answer.reason.clone()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use heartbeat::verdict::Verdict;
    use serde_json::{Value, from_value, json};

    use super::*;

    async fn ask(settings: Value) -> (Status, String) {
        let check = from_value::<Worker>(settings).unwrap().build().unwrap();
        match check.run(Instant::now() + Duration::from_secs(5)).await {
            Ok(()) => (Status::Pass, String::new()),
            Err(failure) => (failure.status(), failure.reason().to_owned()),
        }
    }

    #[tokio::test]
    async fn it_passes_while_the_worker_beats_and_fails_once_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("beat");
        let builder = heartbeat::Heartbeat::builder().environment(|_| None).file(&file);
        let worker = builder.start().unwrap();
        for want in ["live", "ready"] {
            assert_eq!(ask(json!({ "file": file, "for": want })).await.0, Status::Pass);
        }
        let check = from_value::<Worker>(json!({ "file": file })).unwrap().build().unwrap();
        let seen = async || check.workers(1, Instant::now()).await.unwrap().unwrap().workers.remove(0);
        let alive = seen().await;
        assert_eq!((alive.verdict, alive.name.is_empty(), alive.id.is_some()), (Verdict::Alive, false, true));
        worker.stop().unwrap();
        let expected = (Status::Fail, "the worker's verdict is `missing`".to_owned());
        assert_eq!(ask(json!({ "file": file })).await, expected);
        let missing = seen().await;
        assert_eq!((missing.verdict, &*missing.name, missing.id), (Verdict::Missing, "", None));
        let _again = heartbeat::Heartbeat::builder().environment(|_| None).file(&file).start().unwrap();
        assert_eq!(seen().await.verdict, Verdict::Alive);
        check.run(Instant::now() + Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_touched_file_and_its_owner_are_settings() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(ask(json!({ "file": file.path() })).await.0, Status::Fail);
        assert_eq!(ask(json!({ "file": file.path(), "max_age": "1m" })).await.0, Status::Pass);
        assert_eq!(
            ask(json!({ "file": file.path(), "owner": "nobody-of-that-name" })).await.0,
            Status::Unknown
        );
    }

    #[test]
    fn each_answer_counts_for_what_it_says() {
        let mut answer = Question::new("/run/beat").cannot_tell("why");
        let status = |answer: &Answer| judge(answer).map_err(|failure| failure.status());
        assert_eq!(status(&answer), Err(Status::Warn));
        answer.passed = false;
        assert_eq!(status(&answer), Err(Status::Unknown));
        answer.status = Status::Fail;
        assert_eq!(status(&answer), Err(Status::Fail));
        (answer.status, answer.passed) = (Status::Pass, true);
        assert_eq!(status(&answer), Ok(()));
    }
}
