//! One line for people.

use std::fmt;

#[cfg(any(feature = "redis", feature = "run"))]
use heartbeat::duration::Human;
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::Answer;
#[cfg(feature = "run")]
use shared::runner::{Outcome, Report};

#[cfg(feature = "run")]
use super::Shown;
use super::plain::Plain;

/// `VERDICT: REASON (CLUSTER@WORKER, FILE)`.
pub fn worker(answer: &Answer) -> String {
    format!("{}\n", Plain(Line(answer)))
}

/// The same without its newline, for lines that hold more.
pub struct Line<'a>(pub &'a Answer);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { verdict, reason, file, record, .. } = self.0;
        write!(f, "{verdict}: {reason} (")?;
        if let Some(record) = record {
            write!(f, "{}@{}, ", record.cluster, record.worker)?;
        }
        write!(f, "{})", file.display())
    }
}

/// `STATUS: REASON (CLUSTER at PLACE)`, and where a list was asked for, a line for each worker.
#[cfg(feature = "redis")]
pub fn cluster(answer: &cluster::Answer) -> String {
    let mut text = format!("{}\n", Plain(ClusterLine(answer)));
    if let Some(roll) = &answer.roll {
        text.push_str(&table(roll));
    }
    text
}

/// An answer about a cluster, for lines that hold more.
#[cfg(feature = "redis")]
pub struct ClusterLine<'a>(pub &'a cluster::Answer);

#[cfg(feature = "redis")]
impl fmt::Display for ClusterLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster::Answer { status, cluster, place, .. } = self.0;
        write!(f, "{status}: {} ({cluster} at {place})", self.0.explanation())
    }
}

/// The workers in columns as wide as their widest name.
#[cfg(feature = "redis")]
pub fn table(roll: &cluster::Roll) -> String {
    let names = |worker: &cluster::Listed| {
        let host = if worker.host.is_empty() { "-" } else { &worker.host };
        [Plain(&worker.worker).to_string(), Plain(host).to_string()]
    };
    let mut widths = ["WORKER".len(), "HOST".len()];
    for worker in &roll.workers {
        for (width, name) in widths.iter_mut().zip(names(worker)) {
            *width = name.chars().count().max(*width);
        }
    }
    let [wide, host_wide] = widths;
    let last = if roll.workers.iter().any(|worker| worker.tasks.is_some()) { "TASKS" } else { "QUEUES" };
    let mut text =
        format!("{:wide$}  VERDICT        {:>8}  {:host_wide$}  {last}\n", "WORKER", "AGE", "HOST");
    for worker in &roll.workers {
        let [name, host] = names(worker);
        let tasks = worker.tasks.map(|tasks| format!("{} running, {} done", tasks.running, tasks.done));
        let verdict = worker.verdict.as_str();
        let age = worker.age_ms.map_or_else(|| "-".to_owned(), |age_ms| Human(age_ms).to_string());
        let last = tasks.unwrap_or_else(|| worker.queues.join(" "));
        let line = format!("{name:wide$}  {verdict:13}  {age:>8}  {host:host_wide$}  {last}");
        text.push_str(Plain(&line).to_string().trim_end());
        text.push('\n');
    }
    if roll.more {
        text.push_str("… and more\n");
    }
    text
}

/// `STATUS: CHECK: REASON (TIME)` for each check, and `WORD: SUBSET: 3 ok, 1 fail` in the last line.
#[cfg(feature = "run")]
pub fn report(word: &str, subset: &str, report: &Report, shown: Shown) -> String {
    let mut lines: Vec<_> = report.outcomes.iter().map(|outcome| outcome_line(outcome, shown)).collect();
    lines.push(format!("{word}: {}", summary(subset, report)));
    lines.iter().map(|line| Plain(line).to_string() + "\n").collect()
}

#[cfg(feature = "run")]
fn outcome_line(outcome: &Outcome, shown: Shown) -> String {
    let Outcome { name, reason, took, .. } = outcome;
    let reason = reason.as_ref().filter(|_| shown.reasons);
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let took = Human(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let took = if shown.durations { format!(" ({took})") } else { String::new() };
    format!("{}: {name}{reason}{took}", outcome.word())
}

/// `SUBSET: 3 ok, 1 fail`: how many checks have each status.
#[cfg(feature = "run")]
pub fn summary(subset: &str, report: &Report) -> String {
    let count = |word: &&str| report.outcomes.iter().filter(|outcome| outcome.word() == *word).count();
    let counts = ["ok", "warning", "fail", "unknown"].iter().map(|word| (count(word), word));
    let counts: Vec<_> =
        counts.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    match &counts[..] {
        [] => format!("{subset}: nothing could be asked in time"),
        counts => format!("{subset}: {}", counts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    #[test]
    fn a_line_names_the_verdict_the_reason_the_worker_and_the_file() {
        let shown = worker(&samples::alive());
        assert_eq!(shown, "alive: busy, beat 812 ms ago, 1 task running (orders@web-3:17, /run/beat)\n");
        let shown = worker(&samples::missing());
        assert_eq!(shown, "missing: there is no beat file (/run/beat)\n");
    }

    #[test]
    fn every_answer_is_one_line() {
        for answer in samples::all() {
            let shown = worker(&answer);
            assert_eq!(shown.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{shown:?}");
            assert!(shown.starts_with(&format!("{}: ", answer.verdict)), "{shown}");
        }
    }
}
