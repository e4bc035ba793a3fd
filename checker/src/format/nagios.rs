//! A monitoring plugin's one line: `HEARTBEAT STATE - what | performance data`, `CHECKS …` of a report (Monitoring Plugins Development
//! Guidelines), and its exit status.

use std::fmt::Write;

use shared::Status;
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::Answer;
#[cfg(feature = "run")]
use shared::runner::{Overall, Report};

use super::plain::Plain;
use super::text::Line;
use crate::exit::PluginState;

/// The state of an answer. Where nobody can tell, plugins have a word for it, so no policy changes it.
pub fn state(status: Status) -> PluginState {
    match status {
        Status::Pass => PluginState::Ok,
        Status::Warn => PluginState::Warning,
        Status::Fail => PluginState::Critical,
        Status::Unknown => PluginState::Unknown,
    }
}

/// A line without performance data.
pub fn line(state: PluginState, what: &str) -> String {
    format!("{}\n", text(state, what))
}

/// An answer about a worker, with its beat's age (critical above its budget) and its tasks.
pub fn worker(answer: &Answer) -> String {
    let mut line = text(state(answer.status), &Line(answer).to_string());
    let mut data = Vec::new();
    if let Some(age_ms) = answer.age_ms {
        let critical = answer.budget_ms.map(seconds).unwrap_or_default();
        data.push(format!("age={}s;;{critical};0", seconds(age_ms)));
    }
    if let Some(record) = &answer.record {
        let tasks = &record.tasks;
        data.push(format!("running={};;;0 done={}c failed={}c", tasks.running, tasks.done, tasks.failed));
    }
    if !data.is_empty() {
        line.push_str(" | ");
        line.push_str(&data.join(" "));
    }
    line.push('\n');
    line
}

/// An answer about a cluster, with its counts; a list follows as the plugin's long output.
#[cfg(feature = "redis")]
pub fn cluster(answer: &cluster::Answer) -> String {
    let mut line = text(state(answer.status), &super::text::ClusterLine(answer).to_string());
    if let Some(facts) = &answer.facts {
        let cluster::Facts { fresh, ready, lost_count, .. } = facts;
        // Writing to a string cannot fail.
        let _ = write!(line, " | fresh={fresh};;;0 ready={ready};;;0 lost={lost_count};;;0");
        for (queue, count) in answer.queues.iter().zip(&facts.queues) {
            let _ = write!(line, " {}={count};;{}:;0", label(&queue.name), queue.min);
        }
    }
    line.push('\n');
    if let Some(roll) = &answer.roll {
        line.push_str(&super::text::table(roll).replace('|', "\\u{7c}"));
    }
    line
}

/// The state of a report: what failed comes before what nobody can tell.
#[cfg(feature = "run")]
pub fn report_state(report: &Report) -> PluginState {
    let any = |status| report.outcomes.iter().any(|outcome| outcome.status == status);
    match report.status {
        Overall::Ok => PluginState::Ok,
        Overall::Warning => PluginState::Warning,
        Overall::Fail if any(Status::Fail) => PluginState::Critical,
        Overall::Fail => PluginState::Unknown,
    }
}

/// A report, with each check's time; the checks follow as the plugin's long output.
#[cfg(feature = "run")]
pub fn report(subset: &str, report: &Report) -> String {
    let mut text = service("CHECKS", report_state(report), &super::text::summary(subset, report));
    let data = report
        .outcomes
        .iter()
        .map(|outcome| format!("'{}'={:.6}s;;;0", outcome.name, outcome.took.as_secs_f64()));
    let data: Vec<_> = data.collect();
    if !data.is_empty() {
        text.push_str(" | ");
        text.push_str(&data.join(" "));
    }
    text.push('\n');
    let lines = super::text::report(report.status.as_str(), subset, report, super::Shown::ALL)
        .replace('|', "\\u{7c}");
    text.extend(lines.split_inclusive('\n').take(report.outcomes.len()));
    text
}

/// A queue's name as a label: quoted, and without what a label may not hold.
#[cfg(feature = "redis")]
fn label(queue: &str) -> String {
    format!("'queue {}'", Plain(queue).to_string().replace(['\'', '=', '|'], "_"))
}

fn text(state: PluginState, what: &str) -> String {
    service("HEARTBEAT", state, what)
}

fn service(name: &str, state: PluginState, what: &str) -> String {
    let word = match state {
        PluginState::Ok => "OK",
        PluginState::Warning => "WARNING",
        PluginState::Critical => "CRITICAL",
        PluginState::Unknown => "UNKNOWN",
    };
    // Performance data begin at the first bar.
    format!("{name} {word} - {}", Plain(what)).replace('|', "\\u{7c}")
}

fn seconds(ms: u64) -> String {
    let mut text = (ms / 1_000).to_string();
    if !ms.is_multiple_of(1_000) {
        // Writing to a string cannot fail.
        let _ = write!(text, ".{:03}", ms % 1_000);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, samples};

    #[test]
    fn a_healthy_worker_is_ok_with_its_numbers() {
        let expected = "HEARTBEAT OK - alive: busy, beat 812 ms ago, 1 task running (orders@web-3:17, /run/beat) \
                        | age=0.812s;;30;0 running=1;;;0 done=41c failed=2c\n";
        assert_eq!(worker(&samples::alive()), expected);
        assert_eq!(
            worker(&samples::missing()),
            "HEARTBEAT CRITICAL - missing: there is no beat file (/run/beat)\n"
        );
    }

    #[test]
    fn every_answer_is_one_line_with_its_state_and_one_bar_at_most() {
        for answer in samples::all() {
            let shown = worker(&answer);
            let (word, code) = match answer.status {
                Status::Pass => ("OK", 0),
                Status::Warn => ("WARNING", 1),
                Status::Fail => ("CRITICAL", 2),
                Status::Unknown => ("UNKNOWN", 3),
            };
            assert!(shown.starts_with(&format!("HEARTBEAT {word} - {}: ", answer.verdict)), "{shown}");
            assert_eq!(Format::Nagios.worker_exit(&answer).code(), code);
            assert_eq!(shown.matches(char::is_control).count(), 1, "{shown:?}");
            assert!(shown.matches('|').count() <= 1, "{shown}");
        }
    }

    #[test]
    fn seconds_have_no_more_digits_than_they_need() {
        for (ms, text) in [(0, "0"), (7, "0.007"), (812, "0.812"), (30_000, "30"), (61_500, "61.500")] {
            assert_eq!(seconds(ms), text);
        }
    }
}
