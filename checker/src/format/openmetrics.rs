//! `OpenMetrics` 1.0 text, as a textfile collector or a scrape takes it.

use std::fmt::Write;

use heartbeat::verdict::Verdict;
#[cfg(feature = "redis")]
use shared::Status;
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::Answer;
#[cfg(feature = "run")]
use shared::runner::{Outcome, Report, Warnings};

#[cfg(feature = "run")]
use super::Shown;

/// A gauge: its name, and what it tells.
pub type Gauge = (&'static str, &'static str);

/// The verdict on a worker.
pub const VERDICT: Gauge = ("heartbeat_worker_verdict", "1 for the worker's verdict, 0 for all others.");
/// The age of a beat.
pub const AGE: Gauge = ("heartbeat_beat_age_seconds", "How long ago the last beat was made.");
/// How many workers a cluster has.
#[cfg(any(feature = "redis", feature = "serve"))]
pub const WORKERS: Gauge =
    ("heartbeat_cluster_workers", "Workers: that beat, that take work, and that are lost.");
/// How many of them count, by queue.
#[cfg(any(feature = "redis", feature = "serve"))]
pub const QUEUE_WORKERS: Gauge = ("heartbeat_cluster_queue_workers", "Workers that take work from a queue.");
/// The verdict on each worker of a cluster. Those that do not hold would be many.
#[cfg(any(feature = "redis", feature = "serve"))]
pub const WORKER_VERDICT: Gauge = ("heartbeat_cluster_worker_verdict", "1 for the verdict of each worker.");
/// The age of what was last heard of each worker of a cluster.
#[cfg(any(feature = "redis", feature = "serve"))]
pub const WORKER_AGE: Gauge =
    ("heartbeat_cluster_worker_age_seconds", "How long ago each worker was last heard of.");

/// An answer about a worker. Every sample carries its file, and its worker and cluster where they are known.
pub fn worker(answer: &Answer) -> String {
    let mut exposition = Exposition { text: String::new(), labels: labels(answer) };
    exposition.family(
        "heartbeat_worker_up",
        "gauge",
        "Whether the worker is what was asked for, live or ready.",
    );
    exposition.sample("heartbeat_worker_up", &[("for", answer.want.as_str())], u64::from(answer.passed));
    exposition.gauge(VERDICT);
    exposition.verdicts(&[], answer.verdict);
    if let Some(age_ms) = answer.age_ms {
        exposition.seconds_family(AGE.0, AGE.1);
        exposition.seconds(AGE, &[], age_ms);
    }
    if let Some(budget_ms) = answer.budget_ms {
        const BUDGET: Gauge = ("heartbeat_beat_budget_seconds", "How old the last beat may be.");
        exposition.seconds_family(BUDGET.0, BUDGET.1);
        exposition.seconds(BUDGET, &[], budget_ms);
    }
    if let Some(record) = &answer.record {
        let tasks = &record.tasks;
        exposition.family("heartbeat_tasks_running", "gauge", "Tasks that run now.");
        exposition.sample("heartbeat_tasks_running", &[], tasks.running);
        exposition.counter(
            "heartbeat_tasks_done",
            "Tasks that ended well since the worker's start.",
            tasks.done,
        );
        exposition.counter(
            "heartbeat_tasks_failed",
            "Tasks that failed since the worker's start.",
            tasks.failed,
        );
        exposition.counter("heartbeat_beats", "Beats since the worker's start.", record.seq);
    }
    exposition.end()
}

/// An answer about a cluster. What is not known has no sample.
#[cfg(feature = "redis")]
pub fn cluster(answer: &cluster::Answer) -> String {
    let labels = vec![("cluster", answer.cluster.clone())];
    let mut exposition = Exposition { text: String::new(), labels };
    exposition.family("heartbeat_cluster_up", "gauge", "Whether the cluster is as it was asked for.");
    exposition.sample("heartbeat_cluster_up", &[("for", answer.want.as_str())], u64::from(answer.passed));
    exposition.family("heartbeat_cluster_status", "gauge", "1 for the status that holds, 0 for all others.");
    for status in Status::ALL {
        let holds = u64::from(status == answer.status);
        exposition.sample("heartbeat_cluster_status", &[("status", status.as_str())], holds);
    }
    if let Some(facts) = &answer.facts {
        exposition.gauge(WORKERS);
        exposition.counts(&[], [facts.fresh, facts.ready, facts.lost_count]);
        if !answer.queues.is_empty() {
            exposition.gauge(QUEUE_WORKERS);
        }
        for (queue, count) in answer.queues.iter().zip(&facts.queues) {
            exposition.sample(QUEUE_WORKERS.0, &[("queue", &queue.name)], *count);
        }
    }
    if let Some(roll) = &answer.roll {
        exposition.list(roll);
    }
    exposition.end()
}

/// A report. A subset's samples carry its name, a check's its own as well.
#[cfg(feature = "run")]
pub fn report(subset: &str, report: &Report, warnings: Warnings, shown: Shown) -> String {
    const WORDS: [&str; 4] = ["ok", "warning", "fail", "unknown"];
    const TIME: &str = "checker_check_duration_seconds";
    let mut exposition = Exposition { text: String::new(), labels: vec![("subset", subset.to_owned())] };
    exposition.family("checker_subset_up", "gauge", "Whether the subset passed.");
    exposition.sample("checker_subset_up", &[], u64::from(report.status.passes(warnings)));
    exposition.family("checker_check_status", "gauge", "1 for the status that holds, 0 for all others.");
    for outcome in &report.outcomes {
        for word in WORDS {
            let own = [("check", outcome.name.as_str()), ("status", word)];
            exposition.sample("checker_check_status", &own, u64::from(word == outcome.word()));
        }
    }
    if shown.durations {
        exposition.seconds_family(TIME, "How long the check took.");
        for Outcome { name, took, .. } in &report.outcomes {
            exposition.sample(TIME, &[("check", name)], format_args!("{:.6}", took.as_secs_f64()));
        }
    }
    exposition.end()
}

