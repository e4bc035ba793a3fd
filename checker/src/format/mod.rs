//! How answers are shown: one file a format, and the list of them.
//!
//! A format turns an answer into text that ends in a newline and into the exit status that goes with it. It
//! decides nothing: what an answer amounts to stands in the answer.

pub mod health;
pub mod json;
mod nagios;
pub mod openmetrics;
pub mod plain;
#[cfg(test)]
mod samples;
pub mod text;
pub mod time;

use clap::ValueEnum;
use shared::Status;
#[cfg(feature = "redis")]
use shared::checks::cluster;
use shared::checks::worker::Answer;
#[cfg(feature = "run")]
use shared::runner::{Report, Warnings};

use crate::exit::{Exit, PluginState};

/// How much of a report is told.
#[cfg(feature = "run")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Why a check did not pass, in the words for everyone.
    pub reasons: bool,
    /// How long each check took.
    pub durations: bool,
}

#[cfg(feature = "run")]
impl Shown {
    /// All of it: to who asks on a command line.
    pub const ALL: Self = Self { reasons: true, durations: true };
}

/// The formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One readable line
    #[default]
    Text,
    /// One JSON object on one line
    Json,
    /// application/health+json, draft-inadarei-api-health-check-06
    #[value(name = "health+json")]
    HealthJson,
    /// A monitoring plugin's line with performance data, and its exit statuses
    Nagios,
    /// Its text format, version 1.0
    #[value(help = "OpenMetrics 1.0, for a textfile collector")]
    Openmetrics,
}

impl Format {
    /// An answer about a worker, as text.
    pub fn worker(self, answer: &Answer) -> String {
        match self {
            Self::Text => text::worker(answer),
            Self::Json => json::worker(answer),
            Self::HealthJson => health::worker(answer),
            Self::Nagios => nagios::worker(answer),
            Self::Openmetrics => openmetrics::worker(answer),
        }
    }

    /// How a command ends that gives this answer about a worker.
    pub fn worker_exit(self, answer: &Answer) -> Exit {
        self.exit(answer.status, answer.passed)
    }

    fn exit(self, status: Status, passed: bool) -> Exit {
        match (self, passed) {
            (Self::Nagios, _) => Exit::Plugin(nagios::state(status)),
            (_, true) => Exit::Passed,
            (_, false) => Exit::Failed,
        }
    }

    /// An answer about a cluster, as text.
    #[cfg(feature = "redis")]
    pub fn cluster(self, answer: &cluster::Answer) -> String {
        match self {
            Self::Text => text::cluster(answer),
            Self::Json => json::cluster(answer),
            Self::HealthJson => health::cluster(answer),
            Self::Nagios => nagios::cluster(answer),
            Self::Openmetrics => openmetrics::cluster(answer),
        }
    }

    /// How a command ends that gives this answer about a cluster.
    #[cfg(feature = "redis")]
    pub fn cluster_exit(self, answer: &cluster::Answer) -> Exit {
        self.exit(answer.status, answer.passed)
    }

    /// A report of a subset's checks, as text.
    #[cfg(feature = "run")]
    pub fn report(self, subset: &str, report: &Report, warnings: Warnings) -> String {
        match self {
            Self::Text => text::report(report.status.as_str(), subset, report, Shown::ALL),
            Self::Json => json::report(report.status.as_str(), report, Shown::ALL),
            Self::HealthJson => health::report(subset, report, Shown::ALL),
            Self::Nagios => nagios::report(subset, report),
            Self::Openmetrics => openmetrics::report(subset, report, warnings, Shown::ALL),
        }
    }

    /// How a command ends that gives this report.
    #[cfg(feature = "run")]
    pub fn report_exit(self, report: &Report, warnings: Warnings) -> Exit {
        match self {
            Self::Nagios => Exit::Plugin(nagios::report_state(report)),
            _ if report.status.passes(warnings) => Exit::Passed,
            _ => Exit::Failed,
        }
    }

    /// What stands on standard output where the arguments are wrong or the command fails: nothing, but for a
    /// monitoring plugin, of which nothing else is shown.
    pub fn failure(self, what: &str) -> String {
        match self {
            Self::Nagios => nagios::line(PluginState::Unknown, what),
            _ => String::new(),
        }
    }

    /// How a command ends that gave no answer.
    pub fn failure_exit(self, otherwise: Exit) -> Exit {
        match self {
            Self::Nagios => Exit::Plugin(PluginState::Unknown),
            _ => otherwise,
        }
    }
}

#[cfg(test)]
#[cfg(feature = "redis")]
mod tests {
    use shared::checks::cluster::{Facts, Missing, Question, Queue, Silent};

    use super::*;

    /// An answer whose every name means harm.
    fn harmed(harm: &str) -> cluster::Answer {
        let name = harm.to_owned();
        let mut answer = Question::new("heartbeat", "redis://h", harm)
            .cannot_tell(format!("why {harm}"), Some(name.clone()));
        answer.queues = vec![Queue { name: name.clone(), min: 1 }];
        answer.facts = Some(Facts {
            queues: vec![3],
            lost: vec![Silent { worker: name.clone(), silent_ms: 1 }],
            lost_count: 1,
            missing: vec![Missing { worker: name.clone(), why: name }],
            ..Facts::default()
        });
        answer
    }

    #[test]
    fn whatever_a_clusters_names_hold_they_stay_within_their_place_in_the_format() {
        for harm in
            ["a\u{202e}b\n\u{1b}[2J", "a | age=1s", "\"},\"status\":\"pass", "a\" 1\\", "# EOF", "'a'='b'"]
        {
            let answer = harmed(harm);
            for format in [Format::Text, Format::Nagios, Format::Json, Format::HealthJson] {
                let shown = format.cluster(&answer);
                assert_eq!(shown.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{shown:?}");
            }
            let read: serde_json::Value = serde_json::from_str(&Format::Json.cluster(&answer)).unwrap();
            assert_eq!((&read["status"], &read["cluster"]), (&"unknown".into(), &harm.into()));
            assert_eq!(read["queues"][harm], 3);
            let nagios = Format::Nagios.cluster(&answer);
            assert_eq!(nagios.matches('|').count(), 1, "{nagios}");
            let metrics = Format::Openmetrics.cluster(&answer);
            assert!(
                metrics.lines().all(|line| line.starts_with("heartbeat_cluster_") || line.starts_with("# "))
            );
            assert_eq!(metrics.matches("# EOF\n").count(), 1, "{metrics}");
        }
    }
}
