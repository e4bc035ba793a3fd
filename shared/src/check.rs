//! What a check is: one question to one dependency, asked again and again.
//!
//! A check knows nothing of how its answer is shown, of other checks, or of what its failure counts for; it is asked
//! by whoever runs it, with a deadline.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use heartbeat::record::Record;
use heartbeat::verdict::Verdict;

use crate::hidden::without_secrets;
use crate::status::Status;

/// One question to one dependency.
///
/// A check is made once and asked often, by one asker at a time. It keeps what is worth keeping between two questions
/// (a connection), notices by itself when that is no longer good, and is never wrong for its sake: a kept connection that
/// has died is replaced within the same question.
///
/// Rules:
/// - It does not block its thread: what must block is moved to one that may (`tokio::task::spawn_blocking`).
/// - It does not outlive `deadline`. Who asks drops the future there, so whatever it began must end with it.
/// - Every byte that a peer sends may mean harm, and any number of them may come.
/// - It leaves nothing behind at the dependency, however it ends.
#[async_trait::async_trait]
pub trait Check: Send + Sync {
    /// Asks, and says nothing where all is well.
    async fn run(&self, deadline: Instant) -> Result<(), Failure>;

    /// Where what is asked is too slow, too far away or too dear to be asked in the path of a probe, such as somebody else's
    /// status page: how it is asked in the background instead.
    ///
    /// Whatever makes a check of settings sees to that ([`crate::background::Background`]), so the check itself asks and
    /// caches nothing.
    fn refresh(&self) -> Option<Refresh> {
        None
    }

    /// The workers that it is about, for people to look at beside its answer, `most` at most. Nothing where it is about none, or
    /// cannot tell one from another.
    ///
    /// Who asks for them does so beside [`Check::run`], which must not wait for it.
    async fn workers(&self, _most: usize, _deadline: Instant) -> Option<Result<Workers, Failure>> {
        None
    }
}

/// The workers that a check is about, the worst first.
#[derive(Clone, Debug)]
pub struct Workers {
    /// The name of their cluster; empty where nobody tells it.
    pub cluster: String,
    /// The workers.
    pub workers: Vec<Worker>,
    /// Whether there are more.
    pub more: bool,
    /// How many there are; nothing where it is about one worker alone, or where they were not counted.
    pub counts: Option<Counts>,
}

/// How many workers a cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Those that beat within their promise.
    pub fresh: u64,
    /// Those of them that can take work.
    pub ready: u64,
    /// Those that went silent and have not started anew.
    pub lost: u64,
    /// Those that count, by the queues that the check asks about.
    pub queues: Vec<(String, u64)>,
}

/// One worker as it was judged. Names are what it says of itself.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name; empty where it tells none.
    pub name: String,
    /// The host that it runs on; empty where it tells none.
    pub host: String,
    /// Its incarnation, where it tells that.
    pub id: Option<String>,
    /// Since it was last heard of, where that is known.
    pub age_ms: Option<u64>,
    /// The queues that it takes work from.
    pub queues: Vec<String>,
    /// What is concluded of it.
    pub verdict: Verdict,
    /// Why, as one sentence.
    pub reason: String,
    /// The running task whose deadline is nearest, and how many milliseconds are left until then; below zero where it is late, and
    /// nothing where it has none.
    pub nearest: Option<(String, Option<i64>)>,
}

impl Worker {
    /// The task that a record of this age tells, for [`Worker::nearest`].
    pub(crate) fn nearest_of(record: &Record, age_ms: u64) -> Option<(String, Option<i64>)> {
        let now = record.at_mono_ms.saturating_add(age_ms);
        let left = |due: u64| i64::try_from(i128::from(due) - i128::from(now)).unwrap_or(i64::MAX);
        let nearest = record.tasks.nearest.as_ref()?;
        Some((nearest.name.clone(), nearest.due_mono_ms.map(left)))
    }
}

/// How a check is asked in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// How often.
    pub every: Duration,
    /// How old an answer may be that is still told.
    pub max_stale: Duration,
}

/// Why a check did not pass: words that anybody may read, and apart from them what happened, for the log.
#[derive(Debug)]
pub struct Failure {
    status: Status,
    reason: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// The dependency is not as it should be.
    ///
    /// The reason is public. It consists of fixed words, numbers, and names that stand in the configuration; never of what
    /// a peer or an error said. It is a sentence without capital and full stop, such as `2 migrations are not applied`.
    pub fn failed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Fail, reason: reason.into(), source: None }
    }

    /// It is good enough to work with, and somebody should look.
    pub fn warning(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Warn, ..Self::failed(reason) }
    }

    /// Nobody can tell from here: the question could not be asked, for want of something on this side.
    pub fn unknown(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Unknown, ..Self::failed(reason) }
    }

    /// The same, with what happened. It goes to the log and nowhere else; it must hold no secret all the same.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same where not being able to ask tells nothing of what is asked about.
    #[must_use]
    pub fn as_unknown(self) -> Self {
        Self { status: Status::Unknown, ..self }
    }

    /// The same once more, what happened as text.
    #[must_use]
    pub fn again(&self) -> Self {
        let source = self.source.as_deref().map(|source| chain(source).into());
        Self { status: self.status, reason: self.reason.clone(), source }
    }

    /// What it amounts to: anything but [`Status::Pass`].
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why, for everyone.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The reason alone.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// The most that is kept of an error's text.
const LONGEST: usize = 2_000;

/// An error and what caused it, on one line of bounded length, without what is [hidden](crate::hidden). What only repeats the end
/// of what it explains is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source.filter(|_| text.len() < LONGEST) {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    let mut text = without_secrets(&text);
    text.truncate(text.floor_char_boundary(LONGEST));
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::hide;

    #[test]
    fn no_part_of_a_secret_is_left_where_an_error_is_cut_off_or_put_on_one_line() {
        const SECRET: &str = "Qx7\nZq9-Wv";
        let _hidden = hide([SECRET].into_iter());
        for before in 0..=LONGEST {
            let failure = Failure::failed("no").because(format!("{}{SECRET}", "x".repeat(before)));
            for told in [chain(&failure), chain(&failure.again())] {
                assert!(!told.contains("Qx") && !told.contains("Wv"), "{told}");
                assert!(told.len() <= LONGEST);
            }
        }
    }
}