fn labels(answer: &Answer) -> Vec<(&'static str, String)> {
    let mut labels = vec![("file", answer.file.to_string_lossy().into_owned())];
    if let Some(record) = &answer.record {
        labels.push(("cluster", record.cluster.clone()));
        labels.push(("worker", record.worker.clone()));
    }
    labels
}

/// An exposition that is being written. Writing to a string cannot fail, so results of that are dropped below.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    labels: Vec<(&'static str, String)>,
}

impl Exposition {
    /// Begins a family of samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }

    /// Begins a family of times, whose name ends in `_seconds`.
    pub fn seconds_family(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.text, "# TYPE {name} gauge\n# UNIT {name} seconds\n# HELP {name} {help}");
    }

    /// The whole text.
    pub fn end(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    /// Begins a gauge.
    pub fn gauge(&mut self, (name, help): Gauge) {
        self.family(name, "gauge", help);
    }

    /// A time of a family that was begun.
    pub fn seconds(&mut self, (name, _): Gauge, own: &[(&str, &str)], ms: u64) {
        self.sample(name, own, format_args!("{}.{:03}", ms / 1_000, ms % 1_000));
    }

    /// A verdict that holds, and all that do not.
    pub fn verdicts(&mut self, own: &[(&str, &str)], holds: Verdict) {
        for verdict in Verdict::ALL {
            let own = [own, &[("verdict", verdict.as_str())]].concat();
            self.sample(VERDICT.0, &own, u64::from(verdict == holds));
        }
    }

    /// How many workers there are: fresh, ready and lost ones.
    #[cfg(any(feature = "redis", feature = "serve"))]
    pub fn counts(&mut self, own: &[(&str, &str)], counts: [u64; 3]) {
        for (state, count) in ["fresh", "ready", "lost"].into_iter().zip(counts) {
            self.sample(WORKERS.0, &[own, &[("state", state)]].concat(), count);
        }
    }

    #[cfg(feature = "redis")]
    fn list(&mut self, roll: &cluster::Roll) {
        self.gauge(WORKER_VERDICT);
        for listed in &roll.workers {
            let own = [&listed_labels(listed)[..], &[("verdict", listed.verdict.as_str())]].concat();
            self.sample(WORKER_VERDICT.0, &own, 1);
        }
        self.seconds_family(WORKER_AGE.0, WORKER_AGE.1);
        for (listed, age_ms) in roll.workers.iter().filter_map(|listed| Some((listed, listed.age_ms?))) {
            self.seconds(WORKER_AGE, &listed_labels(listed), age_ms);
        }
    }

    /// One sample, with the labels that all of them have and its own.
    pub fn sample(&mut self, name: &str, own: &[(&str, &str)], value: impl std::fmt::Display) {
        let common = self.labels.iter().map(|(name, value)| (*name, value.as_str()));
        let labels: Vec<_> = common
            .chain(own.iter().copied())
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let _ = writeln!(self.text, "{name}{{{}}} {value}", labels.join(","));
    }
}

#[cfg(feature = "redis")]
fn listed_labels(listed: &cluster::Listed) -> Vec<(&str, &str)> {
    let mut own = vec![("worker", listed.worker.as_str()), ("host", listed.host.as_str())];
    own.extend(listed.id.as_deref().map(|id| ("id", id)));
    own
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    #[test]
    fn the_samples_of_a_healthy_worker() {
        let shown = worker(&samples::alive());
        let names = r#"file="/run/beat",cluster="orders",worker="web-3:17""#;
        for line in [
            &format!("heartbeat_worker_up{{{names},for=\"live\"}} 1"),
            &format!("heartbeat_worker_verdict{{{names},verdict=\"alive\"}} 1"),
            &format!("heartbeat_worker_verdict{{{names},verdict=\"cut off\"}} 0"),
            &format!("heartbeat_beat_age_seconds{{{names}}} 0.812"),
            &format!("heartbeat_beat_budget_seconds{{{names}}} 30.000"),
            &format!("heartbeat_tasks_done_total{{{names}}} 41"),
            "# TYPE heartbeat_tasks_done counter",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\nis not in\n{shown}");
        }
        assert!(shown.ends_with("\n# EOF\n"));
    }

    #[test]
    fn no_name_leaves_its_quotes() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
        for answer in samples::all() {
            for line in worker(&answer).lines().filter(|line| !line.starts_with('#')) {
                assert!(line.starts_with("heartbeat_") && line.contains("{file=\""), "{line}");
            }
        }
    }

    #[test]
    fn exactly_one_verdict_holds() {
        for answer in samples::all() {
            let shown = worker(&answer);
            let holds: Vec<_> =
                shown.lines().filter(|line| line.contains("_verdict{") && line.ends_with(" 1")).collect();
            assert_eq!(holds.len(), 1);
            assert!(holds[0].contains(&format!("verdict=\"{}\"", answer.verdict)));
        }
    }
}
